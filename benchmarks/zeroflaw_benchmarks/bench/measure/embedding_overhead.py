"""What a call through the C ABI costs over Python's own `inspect`.

    cmake -S runtime/c -B build/c -DCMAKE_BUILD_TYPE=Release -DZEROFLAW_DRIVERS=ON
    cmake --build build/c
    python -m zeroflaw_benchmarks.bench.measure.embedding_overhead build/c

A call's own cost is its wall time less the `total` that the inspection itself states, so that
the model's speed and its noise do not matter. C calls inspect, view and release.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw_engines.process.terminal import run_module

_EXAMPLES = Path(__file__).parents[4] / "examples" / "frames"


@dataclass(frozen=True)
class CallCost:
    """Milliseconds of a call that are not the inspection's.

    Attributes:
        wall_p50: Of the whole call.
        beside_p50: Of what is not the inspection's, the median.
        beside_p90: The same, exceeded by one call in ten.
        beside_p99: The same, exceeded by one call in a hundred.
    """

    wall_p50: float
    beside_p50: float
    beside_p90: float
    beside_p99: float


def cost_in_python(bundle: str, product: str, frames: list[Path], calls: int) -> CallCost:
    """The cost of `Inspector.inspect`."""
    images = [read_image(path) for path in frames]
    wall, beside = [], []
    with Inspector.load(bundle) as inspector:
        inspector.warm_up()
        for call in range(-5, calls):
            begun = time.perf_counter()
            inspection = inspector.inspect(images[(call + 5) % len(images)], product=product)
            spent = 1e3 * (time.perf_counter() - begun)
            if call >= 0:
                wall.append(spent)
                beside.append(spent - inspection.timings_ms["total"])
    p50, p90, p99 = np.quantile(beside, [0.5, 0.9, 0.99])
    return CallCost(float(np.median(wall)), float(p50), float(p90), float(p99))


def cost_in_c(driver: Path, bundle: str, product: str, frames: list[Path], calls: int) -> CallCost:
    """The cost of `zeroflaw_inspect`, `zeroflaw_view` and `zeroflaw_release`.

    Args:
        driver: The program `latency` of runtime/c/tests.
        bundle: As for `Inspector.load`.
        product: Name of the product.
        frames: Image files.
        calls: How many are measured.
    """
    environment = {"ZEROFLAW_PYTHON_HOME": sys.prefix, **os.environ}
    with tempfile.TemporaryDirectory() as directory:
        raw = []
        for path in frames:
            raw.append(Path(directory) / f"{path.stem}.ppm")
            Image.fromarray(read_image(path)).convert("RGB").save(raw[-1])
        command = [str(driver), bundle, product, str(calls), *map(str, raw)]
        ended = subprocess.run(  # noqa: S603 - our own program
            command, env=environment, check=True, stdout=subprocess.PIPE
        )
    found = json.loads(ended.stdout)
    return CallCost(*(found[name] for name in CallCost.__dataclass_fields__))


def main(
    build: Annotated[Path, typer.Argument(help="CMake's build directory of runtime/c.")],
    bundle: Annotated[str, typer.Option(help="Bundle to inspect with.")] = "mini",
    product: Annotated[str, typer.Option(help="Product to inspect as.")] = "object",
    calls: Annotated[int, typer.Option(min=1, help="Calls to measure on each side.")] = 200,
) -> None:
    """Measures and prints what a call costs in Python and in C."""
    frames = sorted(_EXAMPLES.glob("*.jpg"))
    costs = {
        "Python": cost_in_python(bundle, product, frames, calls),
        "C": cost_in_c(build / "tests" / "latency", bundle, product, frames, calls),
    }
    table = Table(title=f"A call's cost beside the inspection, {calls} calls, ms")
    for column in ("", "whole call p50", "beside p50", "beside p90", "beside p99"):
        table.add_column(column, justify="left" if not column else "right")
    for name, cost in costs.items():
        columns = (cost.wall_p50, cost.beside_p50, cost.beside_p90, cost.beside_p99)
        table.add_row(name, *(f"{value:.3f}" for value in columns))
    over = costs["C"].beside_p50 - costs["Python"].beside_p50
    console = Console()
    console.print(table)
    console.print(f"C over Python, p50: {over:.3f} ms")


if __name__ == "__main__":
    run_module(main)
