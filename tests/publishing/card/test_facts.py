"""What the publisher says: texts and lists of texts, or one line that names what is neither."""

import pytest

from hf_clip.core.errors import InputError
from hf_clip.core.records import InvalidRecord
from hf_clip.publishing.card.facts import CardDetails


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"license": 5}, "license 5 is no text"),
        ({"license": False}, "license False is no text"),
        ({"description": None}, "description None is no text"),
        ({"credit": ["a"]}, r"credit \['a'\] is no text"),
        ({"language": [1]}, "language 1 is no text"),
        ({"language": False}, "language False is no text"),
        ({"tags": 5}, "tags 5 is no text"),
    ],
)
def test_what_is_no_text_is_named(said, message):
    with pytest.raises(InputError, match=message):
        CardDetails(**said)
    with pytest.raises(InvalidRecord, match=message):
        CardDetails.from_json(said)


def test_one_text_or_any_number_of_them_are_a_list():
    details = CardDetails(language=("en", "zh"), tags="birds", datasets=None)
    assert (details.language, details.tags, details.datasets) == (["en", "zh"], ["birds"], [])
