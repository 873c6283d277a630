"""Train, validation and test sets that lie in one folder: by its card, the names of files or of folders, or by row."""

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from datasets.data_files import NON_WORDS_CHARS, SPLIT_KEYWORDS, sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub.repocard import metadata_load

from ..core.errors import InputError, first_line
from .folders import METADATA, SHARDS, TABLES, data_root, is_leftover, metadata_of, of_kinds, say_once, visible
from .image_files import has_image_name

TRAINING = ("train",)
EVALUATION = ("test", "validation")
ANY = (*EVALUATION, "train")  # of what neither trains nor chooses
ALL = "all"

_SHARDED = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}.*\.\w+")  # as `push_to_hub` of `datasets` names them
KEYWORDS = {word: str(split) for split, words in SPLIT_KEYWORDS.items() for word in words}
_WORDS = re.compile(f"[{NON_WORDS_CHARS}]+")


def split_called(name: str) -> str | None:
    """The split that a name of a file or folder tells of, by the words that `datasets` knows: "val2017" is
    "validation"; None where it tells of none, or of several."""
    found = {KEYWORDS[word] for word in _WORDS.split(name.lower()) if word in KEYWORDS}
    return found.pop() if len(found) == 1 else None


def canonical(name: str) -> str:
    """Of a split's own name: "val" is "validation"."""
    return KEYWORDS.get(name.lower(), name)


# ---- where they lie -----------------------------------------------------------------------------------------------


def splits_of(folder: Path, config: str | None = None) -> tuple[Path, dict[str, list[Path]]]:
    """(where its data stand, the files and folders of each split); no splits where it is one set.

    Args:
        config: one of those that the folder's card names.

    Raises:
        InputError: a card without that configuration, or that leaves open which; splits beside what is of none.
    """
    if configs := _configs_of(folder):
        chosen = _chosen_config(folder, configs, config)
        root = folder / chosen.get("data_dir", "")
        patterns = chosen.get("data_files")
        return root, _splits_of_patterns(folder, root, patterns) if patterns else _splits_without_card(root)
    if config is not None:
        raise InputError(f"{folder} has no card with configurations: leave out data_config {config!r}")
    return folder, _splits_without_card(folder)


def _splits_without_card(folder: Path) -> dict[str, list[Path]]:
    root = data_root(folder)
    if metadata_of(root):
        return {}
    folders, files = visible(root)
    if not (splits := _splits_of_files(root, files)):
        return _splits_of_folders(root, folders, files)
    holding = [each.name for each in folders if _holds_data(each)]
    if len(holding) > 1:
        tables = ", ".join(file.name for paths in splits.values() for file in paths)
        say_once(f"{root}: {tables}: these files are read, and the folders {', '.join(holding)} are no classes")
    return splits


def _splits_of_files(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    shards = of_kinds(files, SHARDS)
    tables = [] if shards else of_kinds(files, TABLES)
    sharded = {file: match[1] for file in shards or tables if (match := _SHARDED.fullmatch(file.name))}
    if len(sharded) == len(shards or tables) and (
        set(sharded.values()) & KEYWORDS.keys() or _is_of_a_repository(folder, sharded)
    ):
        return _grouped({file: canonical(name) for file, name in sharded.items()})
    called = {file: split_called(file.name) for file in shards or tables}
    without = [file for file, split in called.items() if split is None]
    splits = _grouped({file: split for file, split in called.items() if split})
    if without and shards and splits:
        raise _mixed(folder, splits, without)
    if without and splits:
        names = ", ".join(file.name for file in without)
        say_once(f"{folder}: {names} is not read, for its name tells no split as {next(iter(splits))} does")
    return splits


def _is_of_a_repository(folder: Path, sharded: dict[Path, str]) -> bool:
    """There the names before the numbers are those of splits, whatever they are."""
    return folder.name == "data" and len(set(sharded.values())) > 1


def _splits_of_folders(folder: Path, folders: list[Path], files: list[Path]) -> dict[str, list[Path]]:
    if of_kinds(files, SHARDS):
        return {}
    holding = [each for each in folders if _holds_data(each)]
    called = {each: split for each in holding if (split := split_called(each.name))}
    splits = _grouped(called)
    others = [each for each in holding if each not in called]
    if not splits:
        return {}
    are_classes = not any(map(_holds_sets, called)) and len(splits) == 1
    if are_classes and (others or (len(called) > 1 and not any(is_bare(each.name) for each in called))):
        names = ", ".join(each.name for each in called)
        say_once(
            f"{folder}: {names} {'are' if len(called) > 1 else 'is'} taken for a class, not for a split of the data, "
            f"for it holds images as the folders beside it do; for the split give {next(iter(called))}"
        )
        return {}
    if others:
        raise _mixed(folder, splits, others)
    _check_beside(folder, files, next(iter(splits.values()))[0])
    return splits


def _check_beside(folder: Path, files: list[Path], first: Path) -> None:
    """What stands beside the folders of splits is of none of them: tables must not be what holds the captions."""
    if tables := of_kinds(files, TABLES):
        raise InputError(
            f"{tables[0]} would be passed over, for the folders beside it are splits: call it "
            f"metadata{tables[0].suffix} if it holds the captions, or else move it away or give {first}"
        )
    if loose := [file.name for file in files if has_image_name(file)]:
        say_once(f"{folder}: images in no folder of a split are left out: {len(loose)}, the first {loose[0]}")


def is_bare(name: str) -> bool:
    """Whether a folder's name is a split's and nothing more, but for numbers."""
    return {word for word in _WORDS.split(name.lower()) if word} <= KEYWORDS.keys()


def _holds_data(folder: Path) -> bool:
    folders, files = visible(folder)
    return any(map(has_image_name, files)) or _holds_sets(folder) or any(map(_holds_data, folders))


def _holds_sets(folder: Path) -> bool:
    """More than the images of one class."""
    folders, files = visible(folder)
    in_folders = (file for each in folders for file in visible(each)[1])
    return bool(metadata_of(folder) or of_kinds(files, (*SHARDS, *TABLES)) or any(map(has_image_name, in_folders)))


def _mixed(folder: Path, splits: dict[str, list[Path]], others: list[Path]) -> InputError:
    return InputError(
        f"{folder} holds {', '.join(splits)}, and {others[0].name}, which is of no split: give one of them, "
        f"as in {next(iter(splits.values()))[0]}"
    )


def _grouped(splits: dict[Path, str]) -> dict[str, list[Path]]:
    """By split, in the order of training, validation, test and others."""
    known = [str(split) for split in SPLIT_KEYWORDS]
    names = sorted(set(splits.values()), key=lambda name: (known.index(name) if name in known else len(known), name))
    return {name: [file for file, split in splits.items() if split == name] for name in names}


def folders_of_splits(folder: Path) -> dict[str, str]:
    """The split of each folder below one whose metadata stand beside them; {} where they are no splits."""
    folders, _ = visible(folder)
    return {path.name: split for split, paths in _splits_of_folders(folder, folders, []).items() for path in paths}


# ---- by the card of a repository ----------------------------------------------------------------------------------


def _configs_of(folder: Path) -> MetadataConfigs:
    card: dict[str, Any] = {}
    try:
        for name in ("README.md", ".huggingface.yaml"):
            if (folder / name).is_file() and b"configs:" in (content := (folder / name).read_bytes()):
                card |= (metadata_load(folder / name) if name == "README.md" else yaml.safe_load(content)) or {}
        configs = MetadataConfigs.from_dataset_card_data(card)
        configs.get_default_config_name()  # complains of several
    except (ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError, OSError) as error:
        why = first_line(error)
        raise InputError(f"{folder}: the configs of its card cannot be read ({why}): mend or remove them") from error
    return configs


def _chosen_config(folder: Path, configs: MetadataConfigs, asked: str | None) -> dict[str, Any]:
    name = asked or configs.get_default_config_name()
    if name not in configs:
        what = f"no configuration {asked!r}" if asked else "several configurations"
        raise InputError(f"{folder} has {what}: set data_config to one of {', '.join(configs)}")
    if len(configs) > 1 and not asked:
        say_once(f"{folder} has the configurations {', '.join(configs)}: {name} is read; for another set data_config")
    chosen: dict[str, Any] = configs[name]
    return chosen


def _splits_of_patterns(folder: Path, root: Path, data_files: Any) -> dict[str, list[Path]]:
    patterns = sanitize_patterns(data_files)
    splits = {split: _matching(root, of_split) for split, of_split in patterns.items()}
    for split, files in splits.items():
        if not files:
            raise InputError(
                f"{folder}: its card has {patterns[split][0]!r} for the split {split}, which is not there"
            )
    return splits


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Files by the patterns of a card, which start from its folder; the images' metadata stand for the images."""
    names = [name for pattern in patterns for name in sorted(glob.glob(pattern, root_dir=folder, recursive=True))]
    seen = [name for name in dict.fromkeys(names) if not any(map(is_leftover, Path(name).parts))]
    files = [folder / name for name in seen if (folder / name).is_file()]
    return [file for file in files if file.name in METADATA] or files


# ---- which one is read --------------------------------------------------------------------------------------------


def choose_split(
    splits: Iterable[str], asked: str | Sequence[str], name: str, fix: str = "set split"
) -> tuple[str, list[str]]:
    """(what to call it, the splits): those that were asked for, or the first of several that would do.

    Args:
        asked: a name, several joined by +, or "all"; or a list of names, of which the first that is there is taken.
        fix: how another is chosen, where nobody has asked for one.

    Raises:
        InputError: none of that name.
    """
    known = {canonical(split): split for split in splits} | {split: split for split in splits}
    if isinstance(asked, str):
        parts = list(splits) if asked == ALL else [part.strip() for part in asked.split("+")]
        known |= {part: known[canonical(part)] for part in parts if part not in known and canonical(part) in known}
        if not known.keys() >= set(parts):
            raise InputError(f"{name} has no split {asked!r}: set split to one of {', '.join(splits)}")
        found = [known[part] for part in parts]
        return "+".join(found), list(dict.fromkeys(found))
    found = [known[wanted] for wanted in asked if wanted in known]
    if not found:
        raise InputError(f"{name} has the splits {', '.join(splits)}, but no {' or '.join(asked)}: for one {fix}")
    if len(set(splits)) > 1 or found[0] != known.get(asked[0]):
        say_once(f"{name} has the splits {', '.join(splits)}: {found[0]} is read; for another {fix}")
    return found[0], found[:1]


def check_unsplit(asked: str | Sequence[str], name: str) -> None:
    """
    Raises:
        InputError: a split was asked for by name, and all rows are one set.
    """
    if isinstance(asked, str) and canonical(asked) not in (*TRAINING, ALL):
        raise InputError(f"{name} has no splits, so no {asked!r}: leave split out to read all rows")
