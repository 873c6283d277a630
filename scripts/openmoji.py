"""Writes the demo's pictures with their names, in any language of the `emoji` package: `train` and `unseen` folders.

python scripts/openmoji.py openmoji_zh --language zh
"""

import argparse
import sys
from pathlib import Path

from hf_clip.core.errors import InputError
from hf_clip.data.openmoji import ATTRIBUTION, write_openmoji

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="which tenth of the concepts is held out")
    settings = parser.parse_args()
    try:
        counts = write_openmoji(settings.folder, size=settings.size, seed=settings.seed, language=settings.language)
    except InputError as error:
        sys.exit(f"openmoji.py: {error}")
    print(f"{counts['train']} pictures for training, {counts['unseen']} unseen concepts. {ATTRIBUTION}")
