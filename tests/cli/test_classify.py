"""`hf-clip classify`: the probabilities are the model's own, and its complaints name the cause."""

import json
import math

import pytest
import torch
from conftest import tiny_model
from PIL import Image
from ready_processes import run_command
from transformers import pipeline

from hf_clip.cli.main import main

LABELS = ["a cat", "dog", "the big house"]
THREE_LABELS = ", ".join(LABELS)


@pytest.fixture
def model_folder(tmp_path, processor):
    # A low temperature: an untrained model's probabilities are nearly equal otherwise.
    tiny_model(logit_scale_init_value=math.log(80)).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def files(tmp_path):
    paths = []
    for color in ("red", "blue", "white"):
        paths.append(str(tmp_path / f"{color}.png"))
        Image.new("RGB", (40, 36), color).save(paths[-1])
    return paths


def classify(model_folder, files, capsys, *settings, labels=THREE_LABELS) -> dict:
    assert main(["classify", *files, "--model", model_folder, "--labels", labels, "--json", *settings]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def complaint(model_folder, files, capsys, *settings, labels=THREE_LABELS) -> str:
    assert main(["classify", *files, "--model", model_folder, "--labels", labels, *settings]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.strip() and "it/s]" not in line]
    return line.removeprefix("hf-clip classify: ")


def test_probabilities_are_those_of_forward_and_pipeline(model_folder, files, processor, capsys):
    results = classify(model_folder, files, capsys)["results"]
    assert [result["image"] for result in results] == files
    found = torch.tensor([[result["scores"][label] for label in LABELS] for result in results])
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    assert (found - 1 / 3).abs().max() > 0.02

    images = [Image.open(file) for file in files]
    with torch.no_grad():
        inputs = processor(text=LABELS, images=images, return_tensors="pt")
        expected = tiny_model(logit_scale_init_value=math.log(80)).eval()(**inputs).logits_per_image.softmax(1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    answers = pipeline("zero-shot-image-classification", model=model_folder)(
        files[1], candidate_labels=LABELS, hypothesis_template="{}"
    )
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(results[1]["scores"], abs=1e-4)


def test_the_template_goes_around_the_label(model_folder, files, capsys):
    plain = classify(model_folder, files[:1], capsys)["results"][0]["scores"]
    framed = classify(model_folder, files[:1], capsys, "--template", "photo of {}")["results"][0]["scores"]
    written = classify(model_folder, files[:1], capsys, labels=", ".join(f"photo of {label}" for label in LABELS))
    assert list(framed) == LABELS
    assert list(framed.values()) == pytest.approx(list(written["results"][0]["scores"].values()), abs=1e-5)
    assert framed != pytest.approx(plain, abs=1e-3)


def test_labels_from_a_file(model_folder, files, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("a cat\n\n  dog \nthe big house\ndog\n", encoding="utf-8-sig")
    from_file = classify(model_folder, files, capsys, labels=str(tmp_path / "labels.txt"))
    assert from_file == classify(model_folder, files, capsys)
    (tmp_path / "labels.txt").write_text("cat, and mouse\nHündchen\n", encoding="utf-8")
    scores = classify(model_folder, files, capsys, labels=str(tmp_path / "labels.txt"))["results"][0]["scores"]
    assert list(scores) == ["cat, and mouse", "Hündchen"]


def test_the_table_shows_the_best_labels_first(model_folder, files, capsys):
    scores = [result["scores"] for result in classify(model_folder, files, capsys)["results"]]
    assert main(["classify", *files, "--model", model_folder, "--labels", THREE_LABELS, "--top", "2"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["picture", "label", "probability"]
    assert len(lines) == 6
    for file, own, first, second in zip(files, scores, lines[::2], lines[1::2], strict=True):
        best = sorted(own.values(), reverse=True)[:2]
        assert first.startswith(file)
        assert [float(line.rsplit(maxsplit=1)[1]) for line in (first, second)] == pytest.approx(best, abs=6e-4)
        assert all(
            f"  {label}  " in line
            for label, line in zip(sorted(own, key=own.get)[:0:-1], (first, second), strict=True)
        )


def test_transparent_is_white(model_folder, files, tmp_path, capsys):
    picture = Image.new("RGBA", (40, 36), (0, 0, 0, 0))
    picture.save(tmp_path / "clear.png")
    white, clear = classify(model_folder, [files[2], str(tmp_path / "clear.png")], capsys)["results"]
    assert clear["scores"] == pytest.approx(white["scores"], abs=1e-6)


def test_broken_pictures_are_skipped_and_named(model_folder, files, tmp_path, capsys):
    empty, missing = str(tmp_path / "empty.png"), str(tmp_path / "missing.png")
    (tmp_path / "empty.png").touch()
    pictures = [empty, files[0], missing, files[1]]
    result = classify(model_folder, pictures, capsys)
    assert [entry["image"] for entry in result["results"]] == files[:2]
    assert result["skipped"] == {empty: "the file is empty", missing: "No such file or directory"}
    assert result["results"] == classify(model_folder, files[:2], capsys)["results"]
    assert main(["classify", *pictures, "--model", model_folder, "--labels", "a,b"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"skipped {empty}: the file is empty",
        f"skipped {missing}: No such file or directory",
    ]


def test_not_one_readable_picture(model_folder, tmp_path, capsys):
    assert complaint(model_folder, [str(tmp_path / "a.png")], capsys) == (
        f"no image can be read; {tmp_path}/a.png: No such file or directory"
    )


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ("a cat", [], "labels 'a cat' holds 1: give two or more to choose among"),
        (" , ,", [], "holds 0: give two or more"),
        ("cat, cat", [], "holds 1: give two or more"),
        ("missing.txt", [], "labels file 'missing.txt' cannot be read"),
        ("a, b", ["--template", "a photo"], "template 'a photo' has no {} to put the label in"),
        # As Python has the bytes of a command line that are no UTF-8.
        (
            "a, caf\udce9",
            [],
            r"labels: 'caf\udce9' has half of a surrogate pair ('\udce9') in it, which no tokenizer",
        ),
        ("a, b", ["--template", "\udce9 {}"], r"template has half of a surrogate pair ('\udce9') in it"),
        ("a, b", ["--top", "0"], "argument --top: '0' is not a whole number of 1 or more"),
        ("a, b", ["--model", "missing"], "model 'missing' cannot be opened"),
    ],
)
def test_wrong_settings(model_folder, files, labels, settings, message, capsys):
    assert message in complaint(model_folder, files, capsys, *settings, labels=labels)


def test_a_model_of_nans_gives_no_probabilities(model_folder, files, capsys):
    model = tiny_model()
    torch.nn.init.constant_(model.visual_projection.weight, float("nan"))
    model.save_pretrained(model_folder)
    assert "the image tower gave embeddings that are not finite" in complaint(model_folder, files, capsys)


def test_as_a_process_of_its_own(model_folder, files, tmp_path, capsys):
    command = ["classify", files[0], str(tmp_path / "missing.png"), "--model", model_folder, "--labels", THREE_LABELS]
    process = run_command(*command, "--json")
    assert process.returncode == 0
    assert "Traceback" not in process.stderr
    result = json.loads(process.stdout)
    assert result["results"][0]["scores"] == pytest.approx(
        classify(model_folder, files[:1], capsys)["results"][0]["scores"], abs=1e-5
    )
    assert list(result["skipped"].values()) == ["No such file or directory"]


def test_a_sigmoid_model_answers_for_each_label_alone(model_folder, files, processor, capsys):
    model = tiny_model(loss="sigmoid", logit_bias_init_value=-1.5)
    model.save_pretrained(model_folder)
    results = classify(model_folder, files, capsys)["results"]
    images = [Image.open(file) for file in files]
    with torch.no_grad():
        output = model.eval()(**processor(text=LABELS, images=images, return_tensors="pt"))
    expected = 1 / (1 + (1.5 - 10 * output.image_embeds @ output.text_embeds.T).exp())  # 10 is its first exp(scale)
    found = torch.tensor([[result["scores"][label] for label in LABELS] for result in results])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert main(["classify", *files, "--model", model_folder, "--labels", THREE_LABELS]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("probability (each alone)")
    assert classify(model_folder, files[:1], capsys, labels="a cat, dog")["results"][0]["scores"][
        "dog"
    ] == pytest.approx(results[0]["scores"]["dog"], abs=1e-5)


@pytest.mark.parametrize(("probabilities", "bias"), [("sigmoid", None), ("softmax", -1.5)])
def test_the_configuration_says_how_scores_are_read_whatever_the_bias(
    probabilities, bias, model_folder, files, capsys
):
    model = tiny_model(loss="mine", probabilities=probabilities, logit_bias_init_value=bias)
    model.save_pretrained(model_folder)
    found = classify(model_folder, files, capsys)
    sums = [sum(result["scores"].values()) for result in found["results"]]
    assert found["independent"] == (probabilities == "sigmoid")
    assert (sums == pytest.approx([1] * len(files))) == (probabilities == "softmax")


def test_labels_that_are_cut_or_read_the_same_are_said(model_folder, files, capsys):
    labels = ["Red", "red", "a " * 70 + "b", "dog"]
    found = classify(model_folder, files, capsys, labels=",".join(labels))
    assert found["results"][0]["scores"]["Red"] == found["results"][0]["scores"]["red"]
    assert found["notes"] == [
        f"1 of 4 labels are longer than the text tower reads, and were cut: {'a ' * 30 + '…'!r}",
        "labels that the text tower reads as the same, so that their scores are equal: 'Red' = 'red'",
    ]
    assert classify(model_folder, files, capsys)["notes"] == []
    assert main(["classify", *files, "--model", model_folder, "--labels", "Red,red,dog"]) == 0
    assert "their scores are equal: 'Red' = 'red'" in capsys.readouterr().out
