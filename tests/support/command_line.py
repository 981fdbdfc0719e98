"""The command line, as a user types it: in a process of its own."""

from __future__ import annotations

import subprocess

from support.measured_process import ZEROFLAW


def zeroflaw(*args: object, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [str(ZEROFLAW), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
