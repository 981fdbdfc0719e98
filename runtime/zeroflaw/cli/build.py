"""`zeroflaw build`: the engines that a station runs, built from a bundle's graphs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.table import Table
from rich.text import Text

from zeroflaw.cli.options import BundleArgument, open_and_announce
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.builder.build import BUILT_ENGINES, BuildResult, build_engine
from zeroflaw_engines.built_engines.cache import EnginePaths, engine_disk_errors
from zeroflaw_engines.built_engines.options import BatchRange, BuildOptions, gpu_architectures
from zeroflaw_engines.built_engines.sidecar import EngineSidecar
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import ENGINES_DIRECTORY
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.contract import (
    BOX_PROPOSER,
    MAX_BATCH,
    REFERENCE_MATCHER,
    SAM_DECODER,
    SAM_ENCODER,
    EngineName,
)
from zeroflaw_engines.errors import BuildError
from zeroflaw_engines.process.terminal import err, out, print_warning

# Older bundles take no reference banks; those for a refiner that runs without SAM have none.
_NOT_IN_EVERY_BUNDLE: Final = (REFERENCE_MATCHER, SAM_ENCODER, SAM_DECODER, BOX_PROPOSER)


def build(
    bundle: BundleArgument,
    *,
    backend: Annotated[
        str, typer.Option(help="tensorrt-rtx, tensorrt or openvino.")
    ] = "tensorrt-rtx",
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            help="GPU architecture, as sm86; repeatable. Default: the GPU of this machine."
        ),
    ] = None,
    device: Annotated[
        int,
        typer.Option(
            min=0, help="Number of this machine's GPU to build for and to prove on, as CUDA counts."
        ),
    ] = 0,
    engine: Annotated[
        list[str] | None,
        typer.Option(help=f"Only this engine; repeatable. One of {', '.join(BUILT_ENGINES)}."),
    ] = None,
    precision: Annotated[
        Literal["fp16", "fp32"], typer.Option(help="fp32 builds the reference graphs.")
    ] = "fp16",
    max_prompts: Annotated[
        int, typer.Option(min=1, help="Most prompts that one call of the decoder may take.")
    ] = BatchRange().max,
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_BATCH,
            help="Most images that one call of the encoders may take; default: as many as the"
            " bundle was exported for.",
        ),
    ] = None,
    opt_batch: Annotated[
        int,
        typer.Option(min=1, max=MAX_BATCH, help="Images that their kernels are chosen for."),
    ] = 1,
    workspace: Annotated[
        int | None, typer.Option(min=1, help="Most device memory of one kernel, MiB.")
    ] = None,
    hardware_compatibility: Annotated[
        Literal["none", "ampere_plus", "same_compute_capability"],
        typer.Option(help="GPUs beyond this machine's that may run it (tensorrt only)."),
    ] = "none",
    version_compatible: Annotated[
        bool, typer.Option(help="Later versions may run it (tensorrt only).")
    ] = False,
    strip_weights: Annotated[
        bool, typer.Option(help="Leave the weights out; no session of zeroflaw runs these.")
    ] = False,
    tf32: Annotated[bool, typer.Option(help="Let FP32 products be rounded to TF32.")] = False,
    timing_cache: Annotated[
        Path | None, typer.Option(help="File of kernel timings to reuse (tensorrt only).")
    ] = None,
    force: Annotated[bool, typer.Option(help="Build even what is up to date.")] = False,
) -> None:
    """Build the engines that a station runs, and prove them.

    An engine is built only if its key has changed: graph, weights, precision, backend and its
    version, GPU architectures, shapes, options. It is published with a sidecar, and only if it
    computes in the precision that its graph says. tensorrt-rtx needs no GPU to build:

        zeroflaw build my_bundle --backend tensorrt-rtx --gpu sm86 --gpu sm89 --gpu sm120

    openvino keeps its compiled models, so that a station starts faster.
    """
    wanted = _engines(engine or [])
    images = None if max_batch is None else BatchRange(opt=opt_batch, max=max_batch)
    if images is None and opt_batch > 1:
        raise BuildError(
            "--opt-batch was given without --max-batch", "say how many images one call may take"
        )
    if backend == "openvino":
        opened = open_and_announce(bundle)
        _fill_model_cache(opened, _there(opened, wanted), device)
        return
    if backend not in {"tensorrt", "tensorrt-rtx"}:
        raise _nothing_to_build(backend)
    options = BuildOptions(
        backend="tensorrt" if backend == "tensorrt" else "tensorrt-rtx",
        architectures=gpu_architectures(gpu or ()),
        precision=precision,
        batch=BatchRange(max=max_prompts),
        images=images,
        workspace_mib=workspace,
        hardware_compatibility=hardware_compatibility,
        version_compatible=version_compatible,
        strip_weights=strip_weights,
        tf32=tf32,
        timing_cache=timing_cache,
    )
    opened = open_and_announce(bundle)
    results = []
    for name in _there(opened, wanted):
        with err.status(f"building {name} for {options.target}"):
            result = build_engine(opened, name, options, force=force, device=device)
        results.append(result)
        for warning in result.engine.sidecar.warnings if result.built else ():
            print_warning(f"{name}: {warning}")
    out.print(_summary(results))
    for result in results:
        out.print(proofs(result.engine.sidecar), markup=False)


def _summary(results: list[BuildResult]) -> Table:
    table = Table("engine", "target", "MB", "s", "peak GB", "key", "why", box=None)
    for result in results:
        sidecar = result.engine.sidecar
        peak = sidecar.peak_memory_bytes
        row = (
            sidecar.parts.engine,
            result.engine.path.parent.name,
            f"{sidecar.engine_bytes / 1e6:.1f}",
            f"{sidecar.build_seconds:.1f}",
            f"{peak / 1e9:.1f}" if peak else "?",
            sidecar.key[:12],
            result.reason if result.built else "up to date",
        )
        table.add_row(*map(Text, row))
    return table


def proofs(sidecar: EngineSidecar) -> str:
    """Return what was proven of an engine, on one line: its precision report and its parity."""
    census, parity = sidecar.census, sidecar.parity
    ran = "passed" if parity.status == "passed" else f"not run, {parity.reason}"
    return f"{sidecar.parts.engine}: {census} ({census.source}); parity with FP32 {ran}"


def _fill_model_cache(opened: Bundle, engines: tuple[EngineName, ...], device: int) -> None:
    """Compile with OpenVINO's own cache, which checks model, settings and version by itself."""
    require_changeable(opened.path)
    cache = opened.path / ENGINES_DIRECTORY / "openvino" / "cpu"
    with engine_disk_errors(EnginePaths(cache, engines[0])):
        cache.mkdir(parents=True, exist_ok=True)
    for name in engines:
        start = time.monotonic()
        with err.status(f"compiling {name}"):
            load_session(opened, name, backend="openvino", model_cache=cache, device=device).close()
        out.print(f"{name}: compiled in {time.monotonic() - start:.1f} s", markup=False)
    out.print(f"use it with `--backend openvino --model-cache {cache}`", markup=False)


def _nothing_to_build(backend: str) -> BuildError:
    if backend.startswith("onnxruntime"):
        return BuildError(
            f"{backend} runs the bundle's graphs as they are: there is nothing to build",
            "inspect with it, or build for tensorrt-rtx, tensorrt or openvino",
        )
    return BuildError(
        f"there is no backend {backend!r} to build for",
        "choose one of: tensorrt-rtx, tensorrt, openvino",
    )


def _there(opened: Bundle, wanted: tuple[EngineName, ...]) -> tuple[EngineName, ...]:
    """Leave out what is not in every bundle, and not in this one, unless it alone was asked for."""
    known = opened.manifest.engines
    return tuple(
        name
        for name in wanted
        if name in known or name not in _NOT_IN_EVERY_BUNDLE or wanted == (name,)
    )


def _engines(names: list[str]) -> tuple[EngineName, ...]:
    unknown = sorted(set(names) - set(BUILT_ENGINES))
    if unknown:
        raise BuildError(
            f"there is no engine {unknown[0]!r} to build",
            f"choose from: {', '.join(BUILT_ENGINES)}",
        )
    return tuple(name for name in BUILT_ENGINES if not names or name in names)
