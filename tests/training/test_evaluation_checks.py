"""What the first evaluation would stumble over is refused before training, with the way to mend it."""

import json

import pytest
from conftest import write_pictures
from training_runs import make_processor, make_trainer

from hf_clip import HFClipTrainingArguments
from hf_clip.core.errors import InputError
from hf_clip.data.dataset import CaptionedImages
from hf_clip.data.sources import open_source
from hf_clip.training.evaluation_checks import check_evaluation

TASKS = ["retrieval", "zero-shot", "knn", "linear-probe"]


def labelled(folder, labels, captioned=True):
    """A picture for each label, which may be a list of several."""
    file = write_pictures(folder, count=len(labels)) / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row, label in zip(rows, labels, strict=True):
        row["label"] = label
        if not captioned:
            del row["caption"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def check(tmp_path):
    """Checks folders, by the names of the sets, for the settings of a run."""
    image_processor = make_processor(tmp_path / "tokenizer").image_processor

    def checked(folders, *, tasks=("retrieval",), best=None, label_column=None, captions_required=True, **settings):
        columns = {"label_column": label_column, "captions_required": captions_required}
        sets = {
            name: CaptionedImages(open_source(folder, **columns), image_processor) for name, folder in folders.items()
        }
        settings = {"eval_tasks": list(tasks), "metric_for_best_model": best, "eval_strategy": "epoch"} | settings
        check_evaluation(HFClipTrainingArguments("unused", use_cpu=True, **settings), sets, lambda dataset: tasks)

    return checked


@pytest.mark.parametrize("classes", [2, 6])
def test_the_metrics_that_may_choose_the_best_model_are_those_measured(classes, tmp_path):
    data = labelled(tmp_path / "data", [f"class {i % classes}" for i in range(60)])
    settings = {"label_column": "label", "eval_tasks": TASKS, "eval_neighbours": 3, "eval_features": "pooled"}
    best = {"metric_for_best_model": "knn_acc1", "eval_strategy": "epoch"}
    trainer = make_trainer(tmp_path / "run", data, **settings, **best)
    with pytest.raises(InputError, match="has no metric_for_best_model 'knn_acc1': choose one of ") as refused:
        trainer.train()
    assert trainer.state.global_step == 0
    named = {name.replace("@K", "@5") for name in str(refused.value).partition("choose one of ")[2].split(", ")}
    metrics = trainer.evaluate()
    assert {f"eval_{name}" for name in named} <= metrics.keys()
    shares = ("acc1", "acc5", "per_class_recall", "recall@5", "map@5", "rank", "_error", "loss")
    assert {f"eval_{name}" for name in named} == {name for name in metrics if name.endswith(shares)}


@pytest.mark.parametrize(
    ("best", "tasks", "message"),
    [
        (
            "zero_shot_acc1",
            ["retrieval"],
            r"eval_tasks are retrieval, .*: add zero-shot to .* zero_shot_acc1,",
        ),
        ("text_retrieval_map@2", ["zero-shot"], r"eval_tasks are zero-shot, .*: add retrieval to eval_tasks, which"),
        ("knn_acc1", ["retrieval"], r"add knn to eval_tasks, which gives knn2_projected_leave_one_out_acc1, "),
        ("knn20_projected_leave_one_out_acc1", ["knn"], r": choose one of loss, knn2_projected_leave_one_out_acc1, "),
        ("linear_probe_acc1", ["linear-probe"], r": choose one of .*linear_probe_projected_own_split_acc1, "),
        ("zero_shot_acc5", ["zero-shot"], r"choose one of loss, zero_shot_acc1, zero_shot_mean"),
    ],
)
def test_a_best_metric_that_the_tasks_do_not_give(best, tasks, message, tmp_path, check):
    data = labelled(tmp_path / "data", ["a", "b"] * 2)
    settings = {"tasks": tasks, "label_column": "label", "eval_neighbours": 2}
    with pytest.raises(InputError, match=message):
        check({"": data}, best=best, **settings)
    with pytest.raises(InputError, match=r"^the evaluation set birds, "):
        check({"birds": data}, best=f"birds_{best}", **settings)
    check({"": data}, best=best, eval_strategy="no", **settings)


def test_a_best_metric_of_labels_that_the_set_has_not_says_so(pictures, check):
    with pytest.raises(InputError, match=r"tasks are retrieval, has no metric.*, and .* no labels, which knn needs"):
        check({"": pictures}, best="knn_acc1")


def test_the_loss_needs_captions(tmp_path, check):
    data = labelled(tmp_path / "data", [0, 1] * 2, captioned=False)
    settings = {"tasks": ["knn"], "label_column": "label", "captions_required": False, "eval_neighbours": 2}
    check({"": data}, best="knn2_projected_leave_one_out_acc1", **settings)
    with pytest.raises(
        InputError, match="no metric_for_best_model 'loss': choose one of knn2_projected_leave_one_out"
    ):
        check({"": data}, best="loss", **settings)


def test_a_set_is_found_by_its_whole_name(tmp_path, check):
    """The 3 pictures of b, or of bird_small, do not bear on a metric of bird."""
    folders = {"b": 3, "bird": 8, "bird_small": 3}
    folders = {name: write_pictures(tmp_path / name, count=count) for name, count in folders.items()}
    check(folders, best="bird_image_retrieval_recall@5")
    check(folders, best="eval_bird_small_loss")
    with pytest.raises(InputError, match=r"'birds_loss' .* is of no evaluation set"):
        check(folders, best="birds_loss")
    with pytest.raises(InputError, match="recall@5 of the 3 pictures of the evaluation set bird_small is always 1"):
        check(folders, best="bird_small_image_retrieval_recall@5")


def test_of_several_sets_the_default_metric_is_of_none(pictures, check):
    settings = {"load_best_model_at_end": True, "save_strategy": "epoch"}
    with pytest.raises(InputError, match=r"'loss' .* is of no evaluation set: .* as in b_loss or bird_loss"):
        check({"b": pictures, "bird": pictures}, **settings)
    check({"b": pictures, "bird": pictures})
    check({"": pictures}, **settings)


@pytest.mark.parametrize("task", TASKS[1:])
def test_tasks_of_classes_need_labels(task, pictures, check):
    with pytest.raises(InputError, match=f"^the evaluation set x has no labels, which {task} needs: set label_column"):
        check({"x": pictures}, tasks=["retrieval", task], eval_neighbours=2)


def test_what_else_a_task_needs(tmp_path, check):
    numbers = labelled(tmp_path / "numbers", [0, 1] * 2)
    settings = {"label_column": "label"}
    with pytest.raises(InputError, match="classes of the evaluation set have no names, which zero-shot needs: put"):
        check({"": numbers}, tasks=["zero-shot"], **settings)
    with pytest.raises(InputError, match=r"4 neighbours cannot be chosen from the 3 other pictures of .*: set eval_"):
        check({"": numbers}, tasks=["knn"], eval_neighbours=4, **settings)
    check({"": numbers}, tasks=["knn"], eval_neighbours=3, **settings)
    several = labelled(tmp_path / "several", [["a"], ["a", "b"], ["b"], ["a"]])
    for task in ("knn", "linear-probe"):
        with pytest.raises(InputError, match=f"have several labels, and {task} needs one: set other eval_tasks"):
            check({"": several}, tasks=[task], eval_neighbours=2, **settings)
    check({"": several}, tasks=["zero-shot"], best="zero_shot_map", **settings)
    bare = labelled(tmp_path / "bare", [0, 1] * 2, captioned=False)
    with pytest.raises(InputError, match="has no captions, which retrieval needs: set caption_column"):
        check({"": bare}, captions_required=False, **settings)


def test_a_k_is_of_retrieval_alone(tmp_path, check):
    check({"": labelled(tmp_path / "data", ["a", "b"] * 2)}, tasks=["zero-shot"], label_column="label", eval_k=[100])
