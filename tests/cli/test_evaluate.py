"""`hf-clip evaluate` from end to end, and its complaints."""

import json
import sys

import pytest
import torch
from conftest import tiny_model, write_pictures
from PIL import Image

import hf_clip.embedding
from hf_clip.cli.main import main
from hf_clip.data.sources import open_source
from hf_clip.embedding import embed_source
from hf_clip.evaluation.retrieval import evaluate_retrieval


@pytest.fixture
def model_folder(tmp_path, processor):
    tiny_model().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def command(model_folder, pictures):
    return ["evaluate", "--model", str(model_folder), "--data", str(pictures)]


def complaint(arguments: list[str], capsys) -> str:
    """The one line that is left on stderr beside progress bars, with exit code 2 and nothing on stdout."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.strip() and "it/s]" not in line]
    assert line.startswith("hf-clip evaluate: ")
    return line


def test_the_table_stands_beside_chance(command, capsys):
    assert main([*command, "--k", "1", "5", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "8 pictures, 8 captions"
    assert lines[1].split() == ["model", "chance"]
    rows = [line.rsplit(maxsplit=2) for line in lines[2:]]
    assert [row[0] for row in rows] == [
        f"{way} recall@{k}" for way in ("text → image", "image → text") for k in (1, 5, 10)
    ]
    assert [row[2] for row in rows] == ["0.125", "0.625", "1.000"] * 2
    assert rows[2][1] == rows[5][1] == "1.000", "one of eight is always among ten"


def test_json_is_the_only_thing_on_stdout(command, pictures, processor, monkeypatch, capsys):
    def noisy(*args, **kwargs):
        print("a library's noise")
        return embed_source(*args, **kwargs)

    monkeypatch.setattr(hf_clip.embedding, "embed_source", noisy)
    assert main([*command, "--json", "--batch_size", "3"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    expected = evaluate_retrieval(embed_source(tiny_model(), processor, open_source(pictures), progress=False))
    found = json.loads(printed.out)
    assert found.pop("skipped") == []
    assert found == pytest.approx(expected)
    assert "a library's noise" in printed.err


def test_broken_pictures_are_left_out_and_named(command, pictures, capsys):
    (pictures / "2.png").write_bytes(b"")
    (pictures / "5.png").unlink()
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 pictures, 6 captions"
    assert lines[-2:] == ["skipped row 3: 2.png: the file is empty", "skipped row 6: 5.png: No such file or directory"]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["skipped_images"] == 2
    assert result["skipped"][0] == [2, "2.png", "the file is empty"]


def test_several_captions_and_another_column(model_folder, tmp_path, capsys):
    folder = write_pictures(tmp_path / "data", captions_each=2)
    text = (folder / "metadata.jsonl").read_text().replace('"caption"', '"title"')
    (folder / "metadata.jsonl").write_text(text)
    arguments = ["evaluate", "--model", str(model_folder), "--data", str(folder)]
    assert "none of the columns caption" in complaint(arguments, capsys)
    assert main([*arguments, "--caption_column", "title", "--k", "1"]) == 0
    assert capsys.readouterr().out.startswith("8 pictures, 16 captions\n")


def test_pictures_are_drawn(command, tmp_path, capsys):
    assert main([*command, "--pictures", str(tmp_path / "new" / "folder")]) == 0
    assert min(Image.open(tmp_path / "new" / "folder" / "retrieval.png").size) > 400


def test_without_matplotlib_pictures_are_refused_before_the_work(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(hf_clip.embedding, "embed_source", lambda *args, **kwargs: 1 / 0)
    line = complaint([*command, "--pictures", str(tmp_path / "new")], capsys)
    assert line == "hf-clip evaluate: --pictures needs matplotlib: pip install matplotlib, or leave it out"


def test_a_file_in_the_place_of_the_pictures(command, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert "no folder that can be made: File exists" in complaint(
        [*command, "--pictures", str(tmp_path / "file")], capsys
    )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--k", "0"], "argument --k: '0' is not a whole number of 1 or more (see --help)"),
        (["--k", "1", "-5"], "argument --k: '-5' is not a whole number"),
        (["--k", "x"], "argument --k: 'x' is not a whole number"),
        (["--batch_size", "0"], "argument --batch_size: '0' is not a whole number of 1 or more"),
        (["--task", "captioning"], "argument --task: invalid choice: 'captioning' (choose from"),
        (["--colour", "red"], "unknown setting --colour (see --help)"),
        (["--model", "missing"], "model 'missing' cannot be opened: give the folder or Hub id"),
        (["--data", "missing"], "no data at 'missing'"),
        (["--image_column", "photo"], "no column 'photo': set image_column to one of file_name, caption"),
    ],
)
def test_wrong_settings(command, settings, message, capsys):
    assert message in complaint([*command, *settings], capsys)


@pytest.mark.parametrize("missing", ["--model", "--data"])
def test_settings_that_are_needed(command, missing, capsys):
    place = command.index(missing)
    assert f"required: {missing}" in complaint(command[:place] + command[place + 2 :], capsys)


def test_a_model_without_its_weights(command, model_folder, capsys):
    (model_folder / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes()[:5000])
    assert "cannot be opened: give the folder" in complaint(command, capsys)


def test_a_model_of_nans_gives_no_numbers(command, model_folder, capsys):
    model = tiny_model()
    torch.nn.init.constant_(model.text_projection.weight, float("nan"))
    model.save_pretrained(model_folder)
    assert "the text tower gave embeddings that are not finite" in complaint(command, capsys)


def test_not_one_readable_picture(command, pictures, capsys):
    for file in pictures.glob("*.png"):
        file.write_bytes(b"")
    assert "not one picture could be read; the first: 0.png, the file is empty" in complaint(command, capsys)


def test_strict_stops_at_the_first_broken_picture(command, pictures, capsys):
    (pictures / "2.png").write_bytes(b"")
    assert "row 3: 2.png: the file is empty: mend or remove it, or leave out strict" in complaint(
        [*command, "--strict"], capsys
    )
