"""Names and templates from sets, sentences, files of every kind and open_clip; each fault is refused in a line."""

import json
import sys
from types import ModuleType

import pytest

from hf_clip.core.errors import InputError
from hf_clip.evaluation.prompts import TEMPLATES, open_class_names, open_templates, prompts_of


def written(tmp_path, name: str, content: str | bytes) -> str:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


@pytest.fixture
def open_clip(monkeypatch):
    """A module with what open_clip's metadata is made of: functions of the name, and names."""
    metadata = ModuleType("open_clip.zero_shot_metadata")
    metadata.OPENAI_IMAGENET_TEMPLATES = (lambda c: f"a bad photo of a {c}.", lambda c: f"itap of a {c}.")
    metadata.IMAGENET_CLASSNAMES = ("tench", "goldfish")
    metadata.Sequence = tuple
    package = ModuleType("open_clip")
    package.zero_shot_metadata = metadata
    monkeypatch.setitem(sys.modules, "open_clip", package)
    monkeypatch.setitem(sys.modules, "open_clip.zero_shot_metadata", metadata)


# ---- templates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_named_sets(name):
    templates = open_templates(name)
    assert templates == TEMPLATES[name]
    assert len(set(templates)) == len(templates)
    assert all(template.count("{c}") == 1 and template.count("{") == 1 for template in templates)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [("a photo of a {}.", "a photo of a {c}."), ("{c}", "{c}"), ("{}, v1.5", "{c}, v1.5"), ("{} / {c}", "{c} / {c}")],
)
def test_a_sentence_is_a_template(sentence, expected):
    assert open_templates(sentence) == [expected]


TWO = ["a {c}", "the {c}, again"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "a {}\n\n  the {c}, again \n"),
        ("t.txt", b"\xef\xbb\xbfa {c}\r\nthe {}, again\r\n"),  # as Windows writes it
        ("t.json", json.dumps(["a {c}", "the {}, again"])),
        ("t.yaml", '- a {c}\n- "the {}, again"\n'),
        ("t.yml", "['a {c}', 'the {}, again']"),
    ],
)
def test_templates_from_files(name, content, tmp_path):
    assert open_templates(written(tmp_path, name, content)) == TWO


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", '{"cat": ["it purrs", "four paws"], "7": "seven"}'),
        ("t.yaml", "cat:\n- it purrs\n- four paws\n7: seven\n"),
    ],
)
def test_prompts_by_class(name, content, tmp_path):
    prompts = open_templates(written(tmp_path, name, content))
    assert prompts == {"cat": ["it purrs", "four paws"], "7": ["seven"]}
    assert prompts_of(["cat", "kitten"], prompts) == ["it purrs", "four paws"], "by the first name"
    with pytest.raises(InputError, match="no prompts for the class 'kitten': add them, or give templates for all"):
        prompts_of(["kitten", "cat"], prompts)


@pytest.mark.parametrize("content", ["cat: []", "cat:", 'cat: [" "]', 'cat: ["a", ""]', "cat: [a, ]\ndog: ''"])
def test_a_class_without_a_prompt_is_refused(content, tmp_path):
    with pytest.raises(InputError, match=r"t.yaml: class '(cat|dog)' has an empty prompt, or none: fill it in"):
        open_templates(written(tmp_path, "t.yaml", content))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "a {}\na photo\n", r"t.txt: template 2, 'a photo', has no \{\} to put the name in"),
        ("t.json", '["a {c}", 7]', "template 2, '7', has no"),
        ("t.yaml", "- a {}\n-\n", "template 2, '', has no"),
        ("t.txt", "\n \n", "holds no list: give one entry a line"),
        ("t.txt", b"\xff\xfe", "cannot be read: 'utf-8' codec can't decode"),
        ("t.json", '["a', "cannot be read: Unterminated string"),
        ("t.json", '"a {}"', "holds no list"),
        ("t.json", "[]", "holds no list"),
        ("t.yaml", "a: [", "cannot be read: while parsing"),
        ("t.yaml", "", "holds no list"),
        ("t.json", r'["a {}", "\ud83d {}"]', r"t.json: template 2 has half of a surrogate pair \('.ud83d'\) in it"),
        (
            "t.json",
            r'{"cat": ["a cat", "\ud83d"]}',
            r"t.json: class 'cat' has half of a surrogate pair .* in a prompt",
        ),
    ],
)
def test_faulty_files_of_templates(name, content, message, tmp_path):
    with pytest.raises(InputError, match=message) as raised:
        open_templates(written(tmp_path, name, content))
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_things_that_are_no_templates(tmp_path):
    with pytest.raises(
        InputError, match=r"no templates 'imagenet': choose name, photo, .*, a file, or write one with"
    ):
        open_templates("imagenet")
    with pytest.raises(InputError, match=r"the template, 'a \{name\}', has no \{\} to put the name in"):
        open_templates("a {name}")
    with pytest.raises(InputError, match=r"missing.txt' cannot be read: .*No such file"):
        open_templates(str(tmp_path / "missing.txt"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match=r"folder.json' cannot be read: .*Is a directory"):
        open_templates(str(tmp_path / "folder.json"))


# ---- class names --------------------------------------------------------------------------------------------------

CLASSES = [["cat", "house cat"], ["0"], ["no"]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.txt", "cat | house cat\n0\nno"),
        ("c.txt", b"\xef\xbb\xbfcat|house cat\r\n0\r\nno\r\n"),
        ("c.json", '["cat|house cat", "0", "no"]'),
        ("c.json", '[["cat", "house cat"], 0, ["no"]]'),
        ("c.yaml", "- cat | house cat\n- 0\n- no\n"),  # not the number, not the falsehood
        ("c.yml", "- [cat, house cat]\n- [0]\n- no\n"),
    ],
)
def test_class_names_from_files(name, content, tmp_path):
    assert open_class_names(written(tmp_path, name, content)) == CLASSES


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", "cat\n\ndog\n", r"c.txt: class 1 \(line 2\) has an empty name: fill it in"),
        ("c.txt", "cat\ndog\n\n", r"class 2 \(line 3\) has an empty name"),
        ("c.txt", "cat\ndog|\n", r"class 1 \(line 2\) has an empty name"),
        ("c.json", '["cat", null]', r"class 1 \(line 2\) has an empty name"),
        ("c.json", '["cat", ["dog", null]]', r"class 1 \(line 2\) has an empty name"),
        ("c.yaml", "- []\n- dog\n", r"class 0 \(line 1\) has an empty name"),
        ("c.yaml", "- cat\n- ['  ']\n", r"class 1 \(line 2\) has an empty name"),
        ("c.txt", "cat\n", "c.txt holds 1 classes: give two or more to choose among"),
        ("c.txt", "", "holds 1 classes: give two or more"),
        ("c.json", '["cat"]', "holds 1 classes: give two or more"),
        ("c.json", "[]", "holds no list"),
        ("c.yaml", "cat: 0\ndog: 1\n", "c.yaml is a mapping: give a list of the classes' names, in the order of"),
        ("c.txt", b"\xff\xfe", "cannot be read: 'utf-8' codec can't decode"),
        ("c.json", "[", "cannot be read: Expecting value"),
        ("c.json", r'["cat", ["dog", "\ud83d"]]', r"c.json: class 1 \(line 2\) has half of a surrogate pair"),
        ("c.yaml", r'["cat", "\ud83d"]', r"c.yaml: class 1 \(line 2\) has half of a surrogate pair"),
    ],
)
def test_faulty_files_of_class_names(name, content, message, tmp_path):
    with pytest.raises(InputError, match=message) as raised:
        open_class_names(written(tmp_path, name, content))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"c.txt' cannot be read: .*No such file"):
        open_class_names(str(tmp_path / "c.txt"))


def test_prompts_are_every_name_in_every_template():
    assert prompts_of(["cat", "tabby"], TWO) == ["a cat", "the cat, again", "a tabby", "the tabby, again"]
    assert prompts_of(["{curly}"], ["{c} or {c}"]) == ["{curly} or {curly}"], "a name is never a template"


# ---- open_clip ----------------------------------------------------------------------------------------------------


def test_of_open_clip(open_clip):
    expected = ["a bad photo of a {c}.", "itap of a {c}."]
    assert open_templates("open_clip/OPENAI_IMAGENET_TEMPLATES") == expected
    assert open_class_names("open_clip/IMAGENET_CLASSNAMES") == [["tench"], ["goldfish"]]


def test_what_open_clip_lacks_or_holds_as_something_else(open_clip):
    for name in ("MY_TEMPLATES", "IMAGENET_CLASSNAMES"):
        with pytest.raises(InputError, match=f"no open_clip/{name}: choose open_clip/OPENAI_IMAGENET_TEMPLATES$"):
            open_templates(f"open_clip/{name}")
    for name in ("Sequence", "OPENAI_IMAGENET_TEMPLATES"):
        with pytest.raises(InputError, match=f"no open_clip/{name}: choose open_clip/IMAGENET_CLASSNAMES$"):
            open_class_names(f"open_clip/{name}")


def test_without_open_clip(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for read in (open_templates, open_class_names):
        with pytest.raises(InputError, match="open_clip/X needs open_clip: pip install open_clip_torch, or give a"):
            read("open_clip/X")


@pytest.mark.parametrize(("names", "templates"), [(["a cat", "\ud83d"], ["{c}"]), (["a cat"], ["{c}", "\ude00 {c}"])])
def test_prompts_that_no_tokenizer_takes(names, templates):
    with pytest.raises(
        InputError, match=r"class 'a cat' has half of a surrogate pair \('.u\w+'\) in a prompt, which no"
    ):
        prompts_of(names, templates)
