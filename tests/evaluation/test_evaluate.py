"""`hf_clip.evaluate` as a Python caller has it; what the figures are, the tests of the command and the tasks say."""

import os
import shutil
from dataclasses import replace

import pytest
from conftest import tiny_model, write_labelled_pictures

import hf_clip
from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source
from hf_clip.evaluation.records import DataFacts, Results
from hf_clip.evaluation.report_folder import folder_in_run

QUIET = hf_clip.EmbedOptions(progress=False)


def figures(results) -> dict[str, float]:
    return {figure.metric: figure.value for figure in results.figures}


def test_in_memory_by_name_and_by_command_it_is_the_same(model_folder, processor, pictures, tmp_path, capsys):
    settings = hf_clip.EvaluationSettings(resamples=20)
    by_name = hf_clip.evaluate(model_folder, pictures, settings, options=QUIET)
    assert capsys.readouterr().out == ""
    opened = hf_clip.evaluate((tiny_model(), processor), open_source(pictures), settings, options=QUIET)
    output = tmp_path / "report"
    arguments = ["--model", str(model_folder), "--data", str(pictures), "--resamples", "20", "--output", str(output)]
    assert main(["evaluate", *arguments]) == 0
    assert by_name == replace(Results.read(output / "results.json"), pictures=[], examples=[])
    assert figures(opened) == figures(by_name)
    assert replace(opened.models[0], name="model") == by_name.models[0]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["model", "pictures", "report"]


def test_models_by_names_of_one_s_own_are_compared_with_the_first(processor, pictures):
    models = {"before": (tiny_model(), processor), "after": (tiny_model(seed=1), processor)}
    results = hf_clip.evaluate(models, pictures, hf_clip.EvaluationSettings(ks=[1], resamples=20), options=QUIET)
    assert [model.name for model in results.models] == ["before", "after"]
    assert {(row.from_, row.to) for row in results.differences} == {("before", "after")}


def test_one_word_is_one_task_and_one_name_a_class(pictures):
    settings = hf_clip.EvaluationSettings(tasks="zero-shot", class_names=["cat", ["dog", "hound"]])
    assert settings.tasks == ("zero-shot",)
    assert settings.class_names == [["cat"], ["dog", "hound"]]


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (None, {}, "model is a NoneType: give a folder, a Hub id, or the pair"),
        ([("a", "b")], {}, "model is a tuple"),
        (["x", "./x"], {}, "names a model twice"),
        ([], {}, "model is an empty list: give one or more"),
        ({}, {}, "model is an empty dict: give one or more"),
        ("x", {"tasks": ["walking"]}, "no task 'walking': choose one of retrieval"),
        ("x", {"templates": "a photo"}, "a photo"),
        ("x", {"split": "test"}, "pictures is opened already, so split can change nothing"),
        ("x", {"data_config": "en"}, "pictures is opened already, so data_config can change nothing"),
        ("x", {"languages": {"zh": "zh"}}, "pictures is opened already: for languages give the data set by name"),
        ("x", {"tasks": ["zero-shot"]}, "pictures was opened without labels: open it with label_column"),
        ("x", {"ks": [9]}, "recall@9 of 8 pictures is always 1"),
    ],
)
def test_wrong_input_is_one_line_before_the_work(model, settings, message, pictures):
    with pytest.raises(InputError, match=message) as caught:
        hf_clip.evaluate(model, open_source(pictures), hf_clip.EvaluationSettings(**settings))
    assert "\n" not in str(caught.value)


def test_options_that_cannot_be_are_named():
    with pytest.raises(InputError, match="batch_size must be 1 or more, not 0"):
        hf_clip.EmbedOptions(batch_size=0)
    with pytest.raises(InputError, match="num_workers must be 0 or more, not -1"):
        hf_clip.EmbedOptions(num_workers=-1)
    for size in ("3", 2.5):
        with pytest.raises(InputError, match=f"batch_size is {size!r}: give a whole number"):
            hf_clip.EmbedOptions(batch_size=size)


def test_a_report_belongs_to_a_run_s_own_folder_alone(tmp_path):
    """By the name and the content of the data, and by the tasks; a download, and a model that is open, are left as
    they are, and so is a checkpoint, which goes."""
    data = DataFacts("/somewhere/images of cats", "test", "0123456789")
    for run in (tmp_path / "run", tmp_path / "checkpoint-3"):
        run.mkdir()
        (run / "training.json").touch()
        assert folder_in_run(run, data, ["knn"]) is None
        (run / "training_args.bin").touch()
    expected = tmp_path / "run" / "evaluation" / "images-of-cats-012345-retrieval-Mine"
    assert folder_in_run(str(tmp_path / "run"), data, ["retrieval", "package.tasks:Mine"]) == expected
    assert folder_in_run(tmp_path / "checkpoint-3", data, ["retrieval"]) is None
    assert folder_in_run(("model", "processor"), data, ["retrieval"]) is None


def test_each_choice_of_tasks_has_a_report_in_the_run_s_folder(model_folder, tmp_path, monkeypatch, caplog):
    run = shutil.copytree(model_folder, tmp_path / "run")
    for name in ("training.json", "training_args.bin"):
        (run / name).touch()
    monkeypatch.setattr("hf_clip.evaluation.evaluate.can_draw", lambda: False)
    settings = [hf_clip.EvaluationSettings(tasks=[task], neighbours=2, resamples=20) for task in ("retrieval", "knn")]
    data = write_labelled_pictures(tmp_path / "data")
    for each in (*settings, settings[0]):
        hf_clip.evaluate(run, data, each, options=QUIET)
    written = [Results.read(file) for file in (run / "evaluation").glob("*/results.json")]
    assert sorted(each.figures[0].task for each in written) == ["knn", "retrieval"]
    monkeypatch.setattr("os.access", lambda path, mode: mode == os.R_OK)
    hf_clip.evaluate(run, data, settings[1], options=QUIET)
    assert "the report is not written beside the model" in caplog.text
