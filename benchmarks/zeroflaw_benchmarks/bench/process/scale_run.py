"""One setting of one axis, in a process of its own: latency, throughput, stages and memory.

python -m zeroflaw_benchmarks.bench.process.scale_run '{"bundle": "mini", ...}'
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, get_args

from zeroflaw.inspection import Inspection
from zeroflaw.inspector import Inspector
from zeroflaw_benchmarks.bench.frames import bench_frame
from zeroflaw_benchmarks.bench.process.child_process import answer, peak_rss
from zeroflaw_benchmarks.bench.process.run_on import RunOn, warm_up_on_gpu
from zeroflaw_benchmarks.linked_bundle import linked_bundle
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings, Tiles
from zeroflaw_engines.bundle.products.writer import add_products, set_settings
from zeroflaw_engines.contract import EngineName

# All of an inspection that is outside engines, where these run one after the other.
HOST_STAGE: Final = "host"


@dataclass(frozen=True)
class ScaleTask:
    """One setting.

    Attributes:
        bundle: As `open_bundle` takes it.
        run_on: What runs the engines.
        product: That the frame shows.
        frame: Height and width, px.
        in_flight: Frames inspected at once, by as many threads of one Inspector.
        points: Of each sign; 0 keeps the bundle's.
        products: In the bundle; 0 keeps its own.
        tiles_a_side: Rows and columns of tiles, whatever settings the product has, with the
            encoders one after the other; 0 keeps the product as it is.
        seconds: How long it inspects, after one frame that does not count; at least 3 frames.
        gate: A file for which to wait before inspecting, so that processes begin together;
            empty: none.
    """

    bundle: str
    run_on: RunOn
    product: str
    frame: tuple[int, int]
    in_flight: int = 1
    points: int = 0
    products: int = 0
    tiles_a_side: int = 0
    seconds: float = 1.0
    gate: str = ""


@dataclass(frozen=True)
class ScaleTimes:
    """What was seen.

    Attributes:
        latencies_ms: Of each inspection.
        per_second: Inspections a second.
        stages_ms: Median of each stage; with tiles also of all that is outside engines.
        peak_rss: Largest resident memory of the process, bytes.
    """

    latencies_ms: list[float]
    per_second: float
    stages_ms: dict[str, float]
    peak_rss: int


def run_scale(task: ScaleTask) -> ScaleTimes:
    """Inspect at one setting."""
    with tempfile.TemporaryDirectory(prefix="zeroflaw_scale_") as name:
        directory = Path(name)
        pixels = bench_frame(task.frame, directory).pixels
        with _loaded(task, directory) as inspector:
            done: list[tuple[float, Inspection]] = []

            def inspect(_: int) -> None:
                start = time.perf_counter()
                inspection = inspector.inspect(pixels, product=task.product)
                done.append((1e3 * (time.perf_counter() - start), inspection))

            warm_up_on_gpu(inspector)
            inspect(0)
            done.clear()
            _wait_for(task.gate)
            start = time.perf_counter()
            with ThreadPoolExecutor(task.in_flight) as pool:
                while time.perf_counter() - start < task.seconds or len(done) < 3 * task.in_flight:
                    list(pool.map(inspect, range(task.in_flight)))
            seconds = time.perf_counter() - start
    stages = [_stages(inspection, tiled=task.tiles_a_side > 0) for _, inspection in done]
    return ScaleTimes(
        latencies_ms=[spent for spent, _ in done],
        per_second=len(done) / seconds,
        stages_ms={name: median(one.get(name, 0.0) for one in stages) for name in stages[0]},
        peak_rss=peak_rss(),
    )


def _loaded(task: ScaleTask, directory: Path) -> Inspector:
    bundle: str | Path = task.bundle
    if task.products:
        bundle = _with_products(open_bundle(task.bundle), task.products, directory).path
    if task.tiles_a_side:
        bundle = _with_tiles(open_bundle(task.bundle), task, directory).path
    points: dict[str, Any] = {"positive_points": task.points, "negative_points": task.points}
    return task.run_on.inspector(
        bundle,
        encoder_schedule="clip_first" if task.tiles_a_side else "side_by_side",
        **(points if task.points else {}),
    )


def _with_tiles(bundle: Bundle, task: ScaleTask, directory: Path) -> Bundle:
    """A copy of the bundle whose product is seen in tiles, and has no other settings."""
    copy = linked_bundle(bundle, directory / "bundle")
    height, width = task.frame
    tiles = Tiles(rows=task.tiles_a_side, columns=task.tiles_a_side)
    settings = ProductSettings(frame_width=width, frame_height=height, tiles=tiles)
    return set_settings(copy, task.product, settings)


def _with_products(bundle: Bundle, count: int, directory: Path) -> Bundle:
    """A copy of the bundle with as many products, all with the embeddings of the first."""
    copy = linked_bundle(bundle, directory / "bundle")
    known = min(bundle.manifest.products)
    names = [f"made_up_{i}" for i in range(count - len(bundle.manifest.products))]
    entry = bundle.manifest.products[known]
    embeddings = bundle.text_embeddings(known)
    return add_products(copy, dict.fromkeys(names, embeddings), dict.fromkeys(names, entry))


def _stages(inspection: Inspection, *, tiled: bool) -> dict[str, float]:
    """Stages as the latency table names them; of tiles also the host's time."""
    times = dict(inspection.timings_ms)
    if tiled:
        engines = tuple(get_args(EngineName))
        in_engines = sum(value for name, value in times.items() if name.startswith(engines))
        times[HOST_STAGE] = times["total"] - in_engines
    decoders = sum(value for name, value in times.items() if name.startswith("sam_decoder_"))
    if "cascade" in times:  # other refiners time their masks by themselves
        times["mask"] = times.pop("cascade") - decoders
    return times


def _wait_for(gate: str) -> None:
    """Says by a file of its own that this process is ready, and waits for the others."""
    if gate:
        Path(f"{gate}.{os.getpid()}").touch()
        while not Path(gate).exists():
            time.sleep(0.005)


if __name__ == "__main__":
    answer(ScaleTask, run_scale)
