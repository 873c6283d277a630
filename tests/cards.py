"""Folders and figures of which cards are made, and what is read of a card."""

import copy
import json
import re
from pathlib import Path

import yaml
from conftest import tiny_model
from rendering import Page, rendered

from hf_clip.publishing.card.facts import CardDetails
from hf_clip.publishing.card.render import read_facts, render, write_card
from hf_clip.publishing.saved_model import SavedModel

NAME = "someone/birds-clip"
TRAINING = {
    "hf_clip": "0.1.0",
    "vision_model": "microsoft/resnet-50",
    "text_model": "google-bert/bert-base-uncased",
    "started_from": None,
    "data": [
        {
            "name": "org/pictures",
            "pictures": 1000,
            "captions": 5000,
            "weight": 0.25,
            "words": {"median": 11, "shortest": 2, "longest": 40, "captions_looked_at": 1000},
        },
        {"name": "more birds", "pictures": 3000, "captions": 3000, "weight": 0.75},
    ],
    "skipped_pictures": 3,
    "parameters": {"text_model": 22000000, "vision_model": 5000000, "heads": 300000, "trained": 5300000},
    "hyperparameters": {"changed": {"learning_rate": 0.0005}, "default": {"weight_decay": 0.1}},
    "augmentation": {"rotation": 15, "crop_scale": 0.5},
    "steps": 1253,
    "epochs": 22.0,
    "batch_size": 128,
    "seconds": 210.3,
    "pairs_per_second": 150.1,
    "hardware": {"device": "CPU", "processes": 2, "precision": "fp32"},
    "versions": {"python": "3.11.9", "hf_clip": "0.1.0"},
    "emissions": {"kg": 0.0012, "kwh": 0.004, "source": "codecarbon"},
    "temperature": 0.0123,
    "credit": "Pictures: the bird club, CC BY-SA 4.0",
    "pictures_may_be_shown": True,
}


EXPORT = {
    "hf_clip": "0.1.0",
    "model": {"name": "m", "digest": "w" * 8},
    "opset": 20,
    "text_inputs": ["input_ids", "attention_mask"],
    "shapes": {"pixel_values": ["images", 3, "height", "width"], "image_embeds": ["images", 16]},
    "loss": "infonce",
    "exp_logit_scale": 14.3,
    "logit_bias": None,
    "text_padding": "longest",
    "max_text_length": 64,
    "pixels": None,
    "largest_difference": {"text_embeds": 2e-7, "image_embeds": 3e-7, "grey_levels": 1},
    "compared_on": {"pixel_values": ["4 × 3 × 32 × 32"]},
    "versions": {"onnx": "1.23.2"},
    "notes": ["pictures of one size only"],
}


def figure(metric: str, value: float, task: str = "retrieval", **more) -> dict:
    counts = {"images": 200, "captions": 400} if task.startswith("retrieval") else {"images": 80, "classes": 4}
    unknown = dict.fromkeys(("low", "high", "chance", "ceiling"))
    about = {"data": "unseen", "split": "all rows", "data_revision": "d" * 8, "revision": "w" * 8}
    k = int(metric.rpartition("@")[2]) if "@" in metric else None
    return (
        {"model": "m", "task": task, "metric": metric, "value": value, "k": k, "protocol": {"ties": "count against"}}
        | about
        | {"precision": "float32"}
        | counts
        | unknown
        | more
    )


RETRIEVAL = [
    figure("image_retrieval_recall@1", 0.02, low=0.0, high=0.04, chance=0.005, ceiling=1.0),
    figure("image_retrieval_map@1", 0.02),
    figure("image_retrieval_recall@10", 0.55, low=0.5, high=0.6, chance=0.05, ceiling=1.0),
    figure("image_retrieval_median_rank", 8.0),
    figure("text_retrieval_recall@1", 0.25, low=0.2, high=0.3, chance=0.005, ceiling=0.93),
    figure("text_retrieval_recall@10", 0.34, low=0.3, high=0.4, chance=0.05, ceiling=1.0),
    figure("text_retrieval_median_rank", 17.5),
]
TEMPLATES = {"templates": ["a {c}", "{c}."]}
ZERO_SHOT = [
    figure(
        "zero_shot_acc1", 0.6, "zero-shot", low=0.5, high=0.7, chance=0.25, protocol={"templates": ["a {c}", "{c}."]}
    ),
    figure("zero_shot_mean_per_class_recall", 0.41, "zero-shot", low=0.2, high=0.5, chance=0.25),
    figure("zero_shot_calibration_error", 0.125, "zero-shot"),
]


def results(figures=RETRIEVAL, **changes) -> dict:
    return {
        "hf_clip": "0.1.0",
        "models": [{"name": "m", "revision": None, "digest": "w" * 8, "precision": "float32"}],
        "data": {"name": "unseen", "split": "all rows", "fingerprint": "d" * 8},
        "intervals": "95 % over pictures, bootstrap, 2000 resamples",
        "figures": figures,
        "differences": [],
        "notes": {},
        "skipped": [],
        "skipped_of": {},
        "pictures": [],
    } | changes


DIFFERENCE = {
    "from": "m", "to": "n", "task": "retrieval", "metric": "image_retrieval_recall@1", "value": 0.5, "low": 0.25,
    "high": 0.75, "p_value": 0.001, "level": 0.95, "real": True,
}  # fmt: skip


def changed(path: tuple, value) -> dict:
    """`results`, but one thing in it."""
    made = copy.deepcopy(results(differences=[DIFFERENCE], skipped_of={"train": []}))
    place = made
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return made


def put(folder, name: str, content) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def bare_folder(folder: Path, processor) -> Path:
    """A saved model without its weights."""
    tiny_model().config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def card(folder, details=None, **files) -> str:
    """The card of the folder with these files; `training`, `evaluation`, `onnx`, `adapter`."""
    places = {
        "training": "training.json",
        "evaluation": "evaluation/results.json",
        "onnx": "onnx/export.json",
        "adapter": "adapter_config.json",
    }
    for name, content in files.items():
        put(folder, places[name], content)
    facts = write_card(SavedModel(folder), details or CardDetails(NAME), run_examples=False)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert render(read_facts(json.loads(json.dumps(facts.to_json(), allow_nan=False)))) == text
    return text


def metadata(text: str) -> dict:
    return yaml.safe_load(text.removeprefix("---\n").partition("\n---\n")[0])


def section(text: str, title: str) -> str:
    return re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##+ |\Z)", text, flags=re.DOTALL | re.MULTILINE)[1]


def rows(text: str) -> list[list[str]]:
    return Page(rendered(text)).rows


def tidy(text: str) -> None:
    """What no card may hold, however little is known."""
    body = text.partition("\n---\n")[2]
    for word in ("None", "nan", "null", "More information", "{{", "{%", "Undefined"):
        assert not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", body), word
    assert "\n\n\n" not in body
    assert not re.search(r"^(##+) .*\n\n(?:#{1,2} |\Z)", body, flags=re.MULTILINE), "an empty section"
    assert not re.search(r"[^\n]\n(#+ |!\[|```\w)", re.sub(r"```.*?```", "", body, flags=re.DOTALL)), "no line between"
    assert not re.search(r"^#+ .*\n[^\n]", re.sub(r"```.*?```", "```", body, flags=re.DOTALL), flags=re.MULTILINE)
    assert ", ," not in body
    assert ".." not in body
    assert text.endswith("\n")
