"""A PEFT adapter as others open it: its weights and its processor, over a base that has a name on the Hub."""

import shutil
from pathlib import Path

from transformers.utils import CONFIG_NAME
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME

from ..core.errors import InputError, first_line
from ..core.families import load
from ..core.json_files import write_json
from .hub_ids import is_hub_id
from .saved_model import SavedModel

# What `AutoPeftModel` builds the base with. PEFT itself writes the module of the class that was trained: one that it
# refuses to import, and whose name, for code out of a folder, is made of that folder's path.
_OPENED_BY = {"base_model_class": "AutoModel", "parent_library": "transformers"}


def stage_adapter(saved: SavedModel, target: Path, base_model: str | None = None) -> str:
    """Writes what an adapter's repository holds: weights, settings with the base's name, processor and code.

    `AutoModel`, the pipelines and sentence-transformers open it with `trust_remote_code=True` wherever peft is
    installed, and so do `PeftModel` and `AutoPeftModel`. It has no `config.json`: with one, transformers would take
    the folder for a whole model.

    Args:
        saved: an adapter and its processor (`HFClipTrainer` saves both).
        base_model: Hub id of the model that the adapter was trained over; default: what the adapter says.

    Returns:
        The Hub id of the base.

    Raises:
        InputError: for an adapter without weights, a processor or a base on the Hub; for a folder that holds a whole
            model too.
    """
    source = saved.folder
    _refuse_incomplete(source)
    base = _public_base(saved.base, base_model)
    settings = saved.adapter | {
        "base_model_name_or_path": base,
        "auto_mapping": None if saved.adapter.get("task_type") else _OPENED_BY,
    }
    if base_model is not None:
        settings["revision"] = None  # it was the other base's
    try:
        family = saved.family
        processor = load(family.processor).from_pretrained(source)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{source} holds an adapter without its processor ({first_line(error)}): add it with "
            "processor.save_pretrained"
        ) from error
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / ADAPTER_SAFE_WEIGHTS_NAME, target / ADAPTER_SAFE_WEIGHTS_NAME)
    write_json(target / ADAPTER_CONFIG_NAME, settings)
    processor.save_pretrained(target)
    if family.write_files:
        load(family.write_files)(source, target, None, processor)
    return base


def _refuse_incomplete(source: Path) -> None:
    if (source / CONFIG_NAME).is_file():
        raise InputError(
            f"{source} holds an adapter ({ADAPTER_CONFIG_NAME}) and a whole model ({CONFIG_NAME}): leave one of them"
        )
    if not (source / ADAPTER_SAFE_WEIGHTS_NAME).is_file():
        raise InputError(f"{source} has no {ADAPTER_SAFE_WEIGHTS_NAME}: save the adapter with save_pretrained")


def _public_base(trained_over: str | None, base_model: str | None) -> str:
    if base_model is not None:
        if not is_hub_id(base_model):
            raise InputError(f"base_model {base_model!r} is no Hub id: give user/name")
        return base_model
    if not trained_over or not is_hub_id(trained_over) or Path(trained_over).exists():
        raise InputError(
            "the adapter was trained over a model that is not on the Hub, so nobody could open it: publish that model "
            "and give base_model user/name, or merge the adapter (model.merge_and_unload()) and publish the whole"
        )
    return trained_over
