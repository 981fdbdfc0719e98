"""A comparison as Markdown, CSV and JSON; what others have published stands in a table apart."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from zeroflaw_benchmarks.evaluate.comparison.columns import COLUMNS, Column
from zeroflaw_benchmarks.evaluate.comparison.comparison import ComparedRow, Comparison
from zeroflaw_benchmarks.evaluate.report.files import write_report
from zeroflaw_benchmarks.evaluate.report.markdown import listed, percent, table
from zeroflaw_benchmarks.evaluate.report.published import TABLE_1, VISUALAD

COMPARISON_NAME: Final = "comparison"
_PIXEL_COLUMNS: Final[tuple[Column, ...]] = ("auroc", "f1-max", "ap", "pro")
_OF_CLASSES: Final[tuple[Column, ...]] = ("f1-max", "ap", "image-auroc")


def write_comparison(comparison: Comparison, out_dir: Path) -> tuple[Path, ...]:
    """Write `comparison.md`, `comparison.csv` and `comparison.json`.

    Returns:
        Their paths.

    Raises:
        EvaluationError: A file cannot be written.
    """
    contents = {
        ".md": markdown(comparison).encode(),
        ".csv": comparison_csv(comparison).encode(),
        ".json": comparison_json(comparison),
    }
    return write_report(out_dir, COMPARISON_NAME, contents)


def measured_table(comparison: Comparison) -> str:
    """Write a row for each method, without and with reference photos, in Markdown."""
    best = comparison.verdict.best
    lines = []
    for row in comparison.rows:
        name = f"**{row.name}**" if row.title == best else row.name
        figures = [_figure(row, column) for column in COLUMNS]
        lines.append([name, str(row.shots), *figures, *_costs(row)])
    header = ["method", "photos", *COLUMNS.values(), "ms", "GMAC", "MB"]
    return table(header, lines)


def published_table() -> str:
    """Write what others have published, in Markdown."""
    header = ["method", *(f"MVTec-AD {COLUMNS[c]}" if c == "auroc" else COLUMNS[c]
                          for c in _PIXEL_COLUMNS)]  # fmt: skip
    header += [f"VisA {COLUMNS[c]}" if c == "auroc" else COLUMNS[c] for c in _PIXEL_COLUMNS]
    lines = [
        [method.name, *method.mvtec.cells, *method.visa.cells] for method in (*TABLE_1, *VISUALAD)
    ]
    return table(header, lines)


def markdown(comparison: Comparison) -> str:
    """Write the whole comparison in Markdown."""
    return "\n".join(_sections(comparison)) + "\n"


def comparison_csv(comparison: Comparison) -> str:
    """Write a line for each row and class, and one for each mean; figures in [0, 1].

    Published figures are not in it.
    """
    file = io.StringIO()
    costs = ("ms", "ms_first_quartile", "ms_third_quartile", "gmac", "mb")
    fields = ["method", "photos", "localizer", "refiner", "bundle", "class", *COLUMNS, *costs]
    writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        names = {
            "method": row.name, "photos": row.shots, "localizer": row.localizer,
            "refiner": row.refiner, "bundle": row.bundle,
        }  # fmt: skip
        for where, figures in (*row.classes.items(), ("mean", row.figures)):
            values: dict[str, str] = {
                c: "" if math.isnan(v) else repr(v) for c, v in figures.items()
            }
            writer.writerow({**names, "class": where, **values, **_plain_costs(row)})
    return file.getvalue()


def comparison_json(comparison: Comparison) -> bytes:
    """Write everything that was measured as JSON; figures in [0, 1], null where undefined."""
    encoded = msgspec.json.encode(comparison, enc_hook=str)
    return msgspec.json.format(encoded, indent=2) + b"\n"


def _sections(comparison: Comparison) -> Iterator[str]:
    name = Path(comparison.dataset).name
    images = sum(good + bad for good, bad in comparison.images.values())
    yield f"# Methods compared on {name}\n"
    yield f"{comparison.verdict.text}\n"
    random = [row.name for row in comparison.rows if row.random_weights is not None]
    if random:
        yield f"**Random weights mean nothing: {', '.join(dict.fromkeys(random))}**\n"
    yield f"## Measured on {name}\n"
    yield (
        f"%, means over {len(comparison.images)} classes, {images} images at"
        f" {comparison.size} px"
        + (_of_draws(comparison) if any(row.shots for row in comparison.rows) else "")
        + f". {comparison.backend}; {comparison.machine}.\n"
    )
    yield measured_table(comparison)
    yield f"95 % of the resamplings of the images, {COLUMNS[comparison.verdict.best_by]}:\n"
    yield from listed(
        f"{row.title}: {_interval(row, comparison.verdict.best_by)}" for row in comparison.rows
    )
    yield "## Published, on other data sets\n"
    yield (
        "Measured by their authors on MVTec-AD and VisA, pixel level, %. Figures of different data"
        " sets cannot be compared: none of these says how a method does here.\n"
    )
    yield published_table()
    yield "## By class, %\n"
    for column in _OF_CLASSES:
        yield f"### {COLUMNS[column]}\n"
        lines = [
            [row.title, *(percent(row.classes[c][column]) for c in comparison.images),
             percent(row.figures[column])]
            for row in comparison.rows
        ]  # fmt: skip
        yield table(["method", *comparison.images, "mean"], lines)
    yield "## Calls of the engines in an inspection\n"
    yield from listed(
        f"{row.title}: " + ", ".join(f"{engine} {n:.3g}" for engine, n in row.cost.calls.items())
        for row in comparison.rows
    )
    yield "## What was compared\n"
    yield from listed(
        f"{row.name}: `{row.bundle}`, identity `{row.identity[:16]}`, {row.models};"
        f" parameters {', '.join(f'{k} {v}' for k, v in row.parameters.relevant.items())}"
        for row in comparison.rows
        if not row.shots
    )
    yield from listed([f"zeroflaw {comparison.zeroflaw_version}"])
    yield "## How the figures are defined\n"
    yield from listed(comparison.conventions)
    if comparison.notes:
        yield "## Notes\n"
        yield from listed(comparison.notes)
    if comparison.skipped:
        yield f"## {len(comparison.skipped)} files skipped\n"
        yield from listed(f"`{skip.path}`: {skip.reason}" for skip in comparison.skipped)


def _of_draws(comparison: Comparison) -> str:
    return f"; with photos, means±standard deviations of {comparison.seeds} draws of them"


def _figure(row: ComparedRow, column: Column) -> str:
    mean, deviation = percent(row.figures[column]), row.deviations[column]
    return mean if math.isnan(deviation) else f"{mean}±{percent(deviation)}"


def _costs(row: ComparedRow) -> list[str]:
    gmac = "n/a" if row.cost.gmac is None else f"{row.cost.gmac:.1f}"
    return [f"{row.cost.milliseconds:.0f}", gmac, f"{row.cost.megabytes:.0f}"]


def _plain_costs(row: ComparedRow) -> dict[str, float | str]:
    first, third = row.cost.quartiles
    return {
        "ms": row.cost.milliseconds,
        "ms_first_quartile": first,
        "ms_third_quartile": third,
        "gmac": "" if row.cost.gmac is None else row.cost.gmac,
        "mb": row.cost.megabytes,
    }


def _interval(row: ComparedRow, column: Column) -> str:
    low, high = row.interval[column]
    return f"{percent(row.figures[column])} ({percent(low)} to {percent(high)})"
