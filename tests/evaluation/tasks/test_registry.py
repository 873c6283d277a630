"""Each task by its name on tiny labelled data, end to end; what it needs and is not there is refused in a line."""

import json

import datasets
import numpy as np
import pytest
import torch
from conftest import COLORS, tiny_model, write_pictures
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from toy_tasks import Brightness

from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import Embeddings, embed_source, temperature_of
from hf_clip.embeddings.options import EmbedOptions
from hf_clip.embeddings.store import open_embeddings
from hf_clip.embeddings.writing import write_embeddings
from hf_clip.evaluation.charts import draw_confusion
from hf_clip.evaluation.outcome import Outcome
from hf_clip.evaluation.prompts import TEMPLATES
from hf_clip.evaluation.tasks import linear_probe
from hf_clip.evaluation.tasks.registry import TASKS, find_task, measure, register, tasks_for
from hf_clip.evaluation.tasks.retrieval import evaluate_retrieval
from hf_clip.evaluation.tasks.task import Protocol
from hf_clip.evaluation.tasks.zero_shot import class_embeddings, evaluate_zero_shot

EACH = 8  # pictures a class


@pytest.fixture
def model():
    return tiny_model()


def class_folders(folder, names: list[str], each: int = EACH, first: int = 0):
    """Pictures nearly of one colour, in folders called after it; each differs from all others in a pixel."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + each):
            picture = Image.new("RGB", (40, 36), name)
            picture.putpixel((i, 0), (9 * i, 2, COLORS.index(name)))
            picture.save(folder / name / f"{i}.png")
    return folder


def embedded(model, processor, folder, **settings):
    pooled = settings.pop("pooled", False)
    source = open_source(folder, captions_required=False, **settings)
    return embed_source(model, processor, source, options=EmbedOptions(progress=False), pooled=pooled)


@pytest.fixture
def labelled(model, processor, tmp_path):
    """The pictures of four classes, embedded."""
    return embedded(model, processor, class_folders(tmp_path / "test", COLORS[:4]), pooled=True)


@pytest.fixture
def captioned(model, processor, tmp_path):
    return embed_source(
        model,
        processor,
        open_source(write_pictures(tmp_path / "data", captions_each=2)),
        options=EmbedOptions(progress=False),
    )


def table(folder, labels: list, captions: list[str] | None = None, **settings):
    write_pictures(folder, count=len(labels))
    rows = {"image": [str(folder / f"{i}.png") for i in range(len(labels))], "label": labels}
    datasets.Dataset.from_dict(rows | ({"caption": captions} if captions else {})).to_parquet(folder / "a.parquet")
    return open_source(folder / "a.parquet", **({"labels_required": True} | settings))


SEVERAL = [["red"], ["green", "red"], [], ["blue"], ["red", "blue"], ["green"]]


# ---- each task ----------------------------------------------------------------------------------------------------


def test_retrieval(model, processor, captioned):
    found = measure("retrieval", model, processor, captioned, Protocol(ks=(1, 2)))
    assert found.metrics == evaluate_retrieval(captioned, (1, 2)).metrics
    assert "image_retrieval_recall@5" in measure("retrieval", model, processor, captioned).metrics


def test_zero_shot_with_the_names_of_the_data(model, processor, labelled):
    found = measure("zero-shot", model, processor, labelled, Protocol(templates="views"))
    names = sorted(COLORS[:4])
    class_embeds = class_embeddings(model, processor, [[name] for name in names], TEMPLATES["views"])
    expected = evaluate_zero_shot(labelled, class_embeds, model.logit_scale.detach())
    assert found.metrics == expected.metrics
    assert found.metrics["images"] == 4 * EACH
    assert found.details["class_names"] == names
    assert found.protocol["templates"] == TEMPLATES["views"]
    assert found.protocol["names_a_class"] == 1
    assert found.protocol["probabilities"] == "softmax over the classes"


def test_zero_shot_with_names_that_are_given(model, processor, labelled, tmp_path):
    names = [["a"], ["b", "bee"], ["c"], ["d"], ["nothing here"]]
    prompts = {"a": ["x"], "b": ["y"], "c": ["z"], "d": ["w", "v"], "nothing here": "u"}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    protocol = Protocol(class_names=names, templates=str(tmp_path / "prompts.json"))
    found = measure("zero-shot", model, processor, labelled, protocol)
    assert found.metrics["classes"] == 5
    assert found.details["class_names"] == ["a", "b", "c", "d", "nothing here"]
    assert found.protocol["templates"] == "prompts of each class"
    assert found.protocol["names_a_class"] == 2
    with pytest.raises(InputError, match="row 25 has label 3, and the classes are 0 to 2: name each of them"):
        measure("zero-shot", model, processor, labelled, Protocol(class_names=names[:3]))


@pytest.mark.parametrize("labels", [list("bacab"), [["b"], ["a", "c"], [], ["a"], ["b", "c"]]])
def test_names_that_are_given_in_another_order_are_matched_to_those_of_the_data(labels, model, processor, tmp_path):
    # A stored data set keeps the numbers that its own order of the names gave.
    own, asked = (
        embed_source(
            model,
            processor,
            table(tmp_path, labels, class_names=names, captions_required=False),
            options=EmbedOptions(progress=False),
        )
        for names in (None, list("cba"))
    )
    protocol = Protocol(class_names=[["c", "see"], ["b"], ["a"]])
    found = measure("zero-shot", model, processor, own, protocol)
    assert found.metrics == measure("zero-shot", model, processor, asked, protocol).metrics
    assert found.details["class_names"] == list("cba")
    assert found.details["labels"].equal(asked.labels)
    assert not own.labels.equal(asked.labels)
    more = measure("zero-shot", model, processor, own, Protocol(class_names=[["d"], ["c"], ["b"], ["a"]]))
    assert more.metrics["classes_without_pictures"] == 1


def test_zero_shot_of_a_sigmoid_model_and_of_a_temperature(processor, labelled):
    sigmoid = tiny_model(loss="sigmoid")
    found = measure("zero-shot", sigmoid, processor, labelled)
    assert found.protocol["probabilities"] == "sigmoid, each class alone"
    scale, bias = temperature_of(sigmoid)
    assert (scale.requires_grad, bias.requires_grad) == (False, False)
    assert (float(scale), float(bias)) == pytest.approx((2.302585, -10))
    flat = measure("zero-shot", sigmoid, processor, labelled, temperature=(torch.tensor(-99.0), None))
    assert flat.details["probabilities"].tolist() == pytest.approx([1 / 2] * 4 * EACH)  # each class alone


def test_zero_shot_of_several_labels(processor, tmp_path):
    model = tiny_model(loss="sigmoid")
    embeddings = embed_source(
        model, processor, table(tmp_path, SEVERAL, captions_required=False), options=EmbedOptions(progress=False)
    )
    found = measure("zero-shot", model, processor, embeddings)
    assert {"zero_shot_map", "zero_shot_micro_f1"} < found.metrics.keys()
    assert found.metrics["zero_shot_map_chance"] == pytest.approx((2 / 6 + 2 / 6 + 3 / 6) / 3)


@pytest.mark.parametrize("features", ["projected", "pooled"])
def test_neighbours_among_the_others_and_among_those_of_train(features, model, processor, labelled, tmp_path):
    protocol = Protocol(features=features, neighbours=3)
    found = measure("knn", model, processor, labelled, protocol)
    names = [f"knn3_{features}_leave_one_out_{what}" for what in ("acc1", "mean_per_class_recall")]
    counts = {"images", "skipped_images", "classes", "classes_without_pictures"}
    assert set(found.metrics) == {*counts, *names, *(f"{name}_chance" for name in names)}
    assert [found.metrics[name] for name in ("images", "classes", f"{names[0]}_chance")] == [4 * EACH, 4, 1 / 4]
    train = embedded(model, processor, class_folders(tmp_path / "train", COLORS[:4], 5, first=20), pooled=True)
    found = measure("knn", model, processor, labelled, protocol, train=train)
    own, theirs = (
        torch.nn.functional.normalize(part.image_embeds if features == "projected" else part.image_features)
        for part in (labelled, train)
    )
    votes = torch.from_numpy(KNeighborsClassifier(3).fit(theirs, train.labels).predict_proba(own))
    tied = (votes == votes.amax(1, keepdim=True)).sum(1) > 1
    expected = votes.argmax(1)
    assert found.details["answers"][~tied].equal(expected[~tied])
    right = (expected == labelled.labels) & ~tied
    assert found.metrics[f"knn3_{features}_acc1"] == pytest.approx(right.double().mean().item())
    assert found.protocol["train_pictures"] == 20


def test_a_probe_on_train_and_validation(model, processor, labelled, tmp_path):
    parts = {
        name: embedded(model, processor, class_folders(tmp_path / name, COLORS[:4], each, first=first), pooled=True)
        for name, each, first in (("train", 6, 10), ("validation", 2, 20))
    }
    found = measure("linear-probe", model, processor, labelled, Protocol(features="pooled", shots=(2,)), **parts)
    assert found.metrics["images"] == 4 * EACH
    assert {"linear_probe_pooled_acc1", "linear_probe_pooled_2shot_acc1"} < found.metrics.keys()
    assert found.metrics["linear_probe_pooled_acc1"] == 1, "four colours"
    pictures = [found.protocol[f"{name}_pictures"] for name in ("train", "validation", "test")]
    assert pictures == [24, 8, 32]
    assert found.protocol["validation"] == "given"
    assert found.details["class_names"] == sorted(COLORS[:4])
    without = measure("linear-probe", model, processor, labelled, train=parts["train"])
    assert without.protocol["validation"].startswith("a stratified fifth of train")


# ---- a part of the data for train ---------------------------------------------------------------------------------


def test_a_probes_own_split_is_by_content(model, processor, tmp_path, monkeypatch):
    """Every picture stands twice, in two files, 14 rows apart."""
    folder = class_folders(tmp_path / "data", COLORS[:4], 14)
    for file in list(folder.glob("*/*.png")):
        (file.parent / f"copy of {file.name}").write_bytes(file.read_bytes())
    embeddings = embedded(model, processor, folder)
    assert len(embeddings.image_ids.unique()) == 56
    seen = []

    def spy(train, test, validation, *protocol, **settings):
        seen.extend([train, validation, test])
        return evaluate(train, test, validation, *protocol, **settings)

    evaluate = linear_probe.evaluate_linear_probe
    monkeypatch.setattr(linear_probe, "evaluate_linear_probe", spy)
    found = measure("linear-probe", model, processor, embeddings)
    ids = embeddings.image_ids.tolist()
    of_id = dict(zip(map(tuple, embeddings.image_embeds.tolist()), ids, strict=True))
    assert len(of_id) == 56, "all embeddings differ"
    parts = [[of_id[tuple(row.tolist())] for row in part.features] for part in seen]
    assert sorted(i for part in parts for i in part) == sorted(ids), "each in one of them"
    for part, others in zip(parts, (parts[1] + parts[2], parts[0] + parts[2], parts[0] + parts[1]), strict=True):
        assert len(part) == 2 * len(set(part)), "a picture and its copy"
        assert not set(part) & set(others)
    # Binomial of 56 by 3/5: σ is below 4.
    assert 22 < len(set(parts[0])) < 46
    names = {name for name in found.metrics if "linear" in name and not name.endswith("_chance")}
    assert names == {f"linear_probe_projected_own_split_{what}" for what in ("acc1", "mean_per_class_recall")}
    assert found.metrics["images"] == len(parts[2])
    assert found.protocol["split"] == "the data's own, by picture: ⅗ train, ⅕ validation, ⅕ test"
    # The labels went with their pictures.
    labels = dict(zip(ids, embeddings.labels.tolist(), strict=True))
    for part, of_part in zip(seen, parts, strict=True):
        assert part.labels.tolist() == [labels[i] for i in of_part]


def test_an_own_split_of_pooled_features(model, processor, labelled):
    found = measure("linear-probe", model, processor, labelled, Protocol(features="pooled"))
    assert "linear_probe_pooled_own_split_acc1" in found.metrics


# ---- classes of two sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["knn", "linear-probe"])
def test_classes_of_train_are_those_of_the_test_by_name(task, model, processor, tmp_path):
    # black, blue, green, red in one folder; blue, green, red, yellow in the other: blue is 1 and 0.
    test = embedded(model, processor, class_folders(tmp_path / "test", ["red", "green", "blue", "black"]))
    train = embedded(model, processor, class_folders(tmp_path / "train", ["red", "green", "blue", "yellow"], first=10))
    numbers = {name: number for number, name in enumerate(sorted(["red", "green", "blue", "black"]))} | {"yellow": 4}
    renumbered = torch.tensor([numbers[train.class_names[label]] for label in train.labels])
    before = train.labels.clone()
    validation = {"validation": train} if task == "linear-probe" else {}
    protocol = Protocol(neighbours=1)
    found = measure(task, model, processor, test, protocol, train=train, **validation)
    name = "knn1_projected" if task == "knn" else "linear_probe_projected"
    # All but the black ones, to which nothing is near in name.
    assert found.metrics[f"{name}_acc1"] == 3 / 4
    right = found.details["answers"] == found.details["labels"]
    assert right.tolist() == (test.labels != numbers["black"]).tolist()
    assert any("1 class (black) without a picture to learn from" in note for note in found.notes)
    assert train.labels.equal(before), "what is given stays as it is"
    assert found.details["class_names"] == ["black", "blue", "green", "red", "yellow"]
    train.labels = renumbered
    train.class_names = test.class_names = found.details["class_names"]
    again = measure(task, model, processor, test, protocol, train=train, **validation)
    assert again.metrics == found.metrics


LETTERS = list("abcdefghijk")


def hand_made(labels: list[int], names: list[str] | None, seed: int = 0) -> Embeddings:
    """A picture a label, in a direction of its own class, without a file."""
    torch.manual_seed(seed)
    numbers, none = torch.tensor(labels), torch.empty(0, dtype=torch.int64)
    rows = torch.arange(len(labels))
    kinds = torch.tensor([LETTERS.index(names[n]) if names else n for n in labels])
    return Embeddings(
        image_embeds=torch.nn.functional.normalize(torch.eye(16)[kinds.clamp(min=0)] + torch.rand(len(rows), 16) / 9),
        text_embeds=torch.empty(0, 16), image_rows=2 * rows, text_to_image=none, image_ids=rows, caption_ids=none,
        labels=numbers, class_names=names,
    )  # fmt: skip


TEN = list(range(10)) * 3


@pytest.mark.parametrize("task", ["knn", "linear-probe"])
@pytest.mark.parametrize("named", [True, False])
def test_chance_and_names_are_of_the_classes_of_all_parts(task, named, tmp_path):
    names = LETTERS[:10]
    # The test's three stand first; its pictures of the first two look like others.
    test = hand_made([0, 1, 2] * 4, names[5:8] if named else None)
    test.image_embeds[:2] = hand_made([9, 9], None).image_embeds
    if named:
        train, validation = hand_made(TEN[:-3], sorted(names)), hand_made([0], [LETTERS[10]])
    else:
        train, validation = hand_made(TEN, None), hand_made([0, 10], None)
    parts = {"train": train} | ({"validation": validation} if task == "linear-probe" else {})
    found = measure(task, None, None, test, Protocol(neighbours=1), **parts)
    classes = 11 if task == "linear-probe" else 10
    chances = [value for name, value in found.metrics.items() if name.endswith("_chance")]
    assert chances == pytest.approx([1 / classes] * 2)
    assert (found.metrics["classes"], found.metrics["classes_without_pictures"]) == (classes, classes - 3)
    note = f"{classes - 3} of {classes} classes have no picture in the test: they enter no mean over classes"
    assert note in found.notes
    assert found.details["answers"].max() > 2, "of a class that the test has not"
    if not named:
        assert found.details["class_names"] is None
        return
    shown = found.details["class_names"]
    assert shown[:3] == names[5:8]
    assert set(shown) == {*names, *([LETTERS[10]] if task == "linear-probe" else [])}
    answered = {shown[answer] for answer in found.details["answers"].tolist()}
    assert names[9] in answered
    draw_confusion(found.details["labels"], found.details["answers"], shown, tmp_path / "a.png")


@pytest.mark.parametrize("task", ["knn", "linear-probe"])
def test_a_class_of_the_data_without_pictures_is_counted(task):
    found = measure(task, None, None, hand_made([0, 1, 3] * 15, LETTERS[:4]), Protocol(neighbours=3))
    assert (found.metrics["classes"], found.metrics["classes_without_pictures"]) == (4, 1)
    assert "1 of 4 classes have no picture in the test: they enter no mean over classes" in found.notes
    full = measure(task, None, None, hand_made([0, 1, 2, 3] * 15, LETTERS[:4]), Protocol(neighbours=3))
    assert full.metrics["classes_without_pictures"] == 0
    assert not any("have no picture" in note for note in full.notes)


def test_notes_of_the_neighbours_name_classes():
    found = measure("knn", None, None, hand_made([0, 0, 1], LETTERS[:2]), Protocol(neighbours=1))
    assert any(f"1 class ({LETTERS[1]}) with one picture" in note for note in found.notes)


def test_classes_that_bear_the_same_name_stay_two():
    test, train = (hand_made([0, 1] * 5, ["a", "a"], seed) for seed in (0, 1))
    assert measure("knn", None, None, test, Protocol(neighbours=1), train=train).metrics["classes"] == 2


@pytest.mark.parametrize("task", ["knn", "linear-probe"])
def test_classes_without_names_are_the_same_by_number(task):
    test, train = hand_made([0, 1, 2] * 4, None), hand_made([2, 1, 0] * 9, None, seed=1)
    metrics = measure(task, None, None, test, Protocol(neighbours=1), train=train).metrics
    assert [value for name, value in metrics.items() if name.endswith("projected_acc1")] == [1]


@pytest.mark.parametrize("task", ["knn", "linear-probe"])
def test_names_on_one_side_only_are_refused(task):
    named, numbered = hand_made([0, 1] * 9, LETTERS[:2]), hand_made([0, 1] * 9, None)
    remedy = "give class names for all of them"
    with pytest.raises(InputError, match=f"names in test, and only numbers in train: {remedy}"):
        measure(task, None, None, named, train=numbered)
    with pytest.raises(InputError, match=f"names in train, and only numbers in test: {remedy}"):
        measure(task, None, None, numbered, train=named)
    if task == "linear-probe":
        with pytest.raises(InputError, match=f"names in test and train, and only numbers in validation: {remedy}"):
            measure(task, None, None, named, train=named, validation=numbered)


def test_an_own_split_that_leaves_a_part_empty_says_so():
    remedy = "give pictures to train on, as train_data"
    for labels, empty in (
        ([0], "train without a picture, validation"),
        ([0, 1], "train"),
        ([0, 1, 0, 0], "one class"),
    ):
        with pytest.raises(InputError, match=f"^the data's own split leaves .*{empty}.*: {remedy}"):
            measure("linear-probe", None, None, hand_made(labels, None))
    with pytest.raises(InputError, match=r"have one picture, which has no other .*, as train_data"):
        measure("knn", None, None, hand_made([0], None))


OF_CLASSES = ["zero-shot", "knn", "linear-probe"]


@pytest.mark.parametrize("task", OF_CLASSES)
def test_a_label_that_is_no_class_is_named_with_its_row(task):
    given = Protocol(class_names=[["b"], ["a"]])
    broken, whole = hand_made([0, 1, -1], LETTERS[:2]), hand_made([0, 1] * 9, LETTERS[:2])
    with pytest.raises(InputError, match="row 5 has label -1, which is no class: they are 0 to 1"):
        measure(task, None, None, broken, given, temperature=(torch.tensor(0.0), None))
    if task == "zero-shot":
        return
    for part in (broken, hand_made([0, 1, 2], LETTERS[:3])):
        part.class_names = LETTERS[:2]
        with pytest.raises(InputError, match=r"row 5 has label (-1|2), which is no class: they are 0 to 1"):
            measure(task, None, None, whole, train=part)
    with pytest.raises(InputError, match="row 5 has label -1, which is no class: they count from 0"):
        measure(task, None, None, hand_made([0, 1, -1], None))


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_an_unknown_task_or_unknown_features(model, processor, captioned):
    with pytest.raises(
        InputError, match="no task 'captioning': choose one of retrieval, zero-shot, knn, linear-probe"
    ):
        measure("captioning", model, processor, captioned)
    with pytest.raises(InputError, match="features are 'cls': they are one of projected, pooled"):
        Protocol(features="cls")


@pytest.mark.parametrize("task", OF_CLASSES[1:])
def test_pooled_features_that_are_not_there(task, model, processor, tmp_path):
    plain = embedded(model, processor, class_folders(tmp_path / "test", COLORS[:4]))
    with pytest.raises(InputError, match="hold only what comes after the projection: use features projected"):
        measure(task, model, processor, plain, Protocol(features="pooled"))


@pytest.mark.parametrize("task", OF_CLASSES)
def test_data_without_labels(task, model, processor, captioned):
    missing = "the classes have no names" if task == "zero-shot" else "the data have no labels that are classes"
    with pytest.raises(InputError, match=missing):
        measure(task, model, processor, captioned)


@pytest.mark.parametrize("task", OF_CLASSES[1:])
def test_several_labels_have_no_neighbours_and_no_probe(task, model, processor, labelled, tmp_path):
    several = embed_source(
        model, processor, table(tmp_path / "a", SEVERAL, captions_required=False), options=EmbedOptions(progress=False)
    )
    message = "pictures with several labels have no one class for a probe or neighbours: use zero-shot"
    with pytest.raises(InputError, match=message):
        measure(task, model, processor, several)
    with pytest.raises(InputError, match=message):
        measure(task, model, processor, labelled, train=several)
    with pytest.raises(InputError, match=message):
        measure(task, model, processor, several, train=labelled)
    if task == "linear-probe":
        with pytest.raises(InputError, match=message):
            measure(task, model, processor, labelled, train=labelled, validation=several)


class Told(Brightness):
    """What it is told to measure."""

    found: float = 0.5

    def measure(self, given):
        return Outcome({"images": np.int64(8), "brightness_mean": self.found, "brightness_mean_chance": 0.5})


@pytest.mark.parametrize(
    ("value", "kept"),
    [(np.float32(0.25), 0.25), (np.int64(3), 3), (torch.tensor(0.5), 0.5), (True, 1.0), (np.bool_(False), 0.0)],
)
def test_a_figure_of_whatever_kind_is_a_number(value, kept, monkeypatch):
    monkeypatch.setitem(TASKS, "brightness", Told())
    monkeypatch.setattr(Told, "found", value)
    found = measure("brightness", None, None, None).metrics
    assert found == {"images": 8, "brightness_mean": kept, "brightness_mean_chance": 0.5}
    assert [type(each) for each in found.values()] == [int, type(kept), float]


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), None, "0.5", np.zeros(2)])
def test_a_figure_that_is_no_number_is_named_with_its_task(value, monkeypatch):
    monkeypatch.setitem(TASKS, "brightness", Told())
    monkeypatch.setattr(Told, "found", value)
    with pytest.raises(InputError, match=r"brightness gives brightness_mean = .*, which is no finite number: mend"):
        measure("brightness", None, None, None)


def test_shares_that_are_no_numbers_are_named():
    outcome = Outcome({"a": 0.5}, shares={"a": (np.array([0.5, np.nan]), np.ones(2))})
    with pytest.raises(InputError, match="brightness gives shares of a that are not all finite"):
        outcome.checked("brightness")


# ---- which tasks --------------------------------------------------------------------------------------------------

BOTH = ["retrieval", "zero-shot"]
RED = ["red", "green", "red", "green"]


@pytest.mark.parametrize(
    ("labels", "captions", "settings", "expected"),
    [
        (RED, list("uvwx"), {}, BOTH),
        (RED, list("uvwx"), {"labels_required": False}, ["retrieval"]),
        (RED, None, {}, ["zero-shot"]),
        (RED, None, {"captions_required": False}, ["zero-shot"]),
        ([0, 1, 1, 0], list("uvwx"), {}, ["retrieval"]),
        ([0, 1, 1, 0], list("uvwx"), {"class_names": ["a", "b"]}, BOTH),
        ([0, 1, 1, 0], None, {"captions_required": False}, []),
        (SEVERAL, list("uvwxyz"), {}, BOTH),
        (SEVERAL, None, {"captions_required": False}, ["zero-shot"]),
        ([["red"], ["red", "green"]], None, {}, ["zero-shot"]),
    ],
)
def test_tasks_of_a_source_and_of_what_is_made_of_it(labels, captions, settings, expected, model, processor, tmp_path):
    source = table(tmp_path / "data", labels, captions, **settings)
    assert tasks_for(source) == expected
    assert tasks_for(embed_source(model, processor, source, options=EmbedOptions(progress=False))) == expected
    write_embeddings(model, processor, source, tmp_path / "out", options=EmbedOptions(progress=False))
    assert tasks_for(open_embeddings(tmp_path / "out")) == expected


def test_tasks_of_class_folders_captions_and_pictures_alone(model, processor, tmp_path, labelled, captioned):
    source = open_source(class_folders(tmp_path / "folders", COLORS[:2], 2))
    assert tasks_for(source) == tasks_for(labelled) == ["zero-shot"]
    assert tasks_for(captioned) == ["retrieval"]
    (tmp_path / "data" / "metadata.jsonl").unlink()
    alone = open_source(tmp_path / "data", captions_required=False)
    assert (
        tasks_for(alone)
        == tasks_for(embed_source(model, processor, alone, options=EmbedOptions(progress=False)))
        == []
    )


# ---- a task of one's own ------------------------------------------------------------------------------------------


def test_names_are_taken_once():
    class Other(Brightness):
        name = "retrieval"

    with pytest.raises(ValueError, match="there is a task 'retrieval' already"):
        register(Other())
    with pytest.raises(InputError, match="no task 'darkness': choose one of retrieval, zero-shot, knn, linear-probe"):
        find_task("darkness")
