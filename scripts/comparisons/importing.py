"""How much longer `import hf_clip` takes than importing the classes of transformers that it extends."""

import subprocess
import sys

from .measuring import Measured, Row, alternate
from .sides import Settings

EXTENDED = "from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin"


def above_transformers(settings: Settings) -> list[Row]:
    """Each import in a process of its own, in turn."""
    sides = {"ours": lambda: _run("import hf_clip"), "peer": lambda: _run(EXTENDED)}
    times = alternate(sides, settings.rounds, settings.device)
    above = [ours - peer for ours, peer in zip(times["ours"], times["peer"], strict=True)]
    return [
        Row(
            "import hf_clip, above its classes of transformers",
            Measured("import hf_clip, less the other side", above, "s"),
            None,
            0.3,
            at_least=False,
        )
    ]


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)
