"""Checks of results: engine by engine and mask by mask, beside ONNX Runtime on the CPU in fp32."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.inspector import Inspector
from zeroflaw_benchmarks.verify.gpu_acceptance.checks import Frames, check_of
from zeroflaw_benchmarks.verify.gpu_acceptance.report import Check
from zeroflaw_engines.builder.differences import (
    cosine,
    largest_difference,
    mask_iou,
    norm_ratio,
    require_finite,
)
from zeroflaw_engines.builder.parity import MIN_COSINE as MIN_ENGINE_COSINE
from zeroflaw_engines.builder.parity import fixed_inputs
from zeroflaw_engines.errors import ComparisonError
from zeroflaw_engines.sessions.device_tensor import on_host

# fp16 against fp32 on the CPU; the same limits as the FP16 recipe's own proof.
MIN_MEAN_IOU: Final = 0.998
MIN_IOU: Final = 0.99
MIN_COSINE: Final = 0.9995
# A mask of 300 px misses an IoU of 0.99 by 4 px of its outline: so few are judged by their number.
MAX_STRAY_PIXELS: Final = 8
MIN_IOU_OF_FEW_PIXELS: Final = 0.95
# Of a single value in [0, 1], which has no direction, and of a norm, which a cosine does not see.
MAX_DIFFERENCE: Final = 0.01


def mask_parity(reference: Inspector, candidate: Inspector, frames: Frames, product: str) -> Check:
    """Compare masks, maps and scores with those of ONNX Runtime on the CPU in fp32."""
    name = "parity of masks"
    ious: list[float] = []
    judged: list[float] = []
    strays: list[int] = []
    cosines: list[float] = []
    flips = masks = 0
    for frame in frames:
        want = reference.inspect(frame, product=product)
        got = candidate.inspect(frame, product=product)
        try:
            iou = mask_iou(got.mask, want.mask)
            cosines.append(cosine(got.anomaly_map, want.anomaly_map, "anomaly map"))
            require_finite([got.image_score, want.image_score], "image scores")
        except ComparisonError as error:
            return check_of(name, str(error), passed=False)
        stray = int((got.mask != want.mask).sum())
        few = stray <= MAX_STRAY_PIXELS and iou >= MIN_IOU_OF_FEW_PIXELS
        ious.append(iou)
        judged.append(1.0 if few else iou)
        strays.append(stray)
        masks += bool(want.mask.any())
        flips += want.decision != got.decision
    if not masks:
        # Two empty masks have an IoU of 1, and an engine that finds nothing has them.
        detail = f"none of {len(ious)} frames has a mask: inspect frames with defects"
        return check_of(name, detail, passed=False)
    figures = {
        "frames": float(len(ious)),
        "frames with a mask": float(masks),
        "mask IoU, mean": float(np.mean(ious)),
        "mask IoU, least": min(ious),
        "mask pixels that differ, most": float(max(strays)),
        "anomaly map cosine, least": min(cosines),
        "decisions that differ": float(flips),
    }
    passed = (
        float(np.mean(judged)) >= MIN_MEAN_IOU
        and min(judged) >= MIN_IOU
        and figures["anomaly map cosine, least"] >= MIN_COSINE
        and flips == 0
    )
    return check_of(
        name,
        f"IoU {figures['mask IoU, mean']:.5f} mean and {figures['mask IoU, least']:.5f}"
        f" least, at most {max(strays)} pixels of a mask, over {len(ious)} frames, against"
        " onnxruntime on the CPU in fp32",
        figures,
        passed=passed,
    )


def engine_parity(
    reference: Inspector, candidate: Inspector, frames: Frames, product: str
) -> Check:
    """Compare what the engines themselves give: SAM's features, low-res logits, every output.

    `frame_resizer` must give the same bits, and has a check of its own, `resizer_parity`. An
    engine that only one of the two has fails: it would be compared with nothing.

    Each engine is run on the same fixed inputs, and SAM's encoder on the frames as well. The
    decoder gets the reference's features of each frame, so that its figures are its own. Masks
    say less: a threshold hides what changes far from it, and random weights are all outline.
    """
    name = "parity of engines"
    try:
        figures = _least(reference, candidate, frames, product)
    except ComparisonError as error:
        return check_of(name, str(error), passed=False)
    poor = [
        f"{what} {figure:.6f}, less than {limit}"
        for what, figure in figures.items()
        if figure < (limit := _limit(what))
    ]
    cosines = [figure for what, figure in figures.items() if what.endswith("cosine")]
    return check_of(
        name,
        "; ".join(poor)
        or f"cosines of all outputs at least {min(cosines):.6f}, against onnxruntime on the CPU in"
        " fp32",
        figures,
        passed=not poor,
    )


def _least(
    reference: Inspector, candidate: Inspector, frames: Frames, product: str
) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    by_name, candidates = (
        {session.contract.name: session for session in inspector.sessions.models}
        for inspector in (reference, candidate)
    )
    alone = sorted(by_name.keys() ^ candidates.keys())
    if alone:
        raise ComparisonError(
            f"{', '.join(alone)} was loaded on one side alone and compared with nothing",
            "build every engine of the bundle: `zeroflaw build` without `--engine`",
        )
    for engine, session in candidates.items():
        given = fixed_inputs(by_name[engine].contract)
        wanted = by_name[engine].execute(given)
        for output, value in session.execute(given).items():
            for what, figure in _agreement(f"{engine} {output}", value, wanted[output]).items():
                found[what].append(figure)
    decoder, other = reference.sessions.sam_decoder, candidate.sessions.sam_decoder
    if decoder is None or other is None:
        return {what: min(values) for what, values in found.items()}
    prompts = fixed_inputs(decoder.contract)
    for frame in frames:
        features = _features(reference, frame, product)
        seen = _features(candidate, frame, product)
        for what, figure in _agreement("frames' features", seen, features).items():
            found[what].append(figure)
        given = {**prompts, "features": features}
        want, got = decoder.execute(given), other.execute(given)
        for output in want:
            for what, figure in _agreement(f"frames' {output}", got[output], want[output]).items():
                found[what].append(figure)
    return {what: min(values) for what, values in found.items()}


def _agreement(what: str, got: Any, want: Any) -> dict[str, float]:  # noqa: ANN401 - any tensor
    """Return the figures of an output by name; the greater, the better, and 1 is the same."""
    if np.size(want) == 1:
        return {f"{what}, 1 - difference": 1 - largest_difference(got, want, what)}
    off = abs(norm_ratio(got, want, what) - 1)
    return {f"{what}, cosine": cosine(got, want, what), f"{what}, 1 - error of the norm": 1 - off}


def _limit(what: str) -> float:
    return MIN_ENGINE_COSINE if what.endswith("cosine") else 1 - MAX_DIFFERENCE


def _features(inspector: Inspector, frame: NDArray[Any], product: str) -> NDArray[Any]:
    features = inspector.encode_frame(frame, product=product).encoding.features
    if features is None:
        raise ComparisonError(
            "an Inspector left SAM's encoder out", "load it with the schedule side_by_side"
        )
    return on_host(features)
