"""`hf-clip analyze` from end to end: its files agree with each other and with the model, and its complaints."""

import csv
import json
import sys

import numpy as np
import pytest
import torch
from conftest import tiny_model, write_pictures
from PIL import Image
from scipy.special import softmax

import hf_clip.embeddings.encode
from hf_clip.analysis.report import AnalysisReport
from hf_clip.cli.main import main
from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import embed_source
from hf_clip.embeddings.options import EmbedOptions

PICTURES = ["clip_scores.png", "word_pairs.png", "mislabelled.png", "outliers.png"]


@pytest.fixture
def drawn():
    """Asked for by the tests that look at pictures: to draw them takes a second."""


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(AnalysisReport, "draw", lambda *args: [])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def command(model_folder, pictures, out):
    return ["analyze", "--model", str(model_folder), "--data", str(pictures), "--output", str(out)]


def complaint(arguments: list[str], capsys) -> str:
    """The one line that is left on stderr beside progress bars, with exit code 2 and nothing on stdout."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.strip() and "it/s]" not in line]
    return line.removeprefix("hf-clip analyze: ")


def table(file) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def captioned(folder, captions: list[str]):
    """Another caption for each of the pictures."""
    rows = [{"file_name": f"{i}.png", "caption": caption} for i, caption in enumerate(captions)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_scores_are_the_model_s(command, pictures, processor, out, capsys):
    assert main([*command, "--pairs", "a cat/a dog", "red / blue"]) == 0
    rows = table(out / "scores.csv")
    assert [row["row"] for row in rows] == [str(i) for i in range(1, 9)]
    assert [row["picture"] for row in rows] == [f"{i}.png" for i in range(8)]
    assert rows[2]["caption"] == "blue c"
    images = [Image.open(pictures / f"{i}.png") for i in range(8)]
    texts = [row["caption"] for row in rows] + ["a cat", "a dog", "red", "blue"]
    with torch.no_grad():
        output = tiny_model().eval()(**processor(text=texts, images=images, padding=True, return_tensors="pt"))
    cosines = (output.image_embeds @ output.text_embeds.T).numpy()
    found = np.array([float(row["clip_score"]) for row in rows])
    np.testing.assert_allclose(found, 2.5 * cosines[:, :8].diagonal().clip(0), atol=1e-5)
    for name, first in (("a cat / a dog", 8), ("red / blue", 10)):
        expected = softmax(output.logits_per_image.numpy()[:, first : first + 2], axis=1)[:, 0]
        np.testing.assert_allclose([float(row[name]) for row in rows], expected, atol=1e-5)


def test_the_report_is_the_same_in_every_file(drawn, command, out, capsys):
    assert main([*command, "--pairs", "a cat/a dog", "--top", "3", "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    report = json.loads(printed)
    assert report == json.loads((out / "analysis.json").read_text(encoding="utf-8"))
    assert (report["model"], report["data"]) == ("model", "pictures")
    assert report["metrics"]["images"] == report["metrics"]["captions"] == 8
    rows = table(out / "scores.csv")
    scores = {int(row["row"]): float(row["a cat / a dog"]) for row in rows}
    (pair,) = report["word_pairs"]
    assert pair["pair"] == ["a cat", "a dog"]
    assert pair["mean"] == pytest.approx(np.mean(list(scores.values())), abs=1e-5)
    ordered = sorted(scores, key=scores.get)
    assert [entry["row"] for entry in pair["lowest"]] == ordered[:6]
    assert [entry["row"] for entry in pair["highest"]] == ordered[:1:-1]
    farthest = sorted(rows, key=lambda row: float(row["neighbour_cosine"]))
    assert [entry["picture"] for entry in report["outliers"]] == [row["picture"] for row in farthest[:3]]

    suspected = table(out / "mislabelled.csv")
    assert len(suspected) == report["metrics"]["estimated_mislabelled"] > 0
    assert len(report["mislabelled"]) == min(3, len(suspected))
    by_row = {row["row"]: row for row in rows}
    for entry in suspected:
        assert float(entry["suspicion"]) == pytest.approx(float(by_row[entry["row"]]["suspicion"]), abs=1e-6)
        assert entry["caption"] == by_row[entry["row"]]["caption"]
        assert entry["best_caption"] in {row["caption"] for row in rows}
    assert sorted(report["pictures"]) == sorted(PICTURES)
    assert sorted(file.name for file in out.rglob("*") if file.is_file()) == sorted(
        [*PICTURES, "analysis.json", "mislabelled.csv", "report.md", "scores.csv"]
    ), "and nothing half-written"
    assert all(min(Image.open(out / "pictures" / name).size) > 150 for name in PICTURES)


def test_the_table(command, out, capsys):
    assert main([*command, "--pairs", "a cat/a dog"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "8 pictures (duplicates: 0, skipped: 0), 8 captions"
    metrics = json.loads((out / "analysis.json").read_text())["metrics"]
    figures = {line.rsplit(maxsplit=1)[0]: line.rsplit(maxsplit=1)[1] for line in lines if " " in line}
    assert figures["mean"] == f"{metrics['clip_score_mean']:.3f}"
    assert figures["5 %"] == f"{metrics['clip_score_q05']:.3f}"
    assert any(line.split() == ["a", "cat", "/", "a", "dog", f"{metrics['word_pair_1_mean']:.3f}",
                                f"{metrics['word_pair_1_above_half']:.3f}"] for line in lines)  # fmt: skip
    assert f"About {metrics['estimated_mislabelled']} of 8 captions" in "\n".join(lines)
    assert lines[-1] == f"report: {out / 'report.md'}"


def test_markdown_is_not_broken_by_captions(drawn, command, pictures, out, capsys):
    captions = ["a | b", "two\nlines", "<b>bold", "`code`", "[link](x)", "back\\slash", "*", "plain"]
    captioned(pictures, captions)
    assert main(command) == 0
    report = (out / "report.md").read_text(encoding="utf-8")
    lines = report[report.index("## Likely") : report.index("## Outliers")].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) > 2
    assert {line.replace("\\|", "").count("|") for line in rows} == {7}, "six columns each"
    assert any(text in report for text in ("a \\| b", "two lines", "\\<b>bold", "\\`code\\`"))
    assert [row["caption"] for row in table(out / "scores.csv")] == captions
    assert [name for name in PICTURES if f"](pictures/{name})" in report] == [
        "clip_scores.png",
        "mislabelled.png",
        "outliers.png",
    ]


def test_the_report_says_how_likely_each_side_is(command, out, capsys):
    assert main([*command, "--pairs", "a cat/a dog"]) == 0
    scores = [float(row["a cat / a dog"]) for row in table(out / "scores.csv")]
    report = (out / "report.md").read_text(encoding="utf-8")
    for side, best in (("a cat", np.argmax(scores)), ("a dog", np.argmin(scores))):
        probability = scores[best] if side == "a cat" else 1 - scores[best]
        assert f"- {side}: row {best + 1} {best}.png ({probability:.3f}), row" in report


def test_pairs_from_a_file(command, tmp_path, out, capsys):
    (tmp_path / "pairs.txt").write_text("a cat / a dog\n\n  gut/schlecht  \na cat/a dog\n", encoding="utf-8")
    assert main([*command, "--pairs", str(tmp_path / "pairs.txt"), "red/blue", "--json"]) == 0
    pairs = [entry["pair"] for entry in json.loads(capsys.readouterr().out)["word_pairs"]]
    assert pairs == [["a cat", "a dog"], ["gut", "schlecht"], ["red", "blue"]]


def test_a_file_of_pairs_with_a_byte_order_mark(command, tmp_path, out, capsys):
    (tmp_path / "pairs.txt").write_bytes(b"\xef\xbb\xbfa cat / a dog\n")
    assert main([*command, "--pairs", str(tmp_path / "pairs.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["word_pairs"][0]["pair"] == ["a cat", "a dog"]


def test_of_the_last_analysis_only_its_own_files_go(drawn, command, pictures, out, capsys):
    assert main([*command, "--pairs", "a cat/a dog"]) == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    (out / "mine.csv").write_text("mine")
    (out / "pictures" / "mine.png").write_text("mine")
    assert main([*command, "--model", "typo"]) == 2
    assert {file: file.read_bytes() for file in before} == before
    (pictures / "metadata.jsonl").unlink()
    assert main(command) == 0
    assert sorted(file.name for file in out.rglob("*") if file.is_file()) == [
        "analysis.json", "mine.csv", "mine.png", "outliers.png", "report.md", "scores.csv",
    ]  # fmt: skip


def test_without_matplotlib_everything_else_is_there(drawn, command, out, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*command, "--pairs", "a cat/a dog"]) == 0
    assert "No pictures were drawn: matplotlib is not installed" in capsys.readouterr().out
    assert not list(out.rglob("*.png"))
    assert "![" not in (out / "report.md").read_text(encoding="utf-8")
    assert len(table(out / "scores.csv")) == 8


def test_a_folder_of_embeddings(drawn, command, model_folder, pictures, tmp_path, out, capsys):
    assert main([*command, "--pairs", "a cat/a dog", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    folder = str(tmp_path / "embedded")
    assert main(["embed", "--model", str(model_folder), "--data", str(pictures), "--output", folder]) == 0
    command[command.index("--data") + 1] = folder
    command[command.index("--output") + 1] = str(tmp_path / "other")
    capsys.readouterr()
    useless = ["--split", "test", "--caption_column", "caption"]
    assert "so --split, --caption_column can change nothing: leave out" in complaint([*command, *useless], capsys)
    assert main([*command, "--pairs", "a cat/a dog", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["metrics"]["clip_score_mean"] == pytest.approx(whole["metrics"]["clip_score_mean"], abs=2e-3)
    assert report["pictures"] == []
    assert {entry["row"] for entry in report["outliers"]} == set(range(1, 9))
    assert all("picture" not in entry and "caption" not in entry for entry in report["mislabelled"])
    assert len(table(tmp_path / "other" / "scores.csv")) == 8
    assert "matplotlib" not in (tmp_path / "other" / "report.md").read_text(encoding="utf-8")


def test_embeddings_of_another_model(command, model_folder, pictures, tmp_path, capsys):
    folder = str(tmp_path / "embedded")
    assert main(["embed", "--model", str(model_folder), "--data", str(pictures), "--output", folder]) == 0
    tiny_model(seed=1).save_pretrained(model_folder)
    capsys.readouterr()
    command[command.index("--data") + 1] = folder
    assert "was embedded by another model: " in complaint(command, capsys)


def test_several_captions_each(command, processor, tmp_path, out, capsys):
    folder = write_pictures(tmp_path / "data", captions_each=2)
    command[command.index("--data") + 1] = str(folder)
    assert main(command) == 0
    rows = table(out / "scores.csv")
    assert [row["row"] for row in rows] == [str(1 + i // 2) for i in range(16)]
    assert [row["caption"] for row in rows[:2]] == ["red a", "very red a"]
    embeddings = embed_source(tiny_model(), processor, open_source(folder), options=EmbedOptions(progress=False))
    cosines = (embeddings.image_embeds.repeat_interleave(2, dim=0) * embeddings.text_embeds).sum(1)
    found = [float(row["clip_score"]) for row in rows]
    np.testing.assert_allclose(found, 2.5 * cosines.clamp(min=0), atol=1e-5)
    assert len(set(found)) > 2
    assert rows[0]["neighbour_cosine"] == rows[1]["neighbour_cosine"]


def test_pictures_alone(command, pictures, out, capsys):
    (pictures / "metadata.jsonl").unlink()
    assert main([*command, "--pairs", "a cat/a dog"]) == 0
    assert "There are no captions" in capsys.readouterr().out
    rows = table(out / "scores.csv")
    assert [row["clip_score"] for row in rows] == [""] * 8
    assert all(0 < float(row["a cat / a dog"]) < 1 for row in rows)
    assert not (out / "mislabelled.csv").exists()


def test_one_picture(drawn, command, tmp_path, out, capsys):
    command[command.index("--data") + 1] = str(write_pictures(tmp_path / "one", count=1))
    assert main(command) == 0
    assert "NaN" not in (out / "analysis.json").read_text()
    assert table(out / "scores.csv")[0]["neighbour_cosine"] == ""


def test_duplicates_and_broken_pictures_are_counted(command, pictures, out, capsys):
    (pictures / "2.png").write_bytes(b"")
    (pictures / "5.png").write_bytes((pictures / "4.png").read_bytes())
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "7 pictures (duplicates: 1, skipped: 1), 7 captions"
    assert "skipped row 3: 2.png: the file is empty" in lines
    assert "| 3 | 2.png | the file is empty |" in (out / "report.md").read_text(encoding="utf-8")
    assert [row["row"] for row in table(out / "scores.csv")] == ["1", "2", "4", "5", "6", "7", "8"]


def test_again_into_the_same_folder(command, out, capsys):
    assert main(command) == 0
    (out / "mine.txt").write_text("mine")
    before = (out / "scores.csv").read_bytes()
    assert main(command) == 0
    assert (out / "scores.csv").read_bytes() == before
    assert (out / "mine.txt").read_text() == "mine"


def test_libraries_noise_is_not_on_stdout(command, monkeypatch, capsys):
    def noisy(*args, **kwargs):
        print("a library's noise")
        return embed_source(*args, **kwargs)

    monkeypatch.setattr(hf_clip.analysis.analyze, "embed_source", noisy)
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    assert "a library's noise" in printed.err


@pytest.mark.parametrize("text", ["a happy face", "a/b/c", "a cat/", " / a dog", "/", "the same / the same"])
def test_what_is_not_two_opposites(command, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hf_clip.analysis.analyze, "embed_source", lambda *args, **kwargs: 1 / 0)
    expected = "is not two opposites with one / between them, such as 'a happy face / a sad face'"
    assert complaint([*command, "--pairs", text], capsys) == f"pairs {text.strip()!r} {expected}"
    (tmp_path / "pairs.txt").write_text(f"good / bad\n\n{text}\n")
    line = complaint([*command, "--pairs", str(tmp_path / "pairs.txt")], capsys)
    assert line == f"{tmp_path / 'pairs.txt'}: line 3: {text.strip()!r} {expected}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--pairs", "missing.txt"], "pairs file 'missing.txt' cannot be read"),
        (["--pairs"], "argument --pairs: expected at least one argument"),
        (["--top", "0"], "argument --top: '0' is not a whole number of 1 or more"),
        (["--model", "missing"], "model 'missing' cannot be opened"),
        (["--data", "missing"], "no data at 'missing'"),
    ],
)
def test_wrong_settings(command, settings, message, capsys):
    assert message in complaint([*command, *settings], capsys)


def test_an_empty_file_of_pairs(command, tmp_path, capsys):
    (tmp_path / "pairs.txt").write_text("\n \n")
    assert "is empty: write a pair a line" in complaint([*command, "--pairs", str(tmp_path / "pairs.txt")], capsys)


def test_a_file_in_the_place_of_the_output(command, out, capsys):
    out.write_text("mine")
    assert complaint(command, capsys) == f"output {out} is no folder that can be written: Not a directory"
    assert out.read_text() == "mine"


def test_a_model_of_nans_gives_no_report(command, model_folder, out, capsys):
    model = tiny_model()
    torch.nn.init.constant_(model.visual_projection.weight, float("nan"))
    model.save_pretrained(model_folder)
    assert "the image tower gave embeddings that are not finite" in complaint(command, capsys)
    assert not [file for file in out.rglob("*") if file.is_file()]


def test_labels_are_captions(command, pictures, tmp_path, out, capsys):
    for i in range(8):
        folder = tmp_path / "classes" / ("warm", "cold")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (pictures / f"{i}.png").rename(folder / f"{i}.png")
    command[command.index("--data") + 1] = str(tmp_path / "classes")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["distinct_captions"] == 2
    assert {row["caption"] for row in table(out / "scores.csv")} == {"warm", "cold"}
    assert open_source(tmp_path / "classes").has_captions


def test_a_pair_that_reads_the_same_is_refused_and_a_cut_one_is_said(drawn, command, capsys):
    assert "pairs 'A cat / a cat': the model reads both sides as the same" in complaint(
        [*command, "--pairs", "A cat / a cat"], capsys
    )
    assert main([*command, "--pairs", f"a cat / {'a ' * 70}", "--json"]) == 0
    assert any(
        note.startswith("1 of 2 prompts are longer than the text tower reads")
        for note in json.loads(capsys.readouterr().out)["notes"]
    )
