"""The transformers that the files beside a saved model need, looked at before anything that an older one lacks.

The first import of every file that travels: whoever opens a model with an older transformers reads what to install,
and not the name that happens to be missing.
"""

import re

import transformers

TRANSFORMERS = "5.23"  # pyproject.toml has the same


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (5, 23, 0) of "5.23.0.dev0"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


if _release(transformers.__version__) < _release(TRANSFORMERS):
    raise ImportError(
        f"hf_clip models need transformers {TRANSFORMERS} or newer, and this is {transformers.__version__}: "
        f'pip install "transformers>={TRANSFORMERS}"'
    )
