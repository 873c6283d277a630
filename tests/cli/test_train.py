"""`hf-clip train` from end to end, and its complaints."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import write_pictures
from transformers import AutoModel

from hf_clip.cli.main import main


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
    assert main([*command, *settings, "image_retrieval_recall@10"]) == 0
    printed = capsys.readouterr()
    assert "text → image recall@10" in printed.out
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
        (["--remove_unused_columns", "true"], "remove_unused_columns must stay false"),
        (["--resume_from_checkpoint", "true"], "no whole checkpoint at"),
        (["--projection_dim", "0"], "--projection_dim must be 1 or more, not 0"),
        (["--max_caption_length", "-1"], "--max_caption_length must be 1 or more, not -1"),
        (["--eval_strategy", "epoch"], "--eval_strategy needs --eval_data"),
        (["--metric_for_best_model", "recal"], "unknown metric_for_best_model 'recal': such as image_retrieval"),
        (["--accelerator_config", "nowhere.json"], "nowhere.json"),
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
    resumed = subprocess.run(
        [*start, *command, "--max_steps", str(step + 2), "--resume_from_checkpoint", checkpoint],
        capture_output=True, text=True,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
