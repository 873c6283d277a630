"""The ONNX graphs of an export with 8-bit weights, and the recall that they cost."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data.dataset import CaptionedImages
from ...data.sources import Source
from ...data.split import content_keys, split_by_image
from ...embeddings.encode import embed_source, is_convolutional
from ...embeddings.options import EmbedOptions
from ...embeddings.provenance import data_facts
from ...evaluation.tasks.retrieval import KS, evaluate_retrieval
from ...models.modeling_hf_clip import HFClipModel
from ...models.processing_hf_clip import HFClipProcessor
from .export import open_session, quiet, run_session
from .record import EXPORT, GRAPHS, INT8_GRAPHS, Calibration, Int8Data, Int8Recall, Int8Record, OnnxRecord

_CALIBRATED_ON = 64
_SAME_PICTURES = "the 8-bit image graph was calibrated on some of the pictures that it is measured on"


class GraphModel(nn.Module):
    """Embeds by onnxruntime what a model would embed by torch, for `embed_source`.

    Args:
        folder: of an export.
        graphs: names of the files, by tower.
        model: whose graphs they are.
    """

    def __init__(self, folder: Path, graphs: dict[str, str], model: HFClipModel):
        super().__init__()
        self.sessions = {tower: open_session(folder / file) for tower, file in graphs.items()}
        self.config, self.device = model.config, torch.device("cpu")
        self.text_model = model.text_model  # which says how long a text may be
        self.vision_model = nn.Module()  # none of whose layers wants its pictures channels-last

    def forward(self, pixel_values: Tensor, return_logits: bool = False, **tokens: Tensor) -> SimpleNamespace:
        return SimpleNamespace(
            image_embeds=run_session(self.sessions["vision"], {"pixel_values": pixel_values.contiguous()}),
            text_embeds=run_session(self.sessions["text"], tokens) if tokens else None,
        )


def add_int8(
    folder: Path,
    record: OnnxRecord,
    model: HFClipModel,
    processor: HFClipProcessor,
    source: Source,
    options: EmbedOptions | None = None,
) -> OnnxRecord:
    """Adds both graphs with 8-bit weights to an export, and to what `export.json` says, under "int8", what they cost:
    recall of fp32 and int8 at each k both ways, beside chance.

    A transformer's weights are quantised alone, its activations as they come; a convolutional tower's activations have
    fixed ranges, those of 64 pictures of the source, for ranges that are found anew each time make it slower than
    fp32. Of more than 128 pictures these 64 are left out of the measurement; of fewer a note says that they are not.
    Weights keep 7 bits: where a CPU lacks VNNI, the products of 8 overflow, and the figures would be another
    CPU's.

    Args:
        record: of `export_onnx`.
        source: held-out pictures with captions.

    Raises:
        InputError: not one picture can be read, or one has no caption.
    """
    is_static = is_convolutional(model)
    measured, calibrating = _apart(source) if is_static else (source, None)
    metrics = {"fp32": _recalls(folder, GRAPHS, model, processor, measured, options)}
    calibration = None
    with quiet():
        _quantize_dynamic(folder, "text")
        if calibrating is None:
            _quantize_dynamic(folder, "vision")
        else:
            pictures = list(_calibration_pictures(processor, calibrating))
            _quantize_static(folder, iter(pictures))
            calibration = Calibration(len(pictures), measured_too=calibrating is measured)
    metrics["int8"] = _recalls(folder, INT8_GRAPHS, model, processor, measured, options)
    notes = [_SAME_PICTURES] if calibration and calibration.measured_too else []
    images, captions, skipped = (int(metrics["fp32"][name]) for name in ("images", "captions", "skipped_images"))
    cost = Int8Record(
        data=Int8Data(**data_facts(source), images=images, captions=captions, skipped_images=skipped),
        methods={"text": "dynamic", "vision": "static" if is_static else "dynamic"},
        calibration=calibration,
        bytes={file: (folder / file).stat().st_size for file in (*GRAPHS.values(), *INT8_GRAPHS.values())},
        k=[k for k in KS if f"image_retrieval_recall@{k}" in metrics["fp32"]],
        recall={
            name: Int8Recall(value, metrics["int8"][name], metrics["fp32"][_chance(name)])
            for name, value in metrics["fp32"].items()
            if "_recall@" in name
        },
    )
    record = replace(record, notes=record.notes + notes, int8=cost)
    record.write(folder / EXPORT)
    return record


def _apart(source: Source) -> tuple[Source, Source]:
    """(pictures to measure on, pictures to calibrate on): the same ones where there are too few for both."""
    pictures = len(np.unique(content_keys(source)))
    if pictures <= 2 * _CALIBRATED_ON:
        return source, source
    return split_by_image(source, _CALIBRATED_ON / pictures)


def _chance(name: str) -> str:
    return name.replace("_recall@", "_chance@")


def _recalls(
    folder: Path,
    graphs: dict[str, str],
    model: HFClipModel,
    processor: HFClipProcessor,
    source: Source,
    options: EmbedOptions | None,
) -> dict[str, float]:
    by_graphs: Any = GraphModel(folder, graphs, model)
    return evaluate_retrieval(embed_source(by_graphs, processor, source, options)).metrics


def _quantize_dynamic(folder: Path, tower: str) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(
        folder / GRAPHS[tower],
        folder / INT8_GRAPHS[tower],
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        per_channel=True,
        reduce_range=True,
    )


def _quantize_static(folder: Path, pictures: Iterator[np.ndarray]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Pictures(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(pictures, None)
            return None if picture is None else {"pixel_values": picture}

    quantize_static(
        folder / GRAPHS["vision"],
        folder / INT8_GRAPHS["vision"],
        Pictures(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
    )


def _calibration_pictures(processor: HFClipProcessor, source: Source) -> Iterator[np.ndarray]:
    """(1, 3, height, width) each, from all over the source."""
    images = CaptionedImages(source, processor.image_processor)
    for row in np.linspace(0, len(source) - 1, min(_CALIBRATED_ON, len(source)), dtype=int):
        item = images[int(row)]
        if "pixel_values" in item:
            yield item["pixel_values"][None].numpy()
