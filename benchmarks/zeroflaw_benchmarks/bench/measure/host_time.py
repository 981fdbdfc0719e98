"""Host time: everything outside engine calls, by part, on one core.

    python -m zeroflaw_benchmarks.bench.measure.host_time

The engines are replaced by ones that replay outputs of full size at no cost, for a frame with
one defect that covers 2 % of it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import cv2
import numpy as np
import PIL
import typer
from rich.console import Console
from rich.table import Table

from zeroflaw_benchmarks.bench.measure.replayed_engines import replaying_inspector
from zeroflaw_engines.process.terminal import run_module

PARTS: Final = ("frame", "squash", "fit", "prompt_points", "cascade", "score", "regions", "total")


def host_times(frame: tuple[int, int], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each part of each run, engine calls taken out.

    Args:
        frame: Height and width, px.
        runs: Frames to inspect, after three that are not counted.
    """
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*frame, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    with (
        tempfile.TemporaryDirectory() as directory,
        replaying_inspector(frame, Path(directory)) as inspector,
    ):
        for run in range(-3, runs):
            spent = dict(inspector.inspect(image).timings_ms)
            decoder = sum(value for name, value in spent.items() if name.startswith("sam_decoder"))
            encoders = spent["clip_encoder"] + spent["sam_encoder"]
            spent["cascade"] -= decoder
            spent["total"] -= decoder + encoders
            if run >= 0:
                for part in PARTS:
                    times[part].append(spent[part])
    return times


def start_anew_on_one_core() -> None:
    """Binds this process to one core and starts it anew, so that every library sees just one."""
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        os.sched_setaffinity(0, {min(cores)})
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def main(
    frames: Annotated[
        list[str] | None, typer.Argument(help="Frame sizes, as WIDTHxHEIGHT.")
    ] = None,
    *,
    runs: Annotated[int, typer.Option(min=1, help="Frames of each size.")] = 30,
) -> None:
    """Print host time by part, on one core."""
    start_anew_on_one_core()
    table = Table("part (median ms)", box=None)
    columns = []
    for size in frames or ["1024x1024", "4096x3000"]:
        width, height = map(int, size.split("x"))
        table.add_column(size, justify="right")
        columns.append(host_times((height, width), runs))
    for part in PARTS:
        table.add_row(part, *(f"{median(times[part]):.2f}" for times in columns))
    console = Console(highlight=False)
    console.print(f"one core, {runs} frames a size, OpenCV {cv2.__version__}, "
                  f"Pillow {PIL.__version__}, NumPy {np.__version__}")  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    run_module(main)
