"""What the tests of the engines share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.manifests import written
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.shipped import bundle_path


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


@pytest.fixture
def edit_manifest(copied: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Changes the JSON of the copy's manifest and gives the copy."""

    def edit(change: Callable[[dict[str, Any]], object]) -> Path:
        path = copied / "bundle.json"
        raw = json.loads(path.read_text("utf-8"))
        change(raw)
        path.write_bytes(written(raw))
        return copied

    return edit


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A copy of the bundle that ships with zeroflaw, to build engines into."""
    shutil.copytree(bundle_path("mini"), tmp_path / "bundle")
    return open_bundle(tmp_path / "bundle", verify_digests=False)
