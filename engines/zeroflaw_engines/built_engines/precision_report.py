"""The precision report: what the operations of a built engine compute with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

ReportSource = Literal["inspector", "plan", "network"]
OperationKind = Literal["attention", "gemm", "convolution", "norm", "softmax", "cast", "other"]

# The kinds whose time precision decides.
HEAVY: Final[tuple[OperationKind, ...]] = ("attention", "gemm", "convolution")


class PrecisionCount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Operations of one kind and one precision.

    Attributes:
        kind: `attention` is a fused one: scores, softmax and product in a single kernel.
        precision: Of the operands, as `float16`, `float32`; `mixed` where they differ.
        count: How many.
    """

    kind: OperationKind
    precision: str
    count: int


class PrecisionReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many operations of an engine compute with what.

    Attributes:
        source: `inspector`: TensorRT's own account of the engine, which needs a GPU. `plan`: the
            compiled program inside the plan. `network`: the network before compilation.
        entries: Sorted by kind and precision.
        unfused_attention: Attention operators that the compiler did not keep in one kernel.
    """

    source: ReportSource
    entries: tuple[PrecisionCount, ...]
    unfused_attention: int = 0

    def count(self, kind: OperationKind, precision: str | None = None) -> int:
        """Count operations of a kind, of one precision or of all."""
        return sum(
            entry.count
            for entry in self.entries
            if entry.kind == kind and precision in {None, entry.precision}
        )

    @property
    def half_share(self) -> float:
        """Share of the heavy operations whose operands are float16, in [0, 1]; 1 if none."""
        heavy = sum(self.count(kind) for kind in HEAVY)
        half = sum(self.count(kind, "float16") for kind in HEAVY)
        return half / heavy if heavy else 1.0

    def __str__(self) -> str:
        parts = [
            f"{entry.count} {entry.kind} {entry.precision}"
            for entry in self.entries
            if entry.kind != "other"
        ]
        return ", ".join(parts) or "nothing to count"


def precision_report(
    source: ReportSource,
    operations: Iterable[tuple[OperationKind, str]],
    *,
    unfused_attention: int = 0,
) -> PrecisionReport:
    """Count operations, each given by kind and precision."""
    counts = Counter(operations)
    return PrecisionReport(
        source=source,
        entries=tuple(
            PrecisionCount(kind=kind, precision=precision, count=count)
            for (kind, precision), count in sorted(counts.items())
        ),
        unfused_attention=unfused_attention,
    )
