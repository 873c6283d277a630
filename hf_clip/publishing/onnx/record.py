"""What an export as ONNX graphs says of itself, `export.json`, and the files that it consists of."""

from dataclasses import dataclass, field

from huggingface_hub.dataclasses import strict

from ...core.records import Record

ONNX, EXPORT, EXAMPLE = "onnx", "export.json", "example.py"
GRAPHS = {"text": "text_model.onnx", "vision": "vision_model.onnx"}
INT8_GRAPHS = {"text": "text_model_int8.onnx", "vision": "vision_model_int8.onnx"}
_GRAPH_FILES = (*GRAPHS.values(), *INT8_GRAPHS.values())
DECODING = "decoding_hf_clip.py"  # carried beside the example as it stands
# All that an export may write; the weights of a graph of more than 2 GB lie in a file beside it.
FILES = frozenset(
    {*_GRAPH_FILES, *(f"{file}.data" for file in _GRAPH_FILES), EXPORT, "tokenizer.json", EXAMPLE, DECODING}
)
Shapes = dict[str, list[str | int]]


@strict
@dataclass
class ExportedModel(Record):
    name: str
    digest: str


@strict
@dataclass
class PixelSteps(Record):
    """What `prepare` of `example.py` does to a picture.

    Args:
        shortest_edge, size: what it is resized to; `size` is (width, height).
        crop: (width, height) of what is cut out of its middle.
        resample: Pillow's number of the filter.
        rescale_factor, mean, std: then (pixels · `rescale_factor` − `mean`) / `std`, RGB.
    """

    shortest_edge: int | None
    size: list[int] | None
    crop: list[int]
    resample: int
    rescale_factor: float
    mean: list[float]
    std: list[float]


@strict
@dataclass
class Differences(Record):
    """The largest from torch's embeddings, and in grey levels (of 255) from the pixels of the image processor."""

    text_embeds: float
    image_embeds: float
    grey_levels: float | None = None


@strict
@dataclass
class Int8Recall(Record):
    fp32: float
    int8: float
    chance: float


@strict
@dataclass
class Int8Data(Record):
    """What the cost of 8-bit weights was measured on."""

    name: str
    split: str
    fingerprint: str
    images: int
    captions: int
    skipped_images: int


@strict
@dataclass
class Calibration(Record):
    """Pictures that ranges of activations were fixed on, and whether the figures are of them, too."""

    images: int
    measured_too: bool


@strict
@dataclass
class Int8Record(Record):
    """What the graphs with 8-bit weights cost.

    Args:
        methods: "static" or "dynamic", by tower.
        bytes: of the graphs, by file.
        recall: by metric.
    """

    data: Int8Data
    methods: dict[str, str]
    calibration: Calibration | None
    bytes: dict[str, int]
    k: list[int]
    recall: dict[str, Int8Recall]


@strict
@dataclass
class OnnxRecord(Record):
    """
    Args:
        text_inputs: of the text graph, in its order.
        probabilities: what makes them of the logits, "softmax" or "sigmoid".
        shapes: of inputs and outputs; a text is a size that is free.
        pixels: None where the image processor has a way of its own.
        compared_on: shapes of the inputs that the graphs were compared with torch on.
        notes: what whoever uses it must know, in sentences.
    """

    version = 1

    hf_clip: str
    model: ExportedModel
    opset: int
    text_inputs: list[str]
    shapes: Shapes
    loss: str
    probabilities: str
    exp_logit_scale: float
    logit_bias: float | None
    text_padding: str
    max_text_length: int | None
    pixels: PixelSteps | None
    largest_difference: Differences
    compared_on: dict[str, list[str]]
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)
    int8: Int8Record | None = None

    @classmethod
    def upgraded(cls, value: dict[str, object], version: int) -> dict[str, object]:
        """An older export has no `probabilities`: of its two losses one has a bias."""
        return {"probabilities": "softmax" if value.get("logit_bias") is None else "sigmoid"} | value

    def to_json(self) -> dict[str, object]:
        """Without graphs that are not there."""
        return {name: value for name, value in super().to_json().items() if name != "int8" or value is not None}
