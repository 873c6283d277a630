"""What is measured on, without a command line; the commands' own tests have the rest."""

import pytest

from hf_clip.core.errors import InputError
from hf_clip.data.sources import Source
from hf_clip.evaluation.data import EvaluationData, EvaluationSettings


def test_data_with_captions_are_for_retrieval(pictures):
    data = EvaluationData(pictures, EvaluationSettings())
    assert data.tasks == ["retrieval"]
    assert isinstance(data.test, Source)
    assert (len(data.test), data.facts.name, data.others) == (8, pictures.name, {})


def test_languages_alone_leave_nothing_else_to_measure(pictures):
    data = EvaluationData(pictures, EvaluationSettings(languages={"en": "caption"}))
    assert (data.tasks, data.test) == ([], None)
    assert data.fingerprints == {"en": data.facts.fingerprint}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ks": [9]}, "recall@9 of 8 pictures is always 1"),
        ({"tasks": ["knn"]}, "label_column"),
        ({"validation_data": "x"}, "validation_data needs train_data"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(settings, message, pictures):
    with pytest.raises(InputError, match=message):
        EvaluationData(pictures, EvaluationSettings(**settings))
