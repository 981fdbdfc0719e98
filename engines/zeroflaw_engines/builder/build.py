"""Building an engine: compiled, proven, then published, or not at all."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from zeroflaw_engines.backends import load_session
from zeroflaw_engines.builder.compiler_process import CompileJob, CompileOutcome, compile_in_process
from zeroflaw_engines.builder.parity import check_parity
from zeroflaw_engines.builder.plan_precision import plan_precision
from zeroflaw_engines.built_engines.cache import (
    EnginePaths,
    engine_disk_errors,
    engine_paths,
    file_to_publish,
    locked_for_build,
    publish_engine,
)
from zeroflaw_engines.built_engines.key import (
    KeyDifference,
    KeyParts,
    bundle_graph,
    key_differences,
    key_parts,
)
from zeroflaw_engines.built_engines.lookup import BuiltEngine, engine_status
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.built_engines.precision_report import HEAVY, PrecisionReport
from zeroflaw_engines.built_engines.sidecar import SIDECAR_VERSION, EngineParity, EngineSidecar
from zeroflaw_engines.bundle.bundle import Bundle, require_same_engine
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.contract import (
    BOX_PROPOSER,
    CLIP_ENCODER,
    FRAME_RESIZER,
    REFERENCE_MATCHER,
    SAM_DECODER,
    SAM_ENCODER,
    EngineName,
)
from zeroflaw_engines.errors import BuildError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_engines.machine import Gpu
from zeroflaw_engines.sessions.cuda import this_gpu
from zeroflaw_engines.sessions.gpu_support import require_served
from zeroflaw_engines.sessions.options import TensorRtOptions
from zeroflaw_engines.sessions.session import Session
from zeroflaw_engines.tensorrt_bindings import installed_version
from zeroflaw_engines.version import __version__

BUILT_ENGINES: Final[tuple[EngineName, ...]] = (
    CLIP_ENCODER,
    SAM_ENCODER,
    SAM_DECODER,
    REFERENCE_MATCHER,
    BOX_PROPOSER,
    FRAME_RESIZER,
)

# A network of which less computes in half precision is no FP16 network.
_MIN_HALF_SHARE: Final = 0.5

# Opens a session on an engine that is not published yet.
OpenSession = Callable[[Bundle, BuiltEngine], Session]


@dataclass(frozen=True)
class BuildResult:
    """An engine that is in the cache now.

    Attributes:
        engine: The engine, as `find_engine` would give it.
        built: False if it was up to date.
        reason: Why it was built.
    """

    engine: BuiltEngine
    built: bool
    reason: str


def build_engine(
    bundle: Bundle,
    engine: EngineName,
    options: BuildOptions,
    *,
    force: bool = False,
    open_session: OpenSession | None = None,
    device: int = 0,
) -> BuildResult:
    """Build one engine, prove it and publish it; do nothing if it is up to date.

    Args:
        force: Whether to build even if it is up to date.
        open_session: Opens the engine for the parity check where there is a GPU.
        device: Number of the GPU to build for where no architecture is named, and to prove the
            engine on, as CUDA counts.

    Raises:
        BuildError: It cannot be built as asked, or what was built is not what was asked for;
            the error names the operation and the remedy. What was there before is still there.
        BundleError: The bundle is part of the installation.
        BackendUnavailableError: The backend is not installed, there is no GPU of that number, or
            the backend does not serve it.
        EngineError: The bundle has no graph of that precision.
    """
    require_changeable(bundle.path)
    version = installed_version(options.backend)
    gpu = this_gpu(device)
    if gpu is not None and not options.architectures:
        require_served(options.backend, gpu)
    parts = key_parts(
        bundle, engine, options, backend_version=version, gpu=_target_gpu(options, gpu)
    )
    paths = engine_paths(bundle, engine, options.backend, options.target)
    with locked_for_build(bundle, paths):
        old, reason = _why_build(bundle, paths, parts)
        if old is not None and not (reason or force):
            return BuildResult(BuiltEngine(paths.plan, old, paths.runtime_cache), False, "")
        with engine_disk_errors(paths), file_to_publish(paths) as plan:
            outcome = compile_in_process(
                CompileJob(
                    graph=bundle_graph(bundle, engine, options.precision).path,
                    contract=bundle.contract(engine),
                    options=options,
                    backend_version=version,
                    plan=plan,
                    inspect=_can_run(options, gpu),
                    device=device,
                )
            )
            sidecar = _sidecar(parts, plan, outcome)
            _require_precision(parts, sidecar)
            if _can_run(options, gpu) and not options.strip_weights:
                trial = BuiltEngine(plan, sidecar, plan.with_suffix(".runtime_cache"))
                sidecar = _proven(bundle, trial, open_session or partial(_open_session, device))
            # The graph was read from the path, where another bundle may lie by now.
            require_same_engine(bundle, engine)
            publish_engine(paths, plan, sidecar)
    return BuildResult(
        BuiltEngine(paths.plan, sidecar, paths.runtime_cache), True, reason or "as asked"
    )


def _target_gpu(options: BuildOptions, gpu: Gpu | None) -> Gpu | None:
    if options.architectures:
        return None
    if gpu is None:
        raise BuildError(
            "this machine has no GPU whose driver answers, and no architecture is named",
            "name the architectures of the stations with --gpu, as --gpu sm86"
            if options.backend == "tensorrt-rtx"
            else "build on the station, or use --backend tensorrt-rtx, which needs no GPU",
        )
    return gpu


def _can_run(options: BuildOptions, gpu: Gpu | None) -> bool:
    return gpu is not None and (
        not options.architectures or gpu.architecture in options.architectures
    )


def _why_build(
    bundle: Bundle, paths: EnginePaths, parts: KeyParts
) -> tuple[EngineSidecar | None, str]:
    """Return the sidecar that is there and why it is not good enough; an empty text if it is."""
    if not paths.plan.exists() and not paths.sidecar.exists():
        return None, "not built yet"
    versions = {parts.backend: parts.backend_version}
    status = engine_status(bundle, paths, backend_versions=versions)
    if status.sidecar is None:
        return None, status.reason
    differences: tuple[KeyDifference, ...] = key_differences(status.sidecar.parts, parts)
    return status.sidecar, "; ".join(map(str, differences))


def _sidecar(parts: KeyParts, plan: Path, outcome: CompileOutcome) -> EngineSidecar:
    # The plan says the same on every machine; the inspector answers only where there is a GPU.
    compiled = plan_precision(plan, frozenset(outcome.attention_nodes))
    inspected = outcome.inspector_precision
    report = compiled or inspected or outcome.network_precision
    warnings = list(outcome.warnings)
    if compiled is not None and inspected is not None and _wide(compiled) != _wide(inspected):
        warnings.append(
            f"TensorRT's inspector counts {inspected}; the plan, which decides, has {compiled}"
        )
    if report.unfused_attention:
        warnings.append(
            f"{report.unfused_attention} attention operators are not one kernel each: slow"
        )
    return EngineSidecar(
        schema_version=SIDECAR_VERSION,
        key=parts.key,
        parts=parts,
        engine_sha256=sha256_of_file(plan),
        engine_bytes=plan.stat().st_size,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        zeroflaw_version=__version__,
        build_seconds=outcome.seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
        warnings=tuple(warnings),
        census=report,
        network_census=outcome.network_precision,
        parity=EngineParity(status="not run", reason="no GPU here that can run the engine"),
    )


def _require_precision(parts: KeyParts, sidecar: EngineSidecar) -> None:
    """Refuse an engine that is not FP16 where its graph says so."""
    if parts.precision != "fp16":
        return
    network, built = sidecar.network_census, sidecar.census
    if network.half_share < _MIN_HALF_SHARE:
        raise BuildError(
            f"{parts.engine}: the graph is called fp16, but its operations are: {network}",
            "export the bundle again with `zeroflaw export --precision fp16`",
        )
    wide_before, wide_after = _wide(network), _wide(built)
    if wide_after > wide_before:
        raise BuildError(
            f"{parts.engine}: the graph has {wide_before} products outside FP16, the engine"
            f" {wide_after}, as its {built.source} says: {built}; the engine was not published",
            "try another version of the backend, and report this one",
        )


def _wide(report: PrecisionReport) -> int:
    """Count heavy operations whose operands are not half precision, fused and unfused alike.

    Of the inspector's, those whose operands are wide without a doubt: it lists scales and biases
    among them, and formats without a name that is known here.
    """
    if report.source == "inspector":
        return sum(report.count(kind, wide) for kind in HEAVY for wide in ("float32", "bfloat16"))
    return sum(report.count(kind) - report.count(kind, "float16") for kind in HEAVY)


def _proven(bundle: Bundle, trial: BuiltEngine, open_session: OpenSession) -> EngineSidecar:
    name = trial.sidecar.parts.engine
    session = open_session(bundle, trial)
    try:
        reference = load_session(bundle, name, backend="onnxruntime")
        try:
            parity = check_parity(session, reference)
        finally:
            reference.close()
    finally:
        session.close()
    return msgspec.structs.replace(trial.sidecar, parity=parity)


def _open_session(device: int, bundle: Bundle, trial: BuiltEngine) -> Session:
    """Open a session of the backend on an engine that is not in the cache yet."""
    from zeroflaw_engines.sessions.tensorrt_session import TensorRtSession

    options = TensorRtOptions(device=device, save_runtime_cache=False)
    return TensorRtSession(trial, bundle.contract(trial.sidecar.parts.engine), options=options)
