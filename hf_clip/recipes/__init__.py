"""Settings that were tried, found by name: of `hf-clip train`, and of `accelerate launch` under `accelerate/`."""

from pathlib import Path

from ..core.errors import InputError

_HERE = Path(__file__).parent


def list_recipes() -> dict[str, Path]:
    """The files of settings for `hf-clip train`, by name."""
    return {file.stem: file for file in sorted(_HERE.glob("*.yaml"))}


def list_launches() -> dict[str, Path]:
    """The configurations for `accelerate launch`, by name."""
    return {file.stem: file for file in sorted((_HERE / "accelerate").glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file of a recipe for `hf-clip train`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in (recipes := list_recipes()):
        hint = " (a file of your own goes with --config)" if name.endswith((".yaml", ".yml")) else ""
        raise InputError(f"there is no recipe {name!r}{hint}: choose one of {', '.join(recipes)}")
    return recipes[name]


def summarize(file: Path) -> str:
    """The first sentence of a recipe's comment."""
    comment = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return " ".join(comment).partition(". ")[0].rstrip(".")
