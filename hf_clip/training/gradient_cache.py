"""A batch that the towers see in chunks, and the loss as a whole (gradient cache, arXiv:2101.06983)."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import get_device_states, set_device_states

from ..models.checkpointing_hf_clip import statistics_moved
from ..models.modeling_hf_clip import HFClipOutput
from .processes import largest_of_processes, without_gradient_sync

_OF_IMAGES = ("pixel_values", "pooled_image")
# What the loss takes from the towers; its gradients go back the same way.
_LEAVES = ("image_embeds", "text_embeds", "logit_scale", "logit_bias")


class GradientCache:
    """Exact gradients of a batch whose activations would not fit: each chunk is embedded twice.

    `embed` runs the towers without a graph, chunk by chunk, and gives the embeddings of the whole batch. After
    `loss.backward()` on them, `backward` embeds each chunk again, with a graph and the same dropout, and goes on from
    the embeddings' gradients to the parameters'. Activations are those of one chunk; the price is one more forward.

    BatchNorm normalises by the statistics of each chunk. Its running statistics move once a batch, towards the mean
    of the chunks' statistics, weighted by their pictures.

    Args:
        inputs: of `HFClipModel.forward`: tensors of (batch, …).
        image_chunk_size, text_chunk_size: the most pictures and captions that a tower sees at a time; chunks differ
            by one at most.
        prepare: applied to a chunk's inputs before the model sees them, such as normalising its pixels.
        context: entered for each forward pass, such as autocast.
        least_images: the fewest that the image tower sees at a time, where the batch has so many: 2 for a BatchNorm
            that learns. A chunk may then have one more than its size.
    """

    def __init__(
        self,
        inputs: dict[str, Tensor],
        image_chunk_size: int,
        text_chunk_size: int | None = None,
        prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda inputs: inputs,
        context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
        least_images: int = 1,
    ):
        self._chunks = _chunks(inputs, image_chunk_size, text_chunk_size or image_chunk_size, least_images)
        self._prepare, self._context = prepare, context
        self._random: list[_RandomState] = []
        self._leaves: dict[str, Tensor] = {}

    def embed(self, model: nn.Module) -> HFClipOutput:
        """The output of a model, DDP's or FSDP2's wrapper or none, for the whole batch, without logits."""
        outputs = []
        moving = _MovingStatistics(model)
        with torch.no_grad(), without_gradient_sync(model):
            for chunk in self._chunks:
                self._random.append(_RandomState(next(iter(chunk.values()))))
                with moving.towards(len(_images_of(chunk))):
                    output = self._run(model, chunk)
                outputs.append({name: output[name] for name in _LEAVES if name in output})  # no hidden states
        moving.settle()
        whole = {name: _joined(outputs, name) for name in _LEAVES}
        self._leaves = {name: value.requires_grad_() for name, value in whole.items() if value is not None}
        return HFClipOutput(**self._leaves)  # type: ignore[arg-type]

    def backward(self, model: nn.Module) -> None:
        """Adds the gradients of all parameters to theirs; the processes' are averaged with those of the last chunk.

        `loss.backward()` must have been called on a loss of what `embed` gave.
        """
        starts = {"image_embeds": 0, "text_embeds": 0}
        with statistics_moved(_batch_norms(model)):
            for number, (chunk, random) in enumerate(zip(self._chunks, self._random, strict=True), 1):
                last = number == len(self._chunks)
                with contextlib.nullcontext() if last else without_gradient_sync(model):
                    random.restore()
                    self._backward_of(self._run(model, chunk), starts, last)

    def _run(self, model: nn.Module, chunk: dict[str, Tensor]) -> HFClipOutput:
        with self._context():
            return model(**self._prepare(chunk), return_logits=False)

    def _backward_of(self, output: HFClipOutput, starts: dict[str, int], last: bool) -> None:
        """Of one chunk; temperature and bias, which are of no chunk, come with the last."""
        ends: list[tuple[Tensor, Tensor]] = []
        for name, start in starts.items():
            embeds = output.get(name)
            if embeds is not None:
                ends.append((embeds, self._leaves[name].grad[start : start + len(embeds)]))
                starts[name] += len(embeds)
        if last:
            ends += [(output[name], self._leaves[name].grad) for name in self._leaves.keys() - starts.keys()]
        ends = [(tensor, gradient) for tensor, gradient in ends if tensor.requires_grad]
        if ends:
            torch.autograd.backward([tensor for tensor, _ in ends], [gradient for _, gradient in ends])


def _chunks(inputs: dict[str, Tensor], image_size: int, text_size: int, least: int) -> list[dict[str, Tensor]]:
    """The batch in parts. The last holds pictures and captions: DDP waits for every parameter's gradient there."""
    images = _split({name: value for name, value in inputs.items() if name in _OF_IMAGES}, image_size, least)
    texts = _split({name: value for name, value in inputs.items() if name not in _OF_IMAGES}, text_size)
    nothing: dict[str, Tensor] = {}
    pairs = itertools.zip_longest(reversed(images), reversed(texts), fillvalue=nothing)
    return [image | text for image, text in pairs][::-1]


def _split(inputs: dict[str, Tensor], size: int, least: int = 1) -> list[dict[str, Tensor]]:
    first = next(iter(inputs.values()))
    most = max(len(first) // least, 1)
    number = largest_of_processes(max(min(-(-len(first) // size), most), 1), first.device)  # FSDP2 gathers for each
    filled = min(number, most)
    parts = {name: [value[:0]] * (number - filled) + [*value.tensor_split(filled)] for name, value in inputs.items()}
    return [{name: part[i] for name, part in parts.items()} for i in range(number)]


def _images_of(chunk: dict[str, Tensor]) -> Tensor:
    return next((chunk[name] for name in _OF_IMAGES if name in chunk), torch.empty(0))


def _joined(outputs: list[dict[str, Tensor]], name: str) -> Tensor | None:
    values = [output[name] for output in outputs if name in output]
    if not values:
        return None
    return torch.cat(values) if name.endswith("embeds") else values[-1]


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Those whose statistics move."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [norm for norm in norms if norm.training and norm.track_running_stats]


class _MovingStatistics:
    """Moves BatchNorm's running statistics once, by the mean of several chunks' statistics."""

    def __init__(self, model: nn.Module):
        self.norms = _batch_norms(model)
        self._before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in self.norms]
        self._sums = [(torch.zeros_like(mean), torch.zeros_like(var)) for mean, var in self._before]
        self._pictures = 0

    @contextlib.contextmanager
    def towards(self, pictures: int) -> Iterator[None]:
        """Around the forward pass of a chunk with so many pictures."""
        with statistics_moved(self.norms, momentum=1.0):
            yield
        if pictures == 0:
            return
        self._pictures += pictures
        for norm, (mean, var) in zip(self.norms, self._sums, strict=True):
            mean.add_(norm.running_mean, alpha=pictures)
            var.add_(norm.running_var, alpha=pictures)

    def settle(self) -> None:
        for norm, before, sums in zip(self.norms, self._before, self._sums, strict=True):
            norm.running_mean.copy_(before[0])
            norm.running_var.copy_(before[1])
            if self._pictures:
                norm.num_batches_tracked += 1
                momentum = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
                norm.running_mean.lerp_(sums[0] / self._pictures, float(momentum))
                norm.running_var.lerp_(sums[1] / self._pictures, float(momentum))


class _RandomState:
    """What dropout draws from, on the CPU and on the device of a tensor."""

    def __init__(self, tensor: Tensor):
        self._cpu = torch.get_rng_state()
        self._devices, self._states = get_device_states(tensor)

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        set_device_states(self._devices, self._states)
