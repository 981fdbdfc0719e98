"""Builders of TensorRT-RTX that outlive their call, and what they do to the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_GARBAGE = """
import gc, sys, tempfile
from pathlib import Path
import tensorrt_rtx as trt
from support import small_graphs
from zeroflaw_engines.builder.compiler import BuildLog, compile_engine
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.errors import BuildError

gc.set_threshold(10**9)  # collects nothing by itself
class Holder: pass
garbage = Holder()
garbage.itself = garbage
garbage.builder = trt.Builder(BuildLog().logger(trt))
del garbage

said, add = [], BuildLog.add
def collecting(self, severity, message):
    said.append(message)
    if gc.isenabled():  # as an allocation here would, sooner or later
        gc.collect()
    add(self, severity, message)
BuildLog.add = collecting

path = Path(sys.argv[1])
options = BuildOptions(backend="tensorrt-rtx", architectures=("sm86",))
try:
    compile_engine(trt, path, small_graphs.unknown_operator(path), options, version="1")
except BuildError:
    print("refused", any("createInferBuilder" in message for message in said))
"""


def test_a_builder_among_garbage_does_not_stop_the_next_one(tmp_path: Path) -> None:
    """TensorRT speaks to its logger with the lock held that the end of a builder takes."""
    assert "refused True" in run_alone(_GARBAGE, tmp_path)


_FAILURES = """
import sys
from pathlib import Path
import tensorrt_rtx as trt
from support import small_graphs
from zeroflaw_engines.builder.compiler import BuildLog, compile_engine
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.errors import BuildError

said, add = [], BuildLog.add
BuildLog.add = lambda self, severity, message: (said.append(message), add(self, severity, message))
path = Path(sys.argv[1])
contract = small_graphs.unknown_operator(path)
options = BuildOptions(backend="tensorrt-rtx", architectures=("sm86",))
errors = []
for _ in range(2):
    try:
        compile_engine(trt, path, contract, options, version="1")
    except BuildError as error:
        errors.append(error)  # and with it, its traceback
print(len(errors), "failed,", [message for message in said if "createInferBuilder" in message])
"""


def test_a_failed_build_leaves_no_builder_behind(tmp_path: Path) -> None:
    """TensorRT ignores the logger of a builder, and so its errors, while another one lives."""
    assert "2 failed, []" in run_alone(_FAILURES, tmp_path)


def run_alone(script: str, directory: Path) -> str:
    """Run a script with a path for its graph, in a process without other builders."""
    return subprocess.run(
        [sys.executable, "-c", script, str(directory / "bad.onnx")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
