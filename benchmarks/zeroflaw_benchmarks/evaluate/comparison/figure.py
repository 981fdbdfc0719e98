"""A comparison as a figure: accuracy over milliseconds."""

from __future__ import annotations

from pathlib import Path

from zeroflaw_benchmarks.evaluate.comparison.columns import COLUMNS
from zeroflaw_benchmarks.evaluate.comparison.comparison import Comparison
from zeroflaw_benchmarks.evaluate.report.files import writing


def write_comparison_figure(comparison: Comparison, path: Path) -> None:
    """Draw each row at its time and its figure, with the 95 % of the resampled images.

    Raises:
        EvaluationError: The file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    verdict = comparison.verdict
    rows = [
        row
        for row in comparison.rows
        if row.figures[verdict.best_by] == row.figures[verdict.best_by]
    ]
    photos = sorted({row.shots for row in rows})
    colours = dict(zip(photos, mpl.colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        panel = figure.subplots()
        for shots in photos:
            some = [row for row in rows if row.shots == shots]
            values = [100 * row.figures[verdict.best_by] for row in some]
            ends = [[100 * end for end in row.interval[verdict.best_by]] for row in some]
            # A resampled interval need not hold the figure of the images themselves.
            below = [max(v - low, 0) for v, (low, _) in zip(values, ends, strict=True)]
            above = [max(high - v, 0) for v, (_, high) in zip(values, ends, strict=True)]
            panel.errorbar(
                [row.cost.milliseconds for row in some],
                values,
                yerr=[below, above],
                fmt="o",
                capsize=3,
                elinewidth=0.8,
                color=colours.get(shots, "0.3"),
                label=f"{shots} reference photos" if shots else "no reference photos",
            )
        for place, row in enumerate(sorted(rows, key=lambda one: one.figures[verdict.best_by])):
            panel.annotate(
                row.name,
                (row.cost.milliseconds, 100 * row.figures[verdict.best_by]),
                xytext=(7, 5 if place % 2 else -11),
                textcoords="offset points",
                fontsize=8,
                weight="bold" if row.title == verdict.best else "normal",
            )
        if verdict.within_ms is not None:
            panel.axvline(verdict.within_ms, color="0.5", linestyle="--", linewidth=1)
        # Room for the name of the slowest.
        panel.set_xlim(0, 1.25 * max((row.cost.milliseconds for row in rows), default=1))
        panel.set_xlabel("ms an inspection (median)")
        panel.set_ylabel(f"{COLUMNS[verdict.best_by]}, %; bars: 95 % of resampled images")
        panel.grid(color="0.92")
        panel.set_axisbelow(True)
        if rows:
            panel.legend(frameon=False, loc="lower right")
        figure.suptitle(f"Methods on {Path(comparison.dataset).name}")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130)
