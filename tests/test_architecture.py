"""The order of the rooms: a module imports from its own package and from those below, never from above."""

from __future__ import annotations

import ast
from pathlib import Path

import distilpose

ROOT = Path(distilpose.__file__).parent
COMMANDS = {
    "train", "evaluate", "predict", "export", "convert", "record", "report", "diagnose", "dataset", "demo", "share",
    "benchmark", "quickstart", "runtime",
}  # fmt: skip
# from top to bottom; packages of one line do not import each other
LAYERS = [
    ("quickstart",),  # runs other commands
    tuple(COMMANDS - {"quickstart"}),
    ("webpage",),
    ("exporting", "sharing", "sweeps", "reporting", "diagnosis", "curation"),
    ("inference",),
    ("callbacks",),
    ("runs",),
    ("modules",),
    ("teachers",),
    ("loggers", "visualization"),
    ("evaluation",),
    ("models", "data"),
    ("losses", "export_metadata"),
    ("outputs", "skeleton"),
    ("skeleton_fields",),
    ("joint_names",),
    ("cli",),
    ("files",),
    ("errors",),
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}


def imports_of(path: Path) -> set[str]:
    """The rooms of the package that a file imports, also inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "distilpose":
            rooms |= {alias.name for alias in node.names if alias.name in RANK}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distilpose."):
            rooms.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("distilpose.")}
    return rooms


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def test_every_module_has_a_room():
    assert {room_of(path) for path in MODULES} == RANK.keys()


def test_imports_point_downwards():
    upward = [
        f"{path.relative_to(ROOT)} imports {room}"
        for path in MODULES
        for room in imports_of(path) - {room_of(path)}
        if RANK[room] <= RANK[room_of(path)]
    ]
    assert not upward


def test_modules_can_be_read_in_one_sitting():
    too_long = {str(path): lines for path in MODULES if (lines := len(path.read_text().splitlines())) > 250}
    assert not too_long
