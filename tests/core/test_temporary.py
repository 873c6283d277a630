"""Temporary folders, of living processes and of killed ones."""

import subprocess
import sys

from hf_clip.core import temporary
from hf_clip.core.temporary import temporary_folder

# Of hf_clip only the file: the package would take seconds to import.
HOLD = """
import runpy, sys
module = runpy.run_path(sys.argv[1])
with module["temporary_folder"](sys.argv[2]) as folder:
    (folder / "weights").write_bytes(b"w" * 1000)
    print(folder, flush=True)
    sys.stdin.read()
"""


def hold(parent):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, temporary.__file__, parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    return process, process.stdout.readline().decode().strip()


def test_it_is_empty_private_and_gone_afterwards(tmp_path):
    with temporary_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o077 == 0
        with temporary_folder(tmp_path) as second:
            assert second != folder
            assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_leaves_the_next_removes_and_a_living_one_keeps_its_own(tmp_path):
    (tmp_path / "hf_clip-of-mine").mkdir()  # without a lock it is nobody's business
    killed, left = hold(tmp_path)
    living, kept = hold(tmp_path)
    killed.kill()
    killed.wait()
    with temporary_folder(tmp_path) as folder:
        there = {path.name for path in tmp_path.iterdir() if path.is_dir()}
        assert there == {folder.name, kept.rpartition("/")[2], "hf_clip-of-mine"}
        assert left.rpartition("/")[2] not in there
    living.communicate(b"")
    assert {path.name for path in tmp_path.iterdir()} == {"hf_clip-of-mine"}
