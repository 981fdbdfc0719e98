"""What `import zeroflaw` offers, and that type checkers see it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import zeroflaw
from zeroflaw_engines import errors as error_tree

NAMES = (
    "Inspector", "InspectionStream", "Inspection", "MethodParameters", "read_image",
    "draw_overlay", "errors", "ProductSettings", "Tiles", "Zone", "Rule", "Alignment",
    "edit_product", "EditedProduct",
)  # fmt: skip


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_names_come_from_one_import() -> None:
    assert run(f"from zeroflaw import {', '.join(NAMES)}; print(errors.FrameError.code)") == "frame"


def test_errors_are_an_attribute_and_a_module() -> None:
    assert run("import zeroflaw; print(zeroflaw.errors.FrameError.code)") == "frame"
    assert run("from zeroflaw.errors import FrameError; print(FrameError.code)") == "frame"


def test_errors_have_the_whole_tree() -> None:
    from zeroflaw import errors

    tree = {
        name: one
        for name, one in vars(error_tree).items()
        if isinstance(one, type) and issubclass(one, error_tree.ZeroflawError)
    }
    assert len(tree) > 30
    for name, one in tree.items():
        assert getattr(errors, name) is one


@pytest.mark.parametrize("module", ["zeroflaw", "zeroflaw.errors"])
def test_numpy_is_imported_with_the_first_name_that_needs_it(module: str) -> None:
    assert run(f"import sys, {module}; print({{'numpy', 'cv2'}} & sys.modules.keys())") == "set()"


def test_a_type_checker_sees_every_name() -> None:
    """Names that `__getattr__` gives are unknown to it, but for what `TYPE_CHECKING` imports."""
    tree = ast.parse(Path(zeroflaw.__file__).read_text())
    seen = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(zeroflaw.__all__) <= seen
