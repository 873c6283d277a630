"""The sources of towers; one of one's own joins them."""

from collections.abc import Mapping

from ...core.public import FROM_SCRATCH
from .hub import Hub
from .resnets import ResNets
from .source import TowerSource
from .timm_towers import Timm
from .torchvision_towers import Torchvision

# Asked in this order: the Hub takes what no other has.
SOURCES: list[TowerSource] = [ResNets(), Timm(), Torchvision(), Hub()]


def register_tower_source(source: TowerSource) -> None:
    """Makes a source known by its prefix: to whatever opens towers by name, to help and errors, and to cards.

    Raises:
        ValueError: its prefix is another's, or none.
    """
    prefix = source.prefix
    if not prefix.endswith("/") or prefix in ("/", "./", "../", FROM_SCRATCH):
        raise ValueError(f"the prefix {prefix!r} tells no tower from a folder: give one such as 'mine/'")
    others = [other for other in SOURCES if type(other) is not type(source)]
    taken = [other.prefix for other in others if other.prefix]
    if any(prefix.startswith(other) or other.startswith(prefix) for other in taken):
        raise ValueError(f"there is a source of towers {prefix!r} already: give the new one a prefix of its own")
    SOURCES[:] = [source, *others]


def find_tower_source(name: str, side: str) -> tuple[TowerSource, str, bool]:
    """
    Args:
        name: of a tower, as a user gives it.
        side: "vision" or "text", of which the tower is to be.

    Returns:
        (its source, its name there, whether its weights are to be the pretrained ones).
    """
    full = name.removeprefix(FROM_SCRATCH)
    pretrained = full == name
    source = next(each for each in SOURCES if side in each.names and each.holds(full, pretrained))
    return source, full.removeprefix(source.prefix), pretrained


def tower_names(side: str) -> str:
    """How the names of the towers of a side look, in words."""
    *first, last = [source.names[side] for source in (SOURCES[-1], *SOURCES[:-1]) if side in source.names]
    return f"{', '.join(first)} or {last}" if first else last


def repository_of(name: str, side: str, config: Mapping[str, object]) -> str | None:
    """The Hub repository of a tower's pretrained weights; None: it has none of these, or not from there.

    Args:
        config: the tower's, as `config.json` has it.
    """
    source, _, pretrained = find_tower_source(name, side)
    return source.repository(name, config) if pretrained else None
