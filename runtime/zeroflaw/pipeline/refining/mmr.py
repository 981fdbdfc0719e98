"""Multi-level Mask Refinement, MMR (Li et al., ClipSAM, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.engine_outputs import require_written
from zeroflaw.pipeline.geometry import BoolArray, FloatArray, FrameGeometry, grid_to_frame
from zeroflaw.pipeline.masks.from_logits import (
    Box,
    MaskPart,
    Workspace,
    inclusive_box,
    logits_at,
    logits_at_sam,
    mask_at_frame,
    mask_at_map,
)
from zeroflaw.pipeline.masks.of_map import region_at_frame
from zeroflaw.pipeline.refining.cascade import (
    MAX_COMPONENTS,
    MULTIMASK_TOKENS,
    Stage,
    decoder_prompts,
)
from zeroflaw.pipeline.refining.decoder_call import decoder_of, features_on_host
from zeroflaw.pipeline.refining.prompt_points import PointPrompts
from zeroflaw.pipeline.refining.refinement import (
    Findings,
    FoundMask,
    LogitsReader,
    RefinerEngines,
)
from zeroflaw.pipeline.scoring import probability_of
from zeroflaw.pipeline.trace import Trace
from zeroflaw_engines.contract import LABEL_POSITIVE, SAM_DECODER
from zeroflaw_engines.errors import ParametersError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import on_host

# Of a box; Eq. 9 is largest where one component alone lies, and each of its masks has an IoU of 1.
_MASKS_OF_BOX = 3


@dataclass(frozen=True)
class MmrPrompts:
    """What SAM is prompted by.

    Attributes:
        points: Positive points alone, in frame pixels, and the foreground on the map's grid.
        boxes: Inclusive (x0, y0, x1, y1) in frame pixels, one for each component of the
            foreground, the largest first.
    """

    points: PointPrompts
    boxes: tuple[Box, ...]


@dataclass(frozen=True, eq=False)
class BoxMasks:
    """The three masks of one box.

    Attributes:
        low_res_logits: float32 [3, L, L].
        scores: float32 [3], predicted IoUs, clipped to [0, 1].
        best: Index of the mask of the highest predicted IoU.
    """

    low_res_logits: FloatArray
    scores: FloatArray
    best: int


@dataclass(frozen=True, eq=False)
class Mmr:
    """What MMR made of an encoding.

    Attributes:
        prompts: None if no pixel is foreground.
        masks: Of each box.
        found: None if no pixel is foreground.
        stage: The call of the decoder, for those who look.
    """

    prompts: MmrPrompts | None
    masks: tuple[BoxMasks, ...] = ()
    found: FoundMask | None = None
    stage: Stage | None = None

    def findings(
        self, encoding: Encoding, parameters: MethodParameters, workspace: Workspace | None = None
    ) -> Findings:
        """Say what was found on the frame that the encoders saw."""
        anomaly_map, geometry = encoding.anomaly_map, encoding.geometry
        size = anomaly_map.shape[0], anomaly_map.shape[1]
        reader = LogitsReader(
            lambda low_res: logits_at(logits_at_sam(low_res, geometry), size),
            lambda low_res: mask_at_map(low_res, geometry, size, workspace),
        )
        scores = join_mmr_scores(anomaly_map, self.scores_of_masks(reader, parameters), parameters)
        if self.found is None:
            return Findings(np.zeros(geometry.frame, np.bool_), None, scores, "no_region")
        return Findings(self.found.mask, self.found.mask_box, scores, self.found.status)

    def scores_of_masks(
        self, reader: LogitsReader, parameters: MethodParameters
    ) -> FloatArray | None:
        """Return what the masks add to the score map: with `fused`, the sum of Eq. 9.

        Returns:
            float32 of the reader's grid; None if there are no masks, or they add nothing.
        """
        if not self.masks or parameters.scoring == "map":
            return None
        if parameters.scoring == "sam_probability":
            best = [reader.logits(one.low_res_logits[one.best]) for one in self.masks]
            return probability_of(np.maximum.reduce(best))
        if parameters.scoring == "mask":
            parts = [_mask_of_box(one, reader.mask, parameters) for one in self.masks]
            return _united(parts).astype(np.float32)
        total: FloatArray | None = None
        for one in self.masks:
            for low_res, score in zip(one.low_res_logits, one.scores, strict=True):
                part = reader.mask(low_res)
                if total is None:
                    total = np.zeros(part.size, np.float32)
                total[part.rows, part.columns] += score * part.pixels
        return total

    def trace(self, encoding: Encoding) -> Trace:
        """Say how the mask came about from an encoding."""
        stages = () if self.stage is None else (self.stage,)
        return Trace(
            points=None if self.prompts is None else self.prompts.points,
            stages=stages,
            kept_stage=sum(not stage.empty for stage in stages),
            zero_shot_map=encoding.zero_shot_map,
            reference_map=encoding.reference_map,
        )


def refine_by_mmr(encoding: Encoding, parameters: MethodParameters, engines: RefinerEngines) -> Mmr:
    """Refine by MMR: points and boxes of the map's foreground, and one call of the decoder.

    Raises:
        EngineError: The decoder failed, or an engine returned values that are not finite.
        ParametersError: The decoder takes fewer points.
    """
    features, watch, geometry = encoding.features, engines.watch, encoding.geometry
    if features is None:
        return Mmr(None)
    with watch.stage("prompt_points"):
        features_on_host(features)
        prompts = mmr_prompts(encoding.anomaly_map, geometry, parameters)
    if prompts is None:
        return Mmr(None)
    _require_rows(prompts, engines.sizes.max_prompts)
    assert engines.sam_decoder is not None  # noqa: S101 - loaded for this refiner
    logits, predicted_iou = decoder_of(engines.sam_decoder, features, watch)(
        decoder_prompts(
            prompts.points,
            prompts.boxes,
            None,
            geometry,
            max_prompts=engines.sizes.max_prompts,
            low_res_size=engines.sizes.low_res_size,
        )
    )
    with watch.stage("mask"):
        values = on_host(logits)[:, MULTIMASK_TOKENS]
        for mask_logits in values.reshape(-1, *values.shape[2:]):
            require_written(SAM_DECODER, "low_res_logits", mask_logits)
        masks = tuple(
            BoxMasks(low_res, np.clip(scores, 0, 1), int(scores.argmax()))
            for low_res, scores in zip(values, predicted_iou[:, MULTIMASK_TOKENS], strict=True)
        )
        at_frame = partial(mask_at_frame, geometry=geometry, workspace=engines.workspace)
        mask = _united([_mask_of_box(one, at_frame, parameters) for one in masks])
        box = inclusive_box(mask)
        if box is None:
            mask = region_at_frame(prompts.points.extreme_region, geometry.frame)
    stage = Stage(
        low_res_logits=np.maximum.reduce([one.low_res_logits[one.best] for one in masks]),
        predicted_iou=predicted_iou,
        chosen=tuple(MULTIMASK_TOKENS.start + one.best for one in masks),
        boxes=prompts.boxes,
        empty=box is None,
    )
    status = FoundMask(mask, box, "stage_1_empty" if box is None else "ok")
    return Mmr(prompts, masks, status, stage)


def mmr_prompts(
    anomaly_map: FloatArray, geometry: FrameGeometry, parameters: MethodParameters
) -> MmrPrompts | None:
    """Return the points and boxes of the foreground of a map (Eq. 7 and the text after it).

    The foreground's components are 8-connected. Each of the 16 largest gets a box: all frame
    pixels that its pixels of the map touch. The points are drawn from all of the foreground,
    without putting any back; no value outside of the foreground has a part in them.

    Args:
        anomaly_map: float32 [S, S] in [0, 1].
        parameters: `mmr_threshold`, `mmr_points`, `mmr_seed` and `no_region`.

    Returns:
        None if no pixel is foreground and `no_region` is `skip`.
    """
    region = anomaly_map > parameters.mmr_threshold
    from_region = bool(region.any())
    if not from_region:
        if parameters.no_region == "skip":
            return None
        region.flat[int(anomaly_map.argmax())] = True
    _, _, stats, _ = cv2.connectedComponentsWithStats(region.view(np.uint8), connectivity=8)
    # Ties in the order of rows, whatever the order in which OpenCV's threads number them.
    largest = sorted(
        stats[1:].tolist(),
        key=lambda s: (-s[cv2.CC_STAT_AREA], s[cv2.CC_STAT_TOP], s[cv2.CC_STAT_LEFT], s),
    )[:MAX_COMPONENTS]
    pixels = np.flatnonzero(region)
    chosen = pixels[drawn(len(pixels), parameters.mmr_points, parameters.mmr_seed)]
    coords = np.stack([chosen % region.shape[1], chosen // region.shape[1]], axis=1)
    shape = region.shape[0], region.shape[1]
    points = PointPrompts(
        coords=grid_to_frame(coords, shape, geometry),
        labels=np.full(len(chosen), LABEL_POSITIVE, np.int32),
        extreme_region=region,
        from_region=from_region,
    )
    return MmrPrompts(points, tuple(_box_in_frame(s, shape, geometry.frame) for s in largest))


def drawn(count: int, wanted: int, seed: int) -> list[int]:
    """Draw different numbers below a count at random, the same ones on every machine.

    They come from PCG64's own stream, which NumPy keeps as it is, and not from its distributions.

    Args:
        wanted: How many; fewer if there are fewer.
        seed: 0 to 2^32 - 1.
    """
    wanted = min(wanted, count)
    numbers: dict[int, int] = {}
    found = []
    # Fisher and Yates, from the front: what was swapped away from its place is in `numbers`.
    for at, raw in enumerate(np.random.PCG64(seed).random_raw(wanted).tolist()):
        other = at + raw % (count - at)
        found.append(numbers.get(other, other))
        numbers[other] = numbers.get(at, at)
    return found


def join_mmr_scores(
    anomaly_map: FloatArray, of_masks: FloatArray | None, parameters: MethodParameters
) -> FloatArray:
    """Return the score map: with `fused`, O_final of Eq. 9.

    Args:
        anomaly_map: float32 [h, w] in [0, 1], O.
        of_masks: float32 [h, w], `scores_of_masks`; None if there are no masks.
        parameters: `scoring`, `mmr_weight` and `mmr_normalisation`.

    Returns:
        float32 [h, w] in [0, 1].
    """
    if parameters.scoring == "map":
        return anomaly_map
    if parameters.scoring != "fused":
        return np.zeros_like(anomaly_map) if of_masks is None else of_masks
    weight = parameters.mmr_weight
    total = anomaly_map if of_masks is None else anomaly_map + np.float32(weight) * of_masks
    if parameters.mmr_normalisation == "fixed":
        largest_sum = np.float32(1 + _MASKS_OF_BOX * weight)
        fixed: FloatArray = np.minimum(total / largest_sum, np.float32(1))
        return fixed
    least, largest = total.min(), total.max()
    if not largest > least:
        return np.zeros_like(total)
    stretched: FloatArray = (total - least) / (largest - least)
    return stretched


def _require_rows(prompts: MmrPrompts, rows: int) -> None:
    points = len(prompts.points.labels)
    if points + 2 > rows:
        raise ParametersError(
            f"mmr_points gives {points} points beside a box's two corners, and the decoder of the"
            f" bundle takes {rows} rows",
            f"set mmr_points to at most {rows - 2}",
        )


def _box_in_frame(stats: list[int], grid: tuple[int, int], frame: tuple[int, int]) -> Box:
    """Return all frame pixels that a component's box on the map's grid touches."""
    left, top, width, height = stats[:4]
    x0, y0 = left * frame[1] // grid[1], top * frame[0] // grid[0]
    x1 = -(-(left + width) * frame[1] // grid[1]) - 1
    y1 = -(-(top + height) * frame[0] // grid[0]) - 1
    return x0, y0, x1, y1


def _mask_of_box(
    masks: BoxMasks, mask_of: Callable[[FloatArray], MaskPart], parameters: MethodParameters
) -> MaskPart:
    """Return the mask of a box: its best of three, or where they outvote the rest.

    Args:
        mask_of: Gives the mask of low-res logits, float32 [L, L].
        parameters: `mmr_mask`.
    """
    if parameters.mmr_mask == "best":
        return mask_of(masks.low_res_logits[masks.best])
    parts = [mask_of(low_res) for low_res in masks.low_res_logits]
    rows = slice(min(p.rows.start for p in parts), max(p.rows.stop for p in parts))
    columns = slice(min(p.columns.start for p in parts), max(p.columns.stop for p in parts))
    votes = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    for part, score in zip(parts, masks.scores, strict=True):
        top, left = part.rows.start - rows.start, part.columns.start - columns.start
        height, width = part.pixels.shape
        votes[top : top + height, left : left + width] += score * part.pixels
    return MaskPart(votes > masks.scores.sum() / 2, rows, columns, parts[0].size)


def _united(parts: Sequence[MaskPart]) -> BoolArray:
    """Return the union of masks of one size, bool [h, w]."""
    united = np.zeros(parts[0].size, np.bool_)
    for part in parts:
        united[part.rows, part.columns] |= part.pixels
    return united
