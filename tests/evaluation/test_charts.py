"""Charts of an evaluation: what is drawn is what was measured, read back from lines, bars and cells."""

import itertools
import sys
import time
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import hypergeom
from sklearn.metrics import confusion_matrix, roc_auc_score
from torch import tensor

from hf_clip.core.errors import InputError
from hf_clip.evaluation import charts
from hf_clip.evaluation.charts import (
    draw_by_language,
    draw_confusion,
    draw_recall_against_k,
    draw_reliability,
    draw_similarities,
)
from hf_clip.evaluation.metrics import calibration, chance_recall_at_k


@pytest.fixture
def figures(monkeypatch) -> list:
    kept = []
    monkeypatch.setattr(charts, "save_figure", lambda figure, file: kept.append(figure))
    return kept


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].texts]


def line(axes, label: str) -> tuple[list[float], list[float]]:
    (found,) = [drawn for drawn in axes.lines if drawn.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


# ---- recall against k ---------------------------------------------------------------------------------------------

# Four captions of two pictures, and the two pictures.
RANKS = {
    "one": {"image": tensor([0, 0, 1, 1]), "text": tensor([0, 2])},
    "two": {"image": tensor([0, 0, 0, 1]), "text": tensor([1, 1])},
}
POSITIVES = {"image": tensor([1, 1, 1, 1]), "text": tensor([1, 3])}
CANDIDATES = {"image": 2, "text": 4}


def test_recall_at_each_k_of_each_model(figures, tmp_path):
    draw_recall_against_k(RANKS, POSITIVES, CANDIDATES, tmp_path / "a.png")
    to_image, to_text = figures[0].axes
    assert line(to_image, "one") == ([1, 2], [50, 100])
    assert line(to_image, "two") == ([1, 2], [75, 100])
    assert line(to_text, "one") == ([1, 2, 3, 4], [50, 50, 100, 100])
    assert line(to_text, "two") == ([1, 2, 3, 4], [0, 100, 100, 100])
    assert [axes.get_title() for axes in figures[0].axes] == ["text → image", "image → text"]
    assert [axes.get_xlabel() for axes in figures[0].axes] == ["k, of 2 pictures", "k, of 4 captions"]
    assert to_text.get_xscale() == "log"
    assert to_text.get_ylim() == (0, 100)
    assert legend(figures[0]) == ["one", "two", "chance"]


def test_chance_beside_it(figures, tmp_path):
    draw_recall_against_k(RANKS, POSITIVES, CANDIDATES, tmp_path / "a.png")
    to_image, to_text = figures[0].axes
    assert line(to_image, "chance")[1] == pytest.approx([50, 100])
    # One of four: k / 4. Three of four: 3/4, and all but certain from two on.
    assert line(to_text, "chance")[1] == pytest.approx([50, 75, 87.5, 100])


def test_the_ceiling_where_there_is_one(figures, tmp_path):
    ceilings = {"image": lambda k: {1: 0.9, 2: 0.95}[k]}
    draw_recall_against_k(RANKS, POSITIVES, CANDIDATES, tmp_path / "a.png", ceilings)
    to_image, to_text = figures[0].axes
    assert line(to_image, "ceiling") == ([1, 2], [90, 95])
    assert "ceiling" not in [drawn.get_label() for drawn in to_text.lines]
    assert legend(figures[0]) == ["one", "two", "chance", "ceiling"]


def test_models_keep_their_colour_in_both_panels(figures, tmp_path):
    draw_recall_against_k(RANKS, POSITIVES, CANDIDATES, tmp_path / "a.png")
    colours = [[drawn.get_color() for drawn in axes.lines] for axes in figures[0].axes]
    assert colours[0] == colours[1]
    assert len(set(colours[0])) == 3


@pytest.mark.parametrize("last", [1, 2, 9, 143, 1000, 200_000])
def test_ks_are_few_and_reach_the_last(last):
    ks = charts._log_spaced(last)
    assert ks[0] == 1
    assert ks[-1] == last
    assert ks == sorted(set(ks))
    assert len(ks) <= 100
    assert ks[: min(last, 9)] == list(range(1, min(last, 9) + 1))


@pytest.mark.parametrize(("candidates", "positives"), [(1, [1]), (7, [1, 2, 2, 7]), (90, [1, 5, 5, 60])])
def test_chance_in_closed_form(candidates, positives):
    ks = list(range(1, candidates + 1))
    expected = [np.mean([1 - hypergeom(candidates, p, k).pmf(0) for p in positives]) for k in ks]
    assert charts._chance(tensor(positives), candidates, ks).tolist() == pytest.approx(expected, abs=1e-11)
    assert expected == pytest.approx([chance_recall_at_k(positives, candidates, k) for k in ks])


def test_many_candidates_take_no_time(figures, tmp_path):
    count, start = 200_000, time.perf_counter()
    ranks = {"image": torch.arange(count), "text": torch.arange(count)}
    positives = {"image": torch.ones(count), "text": torch.ones(count)}
    draw_recall_against_k({"model": ranks}, positives, dict.fromkeys(ranks, count), tmp_path / "a.png")
    assert time.perf_counter() - start < 5
    ks, recalls = line(figures[0].axes[0], "model")
    assert recalls == pytest.approx([100 * k / count for k in ks])
    assert line(figures[0].axes[0], "chance")[1] == pytest.approx(recalls, abs=1e-6)


@pytest.mark.parametrize(
    ("last", "ticks"),
    [(1, ["1"]), (12, ["1", "2", "5", "10"]), (999, ["1", "2", "5", "10", "20", "50", "100", "200", "500"]),
     (5000, ["1", "10", "100", "1,000"])],
)  # fmt: skip
def test_ticks_are_plain_numbers(figures, tmp_path, last, ticks):
    ranks = {"m": {"image": tensor([0]), "text": tensor([0])}}
    draw_recall_against_k(ranks, dict.fromkeys(CANDIDATES, tensor([1])), dict.fromkeys(CANDIDATES, last), tmp_path)
    axes = figures[0].axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ticks
    assert [float(tick.replace(",", "")) for tick in ticks] == list(axes.get_xticks())
    assert len(axes.get_xticks(minor=True)) == 0


# ---- similarities -------------------------------------------------------------------------------------------------


def densities(axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    steps = [patch for patch in axes.patches if patch.get_label()]
    return {patch.get_label(): (patch.get_data().values, patch.get_data().edges) for patch in steps}


def test_densities_over_the_same_bins(figures, tmp_path):
    # Ten bins from 0 to 1: half of the right pairs in the last, the other half in the one before.
    positive, negative = tensor([0.95, 1.0, 0.85, 0.81]), tensor([0.0, 0.05, 0.09, 0.15])
    draw_similarities({"model": (positive, negative)}, tmp_path / "a.png")
    drawn = densities(figures[0].axes[0])
    assert drawn["right pairs"][0] == pytest.approx([0] * 8 + [5, 5], abs=1e-4)
    assert drawn["wrong pairs"][0] == pytest.approx([7.5, 2.5] + [0] * 8, abs=1e-4)
    for _, edges in drawn.values():
        assert edges == pytest.approx(np.linspace(0, 1, 11))
    assert figures[0].axes[0].get_title() == "model\nright above wrong in 100.0 % of draws (ROC AUC)"


def test_many_pairs_have_narrower_bins(figures, tmp_path):
    torch.manual_seed(0)
    draw_similarities({"few": (torch.rand(900), torch.rand(9000)), "many": (torch.rand(9000),) * 2}, tmp_path)
    assert [len(densities(axes)["right pairs"][0]) for axes in figures[0].axes] == [30, 60]


def test_the_overlap_is_the_area_under_the_roc():
    torch.manual_seed(0)
    positive, negative = torch.randint(0, 12, (50,)) / 10, torch.randint(0, 9, (333,)) / 10  # full of ties
    labels = [1] * 50 + [0] * 333
    expected = roc_auc_score(labels, torch.cat([positive, negative]))
    assert charts._area_under_roc(positive, negative) == pytest.approx(expected)
    # 0.5 beats 0.1 and 0.2 and ties with 0.5; 0.1 ties with 0.1: (2.5 + 0.5) / 6.
    assert charts._area_under_roc(tensor([0.5, 0.1]), tensor([0.5, 0.1, 0.2])) == pytest.approx(0.5)


@pytest.mark.parametrize(("models", "panels"), [(1, 1), (2, 2), (3, 3), (4, 4), (6, 4)])
def test_up_to_four_models(figures, tmp_path, models, panels):
    cosines = {f"model {i}": (tensor([0.5, 0.6]), tensor([0.1, 0.1 * i])) for i in range(models)}
    draw_similarities(cosines, tmp_path / "a.png", title="Cosines")
    titles = [axes.get_title().split("\n")[0] for axes in figures[0].axes if axes.axison]
    assert titles == [f"model {i}" for i in range(panels)]
    assert figures[0].get_suptitle() == ("Cosines" if models <= 4 else "Cosines: the first 4 of 6 models")


@pytest.mark.parametrize(
    ("positive", "negative", "says"),
    [([0.3, 0.3], [], "no wrong pairs"), ([], [0.1], "no right pairs"),
     ([0.3, 0.3], [0.3], "right above wrong in 50.0 % of draws (ROC AUC)")],
)  # fmt: skip
def test_missing_and_constant_pairs(figures, tmp_path, positive, negative, says):
    draw_similarities({"model": (torch.tensor(positive), torch.tensor(negative))}, tmp_path / "a.png")
    assert figures[0].axes[0].get_title() == f"model\n{says}"
    for heights, edges in densities(figures[0].axes[0]).values():
        assert (heights * np.diff(edges)).sum() == pytest.approx(1)
    assert len(densities(figures[0].axes[0])) == bool(positive) + bool(negative)


# ---- languages ----------------------------------------------------------------------------------------------------


def test_a_bar_a_model_and_language(figures, tmp_path):
    recalls = {"one": {"de": 0.25, "en": 0.5}, "two": {"en": 0.75, "de": 0.5, "sw": 0.125}}
    draw_by_language(recalls, {"en": 0.01, "de": 0.02, "sw": 0.03}, tmp_path / "a.png", k=5)
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["en", "de", "sw"]
    assert axes.yaxis_inverted(), "the first is on top"
    bars = {bar.get_label(): [(b.get_y() + b.get_height() / 2, b.get_width()) for b in bar] for bar in axes.containers}
    assert bars["one"] == [pytest.approx(bar) for bar in [(-0.2, 50), (0.8, 25)]]
    assert bars["two"] == [pytest.approx(bar) for bar in [(0.2, 75), (1.2, 50), (2.2, 12.5)]]
    assert axes.get_title() == "recall@5 by language"
    assert sorted(legend(figures[0])) == ["chance", "one", "two"]
    assert [text.get_text() for text in axes.texts] == ["50.0", "25.0", "75.0", "50.0", "12.5"]


def test_chance_is_a_tick_on_its_row(figures, tmp_path):
    draw_by_language({"one": {"zh": 0.1, "en": 0.5, "sw": 0.001}}, {"zh": 0.03, "sw": 0.02}, tmp_path / "a.png", k=1)
    (axes,) = figures[0].axes
    (ticks,) = axes.collections
    assert [segment.tolist() for segment in ticks.get_segments()] == [
        [pytest.approx([3, 0.55]), pytest.approx([3, 1.45])],
        [pytest.approx([2, 1.55]), pytest.approx([2, 2.45])],
    ]
    # The number stands right of the bar and of the tick.
    assert [text.xy[0] for text in axes.texts] == pytest.approx([50, 10, 2])


def test_languages_by_their_mean_over_the_models_that_have_them():
    recalls = {"one": {"a": 0.1, "b": 0.5, "c": 0.3}, "two": {"a": 0.8, "d": 0.4}}  # a: 0.45
    assert charts._by_mean(recalls) == ["b", "a", "d", "c"]


# ---- confusion ----------------------------------------------------------------------------------------------------


def names_of(axes) -> tuple[list[str], list[str]]:
    return [t.get_text() for t in axes.get_yticklabels()], [t.get_text() for t in axes.get_xticklabels()]


def test_cells_are_shares_of_the_right_class(figures, tmp_path):
    torch.manual_seed(0)
    labels, answers = torch.randint(0, 5, (200,)), torch.randint(0, 5, (200,))
    draw_confusion(labels, answers, list("abcde"), tmp_path / "a.png")
    (axes,) = figures[0].axes
    expected = 100 * confusion_matrix(labels, answers, normalize="true")  # rows: right, columns: answer
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert names_of(axes) == (list("abcde"), list("abcde"))
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("right class", "answer")
    assert {(t.get_position()[::-1], t.get_text()) for t in axes.texts} == {
        ((row, column), f"{expected[row, column]:.0f}") for row, column in itertools.product(range(5), repeat=2)
    }
    assert "of 5" not in axes.get_title()


def test_the_most_confused_of_many_classes(figures, tmp_path):
    # 0 → 3 twice, 2 → 3 once, 4 → 1 once: 3 is in three confusions, 0 in two, 1, 2 and 4 in one; 5 only right.
    labels = tensor([0, 0, 0, 0, 2, 2, 3, 4, 5, 5, 5])
    answers = tensor([3, 3, 0, 0, 3, 2, 3, 1, 5, 5, 5])
    draw_confusion(labels, answers, list("abcdef"), tmp_path / "a.png", most=2)
    (axes,) = figures[0].axes
    assert names_of(axes)[0] == ["a", "d"]
    assert axes.images[0].get_array().tolist() == [[50, 50], [0, 100]]
    assert axes.get_title().startswith("2 of 6 classes, those in the most confusions\n")
    assert {text.get_text() for text in axes.texts} == {"50", "100"}, "nothing is written where nothing is"


def test_answers_that_are_not_shown_count_in_the_row(figures, tmp_path):
    labels, answers = tensor([0, 0, 0, 0, 1, 1]), tensor([0, 1, 1, 2, 0, 1])
    draw_confusion(labels, answers, list("abc"), tmp_path / "a.png", most=2)
    assert figures[0].axes[0].images[0].get_array().tolist() == [[25, 50], [50, 50]]


def test_numbers_only_where_there_is_room(figures, tmp_path):
    for classes in (12, 13):
        draw_confusion(torch.arange(classes), torch.arange(classes), ["x"] * classes, tmp_path / "a.png")
    few, many = (figure.axes for figure in figures)
    assert [text.get_text() for text in few[0].texts] == ["100"] * 12
    assert len(few) == 1
    assert len(many[0].texts) == 0
    assert len(many) == 2, "a colour bar instead"


def test_a_class_without_pictures_has_an_empty_row(figures, tmp_path):
    draw_confusion(tensor([0, 0]), tensor([0, 2]), list("abc"), tmp_path / "a.png")
    cells = figures[0].axes[0].images[0].get_array()
    assert np.ma.getdata(cells)[0].tolist() == [50, 0, 50]
    assert np.ma.getmaskarray(cells)[1:].all()
    assert len(figures[0].axes[0].texts) == 2


def test_long_names_are_trimmed(figures, tmp_path):
    draw_confusion(tensor([0, 1]), tensor([0, 1]), ["a" * 20, "b" * 21], tmp_path / "a.png")
    assert names_of(figures[0].axes[0])[0] == ["a" * 20, "b" * 19 + "…"]


def test_many_classes_make_no_table_of_all(figures, tmp_path):
    labels = torch.arange(100_000)  # of all pairs: 80 GB
    draw_confusion(labels, labels.roll(1), [str(i) for i in range(100_000)], tmp_path / "a.png")
    assert figures[0].axes[0].images[0].get_array().shape == (30, 30)
    assert figures[0].axes[0].get_title().startswith("30 of 100,000 classes")


# ---- reliability --------------------------------------------------------------------------------------------------


def test_accuracy_against_confidence_and_how_many(figures, tmp_path):
    # Four bins; nothing in the second.
    bins = {"one": tensor([[2, 0.2, 0.5], [0, 0, 0], [4, 0.6, 0.75], [8, 0.9, 1.0]])}
    draw_reliability(bins, {"one": 0.1234}, tmp_path / "a.png")
    above, below = figures[0].axes
    confidence, accuracy = line(above, "one\nexpected calibration error 12.3 %")
    assert confidence == pytest.approx([20, 60, 90])
    assert accuracy == pytest.approx([50, 75, 100])
    assert line(above, "as often right as sure") == ([0, 100], [0, 100])
    for steps in below.patches:
        assert list(steps.get_data().values) == [2, 0, 4, 8]
        assert list(steps.get_data().edges) == [0, 25, 50, 75, 100]
    assert legend(figures[0]) == ["as often right as sure", "one\nexpected calibration error 12.3 %"]


def test_reliability_of_two_models_as_measured(figures, tmp_path):
    torch.manual_seed(0)
    measured = {name: calibration(torch.rand(300), torch.rand(300) < 0.5, bins=n) for name, n in (("a", 15), ("b", 5))}
    draw_reliability(
        {name: bins for name, (_, bins) in measured.items()},
        {name: error for name, (error, _) in measured.items()},
        tmp_path / "a.png",
    )
    above, below = figures[0].axes
    assert [len(drawn.get_xdata()) for drawn in above.lines] == [2, 15, 5]
    colours = [drawn.get_color() for drawn in above.lines[1:]]
    assert colours[0] != colours[1]
    assert [matplotlib.colors.to_hex(patch.get_edgecolor()) for patch in below.patches[::2]] == colours
    assert [patch.get_data().values.sum() for patch in below.patches] == [300] * 4


# ---- files and fonts ----------------------------------------------------------------------------------------------

STRANGE = ["男人 $5 and $6", "قطة صغيرة", "{_^", "microsoft/resnet-50 × google-bert/bert-base-chinese"]


def draw_all(folder, names: list[str]) -> None:
    """Every chart, of models, classes and languages of these names."""
    classes, one = torch.arange(len(names)), tensor([0])
    both = dict.fromkeys(("image", "text"), one)
    draw_recall_against_k(dict.fromkeys(names, both), both, dict.fromkeys(both, 1), folder / "recall.png")
    draw_similarities(dict.fromkeys(names, (tensor([0.2]), tensor([]))), folder / "similarities.png")
    draw_by_language({n: dict.fromkeys(names, 0.5) for n in names}, {}, folder / "languages.png", k=1)
    draw_confusion(classes, classes, names, folder / "confusion.png")
    bins = dict.fromkeys(names, tensor([[1.0, 1.0, 1.0]]))
    draw_reliability(bins, dict.fromkeys(names, 0.0), folder / "reliability.png")


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("names", [["one"], STRANGE], ids=["one", "strange"])
def test_every_chart_is_written_into_a_new_folder(tmp_path, names):
    draw_all(tmp_path / "new" / "folder", names)
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [file.stem for file in files] == ["confusion", "languages", "recall", "reliability", "similarities"]
    for file in files:
        picture = np.asarray(Image.open(file).convert("L"))
        assert picture.min() < 100
        assert picture[[0, -1]].min() == picture[:, [0, -1]].min() == 255, f"{file.name} is cut"


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.png"
    charts.save_figure(charts.new_figure(1, 2), file)
    before = file.read_bytes()
    assert Image.open(file).size == (120, 240)

    def half(aside, **settings):
        aside.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"a\.png could not be written .*No space left"):
        charts.save_figure(SimpleNamespace(savefig=half), file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(("suffix", "beginning"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_suffix_says_the_format(tmp_path, suffix, beginning):
    charts.save_figure(charts.new_figure(1, 1), tmp_path / f"a.b.{suffix}")
    assert (tmp_path / f"a.b.{suffix}").read_bytes().startswith(beginning)
    assert len(list(tmp_path.iterdir())) == 1


def test_names_are_no_formulas(figures, tmp_path):
    draw_all(tmp_path, STRANGE)
    for figure in figures:
        assert not any(text.get_parse_math() for text in figure.findobj(matplotlib.text.Text) if text.get_text())


def test_fonts_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(charts, "_FONTS", ("DejaVu Sans", "No Such Font", "STIXGeneral"))
    with charts.house_style():
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "STIXGeneral"]


def test_the_callers_settings_stay(tmp_path):
    before = dict(matplotlib.rcParams)
    draw_all(tmp_path, ["one"])
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
