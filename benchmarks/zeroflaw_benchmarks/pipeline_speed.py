"""A whole inspection on each CPU backend against the PyTorch pipeline of the same weights.

    zeroflaw export full_size --clip vit_l_14_336 --sam vit_h --random-weights 3
    python -m zeroflaw_benchmarks.pipeline_speed full_size

Every run has a process of its own; rounds are interleaved and a ratio is taken inside each.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from zeroflaw_benchmarks.encoder_speed import Spread, child, machine, spread, times_faster
from zeroflaw_benchmarks.pipeline_run import REFERENCE, PipelineRun, PipelineTimes
from zeroflaw_benchmarks.reference_pipeline import mask_iou

_WAYS: Final = ("onnxruntime", "openvino:fp32", "openvino:bf16")
_REFERENCES: Final = (f"{REFERENCE}:fp32", f"{REFERENCE}:bf16")
_WIDTH: Final = 120


def pipeline_figures(
    seconds: dict[str, list[float]],
    peak_rss: dict[str, int],
    masks: dict[str, NDArray[np.bool_]],
) -> list[dict[str, Any]]:
    """The figures of each way: seconds, ratios, memory, IoU of its mask with the reference's.

    Args:
        seconds: Of each round, by way; both references are among them.
        peak_rss: Bytes, by way.
        masks: The mask of the last round, by way.
    """
    fp32, bf16 = (seconds[way] for way in _REFERENCES)
    return [
        {
            "way": way,
            "seconds": asdict(spread(taken)),
            "times_faster_than_torch_fp32": asdict(times_faster(fp32, taken)),
            "times_faster_than_torch_bf16": asdict(times_faster(bf16, taken)),
            "peak_rss_gb": peak_rss[way] / 1e9,
            "mask_iou_with_torch_fp32": mask_iou(masks[way], masks[_REFERENCES[0]]),
        }
        for way, taken in seconds.items()
    ]


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with random weights.")],
    *,
    way: Annotated[
        list[str] | None,
        typer.Option(help="BACKEND or BACKEND:PRECISION; repeatable. Default: each on the CPU."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Inspections of each way.")] = 2,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the figures are written, JSON.")
    ] = Path("pipeline_speed.json"),
) -> None:
    """Print the time of a whole inspection on each CPU backend, and its ratio to PyTorch's."""
    console = Console(highlight=False, width=_WIDTH)
    ways = (*_REFERENCES, *(way or _WAYS))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peak_rss: dict[str, int] = dict.fromkeys(ways, 0)
    masks: dict[str, NDArray[np.bool_]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for turn in range(rounds):
            for number, name in enumerate(ways):
                file = str(Path(directory) / f"{number}.npy")
                run = PipelineRun(str(bundle), name, 1, file)
                times = PipelineTimes(**json.loads(child("pipeline_run", json.dumps(asdict(run)))))
                seconds[name] += times.seconds
                peak_rss[name] = max(peak_rss[name], times.peak_rss)
                masks[name] = np.load(file)
                console.print(f"round {turn + 1}: {name} {times.seconds[-1]:.2f} s")
    figures = pipeline_figures(seconds, peak_rss, masks)
    report = {"machine": machine(), "rounds": rounds, "ways": figures}
    out.write_text(json.dumps(report, indent=2) + "\n")
    table = Table("way", box=None)
    for head in ("seconds", "x torch fp32", "x torch bf16", "RSS, GB", "mask IoU"):
        table.add_column(head, justify="right")
    for row in figures:
        table.add_row(
            row["way"],
            str(Spread(**row["seconds"])),
            str(Spread(**row["times_faster_than_torch_fp32"])),
            str(Spread(**row["times_faster_than_torch_bf16"])),
            f"{row['peak_rss_gb']:.1f}",
            f"{row['mask_iou_with_torch_fp32']:.4f}",
        )
    console.print(table)
    console.print(f"written to {out}")


if __name__ == "__main__":
    typer.run(main)
