"""Where built engines live, and how they are published: whole, durably, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from filelock import FileLock, Timeout

from zeroflaw_engines.build_options import BuildOptions
from zeroflaw_engines.bundle import Bundle
from zeroflaw_engines.contract import EngineName
from zeroflaw_engines.embedded import require_changeable
from zeroflaw_engines.engine_sidecar import EngineSidecar, encode_sidecar
from zeroflaw_engines.errors import BuildError

ENGINES_DIRECTORY: Final = "engines"
_LOCK_SECONDS: Final = 2.0
_TEMPORARY: Final = ".partial-"


@dataclass(frozen=True)
class EnginePaths:
    """The files of one engine for one target.

    Attributes:
        directory: `BUNDLE/engines/<backend>/<target>`.
        engine: Which engine.
    """

    directory: Path
    engine: EngineName

    @property
    def plan(self) -> Path:
        """The engine itself."""
        return self.directory / f"{self.engine}.engine"

    @property
    def sidecar(self) -> Path:
        """What it is; it is there if and only if the engine was published."""
        return self.directory / f"{self.engine}.json"

    @property
    def runtime_cache(self) -> Path:
        """Kernels that TensorRT-RTX compiled on this station; the session owns the file.

        It is no part of the engine's key: without it the first run takes longer.
        """
        return self.directory / f"{self.engine}.runtime_cache"

    @property
    def lock(self) -> Path:
        """Held by the build that is under way."""
        return self.directory / f".{self.engine}.lock"


def engine_paths(bundle: Bundle, engine: EngineName, backend: str, target: str) -> EnginePaths:
    """Where an engine for a target is or would be."""
    return EnginePaths(bundle.path / ENGINES_DIRECTORY / backend / target, engine)


def build_command(bundle: Bundle, options: BuildOptions) -> str:
    """The command that builds such engines, for remedies."""
    words = ["zeroflaw build", str(bundle.path), f"--backend {options.backend}"]
    words += [f"--gpu {name}" for name in options.architectures]
    if options.precision != "fp16":
        words.append(f"--precision {options.precision}")
    return " ".join(words)


@contextlib.contextmanager
def locked_for_build(bundle: Bundle, paths: EnginePaths) -> Iterator[None]:
    """Holds the lock of one engine's build; makes its directory, and clears what was left.

    Raises:
        BuildError: Another build of the same engine is under way, or the bundle is read-only.
        BundleError: The bundle is part of the installation.
    """
    require_changeable(bundle.path)
    with disk_errors_named(paths):
        paths.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(paths.lock)
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout as error:
            raise BuildError(
                f"another process is building {paths.plan} (it holds {paths.lock})",
                "wait for it to end and try again",
            ) from error
        try:
            for left in paths.directory.glob(f".{paths.engine}{_TEMPORARY}*"):
                left.unlink(missing_ok=True)
            yield
        finally:
            lock.release()


def publish_engine(paths: EnginePaths, plan: memoryview | bytes, sidecar: EngineSidecar) -> None:
    """Publishes an engine and its sidecar; the caller holds the lock.

    The engine is written to a temporary file and renamed; the sidecar comes last, the old one
    goes first. A reader sees the old pair, the new pair, or none, whenever the process dies.

    Raises:
        BuildError: The disk is full or the directory cannot be written.
    """
    with disk_errors_named(paths), _temporary(paths) as (plan_file, sidecar_file):
        _write_durably(plan_file, plan)
        _write_durably(sidecar_file, encode_sidecar(sidecar))
        paths.sidecar.unlink(missing_ok=True)
        _sync_directory(paths.directory)
        plan_file.replace(paths.plan)
        sidecar_file.replace(paths.sidecar)
        _sync_directory(paths.directory)


@contextlib.contextmanager
def disk_errors_named(paths: EnginePaths) -> Iterator[None]:
    """Turns what the file system refuses into errors with a remedy.

    Raises:
        BuildError: The disk is full or the directory cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise BuildError(
                f"no space left on the disk of {paths.directory}; {paths.engine} was not published",
                "free space there, or copy the bundle to another disk and build it there",
            ) from error
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise BuildError(
                f"{paths.directory} cannot be written: {error.strerror}",
                "build in a copy that you may write (`zeroflaw bundle copy`), then bring the"
                " engines directory to the station",
            ) from error
        if error.filename is None or not Path(error.filename).is_relative_to(paths.directory):
            raise
        raise BuildError(
            f"{error.filename} cannot be written: {error.strerror}",
            "check the path and its permissions",
        ) from error


@contextlib.contextmanager
def _temporary(paths: EnginePaths) -> Iterator[tuple[Path, Path]]:
    stem = f".{paths.engine}{_TEMPORARY}{uuid4().hex[:8]}"
    files = (paths.directory / f"{stem}.engine", paths.directory / f"{stem}.json")
    try:
        yield files
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _write_durably(path: Path, data: memoryview | bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """Makes renames durable; Windows has no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
