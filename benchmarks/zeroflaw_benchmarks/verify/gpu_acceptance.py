"""One command that turns "unverified" into "verified on <GPU>".

    python -m zeroflaw_benchmarks.verify.gpu_acceptance BUNDLE --out report.json

On a machine with a GPU it builds the engines, compares them with ONNX Runtime on the CPU in fp32,
checks CUDA graphs and the overlap of the encoders, soaks, and writes one report as JSON and as a
page. With `--backend onnxruntime` the same script runs anywhere; what only a GPU can show is then
reported as not applicable, never as passed.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import psutil
import typer
from numpy.typing import NDArray

from zeroflaw.cli.left_out import search_and_report
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw.sessions import load_sessions
from zeroflaw.station.diagnosis import diagnose
from zeroflaw_benchmarks.bench.measure.roofline import random_inputs
from zeroflaw_benchmarks.verify.gpu_acceptance_checks import (
    MIN_SOAK_RUNS,
    captured_parity,
    latency,
    mask_parity,
    overlap,
    soak,
)
from zeroflaw_benchmarks.verify.gpu_acceptance_report import (
    AcceptanceReport,
    Check,
    as_markdown,
    verdict_of,
)
from zeroflaw_engines.backends import BACKENDS, choose_backend
from zeroflaw_engines.builder.parity import fixed_inputs
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    REFERENCE_MATCHER,
    SAM_DECODER,
    SAM_ENCODER,
    EngineName,
)
from zeroflaw_engines.errors import EvaluationError
from zeroflaw_engines.image_files.frame import rgb_frame
from zeroflaw_engines.process.terminal import out, run_module
from zeroflaw_engines.sessions.cuda import Cuda
from zeroflaw_engines.sessions.device_tensor import Tensor

EXIT_REFUSED: Final = 5
_OVERLAP_RUNS: Final = 20
_EXAMPLES: Final = Path("examples/frames")


@dataclass(frozen=True, kw_only=True)
class AcceptanceOptions:
    """What is accepted and how.

    Attributes:
        bundle: Whose engines run.
        backend: What runs them.
        precision: What they compute in; None takes the backend's default.
        product: What the frames show.
        frames: uint8 [H, W, 3] each.
        soak_runs: Inspections of the soak.
        threads: CPU threads; 0 takes every core.
    """

    bundle: Bundle
    backend: str
    precision: str | None
    product: str
    frames: tuple[NDArray[Any], ...]
    soak_runs: int
    threads: int = 0


def accept(
    options: AcceptanceOptions,
    *,
    build: Callable[[AcceptanceOptions, str], Check] | None = None,
    cuda: Cuda | None = None,
) -> AcceptanceReport:
    """Run every check.

    `build` is None for a backend that needs no built engines, `cuda` where no GPU runs them.

    Raises:
        ZeroflawError: The engines cannot be loaded or run.
    """
    gpu = None if cuda is None else cuda.gpu()
    checks: list[Check] = []
    if build is None or gpu is None:
        why = "a backend that needs no built engines"
        checks.append(Check(name="build", outcome="not applicable", detail=why))
    else:
        checks.append(build(options, gpu.architecture))
    graphs = cuda is not None and BACKENDS[options.backend].builds is not None
    inputs = engine_inputs(options)
    choice = choose_backend(options.backend, options.precision, bundle=options.bundle)
    sessions = load_sessions(
        options.bundle, choice, precision=options.precision, threads=options.threads
    )
    with Inspector(options.bundle, sessions) as candidate:
        # Before anything captures: `capture` is what is checked.
        checks.append(captured_parity(sessions, inputs, graphs=graphs))
        candidate.warm_up()
        checks.append(overlap(sessions, inputs, streams=graphs, runs=_OVERLAP_RUNS))
        with Inspector.load(
            options.bundle.path, "onnxruntime", threads=options.threads
        ) as reference:
            checks.append(mask_parity(reference, candidate, options.frames, options.product))
        process = psutil.Process()
        soaked, timings = soak(
            lambda frame: candidate.inspect(frame, product=options.product),
            options.frames,
            runs=options.soak_runs,
            host_memory=lambda: int(process.memory_info().rss),
            device_memory=None if cuda is None else cuda.used_memory,
        )
        checks += [soaked, latency(timings)]
        backend = candidate.backend
    named = None if gpu is None else f"{gpu}, CUDA driver {gpu.cuda}"
    verdict, accepted, verified = verdict_of(tuple(checks), named, backend)
    diagnosis = diagnose()
    return AcceptanceReport(
        verdict=verdict,
        accepted=accepted,
        gpu_verified=verified,
        bundle=options.bundle.identity,
        backend=backend,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        machine=msgspec.to_builtins(diagnosis.machine),
        versions={"zeroflaw": diagnosis.zeroflaw, **diagnosis.versions},
        settings={
            "product": options.product,
            "frames": len(options.frames),
            "soak inspections": options.soak_runs,
            "threads": options.threads,
        },
        checks=tuple(checks),
    )


def build_engines(options: AcceptanceOptions, architecture: str) -> Check:
    """Build the engines with `zeroflaw build`, as a user does."""
    command = [
        sys.executable, "-m", "zeroflaw.cli.app", "build", str(options.bundle.path),
        "--backend", options.backend, "--gpu", architecture,
    ]  # fmt: skip
    if options.precision is not None:
        command += ["--precision", options.precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return Check(
        name="build",
        outcome="passed" if done.returncode == 0 else "failed",
        detail=f"zeroflaw build for {architecture}"
        + ("" if done.returncode == 0 else f": {' '.join(done.stderr.split())}"),
    )


def engine_inputs(options: AcceptanceOptions) -> Mapping[str, Mapping[str, Tensor]]:
    """Make inputs of every engine that are not zeros: noise, from a fixed seed."""
    bundle = options.bundle
    engines: tuple[EngineName, ...] = (CLIP_ENCODER, SAM_ENCODER, SAM_DECODER)
    inputs: dict[str, dict[str, Tensor]] = {
        engine: random_inputs(bundle.contract(engine)) for engine in engines
    }
    inputs[CLIP_ENCODER]["text_embeddings"] = bundle.text_embeddings(options.product)
    side = bundle.manifest.sizes.sam_image_size
    inputs[SAM_ENCODER]["image_size"][...] = side
    if REFERENCE_MATCHER in bundle.manifest.engines:
        inputs[REFERENCE_MATCHER] = fixed_inputs(bundle.contract(REFERENCE_MATCHER))
    return inputs


def main(
    bundle: Annotated[str, typer.Argument(help="Directory that `zeroflaw export` wrote, or mini.")],
    *,
    out_file: Annotated[
        Path, typer.Option("--out", help="The report; .json and .md are both written.")
    ] = Path("gpu_acceptance.json"),
    backend: Annotated[str, typer.Option(help="What is to be accepted.")] = "tensorrt-rtx",
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    product: Annotated[str, typer.Option(help="What the images show.")] = "object",
    images: Annotated[
        list[Path] | None, typer.Option(help="Images, and folders of them; repeatable.")
    ] = None,
    soak_runs: Annotated[
        int, typer.Option(min=MIN_SOAK_RUNS, help="Inspections of the soak.")
    ] = 1000,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: every core.")] = 0,
) -> None:
    """Accept a backend on this machine and write the report. Exit code 5: a check failed."""
    choose_backend(backend, precision)
    search = search_and_report(images or [_EXAMPLES])
    options = AcceptanceOptions(
        bundle=open_bundle(bundle),
        backend=backend,
        precision=precision,
        product=product,
        frames=tuple(rgb_frame(read_image(picture.path)) for picture in search.pictures),
        soak_runs=soak_runs,
        threads=threads,
    )
    on_gpu = backend not in {"onnxruntime", "openvino"}
    report = accept(
        options,
        build=build_engines if BACKENDS[backend].builds is not None else None,
        cuda=Cuda() if on_gpu else None,
    )
    written = {
        out_file.with_suffix(".json"): msgspec.json.format(msgspec.json.encode(report), indent=2),
        out_file.with_suffix(".md"): as_markdown(report).encode(),
    }
    for path, data in written.items():
        try:
            path.write_bytes(data)
        except OSError as error:
            raise EvaluationError(
                f"{path} cannot be written: {error.strerror}", "choose another --out"
            ) from error
    out.print(report.verdict, markup=False)
    out.print(", ".join(map(str, written)), markup=False)
    if not report.accepted:
        raise typer.Exit(EXIT_REFUSED)


if __name__ == "__main__":
    run_module(main)
