"""A loss of the user's own on the pairs of all processes: as `loss`, a part on each, or as `compute_loss_func`."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers.utils import CONFIG_NAME, logging

from ..core.errors import InputError
from ..core.json_files import read_json
from ..models.configuration_hf_clip import HFClipConfig
from ..models.loss_hf_clip import LOSS_SETTINGS, GlobalBatch, Loss, LossFunction, score
from ..models.losses_hf_clip import LOSSES, find_loss
from ..models.modeling_hf_clip import HFClipModel, HFClipOutput
from ..models.tiles_hf_clip import widened
from ..publishing.card.citations import is_citation
from .distributed import GatheredBatch
from .processes import mean_of_processes

logger = logging.get_logger(__name__)

# ---- loss ---------------------------------------------------------------------------------------------------------


def loss_to_train(
    model: HFClipModel,
    given: Loss | LossFunction | str | None,
    tile_size: int | None,
    device: torch.device,
    deepspeed: bool = False,
) -> Loss:
    """What a model is to be trained by; nothing of the model is changed.

    Args:
        given: a name, a `Loss`, or a plain function by the same contract, with which temperature, bias, cap and
            probabilities stay the model's; None: the loss that the model was made for.
        tile_size: `loss_tile_size`.
        device: where the training computes it.

    Raises:
        InputError: it is no loss, is not here, has no tiles, does not add up, or cannot be this model's.
    """
    try:
        loss = _loss_of(model, given)
        if given is not None:
            model.check_loss(_as_known(loss))
    except ValueError as error:
        raise InputError(str(error)) from error
    another = loss.name != model.config.loss
    if another and hasattr(model, "peft_config"):
        raise InputError(
            f"loss {loss.name}: an adapter is saved without the configuration that says so: call use_loss of the base "
            "model, save that, and lay the adapter over it"
        )
    if deepspeed and (another or loss.name not in LOSSES):
        raise InputError(
            f"loss {loss.name}: another loss than the model was made for, or one of your own, is for runs without "
            "DeepSpeed: leave out one of them"
        )
    if unknown := [each for each in loss.citations if not is_citation(each)]:
        raise InputError(f"loss {loss.name}: unknown citation {unknown[0]!r}: give BibTeX, which begins with @")
    if tile_size is not None and not loss.takes_tile_size:
        raise InputError(f"loss_tile_size is for losses that have tiles, and {loss.name} has none: leave it out")
    if loss.name not in LOSSES:
        _check_adds_up(loss, model.config.projection_dim, device)
    return loss


def give_loss(model: HFClipModel, loss: Loss) -> LossFunction:
    """Makes a model one of a loss that `loss_to_train` found.

    Returns:
        The loss in the form in which a training computes it.
    """
    another = loss.name != model.config.loss
    model.use_loss(_as_known(loss))
    begins = {"logit_scale": loss.logit_scale_init_value, "logit_bias": loss.logit_bias_init_value}
    kept = [
        f"{name} {value:.4g}" for name, value in begins.items() if value is not None and _differs(model, name, value)
    ]
    if another and kept:
        logger.warning(
            f"the temperature stays as it was trained: a new model of the loss {loss.name} would begin at "
            f"{' and '.join(kept)}"
        )
    return loss if loss.name in LOSSES else _guarded(loss)


def _as_known(loss: Loss) -> Loss | str:
    """One of ours by its name: the model's code may be that of a saved folder, with an object of its own."""
    return loss.name if LOSSES.get(loss.name) is loss else loss


def _differs(model: HFClipModel, name: str, value: float) -> bool:
    return bool((getattr(model, name) != value).any())


def _loss_of(model: HFClipModel, given: Loss | LossFunction | str | None) -> Loss:
    if given is None:
        return model.get_loss()
    if isinstance(given, str):
        return find_loss(given)
    return given if isinstance(given, Loss) else _loss_of_function(given, model.config)


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
    cap: float | None = config.logit_scale_max  # type: ignore[assignment]
    return Loss(
        name=name,
        function=function,
        probabilities=config.probabilities,
        logit_scale_init_value=min(config.logit_scale_init_value, math.inf if cap is None else cap),
        logit_scale_max=cap,
        logit_bias_init_value=config.logit_bias_init_value,
    )


def check_loss_of_checkpoint(folder: str, config: HFClipConfig) -> None:
    """
    Args:
        config: of the model that is to go on from it.

    Raises:
        InputError: it was trained with another loss, or with other settings of it.
    """
    saved = read_json(Path(folder, CONFIG_NAME))
    if "loss" not in saved:  # of an adapter
        return
    trained = HFClipConfig.from_dict(saved)
    for name in ("loss", *LOSS_SETTINGS):
        then, now = getattr(trained, name), getattr(config, name)
        if then != now:
            said = f"the loss {then}" if name == "loss" else f"the loss {trained.loss} with {name}={then}"
            raise InputError(
                f"{folder} was trained with {said}, and this run has {now}: give HFClipTrainer the same loss"
            )


def check_compute_loss_func(
    model: HFClipModel, given: Mapping[str, object], loss: object, tile_size: int | None
) -> None:
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
    if model.own_loss is not None:
        raise InputError(
            f"compute_loss_func would train a model that use_loss made one of the loss {model.own_loss.name}: leave "
            "out one of them"
        )


@torch.no_grad()
def _check_adds_up(loss: Loss, width: int, device: torch.device) -> None:
    """Of a few pairs, as one batch and as two slices of it.

    Args:
        width: of an embedding.

    Raises:
        InputError: no number; a mean in place of a sum, or what does not compare a slice with all pairs from its
            offset on.
    """
    draw = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 5, width, generator=draw).to(device)
    images, texts, ids = normalize(images, dim=-1), normalize(texts, dim=-1), torch.arange(5, device=device)
    repeated = ids % 4  # the last pair has the caption of the first
    begins = (loss.logit_scale_init_value, loss.logit_bias_init_value)
    scale, bias = (None if value is None else torch.tensor([float(value)], device=device) for value in begins)
    function = _guarded(loss)

    def total(rows: slice) -> float:
        batch = GlobalBatch(images, texts, ids, repeated, rows.start)
        return float(function(images[rows], texts[rows], scale, bias, batch, None))

    whole, parts = total(slice(0, 5)), [total(slice(0, 2)), total(slice(2, 5))]
    if not math.isfinite(whole):
        raise InputError(
            f"loss {loss.name} is {whole} of five pairs, two of which have the same caption: see that what "
            "batch.no_negatives masks leaves a number"
        )
    if not math.isclose(whole, sum(parts), rel_tol=1e-3, abs_tol=1e-3):
        raise InputError(
            f"loss {loss.name} does not add up: of five pairs it gives {whole:.4g}, and of the first two and "
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
            others = widened(batch.image_embeds), widened(batch.text_embeds)
            wide = dataclasses.replace(batch, image_embeds=others[0], text_embeds=others[1])
            value = loss(widened(images), widened(texts), scale, bias, wide, tile_size)
        return _checked(value, f"loss {loss.name}") + nothing

    return guarded


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
        logit_scale, logit_bias: (1,); the bias is None in a model whose loss has none.
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
