"""The card of a CLIP: what its folder says of its towers, and the words for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub.dataclasses import strict
from safetensors import safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ...core.json_files import mapping
from ...core.public import FROM_SCRATCH
from ...core.records import Record
from ...evaluation.markdown import escaped, table
from ...evaluation.tasks.registry import label
from ...models.losses_hf_clip import LOSSES
from ...models.tower_sources.registry import repository_of
from ..card.citations import bibtex_of
from ..card.facts import CardDetails, CardFacts, CardModel, Example
from ..card.family import FamilyCard, FamilyWords, parameters_row
from ..card.words import dataset_link, fenced, linked, number
from ..onnx.record import OnnxRecord
from ..saved_model import SavedModel
from .examples import examples
from .loss_words import LossWords, words_of_loss
from .training_record import PairTrainingRecord

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


@strict
@dataclass(kw_only=True)
class TowerFacts(Record):
    """
    Args:
        type: transformers' model type.
        architecture: timm's name, of a tower of timm.
        tag: which of timm's weights.
    """

    type: str
    architecture: str | None
    tag: str | None
    pooling: str
    width: int
    parameters: int | None


@strict
@dataclass(kw_only=True)
class ClipCardModel(CardModel):
    """
    Args:
        temperature: None where there are no weights.
        image_size: (height, width).
        fixed_length: tokens that every text is padded to, where the text tower wants that.
    """

    vision: TowerFacts
    text: TowerFacts
    projection: str
    projection_dim: int
    loss: str
    probabilities: str
    bias: bool
    temperature: float | None
    image_size: tuple[int, int] | None
    max_text_length: int | None
    fixed_length: int | None


@strict
@dataclass
class ClipCardFacts(CardFacts):
    model: ClipCardModel | None
    training: PairTrainingRecord


class ClipCard(FamilyCard[ClipCardFacts, ClipCardModel]):
    """A text tower and an image tower, their shared space and their loss."""

    facts = ClipCardFacts
    inputs = "pictures and texts"
    item = "pair"
    of_each_batch = ", each pair with the negatives of its own batch"
    learned_from = (
        "It learned from captions: what these leave out, call wrongly or judge by, it has taken over, and so it has "
        "from whatever its towers had learned from before."
    )

    def model_facts(self, saved: SavedModel) -> ClipCardModel:
        return _model_facts(saved)

    def examples(self, saved: SavedModel, details: CardDetails, model: ClipCardModel | None) -> list[Example]:
        return examples(
            saved,
            details,
            fixed_length=model.fixed_length if model else None,
            sigmoid=model is not None and model.probabilities == "sigmoid",
        )

    def words(self, facts: ClipCardFacts) -> FamilyWords:
        model, training, towers = facts.model, facts.training, _towers(facts)
        loss = words_of_loss(model.loss if model else "infonce", training.loss)
        onnx = [f"### ONNX\n\n{_onnx(facts.onnx)}"] if facts.onnx else []
        return FamilyWords(
            introduction=_introduction(model, towers, trained=bool(training.steps)),
            summary=[*_tower_rows(towers), *parameters_row(facts), *_space_rows(model)],
            packages=["timm"] if any(tower.type == "timm_wrapper" for tower in towers) else [],
            notes=_notes(model, loss) + onnx,
            drawing=_drawing(model, towers, loss.label) if model else None,
            base_models=[tower.repository for tower in towers],
            from_scratch=bool(towers) and all(tower.is_from_scratch for tower in towers),
            citations=citations(towers, loss.citations, training.has_frozen("vision")),
        )


CARD = ClipCard()


# ---- what a folder says -------------------------------------------------------------------------------------------


def _model_facts(saved: SavedModel) -> ClipCardModel:
    """
    Raises:
        InvalidRecord: `config.json` or `processor_config.json` is not as a CLIP's is saved.
    """
    processor, config = saved.processor, saved.config
    longest = processor.get("max_text_length")
    loss = LOSSES.get(str(config.get("loss")))  # where there is one, older folders say no more of it
    said = {name: config.get(name) for name in ("projection", "projection_dim", "loss")}
    said |= {
        "probabilities": loss.probabilities if loss else config.get("probabilities"),
        "bias": (loss.logit_bias_init_value if loss else config.get("logit_bias_init_value")) is not None,
        "vision": _tower_facts("vision", saved),
        "text": _tower_facts("text", saved),
        "parameters": saved.parameters,
        "temperature": _temperature(saved),
        "image_size": _image_size(processor),
        "max_text_length": longest,
        "fixed_length": longest if processor.get("text_padding") == "max_length" else None,
    }
    return ClipCardModel.from_json(said, f"what {saved.folder} says of its model")


def _image_size(processor: dict[str, object]) -> object:
    settings = mapping(processor.get("image_processor"))
    size = mapping(settings.get("crop_size") or settings.get("size"))
    return [size["height"], size["width"]] if size.keys() >= {"height", "width"} else None


def _tower_facts(side: str, saved: SavedModel) -> dict[str, object]:
    tower = mapping(saved.config.get(f"{side}_config"))
    return {
        "type": tower.get("model_type"),
        "architecture": tower.get("architecture"),
        "tag": mapping(tower.get("pretrained_cfg")).get("tag"),
        "pooling": saved.config.get(f"{side}_pooling"),
        "width": saved.config.get(f"{side}_width"),
        "parameters": sum(size for name, size in saved.tensors.items() if name.startswith(f"{side}_model.")) or None,
    }


def _temperature(saved: SavedModel) -> float | None:
    for file in saved.weights:
        with safe_open(file, "pt") as weights:
            if "logit_scale" in weights.keys():  # noqa: SIM118
                return math.exp(-weights.get_tensor("logit_scale").item())
    return None


# ---- in words -----------------------------------------------------------------------------------------------------


@dataclass
class Tower:
    """What is known of a tower, for the words about it.

    Args:
        name: what it was opened from.
        repository: where its weights lie on the Hub.
    """

    facts: TowerFacts
    name: str | None
    repository: str | None
    frozen: bool

    @property
    def type(self) -> str:
        return self.facts.type

    @property
    def kind(self) -> str:
        if self.facts.architecture:
            return f"timm {self.facts.architecture}"
        return _NAMES.get(self.type, CONFIG_MAPPING_NAMES.get(self.type, self.type).removesuffix("Config"))

    @property
    def is_from_scratch(self) -> bool:
        return (self.name or "").startswith(FROM_SCRATCH)

    @property
    def opened_from(self) -> str:
        """As Markdown; empty where that is not known."""
        if not self.name:
            return ""
        if self.is_from_scratch:
            return f"{escaped(self.name.removeprefix(FROM_SCRATCH))}, begun without pretrained weights"
        return linked(self.repository) if self.repository else escaped(self.name)


def _towers(facts: ClipCardFacts) -> list[Tower]:
    """The image tower and the text tower; none where nothing is known of the model."""
    training, model = facts.training, facts.model
    if model is None:
        return []
    return [_tower("vision", model.vision, training), _tower("text", model.text, training)]


def _tower(side: str, facts: TowerFacts, training: PairTrainingRecord) -> Tower:
    name = training.opened_from(side)
    repository = training.repositories.get(side)
    if name and side not in training.repositories:  # of an older run, as its name says
        config = {"architecture": facts.architecture, "pretrained_cfg": {"tag": facts.tag}}
        repository = repository_of(name, side, config)
    return Tower(facts, name, repository, training.has_frozen(side))


def _introduction(model: ClipCardModel | None, towers: Sequence[Tower], *, trained: bool) -> str:
    dimensions = f" of {model.projection_dim} dimensions" if model else ""
    said = (
        f"a CLIP model: it puts pictures and texts into one space{dimensions}, where a picture lies near the\n"
        "texts that describe it. Use it to find pictures by a text or texts by a picture, to sort pictures into "
        "classes that you\nname in words, or to turn pictures and texts into vectors for a search of your own."
    )
    if not towers:
        return said
    image, text = (escaped(tower.kind) for tower in towers)
    together = "; the two were trained together with hf_clip" if trained else ""
    return f"{said}\n{image} reads the pictures, {text} the texts{together}."


def _notes(model: ClipCardModel | None, loss: LossWords) -> list[str]:
    """What a reader must know of the texts' length, and of the loss."""
    if model is None:
        return []
    padded = (
        f"The text tower was trained on texts padded to {model.fixed_length} tokens. The processor pads so by itself; "
        "the pipeline has to be told,\nas above."
    )
    sentence = escaped(loss.sentence).rstrip(".")
    if model.probabilities == "sigmoid":
        sentence = f"{sentence}: t{_EACH_ALONE}" if sentence else f"T{_EACH_ALONE}"
    elif sentence:
        sentence += "."
    return [*([padded] if model.fixed_length else []), *([sentence] if sentence else [])]


def _tower_rows(towers: Sequence[Tower]) -> list[list[str]]:
    rows = []
    for tower, title in zip(towers, ("Image tower", "Text tower"), strict=False):
        size = f"{number(tower.facts.parameters)} parameters" if tower.facts.parameters else ""
        about = "; ".join(filter(None, [tower.opened_from, size, "frozen in training" if tower.frozen else ""]))
        rows.append([title, f"{escaped(tower.kind)}: {about}" if about else escaped(tower.kind)])
    return rows


def _space_rows(model: ClipCardModel | None) -> list[list[str]]:
    if not model:
        return []
    rows = [["Shared space", f"{model.projection_dim} dimensions, compared by cosine"]]
    if model.image_size:
        rows.append(["Pictures", "{} × {} pixels".format(*model.image_size)])
    if model.max_text_length:
        padded = " (shorter ones are padded to it)" if model.fixed_length else ""
        rows.append(["Texts", f"up to {model.max_text_length} tokens{padded}"])
    return rows


def _drawing(model: ClipCardModel, towers: Sequence[Tower], loss: str) -> str:
    """The two towers up to the loss, in lines of text."""
    of_picture = "picture" + (" {}×{}".format(*model.image_size) if model.image_size else "")
    of_text = "text" + (f" ≤ {model.max_text_length} tokens" if model.max_text_length else "")
    head = {"linear": "linear", "mlp": "linear, GELU, linear", "none": "no projection"}[model.projection]
    rows = [
        [start, f"{tower.kind}, pooled: {_POOLINGS[tower.facts.pooling]}", str(tower.facts.width), head]
        for start, tower in zip((of_picture, of_text), towers, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[f"{part} ".ljust(width + 3, "─") for part, width in zip(row, widths, strict=True)] for row in rows]
    upper, lower = map(" ".join, lines)
    temperature = f"{model.temperature:.4g}" if model.temperature else "temperature"
    loss = f"plus bias: {loss}" if model.bias else loss
    space = f"├─ {model.projection_dim}, unit length ── cosine / {temperature} ── {loss}"
    return fenced(f"{upper}┐\n{' ' * len(upper)}{space}\n{lower}┘", "text")


def _onnx(export: OnnxRecord) -> str:
    """What is there, how near it comes to torch, and what int8 costs."""
    difference = max(export.largest_difference.text_embeds, export.largest_difference.image_embeds)
    said = [
        "`onnx/` holds both towers as graphs for onnxruntime.",
        f"Their embeddings differ from torch's by {difference:.1g} at the most.",
        *(f"{_sentence(note)}." for note in export.notes),
    ]
    parts = [" ".join(said)]
    if int8 := export.int8:
        small = sum(size for name, size in int8.bytes.items() if "int8" in name)
        sizes = (sum(int8.bytes.values()) - small, small)
        before, after = (f"{size / 1e6:.4g} MB" for size in sizes)
        data = f"{dataset_link(int8.data.name)}, {escaped(int8.data.split)}, {int8.data.images:,} pictures"
        parts.append(f"With 8-bit weights (`…_int8.onnx`) they take {after} in place of {before}. Measured on {data}:")
        rows = [[label(name), each.fp32, each.int8, each.chance] for name, each in int8.recall.items()]
        parts.append(table(["", "fp32", "int8", "chance"], rows))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return escaped(text[:1].upper() + text[1:])


def citations(towers: Sequence[Tower], loss: Sequence[str], image_tower_frozen: bool) -> str:
    """BibTeX of CLIP, of the loss, and of the towers that are known here.

    Args:
        loss: what it cites, as `bibtex_of` takes it.
        image_tower_frozen: the texts were tuned to an image tower that stayed as it was.
    """
    keys = ["clip", *loss, *(["lit"] if image_tower_frozen else [])]
    for tower in towers:
        name = (tower.name or "").casefold()
        keys.append(_PARTS_OF.get(tower.type, tower.type))
        keys += ["minilm"] if "minilm" in name else []
        keys += ["sentence-bert"] if name.startswith("sentence-transformers/") else []
    keys += ["timm"] if any(tower.type == "timm_wrapper" for tower in towers) else []
    return bibtex_of(keys)
