"""`hf-clip evaluate` from end to end, and its complaints."""

import json
import sys

import datasets
import pytest
import torch
from conftest import tiny_model, write_pictures
from PIL import Image

import hf_clip.evaluation.data
from hf_clip.cli.main import main
from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import embed_source
from hf_clip.embeddings.options import EmbedOptions
from hf_clip.evaluation.tasks.retrieval import evaluate_retrieval


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


def test_lists_of_numbers_are_measured_by_retrieval_alone(command, pictures, capsys):
    file = pictures / "metadata.jsonl"
    rows = [json.loads(line) | {"kinds": [i % 3]} for i, line in enumerate(file.read_text().splitlines())]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command += ["--label_column", "kinds"]
    refusal = complaint([*command, "--task", "knn"], capsys)
    assert "have lists of labels, which are only numbers: give class_names" in refusal
    assert main([*command, "--json"]) == 0
    assert "image_retrieval_recall@1" in values(json.loads(capsys.readouterr().out))


def test_json_is_the_only_thing_on_stdout(command, pictures, processor, monkeypatch, capsys):
    def noisy(*args, **kwargs):
        print("a library's noise")
        return embed_source(*args, **kwargs)

    monkeypatch.setattr(hf_clip.evaluation.data, "embed_source", noisy)
    assert main([*command, "--json", "--batch_size", "3"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    expected = evaluate_retrieval(
        embed_source(tiny_model(), processor, open_source(pictures), options=EmbedOptions(progress=False))
    ).metrics
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


def test_without_matplotlib_the_figures_are_there(command, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["pictures"] == []
    assert "no images without matplotlib" in caplog.text
    assert not list(tmp_path.glob("evaluation/**/*.png"))


# ---- several models, languages, classes ---------------------------------------------------------------------------


@pytest.fixture
def other_folder(tmp_path, processor):
    tiny_model(seed=1).save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_two_models_side_by_side(command, other_folder, pictures, processor, tmp_path, capsys):
    command.insert(command.index("--data"), str(other_folder))
    assert main([*command, "--k", "1", "3", "--resamples", "200"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["retrieval: 8 images, 8 captions", lines[1]]
    assert lines[1].split() == ["model", "other", "chance"]
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    source = open_source(pictures)
    for name, seed in (("model", 0), ("other", 1)):
        embeddings = embed_source(tiny_model(seed), processor, source, options=EmbedOptions(progress=False))
        expected = evaluate_retrieval(embeddings, (1, 3)).metrics
        found = {f["metric"]: f["value"] for f in results["figures"] if f["model"] == name}
        assert found == pytest.approx({metric: expected[metric] for metric in found})
        column = 1 if name == "model" else 2
        assert f"{expected['image_retrieval_recall@3']:.3f}" == next(
            line.split()[column] for line in lines if line.startswith("image_retrieval_recall@3")
        )
    by_model = {(f["model"], f["metric"]): f["value"] for f in results["figures"]}
    assert {row["metric"] for row in results["differences"]} == {
        f"{way}_retrieval_{name}@{k}" for way in ("image", "text") for name in ("recall", "map") for k in (1, 3)
    }
    for row in results["differences"]:
        assert (row["from"], row["to"], row["task"]) == ("model", "other", "retrieval")
        metric = row["metric"]
        assert row["value"] == pytest.approx(by_model["other", metric] - by_model["model", metric])
    digests = {model["name"]: model["digest"] for model in results["models"]}
    assert list(digests) == ["model", "other"]
    assert digests["model"] != digests["other"]
    page = (tmp_path / "evaluation" / "report.md").read_text()
    assert "|  | model | other | chance | ceiling |" in page
    assert "### What differs from model" in page
    grids = [picture for picture in results["pictures"] if "worst" in picture]
    assert grids == ["worst_retrievals_1.png", "worst_retrievals_2.png"]
    assert {file.name for file in (tmp_path / "evaluation" / "pictures").iterdir()} == set(results["pictures"])


def test_a_model_given_twice(command, model_folder, monkeypatch, capsys):
    monkeypatch.setattr(hf_clip.evaluation.data, "embed_source", lambda *args, **kwargs: 1 / 0)
    command.insert(command.index("--data"), str(model_folder))
    assert "names a model twice: give each once" in complaint(command, capsys)


def test_folders_of_the_same_name_are_told_apart(command, other_folder, model_folder, tmp_path, capsys):
    namesake = other_folder.rename(tmp_path / "later") / "model"
    namesake.parent.rename(tmp_path / "aside")
    namesake.parent.mkdir()
    (tmp_path / "aside").rename(namesake)
    command.insert(command.index("--data"), str(namesake))
    assert main([*command, "--k", "1", "--resamples", "200", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    names = [f"{tmp_path.name}/model", "later/model"]  # no more of where they lie than it takes
    assert [model["name"] for model in results["models"]] == names
    assert {(row["from"], row["to"]) for row in results["differences"]} == {tuple(names)}


COLOURS = {"en": ["red", "green", "blue", "yellow", "black", "orange", "purple", "brown"],
           "de": ["rot", "grun", "blau", "gelb", "schwarz", "orange", "lila", "braun"]}  # fmt: skip


@pytest.fixture
def two_languages(command, pictures):
    rows = [
        {"file_name": f"{i}.png", "captions": {language: [names[i]] for language, names in COLOURS.items()}}
        for i in range(8)
    ]
    (pictures / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*command, "--languages", "en=captions.en", "de=captions.de", "--k", "1", "3", "--resamples", "200"]


@pytest.mark.parametrize("more", [["--caption_column", "captions.en"], []])
def test_languages(two_languages, more, pictures, processor, tmp_path, capsys):
    assert main([*two_languages, *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("retrieval")] == [
        "retrieval/en: 8 images, 8 captions",
        "retrieval/de: 8 images, 8 captions",
    ]
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert {f["task"] for f in results["figures"]} == {"retrieval/en", "retrieval/de"}
    for language in COLOURS:
        source = open_source(pictures, caption_column=f"captions.{language}")
        expected = evaluate_retrieval(
            embed_source(tiny_model(), processor, source, options=EmbedOptions(progress=False)), (1, 3)
        ).metrics
        found = {f["metric"]: f["value"] for f in results["figures"] if f["task"] == f"retrieval/{language}"}
        assert found == pytest.approx({metric: expected[metric] for metric in found})
        assert len(found) == 10
    page = (tmp_path / "evaluation" / "report.md").read_text()
    assert page.index("## Retrieval: en") < page.index("## Retrieval: de")
    assert "language: de." in page
    drawn = {f"{kind}_retrieval_{language}.png" for kind in ("recall", "similarities") for language in COLOURS}
    assert set(results["pictures"]) == drawn


def test_a_language_that_is_not_there(two_languages, capsys):
    two_languages[two_languages.index("de=captions.de")] = "zh=captions.zh"
    assert "captions.zh" in complaint([*two_languages, "--caption_column", "captions.en"], capsys)


def classes_of(folder, count: int, first: int):
    """Pictures of one colour in a folder of its name, all different."""
    for colour, shade in (("red", (200, 0, 0)), ("blue", (0, 0, 200)), ("green", (0, 200, 0))):
        (folder / colour).mkdir(parents=True)
        for number in range(first, first + count):
            Image.new("RGB", (32, 32), tuple(max(value - 5 * number, 0) for value in shade)).save(
                folder / colour / f"{number}.png"
            )
    return folder


def test_classes_of_folders_by_all_tasks(model_folder, tmp_path, capsys):
    test, train = classes_of(tmp_path / "test", 4, first=0), classes_of(tmp_path / "train", 8, first=4)
    output = tmp_path / "evaluation"
    tasks = ["--task", "zero-shot", "knn", "linear-probe", "--neighbours", "3", "--resamples", "200"]
    arguments = ["evaluate", "--model", str(model_folder), "--data", str(test), "--train_data", str(train), *tasks]
    assert main([*arguments, "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith("12 images")] == [
        "zero-shot: 12 images",
        "knn: 12 images",
        "linear-probe: 12 images",
    ]
    results = json.loads((output / "results.json").read_text())
    found = {figure["metric"]: figure for figure in results["figures"]}
    assert {(figure["task"], metric) for metric, figure in found.items()} == {
        ("zero-shot", "zero_shot_acc1"),
        ("zero-shot", "zero_shot_mean_per_class_recall"),
        ("zero-shot", "zero_shot_calibration_error"),
        ("knn", "knn3_projected_acc1"),
        ("knn", "knn3_projected_mean_per_class_recall"),
        ("linear-probe", "linear_probe_projected_acc1"),
        ("linear-probe", "linear_probe_projected_mean_per_class_recall"),
    }
    assert found["zero_shot_acc1"]["chance"] == pytest.approx(1 / 3)
    # Colours are told apart by any tower; plain folders of train and test number their classes alike.
    assert found["knn3_projected_acc1"]["value"] == 1
    assert found["knn3_projected_acc1"]["protocol"]["train_pictures"] == 24
    page = (output / "report.md").read_text()
    for title in ("Zero-shot classification", "Nearest neighbours", "Linear probe"):
        assert f"## {title}" in page
    assert results["pictures"] == [
        "confusion_knn.png", "confusion_linear_probe.png", "reliability_zero_shot.png", "confusion_zero_shot.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        ("sklearn", ["--task", "knn"], 'knn needs scikit-learn: pip install "hf_clip[eval]"'),
        ("sklearn", ["--task", "linear-probe"], "linear-probe needs scikit-learn"),
        ("scipy", ["--model", "a", "b"], 'to compare models needs scipy: pip install "hf_clip[eval]"'),
    ],
)
def test_what_is_not_installed_is_named_before_the_work(command, module, settings, message, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert message in complaint([*command, *settings], capsys)


def test_nothing_of_the_users_is_written_over(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hf_clip.evaluation.data, "embed_source", lambda *args, **kwargs: 1 / 0)
    folder = tmp_path / "evaluation"
    folder.write_text("mine")
    assert "no folder that can be written: " in complaint(command, capsys)
    assert folder.read_text() == "mine"
    folder.unlink()
    folder.mkdir()
    (folder / "letter.txt").write_text("mine")
    assert "is not empty and holds no results.json: give another folder" in complaint(command, capsys)


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
        (["--k", "1", "9"], "recall@9 of 8 pictures is always 1: give k up to 8"),
        (
            ["--task", "zero-shot"],
            "none of the columns label, labels, class, cls: set label_column to one of file_name",
        ),
        (["--class_names", "missing.txt"], "'missing.txt' cannot be read: "),
        (["--templates", "a photo"], "no templates 'a photo': choose name, photo, "),
        (["--languages", "en=a", "en=b"], "--languages names en twice: give one column for each language"),
        (["--train_data", "x"], "train_data is for knn and linear-probe: ask for one of these tasks, or leave it out"),
        (["--task", "knn", "--validation_data", "x"], "validation_data needs train_data"),
        (["--task", "knn", "--train_data", "x", "--validation_data", "x"], "validation_data is for linear-probe"),
        (["--languages", "zh"], "--languages zh: give language=column, as in zh=captions.zh"),
        (["--task", "captioning"], "no task 'captioning': choose one of retrieval, zero-shot"),
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


# ---- what was there stays until the new report is written ----------------------------------------------------------


def contents(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_run_that_fails_leaves_the_last_report_whole(command, other_folder, tmp_path, capsys):
    assert main(command) == 0
    before = contents(tmp_path / "evaluation")
    assert sum(name.endswith(".png") for name in before) > 2
    assert main([*command, "--model", "typo"]) == 2
    assert contents(tmp_path / "evaluation") == before
    model = tiny_model()
    torch.nn.init.constant_(model.text_projection.weight, float("nan"))
    model.save_pretrained(other_folder)
    command.insert(command.index("--data"), str(other_folder))
    capsys.readouterr()
    assert "not finite" in complaint(command, capsys), "after the first model was measured and its captions drawn"
    assert contents(tmp_path / "evaluation") == before


def test_of_the_last_report_only_its_own_files_go(command, tmp_path, capsys):
    folder = tmp_path / "evaluation"
    assert main(command) == 0
    old = "worst_retrievals_9.png"
    results = json.loads((folder / "results.json").read_text())
    results["pictures"] += [old, "../mine.csv"]
    (folder / "results.json").write_text(json.dumps(results))
    kept = {folder / "mine.csv": b"1", folder / "pictures" / "mine.png": b"2", folder / "pictures" / "mine.txt": b"3"}
    for file, content in ({folder / "pictures" / old: b""} | kept).items():
        file.write_bytes(content)
    assert main(command) == 0
    assert not (folder / "pictures" / old).exists()
    assert {file: file.read_bytes() for file in kept} == kept


@pytest.mark.parametrize("name", ["pictures/holiday.png", "table.csv", "results.json"])
def test_what_another_wrote_is_something_else(command, name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hf_clip.evaluation.data, "embed_source", lambda *args, **kwargs: 1 / 0)
    file = tmp_path / "evaluation" / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert "is not empty and holds no results.json: give another folder" in complaint(command, capsys)
    assert contents(tmp_path / "evaluation") == {name: b"{}"}


def test_all_models_are_opened_before_the_first_is_measured(command, monkeypatch, capsys):
    monkeypatch.setattr(hf_clip.evaluation.data, "embed_source", lambda *args, **kwargs: 1 / 0)
    command.insert(command.index("--data"), "typo")
    assert "model 'typo' cannot be opened" in complaint(command, capsys)
    assert "give k up to 8" in complaint([*command, "--k", "9"], capsys), "and k is looked at before them"


# ---- what the data hold, and what a task reads of them -------------------------------------------------------------


@pytest.fixture
def parquet(tmp_path, pictures, command):
    """Writes a parquet file of the eight pictures with more columns; the command that measures it."""

    def write(features=None, name="data", **columns):
        features = {"image": datasets.Image()} | (features or {})
        features |= {column: datasets.Value("string") for column in columns.keys() - features.keys()}
        rows = {"image": [str(pictures / f"{i}.png") for i in range(8)]} | columns
        data = datasets.Dataset.from_dict(rows, datasets.Features(features))
        data.to_parquet(tmp_path / f"{name}.parquet")
        command[command.index("--data") + 1] = str(tmp_path / f"{name}.parquet")
        return [*command, "--resamples", "100", "--json"]

    return write


@pytest.fixture
def embedded_texts(monkeypatch):
    """How many captions went through the model with pictures."""
    counted = []

    def counting(*args, **kwargs):
        counted.append(len((found := embed_source(*args, **kwargs)).text_embeds))
        return found

    monkeypatch.setattr(hf_clip.evaluation.data, "embed_source", counting)
    return counted


def tasks_of(capsys) -> list[str]:
    return list(dict.fromkeys(figure["task"] for figure in json.loads(capsys.readouterr().out)["figures"]))


CLASSES = datasets.ClassLabel(names=["warm", "cold"])
NAMES = [f"{colour} thing" for colour in COLOURS["en"]]


def test_several_labels_and_one_row_without(parquet, embedded_texts, capsys):
    labels = [[0], [1], [], [0, 1], [0], [1], [1], [0]]
    command = parquet({"labels": datasets.List(CLASSES)}, labels=labels)
    for settings in ([], ["--task", "zero-shot"]):
        assert main([*command, *settings]) == 0
        found = json.loads(capsys.readouterr().out)["figures"]
        assert {figure["images"] for figure in found} == {8}
        assert [figure["metric"] for figure in found] == ["zero_shot_map"]
    assert embedded_texts == [0, 0], "the classes' names are no captions to embed"


@pytest.mark.parametrize(
    ("feature", "settings", "expected"),
    [
        (CLASSES, [], ["retrieval", "zero-shot"]),
        (datasets.Value("int64"), [], ["retrieval"]),
        (datasets.Value("int64"), ["--class_names", "names.txt"], ["retrieval", "zero-shot"]),
        (CLASSES, ["--task", "retrieval", "retrieval"], ["retrieval"]),
    ],
)
def test_captions_and_classes(parquet, feature, settings, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("warm\ncold\n")
    assert main([*parquet({"label": feature}, label=[0, 1] * 4, caption=NAMES), *settings]) == 0
    results = json.loads(capsys.readouterr().out)
    assert list(dict.fromkeys(figure["task"] for figure in results["figures"])) == expected
    keys = [(figure["task"], figure["metric"]) for figure in results["figures"]]
    assert len(set(keys)) == len(keys), "each task once"


@pytest.mark.parametrize("task", ["zero-shot", "knn"])
def test_captions_that_a_task_does_not_read(parquet, task, embedded_texts, capsys):
    command = parquet({"label": CLASSES}, label=[0, 1] * 4, caption=["", None, *NAMES[2:]])
    assert main([*command, "--task", task, "--neighbours", "2"]) == 0
    assert tasks_of(capsys) == [task]
    assert embedded_texts == [0]
    command = parquet({"label": CLASSES, "text": datasets.Value("int64")}, name="b", label=[0, 1] * 4, text=range(8))
    assert main([*command, "--task", task, "--neighbours", "2"]) == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["--task", "retrieval"], ["retrieval/en", "retrieval/de"]),
        (["--task", "zero-shot"], ["zero-shot", "retrieval/en", "retrieval/de"]),
        ([], ["zero-shot", "retrieval/en", "retrieval/de"]),
    ],
)
def test_languages_beside_tasks(parquet, settings, expected, capsys):
    text = datasets.Value("string")
    command = parquet(
        {"label": CLASSES, "caption": {"en": text, "de": text}},
        label=[0, 1] * 4,
        caption=[{"en": en, "de": de} for en, de in zip(COLOURS["en"], COLOURS["de"], strict=True)],
    )
    assert main([*command, "--languages", "en=caption.en", "de=caption.de", *settings]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert list(dict.fromkeys(figure["task"] for figure in figures)) == expected


def test_a_language_s_figures_say_what_they_are_of(parquet, capsys):
    command = parquet({"label": CLASSES}, label=[0, 1] * 4, **COLOURS)
    assert main([*command, "--languages", "en=en", "de=de"]) == 0
    results = json.loads(capsys.readouterr().out)
    revisions = {figure["task"]: figure["data_revision"] for figure in results["figures"]}
    assert len(set(revisions.values())) == 3
    assert revisions["zero-shot"] == results["data"]["fingerprint"]


def test_languages_stop_at_a_broken_picture_too(two_languages, pictures, tmp_path, capsys):
    (pictures / "2.png").write_bytes(b"")
    assert "row 3: 2.png: the file is empty: mend or remove it" in complaint([*two_languages, "--strict"], capsys)
    assert main(two_languages) == 0
    assert "skipped row 3: 2.png: the file is empty" in capsys.readouterr().out
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert results["skipped"] == [[2, "2.png", "the file is empty"]]


# ---- embeddings that are stored, and data to learn from ------------------------------------------------------------


@pytest.fixture
def stored(model_folder, tmp_path, capsys):
    def store(data, name):
        folder = str(tmp_path / name)
        assert main(["embed", "--model", str(model_folder), "--data", str(data), "--output", folder]) == 0
        capsys.readouterr()
        return folder

    return store


def test_stored_pictures_alone(command, pictures, stored, capsys):
    (pictures / "metadata.jsonl").unlink()
    command[command.index("--data") + 1] = stored(pictures, "alone")
    assert "has no captions and no named classes: give data that have either" in complaint(command, capsys)


@pytest.mark.parametrize("kind", ["source", "stored"])
def test_stored_data_and_what_trains(command, stored, kind, tmp_path, capsys):
    test, train = classes_of(tmp_path / "test", 4, first=0), classes_of(tmp_path / "train", 8, first=4)
    validation = classes_of(tmp_path / "validation", 2, first=12)
    (train / "red" / "5.png").write_bytes(b"")
    (validation / "red" / "13.png").write_bytes(b"")
    folders = [stored(data, f"{data.name}_stored") for data in (test, train, validation)]
    data, train, validation = folders if kind == "stored" else (folders[0], str(train), str(validation))
    command[command.index("--data") + 1] = data
    command += ["--train_data", train, "--validation_data", validation, "--resamples", "100", "--neighbours", "3"]
    assert main([*command, "--task", "zero-shot", "knn", "linear-probe"]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    protocols = {figure["task"]: figure["protocol"] for figure in results["figures"]}
    assert "train_data" not in protocols["zero-shot"]
    assert protocols["knn"]["train_pictures"] == 23
    assert protocols["knn"].keys() & {"train_data", "validation_data"} == {"train_data"}
    probe = protocols["linear-probe"]
    assert probe["train_data"]["name"] == "train"
    assert probe["validation_data"]["name"] == "validation"
    assert len(probe["train_data"]["fingerprint"]) == 32
    assert probe["train_data"]["fingerprint"] != probe["validation_data"]["fingerprint"]
    assert (probe["train_pictures"], probe["validation_pictures"]) == (23, 5)
    assert results["skipped"] == []
    assert {role: [reason for *_, reason in found] for role, found in results["skipped_of"].items()} == {
        "train": ["the file is empty"], "validation": ["the file is empty"],
    }  # fmt: skip
    page = (tmp_path / "evaluation" / "report.md").read_text()
    assert "0 pictures could not be read, 1 of train, 1 of validation." in page
    for role, name in (("train", "5.png"), ("validation", "13.png")):
        (line,) = [line for line in printed.splitlines() if line.startswith(f"skipped {role}: row ")]
        assert line.endswith(f"{name}: the file is empty")


def test_settings_that_stored_embeddings_have_no_use_for(command, pictures, stored, capsys):
    command[command.index("--data") + 1] = stored(pictures, "stored")
    settings = ["--strict", "--split", "train", "--caption_column", "a", "--image_column", "b", "--label_column", "c"]
    line = complaint([*command, *settings], capsys)
    assert "so caption_column, split, image_column, label_column, strict can change nothing" in line
    assert "not pooled features: give the data set" in complaint([*command, "--features", "pooled"], capsys)
