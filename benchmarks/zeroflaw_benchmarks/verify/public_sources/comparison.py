"""What a public source and our module gave on the same weights and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from zeroflaw_engines.builder.differences import largest_difference
from zeroflaw_engines.errors import ComparisonError, EvaluationError

MAP_TOLERANCE: Final = 1e-4
SCORE_TOLERANCE: Final = 1e-5
# Golden outputs are in the repository.
_GOLDEN_BYTES: Final = 100_000

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Figure:
    """How far one output of ours is from the source's."""

    output: str
    value: float
    tolerance: float

    @property
    def accepted(self) -> bool:
        """Return whether the difference is accepted; that of a NaN is not."""
        return self.value <= self.tolerance


@dataclass(frozen=True)
class Comparison:
    """Outputs of a public source beside ours.

    Attributes:
        source: What the public code gave, by name of the output, float32.
        ours: What our module gave, of the same names and shapes.
        tolerances: Largest absolute difference that is accepted, by name.
    """

    source: Outputs
    ours: Outputs
    tolerances: Mapping[str, float]

    @property
    def figures(self) -> list[Figure]:
        """Measure every output.

        Raises:
            ComparisonError: Names or shapes differ, a value is not finite, or the source's output
                does not vary, so that anything constant would pass.
        """
        if not set(self.source) == set(self.ours) == set(self.tolerances):
            raise ComparisonError(
                f"the source gave {sorted(self.source)} and ours {sorted(self.ours)}, to be"
                f" compared in {sorted(self.tolerances)}",
                "compare outputs of the same names",
            )
        for name, values in self.source.items():
            if np.ptp(values) == 0 and values.size > 1:
                raise ComparisonError(
                    f"{name} of the source is the same everywhere", "choose other seeded weights"
                )
        return [
            Figure(name, largest_difference(self.ours[name], values, name), self.tolerances[name])
            for name, values in self.source.items()
        ]


def write_golden(outputs: Outputs, path: Path) -> None:
    """Write outputs of a source for the tests, which have no clone of it.

    Raises:
        EvaluationError: They are too large for the repository, or the file cannot be written.
    """
    content = save({name: np.ascontiguousarray(values) for name, values in outputs.items()})
    if len(content) > _GOLDEN_BYTES:
        raise EvaluationError(
            f"golden outputs of {len(content)} bytes are larger than {_GOLDEN_BYTES}",
            "write those of the tiny architecture",
        )
    try:
        path.write_bytes(content)
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written: {error.strerror}", "choose another --write"
        ) from error
