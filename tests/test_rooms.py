"""The rooms of the package: who may import whom, inside functions too, and what stays within a file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import hf_clip

PACKAGE = Path(hf_clip.__file__).parent
# From the ground up; rooms of one floor may not import each other.
FLOORS = [
    {"core"},
    {"models", "recipes"},
    {"data"},
    {"embeddings"},
    {"evaluation"},
    {"analysis", "publishing"},
    {"training"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        yield name, ast.parse(file.read_text(encoding="utf-8"))


def imports_of(name: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name in it) of what is imported from the package, anywhere in a file."""
    package = name.removesuffix(".__init__") if name.endswith(".__init__") else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            if module.split(".")[0] == "hf_clip":
                yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "hf_clip")


def room_of(module: str, name: str) -> str:
    return f"{module}.{name}.".split(".")[1]


def test_every_room_has_a_floor():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == FLOOR.keys()
    assert {file.name for file in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_imports_point_down():
    climbing = []
    for name, tree in modules():
        if name in ("hf_clip.__init__", "hf_clip.__main__"):
            continue
        room = name.split(".")[1]
        for module, imported in imports_of(name, tree):
            other = room_of(module, imported)
            if other != room and (other not in FLOOR or FLOOR[other] >= FLOOR[room]):
                climbing.append(f"{name} imports {module}.{imported}")
    assert climbing == []


def test_what_travels_imports_only_its_siblings():
    for file in (PACKAGE / "models").glob("*_hf_clip.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, file
                assert node.module.endswith("_hf_clip"), file


def test_no_private_name_crosses_a_file():
    crossing = []
    for name, tree in modules():
        siblings = set()
        for module, imported in imports_of(name, tree):
            siblings.add(imported)
            if imported.startswith("_") and imported != "__version__":
                crossing.append(f"{name} imports {module}.{imported}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                owner = node.value
                if isinstance(owner, ast.Name) and owner.id in siblings:
                    crossing.append(f"{name} uses {owner.id}.{node.attr}")
    assert crossing == []


def test_building_a_wheel_reads_the_version_without_importing():
    tree = ast.parse((PACKAGE / "core" / "version.py").read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    assert [ast.literal_eval(node.value) for node in assigned] == [hf_clip.__version__]
