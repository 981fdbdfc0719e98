"""What the tests of bundles share."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.directory import lock as bundle_lock


@pytest.fixture
def other_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Holds the system's lock on every file that a test puts into the list."""
    monkeypatch.setattr(bundle_lock, "_LOCK_SECONDS", 0.2)
    held: list[int] = []

    class Locks(list[Path]):
        def append(self, path: Path) -> None:
            held.append(os.open(path, os.O_RDWR | os.O_CREAT))
            fcntl.flock(held[-1], fcntl.LOCK_EX)

    yield Locks()
    for descriptor in held:
        os.close(descriptor)


@pytest.fixture
def raw(tiny_bundle: Bundle) -> dict[str, Any]:
    return json.loads((tiny_bundle.path / "bundle.json").read_text("utf-8"))
