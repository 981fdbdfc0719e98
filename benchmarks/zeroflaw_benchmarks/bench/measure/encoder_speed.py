"""SAM's image encoder on each CPU backend, before and after, against PyTorch and its FLOP floor.

    python -m zeroflaw_benchmarks.bench.measure.encoder_speed                   # ViT-B and ViT-H
    python -m zeroflaw_benchmarks.bench.measure.encoder_speed --sam vit_b       # a few minutes

"Before" is segment_anything exported as it is and run with the backend's defaults, "after" is
zeroflaw's graph and session. Every run has a process of its own; rounds are interleaved, so that
a machine that slows down slows all of them, and a ratio is taken inside each round.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from zeroflaw_benchmarks.bench.machine.gemm_rate import gemm_rates
from zeroflaw_benchmarks.bench.machine.graph_macs import graph_macs
from zeroflaw_benchmarks.bench.machine.machine_state import machine_record
from zeroflaw_benchmarks.bench.machine.spread import Spread, spread, times_faster
from zeroflaw_benchmarks.bench.process.child_process import run_child
from zeroflaw_benchmarks.bench.process.encoder_graphs import GraphsTask, encoder_sizes, graph_path
from zeroflaw_benchmarks.bench.process.encoder_run import EncoderRun, EncoderTimes
from zeroflaw_engines.builder.differences import cosine
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_export.models.sam_attention import ATTENTION_OF_TARGET

_FLOPS_OF_A_MAC: Final = 2
_WIDTH: Final = 140  # the table, whatever the terminal


@dataclass
class EncoderRow:
    """One way of running one encoder.

    Attributes:
        run: What was run.
        seconds: Of each round.
        peak_rss: Largest resident memory of its process, bytes.
        cosine: Of its features to those of torch in fp32.
    """

    run: EncoderRun
    seconds: list[float] = field(default_factory=list)
    peak_rss: int = 0
    cosine: float = 1.0


def floor_seconds(macs: int, gflops: float) -> float:
    """The time that products of matrices alone take at the best rate of any library."""
    return _FLOPS_OF_A_MAC * macs / (gflops * 1e9)


def planned_runs(architecture: str, graphs: Path, features: Path) -> list[EncoderRun]:
    """Every way of running one encoder on this machine, in the order of a round."""
    sizes = encoder_sizes(architecture)

    def run(library: Any, precision: Any, graph: Any) -> EncoderRun:  # noqa: ANN401 - literals
        form = "plain" if graph == "plain" else ATTENTION_OF_TARGET.get(library, "plain")
        return EncoderRun(
            library=library,
            precision=precision,
            graph=graph,
            architecture=architecture,
            path="" if graph == "none" else str(graph_path(graphs, form)),
            side=sizes.side,
            channels=sizes.channels,
            runs=1,
            features=str(features / f"{library}-{precision}-{graph}.npy"),
        )

    runs = [run("torch", precision, "none") for precision in ("fp32", "bf16")]
    runs += [run("onnxruntime", "fp32", graph) for graph in ("plain", "ours")]
    if importlib.util.find_spec("openvino"):
        runs += [
            run("openvino", precision, graph)
            for precision in ("fp32", "bf16")
            for graph in ("plain", "ours")
        ]
    return runs


def measure_encoder(
    architecture: str, directory: Path, rounds: int, console: Console
) -> tuple[list[EncoderRow], dict[str, int]]:
    """Exports one encoder and runs it every way.

    Returns:
        The rows, and the MACs of the plain graph and of ours.
    """
    graphs, features = directory / "graphs", directory / "features"
    features.mkdir(parents=True)
    console.print(f"exporting {architecture}: the plain graph and ours")
    run_child("bench.process.encoder_graphs", GraphsTask(architecture, str(graphs)), str)
    rows = [EncoderRow(run) for run in planned_runs(architecture, graphs, features)]
    for turn in range(rounds):
        for row in rows:
            run = replace(row.run, features=row.run.features if turn == 0 else "")
            times = run_child("bench.process.encoder_run", run, EncoderTimes)
            row.seconds.append(median(times.seconds))
            row.peak_rss = max(row.peak_rss, times.peak_rss)
            console.print(f"  round {turn + 1}: {row.run.name} {row.seconds[-1]:.2f} s")
    want = np.load(rows[0].run.features)
    for row in rows:
        row.cosine = cosine(np.load(row.run.features), want, f"features of {row.run.name}")
    ours = ATTENTION_OF_TARGET["onnxruntime"]
    macs = {
        "plain": sum(graph_macs(graph_path(graphs, "plain")).values()),
        "ours": sum(graph_macs(graph_path(graphs, ours)).values()),
    }
    return rows, macs


def encoder_figures(
    rows: list[EncoderRow], macs: dict[str, int], rates: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """The figures of each row: seconds, ratios, share of the floor, memory."""
    eager = {row.run.precision: row for row in rows if row.run.library == "torch"}
    figures = []
    for row in rows:
        run = row.run
        plain = next(
            (
                other
                for other in rows
                if other.run.graph == "plain"
                and (other.run.library, other.run.precision) == (run.library, run.precision)
            ),
            None,
        )
        best = max(rates[run.precision].values())
        floor = floor_seconds(macs["plain"], best)
        figures.append(
            {
                "name": run.name,
                "seconds": spread(row.seconds),
                "times_faster_than_torch_fp32": _times(eager["fp32"], row),
                "times_faster_than_torch_same_precision": _times(eager[run.precision], row),
                "times_faster_than_plain_export": _times(plain, row) if plain else None,
                "floor_seconds": floor,
                "times_floor": spread([s / floor for s in row.seconds]),
                "times_floor_of_own_graph": median(row.seconds)
                / floor_seconds(macs["ours" if run.graph == "ours" else "plain"], best),
                "peak_rss_gb": row.peak_rss / 1e9,
                "feature_cosine_to_torch_fp32": row.cosine,
            }
        )
    return figures


def _times(slow: EncoderRow, fast: EncoderRow) -> Spread:
    return times_faster(slow.seconds, fast.seconds)


def _table(architecture: str, figures: list[dict[str, Any]], macs: dict[str, int]) -> Table:
    title = (
        f"{architecture}: {macs['plain'] / 1e9:.1f} GMAC as published, "
        f"{macs['ours'] / 1e9:.1f} in our graph"
    )
    table = Table(title=title, box=None, title_justify="left")
    table.add_column("way")
    heads = ("seconds", "x torch fp32", "x torch same", "x plain", "x floor", "RSS, GB", "cosine")
    for head in heads:
        table.add_column(head, justify="right")
    for row in figures:
        plain = row["times_faster_than_plain_export"]
        table.add_row(
            row["name"],
            str(row["seconds"]),
            str(row["times_faster_than_torch_fp32"]),
            str(row["times_faster_than_torch_same_precision"]),
            str(plain) if plain else "",
            str(row["times_floor"]),
            f"{row['peak_rss_gb']:.1f}",
            f"{row['feature_cosine_to_torch_fp32']:.6f}",
        )
    return table


def main(
    *,
    sam: Annotated[
        list[str] | None, typer.Option(help="SAM architecture; repeatable. Default: both.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 2,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the figures are written, JSON.")
    ] = Path("encoder_speed.json"),
) -> None:
    """Print the encoder's times, ratios and share of the FLOP floor on each CPU backend."""
    console = Console(highlight=False, width=_WIDTH)
    report: dict[str, Any] = {"machine": machine_record(), "rounds": rounds, "encoders": {}}
    console.print_json(msgspec.json.encode(report["machine"]).decode())
    report["gemm_gflops"] = rates = gemm_rates()
    for precision, by_library in rates.items():
        listed = ", ".join(f"{library} {rate:.0f}" for library, rate in by_library.items())
        console.print(f"products of matrices in {precision}, GFLOP/s: {listed}")
    for architecture in sam or ["vit_b", "vit_h"]:
        directory = Path(tempfile.mkdtemp(prefix="encoder_speed_"))
        try:
            rows, macs = measure_encoder(architecture, directory, rounds, console)
        finally:
            shutil.rmtree(directory)
        figures = encoder_figures(rows, macs, rates)
        report["encoders"][architecture] = {"macs": macs, "ways": figures}
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        console.print(_table(architecture, figures, macs))
    console.print(f"written to {out}")


if __name__ == "__main__":
    run_module(main)
