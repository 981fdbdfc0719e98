"""No socket and no file of a library's telemetry, in a process without a network and a home.

strace sees every system call, those of native code as well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zeroflaw_engines.process import telemetry

INSPECT = """
import sys, numpy as np
from zeroflaw import Inspector
frame = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
with Inspector.load("mini", sys.argv[1]) as inspector:
    inspector.inspect(frame, product="object")
"""
COMMANDS = {
    "onnxruntime": ("-c", INSPECT, "onnxruntime"),
    "openvino": ("-c", INSPECT, "openvino"),
    "doctor": ("-m", "zeroflaw.cli.app", "doctor"),
}
# What libraries take for a test machine, on which they would be silent of themselves.
CI_VARIABLES = {"CI", "TF_BUILD", "GITHUB_ACTIONS", "JENKINS_URL", "CIRCLECI"}


def tools() -> list[str]:
    """The command that cuts the network off; skips where the system has none."""
    missing = [name for name in ("unshare", "strace") if shutil.which(name) is None]
    unshare = ["unshare", "-rn"]
    if not missing and subprocess.run([*unshare, "true"], check=False).returncode:
        missing = ["the right to make a network namespace"]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {', '.join(missing)}")
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}")
    return unshare


def run(tmp_path: Path, command: tuple[str, ...], **variables: str) -> tuple[list[str], list[Path]]:
    """Sockets that the command opened, and files that it left in its home and temporary folder."""
    home, temporary, log = (tmp_path / name for name in ("home", "temporary", "calls"))
    home.mkdir()
    temporary.mkdir()
    drop = CI_VARIABLES | {"ORT_DISABLE_TELEMETRY", telemetry.VARIABLE}
    drop |= {name for name in os.environ if name.startswith("XDG_")}
    environment = {name: value for name, value in os.environ.items() if name not in drop}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*tools(), "strace", "-f", "-qq", "-e", "trace=socket,connect,sendto", "-o", log,
         sys.executable, *command],
        env=environment | variables, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = [line for line in log.read_text().splitlines() if re.search(r"\w+\(", line)]
    left = [path for folder in (home, temporary) for path in folder.rglob("*")]
    return calls, left


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_nothing_is_sent_and_nothing_is_left(tmp_path: Path, command) -> None:
    assert run(tmp_path, command) == ([], [])


def test_the_watch_sees_what_it_is_to_see(tmp_path: Path) -> None:
    """With telemetry wanted, the same watch finds ONNX Runtime's files."""
    _, left = run(tmp_path, COMMANDS["onnxruntime"], **{telemetry.VARIABLE: "1"})
    if not left:
        pytest.skip("this ONNX Runtime writes nothing")
    assert any("onnxruntime" in path.as_posix() for path in left)


def test_what_was_imported_before_is_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Loaded:
        @staticmethod
        def disable_telemetry_events() -> None:
            calls.append("disabled")

    monkeypatch.setitem(sys.modules, "onnxruntime", Loaded)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv(telemetry.VARIABLE, "1")
    telemetry.silence_onnxruntime()
    assert (calls, os.environ.get("ORT_DISABLE_TELEMETRY")) == ([], None)
    monkeypatch.setenv(telemetry.VARIABLE, "0")
    telemetry.silence_onnxruntime()
    assert (calls, os.environ["ORT_DISABLE_TELEMETRY"]) == (["disabled"], "1")
