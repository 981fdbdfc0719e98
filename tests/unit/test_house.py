"""The order of the house: imports go one way and in no circle, and files and folders stay small.

Each check is a function of the root of a checkout that gives what is against it, so that it can be
tried on a tree with a violation planted in it.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]

# Folder of the checkout, and the package in it.
PACKAGES: Final = {
    "engines": "zeroflaw_engines",
    "export": "zeroflaw_export",
    "runtime": "zeroflaw",
    "benchmarks": "zeroflaw_benchmarks",
}
# What the modules of a package may import besides libraries.
MAY_IMPORT: Final = {
    "zeroflaw_engines": {"zeroflaw_engines"},
    "zeroflaw_export": {"zeroflaw_export", "zeroflaw_engines"},
    "zeroflaw": {"zeroflaw", "zeroflaw_engines"},
    "zeroflaw_benchmarks": set(PACKAGES.values()),
}
TESTS: Final = {"tests", "support", "conftest"}

LINES_OF_A_FILE: Final = 400
ENTRIES_OF_A_PACKAGE: Final = 16
ENTRIES_OF_A_FOLDER: Final = 17
NOT_ENTRIES: Final = {"__pycache__", "py.typed"}


@dataclass(frozen=True)
class Import:
    """An import statement, wherever in a module it stands.

    Attributes:
        line: 1-based.
        name: The module or package that it names.
        members: What it takes from there, modules among them.
    """

    line: int
    name: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """A module of one of the four packages; a package is its `__init__`."""

    name: str
    path: Path
    imports: tuple[Import, ...]

    @property
    def ancestors(self) -> set[str]:
        """The packages that this module lies in."""
        parts = self.name.split(".")
        return {".".join(parts[:n]) for n in range(1, len(parts))}


def modules_of(root: Path) -> dict[str, Module]:
    found = {}
    for folder in PACKAGES:
        for path in sorted((root / folder / PACKAGES[folder]).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            package = name if is_package else name.rpartition(".")[0]
            found[name] = Module(
                name, path.relative_to(root), _imports(path.read_text("utf-8"), package)
            )
    return found


@cache
def _imports(text: str, package: str) -> tuple[Import, ...]:
    """All imports of a module: those in functions and for type checkers as well."""
    found = []
    for node in _statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if node.level:
                parts = package.split(".")
                above = parts[: len(parts) - node.level + 1]
                name = ".".join([*above, name] if name else above)
            found.append(Import(node.lineno, name, tuple(alias.name for alias in node.names)))
    return tuple(found)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements below a node, without the expressions, which are most of a tree."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        below = getattr(node, part, ())
        for statement in below if isinstance(below, list) else ():
            yield statement
            yield from _statements(statement)


def dependencies(module: Module, modules: dict[str, Module]) -> set[str]:
    """The modules that must have run before a module has.

    They include the `__init__` of each package on the way to an imported module, but not of those
    that the module lies in itself: these may re-export it.
    """
    needed: set[str] = set()
    for statement in module.imports:
        within = [f"{statement.name}.{member}" for member in statement.members]
        named = [name for name in within if name in modules]
        if len(named) < len(within) or not within:
            named.append(statement.name)
        for name in named:
            if name in modules:
                needed |= {name} | (modules[name].ancestors - module.ancestors)
    return (needed & set(modules)) - {module.name}


def import_circles(root: Path) -> list[str]:
    """A shortest circle through each module that is in one."""
    modules = modules_of(root)
    edges = {name: sorted(dependencies(module, modules)) for name, module in modules.items()}
    circles: dict[frozenset[str], str] = {}
    for start in sorted(edges):
        circle = _shortest_circle(start, edges)
        if circle:
            circles.setdefault(frozenset(circle), " -> ".join([*circle, start]))
    return list(circles.values())


def _shortest_circle(start: str, edges: dict[str, list[str]]) -> list[str]:
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for there in edges[here]:
            if there == start:
                circle = [here]
                while circle[-1] != start:
                    circle.append(came_from[circle[-1]])
                return circle[::-1]
            if there not in came_from:
                came_from[there] = here
                queue.append(there)
    return []


def wrong_arrows(root: Path) -> list[str]:
    """Imports from one package to another that point against the one way, or into the tests."""
    known = {*PACKAGES.values(), *TESTS}
    return [
        f"{module.path}:{statement.line} imports {statement.name}"
        for module in modules_of(root).values()
        for statement in module.imports
        if (top := statement.name.split(".")[0]) in known
        and top not in MAY_IMPORT[module.name.split(".")[0]]
    ]


def long_files(root: Path) -> list[str]:
    counts = {
        path.relative_to(root): len(path.read_text("utf-8").splitlines())
        for folder in (*PACKAGES, "tests")
        for path in sorted((root / folder).rglob("*.py"))
    }
    return [f"{path} has {n} lines" for path, n in counts.items() if n > LINES_OF_A_FILE]


def full_folders(root: Path) -> list[str]:
    found = []
    package_roots = [root / folder / package for folder, package in PACKAGES.items()]
    for top in (*package_roots, root / "tests"):
        for folder in (top, *sorted(path for path in top.rglob("*") if path.is_dir())):
            place = folder.relative_to(root).as_posix()
            if folder.name in NOT_ENTRIES or not folder.is_dir():
                continue
            limit = ENTRIES_OF_A_PACKAGE if folder in package_roots else ENTRIES_OF_A_FOLDER
            count = sum(
                entry.name not in NOT_ENTRIES and not entry.name.startswith(".")
                for entry in folder.iterdir()
            )
            if count > limit:
                found.append(f"{place} has {count} entries, of {limit}")
    return found


def folders_that_mirror_nothing(root: Path) -> list[str]:
    tests = root / "tests" / "unit"
    found = []
    for folder in sorted(path for path in tests.rglob("*") if path.is_dir()):
        if folder.name in NOT_ENTRIES:
            continue
        first, *rest = folder.relative_to(tests).parts
        mirrored = root.joinpath(first, PACKAGES.get(first, "?"), *rest)
        if not mirrored.is_dir():
            found.append(f"{folder.relative_to(root)} mirrors no {mirrored.relative_to(root)}")
    return found


def repeated_test_names(root: Path) -> list[str]:
    """Test files that pytest cannot collect together: they are modules of one name."""
    places: dict[str, list[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        places.setdefault(path.name, []).append(str(path.parent.relative_to(root)))
    return [f"{name} is in {', '.join(at)}" for name, at in places.items() if len(at) > 1]


CHECKS: Final[tuple[Callable[[Path], list[str]], ...]] = (
    import_circles,
    wrong_arrows,
    long_files,
    full_folders,
    folders_that_mirror_nothing,
    repeated_test_names,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_is_in_order(check: Callable[[Path], list[str]]) -> None:
    found = check(ROOT)
    assert not found, "\n".join([check.__name__, *found])


# The checks find what they are for


def plant(root: Path, files: dict[str, str]) -> Path:
    for place, text in files.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    return root


ENGINES = "engines/zeroflaw_engines"
SOUND = {
    f"{ENGINES}/__init__.py": "",
    f"{ENGINES}/py.typed": "",
    # a package that re-exports a module, whose own modules import each other
    f"{ENGINES}/bundle/__init__.py": "from zeroflaw_engines.bundle.bundle import Bundle\n",
    f"{ENGINES}/bundle/bundle.py": "from zeroflaw_engines.bundle import graph\nBundle = graph\n",
    f"{ENGINES}/bundle/graph.py": "import json\n",
    "export/zeroflaw_export/export.py": "from zeroflaw_engines.bundle import Bundle\n",
    "runtime/zeroflaw/inspector.py": "import zeroflaw_engines.bundle.bundle\n",
    "benchmarks/zeroflaw_benchmarks/run.py": "import zeroflaw.inspector, zeroflaw_export.export\n",
    "tests/unit/engines/bundle/test_bundle.py": "from zeroflaw_engines.bundle import Bundle\n",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_sound_tree_is_in_order(check: Callable[[Path], list[str]], tmp_path: Path) -> None:
    assert check(plant(tmp_path, SOUND)) == []


LAZY = "def read():\n    from zeroflaw_engines.bundle.bundle import Bundle\n"
TYPES = "import typing\nif typing.TYPE_CHECKING:\n    import zeroflaw_engines.bundle.bundle\n"


@pytest.mark.parametrize(
    "text",
    [
        "import zeroflaw_engines.bundle.bundle",
        "from .bundle import Bundle",
        "from . import bundle",
        LAZY,
        TYPES,
    ],
    ids=["plain", "relative", "relative module", "lazy", "for types"],
)
def test_a_circle_is_found(text: str, tmp_path: Path) -> None:
    plant(tmp_path, {**SOUND, f"{ENGINES}/bundle/graph.py": text})
    package = "zeroflaw_engines.bundle"
    assert import_circles(tmp_path) == [f"{package}.bundle -> {package}.graph -> {package}.bundle"]


def test_a_module_that_imports_the_package_that_exports_it_is_a_circle(tmp_path: Path) -> None:
    text = "from zeroflaw_engines.bundle import Bundle"
    plant(tmp_path, {**SOUND, f"{ENGINES}/bundle/graph.py": text})
    package = "zeroflaw_engines.bundle"
    circle = f"{package} -> {package}.bundle -> {package}.graph -> {package}"
    assert import_circles(tmp_path) == [circle]


def test_a_circle_through_another_package_is_found(tmp_path: Path) -> None:
    """Importing a module runs the package that it lies in."""
    inside = {f"{ENGINES}/sessions/{name}.py": "" for name in ("__init__", "session")}
    plant(tmp_path, {**SOUND, **inside})
    plant(tmp_path, {f"{ENGINES}/bundle/graph.py": "import zeroflaw_engines.sessions.session"})
    assert import_circles(tmp_path) == []
    plant(tmp_path, {f"{ENGINES}/sessions/__init__.py": "import zeroflaw_engines.bundle.graph"})
    graph, sessions = "zeroflaw_engines.bundle.graph", "zeroflaw_engines.sessions"
    assert f"{graph} -> {sessions} -> {graph}" in import_circles(tmp_path)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (f"{ENGINES}/bundle/graph.py", "import zeroflaw_export.export"),
        (f"{ENGINES}/bundle/graph.py", "def f():\n    from zeroflaw import Inspector"),
        ("export/zeroflaw_export/export.py", "from zeroflaw.inspector import Inspector"),
        ("export/zeroflaw_export/export.py", "import zeroflaw_benchmarks.run"),
        ("runtime/zeroflaw/inspector.py", "from zeroflaw_export import export"),
        ("runtime/zeroflaw/inspector.py", "import support.datasets"),
        ("benchmarks/zeroflaw_benchmarks/run.py", "from support.datasets import write_dataset"),
        ("benchmarks/zeroflaw_benchmarks/run.py", "import tests"),
    ],
)
def test_an_arrow_the_wrong_way_is_found(place: str, text: str, tmp_path: Path) -> None:
    (found,) = wrong_arrows(plant(tmp_path, {**SOUND, place: text}))
    assert found.startswith(f"{place}:{1 + text.count(chr(10))} imports ")


@pytest.mark.parametrize("place", [f"{ENGINES}/machine.py", "tests/support/datasets.py"])
def test_a_long_file_is_found(place: str, tmp_path: Path) -> None:
    plant(tmp_path, {**SOUND, place: "\n" * LINES_OF_A_FILE})
    assert long_files(tmp_path) == []
    plant(tmp_path, {place: "\n" * (LINES_OF_A_FILE + 1)})
    assert long_files(tmp_path) == [f"{place} has {LINES_OF_A_FILE + 1} lines"]


@pytest.mark.parametrize(
    ("place", "there", "limit"),
    [
        (ENGINES, 2, ENTRIES_OF_A_PACKAGE),
        (f"{ENGINES}/bundle", 3, ENTRIES_OF_A_FOLDER),
        ("tests/unit/engines/bundle", 1, ENTRIES_OF_A_FOLDER),
    ],
)
def test_a_full_folder_is_found(place: str, there: int, limit: int, tmp_path: Path) -> None:
    plant(tmp_path, SOUND)
    plant(tmp_path, {f"{place}/file_{n}.py": "" for n in range(limit - there)})
    assert full_folders(tmp_path) == []
    plant(tmp_path, {f"{place}/one_more.py": ""})
    assert full_folders(tmp_path) == [f"{place} has {limit + 1} entries, of {limit}"]


@pytest.mark.parametrize(
    ("place", "mirrored"),
    [
        ("tests/unit/engines/prompts", f"{ENGINES}/prompts"),
        ("tests/unit/zeroflaw", "zeroflaw/?"),
    ],
)
def test_a_folder_that_mirrors_nothing_is_found(place: str, mirrored: str, tmp_path: Path) -> None:
    plant(tmp_path, {**SOUND, f"{place}/test_it.py": ""})
    assert folders_that_mirror_nothing(tmp_path) == [f"{place} mirrors no {mirrored}"]


def test_two_repeated_test_names_are_found(tmp_path: Path) -> None:
    plant(tmp_path, {**SOUND, "tests/integration/test_bundle.py": ""})
    both = "tests/integration, tests/unit/engines/bundle"
    assert repeated_test_names(tmp_path) == [f"test_bundle.py is in {both}"]
