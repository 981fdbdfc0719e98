"""No module of the runtime imports another that imports it, not even within a function."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

RUNTIME = Path(__file__).parents[3] / "runtime"


def modules() -> dict[str, Path]:
    found = {}
    for path in (RUNTIME / "zeroflaw").rglob("*.py"):
        name = ".".join(path.relative_to(RUNTIME).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Lazy imports and those for type checkers alone count like all others."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            names |= submodules or {node.module}
    return names & known.keys()


def test_imports_have_no_circle() -> None:
    known = modules()
    assert len(known) > 60
    graph = {name: imported(path, known) - {name} for name, path in known.items()}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError and names the circle
