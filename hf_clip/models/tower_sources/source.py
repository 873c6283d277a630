"""A place that towers come from, as one object: how its names look, and how one of its towers is opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class ImageTower:
    """
    Args:
        model: in fp32; called with `pixel_values`, gives a `last_hidden_state` and, where it has one, a
            `pooler_output`; of a class that transformers can save and open again.
        image_processor: how its images are prepared.
        pooling: as in [`HFClipConfig`], that it was trained with; None: what suits its type.
    """

    model: PreTrainedModel
    image_processor: BaseImageProcessor
    pooling: str | None = None


@dataclass
class TextTower:
    """
    Args:
        model: as of an image tower, but called with `input_ids` and, where there is padding, `attention_mask`.
        tokenizer: the one that it was trained with.
        pooling: as of an image tower.
        max_length: after how many tokens the texts that it learned from were cut, where that is known.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: str | None = None
    max_length: int | None = None


class TowerSource:
    """Overridden for each: `prefix`, `names`, and how it opens a tower of each side that `names` has.

    Attributes:
        prefix: begins the names of its towers, with a slash at its end ("timm/"); `open_…` get what follows it.
        names: side ("vision" or "text") → how such names look, in help and errors; a side that it has no towers of is
            not among them.
    """

    prefix: ClassVar[str]
    names: ClassVar[Mapping[str, str]]

    def holds(self, name: str, pretrained: bool) -> bool:
        """Whether a name is of this source.

        Args:
            name: in full, without the "scratch/" that asks for random weights.
            pretrained: whether there was none.
        """
        return name.startswith(self.prefix) and not Path(name).is_dir()

    def open_image_tower(self, name: str, *, pretrained: bool, pooling: str | None) -> ImageTower:
        """
        Args:
            name: without the prefix.
            pretrained: False asks for random weights.
            pooling: that the user asks for; one whose class has a pooler may leave it out where it is not used.

        Raises:
            InputError, ValueError, ImportError, OSError: it cannot be opened, with the choices there are: all become
                one line that names the setting.
        """
        raise NotImplementedError

    def open_text_tower(self, name: str, *, pretrained: bool, pooling: str | None) -> TextTower:
        """As [`~TowerSource.open_image_tower`]."""
        raise NotImplementedError

    def repository(self, name: str, config: Mapping[str, object]) -> str | None:
        """The Hub repository of a tower's pretrained weights, which cards link and name as a base; None: they lie
        elsewhere.

        Args:
            name: in full.
            config: the tower's, as `config.json` has it.
        """
        return None
