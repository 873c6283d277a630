"""The processor: an image processor and a tokenizer under one name."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import contextlib
import os
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.image_utils import ImageInput
from transformers.processing_utils import ProcessingKwargs

from .pipelines_hf_clip import open_image
from .remote_code_hf_clip import copy_code

PADDINGS = ("longest", "max_length")

# Text towers that were trained on texts padded to a fixed length, and to read the padding.
FIXED_LENGTH = {"siglip_text_model": 64, "siglip2_text_model": 64}


def fixed_length(tower: PreTrainedConfig) -> int | None:
    """To how many tokens every text is padded that a text tower of this configuration reads; `None`: to no number."""
    length = FIXED_LENGTH.get(tower.model_type)
    return None if length is None else min(length, tower.max_position_embeddings)


def tokenizer_limit(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many tokens a text may have by its tokenizer; `None` where it knows no limit, which it writes as 1e30."""
    return int(tokenizer.model_max_length) if tokenizer.model_max_length < 1e9 else None


class HFClipProcessorKwargs(ProcessingKwargs, total=False):
    """Texts of unequal length are padded to the longest unless the processor or the caller says otherwise."""

    _defaults = {"text_kwargs": {"padding": True}}  # type: ignore[misc]


class HFClipProcessor(ProcessorMixin):
    """Turns images into `pixel_values` and captions into `input_ids`; saved and loaded as one.

    Images that Pillow opened, files and addresses are made 8-bit sRGB as in training: upright, transparency on white,
    deep pixels at their contrast. Arrays and tensors are taken as they are.

    Args:
        image_processor: any image processor of transformers; it is the evaluation transform of the model.
        tokenizer: any tokenizer of transformers.
        text_padding: "longest" pads texts to the longest of them; "max_length" always to `max_text_length` tokens,
            which a text tower wants that was trained so (SigLIP).
        max_text_length: texts are cut after so many tokens; default: after as many as the tokenizer says it may give.

    Called with texts, it pads and cuts by this policy unless the call says otherwise.

    Raises:
        ValueError: for a padding that does not exist, or a fixed length without the length.
    """

    valid_processor_kwargs = HFClipProcessorKwargs

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_padding: str = "longest",
        max_text_length: int | None = None,
        **kwargs: Any,
    ):
        if text_padding not in PADDINGS:
            raise ValueError(f"unknown text_padding {text_padding!r}: choose one of {', '.join(PADDINGS)}")
        if text_padding == "max_length" and max_text_length is None:
            raise ValueError("text_padding 'max_length' needs max_text_length: how many tokens")
        super().__init__(image_processor, tokenizer, **kwargs)
        self.text_padding = text_padding
        self.max_text_length = max_text_length

    def __call__(  # type: ignore[override]
        self, images: ImageInput | None = None, text: str | list[str] | None = None, **kwargs: Any
    ) -> BatchFeature:
        # What sentence-transformers calls max_seq_length is the tokenizer's.
        limits = [limit for limit in (self.max_text_length, tokenizer_limit(self.tokenizer)) if limit is not None]
        if text is not None and limits:
            length = min(limits)
            policy = {"padding": self.text_padding, "truncation": True, "max_length": length}
            said = {**kwargs, **kwargs.get("text_kwargs", {}), **kwargs.get("common_kwargs", {})}
            kwargs |= {name: value for name, value in policy.items() if name not in said}
        return super().__call__(images=_open_all(images), text=text, **kwargs)

    @classmethod
    def from_vision_text_pretrained(
        cls, vision_model_name_or_path: str, text_model_name_or_path: str, **kwargs: Any
    ) -> "HFClipProcessor":
        """The processor of two towers: the one's image processor and the other's tokenizer (Hub ids or folders); texts
        are padded as the text tower was trained, unless `kwargs` say otherwise."""
        length = None
        with contextlib.suppress(OSError, ValueError):  # a tokenizer alone, or a tower that transformers does not know
            text = AutoConfig.from_pretrained(text_model_name_or_path, trust_remote_code=False)
            length = fixed_length(getattr(text, "text_config", None) or text)
        if length is not None:
            kwargs = {"text_padding": "max_length", "max_text_length": length} | kwargs
        return cls(
            image_processor=AutoImageProcessor.from_pretrained(vision_model_name_or_path),
            tokenizer=AutoTokenizer.from_pretrained(text_model_name_or_path),
            **kwargs,
        )

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Saves image processor and tokenizer, and the code that opens them where hf_clip is not installed."""
        if self._auto_class is not None:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self.auto_map = {"AutoProcessor": "processing_hf_clip.HFClipProcessor"}
        try:
            copy_code(save_directory, self)
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        finally:
            del self.auto_map  # part of the saved file alone: a loaded processor equals the one that was saved


def _open_all(images):
    return [_open_all(image) for image in images] if isinstance(images, (list, tuple)) else open_image(images)


__all__ = ["HFClipProcessor"]
