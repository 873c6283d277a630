"""A setting that counts is a whole number that is large enough, or is named in one line."""

import numpy as np
import pytest

from hf_clip.core.counts import check_count, check_counts
from hf_clip.core.errors import InputError


def test_numbers_that_count_pass():
    check_count("shots", 1)
    check_count("shots", np.int64(3))
    check_count("workers", 0, least=0)
    check_counts("ks", (1, 5))
    check_counts("ks", [])


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (check_count, 0, "ks must be 1 or more, not 0"),
        (check_count, "3", "ks is '3': give a whole number"),
        (check_count, 2.5, "ks is 2.5: give a whole number"),
        (check_count, True, "ks is True: give a whole number"),
        (check_count, None, "ks is None: give a whole number"),
        (check_counts, 1, "ks is 1: give a list of whole numbers"),
        (check_counts, "15", "ks is '15': give a list of whole numbers"),
        (check_counts, [5, 0], "each of ks must be 1 or more, not 0"),
        (check_counts, ["1"], "each of ks is '1': give a whole number"),
    ],
)
def test_others_are_named(check, value, message):
    with pytest.raises(InputError) as caught:
        check("ks", value)
    assert str(caught.value) == message
