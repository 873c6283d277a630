"""A text tower and an image tower, each with a projection, into one embedding space (CLIP, arXiv:2103.00020)."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import contextlib
import copy
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
from transformers.models.clip.modeling_clip import CLIPTextModelOutput, CLIPVisionModelOutput
from transformers.utils import logging

from .checkpointing_hf_clip import make_checkpointable, repeated_blocks, statistics_moved
from .configuration_hf_clip import HFClipConfig
from .loss_hf_clip import PROBABILITIES, GlobalBatch, Loss, check_pairs, score
from .losses_hf_clip import LOSSES, find_loss
from .pooling_hf_clip import last_map_of, patch_mask, pool, with_pooled
from .processing_hf_clip import FIXED_LENGTH
from .remote_code_hf_clip import name_classes
from .towers_hf_clip import example_pixels, freeze_unused, load_tower, patch_numbers, settle_tower, tower_config

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11, where a saved folder may be opened with an older one

    Method = TypeVar("Method", bound=Callable[..., object])

    def can_return_tuple(method: Method) -> Method:
        """transformers' says no types, and those of what it decorates would be lost."""

else:
    from transformers.utils.generic import can_return_tuple

logger = logging.get_logger(__name__)


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
        logit_bias: (1,), fp32, the same, of a model whose loss has a bias, as the sigmoid loss; `None` of any other.
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
    auto_classes: ClassVar[dict[str, str]]  # by which a saved one is opened
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
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> "Self":
        """As of any model of transformers; what a tower has but never uses comes out frozen."""
        loaded: Any = super().from_pretrained(*args, **kwargs)
        for tower in (loaded[0] if isinstance(loaded, tuple) else loaded)._towers():
            freeze_unused(tower, tower.unused_parameters)
        return loaded

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As of any model of transformers; the configuration says which class opens it, and the code lies beside."""
        name_classes(self.config, self.auto_classes)
        super().save_pretrained(save_directory, *args, **kwargs)

    def enable_input_require_grads(self) -> None:
        """As transformers does it, also where a tower's embeddings come in a tuple (Swin)."""

        def require_grads(module: nn.Module, inputs: object, output: Any) -> None:
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
            make_checkpointable(tower)
            tower._set_gradient_checkpointing(
                enable=enable, gradient_checkpointing_func=gradient_checkpointing_func, every_n_layers=every_n_layers
            )


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
        if self.config.text_config.model_type in FIXED_LENGTH:
            attention_mask = None  # it was trained to read the padding
        counts_positions = "position_ids" in self._text_arguments
        if self.config.text_pooling == "last" and attention_mask is not None and counts_positions:
            # Counted from the first token that is no padding, which may be on the left.
            kwargs.setdefault("position_ids", (attention_mask.cumsum(1) - 1).clamp(min=0))
        if "use_cache" in self._text_arguments:
            kwargs["use_cache"] = False  # keys and values for tokens that will never follow
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        return with_pooled(output, pool(output, self.config.text_pooling, attention_mask))

    def _encode_text(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        output = self._run_text_tower(*args, **kwargs)
        return with_pooled(output, self.text_projection(output.pooler_output))


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
                "and as HFClipCollator(processor) does"
            )
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if self.config.vision_config.model_type == "timm_wrapper":
            kwargs["output_attentions"] = False  # timm records none, and refuses to be asked
        pixel_values = pixel_values.to(self.vision_model.dtype)
        if self.config.vision_config.model_type == "vit_mae":
            kwargs.setdefault("noise", patch_numbers(self.vision_model, pixel_values))
        output = last_map_of(self.vision_model(pixel_values=pixel_values, return_dict=True, **kwargs))
        patches = patch_mask(self.vision_model, output, pixel_values) if self.config.vision_pooling == "mean" else None
        return with_pooled(output, pool(output, self.config.vision_pooling, patches))

    def _encode_image(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        output = self._run_image_tower(*args, **kwargs)
        return with_pooled(output, self.visual_projection(output.pooler_output))


class HFClipModel(_TextTower, _VisionTower):
    """CLIP of any text tower and any image tower.

    Args:
        config: what to build.
        vision_model, text_model: towers that are already built, with their weights; they become part of this model
            (a pooler that the configured pooling does not use is dropped).
    """

    auto_classes = HFClipConfig.model_classes
    own_loss: Loss | None = None  # of `use_loss`

    def __init__(
        self,
        config: HFClipConfig,
        vision_model: PreTrainedModel | None = None,
        text_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.text_model = settle_tower(config, "text", text_model)
        self.vision_model = settle_tower(config, "vision", vision_model)
        self.text_projection = _build_projection(config, config.text_width)
        self.visual_projection = _build_projection(config, config.vision_width)
        # One dimension: FSDP2 refuses parameters without any.
        self.logit_scale = nn.Parameter(torch.full((1,), config.logit_scale_init_value, dtype=torch.float32))
        self.logit_bias = None
        if config.logit_bias_init_value is not None:
            self.logit_bias = nn.Parameter(torch.full((1,), config.logit_bias_init_value, dtype=torch.float32))
        self._keep_in_fp32()
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
    ) -> "Self":
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

    def get_loss(self) -> Loss:
        """What `return_loss=True` computes.

        Raises:
            ValueError: it is a loss of somebody's own, which is not saved with the model.
        """
        try:
            return self.own_loss or find_loss(self.config.loss)
        except ValueError as error:
            raise ValueError(
                f"the model was made for the loss {self.config.loss!r}, which is not here: give it with "
                "model.use_loss(…) or HFClipTrainer(loss=…); embedding and classifying need no loss"
            ) from error

    def use_loss(self, loss: Loss | str) -> None:
        """Makes it a model of this loss, one of one's own too: `return_loss=True` and `HFClipTrainer` compute it, and
        the configuration has its name and settings.

        Of a loss of another name a temperature or a bias that was never trained begins where the loss says, and a
        trained one stays; a bias that the loss has and the model lacks begins there too, and one that it has not goes.
        A loss of the name in the configuration changes no settings there; of one of your own a warning says which.

        Raises:
            ValueError: of this name there is another loss, or was one when the model was made.
        """
        loss = self.check_loss(loss)
        if loss.name != self.config.loss:
            self._begin_loss(loss)
        elif loss.name not in LOSSES and (kept := self._kept_settings(loss)):
            logger.warning(
                f"the loss {loss.name} has other settings than the model was made with, which stay: {kept}: set them "
                "in model.config, or give this loss another name"
            )
        self.own_loss = None if loss.name in LOSSES else loss

    def check_loss(self, loss: Loss | str) -> Loss:
        """What `use_loss` would take; nothing is changed.

        Raises:
            ValueError: it would not take it.
        """
        loss = find_loss(loss) if isinstance(loss, str) else loss
        if LOSSES.get(loss.name, loss) is not loss:
            raise ValueError(f"{loss.name!r} is a loss of hf_clip's: give yours another name")
        if loss.name == self.config.loss and (found := self._differing(loss)):
            raise ValueError(f"the model was made for another loss {loss.name!r}: {found}: give this one another name")
        return loss

    def _kept_settings(self, loss: Loss) -> str:
        config = {name: getattr(self.config, name) for name in loss.settings()}
        return ", ".join(f"{name}={config[name]}" for name, value in loss.settings().items() if value != config[name])

    def _differing(self, loss: Loss) -> str:
        """What opening a model of the loss without it would have wrong; empty where nothing is."""
        config = self.config
        if loss.probabilities != config.probabilities:
            return f"its probabilities were {config.probabilities!r}, not {loss.probabilities!r}"
        if (loss.logit_bias_init_value is None) != (self.logit_bias is None):
            return "it had no logit_bias" if self.logit_bias is None else "it had a logit_bias"
        return ""

    @torch.no_grad()
    def _begin_loss(self, loss: Loss) -> None:
        begins = {"logit_scale": loss.logit_scale_init_value, "logit_bias": loss.logit_bias_init_value}
        for name, value in begins.items():
            parameter, began = getattr(self, name), getattr(self.config, f"{name}_init_value")
            if parameter is not None and value is not None and (parameter == began).all():  # never trained
                parameter.fill_(value)
        for name, setting in loss.settings().items():
            setattr(self.config, name, setting)
        if loss.logit_bias_init_value is None:
            self.logit_bias = None
        elif self.logit_bias is None:
            bias = torch.full_like(self.logit_scale, loss.logit_bias_init_value)
            self.logit_bias = nn.Parameter(bias, self.logit_scale.requires_grad)
        self._keep_in_fp32()

    def _keep_in_fp32(self) -> None:
        temperature = {"logit_scale": self.logit_scale, "logit_bias": self.logit_bias}
        self._keep_in_fp32_modules_strict = [name for name, value in temperature.items() if value is not None]

    def probabilities(self, scores: Tensor) -> Tensor:
        """What scores say, of the same shape: for each image (a row) the probability of each candidate (a column).

        Args:
            scores: (images, candidates), `logits_per_image`.
        """
        return PROBABILITIES[self.config.probabilities](scores)

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

    def _embed_images(
        self, pixel_values: Tensor | None, pooled: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[BaseModelOutputWithPooling | None, Tensor | None]:
        """The image tower's output, where it was run for it, and (images, projection_dim) of unit length."""
        if pixel_values is None:
            return None, None if pooled is None else _normalize(self.visual_projection(pooled))
        if pixel_values.shape[0] == 0:
            return None, self._embed_no_images()
        output = self.get_image_features(pixel_values, **kwargs)
        return output, _normalize(output.pooler_output)

    def _embed_texts(
        self, input_ids: Tensor | None, pooled: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[BaseModelOutputWithPooling | None, Tensor | None]:
        """The same for texts."""
        if input_ids is None:
            return None, None if pooled is None else _normalize(self.text_projection(pooled))
        if input_ids.shape[0] == 0:
            return None, self._embed_no_texts()
        output = self.get_text_features(input_ids, **kwargs)
        return output, _normalize(output.pooler_output)

    def _embed_no_images(self) -> Tensor:
        """(0, projection_dim): the tower runs on a placeholder, so that the hooks of DDP and FSDP do, and gradients
        of zero come of it."""
        pixels = example_pixels(self.config.vision_config, 2).to(self.vision_model.device)
        with statistics_moved([m for m in self.vision_model.modules() if isinstance(m, _BatchNorm)]):
            return _normalize(self.get_image_features(pixels).pooler_output)[:0]

    def _embed_no_texts(self) -> Tensor:
        """The same for texts."""
        tokens = torch.zeros(2, 4, dtype=torch.long, device=self.text_model.device)
        return _normalize(self.get_text_features(tokens, torch.ones_like(tokens)).pooler_output)[:0]

    def _compare(
        self, images: Tensor, texts: Tensor, with_logits: bool, with_loss: bool | None
    ) -> dict[str, Tensor | None]:
        """The fields of an output that has both."""
        scale = self.logit_scale.to(images.device)
        bias = None if self.logit_bias is None else self.logit_bias.to(images.device)
        logits = score(images, texts, scale, bias) if with_logits else None
        loss = None
        if with_loss:
            _refuse_local_loss()
            check_pairs(images, texts, GlobalBatch(images, texts))
            loss = self.get_loss()(images, texts, scale, bias) / images.shape[0]
        return {
            "loss": loss,
            "logits_per_image": logits,
            "logits_per_text": None if logits is None else logits.T,
            # Not the parameter itself: DDP takes a leaf among the outputs for a parameter without a gradient.
            "logit_scale": self.logit_scale.clone(),
            "logit_bias": None if self.logit_bias is None else self.logit_bias.clone(),
        }

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
            return_loss: also the loss of the pairs given, their mean, where one process is running; see `use_loss`.
            return_logits: `False` leaves the (images, texts) matrices unmade.
            pooled_text: (texts, text_width), of `pool_text`, instead of `input_ids`: the text tower is not run.
            pooled_image: (images, vision_width), of `pool_image`, instead of `pixel_values`.

        Raises:
            ValueError: with neither texts nor images; with `return_loss` in several processes, where a local loss
                would have lost the other processes' negatives, or of a loss that is not here.
        """
        if all(given is None for given in (input_ids, pixel_values, pooled_text, pooled_image)):
            raise ValueError("nothing to embed: give input_ids, pixel_values or both")
        of_texts = {"attention_mask": attention_mask, "position_ids": position_ids, "token_type_ids": token_type_ids}
        image_output, images = self._embed_images(pixel_values, pooled_image, kwargs)
        text_output, texts = self._embed_texts(input_ids, pooled_text, of_texts | kwargs)
        compared = {}  # nothing of one modality alone: pipelines look for a row of each item in every tensor
        if images is not None and texts is not None:
            texts = texts.to(images.device)  # the towers may lie on two devices
            compared = self._compare(images, texts, return_logits, return_loss)
        return HFClipOutput(
            text_embeds=texts,
            image_embeds=images,
            text_model_output=text_output,
            vision_model_output=image_output,
            **compared,
        )


def _refuse_local_loss() -> None:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if distributed and torch.distributed.get_world_size() > 1:
        raise ValueError(
            "return_loss=True would leave out the other processes' negatives: call the model with return_logits=False "
            "and pass its output and model.get_loss() to hf_clip.training.distributed.global_contrastive_loss, which "
            "gathers them"
        )


class HFClipTextModelWithProjection(_TextTower):
    """The text half of an [`HFClipModel`] folder, without the image half's memory."""

    auto_classes: ClassVar = {"AutoModel": "modeling_hf_clip.HFClipTextModelWithProjection"}
    input_modalities = ["text"]
    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^visual_projection\.", r"^logit_"]

    def __init__(self, config: HFClipConfig):
        super().__init__(config)
        self.text_model = settle_tower(config, "text")
        self.text_projection = _build_projection(config, config.text_width)
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

    auto_classes: ClassVar = {"AutoModel": "modeling_hf_clip.HFClipVisionModelWithProjection"}
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^text_projection\.", r"^logit_"]

    def __init__(self, config: HFClipConfig):
        super().__init__(config)
        self.vision_model = settle_tower(config, "vision")
        self.visual_projection = _build_projection(config, config.vision_width)
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
