"""A task from outside, in everything that measures, chooses, draws, prints, publishes and tells."""

import json

import pytest
import yaml
from conftest import tiny_model
from toy_tasks import Darkness
from training_runs import make_trainer

import hf_clip
from hf_clip.cli.main import main
from hf_clip.cli.output import metric_rows
from hf_clip.core.errors import InputError
from hf_clip.evaluation.tasks.registry import TASKS, find_task, owner_of, register
from hf_clip.publishing.card.facts import CardDetails
from hf_clip.publishing.saved_model import SavedModel
from hf_clip.publishing.staging import stage

QUIET = hf_clip.EmbedOptions(progress=False)


@pytest.fixture(autouse=True)
def only_ours(monkeypatch):
    """What a test registers is gone after it."""
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)


def evaluated(pictures, tmp_path, *tasks: str, model=None):
    settings = hf_clip.EvaluationSettings(tasks=tasks, resamples=20)
    return hf_clip.evaluate(model, pictures, settings, output=tmp_path / "evaluation", options=QUIET)


def test_the_command_measures_a_minimal_task_from_a_module_of_one_s_own(model_folder, pictures, tmp_path, capsys):
    arguments = ["--model", str(model_folder), "--data", str(pictures), "--output", str(tmp_path / "out")]
    assert main(["evaluate", *arguments, "--task", "toy_tasks:Brightness", "retrieval", "--resamples", "20"]) == 0
    printed = capsys.readouterr().out
    assert "brightness: 8 images\n" in printed
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    figure = next(figure for figure in results["figures"] if figure["task"] == "brightness")
    assert (figure["metric"], figure["label"], figure["images"]) == ("brightness_mean", "brightness mean", 8)
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert figure["protocol"] == {"component": 0}
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## Brightness\n\n" in page
    assert page.count("## ") == 3  # retrieval, brightness, notes


def test_the_trainer_measures_it_and_chooses_by_it(pictures, tmp_path):
    trainer = make_trainer(
        tmp_path / "run", pictures, eval_tasks=["toy_tasks:Darkness"], metric_for_best_model="darkness_mean",
        load_best_model_at_end=True, eval_strategy="epoch", save_strategy="epoch", num_train_epochs=2,
    )  # fmt: skip
    trainer.train()
    found = [entry["eval_darkness_mean"] for entry in trainer.state.log_history if "eval_darkness_mean" in entry]
    assert trainer.state.best_metric == max(found)
    assert trainer.evaluate()["eval_darkness_mean"] == pytest.approx(max(found))


def test_a_task_names_the_figures_that_may_choose(pictures, tmp_path, capsys):
    find_task("toy_tasks:Darkness")
    run = {"eval_strategy": "epoch", "eval_tasks": ["retrieval"], "metric_for_best_model": "darkness_mean"}
    with pytest.raises(InputError, match="add darkness to eval_tasks, which gives darkness_mean"):
        make_trainer(tmp_path / "run", pictures, **run).train()
    command = ["train", "--train_data", str(pictures), "--output_dir", str(tmp_path / "x"), "--eval_share", "0.5"]
    assert main([*command, "--metric_for_best_model", "darkness_men", "--eval_tasks", "darkness"]) == 2
    assert "zero_shot_map, knn20" in (said := capsys.readouterr().err)
    assert ", darkness_mean\n" in said


def test_charts_are_published_and_examples_only_when_asked_for(processor, model_folder, pictures, tmp_path):
    results = evaluated(pictures, tmp_path, "toy_tasks:Darkness", model=model_folder)
    assert (results.pictures, results.examples) == (["bars_darkness.png", "dark.png"], ["dark.png"])
    details = CardDetails("user/name")
    for name, shown in (("plain", False), ("shown", True)):
        options = hf_clip.PublishOptions(
            details, evaluations=[tmp_path / "evaluation"], pictures=shown or None, run_examples=False
        )
        stage(SavedModel(model_folder), tmp_path / name, options)
        staged = {file.name for file in (tmp_path / name / "evaluation" / "evaluation" / "pictures").iterdir()}
        assert staged == {"bars_darkness.png", *["dark.png"] * shown}


def test_its_card_says_what_it_says(model_folder, pictures, tmp_path):
    card = card_of(model_folder, pictures, tmp_path)
    assert "### Darkness\n\n" in card
    assert "| mean darkness | " in card
    assert "- On pictures it is dark to " in card
    (found,) = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    assert found["task"] == {"type": "other", "name": "Brightness of images"}
    assert found["metrics"][0]["name"] == "mean darkness"


def test_its_card_where_it_is_not_registered(model_folder, pictures, tmp_path, caplog):
    """By what the record says of it; and what cannot be said is said to be missing."""
    known = card_of(model_folder, pictures, tmp_path)
    TASKS.pop("darkness")
    unknown = card_of(model_folder, pictures, tmp_path / "elsewhere", tmp_path / "evaluation")
    added = [line for line in known.splitlines() if line not in unknown.splitlines()]
    assert [line.partition(" to ")[0] for line in added] == ["- On pictures it is dark"]
    assert not [line for line in unknown.splitlines() if line not in known.splitlines()]
    assert "raw darkness" not in known
    assert "- blue darkness: -2.500 [-2." in known
    assert "the task darkness is not registered here: the card shows its figures, and not what" in caplog.text


def card_of(model_folder, pictures, tmp_path, evaluation=None) -> str:
    if evaluation is None:
        evaluated(pictures, tmp_path, "toy_tasks:Darkness", model=model_folder)
    options = hf_clip.PublishOptions(
        CardDetails("user/name"), evaluations=[evaluation or tmp_path / "evaluation"], run_examples=False
    )
    stage(SavedModel(model_folder), tmp_path / "staged", options)
    return (tmp_path / "staged" / "README.md").read_text(encoding="utf-8")


def test_the_terminal_shows_figures_beside_chance_and_of_a_task_without_chances_all():
    find_task("toy_tasks:Brightness"), find_task("toy_tasks:Darkness")
    metrics = {
        "images": 8,
        "brightness_mean": 0.5,
        "darkness_mean": 0.25,
        "darkness_mean_chance": 0,
        "darkness_max": 1,
    }
    assert metric_rows(metrics, {"brightness_mean": 0.75}) == [
        ["brightness mean", 0.5, 0.75, ""],
        ["mean darkness", 0.25, "", 0],
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy_tasks:Bright", "no task at toy_tasks:Bright .AttributeError: module 'toy_tasks' has no attribute"),
        ("nowhere:Task", "no task at nowhere:Task .ModuleNotFoundError: No module named 'nowhere'"),
        ("toy_tasks:Outcome", "toy_tasks:Outcome is no class of tasks: derive it from"),
        ("toy_tasks:Task", "toy_tasks:Task is no whole task: Can't instantiate abstract class Task"),
        (
            "toy_tasks:Untold",
            "toy_tasks:Untold is no whole task: Untold has no title: a task needs name, title, phrase",
        ),
        ("retrieval/zh", "no task 'retrieval/zh'"),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(name, message):
    with pytest.raises(InputError, match=message) as refusal:
        find_task(name)
    assert "\n" not in str(refusal.value)


def test_a_class_that_is_defined_anew_takes_the_place_of_the_old():
    def cell():
        class Mine(Darkness):
            name = "mine"

        return Mine()

    register(cell())
    register(again := cell())
    assert find_task("mine") is again


def test_a_module_s_task_is_made_once():
    first = find_task("toy_tasks:Darkness")
    assert find_task("toy_tasks:Darkness") is find_task("darkness") is first


def test_names_that_settings_could_not_have_are_refused():
    class Odd(Darkness):
        name = "a/b"

    with pytest.raises(ValueError, match="'a/b' is none"):
        register(Odd())


def test_a_figure_is_known_after_the_name_of_its_set():
    assert owner_of("birds_image_retrieval_recall@5").name == "retrieval"
    assert owner_of("my_knn20_projected_leave_one_out_acc1").name == "knn"
    assert owner_of("loss") is None


def test_measured_through_the_function_it_is_what_the_vectors_say(processor, pictures, tmp_path):
    results = evaluated(pictures, tmp_path, "toy_tasks:Brightness", model=(tiny_model(), processor))
    (figure,) = results.figures
    assert -1 <= figure.value <= 1
    assert results.tasks["brightness"].hub_type == ("other", "Brightness of images")
