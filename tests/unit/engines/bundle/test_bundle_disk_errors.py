"""Errors of the disk while a bundle is written: they are named, and nothing is published."""

# ruff: noqa: PT012 - what happens inside the block is what is tested

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.small_bundle import (
    ENTRY,
    disk_full,
    fail_midway,
    fill,
    learn,
    rows,
    snapshot,
    write_small_bundle,
)
from zeroflaw_engines.bundle import writer as bundle_writer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.products.writer import add_products, forget_reference
from zeroflaw_engines.bundle.writer import staged_bundle
from zeroflaw_engines.errors import (
    BundleError,
    ZeroflawError,
)


@pytest.mark.parametrize("old", [False, True], ids=["new target", "old bundle"])
def test_a_full_disk_is_named(copied: Path, tmp_path: Path, old: bool) -> None:
    """/dev/full gives the kernel's own ENOSPC."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    target = copied if old else tmp_path / "target"
    before = snapshot(tmp_path)
    with pytest.raises(BundleError) as caught, staged_bundle(target, overwrite=old) as staging:
        (staging / "weights").symlink_to("/dev/full")
        (staging / "weights").write_bytes(b"x" * 100_000)
    assert "no space left" in caught.value.cause
    assert str(target) in caught.value.cause
    assert "free space" in caught.value.remedy
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert snapshot(tmp_path) == before


def test_a_full_disk_while_the_manifest_is_written(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(BundleError, match="no space left"),
        staged_bundle(tmp_path / "target") as staging,
    ):
        monkeypatch.setattr(os, "fsync", disk_full)
        fill(staging, tiny_bundle)
    assert snapshot(tmp_path) == {}


def test_a_full_disk_while_publishing(
    tiny_bundle: Bundle, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(copied.parent)
    with (
        pytest.raises(BundleError, match="no space left"),
        staged_bundle(copied, overwrite=True) as staging,
    ):
        fill(staging, tiny_bundle)
        monkeypatch.setattr(os, "fsync", disk_full)
    monkeypatch.undo()
    assert snapshot(copied.parent) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB: room for one tiny bundle, not for two."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run([shutil.which("umount") or "umount", "-l", str(place)], check=True)


def test_a_disk_that_is_truly_full(tiny_bundle: Bundle, small_disk: Path) -> None:
    target = small_disk / "bundle"
    with staged_bundle(target) as staging:
        fill(staging, tiny_bundle)
    before = snapshot(small_disk)
    with (
        pytest.raises(BundleError, match="no space left on the disk"),
        staged_bundle(target, overwrite=True) as staging,
    ):
        fill(staging, tiny_bundle)
    assert snapshot(small_disk) == before
    open_bundle(target)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_target_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def deny(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(bundle_writer.tempfile, "mkdtemp", deny)
    with pytest.raises(BundleError) as caught, staged_bundle(tmp_path / "target"):
        pytest.fail("the block was entered")
    assert str(tmp_path / "target") in caught.value.cause
    assert os.strerror(code) in caught.value.cause
    assert "permissions" in caught.value.remedy


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError) as caught, staged_bundle(tmp_path / "file" / "target"):
        pytest.fail("the block was entered")
    assert str(tmp_path / "file") in caught.value.cause


def test_the_refusal_of_another_file_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    """Weights that may not be read are no fault of the bundle's directory."""
    target = tmp_path / "target"
    with pytest.raises((ZeroflawError, PermissionError)) as caught, staged_bundle(target):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/weights/clip.pt")
    assert "/weights/clip.pt" in str(caught.value)
    assert f"{target} cannot be written" not in str(caught.value)


# Learning and forgetting


@pytest.fixture
def learned(tmp_path: Path) -> Bundle:
    return learn(write_small_bundle(tmp_path / "b"))


def learn_again(bundle: Bundle) -> None:
    learn(bundle, seed=1)


def forget(bundle: Bundle) -> None:
    forget_reference(bundle, "object")


def add_anew(bundle: Bundle) -> None:
    add_products(bundle, {"object": rows(1)}, {"object": ENTRY})


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("step", ["bank", "manifest", "rename"])
def test_learning_that_fails_midway_changes_nothing(
    learned: Bundle, monkeypatch: pytest.MonkeyPatch, step: str, kind: type[BaseException]
) -> None:
    before = snapshot(learned.path)
    fail_midway(monkeypatch, step, kind)
    with pytest.raises(kind):
        learn(learned, seed=1)
    monkeypatch.undo()
    assert snapshot(learned.path) == before
    assert open_bundle(learned.path).reference_digest("object") == learned.reference_digest(
        "object"
    )


@pytest.mark.parametrize("operation", [learn_again, forget, add_anew])
def test_a_full_disk_leaves_the_bundle_as_it_was(
    learned: Bundle, monkeypatch: pytest.MonkeyPatch, operation: Callable[[Bundle], None]
) -> None:
    before = snapshot(learned.path)
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(BundleError, match="no space left") as caught:
        operation(learned)
    monkeypatch.undo()
    assert str(learned.path) in caught.value.cause
    assert "free space" in caught.value.remedy
    assert snapshot(learned.path) == before
    assert open_bundle(learned.path).reference_bank("object") is not None
