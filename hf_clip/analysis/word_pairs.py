"""Pairs of opposite prompts, such as "a happy face" and "a sad face": read, and embedded."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from ..core.errors import InputError
from ..embeddings.encode import embed_prompts
from ..evaluation.prompts import cut_note
from ..models.modeling_hf_clip import HFClipModel
from ..models.processing_hf_clip import HFClipProcessor

WordPair = tuple[str, str]
Pairs: TypeAlias = str | Path | Sequence[str | Path | WordPair]


def read_pairs(values: Pairs) -> list[WordPair]:
    """Pairs of opposite prompts, each once.

    Args:
        values: pairs, which are taken as they are; texts with one / between the two, or .txt files with such a text a
            line.

    Raises:
        InputError: a pair without two different sides, with the line of its file.
    """
    pairs: list[WordPair] = []
    for value in [values] if isinstance(values, str | Path) else values:
        if isinstance(value, Path) or (isinstance(value, str) and value.endswith(".txt")):
            pairs += [_split(line, f"{value}: line {number}: ") for number, line in _lines(str(value))]
        elif isinstance(value, str):
            pairs.append(_split(value, "pairs "))
        else:
            pairs.append(_checked(value))
    return list(dict.fromkeys(pairs))


def _lines(file: str) -> list[tuple[int, str]]:
    """(number, line) of those that are not empty."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"pairs file {file!r} cannot be read: {error}") from error
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InputError(f"pairs file {file!r} is empty: write a pair a line, such as 'a happy face / a sad face'")
    return found


def _split(text: str, where: str) -> WordPair:
    sides = [side.strip() for side in text.split("/")]
    if len(sides) != 2 or not all(sides) or sides[0] == sides[1]:
        raise InputError(
            f"{where}{text.strip()!r} is not two opposites with one / between them, such as "
            "'a happy face / a sad face'"
        )
    return sides[0], sides[1]


def _checked(pair: object) -> WordPair:
    sides = list(pair) if isinstance(pair, list | tuple) else []
    if len(sides) != 2 or not all(isinstance(side, str) and side.strip() for side in sides) or sides[0] == sides[1]:
        raise InputError(f"pairs {pair!r} is not two opposites, such as ('a happy face', 'a sad face')")
    return sides[0], sides[1]


def embed_pairs(
    model: HFClipModel, processor: HFClipProcessor, pairs: Sequence[WordPair]
) -> tuple[Tensor | None, list[str]]:
    """(pairs, 2, dim), or None without pairs, and how many of the prompts were cut.

    Raises:
        InputError: two sides that are the same tokens to the text tower: every image would have ½.
    """
    if not pairs:
        return None, []
    prompts = [prompt for pair in pairs for prompt in pair]
    embeds, ids, cut = embed_prompts(model, processor, prompts)
    for pair, (one, other) in zip(pairs, ids.unflatten(0, (-1, 2)).tolist(), strict=True):
        if one == other:
            raise InputError(f"pairs {' / '.join(pair)!r}: the model reads both sides as the same: use other words")
    return embeds.unflatten(0, (-1, 2)), [f"{note}." for note in cut_note(prompts, cut.tolist())]
