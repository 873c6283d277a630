"""What is measured on, without a command line; the commands' own tests have the rest."""

from pathlib import Path

import pytest
from conftest import write_labelled_pictures

from hf_clip.core.errors import InputError
from hf_clip.data.sources import Source, open_source
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resamples": 0}, "resamples must be 1 or more, not 0"),
        ({"ks": [0]}, "each of ks must be 1 or more, not 0"),
        ({"ks": 1}, "ks is 1: give a list of whole numbers"),
        ({"shots": 2}, "shots is 2: give a list of whole numbers"),
        ({"shots": [0]}, "each of shots must be 1 or more, not 0"),
        ({"seeds": 0}, "seeds must be 1 or more, not 0"),
        ({"neighbours": -3}, "neighbours must be 1 or more, not -3"),
        ({"templates": ["a {}"]}, r"templates are \['a {}'\]: give the name of a set or a file, or one template"),
        ({"languages": "zh"}, "languages are 'zh': give a dict of columns by language"),
        ({"class_names": Path("names.txt")}, "class_names is a Path: give the name of a file as a text, 'names.txt'"),
    ],
)
def test_numbers_and_kinds_are_checked_where_they_are_given(settings, message):
    with pytest.raises(InputError, match=message):
        EvaluationSettings(**settings)


def test_settings_that_can_change_nothing_are_refused(tmp_path):
    folder = write_labelled_pictures(tmp_path / "labelled")
    opened = open_source(folder, label_column="label", captions_required=False)
    for settings, message in (
        ({"train_split": "x"}, "train_split needs train_data, which it is a split of"),
        ({"validation_split": "x"}, "validation_split needs validation_data, which it is a split of"),
        ({"train_data": opened, "train_split": "x"}, "labelled is opened already, so train_split can change nothing"),
        (
            {"train_data": folder, "validation_data": opened, "validation_split": "x", "tasks": "linear-probe"},
            "labelled is opened already, so validation_split can change nothing",
        ),
    ):
        with pytest.raises(InputError, match=message):
            EvaluationData(opened, EvaluationSettings(**{"tasks": "knn"} | settings))
