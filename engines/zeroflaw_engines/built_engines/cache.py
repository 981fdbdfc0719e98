"""Where built engines live, and how they are published: whole, durably, one writer at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from filelock import FileLock, Timeout

from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.built_engines.sidecar import EngineSidecar, encode_sidecar
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import ENGINES_DIRECTORY
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.contract import SINGLE_GRAPH_ENGINES, EngineName
from zeroflaw_engines.errors import BuildError
from zeroflaw_engines.files import disk_errors_named, sync, write_durably
from zeroflaw_engines.tensorrt_bindings import FOR_THE_GPU_AT_HAND

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
    """Say where an engine for a target is or would be."""
    return EnginePaths(bundle.path / ENGINES_DIRECTORY / backend / target, engine)


def build_command(bundle: Bundle, options: BuildOptions, engine: EngineName | None = None) -> str:
    """Return the command that builds such engines, for remedies.

    Args:
        engine: The one that is wanted. One of a single graph is built alone, whatever the
            precision of the others.
    """
    words = ["zeroflaw build", str(bundle.path), f"--backend {options.backend}"]
    if options.backend not in FOR_THE_GPU_AT_HAND:
        words += [f"--gpu {name}" for name in options.architectures]
    if engine in SINGLE_GRAPH_ENGINES:
        words.append(f"--engine {engine}")
    elif options.precision != "fp16":
        words.append(f"--precision {options.precision}")
    return " ".join(words)


@contextlib.contextmanager
def locked_for_build(bundle: Bundle, paths: EnginePaths) -> Iterator[None]:
    """Hold the lock of one engine's build; make its directory, and clear what was left.

    Raises:
        BuildError: Another build of the same engine is under way, or the bundle is read-only.
        BundleError: The bundle is part of the installation.
    """
    require_changeable(bundle.path)
    with engine_disk_errors(paths):
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


@contextlib.contextmanager
def file_to_publish(paths: EnginePaths) -> Iterator[Path]:
    """Give a path beside the engine to write plan or sidecar to; gone when the block ends."""
    path = paths.directory / f".{paths.engine}{_TEMPORARY}{uuid4().hex[:8]}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def publish_engine(paths: EnginePaths, plan: Path, sidecar: EngineSidecar) -> None:
    """Publish an engine and its sidecar; the caller holds the lock.

    The plan is renamed; the sidecar comes last, the old one goes first. A reader sees the old
    pair, the new pair, or none, whenever the process dies.

    Args:
        plan: A file of `file_to_publish`.

    Raises:
        BuildError: The disk is full or the directory cannot be written.
    """
    with engine_disk_errors(paths), file_to_publish(paths) as new_sidecar:
        sync(plan)
        write_durably(new_sidecar, encode_sidecar(sidecar))
        paths.sidecar.unlink(missing_ok=True)
        plan.replace(paths.plan)
        sync(paths.directory)
        new_sidecar.replace(paths.sidecar)
        sync(paths.directory)


def engine_disk_errors(paths: EnginePaths) -> contextlib.AbstractContextManager[None]:
    """Name the engine's directory in errors of the disk.

    Raises:
        BuildError: The disk is full or the directory cannot be written.
    """
    return disk_errors_named(
        paths.directory,
        BuildError,
        "check the path and its permissions",
        full=(
            f"{paths.engine} was not published",
            "free space there, or copy the bundle to another disk and build it there",
        ),
        read_only="build in a copy that you may write (`zeroflaw bundle copy`), then bring the"
        " engines directory to the station",
        # The block may compile for an hour: errors of anything else are not the cache's.
        ours=lambda file: file is not None and file.is_relative_to(paths.directory.absolute()),
    )
