"""`hf_clip.classify` as a Python caller has it; the scores themselves are compared in the command's tests."""

import json
from pathlib import Path

import pytest
from conftest import tiny_model
from PIL import Image

import hf_clip
from hf_clip.cli.main import main
from hf_clip.core.errors import InputError

LABELS = ["a cat", "dog", "the big house"]


@pytest.fixture
def files(tmp_path) -> list[Path]:
    files = [tmp_path / f"{color}.png" for color in ("red", "blue", "white")]
    for file in files:
        Image.new("RGB", (40, 36), file.stem).save(file)
    return files


def test_files_and_open_images_score_as_by_the_command(model_folder, processor, files, capsys):
    found = hf_clip.classify(model_folder, files, LABELS, template="it is {}")
    assert capsys.readouterr().out == ""
    command = ["classify", *map(str, files), "--model", str(model_folder), "--labels", ", ".join(LABELS)]
    assert main([*command, "--template", "it is {}", "--json"]) == 0
    by_command = json.loads(capsys.readouterr().out)
    assert [each.scores for each in found] == [result["scores"] for result in by_command["results"]]
    assert [each.image for each in found] == files
    opened = hf_clip.classify(
        (tiny_model(), processor), [Image.open(file) for file in files], LABELS, template="it is {}"
    )
    assert [each.scores for each in opened] == [each.scores for each in found]
    best = max(found[0].scores, key=found[0].scores.get)
    assert (found[0].label, next(iter(found[0].ranked()))) == (best, best)


def test_one_image_is_one_and_what_cannot_be_read_is_named(model_folder, files, tmp_path):
    (only,) = hf_clip.classify(model_folder, str(files[0]), "a cat, dog")
    assert list(only.scores) == ["a cat", "dog"]
    assert sum(only.scores.values()) == pytest.approx(1)
    (tmp_path / "bad.png").write_bytes(b"")
    found = hf_clip.classify(model_folder, [tmp_path / "bad.png", files[1]], LABELS)
    assert [each.image for each in found] == [files[1]]
    assert found.skipped == {str(tmp_path / "bad.png"): "the file is empty"}


def test_what_cannot_be_is_one_line(model_folder, files):
    for images, labels, template, message in (
        ([], LABELS, "{}", "no image can be read: none is given"),
        (["nowhere.png"], LABELS, "{}", "no image can be read; nowhere.png: "),
        (files, ["a cat"], "{}", r"labels \['a cat'\] holds 1: give two or more to choose among"),
        (files, ["a cat", 2], "{}", "labels: 2 is no text: give each label as one"),
        (files, LABELS, "it is", r"template 'it is' has no \{\} to put the label in"),
        (files, LABELS, None, r"template None has no \{\} to put the label in"),
        (files, Path("nowhere.txt"), "{}", "labels file 'nowhere.txt' cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            hf_clip.classify(model_folder, images, labels, template=template)
