"""`hf-clip export` from end to end: what it writes where, what it says, and that nothing half-written is left."""

import json
import re
from pathlib import Path

import pytest
from conftest import tiny_model

from hf_clip.cli.main import main
from hf_clip.core.atomic import STAGING
from hf_clip.publishing.onnx import export as onnx_export
from hf_clip.publishing.onnx.record import OnnxRecord

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXPORTED = {
    "text_model.onnx",
    "vision_model.onnx",
    "tokenizer.json",
    "export.json",
    "example.py",
    "decoding_hf_clip.py",
}
INT8 = {"text_model_int8.onnx", "vision_model_int8.onnx"}


@pytest.fixture
def quick(monkeypatch):
    """torch's exporter takes seconds: small files stand for its graphs."""

    def write(half, traced, cases, shapes, file):
        file.write_bytes(b"graph")
        return onnx_export._Graph(20, dict(shapes), 1e-7, [])

    monkeypatch.setattr(onnx_export, "_export", write)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def complaint(capsys, *arguments) -> str:
    assert main(["export", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("hf-clip export: ")]
    return line.removeprefix("hf-clip export: ")


def as_json(capsys, *arguments) -> dict:
    assert main(["export", "--json", *map(str, arguments)]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.mark.slow
def test_the_whole_way_with_int8(model_folder, pictures, tmp_path, capsys):
    (pictures / "3.png").write_bytes(b"")
    output = tmp_path / "out" / "graphs"
    settings = ["--model", model_folder, "--output", output, "--int8", "--data", pictures, "--batch_size", "3"]
    assert main(["export", *map(str, settings)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert names(output) == EXPORTED | INT8
    assert names(output.parent) == {"graphs"}, "nothing is left aside"
    assert {line.split()[0] for line in lines[1:9]} == EXPORTED | INT8
    said = re.compile(r"(text|image)_embeds differ from torch's by \de-\d\d at the most")
    assert all(said.fullmatch(line) for line in lines[9:11])
    assert lines[12].split() == ["fp32", "int8", "chance"]
    facts = json.loads((output / "export.json").read_text())
    int8 = facts["int8"]
    assert (int8["data"]["name"], int8["data"]["images"], int8["data"]["skipped_images"]) == ("pictures", 7, 1)
    assert str(tmp_path) not in (output / "export.json").read_text()
    for line, (name, recall) in zip(lines[13:17], int8["recall"].items(), strict=True):
        label = name.replace("image_retrieval_", "text → image ").replace("text_retrieval_", "image → text ")
        figures = [f"{recall[column]:.3f}" for column in ("fp32", "int8", "chance")]
        assert line.split() == [*label.split(), *figures]
    assert lines[-1] == f"ONNX: {output}"


def test_into_the_models_own_folder(quick, model_folder, capsys):
    before = names(model_folder)
    result = as_json(capsys, "--model", model_folder)
    assert result["output"] == str(model_folder / "onnx")
    assert names(model_folder) == before | {"onnx"}
    assert names(model_folder / "onnx") == EXPORTED
    assert result == {"output": result["output"], **json.loads((model_folder / "onnx" / "export.json").read_text())}
    assert result["model"]["name"] == "model"


def test_of_a_hub_id_into_a_folder_of_its_name(quick, model_folder, processor, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_clip.publishing.export.open_trained", lambda name: (tiny_model(), processor))
    assert as_json(capsys, "--model", "user/clip")["output"] == "clip_onnx"
    assert names(tmp_path / "clip_onnx") == EXPORTED


def test_an_export_again_leaves_nothing_of_the_one_before(quick, model_folder, capsys):
    as_json(capsys, "--model", model_folder)
    (model_folder / "onnx" / "text_model_int8.onnx").write_bytes(b"of other weights")
    tiny_model(seed=1).save_pretrained(model_folder)
    as_json(capsys, "--model", model_folder)
    assert names(model_folder / "onnx") == EXPORTED


def test_a_failure_leaves_what_was_there(quick, model_folder, monkeypatch, capsys):
    as_json(capsys, "--model", model_folder)
    before = {file.name: file.read_bytes() for file in (model_folder / "onnx").iterdir()}
    tiny_model(seed=1).save_pretrained(model_folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OnnxRecord, "write", full)
    assert "onnx could not be written" in complaint(capsys, "--model", model_folder)
    assert {file.name: file.read_bytes() for file in (model_folder / "onnx").iterdir()} == before
    assert STAGING not in names(model_folder)


def test_a_tower_that_cannot_be_exported_is_one_line(model_folder, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("aten.strange has no ONNX function\nand much more")

    monkeypatch.setattr(onnx_export, "_to_onnx", fails)
    assert complaint(capsys, "--model", model_folder) == (
        "the text tower (bert) cannot be exported to ONNX: aten.strange has no ONNX function"
    )
    assert not (model_folder / "onnx").exists()
    assert STAGING not in names(model_folder)


def test_other_files_are_not_overwritten(quick, model_folder, tmp_path, capsys):
    output = tmp_path / "mine"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    said = complaint(capsys, "--model", model_folder, "--output", output)
    assert said == f"{output} holds notes.txt, which no export wrote: give another folder by output"
    assert names(output) == {"notes.txt"}
    said = complaint(capsys, "--model", model_folder, "--output", output / "notes.txt")
    assert said == f"output {output / 'notes.txt'} is a file: give a folder"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--int8"], "--int8 needs --data, held-out pictures with captions: without, nobody knows what it costs"),
        (["--data", "pictures"], "--data can change nothing without --int8: leave out, or add it"),
        (["--format", "tflite"], "argument --format: invalid choice: 'tflite'"),
        (["--int8", "--data", "missing"], "missing"),
        (["--model", "missing"], "model 'missing' cannot be opened"),
    ],
)
def test_wrong_settings(settings, message, quick, model_folder, capsys):
    assert message in complaint(capsys, "--model", model_folder, *settings)
    assert not (model_folder / "onnx").exists()


def test_missing_packages(model_folder, monkeypatch, capsys):
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("onnx_of_nowhere",))
    said = complaint(capsys, "--model", model_folder)
    assert said == 'an export to ONNX needs onnx_of_nowhere: pip install "hf_clip[onnx]"'
