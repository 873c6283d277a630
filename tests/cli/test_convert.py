"""`hf-clip convert`: a folder that opens as an HFClip with the source's logits, or none and one line."""

import json
import re
from pathlib import Path

import pytest
import torch
from ready_processes import run_command
from safetensors.torch import load_file, save_file
from source_models import SOURCES, assert_same, clip, save, siglip, their_inputs
from transformers import AutoModel

from hf_clip import HFClipModel
from hf_clip.cli.convert import COMMAND
from hf_clip.cli.main import main
from hf_clip.cli.output import Printer
from hf_clip.core.errors import InputError
from hf_clip.models import conversion


def convert(*arguments: str) -> None:
    with Printer() as printer:
        COMMAND.run(COMMAND.parse(arguments), printer)


@pytest.mark.parametrize("name", ["clip", "siglip", "bert × vit"])
def test_makes_a_folder_with_the_sources_logits(name, tmp_path, capsys):
    source = SOURCES[name]()
    folder, output = save(tmp_path / "source", source), tmp_path / "deep" / "ours"
    convert("--model", folder, "--output_dir", str(output), "--json")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    result = json.loads(out)
    assert result.pop("difference") <= 1e-5
    assert result == {"source": folder, "class": type(source).__name__, "output_dir": str(output)}
    inputs = their_inputs(folder)
    with torch.no_grad():
        assert_same(AutoModel.from_pretrained(output)(**inputs), source(**inputs))
    assert {path.name for path in output.parent.iterdir()} == {"ours"}


def test_says_what_was_measured_and_what_comes_next(tmp_path, capsys):
    output = tmp_path / "ours"
    output.mkdir()  # an empty folder may be there
    convert("--model", save(tmp_path / "source", clip()), "--output_dir", str(output))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"CLIPModel {tmp_path / 'source'} → {output}"
    assert re.search(r"the largest difference is \d\.\de-\d\d of the largest", second)
    assert third == f"to go on: hf-clip train --model {output} --train_data … --output_dir …"


def test_a_folder_that_holds_something_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "open_checkpoint", None)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"output_dir .*ours is not empty: give another"):
        convert("--model", "no/such", "--output_dir", str(tmp_path / "ours"))
    with pytest.raises(InputError, match=r"output_dir .*notes.txt is a file: give a folder"):
        convert("--model", "no/such", "--output_dir", str(tmp_path / "ours" / "notes.txt"))
    with pytest.raises(InputError, match=r"cannot be made: .*notes.txt is no folder that can be written to"):
        convert("--model", "no/such", "--output_dir", str(tmp_path / "ours" / "notes.txt" / "more"))
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["notes.txt"]


def test_other_logits_leave_no_folder(tmp_path, monkeypatch):
    """As if a weight were lost on the way into the folder: what is measured is the folder, not the model in memory."""
    whole = HFClipModel.save_pretrained

    def lossy(model, folder, **settings):
        weights = {key: weight.clone() for key, weight in model.state_dict().items()}
        weights["text_model.head.bias"][0] += 0.01
        whole(model, folder, state_dict=weights, **settings)

    folder = save(tmp_path / "source", siglip())
    monkeypatch.setattr(HFClipModel, "save_pretrained", lossy)
    with pytest.raises(InputError, match=r"the logits differ by .* of the largest, where 1e-05 is allowed"):
        convert("--model", folder, "--output_dir", str(tmp_path / "ours"))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_damaged_checkpoint_leaves_no_folder(tmp_path):
    folder = save(tmp_path / "source", clip())
    weights = load_file(tmp_path / "source" / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "source" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="is no whole CLIPModel: it lacks 'visual_projection"):
        convert("--model", folder, "--output_dir", str(tmp_path / "ours"))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_hf_clip_train_goes_on_from_it(name, tmp_path, pictures, capsys):
    output, run_folder = str(tmp_path / "ours"), tmp_path / "run"
    convert("--model", save(tmp_path / "source", SOURCES[name]()), "--output_dir", output)
    settings = ["--train_data", str(pictures), "--max_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu"]
    assert main(["train", "--model", output, "--output_dir", str(run_folder), *settings]) == 0
    before, after = AutoModel.from_pretrained(output), AutoModel.from_pretrained(run_folder)
    assert after.config.logit_scale_max is None
    assert 5 < after.logit_scale.item() != before.logit_scale.item()
    assert json.loads(Path(run_folder, "processor_config.json").read_text())["text_padding"] == (
        "max_length" if name == "siglip" else "longest"
    )


def test_as_a_process_of_its_own(tmp_path):
    folder = save(tmp_path / "source", clip())
    done = run_command("convert", "--model", folder, "--json", "--output_dir", str(tmp_path / "ours"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["class"] == "CLIPModel"


def test_a_complaint_is_one_line(tmp_path, capsys):
    folder = save(tmp_path / "source", clip())
    capsys.readouterr()
    assert main(["convert", "--model", str(tmp_path), "--output_dir", folder]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"hf-clip convert: output_dir {folder} is not empty")
    assert (printed.out, printed.err.count("\n")) == ("", 1)
