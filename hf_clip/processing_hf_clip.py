"""The processor: an image processor and a tokenizer under one name."""

from pathlib import Path

from transformers import AutoImageProcessor, AutoTokenizer, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs

from .configuration_hf_clip import copy_code


class HFClipProcessorKwargs(ProcessingKwargs, total=False):
    """Texts of unequal length are padded to the longest unless the caller says otherwise."""

    _defaults = {"text_kwargs": {"padding": True}}  # type: ignore[misc]


class HFClipProcessor(ProcessorMixin):
    """Turns pictures into `pixel_values` and captions into `input_ids`; saved and loaded as one.

    Args:
        image_processor: any image processor of transformers; it is the evaluation transform of the model.
        tokenizer: any tokenizer of transformers.
    """

    valid_processor_kwargs = HFClipProcessorKwargs

    def __init__(self, image_processor=None, tokenizer=None, **kwargs):
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def from_vision_text_pretrained(cls, vision_model_name_or_path: str, text_model_name_or_path: str):
        """The processor of two towers: the one's image processor and the other's tokenizer (Hub ids or folders)."""
        return cls(
            image_processor=AutoImageProcessor.from_pretrained(vision_model_name_or_path),
            tokenizer=AutoTokenizer.from_pretrained(text_model_name_or_path),
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
