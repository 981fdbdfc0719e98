"""What `zeroflaw evaluate --compare` writes and prints."""

from __future__ import annotations

from pathlib import Path

from zeroflaw_benchmarks.evaluate.comparison.comparison import Comparison
from zeroflaw_benchmarks.evaluate.comparison.figure import write_comparison_figure
from zeroflaw_benchmarks.evaluate.comparison.report import (
    COMPARISON_NAME,
    measured_table,
    published_table,
    write_comparison,
)
from zeroflaw_engines.process.terminal import out


def print_comparison(comparison: Comparison, out_dir: Path) -> None:
    """Write the files of a comparison, and print its tables and which method is best.

    Raises:
        EvaluationError: A file cannot be written.
    """
    report, *_ = write_comparison(comparison, out_dir)
    write_comparison_figure(comparison, out_dir / f"{COMPARISON_NAME}.png")
    out.print("Published by their authors, on other data sets; not to be compared:", markup=False)
    out.print(published_table(), markup=False)
    out.print(f"Measured on {Path(comparison.dataset).name}:", markup=False)
    out.print(measured_table(comparison), markup=False)
    out.print(comparison.verdict.text, markup=False)
    out.print(str(report), markup=False)
