"""An evaluation as a figure: one panel for each metric, classes downwards."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from zeroflaw_benchmarks.evaluate.report.files import writing
from zeroflaw_benchmarks.evaluate.report.published import TABLE_1
from zeroflaw_benchmarks.evaluate.result import Evaluation

_PANELS: Final = {"auroc": "AUROC", "f1_max": "F1-max", "average_precision": "AP", "pro": "PRO"}
_MARKERS: Final = {"fused": "o", "map": "s", "mask": "^", "sam_probability": "x"}
_COLOURS: Final = {
    "fused": "#1b6ca8", "map": "#e07a1f", "mask": "#3a8f4d", "sam_probability": "#8a5fb0"
}  # fmt: skip
_SHIFTS: Final = {"fused": -0.21, "map": -0.07, "mask": 0.07, "sam_probability": 0.21}
_PAPER: Final = TABLE_1[-1]


def write_figure(evaluation: Evaluation, path: Path) -> None:
    """Draw pixel metrics by class and scoring, with the paper's own means as grey lines.

    Raises:
        EvaluationError: The file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    rows = evaluation.table("scoring")
    names = [count.name for count in evaluation.classes]
    places = [*range(len(names)), len(names) + 0.5]  # the mean stands apart
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12, 2.4 + 0.34 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(_PANELS), sharey=True)
        for panel, (field, title) in zip(panels, _PANELS.items(), strict=True):
            for row in rows:
                metrics = [*(row.classes[name] for name in names), row.mean]
                panel.plot(
                    [100 * getattr(figures, field) for figures in metrics],
                    [place + _SHIFTS[row.name] for place in places],
                    linestyle="none",
                    marker=_MARKERS[row.name],
                    color=_COLOURS[row.name],
                    markersize=5,
                    label=row.name,
                    clip_on=False,
                )
            for figures, style, where in (
                (_PAPER.mvtec, "--", "MVTec-AD"),
                (_PAPER.visa, ":", "VisA"),
            ):
                value = getattr(figures, field)
                if value is not None:
                    panel.axvline(
                        value,
                        color="0.6",
                        linestyle=style,
                        linewidth=1,
                        zorder=0,
                        label=f"{_PAPER.name}, {where} (published)",
                    )
            panel.set_xlim(0, 100)
            panel.set_title(title)
            panel.set_xlabel("%")
            panel.grid(axis="y", color="0.92")
            panel.set_axisbelow(True)
        panels[0].set_yticks(places, [*names, "mean"])
        panels[0].set_ylim(places[-1] + 0.5, -0.5)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
        figure.suptitle(_title(evaluation))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130)


def _title(evaluation: Evaluation) -> str:
    title = f"{Path(evaluation.bundle).name} on {Path(evaluation.dataset).name}, pixel level"
    if evaluation.random_weights is None:
        return title
    return f"{title} (random weights: means nothing)"
