"""Settings out of a YAML file, as text with the line it stands on: the command's own parser gives it its type."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from ..core.errors import InputError, first_line


@dataclass
class FileSetting:
    """One setting of a file.

    Args:
        name: as in --help, without the dashes.
        value: text, a list of texts, or a mapping. Text and not numbers, so that 1e-3, no and 007 (which YAML 1.1
            reads as a string, false and 7) mean here what they mean on the command line.
        where: file and line, for complaints.
    """

    name: str
    value: str | list[str] | dict[str, Any]
    where: str


def read_settings(file: str) -> Iterator[FileSetting]:
    """The settings of a YAML file in their order, without those that are null.

    Raises:
        InputError: no such file, no YAML, no mapping of names, or the same name twice.
    """
    root = _compose(file)
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{file} holds no settings: write lines such as 'batch_size: 64'")
    seen: dict[str, int] = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        name = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
        if name in seen:
            raise InputError(f"{file}, line {line}: {name} stands on line {seen[name]} already: remove one of them")
        seen[name] = line
        if not _is_null(value):
            yield FileSetting(name, _value(value, file), f"{file}, line {line}")


def _compose(file: str) -> yaml.Node | None:
    try:
        with open(file, encoding="utf-8") as stream:
            return yaml.compose(stream, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        raise InputError(f"{file}, line {line}: no YAML: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"settings file {file!r} cannot be read: {first_line(error)}") from error


def _value(node: yaml.Node, file: str) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.MappingNode):
        return _typed(node)
    for item in node.value:
        if not isinstance(item, yaml.ScalarNode) or _is_null(item):
            raise InputError(f"{file}, line {item.start_mark.line + 1}: a list holds texts and numbers only")
    return [item.value for item in node.value]


def _typed(node: yaml.Node) -> Any:
    """What is inside a mapping has no parser of its own: plain words are read as JSON's numbers and words are."""
    if isinstance(node, yaml.MappingNode):
        return {key.value: _typed(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_typed(item) for item in node.value]
    if _is_null(node):
        return None
    if node.style is not None:  # in quotes
        return node.value
    try:
        return json.loads(node.value)
    except ValueError:
        return node.value


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"
