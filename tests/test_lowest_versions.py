"""The lower bounds that `scripts/lowest_versions.py` installs."""

from pathlib import Path

import pytest
from lowest_versions import ROOT, lowest_versions
from packaging.requirements import Requirement

PYPROJECT = """
[project]
name = "mine"
dependencies = ["torch>=2.8,<3", "hf-xet"]
[project.optional-dependencies]
demo = ["emoji>=2.14", "minilm==0.1.0", "torch>=2.9"]
dev = ["mine[demo]"]
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "pyproject.toml"
    file.write_text(text)
    return file


def test_each_dependency_is_pinned_to_its_lower_bound(tmp_path):
    file = write(tmp_path, PYPROJECT.replace(', "hf-xet"', "").replace(', "torch>=2.9"', ""))
    assert lowest_versions(file) == ["emoji==2.14", "minilm==0.1.0", "torch==2.8"]


def test_a_dependency_without_a_lower_bound_is_named(tmp_path):
    with pytest.raises(ValueError, match="'hf-xet' has no lower bound"):
        lowest_versions(write(tmp_path, PYPROJECT))


def test_ours_all_have_one():
    pins = {Requirement(pin).name: pin for pin in lowest_versions(ROOT / "pyproject.toml")}
    assert pins["transformers"] == "transformers==5.23"
    assert {"torch", "datasets", "pyarrow", "optuna"} & set(pins) >= {"torch", "datasets", "pyarrow"}
