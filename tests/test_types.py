"""hf_clip as a typed package: what somebody's type checker makes of its public names."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import hf_clip

CONSUMER = Path(__file__).with_name("typed_consumer.py")


def test_the_consumer_uses_every_public_name():
    """As `hf_clip.Name`, or imported from it."""
    text = CONSUMER.read_text(encoding="utf-8")
    imported = re.search(r"^from hf_clip import (.+)$", text, re.MULTILINE)
    used = {*re.findall(r"\bhf_clip\.(\w+)", text), *imported[1].split(", ")}
    assert used == {*hf_clip.__all__, "no_such_name"}


@pytest.mark.slow
def test_a_strict_type_checker_knows_every_public_name(tmp_path):
    """A stranger's: hf_clip lies among the installed packages, where mypy reads it for its `py.typed` alone."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "hf_clip").symlink_to(Path(hf_clip.__file__).parent)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    settings = ["--strict", "--config-file=", "--python-executable", str(environment / "bin" / "python")]
    command = [sys.executable, "-m", "mypy", *settings, "--cache-dir", str(tmp_path / "cache"), str(CONSUMER)]
    apart = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    checked = subprocess.run(command, cwd=tmp_path, env=apart, capture_output=True, text=True)
    assert checked.stdout == "Success: no issues found in 1 source file\n", checked.stdout + checked.stderr
