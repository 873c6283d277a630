"""The folder of an analysis: its page as a renderer reads it, whatever users wrote. The files: tests/cli."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from conftest import write_pictures
from rendering import HOSTILE, Page, rendered
from torch.nn.functional import normalize

from hf_clip.analysis.measures import Rows, measure_all
from hf_clip.analysis.report import AnalysisReport, page
from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import Embeddings

PLAIN = [" ".join(text.split()) for text in HOSTILE]


@pytest.fixture
def report(tmp_path) -> AnalysisReport:
    """As many pictures as there are hostile texts, each the caption of one; every name is hostile too."""
    count, generator = len(HOSTILE), torch.Generator().manual_seed(0)
    folder = write_pictures(tmp_path / "data", count=count)
    rows = [{"file_name": f"{i}.png", "caption": caption} for i, caption in enumerate(HOSTILE)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = torch.arange(count)
    images, texts = (normalize(torch.randn(count, 8, generator=generator)) for _ in range(2))
    embeddings = Embeddings(
        image_embeds=images, text_embeds=texts, image_rows=places, text_to_image=places, image_ids=places,
        caption_ids=places, skipped=[(30, HOSTILE[0], HOSTILE[3])],
    )  # fmt: skip
    pairs = [(HOSTILE[0], HOSTILE[7]), (HOSTILE[8], HOSTILE[9])]
    outcome = measure_all(embeddings, normalize(torch.randn(2, 2, 8, generator=generator)), 1.0)
    source = Rows(open_source(folder), embeddings)
    return AnalysisReport(HOSTILE[3], HOSTILE[5], pairs, outcome, source, top=count)


def test_what_users_wrote_is_text(report):
    results = replace(report.results(), pictures=["outliers.png"])
    html = rendered(page(results))
    shown = Page(html)
    assert len(results.mislabelled) > 2
    captions = [row[4] for row in shown.rows if len(row) == 6][1:]
    assert captions == [" ".join(entry.caption.split()) for entry in results.mislabelled]
    assert [row[0] for row in shown.rows if row[1:2] == [f"{results.word_pairs[0].mean:.3f}"]] == [
        f"{PLAIN[0]} / {PLAIN[7]}"
    ]
    assert shown.rows[-1] == ["31", PLAIN[0], PLAIN[3]]
    of_page = {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "a", "img"}
    assert {tag for tag, _ in shown.tags} == of_page
    assert html.count("<a ") == html.count("<img ") == 1
    assert html.count("<ul>") == 2, "pairs and protocol: none in another"


def test_texts_stand_on_the_left_and_figures_on_the_right(report):
    lines = page(report.results()).splitlines()
    below = {header: rule for header, rule in itertools.pairwise(lines) if header.startswith("| row ")}
    assert list(below.items()) == [
        (
            "| row | picture | clip score | suspicion | caption | best caption |",
            "| --- | --- | --: | --: | --- | --- |",
        ),
        ("| row | picture | neighbour cosine |", "| --- | --- | --: |"),
        ("| row | picture | why |", "| --- | --- | --- |"),
    ]


def test_results_are_numbers_and_names_alone(report, tmp_path):
    report.top = 2
    returned = report.write(tmp_path)
    assert json.loads((tmp_path / "analysis.json").read_text()) == json.loads(json.dumps(returned.to_json()))
    assert [len(returned.mislabelled), len(returned.outliers)] == [2, 2]
    assert returned.skipped == [(30, HOSTILE[0], HOSTILE[3])]
    assert all((tmp_path / "pictures" / picture).is_file() for picture in returned.pictures)
    before = (tmp_path / "analysis.json").read_bytes()
    report.outcome.metrics["clip_score_mean"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write(tmp_path)
    assert (tmp_path / "analysis.json").read_bytes() == before


def test_results_do_not_change_what_was_measured(report, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_clip.analysis.report.can_draw", lambda: False)
    first, second = report.write(tmp_path), report.write(tmp_path)
    assert first.notes == second.notes == [
        "No pictures were drawn: matplotlib is not installed (pip install matplotlib)."
    ]  # fmt: skip
