"""Imports of the package run downwards only: what stands lower knows nothing of what stands above."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

from rendering import REPOSITORY

PACKAGE = REPOSITORY / "src" / "pgcat_stack"
LAYERS = (
    {"interrupts", "paths", "findings", "printable", "examples"},
    {"files"},
    {"endpoints", "registry"},
    {"pgcat", "permify"},
    {"build"},
    {"reading"},
    {"secrets", "budget"},
    {"checks"},
    {"report", "adopt"},
    {"doctor"},
    {"cli"},
    {"__main__"},
)
"""From the lowest on: modules and folders of the package. Those of one layer do not import each other."""


def part_of(module: str) -> str:
    """The module or folder of the package that a dotted name below it begins with."""
    return module.split(".")[0]


def modules() -> dict[str, Path]:
    """Every module, by its dotted name below the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        found["" if name == "__init__" else name] = path
    return found


def imported(path: Path) -> set[str]:
    """What a module imports of the package, wherever in it."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pgcat_stack":
            base = (node.module or "").removeprefix("pgcat_stack").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                found.add(inner if inner in known else base)
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("pgcat_stack.")
                for alias in node.names
                if alias.name.startswith("pgcat_stack.")
            }
    return found - {""}


def test_every_part_has_a_layer() -> None:
    parts = {part_of(name) for name in modules() if name}
    assert parts == set().union(*LAYERS)
    assert all(not one & other for one, other in itertools.combinations(LAYERS, 2))


def test_imports_run_downwards() -> None:
    height = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    upwards = [
        f"{name} imports {other}"
        for name, path in modules().items()
        for other in imported(path)
        if name and part_of(name) != part_of(other) and height[part_of(other)] >= height[part_of(name)]
    ]
    assert upwards == []


def test_no_module_imports_itself_through_others() -> None:
    edges = {name: imported(path) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(edges.get(name, ())):
                visit(other, (*way, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_each_folder_says_what_it_owns() -> None:
    for folder in PACKAGE.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            tree = ast.parse((folder / "__init__.py").read_text())
            assert ast.get_docstring(tree), folder.name
