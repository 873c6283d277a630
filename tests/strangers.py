"""Processes of somebody who has transformers and not hf_clip.

They are copies of one that has imported torch, which takes half of their time, and nothing of Hugging Face.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

_SERVER = """
import importlib.abc, json, os, sys
import numpy, PIL.Image, torch, torchvision

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
for line in sys.stdin:
    code, sys.argv, absent, folder, environment, out, err = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
for number, file in enumerate([os.devnull, out, err]):
    os.dup2(os.open(file, os.O_CREAT | os.O_RDWR), number)
os.environ.clear()
os.environ.update(environment)
os.chdir(folder)
exec(code)
"""


@functools.cache
def _server() -> subprocess.Popen:
    """It ends with this process, whose end of the pipe is closed then."""
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def run_stranger(code: str, *arguments: object, folder: Path, hub: str = "", absent: tuple[str, ...] = ()) -> str:
    """Runs it in `folder`, where Hugging Face's caches begin empty; what it prints, errors too.

    Args:
        absent: packages that are not to be found either.
        hub: the endpoint of a Hub; default: there is none.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_ENDPOINT": hub} if hub else {"HF_HUB_OFFLINE": "1"}
    out, err = folder / "stranger.out", folder / "stranger.err"
    job = [code, ["-c", *map(str, arguments)], ["hf_clip", *absent], str(folder), environment, str(out), str(err)]
    server = _server()
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    status = server.stdout.readline().strip()
    printed = out.read_text() + err.read_text()
    assert status == "0", printed
    return printed
