"""JSON on standard output stays JSON, whatever a library prints, in Python or beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.command_line import zeroflaw

GOOD = Path(__file__).parents[3] / "examples" / "frames" / "casting_good.jpg"
# A library as `zeroflaw doctor` and `auto` import it. `print` is what ONNX Runtime's preload_dlls
# does, a write to the descriptor what C++ does, and the write at the end what no flush awaits.
NOISY = """
import atexit, ctypes, os, sys
print("printed by a library")
os.write(1, b"written by a library\\n")
ctypes.CDLL(None).puts(b"put by a library")  # waits in C's own buffer
atexit.register(lambda: print("printed at the end"))
__version__ = "7.7"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    library = tmp_path / "libraries" / "tensorrt_rtx.py"
    library.parent.mkdir()
    library.write_text(NOISY)
    paths = (str(library.parent), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.mark.parametrize(
    "command",
    [
        ("doctor", "--json"),
        ("inspect", "mini", str(GOOD), "-p", "object", "--backend", "auto", "--json"),
    ],
    ids=lambda command: command[0],
)
def test_what_a_library_prints_goes_to_standard_error(command, environment) -> None:
    done = zeroflaw(*command, env=environment)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert isinstance(json.loads(line), dict)
    assert done.stdout.count("\n") == 1
    for said in ("printed by a library", "written by", "put by", "printed at the end"):
        assert said in done.stderr


def test_tables_have_none_of_what_is_written_beside_python(environment) -> None:
    done = zeroflaw("doctor", env=environment)
    assert done.returncode == 0, done.stderr
    assert "written by a library" not in done.stdout
    assert "put by a library" not in done.stdout
    assert "onnxruntime" in done.stdout
