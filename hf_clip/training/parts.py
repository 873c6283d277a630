"""What a trainer is put together from: parts of another kind, or that do not fit together, are refused in a line."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import datasets
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.training_args import OptimizerNames

from ..core.errors import InputError
from ..data.collator import HFClipCollator, is_processor
from ..data.dataset import ImageRows
from ..data.foreign import CompletedBatches
from ..data.streaming import StreamedImages
from ..embeddings.encode import collator_of
from ..models.configuration_hf_clip import HFClipConfig
from ..models.modeling_hf_clip import HFClipModel
from ..models.processing_hf_clip import HFClipProcessor, fixed_length
from .arguments import HFClipTrainingArguments
from .frozen import frozen_modules

# What decides about pixels.
_PIXELS = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_pad", "do_convert_rgb"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)


def check_model_and_processor(model: Any, given: Mapping[str, Any]) -> None:
    """Before any data are opened.

    Args:
        model: given, or made by `model_init`.
        given: the arguments of the trainer, by name.

    Raises:
        InputError: a model or a processor of another kind; a processor that is not that of the model.
    """
    _check_model(model)
    processor = given.get("processing_class")
    if processor is not None:
        _check_processor(processor, model)


def check_parts(model: Any, given: Mapping[str, Any]) -> None:
    """
    Args:
        model, given: as there, with data sets where data were given.

    Raises:
        InputError: no processor; a collator or data of another one; settings that these parts leave without effect.
    """
    processor, data = given.get("processing_class"), given.get("train_dataset")
    if processor is not None:
        _check_same_processor(processor, model, given)
    elif given.get("data_collator") is None or _image_processors(data):
        raise no_processor()
    if given["args"].length_column_name != "length" and not isinstance(data, datasets.Dataset):
        raise InputError(
            "length_column_name is for a datasets.Dataset whose rows a collator of your own takes: of all else it is "
            "known how long captions are"
        )
    if given.get("optimizers", (None, None))[0] is not None:
        _check_rates(given["args"])
    if given["args"].prediction_loss_only and given.get("compute_metrics"):
        raise InputError("prediction_loss_only leaves compute_metrics nothing to look at: leave out one of them")


def no_processor() -> InputError:
    return InputError("processing_class is missing: give the model's HFClipProcessor, which is saved with it")


def _check_model(model: Any) -> None:
    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) == HFClipConfig.model_type:  # an adapter shows that of its base
        return
    if isinstance(model, str):
        raise InputError(f"model is {model!r}: open it with AutoModel.from_pretrained first")
    raise InputError(
        f"model is a {type(model).__name__}: give an HFClipModel, which create_model_and_processor makes of two "
        "towers, and convert_model of CLIP, SigLIP and dual encoders"
    )


def _check_processor(processor: Any, model: Any) -> None:
    if not is_processor(processor):
        raise InputError(
            f"processing_class is a {type(processor).__name__}: give the model's HFClipProcessor, saved with it"
        )
    words, known = len(processor.tokenizer), getattr(model.config.text_config, "vocab_size", None)
    if known is not None and words > known:
        raise InputError(
            f"processing_class has a tokenizer of {words} tokens, and the text tower knows {known}: it is another "
            "model's; give this one's"
        )
    text = model.config.text_config
    if (length := fixed_length(text)) is not None and processor.text_padding != "max_length":
        raise InputError(
            f"processing_class pads texts to the longest of a batch, and the text tower ({text.model_type}) reads "
            f"the padding: make it with text_padding='max_length', max_text_length={length}, as "
            "create_model_and_processor does"
        )


def _check_same_processor(processor: HFClipProcessor, model: Any, given: Mapping[str, Any]) -> None:
    collator = given.get("data_collator")
    if isinstance(collator, HFClipCollator) and not _same_texts(collator, collator_of(model, processor)):
        raise InputError(
            "data_collator and processing_class read captions otherwise: leave data_collator out, for the trainer "
            "makes it of the processor"
        )
    for name in ("train_dataset", "eval_dataset"):
        check_pixels(name, given.get(name), processor)


def check_pixels(name: str, data: Any, processor: HFClipProcessor) -> None:
    """
    Args:
        name: of the argument.

    Raises:
        InputError: data sets of ours with the image processor of another model.
    """
    if not all(_same_pixels(own, processor.image_processor) for own in _image_processors(data)):
        raise InputError(f"{name} and processing_class have different image processors: give both the model's")


def _image_processors(data: Any) -> list[Any]:
    """Those of our own data sets, within torch's wrappers, mixtures and named sets too."""
    if isinstance(data, ImageRows):
        return [data.image_processor]
    if isinstance(data, StreamedImages):
        return [data.draw.image_processor]
    inside = (
        data.values() if isinstance(data, Mapping) else getattr(data, "datasets", [getattr(data, "dataset", None)])
    )
    return [found for one in inside if one is not None and one is not data for found in _image_processors(one)]


def _same_texts(given: HFClipCollator, own: HFClipCollator) -> bool:
    """Of the given one the tower's positions may be unknown."""
    one, other = given.tokenizer, own.tokenizer
    same_words = one is other or one.get_vocab() == other.get_vocab()
    return same_words and given.padding == own.padding and given.max_length >= own.max_length


def _same_pixels(one: Any, other: Any) -> bool:
    if one is other:
        return True
    mine, yours = one.to_dict(), other.to_dict()
    return all(mine.get(name) == yours.get(name) for name in _PIXELS)


def _check_rates(args: HFClipTrainingArguments) -> None:
    for name in ("text_learning_rate", "vision_learning_rate", "head_learning_rate", "layer_decay"):
        if getattr(args, name) is not None:
            raise InputError(
                f"{name} is for the optimizer that the trainer makes, and optimizers brings another: leave out one"
            )


def is_own_collator(collator: Callable | None) -> bool:
    """Whether it is the user's, and gets items as it knows them."""
    return collator is not None and not isinstance(collator, HFClipCollator)


def batches_of(collator: Callable | None, model: Any, processor: Any) -> Callable:
    """The collator of the processor, for which one that was made of it stands too; a user's, its batches completed."""
    if collator is None or type(collator) is HFClipCollator:
        return collator_of(model, processor)
    return CompletedBatches(collator) if is_own_collator(collator) else collator


def freeze(model: HFClipModel, args: HFClipTrainingArguments) -> list[nn.Module]:
    """Freezes what was asked for, and gives all that must stay in evaluation mode."""
    if args.freeze_text:
        model.text_model.requires_grad_(False)
    if args.freeze_vision:
        model.vision_model.requires_grad_(False)
    return frozen_modules([model.text_model, model.vision_model])


def check_steps(args: HFClipTrainingArguments, model: nn.Module, fsdp: bool, deepspeed: bool) -> None:
    """
    Args:
        model: frozen where it is to be.

    Raises:
        InputError: for settings that this model, or what shards it, cannot have.
    """
    if (args.bf16_full_eval or args.fp16_full_eval) and (fsdp or deepspeed):
        raise InputError("bf16_full_eval and fp16_full_eval cannot turn weights that are sharded: leave them out")
    if args.train_batch_size * args.world_size < 2:
        raise InputError("a batch of one pair has no negatives: give a larger per_device_train_batch_size")
    if not args.gradient_cache_chunk_size:
        return
    if deepspeed:
        raise InputError("gradient_cache_chunk_size cannot go with DeepSpeed's own backward: leave out one of them")
    optimizer = OptimizerNames(args.optim).value
    if optimizer.endswith("layerwise") or "lomo" in optimizer:
        raise InputError(
            f"gradient_cache_chunk_size cannot go with optim={optimizer}, which steps within the backward pass "
            "of each chunk: leave out one of them"
        )
    if args.gradient_cache_chunk_size == 1 and any(map(learns_statistics, model.modules())):
        raise InputError(
            "gradient_cache_chunk_size=1 shows BatchNorm one image at a time, which has no statistics: set 2 or more"
        )


def learns_statistics(module: nn.Module) -> bool:
    """A BatchNorm that is trained."""
    return isinstance(module, _BatchNorm) and any(p.requires_grad for p in module.parameters())


@contextlib.contextmanager
def enough_for_batch_norm() -> Iterator[None]:
    """
    Raises:
        InputError: in place of torch's own error, for a batch of one image whose last feature maps are single points.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            "this process has a batch of one image, of which BatchNorm has no statistics: set a larger "
            "per_device_train_batch_size, or dataloader_drop_last=True for an incomplete last batch"
        ) from error
