"""The folder that a command writes a report into."""

from pathlib import Path

from ..errors import InputError

PICTURES = "pictures"  # in it, as both reports have it


def prepare_folder(name: str, results: str) -> Path:
    """Makes the folder before any work, and removes what a report that was there would leave beside the new one.

    Args:
        results: the file by which a folder is known to hold such a report.

    Raises:
        InputError: the folder cannot be written, or holds something else.
    """
    folder = Path(name)
    try:
        others = (file for file in folder.rglob("*") if file.is_file() and file.parent != folder / PICTURES)
        if any(others) and not (folder / results).is_file():
            raise InputError(f"--output {folder} is not empty and holds no {results}: give another folder")
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        for old in (*(folder / PICTURES).glob("*.png"), *folder.glob("*.csv")):
            old.unlink()
    except OSError as error:
        raise InputError(f"--output {folder} is no folder that can be written: {error.strerror}") from error
    return folder
