"""The wheel under every Python that the package declares, each in an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [
    entry.rpartition(" ")[2]
    for entry in PROJECT["classifiers"]
    if entry.startswith("Programming Language :: Python :: ")
]
# Tests that need no more than the lean package and pytest.
LEAN_TESTS = (
    "tests/integration/installed/test_lean_runtime.py",
    "tests/unit/engines/image_files",
    "tests/unit/engines/process/test_calls_under_way.py",
    "tests/unit/runtime/pictures",
    "tests/unit/runtime/pipeline/test_engine_outputs.py",
    "tests/unit/runtime/pipeline/test_frame.py",
    "tests/unit/runtime/pipeline/resizing/test_resizing.py",
    "tests/unit/runtime/station/test_picture_search.py",
    "tests/unit/runtime/test_arguments.py",
)


def test_lean_tests_are_where_they_are_said_to_be() -> None:
    """It runs with the default tests: those below are run by CI alone."""
    assert not [path for path in LEAN_TESTS if not (ROOT / path).exists()]


def test_the_oldest_declared_python_is_the_one_required() -> None:
    assert PROJECT["requires-python"] == f">={DECLARED[0]}"


@pytest.mark.every_python
@pytest.mark.parametrize("version", DECLARED)
def test_the_wheel_installs_inspects_and_passes_the_lean_tests(
    version: str, wheel: Path, tmp_path: Path
) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version}")
    run([python, "-m", "venv", tmp_path / "venv"])
    binaries = tmp_path / "venv" / "bin"
    run(
        [
            binaries / "pip",
            "install",
            "-q",
            "--no-compile",
            "-c",
            ROOT / "constraints.txt",
            wheel,
            "pytest",
        ]
    )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (demo,) = re.findall(r"\$\(BIN\)/zeroflaw (demo.*)", makefile)
    said = run([binaries / "zeroflaw", *demo.split(), "--out", tmp_path / "demo"])
    assert "12 of 12 inspected" in said
    assert "8 of 8 inspected" in said
    assert (tmp_path / "demo" / "index.html").is_file()
    said = run([binaries / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *LEAN_TESTS])
    assert re.search(r"^\d{3,} passed in", said.splitlines()[-1]), said


def interpreter(version: str) -> Path | None:
    """A Python of a version, from the path or from pyenv; a name that does not start is none."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = shutil.which(f"python{version}")
    found = [Path(named)] if named else []
    for python in (*found, *sorted(versions.glob(f"{version}.*/bin/python"))):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        started = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        if started.stdout.strip() == version:
            return python
    return None


def run(command: list[str | Path]) -> str:
    """Run a command in the checkout, without this environment's packages."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{command}:\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr
