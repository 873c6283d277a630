"""The report of an evaluation: figures, differences and pages from hand-made outcomes, pictures on the disk."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import write_pictures
from PIL import Image
from rendering import HOSTILE, Page, rendered
from scipy.stats import beta
from torch import tensor
from torch.nn.functional import normalize

from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import Embeddings
from hf_clip.evaluation.outcome import Outcome
from hf_clip.evaluation.records import DataFacts, Figure, ModelFacts, Results
from hf_clip.evaluation.report import Measured, Report, draw, page
from hf_clip.evaluation.tasks.classes import Labelled
from hf_clip.evaluation.tasks.nearest_neighbors import evaluate_nearest_neighbours
from hf_clip.evaluation.tasks.retrieval import Retrieval, evaluate_retrieval
from hf_clip.evaluation.tasks.task import Drawn
from hf_clip.evaluation.tasks.zero_shot import evaluate_zero_shot

DATA = DataFacts("pictures", "all rows", "f" * 32)
PICTURES = 40


def model(name: str, revision: str | None = None) -> ModelFacts:
    return ModelFacts(name, revision, f"digest of {name}", "float32")


def share(right: int, count: int = PICTURES) -> tuple[np.ndarray, np.ndarray]:
    """The first so many pictures were right."""
    return (np.arange(count) < right).astype(float), np.ones(count)


def retrieval(right: int, **more: int) -> Outcome:
    """Recall@2 of so many of the captions, and of so many pictures for the figures in `more`."""
    outcome = Outcome(
        metrics={
            "images": PICTURES,
            "captions": PICTURES,
            "skipped_images": 3,
            "image_retrieval_recall@2": right / PICTURES,
            "image_retrieval_chance@2": 0.05,
            "image_retrieval_ceiling@2": 0.9,
            "image_retrieval_map@2": 0.125,
            "image_retrieval_median_rank": 7.0,
        },
        protocol={"ties": "count against the model"},
        shares={"image_retrieval_recall@2": share(right)},
    )
    for name, of_pictures in more.items():
        outcome.metrics[name] = of_pictures / PICTURES
        outcome.shares[name] = share(of_pictures)
    return outcome


def zero_shot(right: int) -> Outcome:
    return Outcome(
        metrics={
            "images": PICTURES,
            "skipped_images": 3,
            "classes": 4,
            "classes_without_pictures": 1,
            "zero_shot_acc1": right / PICTURES,
            "zero_shot_acc1_chance": 0.25,
            "zero_shot_calibration_error": 0.1,
        },
        protocol={"templates": ["a photo of a {c}", "{c} | *"]},
        shares={"zero_shot_acc1": share(right)},
        notes=["1 of 4 classes has no picture"],
    )


@pytest.fixture
def report() -> Report:
    """Two models on two tasks: the first is 1 of 40 at retrieval and the second 36; both are 20 at classes."""
    first, second = model("first"), model("second", revision="abc")
    measured = [
        Measured(first, "retrieval", retrieval(1)),
        Measured(first, "zero-shot", zero_shot(20)),
        Measured(second, "retrieval", retrieval(36)),
        Measured(second, "zero-shot", zero_shot(20)),
    ]
    return Report(DATA, measured)


def figure(report: Report, metric: str, of_model: str = "first") -> Figure:
    (found,) = [f for f in report.figures() if (f.metric, f.model) == (metric, of_model)]
    return found


# ---- figures ------------------------------------------------------------------------------------------------------


def test_a_figure_may_be_quoted_alone(report):
    found = figure(report, "image_retrieval_recall@2", "second").to_json()
    interval = found.pop("low"), found.pop("high")
    assert found == {
        "model": "second", "task": "retrieval", "metric": "image_retrieval_recall@2", "value": 0.9, "chance": 0.05,
        "ceiling": 0.9, "k": 2, "protocol": {"ties": "count against the model"}, "data": "pictures",
        "split": "all rows", "data_revision": "f" * 32, "revision": "abc", "precision": "float32", "images": 40,
        "captions": 40, "skipped_images": 3, "label": "text → image, recall@2",
            "in_card": True, "on_hub": True, "hub_metric": "recall", "lower_is_better": False,
    }  # fmt: skip
    # Clopper and Pearson's, which is a little wider than a bootstrap's.
    exact = beta.ppf([0.025, 0.975], [36, 37], [5, 4])
    assert interval == pytest.approx(exact, abs=0.05)
    assert exact[0] < interval[0] < 0.9 < interval[1] <= 1


def test_counts_chances_and_ceilings_are_beside_figures_and_no_figures(report):
    names = {(f.task, f.metric) for f in report.figures()}
    assert names == {
        ("retrieval", "image_retrieval_recall@2"),
        ("retrieval", "image_retrieval_map@2"),
        ("retrieval", "image_retrieval_median_rank"),
        ("zero-shot", "zero_shot_acc1"),
        ("zero-shot", "zero_shot_calibration_error"),
    }
    assert len(report.figures()) == 10
    accuracy = figure(report, "zero_shot_acc1")
    assert (accuracy.chance, accuracy.ceiling, accuracy.k) == (0.25, None, None)
    assert (accuracy.classes, accuracy.classes_without_pictures) == (4, 1)
    assert "captions" not in accuracy.to_json()
    assert accuracy.revision == "digest of first"


@pytest.mark.parametrize(
    ("metric", "k"),
    [
        ("image_retrieval_map@2", 2),
        ("image_retrieval_median_rank", None),
        ("zero_shot_calibration_error", None),
    ],
)
def test_what_has_no_chance_and_no_interval_has_none(report, metric, k):
    found = figure(report, metric)
    assert (found.chance, found.ceiling, found.low, found.high, found.k) == (None, None, None, None, k)


def test_mean_per_class_recall_is_no_recall_at_k():
    outcome = of_neighbours()
    figures = Report(DATA, [Measured(model("first"), "knn", outcome)]).figures()
    assert [f.metric.removeprefix("knn3_projected_leave_one_out_") for f in figures] == [
        "acc1",
        "mean_per_class_recall",
    ]
    assert all(f.chance is None and f.ceiling is None and f.low is not None for f in figures)


def test_mean_per_class_recall_of_classes_has_its_chance():
    figures = Report(DATA, [Measured(model("first"), "zero-shot", of_classes(0))]).figures()
    assert {f.metric: f.chance for f in figures} == {
        "zero_shot_acc1": 1 / 3,
        "zero_shot_mean_per_class_recall": 1 / 3,
        "zero_shot_calibration_error": None,
    }


# ---- differences --------------------------------------------------------------------------------------------------


def test_a_planted_difference_is_real_and_none_is_not(report):
    of_retrieval, of_classes = report.differences()
    assert (of_retrieval.from_, of_retrieval.to, of_retrieval.task) == ("first", "second", "retrieval")
    assert of_retrieval.value == pytest.approx(35 / 40)
    assert of_retrieval.real
    # No random draw of 35 signs is all alike: 1 of 2001, and twice that by Holm.
    assert of_retrieval.p_value == pytest.approx(2 / 2001)
    assert 0 < of_retrieval.low < 35 / 40 < of_retrieval.high
    assert of_classes.task == "zero-shot"
    assert (of_classes.value, of_classes.low, of_classes.high, of_classes.p_value) == (0, 0, 0, 1)
    assert not of_classes.real


def test_p_values_are_of_all_differences_together():
    # Of 6 pictures that differ 2 of 2⁶ signs are as extreme: 0.03125, and among three figures twice that.
    measured = [
        Measured(model("first"), "retrieval", retrieval(0, better=0, same=5)),
        Measured(model("second"), "retrieval", retrieval(36, better=6, same=5)),
    ]
    rows = {row.metric: row for row in Report(DATA, measured).differences()}
    assert rows["better"].p_value == pytest.approx(2 * 2 / 2**6)
    assert rows["better"].low > 0
    assert not rows["better"].real, "the interval leaves out 0, and yet"
    assert rows["image_retrieval_recall@2"].p_value == pytest.approx(3 / 2001)
    assert rows["image_retrieval_recall@2"].real
    alone = [Measured(model(m.model.name), "retrieval", only(m.outcome, "better")) for m in measured]
    (row,) = Report(DATA, alone).differences()
    assert row.p_value == pytest.approx(2 / 2**6)
    assert row.real, "by itself"


def only(outcome: Outcome, name: str) -> Outcome:
    return Outcome(metrics={name: outcome.metrics[name]}, shares={name: outcome.shares[name]})


def test_a_difference_is_from_the_same_task_of_the_first():
    measured = [
        Measured(model(name), f"retrieval/{language}", retrieval(right))
        for name, rights in (("a", (10, 20)), ("b", (12, 23)), ("c", (14, 25)))
        for language, right in zip(("en", "zh"), rights, strict=True)
    ]
    rows = Report(DATA, measured).differences()
    found = {(row.from_, row.to, row.task): round(row.value * PICTURES) for row in rows}
    assert found == {
        ("a", "b", "retrieval/en"): 2, ("a", "b", "retrieval/zh"): 3,
        ("a", "c", "retrieval/en"): 4, ("a", "c", "retrieval/zh"): 5,
    }  # fmt: skip


def test_one_picture_that_differs_is_chance():
    measured = [Measured(model(name), "retrieval", retrieval(right)) for name, right in (("a", 10), ("b", 11))]
    (row,) = Report(DATA, measured).differences()
    assert (row.p_value, row.real) == (1, False)


def test_one_model_differs_from_none(report):
    report.measured = report.measured[:2]
    assert report.differences() == []
    assert "What differs" not in page(report.results())


# ---- files --------------------------------------------------------------------------------------------------------


def refuse(constant: str):
    raise AssertionError(f"{constant} is no JSON")


def test_results_are_json(report, tmp_path):
    report.skipped = [(2, "2.png", "the file is empty")]
    returned = report.write(tmp_path)
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert written == json.loads(json.dumps(returned.to_json()))
    assert Results.read(tmp_path / "results.json") == returned
    assert returned.figures == report.figures()
    assert [m["name"] for m in written["models"]] == ["first", "second"]
    assert [row["real"] for row in written["differences"]] == [True, False]
    assert written["skipped"] == [[2, "2.png", "the file is empty"]]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.md", "results.json"]


def test_a_figure_that_is_no_number_is_not_written(report, tmp_path):
    report.measured[0].outcome.metrics["image_retrieval_map@2"] = math.nan
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_every_figure(report):
    report.pictures = ["recall_retrieval.png"]
    written = page(report.results())
    lines = written.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# Evaluation of first, second",
        "## Retrieval",
        "### What differs from first",
        "## Zero-shot classification",
        "### What differs from first",
        "## What to know of these figures",
    ]
    low, high = figure(report, "image_retrieval_recall@2").interval
    lower, higher = figure(report, "image_retrieval_recall@2", "second").interval
    both = f"0.025 [{low:.3f}, {high:.3f}] | 0.900 [{lower:.3f}, {higher:.3f}]"
    assert f"| image_retrieval_recall@2 | {both} | 0.050 | 0.900 |" in lines
    assert "| image_retrieval_median_rank | 7.000 | 7.000 |  |  |" in lines
    assert "| zero_shot_calibration_error | 0.100 | 0.100 |  |  |" in lines
    real, not_real = [line for line in lines if "**yes**" in line or "not shown" in line]
    assert real.startswith("| image_retrieval_recall@2 | second | +0.875 [+0.")
    assert real.endswith("| 0.001 | **yes** |")
    assert not_real == "| zero_shot_acc1 | second | +0.000 [+0.000, +0.000] | 1 | not shown |"
    assert "Protocol: ties: count against the model." in lines
    assert lines.count("- first / zero-shot: 1 of 4 classes has no picture") == 1
    assert "- Data: pictures, split all rows, content " + "f" * 32 in written
    assert "40 images, 40 captions; 3 pictures could not be read." in written
    assert "- Model first: revision digest of first, float32." in lines
    assert "- Model second: revision abc, float32." in lines
    assert "![recall retrieval](pictures/recall_retrieval.png)" in lines


@pytest.mark.parametrize(("count", "more"), [(100, []), (103, ["- and 3 more"])])
def test_a_hundred_skipped_pictures_are_named_and_the_rest_counted(report, count, more):
    report.skipped = [(row, f"{row}.png", "the file is empty") for row in range(count)]
    results = report.results()
    assert len(results.skipped) == count
    _, listed = page(results).split("## Pictures that could not be read\n\n")
    lines = listed.splitlines()
    assert lines[0] == "- row 1: 0.png: the file is empty"
    assert lines[99] == "- row 100: 99.png: the file is empty"
    assert lines[100:] == more


def test_each_language_has_its_heading():
    measured = [
        Measured(model("first"), f"retrieval/{key}", retrieval(right)) for key, right in (("en", 8), ("zh", 2))
    ]
    written = page(Report(DATA, measured).results())
    english, chinese = written.index("## Retrieval: en"), written.index("## Retrieval: zh")
    assert english < written.index("| 0.200 [") < chinese < written.index("| 0.050 [")


def test_languages_of_like_names_have_files_of_their_own(tmp_path):
    tasks = ["retrieval/a/b", "retrieval/a_b", "retrieval/A-b", "retrieval/c"]
    names = draw([Measured(model("first"), task, evaluate_retrieval(classified())) for task in tasks], tmp_path)
    assert len({name.casefold() for name in names}) == len(names) == 2 * len(tasks)
    assert {file.name for file in tmp_path.iterdir()} == set(names)


def test_what_the_models_did_otherwise_is_said_of_each(report):
    for measured, strength in zip(report.measured, (0.1, None, 100.0, None), strict=True):
        if strength:
            measured.outcome.protocol |= {"lambda": strength, "train_data": {"name": "emoji", "split": "all rows"}}
    lines = page(report.results()).splitlines()
    assert "Protocol: ties: count against the model; train data: name emoji, split all rows." in lines
    assert "Protocol of first: lambda: 0.1." in lines
    assert "Protocol of second: lambda: 100." in lines


def test_what_the_intervals_are_of_and_which_figures_have_none(report):
    shots = "linear_probe_projected_5shot_acc1"
    bare = "image_retrieval_map@2, image_retrieval_median_rank, zero_shot_calibration_error"
    lines = page(report.results()).splitlines()
    assert any(line.startswith("- In brackets: 95 % over pictures, bootstrap, 2000 resamples. ") for line in lines)
    assert f"- Without an interval and no test of the difference: {bare}." in lines
    measured = [Measured(model("first"), "linear-probe", Outcome({shots: 0.5}, shares={shots: share(20)}))]
    written = page(Report(DATA, measured).results())
    assert "2000 resamples; of few-shot probes for these draws. " in written
    assert "Without an interval" not in written


def test_skipped_pictures_of_all_data_are_named(report):
    report.skipped, report.skipped_of = [(2, "2.png", "empty")], {"train": [(4, "4.png", "empty")], "validation": []}
    results = report.results()
    assert results.skipped == [(2, "2.png", "empty")]
    assert results.skipped_of == {"train": [(4, "4.png", "empty")], "validation": []}
    written = page(results)
    assert "3 pictures could not be read, 1 of train." in written
    assert written.endswith("- row 3: 2.png: empty\n- train: row 5: 4.png: empty\n")


def test_a_language_has_a_fingerprint_of_its_own():
    measured = [Measured(model("first"), "retrieval/zh", retrieval(2), "e" * 32)]
    assert {f.data_revision for f in Report(DATA, measured).figures()} == {"e" * 32}


def test_what_users_named_is_text():
    names = HOSTILE[:4]
    measured = [Measured(model(name, revision="abc"), "zero-shot", zero_shot(20)) for name in names]
    measured[0].outcome.notes = [" ".join(HOSTILE)]
    data = DataFacts(HOSTILE[4], HOSTILE[5], "f" * 32)
    skipped = [(0, name, "the file is empty") for name in HOSTILE]
    results = Report(data, measured, skipped, pictures=["recall_retrieval_a (b).png"]).results()
    html = rendered(page(results))
    shown = Page(html)
    plain = [" ".join(name.split()) for name in names]
    assert shown.rows[0] == ["", *plain, "chance", "ceiling"]
    assert [row[1] for row in shown.rows if "not shown" in row] == plain[1:]
    assert {len(row) for row in shown.rows} == {3 + len(names), 5}
    of_page = {"h1", "h2", "h3", "ul", "li", "p", "table", "thead", "tbody", "tr", "th", "td", "img"}
    assert {tag for tag, _ in shown.tags} == of_page
    assert html.count("<img") == 1
    assert 'src="pictures/recall_retrieval_a%20%28b%29.png"' in html


# ---- pictures -----------------------------------------------------------------------------------------------------


def random_unit(count: int, seed: int, dim: int = 8) -> torch.Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)))


def classified(seed: int = 0, count: int = 24) -> Embeddings:
    """Pictures of three classes with a caption each."""
    rows = torch.arange(count)
    return Embeddings(
        image_embeds=random_unit(count, seed), text_embeds=random_unit(count, seed + 1), image_rows=rows,
        text_to_image=rows, image_ids=rows, caption_ids=rows, labels=rows % 3, class_names=["a", "b", "c"],
    )  # fmt: skip


def of_classes(seed: int) -> Outcome:
    outcome = evaluate_zero_shot(classified(seed), random_unit(3, seed + 2), tensor(1.0))
    outcome.details["class_names"] = ["a", "b", "c"]
    return outcome


def of_neighbours() -> Outcome:
    pictures = classified()
    return evaluate_nearest_neighbours(Labelled(pictures.image_embeds, pictures.labels), neighbours=3)


@pytest.mark.parametrize("models", [1, 2])
def test_a_chart_for_all_models_and_a_confusion_matrix_each(tmp_path, models):
    measured = []
    for number in range(models):
        facts = model(f"model {number}")
        measured += [
            Measured(facts, "zero-shot", of_classes(number)),
            Measured(facts, "retrieval", evaluate_retrieval(classified(number))),
            Measured(facts, "retrieval/zh", evaluate_retrieval(classified(number + 5))),
        ]
    names = draw(measured, tmp_path / "pictures")
    confusions = (
        ["confusion_zero_shot.png"] if models == 1 else ["confusion_zero_shot_1.png", "confusion_zero_shot_2.png"]
    )
    assert names == [
        "recall_retrieval.png",
        "similarities_retrieval.png",
        "recall_retrieval_zh.png",
        "similarities_retrieval_zh.png",
        "reliability_zero_shot.png",
        *confusions,
    ]
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == set(names)
    assert all(min(Image.open(tmp_path / "pictures" / name).size) > 150 for name in names)
    if models == 2:
        first, second = ((tmp_path / "pictures" / name).read_bytes() for name in confusions)
        assert first != second


def test_classes_without_names_are_numbered(tmp_path):
    assert draw([Measured(model("first"), "knn", of_neighbours())], tmp_path) == ["confusion_knn.png"]
    assert min(Image.open(tmp_path / "confusion_knn.png").size) > 150


def test_the_best_and_the_worst_captions(tmp_path):
    source = open_source(write_pictures(tmp_path / "data"))
    embeddings = classified(count=8)
    embeddings.text_embeds = embeddings.image_embeds.roll(1, 0)  # every caption is of the next picture
    found = evaluate_retrieval(embeddings)
    assert Retrieval().draw_examples(Drawn(source, embeddings, found), tmp_path / "a", "") == ["worst_retrievals.png"]
    embeddings.text_embeds[:3] = embeddings.image_embeds[:3]
    found = evaluate_retrieval(embeddings)
    names = Retrieval().draw_examples(Drawn(source, embeddings, found), tmp_path / "b", "_2")
    assert names == ["best_retrievals_2.png", "worst_retrievals_2.png"]
    assert {file.name for file in (tmp_path / "b").iterdir()} == set(names)
