"""Writing bundles: all of it or nothing, whatever breaks the writing off."""

# ruff: noqa: PT012 - what happens inside the block is what is tested

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zeroflaw_engines import files
from zeroflaw_engines.bundle import lock as bundle_lock
from zeroflaw_engines.bundle import writer as bundle_writer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.bundle.writer import add_products, staged_bundle, write_manifest
from zeroflaw_engines.errors import (
    BundleDamagedError,
    BundleError,
    ProductError,
    ZeroflawError,
)

PRODUCT = Product(sentences=(245, 175))


def unit_rows(seed: int, size: int = 32) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(2, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below a directory but locks, which may stay behind."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def fill(staging: Path, bundle: Bundle) -> None:
    """Puts a whole bundle into a staging directory, as an export would."""
    for name in bundle.manifest.files:
        shutil.copyfile(bundle.path / name, staging / name)
    write_manifest(staging, bundle.manifest)


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_bundle_is_published_whole(tiny_bundle: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "bundle"
    with staged_bundle(target) as staging:
        assert staging.parent == target.parent
        fill(staging, tiny_bundle)
        assert not target.exists()
    assert open_bundle(target).manifest == tiny_bundle.manifest
    assert snapshot(target.parent).keys() == {
        f"bundle/{name}" for name in (*tiny_bundle.manifest.files, "bundle.json")
    }
    assert target.stat().st_mode & 0o777 == 0o755


def test_the_manifest_has_the_digest_of_every_file(tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    contents = {"x": b"", "sub/y": b"y" * 3_000_000, "größe": b"z"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    written = write_manifest(tmp_path, tiny_bundle.manifest)
    raw = json.loads((tmp_path / "bundle.json").read_text("utf-8"))
    assert raw["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in contents.items()
    }
    assert set(written.files) == set(contents)


@pytest.mark.parametrize("old", [False, True], ids=["new target", "old bundle"])
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupted_export_leaves_nothing_behind(
    copied: Path, tmp_path: Path, kind: type[BaseException], old: bool
) -> None:
    target = copied if old else tmp_path / "target"
    before = snapshot(tmp_path)
    with pytest.raises(kind), staged_bundle(target, overwrite=old) as staging:
        (staging / "sub").mkdir()
        (staging / "sub" / "half").write_bytes(b"x" * 1000)
        raise kind
    assert snapshot(tmp_path) == before
    assert [path for path in tmp_path.iterdir() if "partial" in path.name] == []
    if old:
        open_bundle(target)


def test_what_a_killed_export_left_is_removed_by_the_next(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    target = tmp_path / "bundle"
    program = (
        "import os, signal, sys\n"
        "from zeroflaw_engines.bundle.writer import staged_bundle\n"
        "with staged_bundle(sys.argv[1]) as staging:\n"
        "    (staging / 'half').write_bytes(b'x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    assert any(name.endswith("/half") for name in snapshot(tmp_path))
    with staged_bundle(target) as staging:
        assert not any(name.endswith("/half") for name in snapshot(tmp_path))
        fill(staging, tiny_bundle)
    open_bundle(target)
    assert {name.split("/")[0] for name in snapshot(tmp_path)} == {"bundle"}


def test_the_leftovers_of_other_targets_stay(tiny_bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / ".other.partial-abc"
    other.mkdir()
    with staged_bundle(tmp_path / "bundle") as staging:
        fill(staging, tiny_bundle)
    assert other.is_dir()


@pytest.mark.parametrize("name", ["bundle[1]", "line?", "a*"])
def test_leftovers_of_a_name_with_signs_of_a_pattern_are_removed(
    tiny_bundle: Bundle, tmp_path: Path, name: str
) -> None:
    left_over = tmp_path / f".{name}.partial-abc"
    left_over.mkdir()
    other = tmp_path / ".another1.partial-abc"
    other.mkdir()
    with staged_bundle(tmp_path / name) as staging:
        fill(staging, tiny_bundle)
    assert not left_over.exists()
    assert other.exists()


def test_an_old_bundle_is_kept_unless_told(copied: Path) -> None:
    before = snapshot(copied)
    with pytest.raises(BundleError) as caught, staged_bundle(copied):
        pytest.fail("the block was entered")
    assert str(copied) in caught.value.cause
    assert "--overwrite" in caught.value.remedy
    assert snapshot(copied) == before


def test_an_old_bundle_is_replaced_as_a_whole(copied: Path, tiny_bundle: Bundle) -> None:
    (copied / "old_extra").write_text("x")
    with staged_bundle(copied, overwrite=True) as staging:
        fill(staging, tiny_bundle)
        assert (copied / "old_extra").exists()
    assert not (copied / "old_extra").exists()
    assert open_bundle(copied).manifest == tiny_bundle.manifest
    assert {name.split("/")[0] for name in snapshot(copied.parent)} == {copied.name}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["directory", "empty directory", "file"])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, kind: str, overwrite: bool) -> None:
    target = tmp_path / "precious"
    if kind == "file":
        target.write_text("thesis")
    else:
        target.mkdir()
        if kind == "directory":
            (target / "thesis.txt").write_text("thesis")
    before = snapshot(tmp_path)
    with (
        pytest.raises(BundleError) as caught,
        staged_bundle(target, overwrite=overwrite),
    ):
        pytest.fail("the block was entered")
    assert str(target) in caught.value.cause
    assert caught.value.remedy
    assert snapshot(tmp_path) == before
    assert target.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_during_the_export_is_not_replaced(
    tiny_bundle: Bundle, tmp_path: Path, overwrite: bool
) -> None:
    """An export takes minutes; the check before it does not hold until its end."""
    target = tmp_path / "target"
    with (
        pytest.raises(BundleError),
        staged_bundle(target, overwrite=overwrite) as staging,
    ):
        fill(staging, tiny_bundle)
        target.mkdir()
        (target / "thesis.txt").write_text("thesis")
    assert (target / "thesis.txt").read_text() == "thesis"


def test_a_bundle_published_by_another_during_the_export_is_kept(
    tiny_bundle: Bundle, copied: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    with pytest.raises(BundleError), staged_bundle(target) as staging:
        fill(staging, tiny_bundle)
        (copied / "mark").write_text("the other's")
        copied.rename(target)
    assert (target / "mark").exists()


def test_the_old_bundle_comes_back_if_the_last_rename_fails(
    copied: Path, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(copied.parent)
    real = Path.rename

    def fail_for_staging(self: Path, target: Path) -> Path:
        if "partial-" in self.name and "old" not in self.name:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(bundle_lock, "exchange", lambda *_: False)
    with pytest.raises(KeyboardInterrupt), staged_bundle(copied, overwrite=True) as staging:
        fill(staging, tiny_bundle)
        monkeypatch.setattr(Path, "rename", fail_for_staging)
    assert snapshot(copied.parent) == before
    open_bundle(copied)


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


def test_two_exports_to_one_target(tmp_path: Path, other_process: list[Path]) -> None:
    other_process.append(tmp_path / ".target.lock")
    with pytest.raises(BundleError) as caught, staged_bundle(tmp_path / "target"):
        pytest.fail("the block was entered")
    assert str(tmp_path / "target") in caught.value.cause
    assert "another process" in caught.value.cause
    assert str(tmp_path / ".target.lock") in caught.value.cause
    assert "wait" in caught.value.remedy


def test_two_processes_that_add_products(copied: Path, other_process: list[Path]) -> None:
    bundle = open_bundle(copied)
    before = snapshot(copied)
    other_process.append(copied / ".lock")
    with pytest.raises(BundleError, match="another process"):
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    assert snapshot(copied) == before


def test_a_product_is_added(copied: Path, tiny_bundle: Bundle) -> None:
    before = snapshot(copied)
    returned = add_products(open_bundle(copied), {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    opened = open_bundle(copied)
    assert opened.manifest == returned.manifest
    assert set(opened.manifest.products) == {"object", "metal_nut", "bolt"}
    np.testing.assert_array_equal(opened.text_embeddings("bolt"), unit_rows(1))
    for name in ("object", "metal_nut"):
        want = tiny_bundle.text_embeddings(name)
        np.testing.assert_array_equal(opened.text_embeddings(name), want)
    assert opened.identity == tiny_bundle.identity
    after = snapshot(copied)
    # nothing but the bank and the manifest changed, and the old bank is gone
    assert set(after) - set(before) == {opened.manifest.prompts}
    assert set(before) - set(after) == {"prompts.safetensors"}
    assert {name for name in before if name in after and after[name] != before[name]} == {
        "bundle.json"
    }


def test_products_are_added_again_and_again(copied: Path) -> None:
    bundle = open_bundle(copied)
    for i in range(4):
        bundle = add_products(bundle, {f"p{i}": unit_rows(i)}, {f"p{i}": PRODUCT})
    opened = open_bundle(copied)
    assert len(opened.manifest.products) == 6
    assert len(list(copied.glob("prompts*.safetensors"))) == 1
    for i in range(4):
        np.testing.assert_array_equal(opened.text_embeddings(f"p{i}"), unit_rows(i))


def test_a_product_is_replaced(copied: Path) -> None:
    entry = Product(sentences=(1, 2), threshold=0.25)
    add_products(open_bundle(copied), {"object": unit_rows(5)}, {"object": entry})
    opened = open_bundle(copied)
    assert opened.manifest.products["object"] == entry
    assert set(opened.manifest.products) == {"object", "metal_nut"}
    np.testing.assert_array_equal(opened.text_embeddings("object"), unit_rows(5))


def test_what_another_process_added_meanwhile_is_kept(copied: Path) -> None:
    stale = open_bundle(copied)
    add_products(open_bundle(copied), {"theirs": unit_rows(1)}, {"theirs": PRODUCT})
    add_products(stale, {"ours": unit_rows(2)}, {"ours": PRODUCT})
    opened = open_bundle(copied)
    assert {"ours", "theirs"} <= set(opened.manifest.products)
    np.testing.assert_array_equal(opened.text_embeddings("theirs"), unit_rows(1))


def test_a_bundle_opened_before_still_answers(copied: Path) -> None:
    """A reader sees the old products or the new ones, never a missing file."""
    reader = open_bundle(copied)
    want = reader.text_embeddings("object")
    add_products(open_bundle(copied), {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    np.testing.assert_array_equal(reader.text_embeddings("object"), want)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("bolt", unit_rows(1, 31)),
        ("bolt", unit_rows(1).astype(np.float64)),
        ("bolt", unit_rows(1)[:1]),
        ("bolt", unit_rows(1) * np.float32(2)),
        ("bolt", unit_rows(1) * np.float32("nan")),
        ("", unit_rows(1)),
        ("../bolt", unit_rows(1)),
        ("bolt\n", unit_rows(1)),
    ],
)
def test_products_that_are_refused_change_nothing(
    copied: Path, name: str, rows: np.ndarray
) -> None:
    before = snapshot(copied)
    with pytest.raises(ProductError) as caught:
        add_products(
            open_bundle(copied), {"good": unit_rows(2), name: rows},
            {"good": PRODUCT, name: PRODUCT},
        )  # fmt: skip
    assert repr(name) in caught.value.cause
    assert snapshot(copied) == before


@pytest.mark.parametrize(
    ("embeddings", "products"),
    [
        ({}, {"bolt": PRODUCT}),
        ({"bolt": unit_rows(1)}, {}),
        ({"bolt": unit_rows(1)}, {"bolt": PRODUCT, "../up": PRODUCT}),
    ],
    ids=["entry alone", "embeddings alone", "an unchecked name"],
)
def test_entries_and_embeddings_must_be_of_the_same_names(
    copied: Path, embeddings: dict, products: dict
) -> None:
    before = snapshot(copied)
    with pytest.raises(ProductError):
        add_products(open_bundle(copied), embeddings, products)
    assert snapshot(copied) == before


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("step", ["bank", "manifest", "rename"])
def test_adding_that_fails_midway_changes_nothing(
    copied: Path, monkeypatch: pytest.MonkeyPatch, step: str, kind: type[BaseException]
) -> None:
    before = snapshot(copied)
    bundle = open_bundle(copied)
    real = files.write_durably

    def write_half(path: Path, data: bytes) -> None:
        if (step == "bank") == (path.suffix == ".safetensors"):
            path.write_bytes(data[: len(data) // 2])
            raise kind
        real(path, data)

    def fail(self: Path, target: Path) -> None:
        raise kind

    if step == "rename":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr(files, "write_durably", write_half)
        monkeypatch.setattr(bundle_writer, "write_durably", write_half)
    with pytest.raises(kind):
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    monkeypatch.undo()
    assert snapshot(copied) == before
    assert open_bundle(copied).manifest == bundle.manifest


def test_adding_to_a_full_disk_changes_nothing(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(copied)
    bundle = open_bundle(copied)
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(BundleError, match="no space left") as caught:
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    assert str(copied) in caught.value.cause
    assert snapshot(copied) == before


def test_an_interrupt_right_after_the_rename_leaves_a_whole_bundle(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(copied)
    real = Path.replace

    def replace_then_interrupt(self: Path, target: Path) -> None:
        real(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    monkeypatch.undo()
    assert open_bundle(copied).manifest.products


def test_a_bank_that_was_altered_is_not_given_a_fresh_digest(copied: Path) -> None:
    bundle = open_bundle(copied)
    bank = copied / "prompts.safetensors"
    data = bytearray(bank.read_bytes())
    data[-4] ^= 1  # the last bit of the last float: norm and shape stay acceptable
    bank.write_bytes(data)
    with pytest.raises(BundleDamagedError):
        add_products(bundle, {"bolt": unit_rows(1)}, {"bolt": PRODUCT})


def test_products_are_added_to_the_bundle_one_stands_in(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied)
    add_products(open_bundle("."), {"bolt": unit_rows(1)}, {"bolt": PRODUCT})
    assert "bolt" in open_bundle(copied).manifest.products
