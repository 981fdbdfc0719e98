"""The backends by name: what each is, whether this machine can run it, and which is the fastest."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zeroflaw_engines import arguments
from zeroflaw_engines.built_engines.options import BuildBackend
from zeroflaw_engines.bundle.bundle import Bundle, require_same_engine
from zeroflaw_engines.bundle.graph_entries import GraphTarget
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER, SAM_ENCODER, EngineName
from zeroflaw_engines.errors import (
    ArgumentError,
    BackendUnavailableError,
    BundleError,
    EngineError,
    ZeroflawError,
)
from zeroflaw_engines.machine import MAX_THREADS
from zeroflaw_engines.sessions.options import (
    OnnxRuntimeOptions,
    OpenVinoOptions,
    TensorRtOptions,
)
from zeroflaw_engines.sessions.session import Session

AUTO: Final = "auto"
DEFAULT_BACKEND: Final = "onnxruntime"
PLUGIN_VARIABLE: Final = "ZEROFLAW_TENSORRT_RTX_PROVIDER"
_ENGINES: Final[tuple[EngineName, ...]] = (CLIP_ENCODER, SAM_ENCODER, SAM_DECODER)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """One backend.

    Attributes:
        name: How the user names it.
        precisions: What it may compute in; the first is its default.
        why: What makes it as fast as its rank says.
        verified: Whether it was run by zeroflaw's own tests; the others await a machine with a
            GPU.
        builds: Whose built engines it runs; None where it runs the bundle's graphs.
    """

    name: str
    precisions: tuple[str, ...]
    why: str
    verified: bool = False
    builds: BuildBackend | None = None


# From the fastest to the slowest: the order in which `auto` takes what is there.
RANKING: Final = (
    Backend(
        "tensorrt",
        ("fp16", "fp32"),
        "an engine tuned on this GPU, CUDA graphs",
        builds="tensorrt",
    ),
    Backend(
        "tensorrt-rtx",
        ("fp16", "fp32"),
        "an engine for this GPU's architecture, CUDA graphs",
        builds="tensorrt-rtx",
    ),
    Backend("onnxruntime-tensorrt-rtx", ("fp32", "fp16"), "TensorRT-RTX inside ONNX Runtime"),
    Backend("onnxruntime-tensorrt", ("fp32", "fp16"), "TensorRT inside ONNX Runtime"),
    Backend("onnxruntime-cuda", ("fp32", "fp16"), "the GPU, operator by operator"),
    Backend(
        "openvino",
        ("fp32", "bf16", "fp16"),
        "the fastest on CPUs (docs/backends.md)",
        verified=True,
    ),
    Backend("onnxruntime", ("fp32",), "runs everywhere", verified=True),
)
BACKENDS: Final = {backend.name: backend for backend in RANKING}


@dataclass(frozen=True)
class Availability:
    """Whether this machine can run a backend.

    Attributes:
        backend: Its name.
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
        backend: Its name.
        precision: What it computes in.
        reason: In words.
    """

    backend: str
    precision: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} in {self.precision}: {self.reason}"


def availability(name: str) -> Availability:
    """Whether this machine can run a backend; never raises for what is missing.

    Args:
        name: One of `BACKENDS`.
    """
    version = ""
    try:
        builds = BACKENDS[name].builds
        if builds is not None:
            version, precisions = _probe_tensorrt(builds), BACKENDS[name].precisions
        elif name == "openvino":
            version, precisions = _probe_openvino()
        else:
            version, precisions = _probe_onnxruntime(BACKENDS[name])
    except BackendUnavailableError as error:
        return Availability(name, version, missing=error.cause, remedy=error.remedy)
    return Availability(name, version, precisions=precisions)


def choose_backend(
    name: str,
    precision: str | None = None,
    *,
    bundle: Bundle | None = None,
    engines: Iterable[EngineName] = _ENGINES,
) -> BackendChoice:
    """The backend that is meant: the one named, or for `auto` the fastest that is available.

    A backend that is named is never replaced by another: loading it says what it lacks.

    Args:
        name: One of `BACKENDS`, or `auto`.
        precision: What it is to compute in; None takes the backend's default.
        bundle: What is to be run: backends for which it lacks engines are passed over by `auto`.
        engines: The engines that are needed of it.

    Raises:
        BackendUnavailableError: There is no such backend, it does not offer the precision, or
            no backend does.
    """
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
        return BackendChoice(name, chosen, "it was named")
    passed: list[str] = []
    for backend in RANKING:
        why_not = _why_not(backend, precision, bundle, tuple(engines))
        if why_not is not None:
            passed.append(f"{backend.name} ({why_not})")
            continue
        reason = f"the fastest available, {backend.why}"
        if passed:
            reason += f"; passed over: {', '.join(passed)}"
        choice = BackendChoice(backend.name, precision or backend.precisions[0], reason)
        _log.info("auto chose %s", choice)
        return choice
    raise BackendUnavailableError(
        f"no backend here computes in {precision}: {', '.join(passed)}",
        "leave the precision out, or see `zeroflaw doctor`",
    )


def load_session(
    bundle: Bundle,
    engine: EngineName,
    *,
    backend: str = DEFAULT_BACKEND,
    precision: str | None = None,
    threads: int = 0,
    model_cache: Path | None = None,
) -> Session:
    """Loads one engine of a bundle.

    Args:
        bundle: Where the engine is.
        engine: Which one.
        backend: One of `BACKENDS`, or `auto`.
        precision: What it computes in; None takes the backend's default.
        threads: CPU threads of the engine; 0 takes every core.
        model_cache: Where backends that compile at load keep what they compiled; None keeps
            nothing.

    Raises:
        ArgumentError: The threads are out of their range, or the cache is not a directory.
        BackendUnavailableError: The backend is unknown or not installed, or lacks its driver or
            the precision.
        EngineError: The graph or the built engine cannot be loaded.
        EngineContractError: Its tensors are not those of the contract.
        BundleChangedError: The bundle was replaced by another meanwhile.
    """
    arguments.whole_number("threads", threads, least=0, most=MAX_THREADS)
    if model_cache is not None:
        _require_directory(model_cache)
    try:
        session = _load(
            bundle,
            engine,
            backend=backend,
            precision=precision,
            threads=threads,
            model_cache=model_cache,
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


def _load(
    bundle: Bundle,
    engine: EngineName,
    *,
    backend: str,
    precision: str | None,
    threads: int,
    model_cache: Path | None,
) -> Session:
    choice = choose_backend(backend, precision, bundle=bundle, engines=(engine,))
    contract = bundle.contract(engine)
    builds = BACKENDS[choice.backend].builds
    if builds is not None:
        return _load_built(bundle, engine, builds, precision)
    if choice.backend == "openvino":
        from zeroflaw_engines.sessions.openvino_session import OpenVinoSession

        return OpenVinoSession(
            bundle.graph(engine, "openvino").path,
            contract,
            options=OpenVinoOptions(threads=threads, model_cache=model_cache),
            precision=choice.precision,
        )
    from zeroflaw_engines.sessions.onnxruntime_provider import PROVIDERS
    from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession

    target: GraphTarget = "tensorrt" if choice.precision == "fp16" else "onnxruntime"
    graph = bundle.graph(engine, target)
    _log.info("%s runs the %s graph %s", choice.backend, graph.precision, graph.path.name)
    return OnnxRuntimeSession(
        graph.path,
        contract,
        options=OnnxRuntimeOptions(
            threads=threads, engine_cache=model_cache, provider_library=_plugin_library()
        ),
        provider=PROVIDERS[choice.backend],
        precision=choice.precision,
    )


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


def _load_built(
    bundle: Bundle, engine: EngineName, builds: BuildBackend, precision: str | None
) -> Session:
    from zeroflaw_engines.built_engines.lookup import find_engine
    from zeroflaw_engines.sessions.cuda import Cuda
    from zeroflaw_engines.sessions.tensorrt_session import TensorRtSession
    from zeroflaw_engines.tensorrt_bindings import load_bindings

    options = TensorRtOptions()
    load_bindings(builds)
    gpu = Cuda(options.device).gpu()
    built = find_engine(bundle, engine, backend=builds, architecture=gpu.architecture)
    if precision is not None and built.sidecar.parts.precision != precision:
        raise EngineError(
            f"{built.path} was built in {built.sidecar.parts.precision}, not {precision}",
            f"build it: zeroflaw build {bundle.path} --backend {builds} --precision {precision}"
            f" --gpu {gpu.architecture}",
        )
    return TensorRtSession(built, bundle.contract(engine), options=options)


def _why_not(
    backend: Backend, precision: str | None, bundle: Bundle | None, engines: tuple[EngineName, ...]
) -> str | None:
    """Why `auto` passes a backend over; None if it does not."""
    if precision is not None and precision not in backend.precisions:
        return f"not in {precision}"
    found = availability(backend.name)
    if not found.available:
        return found.missing
    wanted = precision or backend.precisions[0]
    if wanted not in found.precisions:
        return f"this machine does not compute in {wanted}"
    if bundle is None:
        return None
    try:
        if backend.builds is not None:
            _require_built(bundle, backend.builds, engines)
        elif wanted == "fp16" and backend.name != "openvino":
            for engine in engines:
                bundle.graph(engine, "tensorrt")
    except EngineError as error:
        return error.cause
    return None


def _require_built(bundle: Bundle, builds: BuildBackend, engines: tuple[EngineName, ...]) -> None:
    from zeroflaw_engines.built_engines.lookup import find_engine
    from zeroflaw_engines.sessions.cuda import Cuda

    architecture = Cuda().gpu().architecture
    for engine in engines:
        find_engine(bundle, engine, backend=builds, architecture=architecture)


def _probe_onnxruntime(backend: Backend) -> tuple[str, tuple[str, ...]]:
    try:
        from zeroflaw_engines.sessions.quiet_onnxruntime import ort
    except ImportError as error:
        raise BackendUnavailableError(
            f"ONNX Runtime cannot be imported: {error}", "pip install 'zeroflaw'"
        ) from error
    from zeroflaw_engines.machine import nvidia_gpus
    from zeroflaw_engines.sessions.onnxruntime_provider import PROVIDERS, missing_provider

    provider = PROVIDERS[backend.name]
    missing = missing_provider(provider, _plugin_library())
    if missing is not None:
        raise BackendUnavailableError(missing, provider.remedy)
    if provider.device == "cuda" and not nvidia_gpus():
        raise BackendUnavailableError(
            "there is no NVIDIA GPU or no driver (nvidia-smi shows none)",
            "install the NVIDIA driver of this GPU and restart",
        )
    return str(ort.__version__), backend.precisions


def _probe_openvino() -> tuple[str, tuple[str, ...]]:
    from zeroflaw_engines.sessions.openvino_session import (
        load_openvino,
        openvino_version,
        precisions_of,
    )

    module: Any = load_openvino()
    return openvino_version(module), precisions_of(module.Core())


def _probe_tensorrt(builds: BuildBackend) -> str:
    from zeroflaw_engines.sessions.cuda import Cuda
    from zeroflaw_engines.tensorrt_bindings import load_bindings

    module = load_bindings(builds)
    Cuda()
    return str(module.__version__)


def _plugin_library() -> Path | None:
    named = os.environ.get(PLUGIN_VARIABLE)
    return Path(named) if named else None
