"""The code beside a saved model, by which it opens where hf_clip is not installed.

A class says in `auto_map` what opens it. The files that are named there travel, and those that they import, and
nothing else: who trusts a folder's code has no more of it to read than the model needs.
"""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedConfig, ProcessorMixin
from transformers.dynamic_module_utils import get_relative_imports
from transformers.utils import cached_file

_HERE = Path(__file__).parent
Saved = PreTrainedConfig | ProcessorMixin


def name_classes(config: PreTrainedConfig, classes: dict[str, str]) -> None:
    """Has the `auto_map` of a configuration say `classes`, as {"AutoModel": "modeling_x_hf_clip.X"}.

    Entries that name other files stay, and are preferred: they are of a subclass that registered itself
    (`register_for_auto_class`).
    """
    replaced = {_file_of(reference) for reference in classes.values()}
    entries = {name: _at_home(reference) for name, reference in (getattr(config, "auto_map", None) or {}).items()}
    kept = {name: reference for name, reference in entries.items() if _file_of(reference) not in replaced}
    config.auto_map = classes | kept


def copy_code(folder: str | os.PathLike, config: Saved) -> None:
    """Copies the files that the `auto_map` and `custom_pipelines` of a configuration or processor name, and those that
    these import, into a folder.

    Where this very file was opened out of a saved folder, transformers has brought only what one class imports: what
    others need is taken from where the configuration was opened. A file that is not there either is left to its owner:
    transformers copies what a user's class needs, and a processor brings its own.
    """
    waiting = {_file_of(reference) for reference in _references(config) if "--" not in reference}
    copied: set[str] = set()
    while waiting:
        copied.add(name := waiting.pop())
        if source := _find(f"{name}.py", config):
            waiting |= set(get_relative_imports(source)) - copied
            if source.parent.resolve() != Path(folder).resolve():
                shutil.copyfile(source, Path(folder, source.name))


def _find(file: str, config: Saved) -> Path | None:
    if (_HERE / file).is_file():
        return _HERE / file
    origin = getattr(config, "name_or_path", None)  # a folder, or a repository whose files may be in the cache
    found = origin and cached_file(
        origin,
        file,
        revision=getattr(config, "_commit_hash", None),
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return Path(found) if found else None


def _references(config: Saved) -> Iterator[str]:
    for named in (getattr(config, "auto_map", None) or {}).values():
        yield from filter(None, [named] if isinstance(named, str) else named)  # of a tokenizer: slow and fast
    for pipeline in (getattr(config, "custom_pipelines", None) or {}).values():
        yield pipeline["impl"]


def _file_of(reference: object) -> str:
    """ "modeling_x" of "modeling_x.X" and of "somebody/repository--modeling_x.X"."""
    return str(reference).rpartition("--")[2].split(".")[0]


def _at_home(reference: object) -> object:
    """Without the repository where a file of ours was found, which travels with this folder as well."""
    is_ours = (_HERE / f"{_file_of(reference)}.py").is_file()
    return reference.rpartition("--")[2] if is_ours and isinstance(reference, str) else reference
