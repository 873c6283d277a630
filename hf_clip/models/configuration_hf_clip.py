"""The configuration of a CLIP made of any text tower and any image tower."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from .loss_hf_clip import LOSS_SETTINGS, PROBABILITIES, Loss
from .losses_hf_clip import LOSSES, find_loss
from .pipelines_hf_clip import register_pipelines
from .remote_code_hf_clip import copy_code, name_classes

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11, where a saved folder may be opened with an older one

POOLINGS = ("cls", "mean", "last", "pooler")
PROJECTIONS = ("linear", "mlp", "none")

# What the tower was trained to give, or its heads were trained on. Anything else: for text the last token of a causal
# language model and the mean over tokens of an encoder, for images the tower's own pooler.
_TEXT_POOLING = dict.fromkeys(
    ("altclip_text_model", "clip_text_model", "clipseg_text_model", "siglip_text_model", "siglip2_text_model"),
    "pooler",
)
_TEXT_POOLING |= dict.fromkeys(("blip_text_model", "chinese_clip_text_model", "align_text_model"), "cls")
_VISION_POOLING = dict.fromkeys(
    ("cvt", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit", "vit_mae", "vit_msn"), "cls"
)
# These have no pooler.
_VISION_POOLING |= dict.fromkeys(
    (
        "data2vec-vision", "glpn", "hgnet_v2", "ijepa", "poolformer", "pvt", "pvt_v2", "segformer",
        "swiftformer",
    ),
    "mean",
)  # fmt: skip


def _text_pooling(config: PreTrainedConfig) -> str:
    name = config.model_type
    causal = name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and name not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return _TEXT_POOLING.get(name, "last" if causal and not config.is_encoder_decoder else "mean")


@strict
class HFClipConfig(PreTrainedConfig):
    """What an [`HFClipModel`] is made of.

    Args:
        text_config, vision_config: the towers' configurations (objects, or dicts with a `model_type`); default BERT
            and ResNet-50.
        projection_dim: width of the shared embedding space.
        text_pooling, vision_pooling: how a tower's output becomes one vector: "cls", "mean", "last" or "pooler"
            (the tower's own). `None` picks what suits the tower.
        projection: "linear" (no bias, as in CLIP), "mlp" (linear, GELU, linear) or "none" (the towers' widths must
            then be equal to `projection_dim`).
        loss: "infonce" (CLIP's softmax over the batch), "sigmoid" (SigLIP's, with a learnable `logit_bias`), or the
            name of a loss of one's own: `HFClipConfig(**loss.settings())` has all that opening it without the loss
            needs.
        probabilities: "softmax" (a probability is shared out among the candidates) or "sigmoid" (each has its own);
            default: as the loss has it.
        logit_scale_init_value: log of 1/temperature at the start; default: as the loss has it.
        logit_scale_max: log of the largest 1/temperature; training clamps after each step. `None`: no cap. "default":
            as the loss has it.
        logit_bias_init_value: where the bias starts, of a loss that has one; `None`: there is no bias.
        text_width, vision_width: widths of the pooled tower outputs; measured when the model is first built.
        text_unused, vision_unused: which parameters of a tower its pooled output does not depend on, and a digest of
            the tower and pooling that this was measured for; measured anew where they are no longer those.

    Raises:
        ValueError: for a pooling, projection or loss that does not exist, naming those that do; for probabilities that
            contradict the loss, or a cap that is no number.
    """

    model_type = "hf_clip"
    sub_configs_defaults: ClassVar[dict] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="resnet"),
    }
    auto_classes: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_hf_clip.HFClipConfig",
        "AutoProcessor": "processing_hf_clip.HFClipProcessor",
    }
    # Where no model has said that the configuration is its own.
    model_classes: ClassVar[dict[str, str]] = {
        "AutoModel": "modeling_hf_clip.HFClipModel",
        "AutoModelForZeroShotImageClassification": "modeling_hf_clip.HFClipModel",
    }
    # Not gathered by the Trainer's prediction loop: in-batch logits and the towers' token or pixel grids.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "logits_per_image",
        "logits_per_text",
        "text_model_output",
        "vision_model_output",
    ]

    text_config: Any = None
    vision_config: Any = None
    projection_dim: int = 512
    text_pooling: str | None = None
    vision_pooling: str | None = None
    projection: str = "linear"
    loss: str = "infonce"
    probabilities: str | None = None
    logit_scale_init_value: int | float | None = None
    logit_scale_max: int | float | str | None = "default"
    logit_bias_init_value: int | float | None = None
    text_width: int | None = None
    vision_width: int | None = None
    text_unused: dict[str, Any] | None = None
    vision_unused: dict[str, Any] | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.text_pooling = self.text_pooling or _text_pooling(self.text_config)
        self.vision_pooling = self.vision_pooling or _VISION_POOLING.get(self.vision_config.model_type, "pooler")
        self._fill_in_loss()
        choices = {"text_pooling": POOLINGS, "vision_pooling": POOLINGS, "projection": PROJECTIONS}
        choices |= {"probabilities": tuple(PROBABILITIES)}
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise ValueError(f"unknown {field} {getattr(self, field)!r}: choose one of {', '.join(known)}")

    def _fill_in_loss(self) -> None:
        """What is not said is as the loss has it; of one that is not here its temperature is by default CLIP's."""
        known = find_loss(self.loss) if self.probabilities is None else LOSSES.get(self.loss)
        usual = Loss if known is None else known
        self._check_probabilities()
        self.probabilities = self.probabilities or usual.probabilities
        if self.logit_scale_init_value is None:
            self.logit_scale_init_value = usual.logit_scale_init_value
        if self.logit_scale_max == "default":
            self.logit_scale_max = usual.logit_scale_max
        if isinstance(self.logit_scale_max, str):
            raise ValueError(f"logit_scale_max is {self.logit_scale_max!r}: give a number, or None for no cap")
        if known and known.logit_bias_init_value is None:
            self.logit_bias_init_value = None  # older versions saved a value for it all the same
        elif self.logit_bias_init_value is None:
            self.logit_bias_init_value = usual.logit_bias_init_value

    def _check_probabilities(self) -> None:
        known = LOSSES.get(self.loss)
        if known and self.probabilities not in (None, known.probabilities):
            raise ValueError(
                f"probabilities {self.probabilities!r} contradict the loss {self.loss}, whose are "
                f"{known.probabilities!r}: give the loss alone, to a model with use_loss, and a loss of your own "
                "another name"
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As of any configuration; with another `loss` among `kwargs`, also its settings are no longer those saved."""
        saved = config_dict.get("loss", cls.loss)
        if kwargs.get("loss", saved) != saved:
            kept = {name: value for name, value in config_dict.items() if name not in LOSS_SETTINGS}
            config_dict = kept | {name: kwargs.pop(name) for name in ("loss", *LOSS_SETTINGS) if name in kwargs}
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def from_vision_text_configs(
        cls, vision_config: PreTrainedConfig, text_config: PreTrainedConfig, **kwargs: Any
    ) -> "Self":
        """The configuration of the pair; `kwargs` are further fields."""
        return cls(vision_config=vision_config.to_dict(), text_config=text_config.to_dict(), **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As of any configuration; of a tower that was opened from a folder it does not tell which."""
        fields = super().to_dict()
        for side in ("text_config", "vision_config"):
            name = fields[side].get("_name_or_path") or ""
            if Path(name).is_absolute() or (name and Path(name).exists()):
                del fields[side]["_name_or_path"]
        return fields

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Saves `config.json` with its `auto_map`, and the code that the map names beside it.

        `PreTrainedModel.save_pretrained` calls this, so every saved model carries its code. A subclass that
        registered itself (`register_for_auto_class`) keeps its own entry in the map.

        Raises:
            ValueError: it could not be opened again.
        """
        self._check_probabilities()
        classes = dict(self.auto_classes)
        if "AutoModel" not in (getattr(self, "auto_map", None) or {}):
            classes |= self.model_classes
        name_classes(self, classes)
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        copy_code(save_directory, self)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)


register_pipelines()  # a pipeline reads the configuration first of all, then looks up its class

__all__ = ["HFClipConfig"]
