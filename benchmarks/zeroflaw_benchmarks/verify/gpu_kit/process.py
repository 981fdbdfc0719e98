"""One step's commands as processes that end when they are to, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_GRACE_S: Final = 3.0
# Runs the commands of the arguments, parted by a word of its own, and writes the exit code down:
# who starts it may be gone by then.
_PARTED: Final = "&&"
_WATCH: Final = f"""
import os, subprocess, sys
codes, words = sys.argv[1], sys.argv[2:]
code = 0
while words and not code:
    end = words.index({_PARTED!r})
    command, words = words[:end], words[end + 1:]
    print("$", *command, flush=True)
    code = subprocess.run(command).returncode
with open(codes + ".part", "w") as file:
    file.write(str(code))
os.replace(codes + ".part", codes)
"""


@dataclass(frozen=True)
class Running:
    """Commands that run in a session of their own.

    Attributes:
        process: Number of the process that watches over them.
        started: What the system says of its start: another process of that number is not it.
        code: File that gets the exit code once they have ended.
    """

    process: int
    started: str
    code: Path


def start(
    commands: Sequence[Sequence[str]],
    *,
    log: Path,
    code: Path,
    variables: Mapping[str, str],
    cwd: Path,
) -> Running:
    """Start commands, one after the other until one fails; what they print goes to a log."""
    code.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [word for command in commands for word in (*command, _PARTED)]
    with log.open("wb") as printed:
        child = subprocess.Popen(  # noqa: S603 - the kit's own commands
            [sys.executable, "-c", _WATCH, str(code), *words],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=dict(variables),
            cwd=cwd,
            start_new_session=True,
        )
    return Running(child.pid, _started(child.pid), code)


def exit_code(running: Running) -> int | None:
    """Return the exit code of commands that have ended; None if they run.

    Those that were killed have -9.
    """
    _reap(running.process)
    alive = is_alive(running)
    if running.code.is_file():
        return int(running.code.read_text())
    return None if alive else -signal.SIGKILL


def is_alive(running: Running) -> bool:
    """Say whether a process is there, and is the one that was started."""
    return bool(running.started) and _started(running.process) == running.started


def stop(running: Running, grace_s: float = _GRACE_S) -> bool:
    """End commands and what they have started: first asked, then killed.

    Returns:
        Whether they are gone. A process that waits for a device that hangs cannot be killed.
    """
    for request in (signal.SIGTERM, signal.SIGKILL):
        if not is_alive(running):
            break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.process, request)
        end = time.monotonic() + grace_s
        while is_alive(running) and time.monotonic() < end:
            _reap(running.process)
            time.sleep(0.05)
    # The watching process may have gone before those that it watched; while they live, no other
    # process gets its number.
    if _started(running.process) in {"", running.started}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.process, signal.SIGKILL)
    return not is_alive(running)


def _reap(process: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)


def _started(process: int) -> str:
    """Return when a process started, in the system's ticks; empty if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
