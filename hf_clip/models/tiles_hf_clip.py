"""Logits tile by tile, made again in the backward pass: memory grows with the batch and not with its square."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .loss_hf_clip import GlobalBatch, same_content

# 4 MB of logits stay in a CPU's cache; a GPU wants fewer and larger pieces of work, and has the 64 MB.
_TILE_SIZE = {"cpu": 1024}
_TILE_SIZE_OF_OTHERS = 4096


def tiles_of(batch: GlobalBatch, tile_size: int | None) -> "Tiles | None":
    """How the logits of a batch are walked; None where they fit into one tile, and are made whole.

    Args:
        tile_size: rows and columns of a tile; default: 1,024 on a CPU, else 4,096.

    Raises:
        ValueError: a tile size below 1.
    """
    if tile_size is not None and tile_size < 1:
        raise ValueError(f"tile_size must be 1 or more, not {tile_size}")
    size = tile_size or _TILE_SIZE.get(batch.text_embeds.device.type, _TILE_SIZE_OF_OTHERS)
    # An exported program has no loop over a number of tiles that may change.
    if torch.compiler.is_exporting() or batch.text_embeds.shape[0] <= size:
        return None
    return Tiles(size, batch.offset, _with_repeats(batch.image_ids), _with_repeats(batch.caption_ids))


def _with_repeats(ids: Tensor | None) -> Tensor | None:
    """None where nothing comes twice: most batches need no mask, which every tile would pay for."""
    return ids if ids is not None and len(ids.unique()) < len(ids) else None


@dataclass
class Tiles:
    """Walks a matrix of logits tile by tile.

    Args:
        size: rows and columns of a tile.
        offset: the column of row 0's own pair.
        image_ids, caption_ids: (columns,), as in [`GlobalBatch`].
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
                    mask = same_content(numbers, others, self.image_ids, self.caption_ids)
                    tile.masked_fill_(mask, float("-inf"))
                first = row + self.offset
                begin, end = max(first, column), min(first + len(numbers), column + len(others))
                own = torch.arange(begin, max(begin, end), device=tile.device)
                yield rows, columns, tile, (own - first, own - column)


def widened(embeds: Tensor) -> Tensor:
    return embeds.to(torch.promote_types(embeds.dtype, torch.float32))


def scale_by(embeds: Tensor, logit_scale: Tensor) -> Tensor:
    wide = widened(embeds)
    return logit_scale.to(wide.dtype).exp() * wide


def add_products(
    grads: tuple[Tensor, Tensor], share: Tensor, scaled: Tensor, wide: Tensor, rows: slice, columns: slice
) -> None:
    """What one tile's gradient, (rows, columns), says to its queries and to its candidates."""
    grads[0][rows].addmm_(share, wide[columns])
    grads[1][columns].addmm_(share.T, scaled[rows])


def to_inputs(
    grads: Sequence[Tensor], grad: Tensor, queries: Tensor, candidates: Tensor, logit_scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The chain rule through the scaling of the queries and through what became of the loss, `grad`."""
    query_grad = grads[0].mul_(grad * logit_scale.to(grad.dtype).exp())  # in place: they are as large as the batch
    candidate_grad = grads[1].mul_(grad)
    # A logit's derivative by the log of the scale is the logit itself (less the bias), a query · its candidate.
    scale_grad = (query_grad * queries).sum(dtype=torch.float64).expand_as(logit_scale)
    return query_grad.to(queries.dtype), candidate_grad.to(candidates.dtype), scale_grad.to(logit_scale.dtype)


__all__ = ["Tiles", "add_products", "scale_by", "tiles_of", "to_inputs", "widened"]
