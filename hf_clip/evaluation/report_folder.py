"""The folder that a report is written into."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import InputError
from ..core.json_files import read_json
from ..core.public import public_name
from .records import DataFacts

FOLDER = "evaluation"  # in that of a model: the reports that are published with it
# The Trainer's arguments, which do not go to the Hub, and what hf_clip says of a run: a download is no run's folder.
_OF_A_RUN = ("training_args.bin", "training.json")


def prepare_folder(name: str | Path, results: str) -> Path:
    """Makes the folder before any work. What an earlier report left in it stays until the new one is written.

    Args:
        results: the file by which a folder is known to hold such a report.

    Raises:
        InputError: the folder cannot be written, or holds something else.
    """
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(file.is_file() for file in folder.rglob("*")) and not _is_report(folder / results):
            raise InputError(f"output {folder} is not empty and holds no {results}: give another folder")
    except OSError as error:
        reason = "Not a directory" if folder.exists() and not folder.is_dir() else error.strerror
        raise InputError(f"output {folder} is no folder that can be written: {reason}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"output {folder} is no folder that can be written: Permission denied")
    return folder


def folder_in_run(model: object, data: DataFacts, tasks: Sequence[str]) -> Path | None:
    """Where a report on a run's model belongs, from which its card is made; None of any other model, and of a run's
    checkpoint, which goes when there are newer ones.

    One for each content of the data and each choice of tasks: what is measured again takes the place of the last.
    """
    if not isinstance(model, str | Path) or Path(model).name.startswith("checkpoint-"):
        return None
    if not all(Path(model, name).is_file() for name in _OF_A_RUN):
        return None
    name = re.sub(r"[^\w.-]+", "-", public_name(data.name)).strip("-.")
    return Path(model, FOLDER, "-".join([name, data.fingerprint[:6], *(task.rpartition(":")[2] for task in tasks)]))


def _is_report(file: Path) -> bool:
    """Whether it is one of ours: other tools call theirs results.json too."""
    try:
        return "pictures" in read_json(file)
    except (OSError, InputError):
        return False
