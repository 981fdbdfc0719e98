"""The backends by name: what each is, whether this machine can run it, and which is the fastest."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_engines import arguments
from zeroflaw_engines.bundle.bundle import Bundle, require_same_engine
from zeroflaw_engines.contract import CLIP_ENCODER, ENGINES_OF_REFINER, EngineName
from zeroflaw_engines.errors import (
    ArgumentError,
    BackendUnavailableError,
    BundleError,
    EngineError,
    ZeroflawError,
)
from zeroflaw_engines.machine import MAX_THREADS
from zeroflaw_engines.sessions.backend import Backend, SessionRequest
from zeroflaw_engines.sessions.session import Session

AUTO: Final = "auto"
DEFAULT_BACKEND: Final = "onnxruntime"

_log = logging.getLogger(__name__)

_ONNXRUNTIME: Final = "zeroflaw_engines.sessions.onnxruntime_session"
_OPENVINO: Final = "zeroflaw_engines.sessions.openvino_session"
_TENSORRT: Final = "zeroflaw_engines.sessions.tensorrt_session"

# From the fastest to the slowest: the order in which `auto` takes what is there.
RANKING: Final = (
    Backend(
        "tensorrt",
        _TENSORRT,
        ("fp16", "fp32"),
        "an engine tuned on this GPU, CUDA graphs",
        builds="tensorrt",
        on_gpu=True,
    ),
    Backend(
        "tensorrt-rtx",
        _TENSORRT,
        ("fp16", "fp32"),
        "an engine for this GPU's architecture, CUDA graphs",
        builds="tensorrt-rtx",
        on_gpu=True,
    ),
    Backend(
        "onnxruntime-tensorrt-rtx",
        _ONNXRUNTIME,
        ("fp32", "fp16"),
        "TensorRT-RTX inside ONNX Runtime",
        on_gpu=True,
    ),
    Backend(
        "onnxruntime-tensorrt",
        _ONNXRUNTIME,
        ("fp32", "fp16"),
        "TensorRT inside ONNX Runtime",
        on_gpu=True,
    ),
    Backend(
        "onnxruntime-cuda",
        _ONNXRUNTIME,
        ("fp32", "fp16"),
        "the GPU, operator by operator",
        on_gpu=True,
    ),
    Backend(
        "openvino",
        _OPENVINO,
        ("fp32", "bf16", "fp16"),
        "the fastest on CPUs (docs/backends.md)",
        verified=True,
    ),
    Backend("onnxruntime", _ONNXRUNTIME, ("fp32",), "runs everywhere", verified=True),
)
BACKENDS: Final = {backend.name: backend for backend in RANKING}


@dataclass(frozen=True)
class Availability:
    """Whether this machine can run a backend.

    Attributes:
        backend: A name in `BACKENDS`.
        version: Of its library; empty if there is none.
        missing: What is missing; empty if nothing is.
        remedy: What helps.
        precisions: Those that this machine computes in.
    """

    backend: str
    version: str = ""
    missing: str = ""
    remedy: str = ""
    precisions: tuple[str, ...] = ()

    @property
    def available(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class BackendChoice:
    """The backend that runs, and why it and not a faster one.

    Attributes:
        backend: A name in `BACKENDS`.
        precision: What it computes in.
        reason: In words.
    """

    backend: str
    precision: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} in {self.precision}: {self.reason}"


def availability(name: str, *, device: int = 0) -> Availability:
    """Find out whether this machine can run a backend; never raise for what is missing.

    Args:
        name: One of `BACKENDS`.
        device: Number of the GPU, as CUDA counts.
    """
    backend = BACKENDS[name]
    try:
        _require_device(backend, device)
        version, precisions = backend.imported().probe(backend, device)
    except BackendUnavailableError as error:
        return Availability(name, missing=error.cause, remedy=error.remedy)
    return Availability(name, version, precisions=precisions)


def choose_backend(
    name: str,
    precision: str | None = None,
    *,
    bundle: Bundle | None = None,
    engines: Iterable[EngineName] | None = None,
    device: int = 0,
) -> BackendChoice:
    """Choose the backend that is named, or for `auto` the fastest that is available.

    A backend that is named is never replaced by another: loading it says what it lacks.

    Args:
        name: One of `BACKENDS`, or `auto`.
        precision: What it is to compute in; None takes the backend's default.
        bundle: What is to be run: backends for which it lacks engines are passed over by `auto`.
        engines: Those that are to be run; None: the CLIP encoder, and those of the refiner that
            the bundle was exported with.
        device: Number of the GPU, as CUDA counts; with any but 0 no CPU backend is chosen.

    Raises:
        ArgumentError: The device is no such number.
        BackendUnavailableError: There is no such backend, it does not offer the precision or
            runs on no GPU where one is asked for, or no backend does.
    """
    arguments.whole_number("device", device, minimum=0)
    arguments.text("backend", name, error=BackendUnavailableError)
    if precision is not None:
        arguments.text("precision", precision, error=BackendUnavailableError)
    known = {one for backend in RANKING for one in backend.precisions}
    if precision is not None and precision not in known:
        raise BackendUnavailableError(
            f"there is no precision {precision!r}", f"choose one of: {', '.join(sorted(known))}"
        )
    if name != AUTO:
        backend = _backend(name)
        chosen = precision or backend.precisions[0]
        if chosen not in backend.precisions:
            raise BackendUnavailableError(
                f"the backend {name} does not compute in {chosen}",
                f"choose one of its precisions ({', '.join(backend.precisions)}), or another"
                " backend",
            )
        _require_device(backend, device)
        return BackendChoice(name, chosen, "it was named")
    wanted_engines = _engines_of(bundle) if engines is None else tuple(engines)
    passed: list[str] = []
    for backend in RANKING:
        why_not = _why_not(backend, precision, bundle, wanted_engines, device)
        if why_not is not None:
            passed.append(f"{backend.name} ({why_not})")
            continue
        reason = f"the fastest available, {backend.why}"
        if passed:
            reason += f"; passed over: {', '.join(passed)}"
        choice = BackendChoice(backend.name, precision or backend.precisions[0], reason)
        _log.info("auto chose %s", choice)
        return choice
    wanted = f"computes in {precision}" if precision else "runs"
    on_gpu = f" on GPU {device}" if device else ""
    raise BackendUnavailableError(
        f"no backend here {wanted}{on_gpu}: {', '.join(passed)}",
        "leave the precision and the device out, or see `zeroflaw doctor`",
    )


def load_session(
    bundle: Bundle,
    engine: EngineName,
    *,
    backend: str = DEFAULT_BACKEND,
    precision: str | None = None,
    threads: int = 0,
    model_cache: Path | None = None,
    device: int = 0,
) -> Session:
    """Load one engine of a bundle.

    Args:
        backend: One of `BACKENDS`, or `auto`.
        precision: What it computes in; None takes the backend's default.
        threads: CPU threads of the engine; 0 takes every core.
        model_cache: Where backends that compile at load keep what they compiled; None keeps
            nothing.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.

    Raises:
        ArgumentError: The threads or the device are out of their range, or the cache is not a
            directory.
        BackendUnavailableError: The backend is unknown or not installed, or lacks its driver,
            the GPU of that number or the precision.
        EngineError: The graph or the built engine cannot be loaded.
        EngineContractError: Its tensors are not those of the contract.
        BundleChangedError: The bundle was replaced by another meanwhile.
    """
    arguments.whole_number("threads", threads, minimum=0, maximum=MAX_THREADS)
    if model_cache is not None:
        _require_directory(model_cache)
    try:
        choice = choose_backend(backend, precision, bundle=bundle, engines=(engine,), device=device)
        chosen = BACKENDS[choice.backend]
        session = chosen.imported().load(
            chosen,
            SessionRequest(
                bundle=bundle,
                engine=engine,
                precision=precision,
                threads=threads,
                model_cache=model_cache,
                device=device,
            ),
        )
    except ZeroflawError:
        require_same_engine(bundle, engine)
        raise
    try:
        require_same_engine(bundle, engine)
    except BundleError:
        session.close()
        raise
    return session


def _require_directory(model_cache: Path) -> None:
    if model_cache.exists() and not model_cache.is_dir():
        raise ArgumentError(
            f"model_cache is {model_cache}, which is not a directory",
            "name a directory; it is made if it does not exist",
        )


def _backend(name: str) -> Backend:
    backend = BACKENDS.get(name)
    if backend is None:
        raise BackendUnavailableError(
            f"there is no backend {name!r}", f"choose one of: {', '.join((AUTO, *BACKENDS))}"
        )
    return backend


def _require_device(backend: Backend, device: int) -> None:
    if device and not backend.on_gpu:
        raise BackendUnavailableError(
            f"the backend {backend.name} runs on the processor, which is device 0 alone, not"
            f" {device}",
            "leave the device out, or name a backend that runs on a GPU",
        )


def _engines_of(bundle: Bundle | None) -> tuple[EngineName, ...]:
    if bundle is None:
        return ()
    return (CLIP_ENCODER, *ENGINES_OF_REFINER[bundle.manifest.method_parameters.refiner])


def _why_not(
    backend: Backend,
    precision: str | None,
    bundle: Bundle | None,
    engines: tuple[EngineName, ...],
    device: int,
) -> str | None:
    """Say why `auto` passes a backend over; None if it does not."""
    if precision is not None and precision not in backend.precisions:
        return f"not in {precision}"
    found = availability(backend.name, device=device)
    if not found.available:
        return found.missing
    wanted = precision or backend.precisions[0]
    if wanted not in found.precisions:
        return f"this machine does not compute in {wanted}"
    if bundle is None:
        return None
    try:
        backend.imported().require(backend, bundle, engines, wanted, device)
    except EngineError as error:
        return error.cause
    return None
