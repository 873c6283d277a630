"""The examples of a model card: written for a stranger, run on the folder that he will download."""

import ast
import importlib.util
import json
import os
import site
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from ...core.errors import InputError
from ...core.temporary import temporary_folder
from ...models.requirements_hf_clip import TRANSFORMERS
from ..onnx import record as onnx
from ..saved_model import SavedModel
from .facts import Example

ONNX = f"{onnx.ONNX}/{onnx.EXAMPLE}"
# What opens the code beside the weights, and has been tried: an older release lacks names that it imports.
_TRANSFORMERS = f'"transformers>={TRANSFORMERS},<{int(TRANSFORMERS.partition(".")[0]) + 1}"'
# What an example may need beside transformers.
_PACKAGES = ("hf_clip", "sentence_transformers", "onnxruntime", "peft")
# No other variable reaches an example: a token may stand in any of them.
_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TMPDIR", "SYSTEMROOT")

_RUNNER = """
import contextlib, importlib.abc, io, json, os, sys

examples, with_hf_clip, name, folder, results = json.load(sys.stdin)


class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, module, path=None, target=None):
        if module.split(".")[0] == "hf_clip":
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


if not with_hf_clip:
    sys.meta_path.insert(0, Refuse())

import huggingface_hub

download, snapshot = huggingface_hub.hf_hub_download, huggingface_hub.snapshot_download


def from_folder(repo_id, filename, **settings):
    return os.path.join(folder, filename) if repo_id == name else download(repo_id, filename, **settings)


def whole_folder(repo_id, **settings):
    return folder if repo_id == name else snapshot(repo_id, **settings)


huggingface_hub.hf_hub_download, huggingface_hub.snapshot_download = from_folder, whole_folder
outputs = []
for title, code in examples:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "example", "exec"), {"__name__": "__main__"})
    except BaseException as error:
        outputs.append({"error": f"{type(error).__name__}: {error}"})
        break
    outputs.append({"output": printed.getvalue()})
with open(results, "w", encoding="utf-8") as file:
    json.dump(outputs, file)
"""


def literal(text: str) -> str:
    """A text as Python, on one line."""
    return json.dumps(text, ensure_ascii=False)


# ---- run ----------------------------------------------------------------------------------------------------------


def run_examples(saved: SavedModel, name: str, examples: Sequence[Example]) -> list[Example]:
    """The examples with what they print, word for word as they stand: `name` leads to the folder while they run.

    They run on the CPU, without network or token, in processes of their own: one for those of transformers, in which
    hf_clip cannot be imported, one for each other package. Those of a package that is not installed, and of an
    adapter whose base is not on this machine, come back without output.

    Raises:
        InputError: an example fails; it is named.
    """
    done = list(examples)
    groups: dict[frozenset[str], list[int]] = {}
    for place, example in enumerate(examples):
        groups.setdefault(_needed(example.code), []).append(place)
    for needed, places in groups.items():
        if all(map(importlib.util.find_spec, needed)) and _has_base(saved.base):
            outputs = _run(saved.folder, name, [examples[place] for place in places], needed)
            for place, output in zip(places, outputs, strict=True):
                done[place] = replace(examples[place], output=output)
    return done


def _needed(code: str) -> frozenset[str]:
    """Which of `_PACKAGES` an example imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += ["onnxruntime"] if ONNX in code else []
    return frozenset(_PACKAGES).intersection(name.split(".")[0] for name in names)


def needs(code: str, extra: Sequence[str] = (), *, adapter: bool) -> tuple[list[str], bool]:
    """(what `pip install` is given for an example, whether it needs hf_clip as well).

    Args:
        extra: what opening the model takes beside transformers.
        adapter: the repository is an adapter, which transformers opens with peft.
    """
    own = _needed(code)
    extra = [*extra, *(["peft"] if adapter or "peft" in own else [])]
    if "onnxruntime" in own:
        return ["onnxruntime", "tokenizers", "numpy", "pillow", "huggingface_hub"], False
    if "hf_clip" in own:
        return extra, True
    if "sentence_transformers" in own:
        return ['"sentence-transformers>=6.2"', _TRANSFORMERS, "torchvision", "pillow", *extra], False
    if "AutoModel" in code or extra:
        return [_TRANSFORMERS, "torch", "torchvision", "accelerate", "pillow", *extra], False
    return [], False


def _has_base(base: str | None) -> bool:
    """Whether an adapter, laid over that, can be opened here at all."""
    if base is None:
        return True
    there = Path(base).is_dir() or isinstance(try_to_load_from_cache(base, "config.json"), str)
    return there and importlib.util.find_spec("peft") is not None


def _run(folder: Path, name: str, examples: Sequence[Example], needed: frozenset[str]) -> list[str]:
    """What each prints, in one process."""
    with temporary_folder() as place:
        link = place / "here" / name  # where the name, as a relative path, leads to the folder
        link.parent.mkdir(parents=True)
        link.symlink_to(folder.resolve(), target_is_directory=True)
        results = place / "results.json"
        codes = [(example.title, example.code) for example in examples]
        process = subprocess.run(
            [sys.executable, "-c", _RUNNER],
            input=json.dumps([codes, "hf_clip" in needed, name, str(folder.resolve()), str(results)]),
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=_environment(str(place)),
            cwd=place / "here",
        )
        outcomes = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else []
    if len(outcomes) < len(examples) or "error" in outcomes[-1]:
        failed = examples[max(len(outcomes) - 1, 0)]
        error = outcomes[-1]["error"] if outcomes else process.stderr
        last = (error.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise InputError(
            f"{folder}: the card's example {failed.title!r} fails ({last}): mend the folder, or write the card "
            "without running its examples"
        )
    return [outcome["output"].replace(str(folder.resolve()), name).strip() for outcome in outcomes]


def _environment(place: str) -> dict[str, str]:
    """Of a process that knows no token, no network and no GPU, and has no code of models that others left."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {
        "HOME": place,
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONSAFEPATH": "1",  # a repository "user/torch" must not be taken for a package
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "ignore",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": place,
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,
        "HF_MODULES_CACHE": str(Path(place, "modules")),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
