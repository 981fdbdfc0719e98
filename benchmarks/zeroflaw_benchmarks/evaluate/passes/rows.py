"""The rows of an evaluation's tables: what is scored, and what the decoder is run for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from zeroflaw_benchmarks.evaluate.passes.decoding_pass import DecodingOptions, decoded_parameters
from zeroflaw_benchmarks.evaluate.passes.scorings import SCORINGS_OF_REFINER, kept_scorings
from zeroflaw_benchmarks.evaluate.report.published import STAGE_PROMPTS, TABLE_2
from zeroflaw_engines.errors import EvaluationError
from zeroflaw_engines.parameters import MethodParameters

Table = Literal["scoring", "kernel", "cascade"]
Ablation = Literal["kernel", "cascade"]

ABLATIONS: Final[tuple[Ablation, ...]] = ("kernel", "cascade")


@dataclass(frozen=True)
class TableRow:
    """One row of a table: what is measured with which parameters.

    Attributes:
        table: `scoring`, or the ablation.
        name: Of the row.
        parameters: An Inspector with these gives the score maps that are measured.
    """

    table: Table
    name: str
    parameters: MethodParameters


def table_rows(parameters: MethodParameters, ablations: Iterable[Ablation]) -> tuple[TableRow, ...]:
    """List the rows that are measured: every scoring of the refiner, and those of the ablations.

    Raises:
        EvaluationError: An ablation is asked for, which is of the cascade, and the refiner is not.
    """
    ablations = tuple(ablations)
    if ablations and parameters.refiner != "cascade":
        raise EvaluationError(
            f"--ablate {' and '.join(ablations)} is of the cascade, and the refiner is"
            f" {parameters.refiner}",
            "leave it out, or evaluate with --set refiner=cascade",
        )
    rows = [
        TableRow("scoring", name, parameters.replace(scoring=name))
        for name in SCORINGS_OF_REFINER[parameters.refiner]
    ]
    if "kernel" in ablations:
        rows += [
            TableRow(
                "kernel",
                f"{kernel} {size}",
                parameters.replace(dilation_kernel=kernel, dilation_size=size),
            )
            for kernel, size in TABLE_2
        ]
    if "cascade" in ablations:
        rows += [
            TableRow("cascade", f"stage {stages}", parameters.replace(cascade_stages=stages))
            for stages in STAGE_PROMPTS
        ]
    return tuple(rows)


def required_decodings(
    parameters: MethodParameters, rows: Iterable[TableRow], size: int
) -> tuple[DecodingOptions, ...]:
    """List what is refined: parameters that differ only afterwards share a run of the decoder.

    Every length of the cascade is kept for the parameters themselves (contact sheets show
    them), and only the length that is measured for the rows of an ablation.

    Args:
        size: Side at which scores are measured, px.
    """
    own = set(range(1, parameters.cascade_stages + 1))
    stages: dict[MethodParameters, set[int]] = {decoded_parameters(parameters): own}
    for row in rows:
        wanted = stages.setdefault(decoded_parameters(row.parameters), set())
        wanted.add(row.parameters.cascade_stages)
    return tuple(
        DecodingOptions(key, tuple(sorted(wanted)), size, kept_scorings(key))
        for key, wanted in stages.items()
    )
