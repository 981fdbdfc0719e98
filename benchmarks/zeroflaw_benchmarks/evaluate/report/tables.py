"""An evaluation as Markdown, CSV and JSON: the paper's tables, with what was measured beside."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec

from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics, PixelMetrics
from zeroflaw_benchmarks.evaluate.report.files import write_report
from zeroflaw_benchmarks.evaluate.report.markdown import listed, percent, table
from zeroflaw_benchmarks.evaluate.report.published import (
    STAGE_PROMPTS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
)
from zeroflaw_benchmarks.evaluate.report.shots_table import shots_lines, shots_sections
from zeroflaw_benchmarks.evaluate.result import Evaluation, Row

EVALUATION_NAME: Final = "evaluation"

# Names of the fields and of their columns, in the order of the paper.
_FIGURES: Final = {"auroc": "AUROC", "f1_max": "F1-max", "average_precision": "AP", "pro": "PRO"}
_CSV_COLUMNS: Final = (
    "level", "table", "row", "class", "product", "good", "defective", "auroc", "f1_max",
    "average_precision", "pro", "pro_exact", "f1_threshold",
)  # fmt: skip


def write_tables(evaluation: Evaluation, out_dir: Path) -> tuple[Path, ...]:
    """Write `evaluation.md`, `evaluation.csv` and `evaluation.json`.

    Returns:
        Their paths.

    Raises:
        EvaluationError: A file cannot be written.
    """
    contents = {
        ".md": markdown(evaluation).encode(),
        ".csv": table_csv(evaluation).encode(),
        ".json": evaluation_json(evaluation),
    }
    return write_report(out_dir, EVALUATION_NAME, contents)


def paper_table(evaluation: Evaluation) -> str:
    """Write Table 1 of the paper in Markdown, with a row for each scoring that was measured."""
    name = Path(evaluation.dataset).name
    # Three blocks: a measured row must not stand under a dataset that it was not measured on.
    header = ["method"]
    for block in ("MVTec-AD", "VisA", name):
        header += [f"{block} {_FIGURES['auroc']}", *list(_FIGURES.values())[1:]]
    empty = [""] * len(_FIGURES)
    lines = [[method.name, *method.mvtec.cells, *method.visa.cells, *empty] for method in TABLE_1]
    lines += [
        [f"**measured: {row.name}**", *empty, *empty, *_measured(row.mean)]
        for row in evaluation.table("scoring")
    ]
    return table(header, lines)


def kernel_table(evaluation: Evaluation) -> str:
    """Write Table 2 of the paper in Markdown, the dilation kernel, published and measured."""
    rows = evaluation.table("kernel")
    lines = [
        [kernel, str(size), *published.cells[:-1], *_measured(row.mean)]
        for ((kernel, size), published), row in zip(TABLE_2.items(), rows, strict=True)
    ]
    return table(["shape", "size", *_two_sources()], lines)


def cascade_table(evaluation: Evaluation) -> str:
    """Write Table 3 of the paper in Markdown, stages of the cascade, published and measured."""
    rows = evaluation.table("cascade")
    lines = [
        [STAGE_PROMPTS[stage], *TABLE_3[stage].cells[:-1], *_measured(row.mean)]
        for stage, row in zip(STAGE_PROMPTS, rows, strict=True)
    ]
    return table(["stage", *_two_sources()], lines)


def markdown(evaluation: Evaluation) -> str:
    """Write the whole evaluation in Markdown."""
    return "\n".join(_sections(evaluation)) + "\n"


def table_csv(evaluation: Evaluation) -> str:
    """Write a line for each row and class, and one for each mean; figures in [0, 1].

    Rows of reference photos are those of every draw, and the mean and deviation over the draws.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, _CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    counts = {
        count.name: {"product": count.product, "good": count.good, "defective": count.defective}
        for count in evaluation.classes
    }
    total = {
        "good": sum(count.good for count in evaluation.classes),
        "defective": sum(count.defective for count in evaluation.classes),
    }

    def write(level: str, name: str, row: str, where: str, metrics: object) -> None:
        figures = asdict(metrics)  # type: ignore[call-overload]
        writer.writerow(
            {
                "level": level,
                "table": name,
                "row": row,
                "class": where,
                **counts.get(where, total),
                **{k: "" if math.isnan(v) else repr(v) for k, v in figures.items()},
            }
        )

    for row in evaluation.rows:
        for where, pixels in (*row.classes.items(), ("mean", row.mean)):
            write("pixel", row.table, row.name, where, pixels)
    for image_row in evaluation.image_rows:
        for where, images in (*image_row.classes.items(), ("mean", image_row.mean)):
            write("image", "image", image_row.name, where, images)
    for level, row_name, where, metrics in shots_lines(evaluation):
        write(level, "shots", row_name, where, metrics)
    return file.getvalue()


def evaluation_json(evaluation: Evaluation) -> bytes:
    """Write everything as JSON; figures in [0, 1], null where undefined."""
    encoded = msgspec.json.encode(evaluation, enc_hook=str)
    return msgspec.json.format(encoded, indent=2) + b"\n"


def _sections(evaluation: Evaluation) -> Iterator[str]:
    images = sum(count.good + count.defective for count in evaluation.classes)
    yield f"# {Path(evaluation.bundle).name} on {Path(evaluation.dataset).name}\n"
    if evaluation.random_weights is not None:
        yield (
            f"**The bundle has random weights (seed {evaluation.random_weights}): "
            "its figures mean nothing.**\n"
        )
    if evaluation.demonstration is not None:
        yield f"**The bundle is a demonstration model: {evaluation.demonstration}**\n"
    skipped = len(evaluation.skipped)
    facts = {
        "bundle": f"`{evaluation.bundle}`, identity `{evaluation.bundle_identity[:16]}`",
        "models": f"{evaluation.models}, on {evaluation.backend}",
        "dataset": f"`{evaluation.dataset}` ({evaluation.layout}, {evaluation.split})",
        "digest of the dataset": f"`{evaluation.dataset_digest[:16]}`",
        "images": f"{images} of {len(evaluation.classes)} classes; {skipped} files skipped",
        "statuses": ", ".join(f"{n} {name}" for name, n in evaluation.statuses.items()),
        "parameters": _parameters(evaluation),
        "zeroflaw": evaluation.zeroflaw_version,
    }
    yield from listed(f"{name}: {fact}" for name, fact in facts.items())
    yield "## Table 1: pixel level, %, means over the classes\n"
    yield (
        "The published rows were measured by their authors on MVTec-AD and VisA; the measured "
        f"rows are this bundle's on {Path(evaluation.dataset).name}. "
        "Figures of different datasets cannot be compared.\n"
    )
    yield paper_table(evaluation)
    if evaluation.shot_runs:
        yield from shots_sections(evaluation)
    if evaluation.table("kernel"):
        yield "## Table 2: dilation kernel, pixel level, %\n"
        yield _two_datasets(evaluation)
        yield kernel_table(evaluation)
    if evaluation.table("cascade"):
        yield "## Table 3: stages of the cascade, pixel level, %\n"
        yield _two_datasets(evaluation)
        yield cascade_table(evaluation)
    yield "## Classes, pixel level, %\n"
    for row in evaluation.table("scoring"):
        yield f"### {row.name}\n"
        yield _class_table(evaluation, row)
    yield "## Classes, image level, %\n"
    for image_row in evaluation.image_rows:
        chosen = image_row.name == evaluation.parameters.image_scoring
        yield f"### {image_row.name}{' (the bundle decides by it)' if chosen else ''}\n"
        lines = [[name, *_image_figures(metrics)] for name, metrics in image_row.classes.items()]
        lines.append(["**mean**", *_image_figures(image_row.mean)])
        yield table(["class", "AUROC", "F1-max", "AP"], lines)
    if evaluation.decisions:
        yield "## Decisions of products with settings\n"
        yield _decision_table(evaluation)
    yield "## How the figures are defined\n"
    yield from listed(evaluation.conventions)
    if evaluation.notes:
        yield "## Notes\n"
        yield from listed(evaluation.notes)
    if evaluation.skipped:
        yield f"## {len(evaluation.skipped)} files skipped\n"
        yield from listed(f"`{skip.path}`: {skip.reason}" for skip in evaluation.skipped)


def _class_table(evaluation: Evaluation, row: Row) -> str:
    counts = {count.name: count for count in evaluation.classes}
    lines = [
        [
            name,
            counts[name].product,
            str(counts[name].good),
            str(counts[name].defective),
            *_measured(metrics),
            percent(metrics.pro_exact),
        ]
        for name, metrics in row.classes.items()
    ]
    lines.append(["**mean**", "", "", "", *_measured(row.mean), percent(row.mean.pro_exact)])
    header = ["class", "product", "good", "defective", *_FIGURES.values(), "exact PRO"]
    return table(header, lines)


def _decision_table(evaluation: Evaluation) -> str:
    lines = []
    for name, found in evaluation.decisions.items():
        figures = [name, found.product, f"{found.threshold:.4f}", percent(found.auroc)]
        for counts in (found.good, found.defective):
            figures += [f"{counts[d]} of {sum(counts.values())}" for d in ("accept", "reject")]
            figures.append(str(counts["hold"]))
        rules = (
            f"{rule}: {good} good, {bad} defective" for rule, (good, bad) in found.rules.items()
        )
        lines.append([*figures, "; ".join(rules) or "-"])
    header = ["class", "product", "threshold", "AUROC of the decision score, %"]
    header += [f"{kind} {word}" for kind in ("good", "defective")
               for word in ("accepted", "rejected", "held")]  # fmt: skip
    return table([*header, "rejected by rule"], lines)


def _two_datasets(evaluation: Evaluation) -> str:
    return (
        "Published: on MVTec-AD, by the authors. Measured: this bundle on "
        f"{Path(evaluation.dataset).name}, scoring `{evaluation.parameters.scoring}`.\n"
    )


def _two_sources() -> list[str]:
    names = list(_FIGURES.values())
    return [f"published {name}" for name in names[:-1]] + [f"measured {name}" for name in names]


def _measured(metrics: PixelMetrics) -> list[str]:
    return [percent(getattr(metrics, field)) for field in _FIGURES]


def _image_figures(metrics: ImageMetrics) -> list[str]:
    return [percent(v) for v in (metrics.auroc, metrics.f1_max, metrics.average_precision)]


def _parameters(evaluation: Evaluation) -> str:
    relevant = evaluation.parameters.relevant
    return ", ".join(f"{name} {value}" for name, value in relevant.items())
