"""Pass 3 of an evaluation: score maps of one class and one row at a time, and their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from zeroflaw.pipeline.geometry import BoolArray, FloatArray, geometry_of
from zeroflaw.pipeline.reference import fused_score, reference_distances
from zeroflaw.pipeline.scoring import score_of_logits, score_without_mask
from zeroflaw_benchmarks.evaluate.cache import read_arrays
from zeroflaw_benchmarks.evaluate.metrics.metrics import PixelMetrics, PixelScores
from zeroflaw_benchmarks.evaluate.passes.decoding_pass import read_stage_mask
from zeroflaw_benchmarks.evaluate.passes.encoding_pass import Truth, read_maps
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import read_inspection, read_scores
from zeroflaw_benchmarks.evaluate.passes.refining_pass import map_to, read_refined
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.parameters import MethodParameters

# What all processes of this pass may take together, and what it takes in each of them.
_MEMORY: Final = 3_500_000_000
_PROCESS_BYTES: Final = 150_000_000
_BYTES_A_PIXEL: Final = 12


@dataclass(frozen=True)
class CachedSample:
    """One sample as the cache holds it.

    Attributes:
        truth: At the size of the measurement.
        encoding: File of its encoding.
        decoding: File of its decoding.
        reference: File of its reference map; None without a bank.
        inspection: File of its inspection, which takes the place of all of these; None if its
            product has no settings.
    """

    truth: Truth
    encoding: Path
    decoding: Path
    reference: Path | None = None
    inspection: Path | None = None


@dataclass(frozen=True)
class MeasuringJob:
    """One class with one set of parameters."""

    samples: tuple[CachedSample, ...]
    parameters: MethodParameters


def sizes_of(bundle: Bundle) -> EngineSizes:
    """Return what a process needs to measure."""
    return bundle.manifest.sizes


def processes_within_memory(images: Sequence[int], size: int) -> int:
    """Return how many processes may measure at once and stay within 3.5 GB together.

    Args:
        images: Number of images of each job.
        size: Side at which scores are measured, px.

    Returns:
        1 or more.
    """
    largest = _PROCESS_BYTES + max(images, default=0) * size**2 * _BYTES_A_PIXEL
    return max(1, _MEMORY // largest)


def measure_class(sizes: EngineSizes, job: MeasuringJob) -> PixelMetrics:
    """Compute the pixel metrics over all images of a class.

    Raises:
        EvaluationError: A file of the cache cannot be read.
        ScoreError: A score is not finite.
    """
    scores = PixelScores()
    for sample in job.samples:
        scores.add(*scored(sample, job.parameters, sizes))
    return scores.metrics()


def scored(
    sample: CachedSample, parameters: MethodParameters, sizes: EngineSizes
) -> tuple[FloatArray, BoolArray, BoolArray | None]:
    """Read a sample's score map and truth, and what of it is judged.

    Returns:
        float32, bool and bool, each [size, size]; None where all is judged.

    Raises:
        EvaluationError: A file of the cache cannot be read.
    """
    if sample.inspection is None:
        return cached_score(sample, parameters, sizes), sample.truth.mask(), None
    score, judged = read_scores(sample.inspection, parameters.scoring)
    return score, sample.truth.mask(), judged


def cached_score(
    sample: CachedSample, parameters: MethodParameters, sizes: EngineSizes
) -> FloatArray:
    """Compute the score map of a cached sample at the size of its truth.

    Where that is not the size of the bundle's maps, the anomaly map is resized bilinearly, and
    SAM's logits are read at the new pixels' centres: no mask is ever resized.

    Returns:
        float32 [size, size].

    Raises:
        EvaluationError: A file of the cache cannot be read.
    """
    if parameters.refiner != "cascade" and parameters.scoring != "map":
        return read_refined(sample.decoding, parameters.scoring)
    maps = read_maps(sample.encoding, sample.reference, parameters)
    anomaly_map = map_to(maps.anomaly, sample.truth.size)
    if parameters.scoring == "map":
        return anomaly_map
    mask = read_stage_mask(sample.decoding, parameters.cascade_stages)
    if mask.low_res_logits is None:
        return score_without_mask(anomaly_map, parameters)
    geometry = geometry_of(maps.frame, sizes, parameters)
    return score_of_logits(
        anomaly_map, mask.low_res_logits, geometry, mask.predicted_iou, parameters
    )


def read_image_scores(
    samples: Sequence[CachedSample], parameters: MethodParameters
) -> dict[str, FloatArray]:
    """Read the image scores of some samples under each `image_scoring`.

    Args:
        parameters: Of samples with a reference map: how the scores are fused with it.

    Returns:
        `cls` and `map_max`: float32 [n].

    Raises:
        EvaluationError: A file of the cache cannot be read.
    """
    scores = np.empty((2, len(samples)), np.float32)
    for place, sample in enumerate(samples):
        if sample.inspection is not None:
            seen = read_inspection(sample.inspection).image_scores
            scores[:, place] = seen["cls"], seen["map_max"]
            continue
        both = [float(score) for score in read_arrays(sample.encoding, "cls_score", "map_max")]
        if sample.reference is not None:
            found = read_arrays(sample.reference, "reference_map")[0]
            distances = reference_distances(found, parameters)
            both = [fused_score(score, distances, parameters) for score in both]
        scores[:, place] = both
    return {"cls": scores[0], "map_max": scores[1]}
