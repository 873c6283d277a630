"""What figures say against a model, in sentences that are worked out by hand."""

import re

import pytest
from cards import RETRIEVAL, TRAINING, ZERO_SHOT, bare_folder, card, figure, put, results, section


@pytest.fixture
def folder(tmp_path, processor):
    return bare_folder(tmp_path / "model", processor)


def test_what_the_figures_say_against_the_model(folder):
    changes = {"notes": {"m / zero-shot": ["2 classes tie"]}, "skipped": [[3, "a.png", "no picture"]]}
    text = card(folder, evaluation=results(RETRIEVAL + ZERO_SHOT, **changes), training=TRAINING)
    said = section(text, "Limits and biases").strip().splitlines()
    assert said[:-1] == [
        "- Retrieval on unseen: given a caption, its picture is among the first 10 of 200 in 55 % of the cases, and "
        "in 45 % it is not; given a picture, one of its captions is among the first 10 of 400 in 34 %.",
        "- It finds pictures clearly better than texts: recall@10 is 0.550 [0.500, 0.600] for pictures and "
        "0.340 [0.300, 0.400] for texts.",
        "- The median rank of the right picture is 8 of 200, that of the right caption 17.5 of 400.",
        "- text → image, recall@1: 0.020 [0.000, 0.040] cannot be told from chance (0.005).",
        "- image → text, recall@1: no model can have more than 0.930 here, as captions stand on several pictures.",
        "- Zero-shot classification on unseen: of 4 classes the right one comes first for 60 % of the pictures, and "
        "another for 40 %.",
        "- Every class counted alike, it is right in 41 %, which is less than over the pictures: rarer classes fare "
        "worse.",
        "- Its probabilities are off by 0.125 on average (expected calibration error): do not take them for "
        "frequencies.",
        "- mean per class recall: 0.410 [0.200, 0.500] cannot be told from chance (0.250).",
        "- zero-shot: 2 classes tie.",
        "- 1 picture of unseen could not be read and was not asked about.",
        "- Not measured: classification by nearest neighbours; a linear probe; pictures and texts of another kind "
        "than those above; differences between groups of people.",
        "- In training, 3 pictures could not be read and were left out.",
    ]
    assert "learned from captions" in said[-1]


def test_directions_that_may_be_alike_are_not_told_apart(folder):
    alike = [figure | {"low": 0.3, "high": 0.6} if figure["k"] == 10 else figure for figure in RETRIEVAL]
    assert "clearly better" not in card(folder, evaluation=results(alike))


def test_a_figure_whose_lower_is_better_is_worse_than_chance_above_it(folder):
    values = {"a": 0.1, "b": 0.5, "c": 0.9}
    figures = [
        figure("blur_error", value, f"blur/{name}", low=value - 0.05, high=value + 0.05, chance=0.5)
        for name, value in values.items()
    ]
    said = section(card(folder, evaluation=results(figures)), "Limits and biases")
    assert "Of 3 languages it reads a best and c worst: blur error is 0.100 [0.050, 0.150] and 0.900 [" in said
    assert [line for line in said.splitlines() if "chance" in line] == [
        "- b, blur error: 0.500 [0.450, 0.550] cannot be told from chance (0.500).",
        "- c, blur error: 0.900 [0.850, 0.950] is above chance (0.500).",
    ]


def test_what_two_evaluations_left_out_alike_is_said_once(folder):
    for place, figures in (("evaluation", RETRIEVAL), ("evaluation/more", ZERO_SHOT)):
        put(folder, f"{place}/results.json", results(figures, skipped=[[3, "a.png", "no picture"]]))
    text = card(folder)
    assert text.count("1 picture of unseen could not be read") == 1
    assert re.findall(r"^### (Retrieval.*)", text, flags=re.MULTILINE) == ["Retrieval"]  # no other has it
