"""Cached encodings through a refiner other than the cascade: score maps on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.refining.refinement import RefinerEngines
from zeroflaw.pipeline.refining.refiners import refine
from zeroflaw_benchmarks.evaluate.cache import read_arrays, write_arrays
from zeroflaw_benchmarks.evaluate.passes.scorings import SCORINGS_OF_REFINER
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.parameters import MethodParameters


def write_refined(
    path: Path, encoding: Encoding, parameters: MethodParameters, engines: RefinerEngines
) -> None:
    """Refine an encoding once, and write its score map under each scoring but `map`.

    Args:
        parameters: Of a refiner other than the cascade; its `scoring` does not matter.

    Raises:
        EngineError: An engine failed.
        EvaluationError: The file cannot be written.
    """
    scorings = [name for name in SCORINGS_OF_REFINER[parameters.refiner] if name != "map"]
    refined = refine(encoding, parameters, engines)
    status = refined.findings(encoding, parameters, engines.workspace).status
    found = [
        refined.findings(encoding, parameters.replace(scoring=name), engines.workspace).score_map
        for name in scorings
    ]
    write_arrays(
        path,
        status=np.array(status),
        scorings=np.array(scorings, np.str_),
        scores=np.array(found, np.float32),
    )


def read_refined(path: Path, scoring: str) -> FloatArray:
    """Read the score map of an image under a scoring, float32 [S, S] on the grid of its map.

    Raises:
        EvaluationError: The file is missing or damaged.
    """
    names, scores = read_arrays(path, "scorings", "scores")
    refined: FloatArray = scores[names.tolist().index(scoring)]
    return refined


def read_refined_status(path: Path) -> str:
    """Read the status of an image; see `read_refined`."""
    return str(read_arrays(path, "status")[0])


def refined_bytes(sizes: EngineSizes, parameters: MethodParameters) -> int:
    """Return the bytes of one refined image on disk."""
    kept = len(SCORINGS_OF_REFINER[parameters.refiner]) - 1
    return 4 * kept * sizes.clip_image_size**2 + 4096
