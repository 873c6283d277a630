"""Names of classes and sentences around them: from files, from named sets, or from open_clip where it is installed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import InputError
from ..data.text import check_text

# The first three are those of CLIP's paper (arXiv:2103.00020, §3.1.4); {c} is a name of the class.
TEMPLATES = {
    "name": ["{c}"],
    "photo": ["a photo of a {c}."],
    "food": ["a photo of {c}, a type of food."],
    "satellite": ["a satellite photo of {c}."],
    "views": [
        "a photo of a {c}.",
        "a photo of the {c}.",
        "a close-up photo of a {c}.",
        "a photo of a {c} from afar.",
        "a dark photo of a {c}.",
        "a bright photo of a {c}.",
        "a blurred photo of a {c}.",
        "a drawing of a {c}.",
    ],
    "emoji": ["{c}", "an emoji of {c}", "a drawing of {c}"],
    "chinese": ["{c}", "一张{c}的照片。", "一幅{c}的图画。"],
}
_OPEN_CLIP = "open_clip/"


def open_templates(name: str) -> list[str] | dict[str, list[str]]:
    """Templates, or whole prompts for each class.

    Args:
        name: a key of `TEMPLATES`; a template itself, with {c} or {} in it; `open_clip/NAME` for a list of templates
            in open_clip's metadata, such as `open_clip/OPENAI_IMAGENET_TEMPLATES`; or a file: `.txt` with a template
            a line, `.json` or `.yaml` with a list of them, or with a mapping from each class to its own prompts
            (arXiv:2209.03320).

    Raises:
        InputError: no such set or file, a template without a place for the name, a class without a prompt.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if name.startswith(_OPEN_CLIP):
        # Its templates are functions of the name.
        return [template("{c}") for template in _from_open_clip(name, "TEMPLATES")]
    if not Path(name).suffix or "{" in name:
        if "{" not in name:
            raise InputError(f"no templates {name!r}: choose {', '.join(TEMPLATES)}, a file, or write one with {{}}")
        return [_checked_template(name, "the template")]
    content = _read(name)
    if isinstance(content, dict):
        return {
            str(label): _checked_prompts(prompts, f"{name}: class {label!r}") for label, prompts in content.items()
        }
    return [_checked_template(_text(line), f"{name}: template {number}") for number, line in enumerate(content, 1)]


def open_class_names(name: str) -> list[list[str]]:
    """The names of class 0, 1, …: each has one or several, the first of which it goes by.

    Args:
        name: `open_clip/IMAGENET_CLASSNAMES` or another list of open_clip's metadata; or a file: `.txt` with a class
            a line, its names separated by `|`; `.json` or `.yaml` with a list of names, or of lists of names.

    Raises:
        InputError: no such file, fewer than two classes, a class without a name.
    """
    from_open_clip = name.startswith(_OPEN_CLIP)
    content = _from_open_clip(name, "CLASSNAMES") if from_open_clip else _read(name, keep_empty=True)
    if isinstance(content, dict):
        raise InputError(f"{name} is a mapping: give a list of the classes' names, in the order of their numbers")
    classes = [
        [_text(part) for part in (entry if isinstance(entry, list) else _text(entry).split("|"))] for entry in content
    ]
    return checked_class_names(classes, name)


def checked_class_names(classes: Sequence[Sequence[str]], name: str) -> list[list[str]]:
    """
    Raises:
        InputError: fewer than two classes, a class without a name.
    """
    if len(classes) < 2:
        raise InputError(f"{name} holds {len(classes)} classes: give two or more to choose among")
    for number, names in enumerate(classes):
        if not names or not all(names):
            raise InputError(f"{name}: class {number} (line {number + 1}) has an empty name: fill it in")
        for one in names:
            check_text(one, f"{name}: class {number} (line {number + 1})", "a name")
    return [list(names) for names in classes]


def prompts_of(names: Sequence[str], templates: Sequence[str] | dict[str, list[str]]) -> list[str]:
    """Every prompt of a class: each of its names in each template.

    Raises:
        InputError: prompts by class lack this one; a prompt that no tokenizer takes.
    """
    if isinstance(templates, dict):
        if names[0] not in templates:
            raise InputError(f"no prompts for the class {names[0]!r}: add them, or give templates for all classes")
        return templates[names[0]]
    prompts = [template.replace("{c}", name) for name in names for template in templates]
    for prompt in prompts:
        check_text(prompt, f"class {names[0]!r}", "a prompt")
    return prompts


def cut_note(prompts: Sequence[str], cut: Sequence[bool], what: str = "prompts") -> list[str]:
    """One sentence where any was cut: what comes after the cut says nothing to the model."""
    lost = [prompt for prompt, is_cut in zip(prompts, cut, strict=True) if is_cut]
    if not lost:
        return []
    first = lost[0] if len(lost[0]) <= 60 else f"{lost[0][:60]}…"
    return [f"{len(lost)} of {len(prompts)} {what} are longer than the text tower reads, and were cut: {first!r}"]


def alike_note(texts: Sequence[str], ids: Sequence[int], what: str = "labels") -> list[str]:
    """One sentence where texts that differ are the same tokens to the text tower: no model can tell them apart."""
    texts_of: dict[int, list[str]] = {}
    for text, number in zip(texts, ids, strict=True):
        texts_of.setdefault(number, []).append(text)
    alike = [same for same in texts_of.values() if len(same) > 1]
    if not alike:
        return []
    named = "; ".join(" = ".join(map(repr, same)) for same in alike[:3])
    others = f" and {len(alike) - 3} more" if len(alike) > 3 else ""
    return [f"{what} that the text tower reads as the same, so that their scores are equal: {named}{others}"]


def _checked_template(template: str, where: str) -> str:
    template = template.replace("{}", "{c}")
    if "{c}" not in template:
        raise InputError(f"{where}, {template!r}, has no {{}} to put the name in")
    check_text(template, where, "it")
    return template


def _checked_prompts(prompts: object, where: str) -> list[str]:
    texts = [_text(prompt) for prompt in (prompts if isinstance(prompts, list) else [prompts])]
    if not texts or not all(texts):
        raise InputError(f"{where} has an empty prompt, or none: fill it in")
    for text in texts:
        check_text(text, where, "a prompt")
    return texts


def _text(value: object) -> str:
    if isinstance(value, list | dict):
        raise InputError(f"{value!r} is no name and no sentence: give text, or a list of texts for each class")
    return "" if value is None else str(value).strip()


def _read(name: str, keep_empty: bool = False) -> Any:
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
        if name.endswith((".json", ".yaml", ".yml")):
            # In YAML all is text: a class may be called 0 or no.
            content = json.loads(text) if name.endswith(".json") else yaml.load(text, yaml.BaseLoader)
        else:
            lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
            content = lines if keep_empty else [line for line in lines if line]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{name!r} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, list | dict) or not content:
        raise InputError(f"{name!r} holds no list: give one entry a line")
    return content


def _from_open_clip(name: str, kind: str) -> Any:
    """
    Args:
        kind: what the names of such lists end with.
    """
    try:
        from open_clip import zero_shot_metadata
    except ImportError as error:
        raise InputError(f"{name} needs open_clip: pip install open_clip_torch, or give a file") from error
    known = sorted(key for key in vars(zero_shot_metadata) if key.endswith(kind))
    if name.removeprefix(_OPEN_CLIP) not in known:
        raise InputError(f"no {name}: choose {', '.join(_OPEN_CLIP + key for key in known)}")
    return getattr(zero_shot_metadata, name.removeprefix(_OPEN_CLIP))
