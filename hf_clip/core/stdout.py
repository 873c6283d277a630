"""Standard output, which is for results alone."""

import os
import sys


def silence_below_python() -> None:
    """What C++ prints on stdout goes to stderr: of several processes gloo greets each (seen in torch 2.8 to 2.10)."""
    sys.stdout.flush()
    os.dup2(2, 1)
