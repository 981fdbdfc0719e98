"""Cached encodings through a refiner other than the cascade: score maps on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.refining.refinement import RefinerEngines
from zeroflaw.pipeline.refining.refiners import refine
from zeroflaw_benchmarks.evaluate.cache import read_arrays, write_arrays
from zeroflaw_engines.parameters import MethodParameters


def write_refined(
    path: Path,
    encoding: Encoding,
    parameters: MethodParameters,
    engines: RefinerEngines,
    *,
    scorings: Sequence[str],
    size: int,
) -> None:
    """Refine an encoding once, and write its score map under some scorings.

    Where the size is not that of the bundle's maps, the anomaly map is resized bilinearly after
    the refiner has seen it, and SAM's logits are read at the new pixels' centres.

    Args:
        parameters: Of a refiner other than the cascade; its `scoring` does not matter.
        scorings: From `kept_scorings`.
        size: Side of the score maps, px.

    Raises:
        EngineError: An engine failed.
        EvaluationError: The file cannot be written.
    """
    refined = refine(encoding, parameters, engines)
    status = refined.findings(encoding, parameters, engines.workspace).status
    wanted = replace(encoding, anomaly_map=map_to(encoding.anomaly_map, size))
    found = [
        refined.findings(wanted, parameters.replace(scoring=name), engines.workspace).score_map
        for name in scorings
    ]
    write_arrays(
        path,
        status=np.array(status),
        scorings=np.array(scorings, np.str_),
        scores=np.array(found, np.float32),
    )


def read_refined(path: Path, scoring: str) -> FloatArray:
    """Read the score map of an image under a scoring, float32 [size, size].

    Raises:
        EvaluationError: The file is missing or damaged.
    """
    names, scores = read_arrays(path, "scorings", "scores")
    refined: FloatArray = scores[names.tolist().index(scoring)]
    return refined


def read_refined_status(path: Path) -> str:
    """Read the status of an image; see `read_refined`."""
    return str(read_arrays(path, "status")[0])


def refined_bytes(scorings: Sequence[str], size: int) -> int:
    """Return the bytes of one refined image on disk."""
    return 4 * len(scorings) * size**2 + 4096


def map_to(values: FloatArray, size: int) -> FloatArray:
    """Resize a map bilinearly to [size, size]; the map itself if it has that size."""
    if values.shape == (size, size):
        return values
    resized = cv2.resize(values, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)
