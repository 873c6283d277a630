"""`hf_clip.export`: a trained model as ONNX graphs that need no torch."""

from dataclasses import dataclass
from pathlib import Path

from ..core.atomic import replaced
from ..core.errors import InputError
from ..data.given import Data, as_source
from ..embeddings.options import EmbedOptions
from ..models.trained import TrainedModel, keep_modes, name_of, open_trained
from .hub import file_sizes
from .onnx.export import export_onnx, require_onnx
from .onnx.int8 import add_int8
from .onnx.record import FILES, OnnxRecord


@dataclass(frozen=True)
class Export:
    """
    Attributes:
        folder: where it lies.
        record: what `export.json` says: inputs, shapes, how far the graphs are from torch, what 8 bits cost.
        files: the bytes of each, by its name.
    """

    folder: Path
    record: OnnxRecord
    files: dict[str, int]


@keep_modes
def export(
    model: TrainedModel,
    output: str | Path | None = None,
    *,
    int8_data: Data | None = None,
    options: EmbedOptions | None = None,
) -> Export:
    """Writes both towers of a trained model as ONNX, with what it takes to use them without torch.

        hf_clip.export("my_clip")                        # my_clip/onnx
        hf_clip.export("my_clip", int8_data="held_out")  # with 8-bit weights too, and the recall that they cost

    Args:
        model: a folder, a Hub id, or the pair (model, processor).
        output: the folder for the files, which an earlier export may be in; default: onnx in the model's own folder,
            or NAME_onnx for a Hub id.
        int8_data: held-out images with captions, to measure graphs with 8-bit weights on; None: only fp32.
        options: how these are embedded.

    Raises:
        InputError: a tower that cannot be exported, or whose graph says something else; a folder that holds what no
            export wrote; strict `options` without int8_data; packages that are missing.
    """
    if int8_data is None and options is not None and options.strict:
        raise InputError("options that are strict can change nothing without int8_data: leave out, or give it")
    require_onnx()
    folder, name = _folder(model, output), name_of(model)
    source = None if int8_data is None else as_source(int8_data)
    opened, processor = open_trained(model)
    with replaced(folder) as aside:
        record = export_onnx(opened, processor, aside, name=name)
        if source is not None:
            record = add_int8(aside, record, opened, processor, source, options)
    return Export(folder, record, file_sizes(folder))


def _folder(model: TrainedModel, output: str | Path | None) -> Path:
    """Where to, as the user would write it.

    Raises:
        InputError: it holds files that no export wrote, which would be lost.
    """
    if output is not None:
        folder = Path(output)
    elif not isinstance(model, str | Path):
        raise InputError("a model that is opened already has no folder to be exported into: give output")
    else:
        folder = Path(model, "onnx") if Path(model).is_dir() else Path(f"{name_of(model).rpartition('/')[2]}_onnx")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output {folder} is a file: give a folder")
    foreign = sorted(file.name for file in folder.iterdir() if file.name not in FILES) if folder.exists() else []
    if foreign:
        raise InputError(f"{folder} holds {foreign[0]}, which no export wrote: give another folder by output")
    return folder
