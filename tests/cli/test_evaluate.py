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
def command(model_folder, pictures, tmp_path):
    output = str(tmp_path / "evaluation")
    return ["evaluate", "--model", str(model_folder), "--data", str(pictures), "--output", output]


def values(result: dict) -> dict[str, float]:
    return {figure["metric"]: figure["value"] for figure in result["figures"]}


def complaint(arguments: list[str], capsys) -> str:
    """The one line that is left on stderr beside progress bars, with exit code 2 and nothing on stdout."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.strip() and "it/s]" not in line]
    assert line.startswith("hf-clip evaluate: ")
    return line


def test_the_table_stands_beside_chance(command, capsys):
    assert main([*command, "--k", "1", "5", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "retrieval: 8 images, 8 captions"
    assert lines[1].split() == ["model", "chance"]
    rows = dict(line.split(maxsplit=1) for line in lines[2:])
    for way in ("image", "text"):
        chance = [rows[f"{way}_retrieval_recall@{k}"].split()[1] for k in (1, 5, 8)]
        assert chance == ["0.125", "0.625", "1.000"]
    assert lines[-1].startswith("figures, protocol and pictures: ")


def test_json_is_the_only_thing_on_stdout(command, pictures, processor, monkeypatch, capsys):
    def noisy(*args, **kwargs):
        print("a library's noise")
        return embed_source(*args, **kwargs)

    monkeypatch.setattr(hf_clip.embedding, "embed_source", noisy)
    assert main([*command, "--json", "--batch_size", "3"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    expected = evaluate_retrieval(embed_source(tiny_model(), processor, open_source(pictures), progress=False)).metrics
    found = json.loads(printed.out)
    assert found["skipped"] == []
    assert values(found) == pytest.approx({
        name: value for name, value in expected.items()
        if "retrieval" in name and "chance" not in name and "ceiling" not in name
    })  # fmt: skip
    assert "a library's noise" in printed.err


def test_every_figure_says_what_it_depends_on(command, tmp_path, capsys):
    assert main([*command, "--k", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert printed == written | {"output": str(tmp_path / "evaluation")}
    figure = next(figure for figure in written["figures"] if figure["metric"] == "image_retrieval_recall@2")
    facts = {
        "k": 2,
        "model": "model",
        "task": "retrieval",
        "data": "pictures",
        "split": "all rows",
        "precision": "float32",
        "images": 8,
        "captions": 8,
        "skipped_images": 0,
        "chance": 0.25,
        "ceiling": 1.0,
    }
    assert {name: figure[name] for name in facts} == facts  # fmt: skip
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert figure["protocol"]["ties"] == "count against the model"
    assert len(figure["revision"]) == len(figure["data_revision"]) == 32
    page = (tmp_path / "evaluation" / "report.md").read_text()
    assert f"| image_retrieval_recall@2 | {figure['value']:.3f} [{figure['low']:.3f}" in page
    assert str(tmp_path) not in page
    for picture in written["pictures"]:
        assert f"(pictures/{picture})" in page
        assert min(Image.open(tmp_path / "evaluation" / "pictures" / picture).size) > 150


def test_broken_pictures_are_left_out_and_named(command, pictures, tmp_path, capsys):
    (pictures / "2.png").write_bytes(b"")
    (pictures / "5.png").unlink()
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "retrieval: 6 images, 6 captions"
    skipped = ["skipped row 3: 2.png: the file is empty", "skipped row 6: 5.png: No such file or directory"]
    assert lines[-3:-1] == skipped
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {figure["skipped_images"] for figure in result["figures"]} == {2}
    assert result["skipped"][0] == [2, "2.png", "the file is empty"]
    page = (tmp_path / "evaluation" / "report.md").read_text()
    assert "2 pictures could not be read" in page
    assert "- row 3: 2.png: the file is empty" in page


def test_several_captions_and_another_column(model_folder, tmp_path, capsys):
    folder = write_pictures(tmp_path / "data", captions_each=2)
    text = (folder / "metadata.jsonl").read_text().replace('"caption"', '"title"')
    (folder / "metadata.jsonl").write_text(text)
    arguments = ["evaluate", "--model", str(model_folder), "--data", str(folder), "--output", str(tmp_path / "out")]
    assert "none of the columns caption" in complaint(arguments, capsys)
    assert main([*arguments, "--caption_column", "title", "--k", "1"]) == 0
    assert capsys.readouterr().out.startswith("retrieval: 8 images, 16 captions\n")


def test_without_matplotlib_the_figures_are_there(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["pictures"] == []
    assert "no pictures without matplotlib" in printed.err
    assert list((tmp_path / "evaluation" / "pictures").iterdir()) == []


def test_nothing_of_the_users_is_written_over(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hf_clip.embedding, "embed_source", lambda *args, **kwargs: 1 / 0)
    folder = tmp_path / "evaluation"
    folder.write_text("mine")
    assert "no folder that can be written: " in complaint(command, capsys)
    assert folder.read_text() == "mine"
    folder.unlink()
    folder.mkdir()
    (folder / "letter.txt").write_text("mine")
    assert "is not empty and holds no evaluation: give another folder" in complaint(command, capsys)


def test_an_evaluation_takes_the_place_of_the_last(command, tmp_path, capsys):
    assert main(command) == 0
    before = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert main([*command, "--k", "3"]) == 0
    after = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert {figure["k"] for figure in after["figures"]} == {3, None}
    assert before["figures"] != after["figures"]
    files = {file.name for file in (tmp_path / "evaluation" / "pictures").iterdir()}
    assert files == set(after["pictures"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--k", "0"], "argument --k: '0' is not a whole number of 1 or more (see --help)"),
        (["--k", "1", "-5"], "argument --k: '-5' is not a whole number"),
        (["--k", "x"], "argument --k: 'x' is not a whole number"),
        (["--batch_size", "0"], "argument --batch_size: '0' is not a whole number of 1 or more"),
        (["--k", "1", "9"], "recall@9 of 8 pictures and 8 captions is always 1: give k up to 8"),
        (
            ["--task", "zero-shot"],
            "none of the columns label, labels, class, cls: set label_column to one of file_name",
        ),
        (["--class_names", "missing.txt"], "'missing.txt' cannot be read: "),
        (["--templates", "a photo"], "no templates 'a photo': choose name, photo, "),
        (["--languages", "zh"], "--languages zh: give language=column, as in zh=captions.zh"),
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
