"""The check that engines can be built on this machine, for its GPU."""

from __future__ import annotations

import subprocess
import sys
import time

from zeroflaw_benchmarks.verify.gpu_acceptance.options import AcceptanceOptions
from zeroflaw_benchmarks.verify.gpu_acceptance.report import Check
from zeroflaw_engines.tensorrt_bindings import FOR_THE_GPU_AT_HAND


def build_command(options: AcceptanceOptions, architecture: str) -> list[str]:
    """Return the command that builds the engines as a user does.

    Args:
        architecture: Of the GPU, as `sm90`.
    """
    command = [
        sys.executable, "-m", "zeroflaw.cli.app", "build", str(options.bundle.path),
        "--backend", options.backend, "--device", str(options.device),
    ]  # fmt: skip
    if options.backend not in FOR_THE_GPU_AT_HAND:
        command += ["--gpu", architecture]
    if options.precision is not None:
        command += ["--precision", options.precision]
    return command


def build_engines(options: AcceptanceOptions, architecture: str) -> Check:
    """Build the engines with `zeroflaw build`; what the command refuses is in the detail."""
    start = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own interpreter and command
        build_command(options, architecture), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    failed = done.returncode != 0
    return Check(
        name="build",
        outcome="failed" if failed else "passed",
        detail=f"zeroflaw build --backend {options.backend} for {architecture}"
        + (f": {' '.join(done.stderr.split())}" if failed else f" in {seconds:.1f} s"),
        figures={"seconds": seconds},
    )
