"""Writing bundles: all of it or nothing, whatever breaks the writing off."""

# ruff: noqa: PT012 - what happens inside the block is what is tested

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.small_bundle import fill, snapshot
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.directory import lock as bundle_lock
from zeroflaw_engines.bundle.writer import staged_bundle, write_manifest
from zeroflaw_engines.errors import (
    BundleError,
)


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


def test_two_exports_to_one_target(tmp_path: Path, other_process: list[Path]) -> None:
    other_process.append(tmp_path / ".target.lock")
    with pytest.raises(BundleError) as caught, staged_bundle(tmp_path / "target"):
        pytest.fail("the block was entered")
    assert str(tmp_path / "target") in caught.value.cause
    assert "another process" in caught.value.cause
    assert str(tmp_path / ".target.lock") in caught.value.cause
    assert "wait" in caught.value.remedy
