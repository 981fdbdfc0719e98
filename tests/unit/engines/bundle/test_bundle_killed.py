"""Writers that are killed: there is a whole bundle at its path, and the next writer cleans up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.small_bundle import ENTRY, left_overs, rows, write_small_bundle
from zeroflaw_engines.bundle.bundle import open_bundle, read_manifest
from zeroflaw_engines.bundle.directory import lock as bundle_lock
from zeroflaw_engines.bundle.directory.lock import locked_name
from zeroflaw_engines.bundle.products.writer import add_products
from zeroflaw_engines.bundle.writer import copy_bundle, staged_bundle, write_manifest
from zeroflaw_engines.files import exchange

TESTS = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("operation", "way", "least"),
    [
        ("add", "exchange", 15),
        ("add_again", "exchange", 15),
        ("calibrate", "exchange", 15),
        ("learn_again", "exchange", 15),
        ("forget", "exchange", 12),
        ("edit", "exchange", 15),
        ("edit_again", "exchange", 30),
        ("variants", "exchange", 30),
        ("copy", "exchange", 30),
        ("copy", "renames", 30),
        ("export_new", "exchange", 20),
    ],
)
def test_a_writer_killed_at_any_step(tmp_path: Path, operation: str, way: str, least: int) -> None:
    command = [sys.executable, "-m", "support.killed_writer", operation, str(tmp_path), way]
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    steps, *problems = done.stdout.split("\n")
    assert int(steps) >= least
    assert [problem for problem in problems if problem] == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot exchange directories")
def test_directories_are_exchanged_in_one_step(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for directory in (one, two):
        directory.mkdir()
        (directory / directory.name).touch()
    assert exchange(one, two)
    assert (one / "two").exists()
    assert (two / "one").exists()
    with pytest.raises(FileNotFoundError):
        exchange(one, tmp_path / "three")


@pytest.fixture
def caught_between(tmp_path: Path) -> Path:
    """A bundle as a writer leaves it that is killed between its two renames."""
    path = tmp_path / "b"
    write_small_bundle(path)
    path.rename(tmp_path / ".b.replaced-00000000")
    (tmp_path / ".b.partial-x").mkdir()
    return path


@pytest.mark.parametrize("read", [open_bundle, read_manifest])
def test_a_reader_brings_the_bundle_back(caught_between: Path, read) -> None:
    read(caught_between)
    assert left_overs(caught_between) == []


def test_a_reader_through_a_link_brings_the_bundle_back(caught_between: Path) -> None:
    link = caught_between.with_name("link")
    link.symlink_to("b")
    open_bundle(link)
    assert caught_between.is_dir()


def test_a_reader_that_may_not_write_reads_what_is_left(
    caught_between: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(bundle_lock, "_try_to_lock", deny)
    monkeypatch.setattr(bundle_lock, "_GAP_SECONDS", 0.05)
    bundle = open_bundle(caught_between)
    assert bundle.path.name == ".b.replaced-00000000"
    assert "object" in bundle.manifest.products


def test_a_writer_brings_the_bundle_back(caught_between: Path) -> None:
    stale = open_bundle(caught_between.with_name(".b.replaced-00000000"))
    named = type(stale)(path=caught_between, manifest=stale.manifest)
    add_products(named, {"new": rows(1)}, {"new": ENTRY})
    assert "new" in open_bundle(caught_between).manifest.products
    assert left_overs(caught_between) == []


def test_the_files_of_a_living_export_stay(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "b")
    with staged_bundle(bundle.path, overwrite=True) as staging:
        for name in bundle.manifest.files:
            shutil.copyfile(bundle.path / name, staging / name)
        write_manifest(staging, bundle.manifest)
        add_products(bundle, {"new": rows(1)}, {"new": ENTRY})
        open_bundle(staging)


def test_the_lock_of_a_killed_export_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".b.lock").touch()
    with locked_name(tmp_path / "b"):
        assert (tmp_path / ".b.lock").exists()
    assert not (tmp_path / ".b.lock").exists()


def test_files_that_are_not_ours_stay(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "b")
    kept = [
        "README.txt", "prompts-notes.safetensors", "reference-x.safetensors",
        "engines/tensorrt/x/plan", ".learning-x/tokens.npy",
    ]  # fmt: skip
    for name in kept:
        (bundle.path / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle.path / name).touch()
    ours = ["prompts-0123abcd.safetensors", "reference-0123abcd.safetensors"]
    for name in (*ours, ".bundle.json.0123abcd", ".lock"):
        (bundle.path / name).touch()
    (bundle.path / ".partial-x").mkdir()
    (bundle.path / ".partial-x" / ".moved").write_text("sam_encoder.fp16.onnx\n../outside\n")
    (bundle.path / "sam_encoder.fp16.onnx").touch()
    (tmp_path / "outside").touch()
    changed = add_products(bundle, {"new": rows(1)}, {"new": ENTRY})
    files = {
        path.relative_to(bundle.path).as_posix()
        for path in bundle.path.rglob("*")
        if path.is_file()
    }
    assert files == {*changed.manifest.files, "bundle.json", *kept}
    assert (tmp_path / "outside").exists()


def test_locks_built_engines_and_half_learned_products_are_no_content(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "b")
    (bundle.path / "engines" / "tensorrt").mkdir(parents=True)
    (bundle.path / ".learning-0123abcd").mkdir()
    strange = ["engines/tensorrt/plan", ".learning-0123abcd/tokens", ".lock"]
    for name in (*strange, ".bundle.json.0123abcd"):
        (bundle.path / name).touch()
    assert write_manifest(bundle.path, bundle.manifest).files == bundle.manifest.files
    copied = copy_bundle(bundle, tmp_path / "copy").path
    assert not [name for name in strange if (copied / name).exists()]
