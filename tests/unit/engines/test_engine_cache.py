"""Publishing built engines: whole or not at all, whatever the disk and other processes do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.built_engines import PLAN, VERSION, publish
from zeroflaw_engines import engine_cache
from zeroflaw_engines.build_options import BuildOptions
from zeroflaw_engines.bundle import Bundle, open_bundle
from zeroflaw_engines.engine_cache import (
    build_command,
    engine_paths,
    locked_for_build,
)
from zeroflaw_engines.engine_lookup import find_engine
from zeroflaw_engines.errors import BuildError, BundleError


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.endswith(".lock")}


def test_layout_and_contents(bundle: Bundle) -> None:
    paths = publish(bundle)
    assert paths.plan == bundle.path / "engines/tensorrt-rtx/sm86-sm89/sam_decoder.engine"
    assert paths.plan.read_bytes() == PLAN
    assert files(paths.directory) == {"sam_decoder.engine", "sam_decoder.json"}
    assert open_bundle(bundle.path) == bundle, "engines are no part of the manifest"


def test_engines_may_be_copied_to_a_station_with_their_bundle(
    bundle: Bundle, tmp_path: Path
) -> None:
    import shutil

    publish(bundle)
    shutil.copytree(bundle.path, tmp_path / "station")
    found = find_engine(
        open_bundle(tmp_path / "station"), "sam_decoder", backend="tensorrt-rtx",
        backend_version=VERSION,
    )  # fmt: skip
    assert found.path.read_bytes() == PLAN


def test_full_disk_leaves_the_old_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = publish(bundle)

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(bytes(data)[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(engine_cache, "write_durably", full)
    with pytest.raises(BuildError, match="no space left") as caught:
        publish(bundle, plan=b"new")
    assert "free space" in caught.value.remedy
    assert files(paths.directory) == {"sam_decoder.engine", "sam_decoder.json"}
    assert find_engine(
        bundle, "sam_decoder", backend="tensorrt-rtx", backend_version=VERSION
    ).path.read_bytes() == PLAN  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's full device")
def test_a_disk_that_is_really_full(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own ENOSPC, from the device that is always full."""
    write = engine_cache.write_durably
    monkeypatch.setattr(
        engine_cache, "write_durably", lambda path, data: write(Path("/dev/full"), data)
    )
    with pytest.raises(BuildError, match=r"no space left on the disk of .*sm86-sm89"):
        publish(bundle)


def test_another_build_under_way(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is held by another process, not by another thread of this one."""
    monkeypatch.setattr(engine_cache, "_LOCK_SECONDS", 0.05)
    paths = engine_paths(bundle, "sam_decoder", "tensorrt-rtx", "sm86-sm89")
    paths.directory.mkdir(parents=True)
    code = (
        "import sys; from filelock import FileLock\n"
        f"with FileLock({str(paths.lock)!r}): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BuildError, match="another process is building") as caught:
            publish(bundle)
        assert str(paths.lock) in caught.value.cause
        assert "try again" in caught.value.remedy
        other.kill()  # the kernel gives the lock of a killed build back
    publish(bundle)


def test_what_a_killed_build_left_is_cleared(bundle: Bundle) -> None:
    paths = publish(bundle)
    left = paths.directory / ".sam_decoder.partial-12345678.engine"
    left.write_bytes(b"half")
    publish(bundle)
    assert not left.exists()


def test_the_embedded_bundle_is_never_built_into() -> None:
    mini = open_bundle("mini")
    paths = engine_paths(mini, "sam_decoder", "tensorrt-rtx", "sm86")
    with (
        pytest.raises(BundleError, match="part of the installation") as caught,
        locked_for_build(mini, paths),
    ):
        pytest.fail("the block must not run")  # pragma: no cover
    assert "zeroflaw bundle copy mini" in caught.value.remedy
    assert not (mini.path / "engines").exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_read_only_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(BuildError, match="cannot be written") as caught:
        publish(bundle)
    assert "zeroflaw bundle copy" in caught.value.remedy


def test_a_directory_in_the_way(bundle: Bundle) -> None:
    paths = engine_paths(bundle, "sam_decoder", "tensorrt-rtx", "sm86-sm89")
    (paths.plan / "in_the_way").mkdir(parents=True)
    with pytest.raises(BuildError, match="cannot be written"):
        publish(bundle)
    assert files(paths.directory) == {"sam_decoder.engine"}


def test_readers_see_a_whole_pair_or_none(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader beside a writer that replaces the engine again and again."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the order counts here
    paths = publish(bundle, plan=b"0" * 50_000)
    replaced = 0

    def write() -> None:
        nonlocal replaced
        for number in range(15):
            plan = str(number % 10).encode() * (50_000 + number)
            publish(bundle, plan=plan)
            replaced += 1

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while writer.is_alive():
        try:
            sidecar = paths.sidecar.read_bytes()
            plan = paths.plan.read_bytes()
            again = paths.sidecar.read_bytes()
        except FileNotFoundError:
            continue
        if sidecar == again:
            seen.add(len(plan))
            assert f'"engine_bytes": {len(plan)}'.encode() in sidecar
    writer.join()
    assert replaced == 15
    assert len(seen) > 2, "the reader must have seen several engines"


def test_build_command_is_what_a_user_types(bundle: Bundle) -> None:
    options = BuildOptions(
        backend="tensorrt-rtx", architectures=("sm86", "sm120"), precision="fp32"
    )
    assert build_command(bundle, options) == (
        f"zeroflaw build {bundle.path} --backend tensorrt-rtx --gpu sm86 --gpu sm120"
        " --precision fp32"
    )
