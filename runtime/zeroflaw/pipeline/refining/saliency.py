"""How unlike the rest of its frame a patch is: the saliency of SAA+ (arXiv 2305.10724)."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.encoding.proposals import Proposals
from zeroflaw.pipeline.engine_outputs import require_finite
from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw_engines.contract import CLIP_ENCODER, PATCH_TOKENS
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import on_host

# Of the lengths of tokens, which some backends round to eight bits.
_LENGTH_TOLERANCE: Final = 0.05


def saliency_map(
    encoding: Encoding, proposals: Proposals, parameters: MethodParameters
) -> FloatArray | None:
    """Return what masks are weighed by, on a grid that covers the frame.

    Args:
        parameters: `proposal_saliency` and `saliency_neighbours`.

    Returns:
        float32 [h, w] in [0, 1]: the anomaly map, or the self-dissimilarity of the patch tokens;
        None: all masks weigh the same.

    Raises:
        EngineError: The CLIP encoder gives no patch tokens, or such that are not finite or not
            L2-normalised.
    """
    if parameters.proposal_saliency == "none":
        return None
    if parameters.proposal_saliency == "anomaly_map":
        return encoding.anomaly_map
    if proposals.patch_tokens is None:
        raise EngineError(
            f"the {CLIP_ENCODER} of this bundle gives no {PATCH_TOKENS}, which the saliency is of",
            "set proposal_saliency to anomaly_map or none, or export the bundle again",
        )
    tokens: FloatArray = on_host(proposals.patch_tokens)
    require_finite(CLIP_ENCODER, PATCH_TOKENS, tokens)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(tokens, axis=-1)
    if np.abs(lengths - 1).max() > _LENGTH_TOLERANCE:
        raise EngineError(
            f"{CLIP_ENCODER} returned {PATCH_TOKENS} of lengths from {lengths.min():g} to"
            f" {lengths.max():g}, where all are 1",
            "inspect the frame again; if it happens again, try another --backend or --precision",
        )
    side = round(tokens.shape[1] ** 0.5)
    zones = proposals.zones
    judged = None if zones is None else zones.at_map((side, side)).ravel()
    return self_dissimilarity(tokens, parameters.saliency_neighbours, judged)


def self_dissimilarity(
    tokens: FloatArray, neighbours: int, judged: BoolArray | None = None
) -> FloatArray:
    """Return how unlike the least similar others each patch of a frame is.

    d(i, j) = (1 - cos(i, j)) / 2, of the tokens of all blocks as one vector: the cosine is the mean
    over the blocks of their cosines, as SAA+ has it of the levels of its network. A patch has the
    mean of its N largest d (SAA/model.py, single_object_similarity).

    Args:
        tokens: float32 [blocks, tokens, width], L2-normalised, row by row of a square grid.
        neighbours: N; of fewer patches all, itself among them.
        judged: bool [tokens], True somewhere: the patches that others are compared with.

    Returns:
        float32 [side, side] in [0, 1].
    """
    blocks, count, _ = tokens.shape
    others = tokens if judged is None else tokens[:, judged]
    cosines = np.zeros((count, others.shape[1]), np.float32)
    for block, rows in zip(tokens, others, strict=True):
        cosines += block @ rows.T
    unlike = np.clip((1 - cosines / np.float32(blocks)) / 2, 0, 1)
    first = max(0, unlike.shape[1] - neighbours)
    largest = np.partition(unlike, first, axis=1)[:, first:]
    side = round(count**0.5)
    saliency: FloatArray = largest.mean(axis=1, dtype=np.float64).astype(np.float32)
    return saliency.reshape(side, side)


def at_frame(
    values: FloatArray, size: tuple[int, int], workspace: Workspace | None = None
) -> FloatArray:
    """Resize a map bilinearly to a frame, as SAA does.

    Args:
        values: float32 [h, w].
        size: Height and width of the frame, px.
        workspace: Memory to use again: the result holds until its next use.

    Returns:
        float32 of that size.
    """
    out = None if workspace is None else workspace.float32("saliency", size)
    return cv2.resize(values, size[::-1], dst=out, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
