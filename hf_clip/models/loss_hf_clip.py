"""The contrastive losses, pure functions of tensors: they know an offset, never a process group.

Both have two forms that give the same: the formula, over a matrix of all logits, and the same in tiles of it, which
are made again in the backward pass, so that memory grows with the batch and not with its square.
"""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, logsigmoid

# 4 MB of logits stay in a CPU's cache; a GPU wants fewer and larger pieces of work, and has the 64 MB.
_TILE_SIZE = {"cpu": 1024}
_TILE_SIZE_OF_OTHERS = 4096


def contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: Tensor,
    *,
    all_image_embeds: Tensor | None = None,
    all_text_embeds: Tensor | None = None,
    image_ids: Tensor | None = None,
    caption_ids: Tensor | None = None,
    offset: int = 0,
    tile_size: int | None = None,
) -> Tensor:
    """Symmetric InfoNCE (CLIP, arXiv:2103.00020, figure 3), summed over this batch's pairs, in fp32.

    Divide by the number of pairs for the usual mean. Where the batch is a slice of a larger one, its rows score
    against all of it, and the slices' sums add up to the loss of the whole.

    Args:
        image_embeds, text_embeds: (batch, dim), unit length; row i of both is a pair.
        logit_scale: (1,), the log of 1/temperature.
        all_image_embeds, all_text_embeds: (world, dim), the larger batch; default: this batch.
        image_ids, caption_ids: (world,) integers. Pairs that share a picture or a caption leave each other's
            denominators: they are no negatives, and not made positives.
        offset: where this batch's rows begin in the larger batch.
        tile_size: rows and columns of a tile; default: 1,024 on a CPU, else 4,096. Logits that fit into one tile
            are made whole, and only then can the gradient be differentiated again.

    Returns:
        A scalar: sum over the pairs of (image→text + text→image cross-entropy) / 2.

    Raises:
        ValueError: tensors, an offset or a tile size that do not fit together.
    """
    whole = (all_image_embeds is None or all_image_embeds is image_embeds) and (
        all_text_embeds is None or all_text_embeds is text_embeds
    )
    all_image_embeds = image_embeds if all_image_embeds is None else all_image_embeds
    all_text_embeds = text_embeds if all_text_embeds is None else all_text_embeds
    tile_size = _check(image_embeds, text_embeds, all_text_embeds, offset, tile_size)
    if _is_tiled(all_text_embeds, tile_size):
        tiles = _Tiles(tile_size, offset, _with_repeats(image_ids), _with_repeats(caption_ids))
        if whole:  # row i against all columns and column i against all rows, from the same tiles
            return _TiledCrossEntropy.apply(image_embeds, text_embeds, logit_scale, tiles, True) / 2
        image_loss = _TiledCrossEntropy.apply(image_embeds, all_text_embeds, logit_scale, tiles, False)
        text_loss = _TiledCrossEntropy.apply(text_embeds, all_image_embeds, logit_scale, tiles, False)
        return (image_loss + text_loss) / 2
    rows = torch.arange(image_embeds.shape[0], device=image_embeds.device) + offset  # (batch,)
    logits_per_image = score(image_embeds, all_text_embeds, logit_scale)  # (batch, world)
    logits_per_text = logits_per_image.T if whole else score(text_embeds, all_image_embeds, logit_scale)
    if image_ids is not None or caption_ids is not None:
        columns = torch.arange(all_text_embeds.shape[0], device=rows.device)
        mask = _same_content(rows, columns, image_ids, caption_ids)  # (batch, world)
        logits_per_image = logits_per_image.masked_fill(mask, float("-inf"))
        logits_per_text = logits_per_text.masked_fill(mask, float("-inf"))
    image_loss = cross_entropy(logits_per_image, rows, reduction="sum")
    text_loss = cross_entropy(logits_per_text, rows, reduction="sum")
    return (image_loss + text_loss) / 2


def sigmoid_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    all_text_embeds: Tensor | None = None,
    image_ids: Tensor | None = None,
    caption_ids: Tensor | None = None,
    offset: int = 0,
    tile_size: int | None = None,
) -> Tensor:
    """The sigmoid loss (SigLIP, arXiv:2303.15343, equation 1), summed over this batch's pictures, in fp32.

    Every picture × caption is a yes-or-no question of its own, yes for the pairs. Divide by the number of pairs for
    the paper's value. Where the batch is a slice of a larger one, its pictures meet all captions, and the slices'
    sums add up to the loss of the whole.

    Args:
        image_embeds, text_embeds: (batch, dim), unit length; row i of both is a pair.
        logit_scale, logit_bias: (1,) each; the log of 1/temperature, and what is added to every logit.
        all_text_embeds: (world, dim), the captions of the larger batch; default: this batch's.
        image_ids, caption_ids: (world,) integers. Of pairs that share a picture or a caption, neither picture is
            asked about the other's caption.
        offset: where this batch's rows begin in the larger batch.
        tile_size: as in `contrastive_loss`.

    Raises:
        ValueError: tensors, an offset or a tile size that do not fit together.
    """
    all_text_embeds = text_embeds if all_text_embeds is None else all_text_embeds
    tile_size = _check(image_embeds, text_embeds, all_text_embeds, offset, tile_size)
    if _is_tiled(all_text_embeds, tile_size):
        tiles = _Tiles(tile_size, offset, _with_repeats(image_ids), _with_repeats(caption_ids))
        return _TiledSigmoid.apply(image_embeds, all_text_embeds, logit_scale, logit_bias, tiles)
    rows = torch.arange(image_embeds.shape[0], device=image_embeds.device) + offset  # (batch,)
    logits = score(image_embeds, all_text_embeds, logit_scale, logit_bias)  # (batch, world)
    columns = torch.arange(logits.shape[1], device=logits.device)
    losses = -logsigmoid(torch.where(rows[:, None] == columns, logits, -logits))  # (batch, world)
    if image_ids is not None or caption_ids is not None:
        losses = losses.masked_fill(_same_content(rows, columns, image_ids, caption_ids), 0)
    return losses.sum()


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


def _check(
    image_embeds: Tensor, text_embeds: Tensor, all_text_embeds: Tensor, offset: int, tile_size: int | None
) -> int:
    """The tile size."""
    # `len` of a tensor is a plain number, which `torch.export` would write into the program.
    images, texts, world = image_embeds.shape[0], text_embeds.shape[0], all_text_embeds.shape[0]
    if images != texts:
        raise ValueError(f"{images} pictures and {texts} captions are no pairs")
    if not 0 <= offset <= world - texts:
        raise ValueError(f"offset {offset}: {texts} pairs do not begin there in a batch of {world}")
    if tile_size is not None and tile_size < 1:
        raise ValueError(f"tile_size must be 1 or more, not {tile_size}")
    return tile_size or _TILE_SIZE.get(image_embeds.device.type, _TILE_SIZE_OF_OTHERS)


def _is_tiled(all_text_embeds: Tensor, tile_size: int) -> bool:
    """Not in an exported program, which has no loop over a number of tiles that may change."""
    return not torch.compiler.is_exporting() and all_text_embeds.shape[0] > tile_size


def _same_content(rows: Tensor, columns: Tensor, image_ids: Tensor | None, caption_ids: Tensor | None) -> Tensor:
    """(rows, columns) booleans: true where two different pairs, by their number, share a picture or a caption."""
    mask = torch.zeros(1, 1, dtype=torch.bool, device=rows.device)
    for ids in (image_ids, caption_ids):
        if ids is not None:
            mask = mask | (ids[rows, None] == ids[None, columns])
    return mask & (rows[:, None] != columns[None, :])


def _with_repeats(ids: Tensor | None) -> Tensor | None:
    """None where nothing comes twice: most batches need no mask, which every tile would pay for."""
    return ids if ids is not None and len(ids.unique()) < len(ids) else None


@dataclass
class _Tiles:
    """Walks a matrix of logits tile by tile.

    Args:
        size: rows and columns of a tile.
        offset: the column of row 0's own pair.
        image_ids, caption_ids: (columns,), as in `contrastive_loss`.
    """

    size: int
    offset: int
    image_ids: Tensor | None
    caption_ids: Tensor | None

    def walk(
        self, queries: Tensor, candidates: Tensor
    ) -> Iterator[tuple[slice, slice, Tensor, tuple[Tensor, Tensor]]]:
        """Rows and columns of each tile, its logits (-inf where there is no negative), and the places in it of the
        pairs themselves."""
        for row in range(0, len(queries), self.size):
            for column in range(0, len(candidates), self.size):
                rows, columns = slice(row, row + self.size), slice(column, column + self.size)
                tile = queries[rows] @ candidates[columns].T
                numbers = torch.arange(tile.shape[0], device=tile.device) + row + self.offset
                others = torch.arange(tile.shape[1], device=tile.device) + column
                if self.image_ids is not None or self.caption_ids is not None:
                    mask = _same_content(numbers, others, self.image_ids, self.caption_ids)
                    tile.masked_fill_(mask, float("-inf"))
                first = row + self.offset
                begin, end = max(first, column), min(first + len(numbers), column + len(others))
                own = torch.arange(begin, max(begin, end), device=tile.device)
                yield rows, columns, tile, (own - first, own - column)


class _TiledCrossEntropy(torch.autograd.Function):
    """Cross-entropy of every row with its own column, summed; with `both`, of every column with its own row, too.

    The normalisers come of a first walk; the second, in the backward pass, makes each tile again and its gradient.
    """

    @staticmethod
    def forward(ctx, queries, candidates, logit_scale, tiles: _Tiles, both: bool) -> Tensor:  # type: ignore[override]
        scaled, wide = _scaled(queries, logit_scale), _widened(candidates)
        by_row, by_column = (scaled.new_full((len(embeds),), float("-inf")) for embeds in (queries, candidates))
        own_logits = torch.zeros_like(by_row)
        with torch.autocast(queries.device.type, enabled=False):
            for rows, columns, logits, own in tiles.walk(scaled, wide):
                by_row[rows] = torch.logaddexp(by_row[rows], logits.logsumexp(1))
                if both:
                    by_column[columns] = torch.logaddexp(by_column[columns], logits.logsumexp(0))
                own_logits[rows][own[0]] = logits[own]
        ctx.save_for_backward(queries, candidates, logit_scale, by_row, by_column)
        ctx.tiles, ctx.both = tiles, both
        return (by_row - own_logits).sum() + ((by_column - own_logits).sum() if both else 0)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:  # type: ignore[override]
        queries, candidates, logit_scale, by_row, by_column = ctx.saved_tensors
        scaled, wide = _scaled(queries, logit_scale), _widened(candidates)
        grads = torch.zeros_like(scaled), torch.zeros_like(wide)
        with torch.autocast(queries.device.type, enabled=False):
            for rows, columns, logits, own in ctx.tiles.walk(scaled, wide):
                share = (logits - by_row[rows, None]).exp_()
                if ctx.both:
                    share += logits.sub_(by_column[columns]).exp_()
                share[own] -= 1 + ctx.both
                _add_products(grads, share, scaled, wide, rows, columns)
        return *_to_inputs(grads, grad, queries, candidates, logit_scale), None, None


class _TiledSigmoid(torch.autograd.Function):
    """`sigmoid_loss`: nothing is to be known of other tiles, so each one's gradient is taken in the same walk."""

    @staticmethod
    def forward(ctx, images, texts, logit_scale, logit_bias, tiles: _Tiles) -> Tensor:  # type: ignore[override]
        scaled, wide = _scaled(images, logit_scale), _widened(texts)
        grads = torch.zeros_like(scaled), torch.zeros_like(wide)
        total, bias_grad = scaled.new_zeros(()), scaled.new_zeros(())
        with torch.autocast(images.device.type, enabled=False):
            for rows, columns, logits, own in tiles.walk(scaled, wide):
                logits += logit_bias.to(logits.dtype)
                logits[own] *= -1  # of a pair the answer is yes
                total -= logsigmoid(-logits).sum()
                if any(ctx.needs_input_grad):
                    share = logits.sigmoid_()
                    share[own] *= -1
                    bias_grad += share.sum()
                    _add_products(grads, share, scaled, wide, rows, columns)
        ctx.save_for_backward(images, texts, logit_scale, logit_bias, bias_grad, *grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:  # type: ignore[override]
        images, texts, logit_scale, logit_bias, bias_grad, *grads = ctx.saved_tensors
        bias_grad = (bias_grad * grad).expand_as(logit_bias).to(logit_bias.dtype)
        grads = [saved.clone() for saved in grads]
        return *_to_inputs(grads, grad, images, texts, logit_scale), bias_grad, None


def _widened(embeds: Tensor) -> Tensor:
    return embeds.to(torch.promote_types(embeds.dtype, torch.float32))


def _scaled(embeds: Tensor, logit_scale: Tensor) -> Tensor:
    wide = _widened(embeds)
    return logit_scale.to(wide.dtype).exp() * wide


def _add_products(
    grads: tuple[Tensor, Tensor], share: Tensor, scaled: Tensor, wide: Tensor, rows: slice, columns: slice
) -> None:
    """What one tile's gradient, (rows, columns), says to its queries and to its candidates."""
    grads[0][rows].addmm_(share, wide[columns])
    grads[1][columns].addmm_(share.T, scaled[rows])


def _to_inputs(
    grads: Sequence[Tensor], grad: Tensor, queries: Tensor, candidates: Tensor, logit_scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The chain rule through the scaling of the queries and through what became of the loss, `grad`."""
    query_grad = grads[0].mul_(grad * logit_scale.to(grad.dtype).exp())  # in place: they are as large as the batch
    candidate_grad = grads[1].mul_(grad)
    # A logit's derivative by the log of the scale is the logit itself (less the bias), a query · its candidate.
    scale_grad = (query_grad * queries).sum(dtype=torch.float64).expand_as(logit_scale)
    return query_grad.to(queries.dtype), candidate_grad.to(candidates.dtype), scale_grad.to(logit_scale.dtype)


__all__ = ["contrastive_loss", "score", "sigmoid_loss"]
