"""Ask zeroflaw whether it refuses a backend on this GPU, before engines are built for it.

    python -m zeroflaw_benchmarks.verify.gpu_kit.served tensorrt-rtx

Exit code 0: it does not, or does not know the card; 3: it refuses, as loading an engine would.
What `rtx_probe` saw changes nothing here: it is a reason to change the table of `gpu_support`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zeroflaw_benchmarks.verify.gpu_kit.steps import EXIT_REFUSED
from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_engines.sessions.cuda import Cuda
from zeroflaw_engines.sessions.gpu_support import require_served


def main(backend: Annotated[str, typer.Argument(help="What is to run the engines.")]) -> None:
    """Say whether zeroflaw refuses a backend on this GPU. Exit code 3: it does."""
    gpu = Cuda().gpu()
    try:
        require_served(backend, gpu)
    except BackendUnavailableError as error:
        # Not by a terminal, which would break the line: the kit's summary shows the last one.
        sys.stdout.write(f"{error.cause}\n")
        raise typer.Exit(EXIT_REFUSED) from error
    sys.stdout.write(f"zeroflaw does not refuse {backend} on {gpu}\n")


if __name__ == "__main__":
    run_module(main)
