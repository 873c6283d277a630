"""The card of a CLIP: what its folder says of its towers, and the words for it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ...core.json_files import read_json
from ...core.public import FROM_SCRATCH
from ...evaluation.markdown import escaped, table
from ...evaluation.tasks.registry import label
from ...models.losses_hf_clip import LOSSES
from ...models.tower_sources.registry import repository_of
from ..card.citations import bibtex_of
from ..card.facts import CardDetails, Example, tensors_in
from ..card.family import FamilyCard, parameters_row
from ..card.words import dataset_link, fenced, linked, number
from .examples import examples
from .loss_words import LossWords, words_of_loss

_NAMES = {
    "bert": "BERT", "deit": "DeiT", "dinov2": "DINOv2", "distilbert": "DistilBERT", "roberta": "RoBERTa",
    "timm_wrapper": "timm", "xlm-roberta": "XLM-RoBERTa",
}  # fmt: skip
_POOLINGS = {"pooler": "its own pooler", "mean": "mean", "cls": "first token", "last": "last token"}
# Model types of transformers that are halves of a pair.
_PARTS_OF = {
    "clip_text_model": "clip", "clip_vision_model": "clip",
    "siglip_text_model": "siglip", "siglip_vision_model": "siglip",
}  # fmt: skip

_EACH_ALONE = (
    "he sigmoid of a logit says of a label by itself whether it fits, and the\nanswers need not add up to 1. The "
    "pipeline does not know that and shares out a probability of 1 among the labels: it\nleaves their order right."
)


class ClipCard(FamilyCard):
    """A text tower and an image tower, their shared space and their loss."""

    named_in_training = ("vision_model", "text_model")
    inputs = "pictures and texts"
    item = "pair"
    of_each_batch = ", each pair with the negatives of its own batch"
    learned_from = (
        "It learned from captions: what these leave out, call wrongly or judge by, it has taken over, and so it has "
        "from whatever its towers had learned from before."
    )

    def introduction(self, facts: dict[str, Any]) -> str:
        model, trained = facts["model"], "; the two were trained together with hf_clip"
        dimensions = f" of {model['projection_dim']} dimensions" if model else ""
        said = (
            f"a CLIP model: it puts pictures and texts into one space{dimensions}, where a picture lies near the\n"
            "texts that describe it. Use it to find pictures by a text or texts by a picture, to sort pictures into "
            "classes that you\nname in words, or to turn pictures and texts into vectors for a search of your own."
        )
        readers = [escaped(tower["kind"]) for tower in _towers(facts)]
        if not readers:
            return said
        together = trained if facts["training"].get("steps") else ""
        return f"{said}\n{readers[0]} reads the pictures, {readers[1]} the texts{together}."

    def model_facts(self, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
        return _model_facts(folder, config)

    def summary(self, facts: dict[str, Any]) -> list[list[str]]:
        return [*_tower_rows(facts), *parameters_row(facts), *_space_rows(facts["model"])]

    def examples(self, folder: Path, details: CardDetails, model: dict[str, Any]) -> list[Example]:
        sigmoid = model.get("probabilities") == "sigmoid"
        return examples(folder, details, fixed_length=model.get("fixed_length"), sigmoid=sigmoid)

    def packages(self, facts: dict[str, Any]) -> list[str]:
        timm = any((facts["model"].get(side) or {}).get("type") == "timm_wrapper" for side in ("vision", "text"))
        return ["timm"] if timm else []

    def notes(self, facts: dict[str, Any]) -> list[str]:
        length, onnx = facts["model"].get("fixed_length"), facts["onnx"]
        padded = (
            f"The text tower was trained on texts padded to {length} tokens. The processor pads so by itself; the "
            "pipeline has to be told,\nas above."
        )
        notes = [padded] if length else []
        notes += [loss] if (loss := _loss_note(facts)) else []
        return notes + ([f"### ONNX\n\n{_onnx(onnx)}"] if onnx else [])

    def drawing(self, facts: dict[str, Any]) -> str | None:
        return _drawing(facts["model"], _towers(facts), _loss(facts).label) if facts["model"] else None

    def base_models(self, facts: dict[str, Any]) -> list[str | None]:
        return [tower["repository"] for tower in _towers(facts)]

    def is_from_scratch(self, facts: dict[str, Any]) -> bool:
        towers = _towers(facts)
        return bool(towers) and all((tower["name"] or "").startswith(FROM_SCRATCH) for tower in towers)

    def citations(self, facts: dict[str, Any]) -> str:
        return citations(_towers(facts), _loss(facts).citations, _frozen(facts["training"], "vision"))


CARD = ClipCard()


# ---- what a folder says -------------------------------------------------------------------------------------------


def _model_facts(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    processor = read_json(folder / "processor_config.json")
    tensors = tensors_in(folder)
    size = processor.get("image_processor", {})
    size = size.get("crop_size") or size.get("size") or {}
    longest = processor.get("max_text_length")
    loss = LOSSES.get(config["loss"])  # where there is one, older folders say no more of it
    return {
        "vision": _tower_facts("vision", config, tensors),
        "text": _tower_facts("text", config, tensors),
        "projection": config["projection"],
        "projection_dim": config["projection_dim"],
        "loss": config["loss"],
        "probabilities": loss.probabilities if loss else config["probabilities"],
        "bias": (loss.logit_bias_init_value if loss else config.get("logit_bias_init_value")) is not None,
        "parameters": sum(tensors.values()) or None,
        "temperature": _temperature(folder),
        "image_size": [size["height"], size["width"]] if "height" in size else None,
        "max_text_length": longest,
        "fixed_length": longest if processor.get("text_padding") == "max_length" else None,
    }


def _tower_facts(side: str, config: dict[str, Any], tensors: dict[str, int]) -> dict[str, Any]:
    tower = config[f"{side}_config"]
    return {
        "type": tower["model_type"],
        "architecture": tower.get("architecture"),
        "tag": (tower.get("pretrained_cfg") or {}).get("tag"),
        "pooling": config[f"{side}_pooling"],
        "width": config[f"{side}_width"],
        "parameters": sum(size for name, size in tensors.items() if name.startswith(f"{side}_model.")) or None,
    }


def _temperature(folder: Path) -> float | None:
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "pt") as weights:
            if "logit_scale" in weights.keys():  # noqa: SIM118
                return math.exp(-weights.get_tensor("logit_scale").item())
    return None


# ---- in words -----------------------------------------------------------------------------------------------------


def _loss(facts: dict[str, Any]) -> LossWords:
    return words_of_loss(facts["model"].get("loss", "infonce"), facts["training"].get("loss"), "training.json")


def _loss_note(facts: dict[str, Any]) -> str:
    """What a reader must know of the loss; empty where there is nothing."""
    sentence = escaped(_loss(facts).sentence).rstrip(".")
    if facts["model"].get("probabilities") == "sigmoid":
        return f"{sentence}: t{_EACH_ALONE}" if sentence else f"T{_EACH_ALONE}"
    return sentence and f"{sentence}."


def _towers(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [_tower(side, facts) for side in ("vision", "text")] if facts["model"] else []


def _tower(side: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What is known of a tower, with the words for it."""
    tower, training = facts["model"][side], facts["training"]
    name = training.get(f"{side}_model")
    kind = CONFIG_MAPPING_NAMES.get(tower["type"], tower["type"]).removesuffix("Config")
    repository = _repository(side, name, tower, training)
    return tower | {
        "name": name,
        "repository": repository,
        "kind": f"timm {tower['architecture']}" if tower.get("architecture") else _NAMES.get(tower["type"], kind),
        "from": _opened(name, repository),
        "frozen": _frozen(training, side),
    }


def _frozen(training: dict[str, Any], side: str) -> bool:
    return bool(((training.get("hyperparameters") or {}).get("changed") or {}).get(f"freeze_{side}"))


def _repository(side: str, name: str | None, tower: dict[str, Any], training: dict[str, Any]) -> str | None:
    """Where a tower's weights lie on the Hub, as the run said; of an older run, as its name says."""
    said = training.get("repositories") or {}
    if side in said or not name:
        return said.get(side)
    return repository_of(name, side, tower | {"pretrained_cfg": {"tag": tower.get("tag")}})


def _opened(name: str | None, repository: str | None) -> str:
    """Where a tower came from, as Markdown; empty where that is not known."""
    if not name:
        return ""
    if name.startswith(FROM_SCRATCH):
        return f"{escaped(name.removeprefix(FROM_SCRATCH))}, begun without pretrained weights"
    return linked(repository) if repository else escaped(name)


def _tower_rows(facts: dict[str, Any]) -> list[list[str]]:
    rows = []
    for tower, title in zip(_towers(facts), ("Image tower", "Text tower"), strict=False):
        size = f"{number(tower['parameters'])} parameters" if tower["parameters"] else ""
        about = "; ".join(filter(None, [tower["from"], size, "frozen in training" if tower["frozen"] else ""]))
        kind = escaped(tower["kind"])
        rows.append([title, f"{kind}: {about}" if about else kind])
    return rows


def _space_rows(model: dict[str, Any]) -> list[list[str]]:
    if not model:
        return []
    rows = [["Shared space", f"{model['projection_dim']} dimensions, compared by cosine"]]
    if model["image_size"]:
        rows.append(["Pictures", "{} × {} pixels".format(*model["image_size"])])
    if model["max_text_length"]:
        padded = " (shorter ones are padded to it)" if model["fixed_length"] else ""
        rows.append(["Texts", f"up to {model['max_text_length']} tokens{padded}"])
    return rows


def _drawing(model: dict[str, Any], towers: list[dict[str, Any]], loss: str) -> str:
    """The two towers up to the loss, in lines of text."""
    size, longest = model["image_size"], model["max_text_length"]
    of_picture = "picture" + (" {}×{}".format(*size) if size else "")
    of_text = "text" + (f" ≤ {longest} tokens" if longest else "")
    head = {"linear": "linear", "mlp": "linear, GELU, linear", "none": "no projection"}[model["projection"]]
    rows = [
        [start, f"{tower['kind']}, pooled: {_POOLINGS[tower['pooling']]}", str(tower["width"]), head]
        for start, tower in zip((of_picture, of_text), towers, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[f"{part} ".ljust(width + 3, "─") for part, width in zip(row, widths, strict=True)] for row in rows]
    upper, lower = map(" ".join, lines)
    temperature = f"{model['temperature']:.4g}" if model["temperature"] else "temperature"
    loss = f"plus bias: {loss}" if model["bias"] else loss
    space = f"├─ {model['projection_dim']}, unit length ── cosine / {temperature} ── {loss}"
    return fenced(f"{upper}┐\n{' ' * len(upper)}{space}\n{lower}┘", "text")


def _onnx(export: dict[str, Any]) -> str:
    """What is there, how near it comes to torch, and what int8 costs."""
    said = ["`onnx/` holds both towers as graphs for onnxruntime."]
    differences = export.get("largest_difference") or {}
    if found := [differences[name] for name in ("text_embeds", "image_embeds") if differences.get(name) is not None]:
        said.append(f"Their embeddings differ from torch's by {max(found):.1g} at the most.")
    said += [f"{_sentence(note)}." for note in export.get("notes") or []]
    parts = [" ".join(said)]
    if int8 := export.get("int8"):
        sizes = int8["bytes"]
        small = sum(size for name, size in sizes.items() if "int8" in name)
        before, after = (f"{size / 1e6:.4g} MB" for size in (sum(sizes.values()) - small, small))
        name, split, images = (int8["data"][key] for key in ("name", "split", "images"))
        data = f"{dataset_link(name)}, {escaped(split)}, {images:,} pictures"
        parts.append(f"With 8-bit weights (`…_int8.onnx`) they take {after} in place of {before}. Measured on {data}:")
        rows = [[label(name), each["fp32"], each["int8"], each["chance"]] for name, each in int8["recall"].items()]
        parts.append(table(["", "fp32", "int8", "chance"], rows))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return escaped(text[:1].upper() + text[1:])


def citations(towers: list[dict[str, Any]], loss: Sequence[str], image_tower_frozen: bool) -> str:
    """BibTeX of CLIP, of the loss, and of the towers that are known here.

    Args:
        towers: each with its `type` (of transformers) and `name`.
        loss: what it cites, as `bibtex_of` takes it.
        image_tower_frozen: the texts were tuned to an image tower that stayed as it was.
    """
    keys = ["clip", *loss, *(["lit"] if image_tower_frozen else [])]
    for tower in towers:
        name = (tower.get("name") or "").casefold()
        keys.append(_PARTS_OF.get(tower["type"], tower["type"]))
        keys += ["minilm"] if "minilm" in name else []
        keys += ["sentence-bert"] if name.startswith("sentence-transformers/") else []
    keys += ["timm"] if any(tower["type"] == "timm_wrapper" for tower in towers) else []
    return bibtex_of(keys)
