"""`hf-clip train` as a script, for launchers that want a file: `accelerate launch scripts/train.py --train_data …`."""

import sys

from hf_clip.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
