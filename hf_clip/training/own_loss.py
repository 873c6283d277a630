"""A loss of the user's own on the pairs of all processes: as `loss`, a part on each, or as `compute_loss_func`."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers.utils import logging

from ..core.errors import InputError
from ..models.configuration_hf_clip import HFClipConfig
from ..models.loss_hf_clip import GlobalBatch, Loss, LossFunction, score
from ..models.losses_hf_clip import LOSSES, find_loss
from ..models.modeling_hf_clip import HFClipModel, HFClipOutput
from ..publishing.card.citations import is_citation
from .distributed import GatheredBatch
from .processes import mean_of_processes

logger = logging.get_logger(__name__)

# ---- loss ---------------------------------------------------------------------------------------------------------


def use_loss(model: HFClipModel, given: Loss | LossFunction | str) -> None:
    """Has a model trained by a loss: its name, a `Loss`, or a plain function by the same contract.

    Of a plain function it keeps temperature, bias, cap and probabilities as they are.

    Raises:
        InputError: it is no loss, or cannot be this model's.
    """
    try:
        loss = _as_loss(given, model.config)
        another = loss.name != model.config.loss
        if another and hasattr(model, "peft_config"):
            raise InputError(
                f"loss {loss.name}: an adapter is saved without the configuration that says so: call use_loss of the "
                "base model, save that, and lay the adapter over it"
            )
        # By its name: the model's code may be that of a saved folder, with an object of its own.
        model.use_loss(loss.name if LOSSES.get(loss.name) is loss else loss)
    except ValueError as error:
        raise InputError(str(error)) from error
    if another and (model.logit_scale != loss.logit_scale_init_value).any():
        logger.warning(
            f"the temperature stays as it was trained: a new model of the loss {loss.name} would begin at "
            f"logit_scale {loss.logit_scale_init_value:.4g}"
        )


def _as_loss(given: Loss | LossFunction | str, config: HFClipConfig) -> Loss:
    """
    Raises:
        ValueError: it is none, or cites what is not known.
    """
    if isinstance(given, str):
        return find_loss(given)
    loss = given if isinstance(given, Loss) else _loss_of_function(given, config)
    if unknown := [each for each in loss.citations if not is_citation(each)]:
        raise InputError(f"loss {loss.name}: unknown citation {unknown[0]!r}: give BibTeX, which begins with @")
    return loss


def _loss_of_function(function: object, config: HFClipConfig) -> Loss:
    """
    Raises:
        InputError: it is no function, or has no name.
    """
    if not callable(function) or isinstance(function, type | torch.nn.Module):
        raise InputError(
            f"loss is {function!r:.80}: give a name ({', '.join(LOSSES)}), a Loss, or a function as Loss describes it"
        )
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise InputError("loss is a function without a name, which the model's configuration is to say: give a Loss")
    return Loss(
        name=name,
        function=function,
        probabilities=config.probabilities,
        logit_scale_init_value=config.logit_scale_init_value,
        logit_scale_max=config.logit_scale_max,  # type: ignore[arg-type]
        logit_bias_init_value=config.logit_bias_init_value,
    )


def check_loss(given: Mapping[str, object], loss: object, tile_size: int | None) -> None:
    """
    Args:
        given: the arguments of a Trainer, by name.
        loss: the argument of ours.
        tile_size: `loss_tile_size`.

    Raises:
        InputError: they cannot go together.
    """
    if given.get("compute_loss_func") is None:
        return
    if loss is not None:
        raise InputError("loss and compute_loss_func both say what is trained on: leave out one of them")
    if tile_size is not None:
        raise InputError("loss_tile_size is for losses that have tiles, and compute_loss_func has none: leave it out")


def loss_to_train(model: HFClipModel, tile_size: int | None, device: torch.device) -> LossFunction:
    """The loss of a model, in the form in which a training computes it.

    Args:
        device: where the training does.

    Raises:
        InputError: it is not here, has no tiles, or does not add up.
    """
    try:
        loss = model.get_loss()
    except ValueError as error:
        raise InputError(str(error)) from error
    if tile_size is not None and not loss.takes_tile_size:
        raise InputError(f"loss_tile_size is for losses that have tiles, and {loss.name} has none: leave it out")
    if loss.name in LOSSES:
        return loss
    guarded = _guarded(loss)
    _check_adds_up(guarded, model, device)
    return guarded


@torch.no_grad()
def _check_adds_up(loss: LossFunction, model: HFClipModel, device: torch.device) -> None:
    """Of a few pairs, as one batch and as two slices of it.

    Raises:
        InputError: a mean in place of a sum, or what does not compare a slice with all pairs from its offset on.
    """
    draw = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 5, model.config.projection_dim, generator=draw).to(device)
    images, texts, ids = normalize(images, dim=-1), normalize(texts, dim=-1), torch.arange(5, device=device)
    scale, bias = model.logit_scale.to(device), None if model.logit_bias is None else model.logit_bias.to(device)

    def total(rows: slice) -> float:
        batch = GlobalBatch(images, texts, ids, ids, rows.start)
        return float(loss(images[rows], texts[rows], scale, bias, batch, None))

    whole, parts = total(slice(0, 5)), [total(slice(0, 2)), total(slice(2, 5))]
    if not math.isclose(whole, sum(parts), rel_tol=1e-3, abs_tol=1e-3):
        raise InputError(
            f"loss {model.config.loss} does not add up: of five pairs it gives {whole:.4g}, and of the first two and "
            f"the others among them {parts[0]:.4g} and {parts[1]:.4g}: give the sum over the pairs that it is handed, "
            "each compared with all of batch, where they begin at batch.offset"
        )


def _guarded(loss: Loss) -> LossFunction:
    """Keeps the contract whatever the user's function does: fp32 under autocast, zero of no pairs, and a gradient of
    zero for what it leaves unused, for which DDP, other processes and the gradient cache wait."""

    def guarded(
        images: Tensor,
        texts: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        batch: GlobalBatch,
        tile_size: int | None,
    ) -> Tensor:
        nothing = _nothing(images, texts, scale, bias, batch.image_embeds, batch.text_embeds)
        if not len(images):
            return nothing
        with torch.autocast(images.device.type, enabled=False):
            others = _widened(batch.image_embeds), _widened(batch.text_embeds)
            wide = dataclasses.replace(batch, image_embeds=others[0], text_embeds=others[1])
            value = loss(_widened(images), _widened(texts), scale, bias, wide, tile_size)
        return _checked(value, f"loss {loss.name}") + nothing

    return guarded


def _widened(embeds: Tensor) -> Tensor:
    return embeds.to(torch.promote_types(embeds.dtype, torch.float32))


# ---- either -------------------------------------------------------------------------------------------------------


def _nothing(*tensors: Tensor | None) -> Tensor:
    """Zero, in which all of them have a part."""
    return torch.stack([(0 * tensor).sum() for tensor in tensors if tensor is not None]).sum()


def _checked(loss: object, called: str) -> Tensor:
    """A loss as a tensor without dimensions.

    Raises:
        InputError: it is no tensor of one number, or one that no weight has a part in.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shown = f"a tensor of {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise InputError(f"{called} returns {shown}: it must be a tensor of one number")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise InputError(f"{called} returns a loss without gradient: compute it from what it is given, undetached")
    return loss.reshape(())


# ---- compute_loss_func --------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class GlobalOutput(GatheredBatch):
    """`outputs` of `compute_loss_func(outputs, labels, num_items_in_batch=…)`: the pairs of all processes.

    The function is called on every process, with the same embeddings, and returns the mean loss of all these pairs, a
    tensor of one number. What is trained on is the mean of what the processes return; so one that computes its own
    rows' part alone, from `offset` on, multiplies its share of the whole by `processes`. With that, value and every
    gradient are those of one process with all the pairs, in batches of unequal size and empty ones too, with a
    gradient cache, and with features of frozen towers.

    `num_items_in_batch` is how many pairs there are; `labels` is None. Accumulated steps are averaged by the Trainer.
    Evaluation calls the function without gradients, on batches of the global training size, for `eval_loss`.

    Args:
        image_embeds, text_embeds: (world, dim), unit length; row i of both is a pair.
        image_ids, caption_ids: (world,) int64: rows that share one are no negatives of each other. None with
            `mask_duplicates=False`.
        offset, processes: where this process's rows begin, and how many processes there are.
        logit_scale, logit_bias: (1,); the bias is None but in a model with the sigmoid loss.
    """

    logit_scale: Tensor
    logit_bias: Tensor | None

    @property
    def logits_per_image(self) -> Tensor:
        """(world, world), images × texts."""
        temperature = (p for p in (self.logit_scale, self.logit_bias) if p is not None)
        return score(self.image_embeds, self.text_embeds, *temperature)

    @property
    def logits_per_text(self) -> Tensor:
        return self.logits_per_image.T


def own_loss(function: Callable[..., Tensor], output: HFClipOutput, world: GatheredBatch) -> Tensor:
    """The loss that a `compute_loss_func` gives, the same on every process; zero for a batch without pairs.

    Args:
        output: of this process, for the temperature.

    Raises:
        InputError: the function returns no tensor of one number, or one that no weight has a part in.
    """
    pairs = len(world.image_embeds)
    temperature = {"logit_scale": output.logit_scale, "logit_bias": output.logit_bias}
    outputs = GlobalOutput(**vars(world), **temperature)  # type: ignore[arg-type]
    nothing = _nothing(world.image_embeds, world.text_embeds, *temperature.values())
    if pairs == 0:
        return nothing
    loss = _checked(function(outputs, None, num_items_in_batch=pairs), "compute_loss_func")
    return mean_of_processes(loss + nothing, world.processes)
