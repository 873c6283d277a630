"""`python -m hf_clip`: the same as `hf-clip`."""

from .cli.main import console

if __name__ == "__main__":
    console()
