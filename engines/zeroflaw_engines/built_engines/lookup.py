"""Finding built engines, verifying them, and saying why one may not be used.

Nothing here builds or deserializes: a station that finds no fitting engine says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from zeroflaw_engines.built_engines.cache import (
    EnginePaths,
    build_command,
    engine_paths,
)
from zeroflaw_engines.built_engines.key import KeyDifference, key_differences, parts_now
from zeroflaw_engines.built_engines.options import THIS_GPU, BuildOptions
from zeroflaw_engines.built_engines.sidecar import EngineSidecar, decode_sidecar
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import ENGINES_DIRECTORY
from zeroflaw_engines.contract import FRAME_RESIZER, EngineContract, EngineName
from zeroflaw_engines.errors import (
    EngineDamagedError,
    EngineError,
    EngineMissingError,
    EngineStaleError,
)
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_engines.machine import Gpu
from zeroflaw_engines.tensorrt_bindings import FOR_THE_GPU_AT_HAND, BuildBackend, installed_version


@dataclass(frozen=True)
class BuiltEngine:
    """An engine whose digest, sidecar and key were verified.

    Attributes:
        path: The engine's file.
        sidecar: What it is.
        runtime_cache: Where a TensorRT-RTX session keeps the kernels that it compiled.
    """

    path: Path
    sidecar: EngineSidecar
    runtime_cache: Path

    def limited(self, contract: EngineContract) -> EngineContract:
        """Return the contract with the limits that the engine was built with."""
        profile = self.sidecar.parts.profile
        limits = dict(contract.limits)
        for spec in contract.inputs:
            for number, axis in enumerate(spec.shape):
                if isinstance(axis, str) and axis in limits and spec.name in profile:
                    limits[axis] = profile[spec.name][2][number]
        return replace(contract, limits=limits)


@dataclass(frozen=True)
class EngineStatus:
    """Why an engine in the cache may or may not be used.

    Attributes:
        status: `up to date`; `stale` where the key differs; `damaged` where files do not fit;
            `no graph` where the bundle no longer has what it was built from.
        reason: In words; empty if up to date.
        differences: Parts of the key that differ, old against new.
        sidecar: Its sidecar, if it can be read.
    """

    paths: EnginePaths
    status: Literal["up to date", "stale", "damaged", "no graph"]
    reason: str = ""
    differences: tuple[KeyDifference, ...] = ()
    sidecar: EngineSidecar | None = None


def find_engine(
    bundle: Bundle,
    engine: EngineName,
    *,
    backend: BuildBackend,
    architecture: str | None = None,
    target: str | None = None,
    backend_version: str | None = None,
) -> BuiltEngine:
    """Find a built engine and verify it; never build one.

    Args:
        architecture: The GPU's, as `sm89`: engines for others are passed over, and of several
            that fit the one for the fewest architectures is taken. None takes any.
        target: Name of the directory to take it from, as `sm86-sm89`; None looks into all.
        backend_version: Full version that is to run it; None asks the installed package.

    Raises:
        EngineMissingError: None was built for this backend, target or architecture.
        EngineStaleError: It is of another bundle or backend version; the error says how.
        EngineDamagedError: It or its sidecar is truncated, altered, or another's.
        BackendUnavailableError: The backend is not installed.
    """
    wanted = BuildOptions(backend=backend, architectures=(architecture,) if architecture else ())
    found = _choose(bundle, engine, wanted, target)
    version = installed_version(backend) if backend_version is None else backend_version
    paths, sidecar = found
    remedy = f"build it again: {_command_of(bundle, sidecar)}"
    differences = _blocking(sidecar, bundle, version)
    if differences:
        raise EngineStaleError(f"{paths.plan} is stale: {'; '.join(map(str, differences))}", remedy)
    _verify_plan(paths, sidecar, remedy)
    return BuiltEngine(path=paths.plan, sidecar=sidecar, runtime_cache=paths.runtime_cache)


def read_sidecar(bundle: Bundle, paths: EnginePaths) -> EngineSidecar | None:
    """Read the sidecar of an engine; None if none was published.

    Raises:
        EngineDamagedError: It is not valid, or is that of another engine.
    """
    options = BuildOptions(
        backend=_backend_of(paths), architectures=_architectures_of(paths.directory.name)
    )
    remedy = f"build it again: {build_command(bundle, options)}"
    try:
        data = paths.sidecar.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineDamagedError(
            f"{paths.sidecar} cannot be read: {error.strerror}", remedy
        ) from error
    sidecar = decode_sidecar(data, str(paths.sidecar), remedy=remedy)
    parts = sidecar.parts
    if (
        parts.engine != paths.engine
        or parts.backend != options.backend
        or parts.architectures != options.architectures
    ):
        described = "-".join(parts.architectures) or THIS_GPU
        raise EngineDamagedError(
            f"{paths.sidecar} is the sidecar of another engine: {parts.engine} of"
            f" {parts.backend} for {described}",
            remedy,
        )
    return sidecar


def engine_statuses(
    bundle: Bundle, *, backend_versions: dict[BuildBackend, str] | None = None
) -> list[EngineStatus]:
    """List every engine in a bundle's cache, by backend, target and name, with its status.

    Args:
        backend_versions: Full version by backend; default: the installed packages. A backend
            that is not installed is compared with its own old version.
    """
    return [
        engine_status(bundle, paths, backend_versions=backend_versions)
        for paths in _all_paths(bundle)
    ]


def engine_status(
    bundle: Bundle,
    paths: EnginePaths,
    *,
    backend_versions: dict[BuildBackend, str] | None = None,
) -> EngineStatus:
    """Say why one engine of the cache may or may not be used; see `engine_statuses`."""
    try:
        sidecar = read_sidecar(bundle, paths)
        if sidecar is None:
            return EngineStatus(paths, "damaged", "it has no sidecar: its build did not end")
        version = _version_to_compare(sidecar, backend_versions)
        _verify_plan(paths, sidecar, "")
    except EngineDamagedError as error:
        return EngineStatus(paths, "damaged", error.cause)
    try:
        differences = key_differences(sidecar.parts, parts_now(sidecar.parts, bundle, version))
    except EngineError as error:
        return EngineStatus(paths, "no graph", error.cause, sidecar=sidecar)
    if differences:
        reason = "; ".join(map(str, differences))
        return EngineStatus(paths, "stale", reason, differences, sidecar)
    return EngineStatus(paths, "up to date", sidecar=sidecar)


def _choose(
    bundle: Bundle, engine: EngineName, wanted: BuildOptions, target: str | None
) -> tuple[EnginePaths, EngineSidecar]:
    """Choose the engine's files that fit best, with the sidecar; nothing of the plan is read."""
    where = (
        "with the GPU that runs it" if wanted.backend in FOR_THE_GPU_AT_HAND else "on a workstation"
    )
    remedy = f"build it {where}: {build_command(bundle, wanted, engine)}"
    architecture = wanted.architectures[0] if wanted.architectures else None
    others, fitting = [], []
    for paths in _all_paths(bundle, wanted.backend, engine):
        named = paths.directory.name
        other_gpu = architecture and named != THIS_GPU and architecture not in named.split("-")
        if other_gpu or target not in {None, named}:
            others.append(named)
            continue
        sidecar = read_sidecar(bundle, paths)
        if sidecar is None:
            continue
        runs_on = _runs_on(sidecar)
        if architecture is not None and architecture not in runs_on:
            others.append("-".join(runs_on))
            continue
        fitting.append((len(runs_on), paths.directory.name, paths, sidecar))
    if not fitting:
        described = " for ".join(filter(None, (wanted.backend, target or architecture)))
        have = f" (there are some for {', '.join(sorted(set(others)))})" if others else ""
        raise EngineMissingError(
            f"{bundle.path} has no {engine} built by {described}{have}", remedy
        )
    *_, paths, sidecar = min(fitting, key=lambda one: one[:2])
    return paths, sidecar


def _runs_on(sidecar: EngineSidecar) -> tuple[str, ...]:
    """Return the architectures that may run an engine."""
    parts = sidecar.parts
    if parts.architectures:
        return parts.architectures
    return (Gpu.parse(parts.gpu).architecture,) if parts.gpu else ()


def _blocking(sidecar: EngineSidecar, bundle: Bundle, version: str) -> tuple[KeyDifference, ...]:
    """Return the differences that forbid to run an engine.

    Those in the version of the backend do not if the engine was built to be compatible with
    later ones, nor does a later revision of zeroflaw's builder.
    """
    parts = sidecar.parts
    differences = key_differences(parts, parts_now(parts, bundle, version))
    later = bool(parts.flags.get("version_compatible")) and _numbers(version) >= _numbers(
        parts.backend_version
    )
    return tuple(
        difference
        for difference in differences
        if difference.part != "builder_revision"
        and not (later and difference.part == "backend_version")
    )


def _verify_plan(paths: EnginePaths, sidecar: EngineSidecar, remedy: str) -> None:
    try:
        size = paths.plan.stat().st_size
        if size != sidecar.engine_bytes:
            raise EngineDamagedError(
                f"{paths.plan} has {size} bytes where its sidecar says {sidecar.engine_bytes}",
                remedy,
            )
        if sha256_of_file(paths.plan) != sidecar.engine_sha256:
            raise EngineDamagedError(
                f"{paths.plan} was altered: its SHA-256 is not that of its sidecar", remedy
            )
    except OSError as error:
        raise EngineDamagedError(
            f"{paths.plan} cannot be read: {error.strerror}", remedy
        ) from error


def _all_paths(
    bundle: Bundle, backend: BuildBackend | None = None, engine: EngineName | None = None
) -> list[EnginePaths]:
    all_names: list[EngineName] = sorted([*bundle.manifest.engines, FRAME_RESIZER])
    names = [engine] if engine else all_names
    backends: tuple[BuildBackend, ...] = (backend,) if backend else ("tensorrt", "tensorrt-rtx")
    found = []
    for one in backends:
        root = bundle.path / ENGINES_DIRECTORY / one
        for directory in sorted(root.iterdir()) if root.is_dir() else ():
            for name in names:
                paths = engine_paths(bundle, name, one, directory.name)
                if paths.plan.exists() or paths.sidecar.exists():
                    found.append(paths)
    return found


def _backend_of(paths: EnginePaths) -> BuildBackend:
    return "tensorrt" if paths.directory.parent.name == "tensorrt" else "tensorrt-rtx"


def _architectures_of(target: str) -> tuple[str, ...]:
    return () if target == THIS_GPU else tuple(target.split("-"))


def _command_of(bundle: Bundle, sidecar: EngineSidecar) -> str:
    parts = sidecar.parts
    return build_command(
        bundle,
        BuildOptions(
            backend=parts.backend,
            architectures=parts.architectures,
            precision="fp32" if parts.precision == "fp32" else "fp16",
        ),
        parts.engine,
    )


def _version_to_compare(sidecar: EngineSidecar, versions: dict[BuildBackend, str] | None) -> str:
    backend = sidecar.parts.backend
    if versions is not None:
        return versions.get(backend, sidecar.parts.backend_version)
    try:
        return installed_version(backend)
    except EngineError:
        return sidecar.parts.backend_version


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
