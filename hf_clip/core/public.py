"""What must not be told in public, decided in one place: tokens, and where things lie on a machine.

`public_name`, `without_folders` and `public_facts` take it out of names, settings and sentences; `without_secrets` out
of what is said while a token is in use; `refuse_secrets` reads all that is about to go up, whoever wrote it.
"""

import math
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import huggingface_hub

from .errors import InputError

# The Hub's tokens; the names that this project gives begin with hf_ too.
_TOKEN = re.compile(r"\bhf_(?!clip[_-])[A-Za-z0-9_-]{16,}")
_SECRET_KEYS = ("token", "password", "secret")  # end the names of settings whose value nobody is told
FROM_SCRATCH = "scratch/"  # begins the name of a tower without pretrained weights
# What may be a path in a sentence; in an address (https://…) a host stands before it.
_PATH = re.compile(r"(?<![\w/.~])~?(?:/[\w.@+-]*[\w@+-])+")
# The same where a page is read over once more: after any sign but those that stand before it in tags and addresses.
_ANY_PATH = re.compile(r"(?<![\w.<])(?:/[\w.@+-]+)+")
# In a name, what comes before a path's last part.
_FOLDERS = re.compile(r"(?<![\w/.~])~?/(?:[\w.@+-]+/)+")
# What is a path in a sentence too.
_SURELY_PATH = re.compile(r"\bfile://(?:/?[\w.@+-]+/)*/?|\b[A-Za-z]:\\(?:[^\\\s]+\\)*")
_NUMBERS = (".safetensors", ".onnx", ".data", ".pt", ".pth", ".bin", ".png", ".model")  # no text is in these
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")  # where "/home/" is a word like others


# ---- taken out ----------------------------------------------------------------------------------------------------


def is_path(name: str) -> bool:
    """Whether a name leads to a place on a machine, this or another, and not to the Hub."""
    if not name or "\n" in name:
        return False
    return name.startswith((".", "~")) or _absolute(name) is not None or _exists(Path(name))


def public_name(name: str) -> str:
    """A Hub id or a word as it is; of a path its last part: where it lies is nobody's business."""
    before = FROM_SCRATCH if name.startswith(FROM_SCRATCH) else ""
    rest = name.removeprefix(before)
    if not is_path(rest):
        return name
    return before + (_absolute(rest) or Path(os.path.abspath(os.path.expanduser(rest)))).name


def without_folders(value: Any) -> Any:
    """JSON in which a text that is a path says only its last part."""
    if isinstance(value, dict):
        return {name: without_folders(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    return _last_part(value) if isinstance(value, str) else value


def public_facts(value: Any, sentences: Collection[str] = (), *, in_sentence: bool = False) -> Any:
    """JSON without tokens, secret settings and folders of a machine; a number that JSON lacks is None.

    Args:
        sentences: names of fields that are prose: of a path in it the words around it stay.
    """
    if isinstance(value, dict):
        return {
            name: public_facts(inner, sentences, in_sentence=in_sentence or name in sentences)
            for name, inner in value.items()
            if not name.endswith(_SECRET_KEYS)
        }
    if isinstance(value, list):
        return [public_facts(inner, sentences, in_sentence=in_sentence) for inner in value]
    if isinstance(value, str):
        text = value if in_sentence else _FOLDERS.sub("", _last_part(value))
        return _TOKEN.sub("…", _SURELY_PATH.sub("", _PATH.sub(_without_folder, text)))
    return None if isinstance(value, float) and not math.isfinite(value) else value


def skipped_in_public(skipped: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """What could not be read, by names that say nothing of the machine; the reason may hold the path once more."""
    return [[row, public_name(name), reason.replace(name, public_name(name))] for row, name, reason in skipped]


def without_secrets(text: str, token: str) -> str:
    """No token, no name and password before a host, no query of an address."""
    text = text.replace(token, "(token)") if token else text
    return re.sub(r"(https?://)[^\s/@'\"]+@", r"\1", re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text))


# ---- refused ------------------------------------------------------------------------------------------------------


def refuse_secrets(folder: Path, source: Path, token: str | None = None) -> None:
    """
    Args:
        folder: is about to go up.
        source: what it was made of.
        token: the Hub's, beside that which this machine has.

    Raises:
        InputError: a token, or a path of this machine, in one of the folder's texts.
    """
    tokens = [each for each in (token, huggingface_hub.get_token()) if each]
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in _NUMBERS):
        text, name = file.read_text(encoding="utf-8", errors="replace"), file.relative_to(folder)
        if any(each in text for each in tokens) or _TOKEN.search(text):
            raise InputError(f"{name} would hold an access token: take it out of what the card or the run says")
        if file.name not in _VOCABULARIES and (path := next(_paths_of_this_machine(text, source), None)):
            raise InputError(f"{name} would tell of {path} on this machine: name it otherwise")


def _paths_of_this_machine(text: str, source: Path) -> Iterator[str]:
    for found in _ANY_PATH.finditer(text):
        if _is_of_this_machine(Path(found[0]), source.resolve().parent):
            yield found[0]


# ---- paths --------------------------------------------------------------------------------------------------------


def _absolute(text: str) -> PurePosixPath | PureWindowsPath | None:
    """The path that a text is, and may hold spaces; None where it is none that begins at a root."""
    paths = (kind(text) for kind in (PurePosixPath, PureWindowsPath) if "\n" not in text)
    return next((path for path in paths if path.is_absolute()), None)


def _last_part(text: str) -> str:
    path = _absolute(text)
    return path.name if path and len(path.parts) > 2 else text


def _without_folder(found: re.Match[str]) -> str:
    """The last name of a path of this machine; what only looks like a path stays."""
    path = Path(found[0]).expanduser() if found[0].startswith("~/") else Path(found[0])
    return path.name if _is_of_this_machine(path) else found[0]


def _is_of_this_machine(path: Path, *own: Path) -> bool:
    folders = (Path.home(), Path.cwd(), Path(tempfile.gettempdir()), *own)
    inside = any(folder.name and path.is_relative_to(folder) for folder in folders)
    return len(path.parts) > 2 and (inside or _exists(path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a folder that nobody may read
        return False
