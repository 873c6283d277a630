"""Runs the quick tests with the lowest version of every dependency that pyproject.toml promises.

    python scripts/lowest_versions.py                          # in a temporary environment, with this Python
    python3.13 scripts/lowest_versions.py --environment /tmp/lowest -- tests/data -x

Needs nothing but Python and pip. Run it after a change of a bound; a bound that fails here is corrected, not the test.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_LOWER_BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:>=|==)\s*([0-9][\w.]*)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="folder to keep it in; one that is there is used")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        environment = settings.environment or Path(temporary)
        python = environment / "bin" / "python"
        if not python.exists():
            venv.create(environment, with_pip=True)
            install(python, Path(temporary, "constraints.txt"))
        # Whatever else is on the path of this process must not be tested in place of what was installed.
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run([python, "-m", "pytest", *settings.pytest], cwd=ROOT, env=clean).returncode


def install(python: Path, constraints: Path) -> None:
    constraints.write_text("\n".join(lowest_versions(ROOT / "pyproject.toml")) + "\n")
    print(constraints.read_text())
    subprocess.run([python, "-m", "pip", "install", "-q", "-e", f"{ROOT}[dev]", "-c", constraints], check=True)


def lowest_versions(pyproject: Path) -> list[str]:
    """`name==version` of each dependency, extras included, at its lower bound.

    Raises:
        ValueError: a dependency without one, naming it.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    pins = {}
    for requirement in [*project["dependencies"], *extras]:
        if requirement.startswith(f"{project['name']}["):  # the project's own extras
            continue
        bound = _LOWER_BOUND.match(requirement)
        if bound is None:
            raise ValueError(f"{requirement!r} has no lower bound: give the lowest version that was run")
        pins.setdefault(bound[1], bound[2])
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


if __name__ == "__main__":
    sys.exit(main())
