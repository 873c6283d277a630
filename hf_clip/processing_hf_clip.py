"""The processor: an image processor and a tokenizer under one name."""

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs

from .configuration_hf_clip import copy_code

PADDINGS = ("longest", "max_length")


class HFClipProcessor(ProcessorMixin):
    """Turns pictures into `pixel_values` and captions into `input_ids`; saved and loaded as one.

    Args:
        image_processor: any image processor of transformers; it is the evaluation transform of the model.
        tokenizer: any tokenizer of transformers.
        padding: "longest" pads texts to the longest of them; "max_length" always to `max_length` tokens, which a
            text tower wants that was trained so (SigLIP).
        max_length: texts are cut after so many tokens. `None`: the tokenizer's own limit, which cuts nothing here.

    Called with texts, it pads and cuts by this policy unless the call says otherwise.

    Raises:
        ValueError: for a padding that does not exist, or a fixed length without the length.
    """

    valid_processor_kwargs = ProcessingKwargs

    def __init__(
        self, image_processor=None, tokenizer=None, padding: str = "longest", max_length: int | None = None, **kwargs
    ):
        if padding not in PADDINGS:
            raise ValueError(f"unknown padding {padding!r}: choose one of {', '.join(PADDINGS)}")
        if padding == "max_length" and max_length is None:
            raise ValueError("padding 'max_length' needs max_length: how many tokens")
        super().__init__(image_processor, tokenizer, **kwargs)
        self.padding = padding
        self.max_length = max_length

    def __call__(self, images=None, text=None, **kwargs):
        if text is not None:
            said = {**kwargs, **kwargs.get("text_kwargs", {}), **kwargs.get("common_kwargs", {})}
            kwargs |= {name: value for name, value in self.text_policy().items() if name not in said}
        return super().__call__(images=images, text=text, **kwargs)

    def text_policy(self) -> dict[str, Any]:
        """The tokenizer's arguments that pad and cut as the text tower expects."""
        if self.max_length is None:
            return {"padding": self.padding}
        return {"padding": self.padding, "truncation": True, "max_length": self.max_length}

    @classmethod
    def from_vision_text_pretrained(
        cls, vision_model_name_or_path: str, text_model_name_or_path: str, **kwargs
    ) -> "HFClipProcessor":
        """The processor of two towers: the one's image processor and the other's tokenizer (Hub ids or folders)."""
        return cls(
            image_processor=AutoImageProcessor.from_pretrained(vision_model_name_or_path),
            tokenizer=AutoTokenizer.from_pretrained(text_model_name_or_path),
            **kwargs,
        )

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Saves image processor and tokenizer, and the code that opens them where hf_clip is not installed."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        copy_code(save_directory)
        if self._auto_class is not None:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        self.auto_map = {"AutoProcessor": "processing_hf_clip.HFClipProcessor"}
        try:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        finally:
            del self.auto_map  # part of the saved file alone: a loaded processor equals the one that was saved


__all__ = ["HFClipProcessor"]
