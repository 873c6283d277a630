"""What a loss is: one object with its function, where its temperature begins, how it reads scores, and its words."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

# How the scores of an image's candidates become probabilities: one shared out among all, or each candidate its own.
PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda scores: scores.softmax(-1),
    "sigmoid": lambda scores: scores.sigmoid(),
}

# The fields of an `HFClipConfig` that a loss decides about, beside its name.
LOSS_SETTINGS = ("probabilities", "logit_scale_init_value", "logit_scale_max", "logit_bias_init_value")


@dataclass
class GlobalBatch:
    """The pairs that a loss compares its own with: all of them, those of other processes too.

    Args:
        image_embeds, text_embeds: (world, dim), unit length; row i of both is a pair.
        image_ids, caption_ids: (world,) integers, or None. Pairs that share one have the same image or caption: they
            are no negatives of each other.
        offset: where the own pairs begin.
    """

    image_embeds: Tensor
    text_embeds: Tensor
    image_ids: Tensor | None = None
    caption_ids: Tensor | None = None
    offset: int = 0

    def own_rows(self, image_embeds: Tensor) -> Tensor:
        """(batch,): the numbers of the own pairs among all."""
        return torch.arange(image_embeds.shape[0], device=image_embeds.device) + self.offset

    def no_negatives(self, rows: Tensor) -> Tensor | None:
        """(rows, world) booleans: true where two different pairs share an image or a caption; None without ids."""
        if self.image_ids is None and self.caption_ids is None:
            return None
        columns = torch.arange(self.text_embeds.shape[0], device=rows.device)
        return same_content(rows, columns, self.image_ids, self.caption_ids)


LossFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss, as `create_model_and_processor(loss=…)`, `HFClipModel.use_loss` and `HFClipTrainer(loss=…)` take it.

    Its function is a pure one of tensors, and knows of no process: `function(image_embeds, text_embeds, logit_scale,
    logit_bias, batch)`, by position, gives the sum of the losses of the pairs that it is handed, a tensor of one
    number. These may be a slice of a larger batch: they are compared with all of it, and what a slice gives counts its
    own pairs alone, so that the slices add up to the loss of the whole. Then several processes train what one would.

        image_embeds, text_embeds: (batch, dim), unit length, fp32 or better; row i of both is a pair. There may be
            none, whose sum is zero.
        logit_scale: (1,), the log of 1/temperature. logit_bias: (1,), or None.
        batch: the `GlobalBatch` of all pairs; the own ones are its rows from `batch.offset` on.
        tile_size: by name, of a function that has such a parameter: `loss_tile_size` is for those alone.

    Example:
        ```python
        def hinge(image_embeds, text_embeds, logit_scale, logit_bias, batch):
            rows = batch.own_rows(image_embeds)
            cosines = image_embeds @ batch.text_embeds.T  # (batch, world)
            margins = (0.2 + cosines - cosines.gather(1, rows[:, None])).clamp(min=0)
            masked = margins.scatter(1, rows[:, None], 0)  # a pair is no negative of itself
            if (same := batch.no_negatives(rows)) is not None:
                masked = masked.masked_fill(same, 0)
            return masked.sum()

        trainer = HFClipTrainer(model, args, loss=Loss("hinge", hinge, label="hinge of the images"), …)
        ```

    Args:
        name: what `config.json` calls it: letters, digits and underscores.
        probabilities: what a score says: "softmax", one probability shared out among an image's candidates, or
            "sigmoid", each candidate's own.
        logit_scale_init_value: where `logit_scale` begins.
        logit_scale_max: its largest value; training clamps after each step. None: no cap.
        logit_bias_init_value: where the `logit_bias` begins. None: the loss has none.
        label: a few words for it, in drawings; default: its name.
        sentence: what a model card says of it, in plain words; empty: nothing. Default: that it trained the model.
        citations: BibTeX, or keys of `publishing/card/citations.py`.

    Raises:
        ValueError: a name, probabilities or a temperature that cannot be; a function of other arguments.
    """

    name: str
    function: LossFunction = field(repr=False)
    probabilities: str = "softmax"
    logit_scale_init_value: float = math.log(1 / 0.07)
    logit_scale_max: float | None = math.log(100)
    logit_bias_init_value: float | None = None
    label: str = ""
    sentence: str | None = None
    citations: tuple[str, ...] = ()
    takes_tile_size: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise ValueError(f"loss {self.name!r}: a name is of letters, digits and underscores")
        if self.probabilities not in PROBABILITIES:
            raise ValueError(
                f"loss {self.name}: unknown probabilities {self.probabilities!r}: choose one of "
                f"{', '.join(PROBABILITIES)}"
            )
        self._check_temperature()
        object.__setattr__(self, "takes_tile_size", _takes_tile_size(self.name, self.function))
        object.__setattr__(self, "label", self.label or self.name)
        citations = (self.citations,) if isinstance(self.citations, str) else tuple(self.citations)
        object.__setattr__(self, "citations", citations)
        if self.sentence is None:
            object.__setattr__(self, "sentence", f"The model was trained with the loss {self.name}")

    def _check_temperature(self) -> None:
        for name in LOSS_SETTINGS[1:]:
            value = getattr(self, name)
            if value is None and name != "logit_scale_init_value":
                continue
            if not (isinstance(value, int | float) and math.isfinite(value)):
                raise ValueError(f"loss {self.name}: {name} is {value!r}: it must be a finite number")
        if self.logit_scale_max is not None and self.logit_scale_init_value > self.logit_scale_max:
            raise ValueError(
                f"loss {self.name}: logit_scale_init_value {self.logit_scale_init_value:.4g} is above logit_scale_max "
                f"{self.logit_scale_max:.4g}, where the first step would clamp it: give a lower one, or a higher cap"
            )

    def __call__(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        batch: GlobalBatch | None = None,
        tile_size: int | None = None,
    ) -> Tensor:
        """The sum of the losses of these pairs, as its function gives it.

        Args:
            batch: default: these pairs are all.
            tile_size: None for a function that has no tiles.
        """
        batch = GlobalBatch(image_embeds, text_embeds) if batch is None else batch
        tiles = {} if tile_size is None else {"tile_size": tile_size}
        return self.function(image_embeds, text_embeds, logit_scale, logit_bias, batch, **tiles)

    def settings(self) -> dict[str, str | float | None]:
        """The fields of an `HFClipConfig` that it decides about."""
        return {"loss": self.name, **{name: getattr(self, name) for name in LOSS_SETTINGS}}


def _takes_tile_size(name: str, function: LossFunction) -> bool:
    """
    Raises:
        ValueError: the function cannot be called as a loss is.
    """
    try:
        signature = inspect.signature(function)
        signature.bind(*range(5))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"loss {name}: its function cannot be called with (image_embeds, text_embeds, logit_scale, logit_bias, "
            f"batch): {error}"
        ) from error
    return "tile_size" in signature.parameters


def score(queries: Tensor, candidates: Tensor, logit_scale: Tensor, logit_bias: Tensor | None = None) -> Tensor:
    """exp(logit_scale) · cosine (+ logit_bias), (queries, candidates), in fp32 or better: bf16 would tie a fifth of
    the first ranks.

    Args:
        queries, candidates: (queries, dim), (candidates, dim), unit length.
    """
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        logits = logit_scale.to(dtype).exp() * queries.to(dtype) @ candidates.to(dtype).T
        return logits if logit_bias is None else logits + logit_bias.to(dtype)


def check_pairs(image_embeds: Tensor, text_embeds: Tensor, batch: GlobalBatch) -> None:
    """
    Raises:
        ValueError: tensors and an offset that do not fit together.
    """
    # `len` of a tensor is a plain number, which `torch.export` would write into the program.
    images, texts, world = image_embeds.shape[0], text_embeds.shape[0], batch.text_embeds.shape[0]
    if images != texts:
        raise ValueError(f"{images} images and {texts} captions are no pairs")
    if not 0 <= batch.offset <= world - texts:
        raise ValueError(f"offset {batch.offset}: {texts} pairs do not begin there in a batch of {world}")


def same_content(rows: Tensor, columns: Tensor, image_ids: Tensor | None, caption_ids: Tensor | None) -> Tensor:
    """(rows, columns) booleans: true where two different pairs, by their number, share an image or a caption."""
    mask = torch.zeros(1, 1, dtype=torch.bool, device=rows.device)
    for ids in (image_ids, caption_ids):
        if ids is not None:
            mask = mask | (ids[rows, None] == ids[None, columns])
    return mask & (rows[:, None] != columns[None, :])


__all__ = [
    "LOSS_SETTINGS",
    "PROBABILITIES",
    "GlobalBatch",
    "Loss",
    "LossFunction",
    "check_pairs",
    "same_content",
    "score",
]
