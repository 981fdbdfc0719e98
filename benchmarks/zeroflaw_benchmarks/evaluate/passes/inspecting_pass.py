"""The pass that inspects each image as a station does: for products with settings.

Refiners that look at the frame itself take it too. View, tiles, zones and rules are the Inspector's
own. What is cached are the scores of an image at the size of the evaluation, and what was decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from zeroflaw import Inspector
from zeroflaw.inspection import Inspection
from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.view.product_view import FrameView
from zeroflaw_benchmarks.evaluate.cache import digest_of, read_arrays, write_arrays
from zeroflaw_benchmarks.evaluate.passes.remembering_session import RememberingSession
from zeroflaw_benchmarks.evaluate.passes.scorings import (
    IMAGE_SCORINGS,
    SCORINGS_OF_REFINER,
    own_scoring,
)
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import ENGINES_OF_REFINER
from zeroflaw_engines.errors import DatasetError, FrameError
from zeroflaw_engines.parameters import MethodParameters, Refiner
from zeroflaw_export.datasets import (
    Sample,
    Skipped,
    mask_at_size,
    read_sample_image,
    read_sample_mask,
)


@dataclass(frozen=True)
class InspectionJob:
    """One image to inspect.

    Attributes:
        sample: Whose image.
        product: As which it is inspected.
        file: For what comes of it.
    """

    sample: Sample
    product: str
    file: Path


@dataclass(frozen=True)
class Inspectors:
    """What a process needs to inspect.

    Attributes:
        by_scoring: An Inspector for each scoring of the refiner, all on the same engines and with
            the evaluation's own image scoring.
        other: One for the evaluation's own scoring with the other image scoring.
        remembering: The engines of the second half of an inspection, which run once for all.
        own: The evaluation's own scoring.
        size: Side at which scores are measured, px.
    """

    by_scoring: Mapping[str, Inspector]
    other: Inspector
    remembering: tuple[RememberingSession, ...]
    own: str
    size: int


@dataclass(frozen=True)
class InspectedSample:
    """What an image of a product with settings gave.

    Attributes:
        anomalous: Whether its truth has a defect where the product is judged.
        outside: Whether its truth has defects, and all of them where it is not.
        decision: `accept`, `reject` or `hold`.
        decision_score: In [0, 1]; the frame is rejected from `threshold` on.
        threshold: In [0, 1].
        rule: That rejected it; None if none did.
        status: As that of an `Inspection`.
        image_scores: Under each `image_scoring`.
    """

    anomalous: bool
    outside: bool
    decision: str
    decision_score: float
    threshold: float
    rule: str | None
    status: str
    image_scores: dict[str, float]


def load_inspectors(
    bundle: Bundle,
    parameters: MethodParameters,
    size: int,
    *,
    backend: str,
    threads: int,
    device: int = 0,
) -> Inspectors:
    """Load the engines of this pass, and an Inspector for each scoring of the refiner."""
    loaded = Inspector.load(
        bundle.path,
        backend,
        threads=threads,
        device=device,
        parameters=parameters,
        encoder_schedule="clip_first",
    )
    engines = loaded.sessions
    remembering = {
        name: RememberingSession(session)
        for name in ENGINES_OF_REFINER[parameters.refiner]
        if (session := getattr(engines, name)) is not None
    }
    sessions = replace(engines, **remembering)

    def inspector(scoring: str, image_scoring: str) -> Inspector:
        return Inspector(
            loaded.bundle,
            sessions,
            parameters=parameters.replace(scoring=scoring, image_scoring=image_scoring),
            encoder_schedule="clip_first",
            threads=threads,
        )

    own, image_scoring = own_scoring(parameters), parameters.image_scoring
    other = next(name for name in IMAGE_SCORINGS if name != image_scoring)
    by_scoring = {
        scoring: inspector(scoring, image_scoring)
        for scoring in SCORINGS_OF_REFINER[parameters.refiner]
    }
    return Inspectors(by_scoring, inspector(own, other), tuple(remembering.values()), own, size)


def inspect_sample(inspectors: Inspectors, job: InspectionJob) -> Skipped | None:
    """Inspect one image into its file, or say why it cannot be judged.

    The encoders and the decoder run once, whatever the number of scorings.

    Raises:
        EngineError: An engine failed.
        EvaluationError: The file cannot be written.
    """
    try:
        frame = read_sample_image(job.sample)
        truth = read_sample_mask(job.sample, (frame.shape[0], frame.shape[1]))
    except (DatasetError, FrameError) as error:
        return Skipped(job.sample.image, error.cause)
    own = inspectors.by_scoring[inspectors.own]
    encoded = own.encode_frame(frame, product=job.product)
    view = encoded.view
    if view is not None and view.held is not None:
        return Skipped(job.sample.image, f"a station holds it ({view.held.code}): {view.held.text}")
    for session in inspectors.remembering:
        session.forget()

    def decoded(inspector: Inspector) -> Inspection:
        for session in inspectors.remembering:
            session.rewind()
        return inspector.decode_frame(encoded)

    found = {scoring: decoded(one) for scoring, one in inspectors.by_scoring.items()}
    other = decoded(inspectors.other)
    for session in inspectors.remembering:
        session.forget()
    judged = judged_area(view, truth.shape)
    whole = found[inspectors.own]
    size = inspectors.size
    inside = bool((truth & judged).any())
    write_arrays(
        job.file,
        scorings=np.array(list(found), np.str_),
        scores=np.stack([map_at_size(_scored(*one), size) for one in found.items()]),
        judged=np.packbits(mask_at_size(judged, size)),
        anomalous=np.array(inside or (job.sample.anomalous and not truth.any())),
        outside=np.array(bool(truth.any()) and not inside),
        decision=np.array(whole.decision),
        decision_score=np.array(whole.decision_score),
        threshold=np.array(whole.threshold),
        rule=np.array(whole.rule or ""),
        status=np.array(whole.status),
        image_scorings=np.array([one.parameters.image_scoring for one in (own, inspectors.other)]),
        image_scores=np.array([whole.image_score, other.image_score]),
    )
    return None


def _scored(scoring: str, inspection: Inspection) -> FloatArray:
    """Return the map under a scoring; `map` means nothing to a refiner that reads no `scoring`."""
    return inspection.anomaly_map if scoring == "map" else inspection.score_map


def read_inspection(path: Path) -> InspectedSample:
    """Read what an image gave, without its maps.

    Raises:
        EvaluationError: The file is missing or damaged.
    """
    anomalous, outside, decision, score, threshold, rule, status, names, scores = read_arrays(
        path, "anomalous", "outside", "decision", "decision_score", "threshold", "rule", "status",
        "image_scorings", "image_scores",
    )  # fmt: skip
    return InspectedSample(
        anomalous=bool(anomalous),
        outside=bool(outside),
        decision=str(decision),
        decision_score=float(score),
        threshold=float(threshold),
        rule=str(rule) or None,
        status=str(status),
        image_scores=dict(zip(map(str, names), map(float, scores), strict=True)),
    )


def read_scores(path: Path, scoring: str) -> tuple[FloatArray, BoolArray]:
    """Read the score map of an image under a scoring, and what of it is judged.

    Returns:
        float32 [size, size] and bool [size, size].

    Raises:
        EvaluationError: The file is missing or damaged.
    """
    names, scores, bits = read_arrays(path, "scorings", "scores", "judged")
    size = scores.shape[-1]
    judged = np.unpackbits(bits, count=size**2).view(np.bool_).reshape(size, size)
    return scores[names.tolist().index(scoring)], judged


def inspection_variant(
    bundle: Bundle, backend: str, parameters: MethodParameters, size: int, product: str
) -> str:
    """Digest all that an inspection depends on beside image, truth and the bundle's engines.

    Args:
        backend: `Session.backend`, with the version.
        size: Side at which scores are measured, px.
    """
    entry = bundle.manifest.products[product]
    settings = entry.settings
    return digest_of(
        backend,
        bundle.text_embeddings(product).tobytes(),
        bundle.reference_digest(product) or "",
        "" if settings is None else settings.digest,
        msgspec.json.encode([asdict(parameters), entry.threshold, size]),
    )


def inspection_bytes(size: int, refiner: Refiner) -> int:
    """Return the bytes of one inspection on disk."""
    return 4 * len(SCORINGS_OF_REFINER[refiner]) * size**2 + size**2 // 8 + 8192


def judged_area(view: FrameView | None, frame: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return what is judged of a frame, bool [H, W], in the pixels of the frame.

    Args:
        frame: Height and width, px.
    """
    if view is None or view.zones is None:
        return np.ones(frame, np.bool_)
    judged = view.zones.judged
    # Zones lie on the reference photo that a frame was aligned with.
    return judged if view.aligned is None else view.aligned.mask_in_frame(judged)


def map_at_size(values: FloatArray, size: int) -> FloatArray:
    """Bring a map that covers a frame to the size of the measurement, as `at_grid` does.

    Args:
        values: float32 [h, w].

    Returns:
        float32 [size, size]; the map itself if it has that size.
    """
    return values if values.shape == (size, size) else at_grid(values, (size, size))


def at_grid(values: FloatArray, grid: tuple[int, int]) -> FloatArray:
    """Resample a map that covers a frame to a grid that does.

    Areas of a finer map are averaged; a coarser one is interpolated bilinearly.

    Args:
        values: float32 [h, w].
        grid: Height and width.

    Returns:
        float32 of the grid's shape.
    """
    finer = values.shape[0] >= grid[0] and values.shape[1] >= grid[1]
    method = cv2.INTER_AREA if finer else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, grid[::-1], interpolation=method), np.float32)
