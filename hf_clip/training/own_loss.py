"""A loss of the user's own on the pairs of all processes: what `compute_loss_func` gets, and what it has to give."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import InputError
from ..models.loss_hf_clip import score
from ..models.modeling_hf_clip import HFClipOutput
from .distributed import GlobalBatch
from .processes import mean_of_processes


@dataclass(kw_only=True)
class GlobalOutput(GlobalBatch):
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


def own_loss(function: Callable[..., Tensor], output: HFClipOutput, world: GlobalBatch) -> Tensor:
    """The loss that a `compute_loss_func` gives, the same on every process; zero for a batch without pairs.

    Args:
        output: of this process, for the temperature.

    Raises:
        InputError: the function returns no tensor of one number, or one that no weight has a part in.
    """
    pairs = len(world.image_embeds)
    temperature = {"logit_scale": output.logit_scale, "logit_bias": output.logit_bias}
    outputs = GlobalOutput(**vars(world), **temperature)  # type: ignore[arg-type]
    # What the function leaves unused has a gradient of zero: other processes wait for it, and so does DDP.
    given = (world.image_embeds, world.text_embeds, *temperature.values())
    nothing = torch.stack([(0 * tensor).sum() for tensor in given if tensor is not None]).sum()
    if pairs == 0:
        return nothing
    loss = function(outputs, None, num_items_in_batch=pairs)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shown = f"a tensor of {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise InputError(f"compute_loss_func returns {shown}: it must be a tensor of one number")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise InputError(
            "compute_loss_func returns a loss without gradient: compute it from outputs, without detaching"
        )
    return mean_of_processes(loss.reshape(()) + nothing, world.processes)
