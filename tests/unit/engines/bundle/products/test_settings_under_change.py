"""Settings that other processes edit: readers see them with their photo, and none are lost."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from support.small_bundle import left_overs, write_small_bundle
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.writer import copy_bundle
from zeroflaw_engines.errors import BundleChangedError

TESTS = Path(__file__).parents[4]
# The photo of each number has the number's digest for its own.
EDITOR = """
import hashlib, sys
from msgspec.structs import replace
from support.products.product_settings import ALIGNMENT, FULL
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.writer import set_settings
path, product, count = sys.argv[1:]
for i in range(int(count)):
    photo = str(i).encode()
    alignment = replace(ALIGNMENT, photo=hashlib.sha256(photo).hexdigest())
    settings = replace(FULL, alignment=alignment)
    set_settings(open_bundle(path), product, settings, template=photo)
    if i % 4 == 1 and int(count) > 100:
        set_settings(open_bundle(path), product, None)
"""


def start(path: Path, product: str, count: int) -> subprocess.Popen[bytes]:
    paths = [str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return subprocess.Popen(
        [sys.executable, "-c", EDITOR, str(path), product, str(count)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
    )


def seen_of(path: Path) -> str:
    """What a reader finds: settings come with the photo that they were made of."""
    bundle = open_bundle(path)
    settings = bundle.manifest.products["object"].settings
    if settings is None:
        return "none"
    try:
        photo = bundle.product_file(settings.alignment.template, "the reference photo")
    except BundleChangedError:
        return "changed"
    assert hashlib.sha256(photo).hexdigest() == settings.alignment.photo
    return "settings"


def test_readers_and_copies_while_settings_are_edited(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "b").path
    editor = start(path, "object", 10**6)
    try:
        found, end = set(), time.monotonic() + 120
        while not {"none", "settings"} <= found and time.monotonic() < end:
            found.add(seen_of(path))
        for _ in range(20):
            seen_of(path)
            copied = copy_bundle(open_bundle(path), tmp_path / "copy", overwrite=True)
            assert seen_of(copied.path) in {"none", "settings"}
        assert editor.poll() is None, editor.communicate()[1].decode()
    finally:
        editor.kill()
        editor.wait()
    assert {"none", "settings"} <= found


def test_settings_edited_by_processes_at_once_all_land(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "b").path
    products = sorted(open_bundle(path).manifest.products)[:3]
    editors = [start(path, product, 6) for product in products]
    for editor in editors:
        _, errors = editor.communicate(timeout=120)
        assert editor.returncode == 0, errors.decode()
    bundle = open_bundle(path)
    for product in products:
        alignment = bundle.manifest.products[product].settings.alignment
        assert (path / alignment.template).read_bytes() == b"5"
    assert left_overs(path) == []
