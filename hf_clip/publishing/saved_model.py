"""A folder with a saved model, or an adapter: opened once, and asked for what it holds by all that is made of it."""

import math
from functools import cached_property
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..core.digests import weights_digest
from ..core.errors import InputError
from ..core.families import Family, families, family_of, load
from ..core.json_files import read_json
from ..core.training_record import TRAINING, TrainingRecord
from .hub_ids import is_hub_id
from .onnx.record import EXAMPLE, EXPORT, ONNX, OnnxRecord

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "position_ids")


class SavedModel:
    """Each file is read when it is first asked for, and once.

    Args:
        family: of the model; default: what the folder says.

    Attributes:
        adapter: of an adapter its settings, else empty.
    """

    def __init__(self, folder: str | Path, family: Family | None = None):
        self.folder = Path(folder)
        self._family = family
        self.is_adapter = (self.folder / ADAPTER_CONFIG_NAME).is_file()
        self.adapter = read_json(self.folder / ADAPTER_CONFIG_NAME)

    def check_holds_model(self) -> None:
        """
        Raises:
            InputError: the folder has neither a whole model nor an adapter.
        """
        if not self.is_adapter and not ((self.folder / CONFIG_NAME).is_file() and self.weights):
            raise InputError(
                f"{self.folder} holds no model ({CONFIG_NAME}, {SAFE_WEIGHTS_NAME}): give the folder of a trained one"
            )

    # ---- the model ------------------------------------------------------------------------------------------------

    @property
    def base(self) -> str | None:
        """What an adapter is laid over; None of a whole model."""
        return self.adapter.get("base_model_name_or_path")

    @cached_property
    def config(self) -> dict[str, object]:
        """What `config.json` says: of an adapter that of its base, where it is on this machine, else nothing."""
        own = read_json(self.folder / CONFIG_NAME)
        if own or not self.base:
            return own
        cached = try_to_load_from_cache(self.base, CONFIG_NAME) if is_hub_id(self.base) else None
        return read_json(Path(cached) if isinstance(cached, str) else Path(self.base, CONFIG_NAME))

    @cached_property
    def processor(self) -> dict[str, object]:
        """What `processor_config.json` says."""
        return read_json(self.folder / "processor_config.json")

    @cached_property
    def family(self) -> Family:
        """
        Raises:
            InputError: nothing there says which, or hf_clip knows no such family.
        """
        if self._family:
            return self._family
        if "model_type" in self.config:
            return family_of(str(self.config["model_type"]))
        # Of an adapter whose base is away, or of none that has a name, its processor tells.
        saved_by = self.is_adapter and self.processor.get("processor_class")
        found = next((each for each in families() if load(each.processor).__name__ == saved_by), None)
        if found is None:
            raise InputError(
                f"{self.folder} does not say what kind of model it holds (no model_type in config.json; of an "
                "adapter, no processor of one that hf_clip knows): save model and processor there with save_pretrained"
            )
        return found

    @cached_property
    def weights(self) -> list[Path]:
        """One file, or those that the index names; no other that may lie there."""
        if (self.folder / SAFE_WEIGHTS_NAME).is_file():
            return [self.folder / SAFE_WEIGHTS_NAME]
        index = read_json(self.folder / SAFE_WEIGHTS_INDEX_NAME)
        return [self.folder / name for name in sorted(set(index.get("weight_map", {}).values()))]

    @cached_property
    def tensors(self) -> dict[str, int]:
        """Of the weights' tensors that are parameters: how many numbers each holds."""
        sizes: dict[str, int] = {}
        for file in self.weights:
            with safe_open(file, "np") as weights:
                sizes |= {name: math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        return {name: size for name, size in sizes.items() if not name.endswith(_BUFFERS)}

    @property
    def parameters(self) -> int | None:
        """How many there are; None where there are no weights."""
        return sum(self.tensors.values()) or None

    @cached_property
    def digest(self) -> str:
        """Of the model, opened."""
        return weights_digest(load(self.family.open_model)(str(self.folder))[0])

    # ---- what lies beside it --------------------------------------------------------------------------------------

    @cached_property
    def training(self) -> TrainingRecord | None:
        """What the run says of itself.

        Raises:
            InvalidRecord: `training.json` is not as the family's runs write it.
        """
        file = self.folder / TRAINING
        kind: type[TrainingRecord] = load(self.family.card).facts.training_kind()
        return kind.read(file) if file.is_file() else None

    @cached_property
    def onnx(self) -> OnnxRecord | None:
        """What the export in `onnx` says of itself.

        Raises:
            InvalidRecord: its `export.json` is not as an export writes it.
        """
        file = self.folder / ONNX / EXPORT
        return OnnxRecord.read(file) if file.is_file() else None

    @property
    def has_onnx_example(self) -> bool:
        return (self.folder / ONNX / EXAMPLE).is_file()

    @property
    def has_sentence_transformers(self) -> bool:
        return (self.folder / "modules.json").is_file()

    @property
    def pictures(self) -> list[str]:
        """Paths within the folder."""
        return sorted(f"pictures/{file.name}" for file in self.folder.glob("pictures/*.png"))
