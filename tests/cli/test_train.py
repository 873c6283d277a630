"""`hf-clip train` from end to end, and its complaints."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import write_labelled_pictures, write_pictures
from PIL import Image
from transformers import AutoModel, AutoProcessor

from hf_clip.cli import train
from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.recipes import list_recipes


@pytest.fixture
def command(tower_folders, pictures, tmp_path):
    vision, text = tower_folders
    return [
        "train", "--vision_model", vision, "--text_model", text, "--train_data", str(pictures),
        "--output_dir", str(tmp_path / "run"), "--per_device_train_batch_size", "4", "--num_train_epochs", "1",
        "--projection_dim", "16", "--use_cpu",
    ]  # fmt: skip


def test_trains_evaluates_and_leaves_a_folder(command, pictures, tmp_path, capsys):
    best = ["--load_best_model_at_end", "--save_strategy", "epoch", "--metric_for_best_model"]
    settings = ["--eval_data", str(pictures), "--rotation", "10", "--freeze_text", *best]
    assert main([*command, *settings, "image_retrieval_recall@5"]) == 0
    printed = capsys.readouterr()
    assert "text → image recall@5" in printed.out
    assert "recall@10" not in printed.out, "of 8 pictures it is always 1"
    assert "8 pictures, 8 captions" in printed.out
    assert "it/s" in printed.err
    assert AutoModel.from_pretrained(tmp_path / "run").config.projection_dim == 16


def test_json_is_the_only_thing_on_stdout(command, pictures, capsys):
    assert main([*command, "--eval_data", str(pictures), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 8
    assert result["image_retrieval_chance@1"] == pytest.approx(1 / 8)


def test_without_evaluation_data(command, capsys):
    assert main(command) == 0
    assert "model, metrics and pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--learning_rat", "1"], "unknown setting --learning_rat: did you mean --learning_rate?"),
        (["--num_train_epochs", "many"], "invalid float value: 'many'"),
        (["--vision_model", "scratch/resnet-1"], "choose one of scratch/resnet-10"),
        (["--text_pooling", "sum"], "unknown text_pooling 'sum': choose one of cls, mean, last, pooler"),
        (["--train_data", "nowhere"], "no data at 'nowhere'"),
        (["--caption_column", "title"], "no column 'title': set caption_column to one of file_name, caption"),
        (["--remove_unused_columns", "true"], "remove_unused_columns True is refused"),
        (["--resume_from_checkpoint", "true"], "no whole checkpoint at"),
        (["--projection_dim", "0"], "--projection_dim must be 1 or more, not 0"),
        (["--max_caption_length", "-1"], "--max_caption_length must be 1 or more, not -1"),
        (["--eval_strategy", "epoch"], "--eval_strategy needs --eval_data or --eval_share"),
        (
            ["--metric_for_best_model", "recal"],
            "unknown metric_for_best_model 'recal': choose one of loss, image_retrieval",
        ),
        (["--accelerator_config", "nowhere.json"], "nowhere.json"),
        (["--accelerator_config", '{"spilt_batches": true}'], "spilt_batches"),
        (["--metric_for_best_model", "image_retrieval_recal@7"], "choose one of loss, image_retrieval_recall@K"),
    ],
)
def test_complaints_are_one_line_and_exit_code_2(changes, message, command, tmp_path, capsys):
    assert main([*command, *changes]) == 2
    printed = capsys.readouterr()
    complaint = printed.err.strip().splitlines()[-1]
    assert complaint.startswith("hf-clip train: ")
    assert message in complaint
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert not (tmp_path / "run").exists()


def test_needs_data_and_a_place(capsys):
    assert main(["train", "--output_dir", "x"]) == 2
    assert "no --train_data" in capsys.readouterr().err
    assert main(["train", "--train_data", "x"]) == 2
    assert "no --output_dir" in capsys.readouterr().err


def test_towers_the_wrong_way_round(command, tower_folders, capsys):
    vision, _ = tower_folders
    assert main([*command, "--vision_model", vision, "--text_model", vision]) == 2
    complaint = capsys.readouterr().err.strip().splitlines()[-1]
    assert "were they exchanged?" in complaint or "text_model" in complaint


def test_short_help_is_help(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "-h"])
    assert left.value.code == 0
    assert "--train_data" in capsys.readouterr().out


def test_not_one_readable_picture(command, pictures, capsys):
    for file in pictures.glob("*.png"):
        file.write_bytes(b"")
    assert main(command) == 2
    assert "can be read; the first, 0.png: the file is empty" in capsys.readouterr().err


def test_a_folder_with_a_run_is_left_alone(command, tmp_path, capsys):
    assert main(command) == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert main(command) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


def test_ctrl_c_in_a_real_process_saves_and_goes_on(command, tmp_path):
    data = write_pictures(tmp_path / "more", count=40)
    command = [*command, "--train_data", str(data), "--num_train_epochs", "200", "--logging_steps", "1"]
    start = [sys.executable, "-m", "hf_clip.cli.main"]
    process = subprocess.Popen([*start, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = ""
    deadline = time.monotonic() + 120
    while "'loss'" not in seen and time.monotonic() < deadline:
        seen += process.stderr.read(1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "go on with --resume_from_checkpoint" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    checkpoint = errors.split("--resume_from_checkpoint ")[-1].split()[0]
    step = int(checkpoint.rpartition("-")[2])
    assert main([*command, "--max_steps", str(step + 2), "--resume_from_checkpoint", checkpoint]) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_the_kept_settings_make_the_same_weights(command, pictures, tmp_path, capsys):
    settings = ["--eval_data", str(pictures), "--rotation", "10", "--seed", "7", "--hub_token", "secret",
                "--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr": 1e-6}']  # fmt: skip
    assert main([*command, *settings]) == 0
    text = (tmp_path / "run" / "settings.yaml").read_text()
    kept = yaml.safe_load(text)
    assert "secret" not in text
    assert (kept["rotation"], kept["seed"], kept["projection_dim"], kept["projection"]) == (10, 7, 16, "linear")
    assert "weight_decay" not in kept, "the default"
    assert (
        main(["train", "--config", str(tmp_path / "run" / "settings.yaml"), "--output_dir", str(tmp_path / "two")])
        == 0
    )
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "two")]
    assert weights[0] == weights[1]
    again = yaml.safe_load((tmp_path / "two" / "settings.yaml").read_text())
    assert {**again, "output_dir": 0, "lr_scheduler_kwargs": 0} == {**kept, "output_dir": 0, "lr_scheduler_kwargs": 0}
    assert main([*command, "--output_dir", str(tmp_path / "other"), "--eval_data", str(pictures), "--seed", "8"]) == 0
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != weights[0]


def test_no_token_is_kept():
    @dataclasses.dataclass
    class Arguments:
        seed: int = 1
        hub_token: str | None = None
        other_token: str | None = None
        resume_from_checkpoint: str | None = None

    values = {"seed": 2, "hub_token": "secret", "other_token": "secret", "resume_from_checkpoint": "true"}
    assert train._to_keep(values, (), Arguments()) == {"seed": 2}


# ---- data ---------------------------------------------------------------------------------------------------------


def test_a_share_is_held_out_and_evaluated_on(command, tmp_path, capsys):
    assert main([*command, "--eval_share", "0.25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2  # of 8
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert results["data"]["split"] == "held out"
    assert main([*command, "--output_dir", str(tmp_path / "two"), "--eval_share", "0.01"]) == 2
    assert "leaves one side empty" in capsys.readouterr().err


def test_several_sources_with_weights(command, pictures, tmp_path, capsys):
    more = write_pictures(tmp_path / "more", count=4)
    mixed = ["--train_data", str(pictures), str(more), "--train_weights"]
    assert main([*command, *mixed, "1", "3"]) == 0
    kept = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert (kept["train_data"], kept["train_weights"]) == ([str(pictures), str(more)], [1.0, 3.0])
    assert main([*command, *mixed, "1", "--output_dir", str(tmp_path / "two")]) == 2
    assert "1 weights for 2 sources: give one for each" in capsys.readouterr().err


def test_a_stream_and_a_labelled_folder(command, tmp_path, capsys):
    for name, color in (("a", "red"), ("b", "blue"), ("c", "green")):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 36), color).save(tmp_path / "classes" / name / f"{i}.png")
    streamed = ["--train_data", str(tmp_path / "classes"), "--streaming"]
    assert main([*command, *streamed]) == 2
    assert "is a stream, which has no length: set max_steps" in capsys.readouterr().err
    assert main([*command, *streamed, "--max_steps", "3"]) == 0


def test_several_evaluation_sets_need_no_best_metric_but_a_named_one(command, pictures, tmp_path, capsys):
    sets = ["--eval_data", f"b={pictures}", f"bird={write_pictures(tmp_path / 'birds', count=4)}"]
    best = ["--load_best_model_at_end", "--save_strategy", "epoch"]
    assert main([*command, *sets, *best]) == 2
    assert (
        "metric_for_best_model 'loss' (loss where none is given) is of no evaluation set: begin it with the name of "
        "one, as in b_loss or bird_loss"
    ) in capsys.readouterr().err
    assert main([*command, *sets, *best, "--metric_for_best_model", "b_image_retrieval_recal@5"]) == 2
    assert "choose one of loss, " in capsys.readouterr().err
    assert main([*command, *sets]) == 0
    printed = capsys.readouterr().out
    assert "b: 8 pictures, 8 captions" in printed
    assert "bird: 4 pictures, 4 captions" in printed
    again = [*command, "--output_dir", str(tmp_path / "best"), *sets, *best]
    assert main([*again, "--metric_for_best_model", "b_image_retrieval_recall@5"]) == 0


def test_labels_are_found_in_the_evaluation_data_where_a_task_asks_for_them(command, tmp_path, capsys):
    tasks = ["--eval_data", str(write_labelled_pictures(tmp_path / "labelled")), "--eval_tasks", "knn", "zero-shot"]
    best = ["--load_best_model_at_end", "--save_strategy", "epoch", "--metric_for_best_model", "knn_acc1"]
    assert main([*command, *tasks, "--eval_neighbours", "3", *best, "--output_dir", str(tmp_path / "no")]) == 2
    assert "knn3_projected_leave_one_out_acc1" in capsys.readouterr().err
    assert main([*command, *tasks]) == 2
    assert "20 neighbours cannot be chosen from the 7 other pictures" in capsys.readouterr().err
    assert main([*command, *tasks, "--eval_neighbours", "3", "--output_dir", str(tmp_path / "run2")]) == 0
    printed = capsys.readouterr().out
    assert "zero-shot acc1" in printed
    assert "knn3_projected_leave_one_out_acc1" in printed
    readme = (tmp_path / "run2" / "README.md").read_text()
    assert "| knn3 projected leave one out top-1 accuracy | 0." in readme


def test_evaluation_data_without_labels_are_refused_where_a_task_needs_them(command, pictures, capsys):
    assert main([*command, "--eval_data", str(pictures), "--eval_tasks", "knn"]) == 2
    assert "none of the columns label, labels, class, cls: set label_column" in capsys.readouterr().err


# ---- going on -----------------------------------------------------------------------------------------------------


def test_goes_on_from_a_trained_model_with_a_tower_exchanged(command, tmp_path, capsys):
    sigmoid = ["--loss", "sigmoid", "--text_padding", "max_length", "--max_caption_length", "12"]
    assert main([*command, *sigmoid, "--learning_rate", "0.01"]) == 0
    trained = AutoModel.from_pretrained(tmp_path / "run")
    data = command[command.index("--train_data") : command.index("--projection_dim")]
    on = ["train", "--model", str(tmp_path / "run"), *data, "--use_cpu", "--learning_rate", "0"]
    assert main([*on, "--output_dir", str(tmp_path / "on")]) == 0
    exchanged = ["--vision_model", "scratch/resnet-10", "--image_size", "32", "--output_dir", str(tmp_path / "other")]
    assert main([*on, *exchanged]) == 0
    same, other = (AutoModel.from_pretrained(tmp_path / name).state_dict() for name in ("on", "other"))
    for name, value in trained.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(same[name], value), name
            if not name.startswith("vis"):
                assert torch.equal(other[name], value), name
    assert other["visual_projection.weight"].shape == (16, 512)
    for name in ("on", "other"):
        processor = AutoProcessor.from_pretrained(tmp_path / name)
        assert (processor.text_padding, processor.max_text_length) == ("max_length", 12)
    capsys.readouterr()
    assert main([*on, "--output_dir", str(tmp_path / "no"), "--projection_dim", "8"]) == 2
    assert "projection_dim=8 contradicts the trained model" in capsys.readouterr().err


# ---- recipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", list_recipes())
def test_a_recipe_trains(recipe, command, tmp_path, capsys):
    """With towers and a size of its own above it; without, it would ask the Hub for towers."""
    own = [*command, "--max_steps", "2", "--num_train_epochs", "2"]
    if recipe == "full_finetune":
        assert main([*command, "--output_dir", str(tmp_path / "before")]) == 0
        own = ["train", "--model", str(tmp_path / "before"), *own[own.index("--train_data") :]]
        own = [part for part in own if part not in ("--projection_dim", "16")]
    assert main([own[0], "--recipe", recipe, *own[1:]]) == 0
    kept = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    written = yaml.safe_load(list_recipes()[recipe].read_text())
    above = {
        "model",
        "vision_model",
        "text_model",
        "num_train_epochs",
        "per_device_train_batch_size",
        "projection_dim",
    }
    for name in written.keys() - above:
        assert float(kept[name]) == float(written[name]), name


@pytest.fixture
def split_pictures(tmp_path):
    """Of each split another number."""
    for split, count in {"train": 8, "validation": 4, "test": 6}.items():
        write_pictures(tmp_path / "several" / split, count=count)
    return str(tmp_path / "several")


def test_of_a_folder_of_splits_one_is_trained_on_and_another_measured(
    command, split_pictures, tmp_path, capsys, caplog
):
    data = ["--train_data", split_pictures, "--eval_data", split_pictures]
    assert main([*command, *data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6
    assert "has the splits train, validation, test: train is read" in caplog.text
    assert "test is read" in caplog.text
    (results,) = (tmp_path / "run").rglob("results.json")
    assert json.loads(results.read_text())["data"]["split"] == "test"


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ([], (8, 6)),
        (["--train_split", "train+validation", "--eval_split", "test"], None),
        (["--train_split", "validation", "--eval_split", "dev"], (4, 4)),
        (["--load_best_model_at_end", "--save_strategy", "epoch"], (8, 4)),  # what chooses is not what is reported
    ],
)
def test_which_splits_are_read(settings, counts, command, split_pictures):
    data = ["--train_data", split_pictures, "--eval_data", split_pictures]
    _, data, _, _, args, _ = train.parse([*command[1:], *data, *settings])
    if counts is None:
        with pytest.raises(InputError, match="metadata in several folders"):
            train._open_sources(data, args)
        return
    sources, held_out = train._open_sources(data, args)
    assert (len(sources[0]), len(held_out)) == counts


def test_a_split_of_no_evaluation_data(command, capsys):
    assert main([*command, "--eval_split", "test"]) == 2
    assert "--eval_split is of --eval_data, which is not given" in capsys.readouterr().err
