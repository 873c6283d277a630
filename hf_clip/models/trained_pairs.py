"""Opens a pair that hf_clip trained: a whole one, or a PEFT adapter over one."""

from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME, is_peft_available
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..core.errors import InputError, first_line
from .configuration_hf_clip import HFClipConfig
from .modeling_hf_clip import HFClipModel
from .processing_hf_clip import HFClipProcessor
from .reading import load_with_report, read_json, without_load_report


def open_trained_pair(folder: str) -> tuple[HFClipModel, HFClipProcessor]:
    """The model, on the CPU and in evaluation mode, and its processor, both as they were saved.

    Args:
        folder: a folder or Hub id that hf_clip wrote, or a PEFT adapter over one, which is merged into it.

    Raises:
        InputError: it is damaged, or no HFClip.
    """
    try:
        with without_load_report():
            base = _adapted_model(folder) or folder
            config = PreTrainedConfig.get_config_dict(base)[0]
            if config.get("model_type") != HFClipConfig.model_type:
                raise ValueError(f"it holds a {config.get('model_type')} model")
            model, loaded = load_with_report(HFClipModel, base)
            if unusable := len(loaded["missing_keys"]) + len(loaded["mismatched_keys"]):
                raise ValueError(f"{unusable} of its weights are missing or of another size")
            if base != folder:
                model = _merge_adapter(model, folder)
            return model, HFClipProcessor.from_pretrained(folder)
    except (AttributeError, NameError):  # faults of a program, not of a folder
        raise
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        raise InputError(
            f"model {folder!r} cannot be opened: give the folder or Hub id of a model that hf_clip trained "
            f"({first_line(error)})"
        ) from error


def _adapted_model(folder: str) -> str | None:
    """What a PEFT adapter was trained over; `None` for a whole model."""
    base = read_json(folder, ADAPTER_CONFIG_NAME).get("base_model_name_or_path")
    return None if base and read_json(folder, CONFIG_NAME) else base


def _merge_adapter(model: HFClipModel, folder: str) -> HFClipModel:
    """The model with an adapter's changes in its own weights: trained on and saved like any other."""
    if not is_peft_available():
        raise ValueError('it is a PEFT adapter: pip install "hf_clip[peft]"')
    from peft import PeftModel

    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    adapted: Any = PeftModel.from_pretrained(model, folder)
    merged = adapted.merge_and_unload()
    for name, parameter in merged.named_parameters():
        parameter.requires_grad_(trainable[name])
    merged.name_or_path = merged.config.name_or_path = ""  # an adapter over these weights is none over the base
    return merged.eval()
