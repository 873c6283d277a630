"""`hf-clip embed` from end to end, in one process and in two."""

import json
import subprocess
import sys

import pytest
from conftest import tiny_model, write_pictures
from embedding_stores import bits
from ready_processes import run_code, run_command

from hf_clip.cli.main import main


@pytest.fixture
def command(tmp_path, processor):
    tiny_model().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    data = write_pictures(tmp_path / "data", count=11)
    sizes = ["--segment_size", "2", "--batch_size", "2"]
    return ["embed", "--model", str(tmp_path / "model"), "--data", str(data), *sizes]


def test_table_and_json(command, tmp_path, capsys):
    (tmp_path / "data" / "4.png").write_bytes(b"")
    output = str(tmp_path / "out")
    assert main([*command, "--output", output]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["rows"], ["images", "10"], ["captions", "10"], ["skipped", "1"], ["segments", "6"]
    ]  # fmt: skip
    assert lines[5:] == ["skipped row 5: 4.png: the file is empty", f"embeddings: {output}"]
    assert main([*command, "--output", output, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {
        "output": output, "images": 10, "captions": 10, "skipped": 1, "segments": 6,
        "skipped_rows": [[4, "4.png", "the file is empty"]],
    }  # fmt: skip


def test_evaluate_takes_the_folder_for_the_data(command, tmp_path, processor, capsys):
    output, model = str(tmp_path / "out"), str(tmp_path / "model")
    assert main([*command, "--output", output]) == 0
    for file in (tmp_path / "data").glob("*.png"):
        file.unlink()  # no pass: the pictures are not needed
    capsys.readouterr()
    evaluate = ["evaluate", "--model", model, "--data", output, "--output", str(tmp_path / "evaluation")]
    assert main([*evaluate, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {figure["images"] for figure in result["figures"]} == {11}
    assert not any("best" in picture for picture in result["pictures"]), "there are no pictures to show"
    assert main([*evaluate, "--languages", "en=caption"]) == 2
    assert "holds embeddings: for languages give the data set" in capsys.readouterr().err
    tiny_model(seed=1).save_pretrained(model)
    assert main(evaluate) == 2
    assert "was embedded by another model: " in capsys.readouterr().err


def test_strict_stops_at_a_broken_picture(command, tmp_path, capsys):
    (tmp_path / "data" / "4.png").write_bytes(b"")
    assert main([*command, "--output", str(tmp_path / "out"), "--strict"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "hf-clip embed: row 5: 4.png: the file is empty: mend or remove it, or leave out strict" in printed.err


def test_two_processes_write_the_bits_of_one(command, tmp_path, one_thread, capsys):
    (tmp_path / "data" / "4.png").write_bytes(b"")
    done = run_command(*command, "--num_processes", "2", "--output", str(tmp_path / "two"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 10, "printed once"
    assert main([*command, "--output", str(tmp_path / "one")]) == 0
    assert bits(tmp_path / "one") == bits(tmp_path / "two")


FORKED = """
import functools, sys
import torch
from hf_clip.cli.main import main

# Spawned ones, which import everything anew, are in the test above.
torch.multiprocessing.spawn = functools.partial(torch.multiprocessing.start_processes, start_method="fork")
sys.exit(main())
"""


def test_a_process_that_fails_ends_all_with_one_line(command, tmp_path):
    (tmp_path / "data" / "4.png").write_bytes(b"")
    failed = run_code(FORKED, *command, "--num_processes", "2", "--output", str(tmp_path / "out"), "--strict")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "Traceback" not in failed.stderr
    (line,) = [line for line in failed.stderr.splitlines() if "hf-clip embed:" in line]
    assert "hf-clip embed: row 5: 4.png: the file is empty" in line


@pytest.mark.slow
def test_started_by_accelerate(command, tmp_path):
    run = [*command, "--output", str(tmp_path / "out"), "--json"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m"]
    done = subprocess.run([*launch, "hf_clip.cli.main", *run], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 11
