"""Figures in sentences."""

from hf_clip.evaluation.words import percent


def test_percentages_never_round_to_all_or_nothing():
    assert [percent(share) for share in (0, 0.004, 0.5, 0.996, 1)] == ["0 %", "0.4 %", "50 %", "99.6 %", "100 %"]
