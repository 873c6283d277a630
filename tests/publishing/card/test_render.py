"""The card: metadata that the Hub reads, figures and sentences worked out by hand, and users' text as mere text."""

import ast
import re
from html import unescape

import pytest
from cards import (
    EXPORT,
    NAME,
    RETRIEVAL,
    TRAINING,
    ZERO_SHOT,
    bare_folder,
    card,
    metadata,
    put,
    results,
    rows,
    section,
    tidy,
)
from huggingface_hub import EvalResult, ModelCard
from rendering import HOSTILE, Page, rendered

from hf_clip.core.errors import InputError
from hf_clip.publishing.card import render as card_module
from hf_clip.publishing.card.facts import CardDetails
from hf_clip.publishing.card.render import card_files, render, write_card
from hf_clip.publishing.saved_model import SavedModel


@pytest.fixture
def folder(tmp_path, processor):
    return bare_folder(tmp_path / "model", processor)


# ---- metadata -----------------------------------------------------------------------------------------------------


def test_the_hub_reads_the_metadata(folder):
    details = CardDetails(NAME, license="apache-2.0", language=["en", "de"], datasets=["org/other"])
    data = metadata(card(folder, details, training=TRAINING))
    assert data["pipeline_tag"] == "zero-shot-image-classification"
    assert data["library_name"] == "transformers"
    assert {"hf_clip", "clip"} <= set(data["tags"])
    assert data["base_model"] == ["microsoft/resnet-50", "google-bert/bert-base-uncased"]
    assert (data["license"], data["language"]) == ("apache-2.0", ["en", "de"])
    assert data["datasets"] == ["org/other", "org/pictures"]
    assert data["co2_eq_emissions"] == {
        "emissions": 1.2,
        "source": "codecarbon",
        "training_type": "fine-tuning",
        "hardware_used": "CPU, 2 processes, fp32",
    }


def test_what_is_not_known_is_not_in_the_metadata(folder):
    data = metadata(card(folder))
    assert data.keys() == {"library_name", "pipeline_tag", "tags"}


def test_what_the_publisher_names_goes_in(folder):
    """Old repositories have no owner; what the run says without one may be a folder."""
    details = CardDetails(
        NAME, "cc-by-sa-4.0", ["zh-Hans", "multilingual"], "cifar10", "bert-base-uncased", tags="birds"
    )
    data = metadata(card(folder, details, training=TRAINING | {"text_model": "bert", "data": [{"name": "mnist"}]}))
    assert (data["datasets"], data["base_model"]) == (["cifar10"], ["bert-base-uncased"])
    assert data["language"] == ["zh-Hans", "multilingual"]
    assert data["tags"][0] == "hf_clip"
    assert data["tags"][-1] == "birds"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"license": "Apache 2"}, r"license 'Apache 2' .* such as apache-2.0"),
        ({"license": "mit\n"}, r"license 'mit\\n'"),
        ({"language": ["en", "English"]}, r"language 'English' .* such as en or zh"),
        ({"datasets": ["org/birds", "/home/me/birds"]}, r"datasets '/home/me/birds' is no Hub id: .*user/name"),
        ({"base_model": "scratch/resnet-10"}, r"base_model 'scratch/resnet-10' is no Hub id"),
        ({"base_model": "a/b/c"}, r"base_model 'a/b/c' is no Hub id"),
        ({"base_model": [""]}, r"base_model '' is no Hub id"),
    ],
)
def test_what_the_hub_would_not_know_is_refused_by_name(folder, said, message):
    with pytest.raises(InputError, match=message) as raised:
        write_card(SavedModel(folder), CardDetails(NAME, **said), run_examples=False)
    assert "\n" not in str(raised.value)
    assert not (folder / "README.md").exists()


def test_one_text_is_a_list_of_one():
    details = CardDetails(NAME, language="en", datasets="o/d", base_model="o/m", example_labels="a cat", tags="birds")
    lists = (details.language, details.datasets, details.base_model, details.example_labels, details.tags)
    assert lists == (["en"], ["o/d"], ["o/m"], ["a cat"], ["birds"])


def test_a_name_without_an_owner_is_no_data_set_of_the_hub(folder):
    for name, expected in (
        ("org/birds", ("org/birds", "org/birds")),
        ("My own birds", ("my-own-birds", "My own birds")),
        ("unseen", ("unseen-all-rows", "unseen, all rows")),
    ):
        text = card(folder, evaluation=results([entry | {"data": name} for entry in RETRIEVAL]))
        found = {(result.dataset_type, result.dataset_name) for result in ModelCard(text).data.eval_results}
        assert found == {expected}


def test_every_figure_comes_back_from_the_model_index(folder):
    text = card(folder, evaluation=results(RETRIEVAL + ZERO_SHOT))
    read = ModelCard(text).data
    assert read.model_name == "birds-clip"
    by_name = {result.metric_name: result for result in read.eval_results}
    assert len(by_name) == len(read.eval_results) == 9  # all but map@1
    assert by_name["text → image, recall@10"] == EvalResult(
        task_type="image-text-retrieval",
        task_name="Image–text retrieval",
        dataset_type="unseen-all-rows",
        dataset_name="unseen, all rows",
        dataset_split="all rows",
        dataset_revision="d" * 8,
        metric_type="recall",
        metric_name="text → image, recall@10",
        metric_value=0.55,
        metric_args={
            "k": 10,
            "images": 200,
            "captions": 400,
            "low": 0.5,
            "high": 0.6,
            "chance": 0.05,
            "ceiling": 1.0,
            "precision": "float32",
            "intervals": "95 % over pictures, bootstrap, 2000 resamples",
            "model_revision": "w" * 8,
            "protocol": {"ties": "count against"},
        },
    )
    accuracy = by_name["top-1 accuracy"]
    assert (accuracy.task_type, accuracy.metric_type) == ("zero-shot-image-classification", "accuracy")
    assert accuracy.metric_args["protocol"] == {"templates": ["a {c}", "{c}."]}
    assert str(ModelCard(text)) == text


def test_an_adapter_names_its_base(folder):
    (folder / "config.json").unlink()
    text = card(folder, adapter={"base_model_name_or_path": "org/base"}, training=TRAINING)
    data = metadata(text)
    assert (data["library_name"], data["base_model"]) == ("peft", ["org/base"])
    assert data["base_model_relation"] == "adapter"
    assert "adapter of [org/base](https://huggingface.co/org/base)" in text
    tidy(text)


# ---- sections -----------------------------------------------------------------------------------------------------


def test_a_bare_folder_gives_a_whole_card(folder):
    text = card(folder)
    tidy(text)
    assert "Nothing was measured: this model comes without an evaluation." in section(text, "Limits and biases")
    assert ["Licence", "none named: ask the publisher before you use it"] in rows(text)
    assert "## Training" not in text
    assert "## Credit" not in text
    assert "trained together" not in text


@pytest.mark.parametrize("missing", TRAINING)
def test_whatever_a_run_leaves_out_leaves_no_gap(folder, missing):
    tidy(card(folder, training=TRAINING | {missing: None}, evaluation=results(RETRIEVAL + ZERO_SHOT)))
    tidy(card(folder, training={missing: TRAINING[missing]}))


def test_how_it_was_trained(folder):
    (folder / "pictures").mkdir()
    (folder / "pictures" / "training_curve.png").touch()
    text = card(folder, training=TRAINING)
    said = section(text, "Training")
    assert rows(said)[:3] == [
        ["data", "pictures", "captions", "share of an epoch", "length of a caption"],
        ["org/pictures", "1,000", "5,000", "0.25", "11 words (median; 2 to 40)"],
        ["more birds", "3,000", "3,000", "0.75", ""],
    ]
    assert "1,253 steps of 128 pairs (22 epochs) took 3 min 30 s. Speed: 150.1 pairs a second." in said
    assert "Hardware: CPU, 2 processes, fp32. Emissions: 1.2 g of CO₂ equivalent, 0.004 kWh, estimated by" in said
    assert said.index("`learning_rate` | 0.0005") < said.index("<details>") < said.index("`weight_decay` | 0.1")
    assert "![training curve](pictures/training_curve.png)" in said
    assert "Augmentation: rotation 15, crop scale 0.5." in said
    assert "Versions: python 3.11.9, hf_clip 0.1.0." in said
    assert "5.3 M of them trained" not in text  # of how many is not known without weights
    assert section(text, "Credit").strip() == "Pictures: the bird club, CC BY-SA 4.0"


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ({"steps": 1, "epochs": 1.0}, "1 step of 128 pairs (1 epoch) took 3 min 30 s."),
        ({"steps": 1, "epochs": 0.5, "seconds": None}, "1 step of 128 pairs (0.5 epochs) was trained."),
        ({"accumulated_batches": 1}, "1,253 steps of 128 pairs (22 epochs) took 3 min 30 s."),
        (
            {"accumulated_batches": 4},
            "1,253 steps of 4 batches of 128 pairs, each pair with the negatives of its own batch (22 epochs) took",
        ),
    ],
)
def test_steps_in_words(folder, course, expected):
    assert expected in section(card(folder, training=TRAINING | course), "Training")


def test_an_example_says_what_to_install(folder):
    (folder / "modules.json").write_text("[]")
    put(folder, "onnx/export.json", EXPORT)
    (folder / "onnx" / "example.py").touch()
    text = card(folder)
    tidy(text)
    commands = {
        title: re.findall("```sh\n(.*)\n```", section(text, title))
        for title in re.findall("^### (.*)", text.partition("## How it is built")[0], flags=re.MULTILINE)
    }
    assert commands == {
        "transformers": ['pip install "transformers>=5.23,<6" torch torchvision accelerate pillow'],
        "The pipeline of transformers": [],
        "hf_clip": [],
        "sentence-transformers": [
            'pip install "sentence-transformers>=6.2" "transformers>=5.23,<6" torchvision pillow'
        ],
        "onnxruntime, without torch": ["pip install onnxruntime tokenizers numpy pillow huggingface_hub"],
        "ONNX": [],
    }
    assert "It needs the hf_clip package.\n" in section(text, "hf_clip")
    (folder / "config.json").unlink()
    adapter = card(folder, adapter={"base_model_name_or_path": "org/base"})
    for title in ("transformers", "The pipeline of transformers", "PEFT"):
        assert "accelerate pillow peft\n" in section(adapter, title)


def test_pictures_that_are_there_are_shown_once(folder):
    names = ("training_curve.png", "retrieval.png", "example.png")
    for file in (*(f"pictures/{name}" for name in names), "evaluation/a b/pictures/recall.png"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    put(folder, "evaluation/a b/results.json", results(pictures=["recall.png", "gone.png"]))
    (folder / "evaluation" / "a b" / "report.md").touch()
    details = CardDetails(NAME, example_picture="pictures/example.png", example_labels=["a robin"])
    facts = write_card(SavedModel(folder), details, run_examples=False)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"!\[.*?\]\((.*?)\)", text)) == [
        "evaluation/a%20b/pictures/recall.png",
        *(f"pictures/{name}" for name in sorted(names)),
    ]
    assert "![example](pictures/example.png)" in section(text, "Use")
    assert "(evaluation/a%20b/report.md)" in text
    assert all((folder / file).is_file() for file in card_files(facts))
    assert len(card_files(facts)) == 5


# ---- what users wrote ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*HOSTILE, "{{ 7*7 }} {% raw %}", "---\nlicense: mit\n---", "1. no list", "''': x"])
def test_users_text_is_mere_text(folder, text):
    plain = " ".join(text.split())
    details = CardDetails(text, description=text, credit=text, example_labels=[text, "b"], tags=[text])
    training = TRAINING | {"data": [{"name": text}], "hyperparameters": {"changed": {"x": text}}}
    training |= {"versions": {text: text}, "vision_model": text, "augmentation": {text: text}}
    changes = {"notes": {"m / retrieval": [text]}, "data": {"name": text, "split": text, "fingerprint": "d"}}
    figures = [entry | {"protocol": {"templates": [text]}, "data": text} for entry in RETRIEVAL]
    made = card(folder, details, training=training, evaluation=results(figures, **changes))
    clean = card(folder, CardDetails(NAME, description="x"), training=TRAINING, evaluation=results())
    page = rendered(made.split("\n---\n", 1)[1])
    html = Page(page)
    assert {tag for tag, _ in html.tags} - {"ol"} <= {tag for tag, _ in Page(rendered(clean)).tags} | {"h2"}
    assert "<ol" not in page
    assert unescape(re.search("<h1>(.*?)</h1>", page)[1]) == plain
    assert ["x", plain] in html.rows  # a setting
    assert "49" not in page.split("<table>")[0]
    data = metadata(made)
    assert data["tags"][-1] == text
    assert ModelCard(made).data.eval_results[0].dataset_name.startswith(text)


def test_labels_and_outputs_cannot_leave_their_block(folder):
    evil = "```\n# pwned\n\n<script>\n````"
    facts = write_card(SavedModel(folder), CardDetails(NAME, example_labels=[evil, "b"]), run_examples=False)
    for example in facts.examples:
        example.output = f"{evil}: 0.5\nb: 0.5"
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark")
    tokens = markdown.parse(render(facts))
    fences = [token for token in tokens if token.type == "fence"]
    codes = [token.content for token in fences if token.info == "python"]
    assert len(codes) == len(facts.examples)
    for code in codes:
        lists = [ast.literal_eval(node) for node in ast.walk(ast.parse(code)) if is_list_of_strings(node)]
        assert [evil, "b"] in lists
    assert [token.content for token in fences].count(f"{evil}: 0.5\nb: 0.5\n") == len(codes)
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert "pwned" not in headings
    assert not [token for token in tokens if token.type == "html_block" and "script" in token.content]


def is_list_of_strings(node) -> bool:
    return isinstance(node, ast.List) and all(isinstance(each, ast.Constant) for each in node.elts)


def test_nothing_tells_about_the_machine_or_a_token(folder, tmp_path, monkeypatch):
    token = "hf_" + "a1B2" * 8
    (tmp_path / "runs" / "bert").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    training = TRAINING | {
        "vision_model": "scratch//home/jane/resnet",
        "text_model": "runs/bert",
        "started_from": "../model",
        "data": [{"name": str(tmp_path / "My Birds")}],
        "hyperparameters": {"changed": {"hub_token": "x" * 9, "feature_cache_dir": "/home/jane/cache", "note": token}},
        "credit": f"from file:///home/jane/list.txt with {token}, see https://example.org/a/b and C:\\Users\\jane\\x",
    }
    notes = {"m / retrieval": [f"{tmp_path}/a.png is gone"]}
    text = card(
        folder,
        CardDetails(NAME, description=f"At {tmp_path}/x/y."),
        training=training,
        evaluation=results(notes=notes),
    )
    for secret in (token, "jane", str(tmp_path), "xxxxxxxxx", "runs/"):
        assert secret not in text
    for kept in ("My Birds", "resnet", "see https://example.org/a/b and x", "a.png is gone", "At y."):
        assert kept in text
    assert "base_model" not in metadata(text)


def test_a_sentence_keeps_its_words(folder, tmp_path, monkeypatch):
    """Only what is a path of this machine is shortened, and a token goes in any case."""
    monkeypatch.setenv("HOME", "/home/jane")
    monkeypatch.chdir(tmp_path)
    said = "/imagine a model. It is good, and/or bad; ask /dev/team or 1/2/3"
    token = "hf_" + "a1-_" * 5
    details = CardDetails(
        NAME, description=f"{said} {token}", example_labels=["/a/b", "b"], credit=f"See {tmp_path}/a."
    )
    facts = write_card(SavedModel(folder), details, run_examples=False).details
    assert facts.description == f"{said} …"
    assert facts.example_labels == ["/a/b", "b"]
    assert facts.credit == "See a."
    details = CardDetails(NAME, description="At /home/jane/x/y, ~/z and hf_clip-openmoji-languages.")
    assert write_card(SavedModel(folder), details, run_examples=False).details.description == (
        "At y, z and hf_clip-openmoji-languages."
    )


# ---- the file -----------------------------------------------------------------------------------------------------


def test_a_card_is_written_whole_or_not_at_all(folder, monkeypatch):
    before = card(folder)
    monkeypatch.setattr(card_module, "render", lambda facts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_card(SavedModel(folder), CardDetails("other/name"), run_examples=False)
    assert (folder / "README.md").read_text(encoding="utf-8") == before
    assert not list(folder.glob(".README*"))


def test_a_file_that_is_no_json_is_named(folder):
    (folder / "training.json").write_text("{")
    with pytest.raises(InputError, match=r"training\.json is no JSON .*: write it again, or remove it"):
        write_card(SavedModel(folder), CardDetails(NAME), run_examples=False)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("training.json", [1]),
        ("training.json", {"data": "birds"}),
        ("training.json", {"hyperparameters": [1]}),
        ("evaluation/results.json", []),
        ("evaluation/results.json", {"models": []}),
        ("evaluation/results.json", results() | {"figures": [{"model": "m"}]}),
        ("evaluation/results.json", results(data="unseen")),
        ("onnx/export.json", "x"),
    ],
)
def test_a_file_of_another_shape_is_named(folder, file, content):
    put(folder, file, content)
    with pytest.raises(InputError, match=rf"{file} is (no mapping|not as hf_clip writes it)") as raised:
        write_card(SavedModel(folder), CardDetails(NAME), run_examples=False)
    assert "\n" not in str(raised.value)


def test_the_template_stands_where_a_reader_looks():
    place = card_module._TEMPLATE.parents[3] / "model_cards" / "template.md"
    assert place.resolve() == card_module._TEMPLATE.resolve()
