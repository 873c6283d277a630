"""`hf_clip.export` as a Python caller has it; the graphs themselves, onnx/test_export.py says."""

import json

import pytest
from conftest import tiny_model

import hf_clip
from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.publishing.hub import file_sizes
from hf_clip.publishing.onnx import export as onnx_export

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def _quick(monkeypatch):
    """torch's exporter takes seconds: small files stand for its graphs."""

    def write(half, traced, cases, shapes, file):
        file.write_bytes(b"graph")
        return onnx_export._Graph(20, dict(shapes), 1e-7, [])

    monkeypatch.setattr(onnx_export, "_export", write)


@pytest.mark.usefixtures("_quick")
def test_by_name_opened_and_by_command_it_is_the_same(model_folder, processor, tmp_path, capsys):
    found = hf_clip.export(model_folder)
    assert capsys.readouterr().out == ""
    assert found.folder == model_folder / "onnx"
    assert found.files == file_sizes(found.folder)
    assert found.record.to_json() == json.loads((found.folder / "export.json").read_text())
    assert main(["export", "--model", str(model_folder), "--output", str(tmp_path / "by_command"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(tmp_path / "by_command"), **found.record.to_json()}
    opened = hf_clip.export((tiny_model(), processor), tmp_path / "opened")
    assert (opened.record.model.name, opened.record.model.digest) == ("HFClipModel", found.record.model.digest)


@pytest.mark.usefixtures("_quick")
def test_what_cannot_be_is_one_line(processor, pictures):
    for settings, message in (
        ({}, "a model that is opened already has no folder to be exported into: give output"),
        ({"output": pictures}, r"pictures holds \S+, which no export wrote: give another folder by output"),
        ({"options": hf_clip.EmbedOptions(strict=True)}, "strict can change nothing without int8_data: leave out, or"),
        ({"output": pictures / "0.png"}, "output .*0.png is a file: give a folder"),
        ({"output": pictures / "onnx", "int8_data": "nowhere"}, "no data at 'nowhere'"),
    ):
        with pytest.raises(InputError, match=message):
            hf_clip.export((tiny_model(), processor), **settings)
    assert not (pictures / "onnx").exists()
