"""A trained model as two ONNX graphs, with all that it takes to use them without torch."""

import contextlib
import copy
import importlib.util
import io
import logging
import math
import random
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import BaseImageProcessor, ConvNextImageProcessor

from ...core.digests import weights_digest
from ...core.errors import InputError, first_line
from ...core.version import __version__
from ...data.pixels import processed_pixels
from ...embeddings.encode import collator_of, max_caption_length, temperature_of
from ...models import decoding_hf_clip
from ...models.modeling_hf_clip import HFClipModel
from ...models.processing_hf_clip import HFClipProcessor
from .record import DECODING, EXAMPLE, EXPORT, GRAPHS, Differences, ExportedModel, OnnxRecord, PixelSteps, Shapes

TOLERANCE = 1e-4
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_LONGEST_COMPARED = 512
# Pillow's filters and torchvision's round 8-bit pictures otherwise: mostly by 1 of 255, by 4 where one is enlarged.
_GREY_LEVELS = 6
_WORDS = "a photo of the small red cat, two Dogs and 3 birds in an OLD green boat – on water"


def require_onnx() -> None:
    """
    Raises:
        InputError: packages that an export needs are not installed.
    """
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(f'an export to ONNX needs {", ".join(missing)}: pip install "hf_clip[onnx]"')


def export_onnx(model: HFClipModel, processor: HFClipProcessor, folder: Path, *, name: str) -> OnnxRecord:
    """Writes both towers, the tokenizer, `example.py` and `export.json` into a folder; returns what the last says.

    `text_model.onnx`: input_ids and, where the tower looks at it, attention_mask, int64, (texts, tokens) → text_embeds
    (texts, projection_dim), unit length. `vision_model.onnx`: pixel_values, fp32, (images, 3, height, width) →
    image_embeds (images, projection_dim), unit length; height and width are fixed where the tower takes no others.
    Both are fp32, whatever the model is. Each is compared with torch before this returns: with other numbers of
    items, lengths, sides of padding and sizes of pictures than it was traced with.

    Args:
        model: stays as it is: its mode, its dtype, and where it lies.
        folder: is there; what it holds counts only once this has returned.
        name: what `export.json` calls the model.

    Raises:
        InputError: a tower that cannot be exported, or whose graph differs by more than `TOLERANCE`, by name; a
            package that is missing.
    """
    require_onnx()
    twin = _fp32_twin(model)
    with quiet():
        text = _export_text(twin, processor, folder / GRAPHS["text"])
        vision = _export_vision(twin, processor, folder / GRAPHS["vision"])
        pixels, grey_levels = pixel_steps(processor.image_processor)
    *_, height, width = vision.shapes["pixel_values"]
    notes = (
        [] if height == "height" else [f"pictures of {height} × {width} pixels only: the image tower is for no others"]
    )
    if reason := _own_way(processor, pixels):
        notes.append(f"without example.py: {reason}")
    else:
        _write_tokenizer(model, processor, folder / "tokenizer.json")
        shutil.copyfile(Path(__file__).with_name(EXAMPLE), folder / EXAMPLE)
        shutil.copyfile(Path(decoding_hf_clip.__file__), folder / DECODING)
    scale, bias = temperature_of(model)
    record = OnnxRecord(
        hf_clip=__version__,
        model=ExportedModel(name, weights_digest(model)),
        opset=text.opset,
        text_inputs=[name for name in text.shapes if name in _TextHalf.inputs],
        shapes=text.shapes | vision.shapes,
        loss=model.config.loss,
        probabilities=model.config.probabilities,
        exp_logit_scale=math.exp(scale.item()),
        logit_bias=None if bias is None else bias.item(),
        text_padding=processor.text_padding,
        max_text_length=_max_text_length(model, processor),
        pixels=pixels,
        largest_difference=Differences(text.difference, vision.difference, grey_levels),
        compared_on={"input_ids": text.compared_on, "pixel_values": vision.compared_on},
        versions={package: version(package) for package in ("torch", "transformers", *_PACKAGES)},
        notes=notes,
    )
    record.write(folder / EXPORT)
    return record


def _fp32_twin(model: HFClipModel) -> HFClipModel:
    twin = copy.deepcopy(model).to("cpu", torch.float32).eval()  # type: ignore[arg-type]
    for tower in (twin.text_model, twin.vision_model):
        if tower.config._attn_implementation not in ("eager", "sdpa"):  # a kernel that only a GPU has
            tower.set_attn_implementation("sdpa" if tower._supports_sdpa else "eager")
    return twin


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporter and quantiser tell of their inner life, at length; what fails is raised too."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
            yield
    finally:
        logging.disable(disabled)


# ---- graphs -------------------------------------------------------------------------------------------------------


class _TextHalf(nn.Module):
    """
    Args:
        has_types: whether the tokenizer gives token_type_ids, all of them 0, which some towers embed like a token.
    """

    inputs: Shapes = {"input_ids": ["texts", "tokens"], "attention_mask": ["texts", "tokens"]}
    output = ("text_embeds", "texts")

    def __init__(self, model: HFClipModel, has_types: bool):
        super().__init__()
        self.model = model
        self.has_types = has_types
        self.name = f"the text tower ({model.config.text_config.model_type})"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        types = torch.zeros_like(input_ids) if self.has_types else None
        output = self.model.get_text_features(input_ids, attention_mask, token_type_ids=types)
        return nn.functional.normalize(output.pooler_output, dim=-1)


class _VisionHalf(nn.Module):
    inputs: Shapes = {"pixel_values": ["images", 3, "height", "width"]}
    output = ("image_embeds", "images")

    def __init__(self, model: HFClipModel):
        super().__init__()
        self.model = model
        self.name = f"the image tower ({model.config.vision_config.model_type})"

    def forward(self, pixel_values: Tensor) -> Tensor:
        return nn.functional.normalize(self.model.get_image_features(pixel_values).pooler_output, dim=-1)


_Half = _TextHalf | _VisionHalf


@dataclass
class _Graph:
    """What was written, and what it was compared on."""

    opset: int
    shapes: Shapes
    difference: float
    compared_on: list[str]


def _export_text(model: HFClipModel, processor: HFClipProcessor, file: Path) -> _Graph:
    cases = _texts(model, processor)
    traced = max(cases, key=lambda case: len(case[0]))
    half = _TextHalf(model, "token_type_ids" in processor.tokenizer.model_input_names)
    return _export(half, traced, cases, _TextHalf.inputs, file)


def _texts(model: HFClipModel, processor: HFClipProcessor) -> list[tuple[Tensor, ...]]:
    """(input_ids, attention_mask) of several numbers and lengths of texts, padded on either side, to the longest and
    as the processor does."""
    collator = collator_of(model, processor)
    longest = min(collator.max_length, _LONGEST_COMPARED)
    draw = random.Random(0)
    cases: list[tuple[Tensor, ...]] = []
    for texts, words in ((1, 1), (2, 3), (5, 8), (3, 20), (2, longest)):
        captions = [" ".join(draw.choices(_WORDS.split(), k=max(words - i * words // texts, 1))) for i in range(texts)]
        for padding in dict.fromkeys(("longest", collator.padding)):
            for side in ("right", "left"):
                tokens = processor.tokenizer(
                    captions,
                    padding=padding,
                    truncation=True,
                    max_length=longest if padding == "longest" else collator.max_length,
                    padding_side=side,
                    return_attention_mask=True,
                    return_tensors="pt",
                )
                if "token_type_ids" in tokens and tokens["token_type_ids"].any():
                    name = type(processor.tokenizer).__name__
                    raise InputError(f"{name} gives token_type_ids other than 0, for which the graph has no input")
                cases.append((tokens["input_ids"], tokens["attention_mask"]))
    return cases


def _export_vision(model: HFClipModel, processor: HFClipProcessor, file: Path) -> _Graph:
    """Of any size where the tower takes that and onnxruntime agrees at sizes that differ; else of the processor's."""
    half = _VisionHalf(model)
    height, width = processed_pixels(processor.image_processor, Image.new("RGB", (300, 300))).shape[1:]
    own = [(4, height, width), (1, height, width)]
    others = [(1, height + 32, width), (2, height, width + 64), (3, 2 * height + 1, width + 7)]
    drawn = torch.Generator().manual_seed(0)
    cases: dict[tuple[int, ...], tuple[Tensor, ...]] = {
        (images, *size): (torch.randn(images, 3, *size, generator=drawn),) for images, *size in (*own, *others)
    }
    with contextlib.suppress(Exception):  # a tower has its own words for a size that it refuses
        for size in others:
            half(*cases[size])
        return _export(half, cases[others[-1]], list(cases.values()), half.inputs, file)
    shape: Shapes = {"pixel_values": ["images", 3, height, width]}
    return _export(half, cases[own[0]], [cases[size] for size in own], shape, file)


def _export(
    half: _Half,
    traced: tuple[Tensor, ...],
    cases: list[tuple[Tensor, ...]],
    shapes: Shapes,
    file: Path,
) -> _Graph:
    """
    Args:
        traced: inputs to trace the half with: several items, of sizes that differ from each other.
        cases: inputs to compare on.
        shapes: of the inputs; a number is a size that stays.

    Raises:
        InputError: the half cannot be exported, or gives something else by onnxruntime.
    """
    try:
        program = _to_onnx(half, traced, shapes)
        program.save(file)
        difference = max(_differences(file, half, cases))
    except OSError:
        raise
    except Exception as error:  # torch, the exporter and onnxruntime have no error in common
        raise InputError(f"{half.name} cannot be exported to ONNX: {first_line(_cause(error))[:300]}") from error
    if not difference <= TOLERANCE:
        raise InputError(
            f"{half.name} cannot be exported to ONNX: its embeddings by onnxruntime differ by {difference:.2g} from "
            f"torch's, and may by {TOLERANCE:g}"
        )
    embeds, items = half.output
    used = {given.name: shapes[given.name] for given in program.model.graph.inputs}
    return _Graph(
        opset=program.model.opset_imports[""],
        shapes=used | {embeds: [items, half.model.config.projection_dim]},
        difference=difference,
        compared_on=list(dict.fromkeys(" × ".join(map(str, case[0].shape)) for case in cases)),
    )


def _cause(error: BaseException) -> BaseException:
    """What was raised first."""
    return _cause(error.__cause__) if error.__cause__ else error


def _to_onnx(half: _Half, traced: tuple[Tensor, ...], shapes: Shapes) -> Any:
    free = tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(shape) if isinstance(size, str)}
        for shape in shapes.values()
    )
    half(*traced)  # what a tower computes once and keeps is no part of the graph
    exported = torch.export.export(half, traced, dynamic_shapes=free)
    program = torch.onnx.export(exported, input_names=list(shapes), output_names=[half.output[0]], verbose=False)
    graph = program.model.graph
    for given in list(graph.inputs):
        if not given.uses():  # the mask of a tower that reads its padding
            graph.inputs.remove(given)
    _name_axes(graph, shapes, half.output)
    # The exporter notes where each node came from: lines of code, in the folders of this machine.
    for node in graph.all_nodes():
        node.metadata_props.clear()
    return program


def _name_axes(graph: Any, shapes: Shapes, output: tuple[str, str]) -> None:
    for given in graph.inputs:
        for axis, size in enumerate(shapes[given.name]):
            given.shape[axis] = size
    graph.outputs[0].shape[0] = output[1]


def _differences(file: Path, half: _Half, cases: list[tuple[Tensor, ...]]) -> Iterator[float]:
    session = open_session(file)
    for case in cases:
        found = run_session(session, dict(zip(half.inputs, case, strict=True)))
        expected = half(*case)
        difference = (found - expected).abs().max().item() if found.shape == expected.shape else math.inf
        yield math.inf if math.isnan(difference) else difference


def open_session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised too
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, inputs: dict[str, Tensor]) -> Tensor:
    wanted = {given.name: inputs[given.name].numpy() for given in session.get_inputs()}
    return torch.from_numpy(session.run(None, wanted)[0])


# ---- what stands before the graphs --------------------------------------------------------------------------------


def pixel_steps(image_processor: BaseImageProcessor) -> tuple[PixelSteps | None, float | None]:
    """What `prepare` of `example.py` needs to do as an image processor does, and by how many of 255 grey levels
    it differs at the most, on example pictures; (None, None) for a processor with a way of its own.
    """
    from .example import prepare

    steps = _steps_said(image_processor.to_dict(), type(image_processor))
    if steps is None:
        return None, None
    scale = np.array(steps.std)[:, None, None] / steps.rescale_factor
    difference = 0.0
    for picture in _example_pictures():
        expected, found = processed_pixels(image_processor, picture).numpy(), prepare(picture, vars(steps))[0]
        if expected.shape != found.shape:
            return None, None
        difference = max(difference, float(np.abs((expected - found) * scale).max()))
    return (steps, round(difference, 3)) if difference <= _GREY_LEVELS else (None, None)


def _steps_said(settings: dict[str, Any], kind: type) -> PixelSteps | None:
    size = {name: length for name, length in (settings.get("size") or {}).items() if length}
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    edge = size.get("shortest_edge")
    if issubclass(kind, ConvNextImageProcessor):
        crop = {"height": edge, "width": edge}
        size = {"shortest_edge": int(edge / settings["crop_pct"])} if edge < 384 else crop
        edge = size.get("shortest_edge")
    if not settings.get("do_resize") or size.keys() not in ({"shortest_edge"}, {"height", "width"}):
        return None
    if not (crop := crop or (None if edge else size)):
        return None
    normalized = settings.get("do_normalize")
    return PixelSteps(
        shortest_edge=edge,
        size=None if edge else [size["width"], size["height"]],
        crop=[crop["width"], crop["height"]],
        resample=int(settings["resample"]),
        rescale_factor=float(settings["rescale_factor"]) if settings.get("do_rescale") else 1.0,
        mean=[float(mean) for mean in settings["image_mean"]] if normalized else [0.0] * 3,
        std=[float(deviation) for deviation in settings["image_std"]] if normalized else [1.0] * 3,
    )


def _example_pictures() -> list[Image.Image]:
    """Wide and high, to be enlarged and to be reduced: waves of colour with noise."""
    draw = np.random.default_rng(0)
    pictures = []
    for width, height in ((40, 36), (333, 517), (640, 300), (1024, 1023)):
        y, x = np.mgrid[0:height, 0:width]
        waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 31)], axis=-1) * 110 + 128
        noise = draw.normal(0, 12, waves.shape)
        pictures.append(Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)))
    return pictures


def _own_way(processor: HFClipProcessor, pixels: PixelSteps | None) -> str | None:
    """Why what stands before the graphs cannot be done without transformers; None where it can."""
    if pixels is None:
        return f"{type(processor.image_processor).__name__} prepares pictures in a way of its own"
    if not processor.tokenizer.is_fast:
        return f"{type(processor.tokenizer).__name__} is written in Python and has no tokenizer.json"
    return None


def _max_text_length(model: HFClipModel, processor: HFClipProcessor) -> int | None:
    length = max_caption_length(model, processor)
    return None if length == sys.maxsize else length


def _write_tokenizer(model: HFClipModel, processor: HFClipProcessor, file: Path) -> None:
    """The tokenizer that pads and cuts by itself as the processor does.

    Raises:
        InputError: its tokens are not those of the processor.
    """
    from tokenizers import Tokenizer

    theirs = processor.tokenizer
    own = Tokenizer.from_str(theirs.backend_tokenizer.to_str())
    length = _max_text_length(model, processor)
    if length is None:
        own.no_truncation()
    else:
        own.enable_truncation(length, direction=theirs.truncation_side)
    own.enable_padding(
        direction=theirs.padding_side,
        pad_id=theirs.pad_token_id,
        pad_type_id=theirs.pad_token_type_id,
        pad_token=theirs.pad_token,
        length=length if processor.text_padding == "max_length" else None,
    )
    texts = ["A cat.", "Zwei große Hunde – 3 birds!", "猫", "  a  b ", f"{_WORDS} " * 40]
    expected = collator_of(model, processor).tokenize(texts).tokens
    found = own.encode_batch(texts)
    same = expected["input_ids"].tolist() == [text.ids for text in found]
    if "attention_mask" in expected:
        same &= expected["attention_mask"].tolist() == [text.attention_mask for text in found]
    if not same:
        raise InputError(
            f"{type(theirs).__name__} cannot be exported: its tokenizer.json gives other tokens than it does itself"
        )
    own.save(str(file))
