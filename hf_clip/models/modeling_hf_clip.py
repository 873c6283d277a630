"""A text tower and an image tower, each with a projection, into one embedding space (CLIP, arXiv:2103.00020)."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
from transformers.models.clip.modeling_clip import CLIPTextModelOutput, CLIPVisionModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_hf_clip import HFClipConfig
from .loss_hf_clip import contrastive_loss, score, sigmoid_loss

# Residual blocks of the convolutional towers that transformers does not checkpoint itself.
_CHECKPOINTED_BLOCKS = {
    "ResNetBasicLayer",
    "ResNetBottleNeckLayer",
    "RegNetXLayer",
    "RegNetYLayer",
    "ConvNextLayer",
    "ConvNextV2Layer",
    "CvtLayer",
    "DINOv3ConvNextLayer",
    "EfficientNetBlock",
    "LevitResidualLayer",
    "MobileNetV1ConvLayer",
    "MobileNetV2InvertedResidual",
    "MPNetLayer",
    "PoolFormerLayer",
}
# Towers that were trained on texts padded to a fixed length, and to read the padding.
_READS_PADDING = {"siglip_text_model", "siglip2_text_model"}


@dataclass
class HFClipOutput(ModelOutput):
    """What [`HFClipModel`] returns.

    Args:
        loss: scalar, with `return_loss=True`.
        logits_per_image: (images, texts), exp(logit_scale) · cosine (+ logit_bias), fp32.
        logits_per_text: (texts, images), its transpose.
        text_embeds: (texts, projection_dim), unit length.
        image_embeds: (images, projection_dim), unit length.
        logit_scale: (1,), log of 1/temperature, fp32; a loss outside `forward` trains the parameter through it. `None`
            where only texts or only images were given.
        logit_bias: (1,), fp32, the same, of a model with the sigmoid loss; `None` of any other.
        text_model_output, vision_model_output: what the towers gave, `pooler_output` being the projected embedding
            before it is normalised.
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    logit_scale: Tensor | None = None
    logit_bias: Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(v.to_tuple() if isinstance(v, ModelOutput) else v for v in self.values())


class HFClipPreTrainedModel(PreTrainedModel):
    """What the three model classes share: initialisation, attention, checkpointing."""

    config: HFClipConfig
    base_model_prefix = "hf_clip"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    # The towers choose their own attention; these say that a choice may be passed on to them.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # exp() of a half-precision temperature moves in steps of 0.4 at 100.
    _keep_in_fp32_modules_strict = ["logit_scale"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises what is not a tower's: each tower's modules are left to the tower's own `_init_weights`."""
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, HFClipModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
            if module.logit_bias is not None:
                init.constant_(module.logit_bias, self.config.logit_bias_init_value)

    def post_init(self) -> None:
        super().post_init()
        # A block that `device_map` laid over two devices would add up tensors of both.
        blocks = {type(block).__name__ for tower in self._towers() for block in repeated_blocks(tower)}
        self._no_split_modules = set(self._no_split_modules) | blocks

    @property
    def dtype(self) -> torch.dtype:
        """That of the towers: the temperature, the first of the parameters, is fp32 in any precision."""
        towers = self._towers()
        return towers[0].dtype if towers else super().dtype

    def _towers(self) -> list[PreTrainedModel]:
        return [module for module in self.children() if isinstance(module, PreTrainedModel)]

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As of any model of transformers; what a tower has but never uses comes out frozen."""
        loaded = super().from_pretrained(*args, **kwargs)
        for tower in (loaded[0] if isinstance(loaded, tuple) else loaded)._towers():
            _freeze_unused(tower)
        return loaded

    def enable_input_require_grads(self) -> None:
        """As transformers does it, also where a tower's embeddings come in a tuple (Swin)."""

        def require_grads(module: nn.Module, inputs: Any, output: Any) -> None:
            (output[0] if isinstance(output, tuple) else output).requires_grad_(True)

        self._require_grads_hooks = []
        for tower in self._towers():
            with contextlib.suppress(NotImplementedError):
                embeddings = tower.get_input_embeddings()
                if isinstance(embeddings, nn.Module):
                    self._require_grads_hooks.append(embeddings.register_forward_hook(require_grads))

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable = checkpoint, every_n_layers: int = 1
    ) -> None:
        """Checkpoints every block of every tower, with BatchNorm statistics untouched by the recomputation."""
        for tower in self._towers():
            if not tower.supports_gradient_checkpointing:
                _make_blocks_checkpointable(tower)
            for module in tower.modules():
                if isinstance(module, _BatchNorm) and not isinstance(module, _CountsABatchOnce):
                    module.__class__ = _subclass(_CountsABatchOnce, type(module))  # type: ignore
            tower._set_gradient_checkpointing(
                enable=enable, gradient_checkpointing_func=gradient_checkpointing_func, every_n_layers=every_n_layers
            )


def _make_blocks_checkpointable(tower: PreTrainedModel) -> None:
    """Turns the residual blocks of a tower into transformers' checkpointing layers.

    Their class is exchanged for a subclass of the same name, so weights, names and hooks stay as they are.
    """
    blocks = [module for module in tower.modules() if type(module).__name__ in _CHECKPOINTED_BLOCKS]
    if not blocks:
        raise ValueError(
            f"{type(tower).__name__} does not support gradient checkpointing: freeze this tower or train without"
        )
    for block in blocks:
        if not isinstance(block, GradientCheckpointingLayer):
            block.__class__ = _subclass(GradientCheckpointingLayer, type(block))  # type: ignore


def repeated_blocks(tower: PreTrainedModel) -> list[nn.Module]:
    """The blocks that a tower is a pile of, from its input to its output; none where transformers marks none."""
    return [
        module
        for module in tower.modules()
        if isinstance(module, GradientCheckpointingLayer) or type(module).__name__ in _CHECKPOINTED_BLOCKS
    ]


@functools.cache
def _subclass(addition: type[nn.Module], module_class: type[nn.Module]) -> type[nn.Module]:
    return type(module_class.__name__, (addition, module_class), {"__module__": module_class.__module__})


class _CountsABatchOnce(nn.Module):
    """Laid over a BatchNorm: a forward inside a backward pass is a recomputation, and moves no running statistics.

    A compiled model recomputes inside its own graph, where it moves none either.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
            return super().forward(*args, **kwargs)
        with statistics_moved([self]):  # type: ignore[list-item]
            return super().forward(*args, **kwargs)


@contextlib.contextmanager
def statistics_moved(norms: list[_BatchNorm], momentum: float = 0.0) -> Iterator[None]:
    """BatchNorm layers normalise by the batch and save the same tensors, but move their statistics by this momentum
    (0: not at all, 1: to those of the batch), and count no batch."""
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = momentum, None
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def _tower_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of a tower's configuration: the encoder alone, where transformers has it as a class (T5)."""
    classes = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None) or MODEL_MAPPING.get(type(config), None)
    if classes is None:  # half of a pair, which AutoModel does not build alone (SigLIP's text tower)
        classes = getattr(transformers, type(config).__name__.removesuffix("Config") + "Model", None)
    if classes is None:
        raise ValueError(f"transformers has no tower for the model type {config.model_type!r}")
    return classes[0] if isinstance(classes, (list, tuple)) else classes


def _encoder(model: PreTrainedModel) -> PreTrainedModel:
    """Of an encoder-decoder without such a class (BART), its encoder."""
    has_class = type(model.config) in MODEL_FOR_TEXT_ENCODING_MAPPING
    return model.get_encoder() if model.config.is_encoder_decoder and not has_class else model


def _tower_arguments(config: PreTrainedConfig, pooling: str) -> dict[str, bool]:
    """Leaves out a pooler that would never be used: under DDP its parameters would wait for gradients forever."""
    accepted = inspect.signature(_tower_class(config).__init__).parameters
    return {"add_pooling_layer": False} if pooling != "pooler" and "add_pooling_layer" in accepted else {}


def _new_tower(config: PreTrainedConfig, pooling: str) -> PreTrainedModel:
    tower_class = _tower_class(config)
    if not (tower_class._supports_sdpa or tower_class._supports_flash_attn):
        config._attn_implementation = "eager"  # a tower without attention refuses any other choice
    return _encoder(tower_class._from_config(config, **_tower_arguments(config, pooling)))


def build_tower(config: PreTrainedConfig, pooling: str) -> PreTrainedModel:
    return _without_unused(_new_tower(config, pooling), pooling)


def load_tower(
    name: str, side: str, config: PreTrainedConfig, pooling: str, **kwargs: Any
) -> tuple[PreTrainedModel, list[str]]:
    """A pretrained tower, and the names of its parameters that the checkpoint lacks.

    Of a checkpoint that holds both (CLIP, SigLIP, a trained HFClip), the tower of one `side`: "text" or "vision".
    """
    if tower_config(config, side) is config:
        arguments = _tower_arguments(config, pooling) | {"config": config} | kwargs
        opened: Any = _tower_class(config).from_pretrained(name, output_loading_info=True, **arguments)
        model, report = opened
        tower, prefix = _encoder(model), ""
    else:
        opened = AutoModel.from_pretrained(name, config=config, output_loading_info=True, **kwargs)
        model, report = opened
        tower, prefix = getattr(model, f"{side}_model", None), f"{side}_model."
        if not isinstance(tower, PreTrainedModel):
            raise ValueError(f"a {config.model_type} model has no {side} tower that stands alone")
    modules = {id(p) for p in _without_unused(tower, pooling).parameters() if p.requires_grad}
    lacking = [key for key, p in model.named_parameters() if key in report["missing_keys"] and id(p) in modules]
    return tower, [key.removeprefix(prefix) for key in lacking]


def tower_config(config: PreTrainedConfig, side: str) -> PreTrainedConfig:
    """The configuration of one side ("text" or "vision") of a checkpoint that holds both; else the whole."""
    return getattr(config, f"{side}_config", None) or config


def _without_unused(tower: PreTrainedModel, pooling: str) -> PreTrainedModel:
    """Drops a pooler that the pooling leaves unused, and freezes what else never gets a gradient (a mask token, a
    last norm beside the pooling, …): under DDP it would be waited for forever. Nothing is hidden from ViT-MAE, which
    leaves out three quarters of an image at random, in evaluation too, unless told otherwise."""
    if tower.config.model_type == "vit_mae":
        tower.config.mask_ratio = 0.0
    if _tower_arguments(tower.config, pooling) and getattr(tower, "pooler", None) is not None:
        tower.pooler = None
    example, pooled = _run_example(tower.config, pooling)
    leaves = _leaves(pooled)
    unused = {name for name, p in example.named_parameters() if p not in leaves}
    for tied in example.all_tied_weights_keys.items():  # inside `from_pretrained` they are two parameters still
        unused -= set() if unused.issuperset(tied) else set(tied)
    tower.unused_parameters = unused  # type: ignore[assignment]
    _freeze_unused(tower)
    return tower


def _freeze_unused(tower: PreTrainedModel) -> None:
    unused: Any = tower.unused_parameters
    for name, parameter in tower.named_parameters():
        if name in unused:
            parameter.requires_grad_(False)


def _leaves(tensor: Tensor) -> set[Tensor]:
    """The parameters that a tensor was computed from."""
    found, seen, waiting = set(), set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found |= {node.variable} if hasattr(node, "variable") else set()
            waiting += [before for before, _ in node.next_functions]
    return found


def _pool(output: BaseModelOutputWithPooling, pooling: str, attention_mask: Tensor | None = None) -> Tensor:
    """One vector an item, (batch, width), from a tower's output: (batch, tokens, width) or (batch, width, h, w).

    Padding counts neither in the mean nor as the last token.
    """
    if pooling == "pooler":
        if output.get("pooler_output") is None:
            raise ValueError("this tower has no pooler: set its pooling to 'mean', 'cls' or 'last'")
        return output.pooler_output.flatten(1)
    if pooling == "cls" and output.get("cls_token_value") is not None:  # CvT's, beside its map of patches
        return output["cls_token_value"].flatten(1)
    hidden = output.last_hidden_state
    if hidden.ndim == 4:
        hidden = hidden.flatten(2).transpose(1, 2)  # (batch, h·w, width)
    if attention_mask is None:
        attention_mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    attention_mask = attention_mask.to(hidden.device)  # a tower may end on another device than it begins
    if pooling == "mean":
        weights = attention_mask[:, :, None].to(hidden.dtype)  # (batch, tokens, 1)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    # The first token that is no padding, or the last: a tokenizer may pad on either side.
    rank = positions if pooling == "last" else positions.flip(0) + 1
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), (rank * attention_mask).argmax(1)]


def _with_pooled(output: BaseModelOutputWithPooling, pooled: Tensor) -> BaseModelOutputWithPooling:
    """A tower's output with another pooled vector, of one class for every tower: a tower's own may know no pooler
    and hold a cache, of which `torch.export` can make no output."""
    return BaseModelOutputWithPooling(
        last_hidden_state=output.last_hidden_state,
        pooler_output=pooled,
        hidden_states=output.get("hidden_states"),
        attentions=output.get("attentions"),
    )


def _measure_width(config: PreTrainedConfig, pooling: str, text: bool) -> int:
    """The width of a tower's pooled output, by a forward pass: configurations tell it unreliably."""
    refuse_other_input(config, "text" if text else "vision")
    return _run_example(config, pooling)[1].shape[-1]


_INPUTS = {"text": "input_ids", "vision": "pixel_values"}
_SIDES = {"text": "a text tower", "vision": "an image tower"}


def refuse_other_input(config: PreTrainedConfig, side: str) -> None:
    """
    Args:
        side: "text" or "vision", of which the tower is to be.

    Raises:
        ValueError: a tower that reads something else, or needs something else beside it, saying what.
    """
    kind, (wanted, *more) = config.model_type, _inputs_of(config)
    if "spatial_shapes" in more:
        raise ValueError(
            f"a {kind} model reads patches of images of any shape (NaFlex), with a mask and their shapes, where an "
            "image tower is given images of one size: take a SigLIP 2 of one resolution (google/siglip2-…-patch16-256)"
        )
    if side == "vision" and (getattr(config, "num_frames", None) or 0) > 1:
        raise ValueError(f"a {kind} model reads videos, of {config.num_frames} frames, and no single images")
    if wanted == _INPUTS[side] and not more:
        return
    other = next((other for other, name in _INPUTS.items() if name == wanted and not more and other != side), None)
    if other is None or kind == "imagegpt":  # whose input_ids are the colors of an image
        raise ValueError(f"a {kind} model reads {' and '.join((wanted, *more))}, and {_SIDES[side]} {_INPUTS[side]}")
    raise ValueError(f"a {kind} model is no {_SIDES[side].split(' ', 1)[1]} but {_SIDES[other]}: were they exchanged?")


def _inputs_of(config: PreTrainedConfig) -> list[str]:
    """The names of what a tower's forward is given first, and of whatever else it cannot do without."""
    _, first, *others = inspect.signature(_tower_class(config).forward).parameters.values()
    required = [p for p in others if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return [parameter.name for parameter in (first, *required)]


def _run_example(config: PreTrainedConfig, pooling: str) -> tuple[PreTrainedModel, Tensor]:
    """A new tower and what it pools of an example, without memory where the tower allows it.

    Raises:
        ValueError: the tower does not run, in its own words.
    """
    config = copy.deepcopy(config)
    config.output_attentions = False  # some towers refuse it
    images = _inputs_of(config)[0] == "pixel_values"

    def run() -> tuple[PreTrainedModel, Tensor]:
        with torch.enable_grad():
            tower = _new_tower(config, pooling).eval()
            if not images:
                return tower, _pool(_call(tower, input_ids=torch.zeros(1, 4, dtype=torch.long)), pooling)
            pixels = _example_pixels(config, 1).to(tower.dtype)
            return tower, _pool(_features(_call(tower, pixel_values=pixels)), pooling)

    try:
        with torch.device("meta"):
            return run()
    except (NotImplementedError, RuntimeError):  # it looks at values, which the meta device has not
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return run()


def _call(tower: PreTrainedModel, **inputs: Tensor) -> Any:
    try:
        return tower(**inputs)
    except (NotImplementedError, RuntimeError):
        raise
    except Exception as error:  # towers fail in as many ways as there are
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"a {tower.config.model_type} model does not run on an example ({said})") from error


def _features(output: Any) -> BaseModelOutputWithPooling:
    """An image tower's output; of a backbone (HGNet) the last of its maps, (batch, width, height, width)."""
    if "last_hidden_state" in output or "feature_maps" not in output:
        return output
    return BaseModelOutputWithPooling(last_hidden_state=output["feature_maps"][-1])


def _example_pixels(config: PreTrainedConfig, images: int) -> Tensor:
    """(images, channels, height, width) of zeros, of a size that the tower takes."""
    size = getattr(config, "image_size", None) or getattr(config, "pretrained_cfg", {}).get("input_size", [64])[-1]
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return torch.zeros(images, getattr(config, "num_channels", 3), height, width)


def _text_width(config: HFClipConfig) -> int:
    if config.text_width is None:
        config.text_width = _measure_width(config.text_config, config.text_pooling, text=True)
    return config.text_width


def _vision_width(config: HFClipConfig) -> int:
    if config.vision_width is None:
        config.vision_width = _measure_width(config.vision_config, config.vision_pooling, text=False)
    return config.vision_width


def _build_projection(config: HFClipConfig, width: int) -> nn.Module:
    dim = config.projection_dim
    if config.projection == "linear":
        return nn.Linear(width, dim, bias=False)
    if config.projection == "mlp":
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim))
    if width != dim:
        same = config.text_width == config.vision_width
        raise ValueError(
            f"projection='none' needs towers as wide as projection_dim: {width} is not {dim} (text tower "
            f"{config.text_width}, image tower {config.vision_width}): set projection='linear'"
            + (f" or projection_dim={width}" if same else "")
        )
    return nn.Identity()


def _normalize(embeds: Tensor) -> Tensor:
    # In fp32 or better: the squares of a half-precision vector overflow or vanish.
    wide = embeds.to(torch.promote_types(embeds.dtype, torch.float32))
    return nn.functional.normalize(wide, dim=-1).to(embeds.dtype)


def _patch_mask(tower: PreTrainedModel, output: BaseModelOutputWithPooling, pixel_values: Tensor) -> Tensor | None:
    """(batch, tokens): 0 for the class and register tokens that come before the patches of a ViT, which no mean over
    the picture should count; `None` for a tower without."""
    size = getattr(tower.config, "patch_size", None)
    if tower.config.model_type == "timm_wrapper":
        special = getattr(tower.timm_model, "num_prefix_tokens", 0)
    elif size is None or output.last_hidden_state.ndim != 3:
        special = 0
    else:
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        patches = (pixel_values.shape[-2] // height) * (pixel_values.shape[-1] // width)
        special = output.last_hidden_state.shape[1] - patches
    if special <= 0 or output.last_hidden_state.ndim != 3:
        return None
    positions = torch.arange(output.last_hidden_state.shape[1], device=pixel_values.device)
    return (positions >= special).long().expand(pixel_values.shape[0], -1)


def _patch_numbers(tower: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """(batch, patches), rising: ViT-MAE lays its patches in the order of this noise, drawn anew in each call."""
    size = tower.config.patch_size
    patches = (pixel_values.shape[-2] // size) * (pixel_values.shape[-1] // size)
    return torch.arange(patches, dtype=torch.float32, device=pixel_values.device).expand(pixel_values.shape[0], -1)


class _TextTower(HFClipPreTrainedModel):
    """The text half, shared by the whole model and the text model."""

    text_model: PreTrainedModel
    text_projection: nn.Module

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def post_init(self) -> None:
        super().post_init()
        self._text_arguments = frozenset(inspect.signature(type(self.text_model).forward).parameters)

    def pool_text(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """(texts, text_width): what the text tower gives, pooled but not projected."""
        return self._run_text_tower(input_ids, attention_mask, **kwargs).pooler_output

    def _run_text_tower(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if self.config.text_config.model_type in _READS_PADDING:
            attention_mask = None
        counts_positions = "position_ids" in self._text_arguments
        if self.config.text_pooling == "last" and attention_mask is not None and counts_positions:
            # Counted from the first token that is no padding, which may be on the left.
            kwargs.setdefault("position_ids", (attention_mask.cumsum(1) - 1).clamp(min=0))
        if "use_cache" in self._text_arguments:
            kwargs["use_cache"] = False  # keys and values for tokens that will never follow
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        return _with_pooled(output, _pool(output, self.config.text_pooling, attention_mask))

    def _encode_text(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        output = self._run_text_tower(*args, **kwargs)
        return _with_pooled(output, self.text_projection(output.pooler_output))


class _VisionTower(HFClipPreTrainedModel):
    """The image half, shared by the whole model and the vision model."""

    vision_model: PreTrainedModel
    visual_projection: nn.Module

    def pool_image(self, pixel_values: Tensor, **kwargs: Any) -> Tensor:
        """(images, vision_width): what the image tower gives, pooled but not projected."""
        return self._run_image_tower(pixel_values, **kwargs).pooler_output

    def _run_image_tower(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"pixel_values are {pixel_values.dtype}: rescale and normalize them first, as the processor does, "
                "and as HFClipCollator does with image_processor=processor.image_processor"
            )
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if self.config.vision_config.model_type == "timm_wrapper":
            kwargs["output_attentions"] = False  # timm records none, and refuses to be asked
        pixel_values = pixel_values.to(self.vision_model.dtype)
        if self.config.vision_config.model_type == "vit_mae":
            kwargs.setdefault("noise", _patch_numbers(self.vision_model, pixel_values))
        output = _features(self.vision_model(pixel_values=pixel_values, return_dict=True, **kwargs))
        patches = (
            _patch_mask(self.vision_model, output, pixel_values) if self.config.vision_pooling == "mean" else None
        )
        return _with_pooled(output, _pool(output, self.config.vision_pooling, patches))

    def _encode_image(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        output = self._run_image_tower(*args, **kwargs)
        return _with_pooled(output, self.visual_projection(output.pooler_output))


class HFClipModel(_TextTower, _VisionTower):
    """CLIP of any text tower and any image tower.

    Args:
        config: what to build.
        vision_model, text_model: towers that are already built, with their weights; they become part of this model
            (a pooler that the configured pooling does not use is dropped).
    """

    def __init__(
        self,
        config: HFClipConfig,
        vision_model: PreTrainedModel | None = None,
        text_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        text_width, vision_width = _text_width(config), _vision_width(config)
        if text_model is None:
            text_model = _new_tower(config.text_config, config.text_pooling)
        if vision_model is None:
            vision_model = _new_tower(config.vision_config, config.vision_pooling)
        self.text_model = _without_unused(text_model, config.text_pooling)
        self.vision_model = _without_unused(vision_model, config.vision_pooling)
        config.text_config, config.vision_config = text_model.config, vision_model.config
        self.text_projection = _build_projection(config, text_width)
        self.visual_projection = _build_projection(config, vision_width)
        # One dimension: FSDP2 refuses parameters without any.
        self.logit_scale = nn.Parameter(torch.full((1,), config.logit_scale_init_value, dtype=torch.float32))
        self.logit_bias = None
        if config.loss == "sigmoid":
            self.logit_bias = nn.Parameter(torch.full((1,), config.logit_bias_init_value, dtype=torch.float32))
            self._keep_in_fp32_modules_strict = ["logit_scale", "logit_bias"]
        self.post_init()

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision_model_name_or_path: str | None = None,
        text_model_name_or_path: str | None = None,
        *,
        vision_model: PreTrainedModel | None = None,
        text_model: PreTrainedModel | None = None,
        dtype: torch.dtype | str = torch.float32,
        **kwargs: Any,
    ) -> "HFClipModel":
        """Pairs two pretrained towers; the projections and the temperature are new.

        Args:
            vision_model_name_or_path, text_model_name_or_path: Hub ids or folders.
            vision_model, text_model: built towers, instead of a name.
            dtype: of both towers.
            kwargs: fields of [`HFClipConfig`]; anything else that begins with `vision_` or `text_` goes, without the
                prefix, to that tower's `from_pretrained`.
        """
        fields = {name: kwargs.pop(name) for name in list(kwargs) if name in HFClipConfig.__dataclass_fields__}
        tower_kwargs: dict[str, dict] = {"vision": {}, "text": {}}
        for name in list(kwargs):
            side, _, argument = name.partition("_")
            if side not in tower_kwargs:
                raise TypeError(f"unknown setting {name!r}: neither a field of HFClipConfig nor vision_… or text_…")
            tower_kwargs[side][argument] = kwargs[name]
        models = {"vision": vision_model, "text": text_model}
        names = {"vision": vision_model_name_or_path, "text": text_model_name_or_path}
        for side in models:
            if models[side] is None and names[side] is None:
                raise ValueError(f"no {side} tower: give {side}_model_name_or_path or {side}_model")
        configs = {
            side: models[side].config
            if models[side] is not None
            else tower_kwargs[side].pop("config", None) or AutoConfig.from_pretrained(names[side])
            for side in models
        }
        # Copies: the whole model's configuration resets the attention of its parts, which built towers have chosen.
        parts: dict[str, Any] = {f"{side}_config": copy.deepcopy(tower_config(configs[side], side)) for side in models}
        config = HFClipConfig(**parts, **fields)
        poolings = {"vision": config.vision_pooling, "text": config.text_pooling}
        for side in models:
            if models[side] is None:
                models[side], _ = load_tower(
                    names[side], side, configs[side], poolings[side], dtype=dtype, **tower_kwargs[side]
                )
        return cls(config, vision_model=models["vision"], text_model=models["text"])

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """The text tower's output; `pooler_output` is the projection, not normalised: (texts, projection_dim).

        Args:
            input_ids, attention_mask: (texts, tokens).
        """
        return self._encode_text(
            input_ids, attention_mask, position_ids=position_ids, token_type_ids=token_type_ids, **kwargs
        )

    @can_return_tuple
    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """The image tower's output; `pooler_output` is the projected embedding, not normalised:
        (images, projection_dim).

        Args:
            pixel_values: (images, 3, height, width).
        """
        return self._encode_image(pixel_values, **kwargs)

    def _embed_no_images(self) -> Tensor:
        """(0, projection_dim): the tower runs on a placeholder, so that the hooks of DDP and FSDP do, and gradients
        of zero come of it."""
        pixels = _example_pixels(self.config.vision_config, 2).to(self.vision_model.device)
        with statistics_moved([m for m in self.vision_model.modules() if isinstance(m, _BatchNorm)]):
            return _normalize(self.get_image_features(pixels).pooler_output)[:0]

    def _embed_no_texts(self) -> Tensor:
        """The same for texts."""
        tokens = torch.zeros(2, 4, dtype=torch.long, device=self.text_model.device)
        return _normalize(self.get_text_features(tokens, torch.ones_like(tokens)).pooler_output)[:0]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        return_loss: bool | None = None,
        return_logits: bool = True,
        pooled_text: Tensor | None = None,
        pooled_image: Tensor | None = None,
        **kwargs: Any,
    ) -> HFClipOutput:
        """Embeds texts, images or both, and scores every image against every text.

        Args:
            input_ids, attention_mask: (texts, tokens).
            pixel_values: (images, 3, height, width). A batch without rows gives embeddings without rows, and every
                parameter a gradient of zero: a process may have nothing to add to a step that others take with it.
            return_loss: also the loss of the pairs given, their mean, where one process is running.
            return_logits: `False` leaves the (images, texts) matrices unmade.
            pooled_text: (texts, text_width), of `pool_text`, instead of `input_ids`: the text tower is not run.
            pooled_image: (images, vision_width), of `pool_image`, instead of `pixel_values`.

        Raises:
            ValueError: with neither texts nor images; with `return_loss` in several processes, where a local loss
                would have lost the other processes' negatives.
        """
        if all(given is None for given in (input_ids, pixel_values, pooled_text, pooled_image)):
            raise ValueError("nothing to embed: give input_ids, pixel_values or both")
        image_output = text_output = image_embeds = text_embeds = logits = loss = scale = bias = None
        if pixel_values is not None and pixel_values.shape[0] == 0:
            image_embeds = self._embed_no_images()
        elif pixel_values is not None:
            image_output = self.get_image_features(pixel_values, **kwargs)
            image_embeds = _normalize(image_output.pooler_output)
        elif pooled_image is not None:
            image_embeds = _normalize(self.visual_projection(pooled_image))
        if input_ids is not None and input_ids.shape[0] == 0:
            text_embeds = self._embed_no_texts()
        elif input_ids is not None:
            text_output = self.get_text_features(
                input_ids, attention_mask, position_ids=position_ids, token_type_ids=token_type_ids, **kwargs
            )
            text_embeds = _normalize(text_output.pooler_output)
        elif pooled_text is not None:
            text_embeds = _normalize(self.text_projection(pooled_text))
        if image_embeds is not None and text_embeds is not None:
            device = image_embeds.device
            text_embeds = text_embeds.to(device)  # the towers may lie on two devices
            temperature = [p.to(device) for p in (self.logit_scale, self.logit_bias) if p is not None]
            # Not the parameter itself: DDP takes a leaf among the outputs for a parameter without a gradient.
            # Left out of one modality alone, where pipelines look for a row of each item in every tensor.
            scale, bias = self.logit_scale.clone(), None if self.logit_bias is None else self.logit_bias.clone()
            if return_logits:
                logits = score(image_embeds, text_embeds, *temperature)
            if return_loss:
                _refuse_local_loss()
                loss_function = contrastive_loss if self.logit_bias is None else sigmoid_loss
                loss = loss_function(image_embeds, text_embeds, *temperature) / image_embeds.shape[0]
        return HFClipOutput(
            loss=loss,
            logits_per_image=logits,
            logits_per_text=None if logits is None else logits.T,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            logit_scale=scale,
            logit_bias=bias,
            text_model_output=text_output,
            vision_model_output=image_output,
        )


def _refuse_local_loss() -> None:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if distributed and torch.distributed.get_world_size() > 1:
        raise ValueError(
            "return_loss=True would leave out the other processes' negatives: call the model with return_logits=False "
            "and pass its output to hf_clip.training.distributed.global_contrastive_loss, which gathers them"
        )


class HFClipTextModelWithProjection(_TextTower):
    """The text half of an [`HFClipModel`] folder, without the image half's memory."""

    input_modalities = ["text"]
    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^visual_projection\.", r"^logit_"]

    def __init__(self, config: HFClipConfig):
        super().__init__(config)
        width = _text_width(config)
        self.text_model = build_tower(config.text_config, config.text_pooling)
        self.text_projection = _build_projection(config, width)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> CLIPTextModelOutput:
        """`text_embeds`: (texts, projection_dim), unit length."""
        output = self._encode_text(
            input_ids, attention_mask, position_ids=position_ids, token_type_ids=token_type_ids, **kwargs
        )
        return CLIPTextModelOutput(
            text_embeds=_normalize(output.pooler_output),
            last_hidden_state=output.last_hidden_state,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )


class HFClipVisionModelWithProjection(_VisionTower):
    """The image half of an [`HFClipModel`] folder, without the text half's memory."""

    main_input_name = "pixel_values"
    input_modalities = ["image"]
    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^text_projection\.", r"^logit_"]

    def __init__(self, config: HFClipConfig):
        super().__init__(config)
        width = _vision_width(config)
        self.vision_model = build_tower(config.vision_config, config.vision_pooling)
        self.visual_projection = _build_projection(config, width)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: Tensor | None = None, **kwargs: Any) -> CLIPVisionModelOutput:
        """`image_embeds`: (images, projection_dim), unit length."""
        output = self._encode_image(pixel_values, **kwargs)
        return CLIPVisionModelOutput(
            image_embeds=_normalize(output.pooler_output),
            last_hidden_state=output.last_hidden_state,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )


__all__ = [
    "HFClipModel",
    "HFClipOutput",
    "HFClipPreTrainedModel",
    "HFClipTextModelWithProjection",
    "HFClipVisionModelWithProjection",
]
