"""`hf_clip.analyze` as a Python caller has it; what it measures, test_measures.py says."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import tiny_model

import hf_clip
from hf_clip.analysis.records import AnalysisResults
from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source

QUIET = hf_clip.EmbedOptions(progress=False)
PAIR = ("a happy face", "a sad face")


def test_in_memory_it_is_what_the_command_writes(model_folder, processor, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_clip.analysis.report.can_draw", lambda: False)
    report = hf_clip.analyze(model_folder, pictures, [PAIR], top=3, options=QUIET)
    assert capsys.readouterr().out == ""
    arguments = [
        "--model",
        str(model_folder),
        "--data",
        str(pictures),
        "--top",
        "3",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(["analyze", *arguments, "--pairs", " / ".join(PAIR)]) == 0
    written = AnalysisResults.read(tmp_path / "out" / "analysis.json")
    assert replace(written, notes=written.notes[:-1]) == report.results()
    opened = hf_clip.analyze(
        (tiny_model(), processor), open_source(pictures), [" / ".join(PAIR)], top=3, options=QUIET
    )
    assert opened.results() == replace(report.results(), model="HFClipModel")
    assert report.pairs == [PAIR]


def test_a_folder_of_embeddings_is_taken_too(model_folder, pictures, tmp_path):
    hf_clip.embed(model_folder, pictures, tmp_path / "store", options=QUIET)
    report = hf_clip.analyze(model_folder, tmp_path / "store", options=QUIET)
    assert report.results().metrics["images"] == 8
    assert report.rows.source is None
    with pytest.raises(InputError, match="store holds embeddings, so strict can change nothing: leave out"):
        hf_clip.analyze(model_folder, tmp_path / "store", options=hf_clip.EmbedOptions(strict=True))


def test_what_cannot_be_is_one_line_before_the_work(processor, pictures, tmp_path):
    for settings, message in (
        ({"top": 0}, "top must be 1 or more, not 0"),
        ({"top": "3"}, "top is '3': give a whole number"),
        ({"pairs": [("a cat", "a cat")]}, r"pairs \('a cat', 'a cat'\) is not two opposites"),
        ({"pairs": [("a cat", " ")]}, r"pairs \('a cat', ' '\) is not two opposites"),
        ({"pairs": [3]}, "pairs 3 is not two opposites"),
        ({"pairs": "a / b / c"}, "pairs 'a / b / c' is not two opposites"),
        ({"pairs": Path("nowhere.txt")}, "pairs file 'nowhere.txt' cannot be read"),
        ({"pairs": "a cat"}, "pairs 'a cat' is not two opposites"),
        ({"pairs": ["nowhere.txt"]}, "pairs file 'nowhere.txt' cannot be read"),
        ({"output": pictures}, r"output .* is not empty and holds no analysis.json"),
    ):
        with pytest.raises(InputError, match=message):
            hf_clip.analyze((tiny_model(), processor), open_source(pictures), options=QUIET, **settings)
