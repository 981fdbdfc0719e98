"""Publishing built engines: whole or not at all, whatever the disk and other processes do."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.gpu.built_engines import PLAN, VERSION, publish
from zeroflaw_engines.built_engines import cache as engine_cache
from zeroflaw_engines.built_engines.cache import (
    build_command,
    engine_paths,
    locked_for_build,
)
from zeroflaw_engines.built_engines.lookup import find_engine
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import BuildError, BundleError, EngineMissingError


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


def test_the_shipped_bundle_is_never_built_into() -> None:
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


@pytest.mark.parametrize("dies_after", range(6))
def test_a_reader_sees_the_old_pair_the_new_pair_or_none(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    """Whatever step of publishing the process dies after; and so beside it at every moment."""
    old, new = b"old plan", b"new plan" * 2
    publish(bundle, plan=old)
    steps = 0
    dead = RuntimeError("the process dies")

    def until_death(function):
        def step(*args, **kwargs):
            nonlocal steps
            if steps >= dies_after:
                raise dead
            steps += 1
            return function(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", until_death(Path.replace))
        patch.setattr(Path, "unlink", until_death(Path.unlink))
        with contextlib.suppress(RuntimeError):
            publish(bundle, plan=new)
    try:
        found = find_engine(bundle, "sam_decoder", backend="tensorrt-rtx", backend_version=VERSION)
    except EngineMissingError:
        assert 0 < dies_after < 3, "only between the old sidecar's end and the new one's beginning"
        return
    assert found.path.read_bytes() == (new if dies_after >= 3 else old)
    assert found.sidecar.engine_bytes == len(found.path.read_bytes())


def test_build_command_is_what_a_user_types(bundle: Bundle) -> None:
    options = BuildOptions(
        backend="tensorrt-rtx", architectures=("sm86", "sm120"), precision="fp32"
    )
    assert build_command(bundle, options) == (
        f"zeroflaw build {bundle.path} --backend tensorrt-rtx --gpu sm86 --gpu sm120"
        " --precision fp32"
    )
    # It builds for the GPU of its machine, and refuses --gpu.
    on_it = BuildOptions(backend="tensorrt", architectures=("sm90",))
    assert build_command(bundle, on_it) == f"zeroflaw build {bundle.path} --backend tensorrt"
