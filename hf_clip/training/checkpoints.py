"""Which of a run's checkpoints stay."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from transformers.trainer_utils import sort_checkpoints

from ..core.atomic import STAGING, discard


def remove_oldest(run: Path, limit: int | None, kept: Collection[str]) -> None:
    """Removes a run's checkpoints beyond `limit`, oldest first, but none with a name in `kept`.

    Each is renamed before: what is half removed is no checkpoint.
    """
    checkpoints = [Path(path) for path in sort_checkpoints(str(run), use_mtime=True)]
    surplus = max(len(checkpoints) - limit, 0) if limit and limit > 0 else 0
    for checkpoint in [path for path in checkpoints if path.name not in kept][:surplus]:
        aside = run / STAGING / checkpoint.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        os.rename(checkpoint, aside)
        discard(aside)
