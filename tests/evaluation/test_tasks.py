"""Each task by its name on tiny labelled data, end to end; what it needs and is not there is refused in a line."""

import json

import datasets
import pytest
import torch
from conftest import COLORS, tiny_model, write_pictures
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from hf_clip.cli import evaluate as command
from hf_clip.data.sources import open_source
from hf_clip.embedding import embed_source
from hf_clip.embedding_store import open_embeddings, write_embeddings
from hf_clip.errors import InputError
from hf_clip.evaluation import linear_probe
from hf_clip.evaluation.prompts import TEMPLATES
from hf_clip.evaluation.retrieval import evaluate_retrieval
from hf_clip.evaluation.tasks import TASKS, Protocol, measure, tasks_for, temperature_of
from hf_clip.evaluation.zero_shot import class_embeddings, evaluate_zero_shot

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
    return embed_source(model, processor, source, progress=False, pooled=pooled)


@pytest.fixture
def labelled(model, processor, tmp_path):
    """The pictures of four classes, embedded."""
    return embedded(model, processor, class_folders(tmp_path / "test", COLORS[:4]), pooled=True)


@pytest.fixture
def captioned(model, processor, tmp_path):
    return embed_source(
        model, processor, open_source(write_pictures(tmp_path / "data", captions_each=2)), progress=False
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
            model, processor, table(tmp_path, labels, class_names=names, captions_required=False), progress=False
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
    assert flat.details["probabilities"].tolist() == pytest.approx([1 / 4] * 4 * EACH)


def test_zero_shot_of_several_labels(processor, tmp_path):
    model = tiny_model(loss="sigmoid")
    embeddings = embed_source(model, processor, table(tmp_path, SEVERAL, captions_required=False), progress=False)
    found = measure("zero-shot", model, processor, embeddings)
    assert {"zero_shot_map", "zero_shot_micro_f1"} < found.metrics.keys()
    assert found.metrics["zero_shot_map_chance"] == pytest.approx((2 / 6 + 2 / 6 + 3 / 6) / 3)


@pytest.mark.parametrize("features", ["projected", "pooled"])
def test_neighbours_among_the_others_and_among_those_of_train(features, model, processor, labelled, tmp_path):
    protocol = Protocol(features=features, neighbours=3)
    found = measure("knn", model, processor, labelled, protocol)
    names = [f"knn3_{features}_leave_one_out_{what}" for what in ("acc1", "mean_per_class_recall")]
    assert set(found.metrics) == {"images", "skipped_images", "classes", *names, *(f"{name}_chance" for name in names)}
    assert [found.metrics[name] for name in ("images", "classes", f"{names[0]}_chance")] == [4 * EACH, 4, 1 / 4]
    train = embedded(model, processor, class_folders(tmp_path / "train", COLORS[:4], 5, first=20), pooled=True)
    found = measure("knn", model, processor, labelled, protocol, train=train)
    own, theirs = (
        torch.nn.functional.normalize(part.image_embeds if features == "projected" else part.image_features)
        for part in (labelled, train)
    )
    expected = KNeighborsClassifier(3).fit(theirs, train.labels).predict(own)
    assert found.details["answers"].tolist() == expected.tolist()
    assert found.metrics[f"knn3_{features}_acc1"] == pytest.approx((expected == labelled.labels.numpy()).mean())
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

    def spy(train, test, validation, **settings):
        seen.extend([train, validation, test])
        return evaluate(train, test, validation, **settings)

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
    assert any("1 class" in note and "without a picture to learn from" in note for note in found.notes)
    assert train.labels.equal(before), "what is given stays as it is"
    train.labels, train.class_names = renumbered, test.class_names
    again = measure(task, model, processor, test, protocol, train=train, **validation)
    assert again.metrics == found.metrics


def test_classes_without_names_are_the_same_by_number(model, processor, tmp_path):
    test = embedded(model, processor, class_folders(tmp_path / "test", COLORS[:4]))
    train = embedded(model, processor, class_folders(tmp_path / "train", COLORS[:4], first=10))
    test.class_names = None
    assert measure("knn", model, processor, test, Protocol(neighbours=1), train=train).metrics[
        "knn1_projected_acc1"
    ] == 1  # fmt: skip


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_an_unknown_task_or_unknown_features(model, processor, captioned):
    with pytest.raises(
        InputError, match="no task 'captioning': choose one of retrieval, zero-shot, knn, linear-probe"
    ):
        measure("captioning", model, processor, captioned)
    with pytest.raises(InputError, match="features must be one of projected, pooled, not 'cls'"):
        Protocol(features="cls")


def test_the_command_names_the_same_tasks():
    assert command.TASKS == TASKS


@pytest.mark.parametrize("task", TASKS[2:])
def test_pooled_features_that_are_not_there(task, model, processor, tmp_path):
    plain = embedded(model, processor, class_folders(tmp_path / "test", COLORS[:4]))
    with pytest.raises(InputError, match="hold only what comes after the projection: use features projected"):
        measure(task, model, processor, plain, Protocol(features="pooled"))


@pytest.mark.parametrize("task", TASKS[1:])
def test_data_without_labels(task, model, processor, captioned):
    missing = "the classes have no names" if task == "zero-shot" else "the data have no labels that are classes"
    with pytest.raises(InputError, match=missing):
        measure(task, model, processor, captioned)


@pytest.mark.parametrize("task", TASKS[2:])
def test_several_labels_have_no_neighbours_and_no_probe(task, model, processor, labelled, tmp_path):
    several = embed_source(model, processor, table(tmp_path / "a", SEVERAL, captions_required=False), progress=False)
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
    assert tasks_for(embed_source(model, processor, source, progress=False)) == expected
    write_embeddings(model, processor, source, tmp_path / "out", progress=False)
    assert tasks_for(open_embeddings(tmp_path / "out")) == expected


def test_tasks_of_class_folders_captions_and_pictures_alone(model, processor, tmp_path, labelled, captioned):
    source = open_source(class_folders(tmp_path / "folders", COLORS[:2], 2))
    assert tasks_for(source) == tasks_for(labelled) == ["zero-shot"]
    assert tasks_for(captioned) == ["retrieval"]
    (tmp_path / "data" / "metadata.jsonl").unlink()
    alone = open_source(tmp_path / "data", captions_required=False)
    assert tasks_for(alone) == tasks_for(embed_source(model, processor, alone, progress=False)) == []
