"""The sources of towers; one of one's own joins them."""

from collections.abc import Mapping

from ...core.errors import InputError
from ...core.public import FROM_SCRATCH
from .hub import Hub
from .resnets import ResNets
from .source import TowerSource
from .timm_towers import Timm
from .torchvision_towers import Torchvision

# Asked in this order: the Hub takes what no other has.
SOURCES: list[TowerSource] = [ResNets(), Timm(), Torchvision(), Hub()]
_OWN = tuple(SOURCES)  # of hf_clip, which none replaces

_OPENED_BY = {"vision": "open_image_tower", "text": "open_text_tower"}
_TOWERS = {"vision": "image towers", "text": "text towers"}


def register_tower_source(source: TowerSource) -> None:
    """Makes a source known by its prefix: to whatever opens towers by name, to help and errors, and to cards. One of
    your own with the same prefix is replaced.

    Raises:
        ValueError: its prefix is another's, or none; it names no side, or one of which it opens no towers.
    """
    _check_sides(source)
    prefix = source.prefix
    if not prefix.endswith("/") or prefix in ("/", "./", "../", FROM_SCRATCH):
        raise ValueError(f"the prefix {prefix!r} tells no tower from a folder: give one such as 'mine/'")
    others = [other for other in SOURCES if other.prefix != prefix or other in _OWN]
    taken = [other.prefix for other in others if other.prefix]
    if any(prefix.startswith(other) or other.startswith(prefix) for other in taken):
        raise ValueError(f"there is a source of towers {prefix!r} already: give the new one a prefix of its own")
    SOURCES[:] = [source, *others]


def _check_sides(source: TowerSource) -> None:
    if not source.names or source.names.keys() - _OPENED_BY.keys():
        raise ValueError(
            f"{type(source).__name__}.names has the sides {list(source.names)}: give 'vision', 'text' or both"
        )
    for side in source.names:
        method = _OPENED_BY[side]
        if getattr(type(source), method) is getattr(TowerSource, method):
            raise ValueError(
                f"{type(source).__name__}.names has {side!r}, of which it opens no towers: give it {method}"
            )


def find_tower_source(name: str, side: str) -> tuple[TowerSource, str, bool]:
    """
    Args:
        name: of a tower, as a user gives it.
        side: "vision" or "text", of which the tower is to be.

    Returns:
        (its source, its name there, whether its weights are to be the pretrained ones).

    Raises:
        InputError: its source has no towers of this side.
    """
    source, full, pretrained = _source_of(name, side)
    if side not in source.names:
        has = " and ".join(_TOWERS[each] for each in source.names)
        raise InputError(f"{name!r} is of a source that has {has} only: give {tower_names(side)}")
    return source, full.removeprefix(source.prefix), pretrained


def _source_of(name: str, side: str) -> tuple[TowerSource, str, bool]:
    """(source, name without "scratch/", whether there was none); what begins with a source's prefix is of that one,
    whatever sides it has."""
    full = name.removeprefix(FROM_SCRATCH)
    pretrained = full == name
    asked = [each for each in SOURCES if each.prefix or side in each.names]
    return next(each for each in asked if each.holds(full, pretrained)), full, pretrained


def tower_names(side: str) -> str:
    """How the names of the towers of a side look, in words."""
    *first, last = [source.names[side] for source in (SOURCES[-1], *SOURCES[:-1]) if side in source.names]
    return f"{', '.join(first)} or {last}" if first else last


def repository_of(name: str, side: str, config: Mapping[str, object]) -> str | None:
    """The Hub repository of a tower's pretrained weights; None: it has none of these, or not from there.

    Args:
        config: the tower's, as `config.json` has it.
    """
    source, _, pretrained = _source_of(name, side)
    return source.repository(name, config) if pretrained and side in source.names else None
