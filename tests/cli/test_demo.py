"""`hf-clip demo`: its checks, and the whole of it for two epochs."""

import json
import sys
from pathlib import Path

import pytest

from hf_clip.cli import demo
from hf_clip.cli.main import main
from hf_clip.data.openmoji import ATTRIBUTION


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--output_dir", str(tmp_path)]) == 2
    assert "already exists: give another --output_dir" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_names_the_extra_that_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert main(["demo", "--output_dir", str(tmp_path / "demo")]) == 2
    assert 'the demo needs resvg_py: pip install "hf_clip[demo]"' in capsys.readouterr().err


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "MINILM_SHA256", "0" * 64)
    assert main(["demo", "--output_dir", str(tmp_path / "demo")]) == 2
    assert "model.safetensors is not the file that was published" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_two_epochs_already_beat_the_untrained_tower_and_chance(tmp_path, capsys):
    assert main(["demo", "--output_dir", str(tmp_path / "demo"), "--epochs", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    metrics, untrained = result["metrics"], result["untrained"]
    assert metrics["images"] == metrics["captions"] == result["pictures"]["unseen"]
    assert metrics["image_retrieval_recall@10"] > 2 * metrics["image_retrieval_chance@10"]
    assert untrained["image_retrieval_recall@10"] < 2 * metrics["image_retrieval_chance@10"]
    assert len(result["answers"]) == 10
    assert {answer["answer"] for answer in result["answers"]} <= {answer["name"] for answer in result["answers"]}
    model = Path(result["output_dir"], "model")
    assert ATTRIBUTION in (model / "README.md").read_text()
    for name in ("retrieval.png", "training_curve.png"):
        assert (model / "pictures" / name).stat().st_size > 10_000
    train = (Path(result["output_dir"]) / "data" / "train" / "metadata.jsonl").read_text().splitlines()
    unseen = (Path(result["output_dir"]) / "data" / "unseen" / "metadata.jsonl").read_text().splitlines()
    concepts = [{json.loads(line)["concept"] for line in lines} for lines in (train, unseen)]
    assert not concepts[0] & concepts[1]
