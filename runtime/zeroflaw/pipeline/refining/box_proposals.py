"""Masks of proposed boxes, after SAA and SAA+ (arXiv 2305.10724): the best ones are averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.encoding.proposals import Proposals
from zeroflaw.pipeline.engine_outputs import require_written
from zeroflaw.pipeline.geometry import BoolArray, FloatArray, FrameGeometry
from zeroflaw.pipeline.masks.from_logits import (
    Box,
    MaskPart,
    Workspace,
    mask_at_frame,
    mask_at_map,
)
from zeroflaw.pipeline.refining.cascade import DecoderPrompts
from zeroflaw.pipeline.refining.decoder_call import decoder_of, features_on_host
from zeroflaw.pipeline.refining.refinement import Findings, RefinerEngines
from zeroflaw.pipeline.refining.saliency import at_frame, saliency_map
from zeroflaw.pipeline.trace import KeptProposal, Status, Trace
from zeroflaw_engines.contract import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_UNUSED,
    SAM_DECODER,
    EngineSizes,
)
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor

# Of exp(3 * saliency), SAA/model.py: rescore.
_SALIENCY_WEIGHT: Final = 3.0
_SINGLE_MASK_TOKEN: Final = 0
# Most boxes of one call: the engines of `zeroflaw build` take as many by default.
_BOXES_AT_ONCE: Final = 16

# Prompts in; float32 [L, L], the logits of each prompt's single-mask token, out.
DecodeSingle = Callable[[DecoderPrompts], Sequence[FloatArray]]


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A box with its mask at the frame's size, cut to what is judged."""

    kept: KeptProposal
    low_res_logits: FloatArray
    mask: MaskPart


@dataclass(frozen=True, eq=False)
class ProposedMasks:
    """What the boxes of a frame gave.

    Attributes:
        mask: bool [H, W]: the union of the masks that were kept.
        mask_box: Its `inclusive_box`; None if it is empty.
        score_map: float32 [S, S] in [0, 1], on the grid of the anomaly map.
        status: `no_region` if no box stands, `stage_1_empty` if SAM found nothing in any.
        kept: By descending score.
    """

    mask: BoolArray
    mask_box: Box | None
    score_map: FloatArray
    status: Status
    kept: tuple[KeptProposal, ...]

    def findings(
        self,
        encoding: Encoding,  # noqa: ARG002 - as those of other refiners
        parameters: MethodParameters,  # noqa: ARG002
        workspace: Workspace | None = None,  # noqa: ARG002
    ) -> Findings:
        """Say what was found on the frame that the encoders saw."""
        return Findings(self.mask, self.mask_box, self.score_map, self.status)

    def trace(self, encoding: Encoding) -> Trace:
        """Say how the mask came about from an encoding."""
        return Trace(
            points=None,
            stages=(),
            kept_stage=0,
            zero_shot_map=encoding.zero_shot_map,
            reference_map=encoding.reference_map,
            proposals=self.kept,
        )


def refine_by_box_proposals(
    encoding: Encoding, parameters: MethodParameters, engines: RefinerEngines
) -> ProposedMasks:
    """Refine by the boxes of the proposer; see `masks_of_proposals`.

    Raises:
        EngineError: The frame was encoded without the proposer, an engine failed, or it returned
            values that are not finite.
    """
    proposals, features = encoding.proposals, encoding.features
    if proposals is None:
        raise EngineError(
            "the frame was encoded without its boxes, and the refiner is box_proposals",
            "encode it with the same method parameters, by an Inspector of the bundle",
        )
    if features is None:
        return _nothing(encoding, "no_region")
    features_on_host(features)
    assert engines.sam_decoder is not None  # noqa: S101 - loaded for this refiner
    call = decoder_of(engines.sam_decoder, features, engines.watch, numbered=False)

    def decode(prompts: DecoderPrompts) -> Sequence[FloatArray]:
        logits, _ = call(prompts)
        return [_single_mask(logits, number) for number in range(len(prompts.point_labels))]

    with engines.watch.stage("proposals"):
        return masks_of_proposals(
            decode,
            encoding,
            proposals,
            parameters,
            sizes=engines.sizes,
            workspace=engines.workspace,
        )


def masks_of_proposals(
    decode: DecodeSingle,
    encoding: Encoding,
    proposals: Proposals,
    parameters: MethodParameters,
    *,
    sizes: EngineSizes,
    workspace: Workspace | None = None,
) -> ProposedMasks:
    """Prompt SAM with each box that stands, and average the masks of highest score.

    The score s of a box becomes s * exp(3 * (m - 1)), m the mean saliency over its mask: SAA's
    exp(3 * m), divided by its largest value, exp(3), so that it is in [0, 1] on every frame. The
    `proposal_masks` best are kept, and the score map is the sum of mask * score, divided by 1 +
    the sum of masks (SAA/model.py, rescore and confidence_prompting). An empty mask is not kept.

    Boxes are decoded by descending score, and not all of them: once enough masks are kept, those
    whose score could not pass the lowest of these, whatever their mask, are left out.

    Args:
        decode: Runs SAM's decoder.
        parameters: `proposal_masks`, and those of `standing` and `saliency_map`.
        workspace: Memory to use again.
    """
    geometry = encoding.geometry
    numbers = proposals.standing(parameters)
    if not len(numbers):
        return _nothing(encoding, "no_region")
    saliency = saliency_map(encoding, proposals, parameters)
    highest = 1.0 if saliency is None else _weight(float(saliency.max()))
    of_frame = None if saliency is None else at_frame(saliency, geometry.frame, workspace)
    most = parameters.proposal_masks
    step = min(most, _BOXES_AT_ONCE)
    best: list[_Candidate] = []
    for start in range(0, len(numbers), step):
        batch = numbers[start : start + step].tolist()
        bound = float(proposals.found.scores[batch[0]]) * highest
        if len(best) == most and best[-1].kept.score >= bound:
            break
        prompts = box_prompts(proposals.found.boxes[batch], geometry, sizes)
        for number, logits in zip(batch, decode(prompts), strict=True):
            one = _candidate(
                number, logits, proposals, geometry, saliency=of_frame, workspace=workspace
            )
            if one is not None:
                best.append(one)
        best = sorted(best, key=lambda one: -one.kept.score)[:most]
    if not best:
        return _nothing(encoding, "stage_1_empty")
    return _averaged(best, encoding, proposals, workspace)


def box_prompts(boxes: FloatArray, geometry: FrameGeometry, sizes: EngineSizes) -> DecoderPrompts:
    """Lay boxes out as the decoder takes them: a prompt each, of its two corners alone.

    SAM appends no not-a-point row to a box (prompt_encoder.py). A corner lies in SAM's image
    where it lies in the frame, in shares of the content (SAA/model.py, region_refine).

    Args:
        boxes: float32 [B, 4], shares of the frame.
    """
    batch, low = len(boxes), sizes.low_res_size
    height, width = geometry.sam_content
    coords = np.zeros((batch, sizes.max_prompts, 2), np.float32)
    labels = np.full((batch, sizes.max_prompts), LABEL_UNUSED, np.int32)
    coords[:, :2] = boxes.reshape(batch, 2, 2) * np.array((width, height), np.float32)
    labels[:, :2] = (LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT)
    return DecoderPrompts(
        coords, labels, np.zeros((batch, 1, low, low), np.float32), np.zeros(batch, np.float32)
    )


def _single_mask(logits: FloatArray | DeviceTensor, number: int) -> FloatArray:
    """Take the logits of a prompt's single-mask token; of those on a device, these alone."""
    if isinstance(logits, np.ndarray):
        one: FloatArray = logits[number, _SINGLE_MASK_TOKEN]
    else:
        grid = tuple(logits.shape[2:])
        one = logits.view((number, _SINGLE_MASK_TOKEN), (1, 1, *grid)).numpy()[0, 0]
    require_written(SAM_DECODER, "low_res_logits", one)
    return one


def _candidate(
    number: int,
    low_res_logits: FloatArray,
    proposals: Proposals,
    geometry: FrameGeometry,
    *,
    saliency: FloatArray | None,
    workspace: Workspace | None,
) -> _Candidate | None:
    """Weigh a box by its mask; None if the mask has no judged pixel."""
    mask = mask_at_frame(low_res_logits, geometry, workspace)
    if proposals.zones is not None:
        judged = proposals.zones.judged[mask.rows, mask.columns]
        mask = MaskPart(mask.pixels & judged, mask.rows, mask.columns, mask.size)
    if mask.box is None:
        return None
    mean = None
    if saliency is not None:
        mean = float(saliency[mask.rows, mask.columns][mask.pixels].mean(dtype=np.float64))
    box_score = float(proposals.found.scores[number])
    kept = KeptProposal(
        box=proposals.in_pixels(number),
        box_score=box_score,
        saliency=mean,
        score=box_score * (1.0 if mean is None else _weight(mean)),
    )
    return _Candidate(kept, low_res_logits, mask)


def _weight(saliency: float) -> float:
    """Return what a score is multiplied by, in [exp(-3), 1]."""
    return math.exp(_SALIENCY_WEIGHT * (saliency - 1))


def _averaged(
    best: Sequence[_Candidate],
    encoding: Encoding,
    proposals: Proposals,
    workspace: Workspace | None,
) -> ProposedMasks:
    geometry, size = encoding.geometry, encoding.anomaly_map.shape
    union = np.zeros(geometry.frame, np.bool_)
    scores, masks = np.zeros(size, np.float32), np.ones(size, np.float32)
    for one in best:
        part = union[one.mask.rows, one.mask.columns]
        np.logical_or(part, one.mask.pixels, out=part)
        at_map = mask_at_map(one.low_res_logits, geometry, (size[0], size[1]), workspace)
        scores[at_map.rows, at_map.columns] += np.float32(one.kept.score) * at_map.pixels
        masks[at_map.rows, at_map.columns] += at_map.pixels
    scores /= masks
    if proposals.zones is not None:
        scores *= proposals.zones.at_map(size)
    x0, y0, x1, y1 = zip(*(one.mask.box for one in best if one.mask.box), strict=True)
    return ProposedMasks(
        mask=union,
        mask_box=(min(x0), min(y0), max(x1), max(y1)),
        score_map=scores,
        status="ok",
        kept=tuple(one.kept for one in best),
    )


def _nothing(encoding: Encoding, status: Status) -> ProposedMasks:
    return ProposedMasks(
        mask=np.zeros(encoding.geometry.frame, np.bool_),
        mask_box=None,
        score_map=np.zeros_like(encoding.anomaly_map),
        status=status,
        kept=(),
    )
