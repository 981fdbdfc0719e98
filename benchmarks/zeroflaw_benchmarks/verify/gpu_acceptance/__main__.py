"""The command of a GPU acceptance.

    python -m zeroflaw_benchmarks.verify.gpu_acceptance BUNDLE --out report.json

On a machine with a GPU it builds the engines where the backend runs built ones, times a cold
start, compares engines and masks with ONNX Runtime on the CPU in fp32, checks CUDA graphs and the
overlap of the encoders, soaks, and writes one report as JSON and as a page. With `--backend
onnxruntime` the same command runs anywhere; what only a GPU can show is then reported as not
applicable, never as passed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from zeroflaw.cli.options import DeviceOption
from zeroflaw_benchmarks.verify.gpu_acceptance.acceptance import accept
from zeroflaw_benchmarks.verify.gpu_acceptance.building import build_engines
from zeroflaw_benchmarks.verify.gpu_acceptance.checks import MIN_SOAK_RUNS
from zeroflaw_benchmarks.verify.gpu_acceptance.frames import acceptance_frames
from zeroflaw_benchmarks.verify.gpu_acceptance.options import AcceptanceOptions
from zeroflaw_benchmarks.verify.gpu_acceptance.report import AcceptanceReport, as_markdown
from zeroflaw_engines.backends import BACKENDS, choose_backend
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import EvaluationError
from zeroflaw_engines.process.terminal import err, out, run_module
from zeroflaw_engines.sessions.cuda import Cuda

EXIT_REFUSED: Final = 5


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
        list[Path] | None,
        typer.Option(
            help="Images, and folders of them; repeatable. Default: examples/frames, or drawn"
            " frames where there is no such folder."
        ),
    ] = None,
    soak_runs: Annotated[
        int, typer.Option(min=MIN_SOAK_RUNS, help="Inspections of the soak.")
    ] = 1000,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: every core.")] = 0,
    device: DeviceOption = 0,
) -> None:
    """Accept a backend on this machine and write the report. Exit code 5: a check failed."""
    choose_backend(backend, precision, device=device)
    opened = open_bundle(bundle)
    frames, source = acceptance_frames(images or [])
    err.print(f"inspecting {source}", markup=False)
    options = AcceptanceOptions(
        bundle=opened,
        backend=backend,
        precision=precision,
        product=product,
        frames=frames,
        soak_runs=soak_runs,
        threads=threads,
        device=device,
    )
    report = accept(
        options,
        build=build_engines if BACKENDS[backend].builds is not None else None,
        open_cuda=partial(Cuda, device) if BACKENDS[backend].on_gpu else None,
        save=lambda unfinished: _write(unfinished, out_file),
    )
    written = _write(report, out_file)
    out.print(report.verdict, markup=False)
    out.print(", ".join(map(str, written)), markup=False)
    if not report.accepted:
        raise typer.Exit(EXIT_REFUSED)


def _write(report: AcceptanceReport, out_file: Path) -> tuple[Path, ...]:
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
    return tuple(written)


if __name__ == "__main__":
    run_module(main)
