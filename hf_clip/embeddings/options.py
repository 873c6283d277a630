"""How a model is passed over data: the settings that every embedding pass shares."""

from dataclasses import dataclass

from ..core.counts import check_count


@dataclass(frozen=True)
class EmbedOptions:
    """
    Args:
        batch_size: images embedded at a time.
        num_workers: processes that decode images; 0: this one does.
        strict: whether the first image that cannot be read ends the pass; else it is skipped, counted and named.
        progress: whether a bar on stderr shows how far it is.

    Raises:
        InputError: a number that cannot be.
    """

    batch_size: int = 64
    num_workers: int = 0
    strict: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_workers", 0)):
            check_count(name, getattr(self, name), least)
