"""Under an older transformers every file that travels says what it needs; pyproject.toml says the same."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers
from conftest import tiny_model
from packaging.requirements import Requirement
from packaging.version import Version
from transformers import dynamic_module_utils
from transformers.dynamic_module_utils import get_class_from_dynamic_module

import hf_clip
from hf_clip.models.requirements_hf_clip import TRANSFORMERS

PACKAGE = Path(hf_clip.__file__).parent / "models"
CODE = sorted(file.name for file in PACKAGE.rglob("*_hf_clip.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A saved model; what transformers copies of it goes to a place of its own."""
    folder, modules = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("modules")
    tiny_model().save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(modules))
        patch.syspath_prepend(modules)
        patch.delitem(sys.modules, "transformers_modules", raising=False)
        yield folder
        sys.modules.pop("transformers_modules", None)


@pytest.mark.parametrize("file", sorted(set(CODE) - {"requirements_hf_clip.py", "decoding_hf_clip.py"}))
def test_a_file_that_travels_looks_at_the_release_first(file):
    imports = [
        node
        for node in ast.walk(ast.parse((PACKAGE / file).read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    first = min(imports, key=lambda node: node.lineno)
    assert (first.level, first.module) == (1, "requirements_hf_clip")


@pytest.mark.parametrize("older", ["4.57.6", "5.12.0", "5.22.1.dev0"])
@pytest.mark.parametrize("reference", ["configuration_hf_clip.HFClipConfig", "processing_hf_clip.HFClipProcessor"])
def test_an_older_transformers_is_named_with_what_to_install(folder, monkeypatch, older, reference):
    """As a stranger meets it: by the loader of transformers, out of the saved folder."""
    monkeypatch.setattr(transformers, "__version__", older)
    with pytest.raises(
        ImportError, match=rf"need transformers {TRANSFORMERS} or newer, and this is {older}: pip install"
    ):
        get_class_from_dynamic_module(reference, str(folder))


def test_the_lowest_release_is_what_pyproject_promises():
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    bound = next(r for r in map(Requirement, project["dependencies"]) if r.name == "transformers").specifier
    below = ".".join(
        str(part) for part in (*Version(TRANSFORMERS).release[:-1], Version(TRANSFORMERS).release[-1] - 1)
    )
    assert bound.contains(TRANSFORMERS)
    assert not bound.contains(below)
