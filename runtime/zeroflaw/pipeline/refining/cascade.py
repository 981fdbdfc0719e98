"""Cascaded Prompts for SAM, CPS: three decoder calls, each prompted by the last (section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.engine_outputs import require_written
from zeroflaw.pipeline.geometry import BoolArray, FloatArray, FrameGeometry, frame_to_sam
from zeroflaw.pipeline.masks.from_logits import (
    Box,
    MaskPart,
    Workspace,
    has_content,
    logits_at_sam,
    mask_at_frame,
)
from zeroflaw.pipeline.masks.of_map import region_at_frame
from zeroflaw.pipeline.refining.prompt_points import PointPrompts
from zeroflaw_engines.contract import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_NOT_A_POINT,
    LABEL_UNUSED,
    SAM_DECODER,
)
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor

_SINGLE_MASK_TOKEN: Final = 0
MULTIMASK_TOKENS: Final = slice(1, 4)
# Prompts of one call at most: built engines take no more.
MAX_COMPONENTS: Final = 16
_THIN: Final = 32  # px


@dataclass(frozen=True)
class DecoderPrompts:
    """One call of the decoder: B prompts on one image.

    Attributes:
        point_coords: float32 [B, N, 2], (x, y) in SAM's image.
        point_labels: int32 [B, N].
        mask_input: float32 [B, 1, L, L]; where the decoder left it, if it can be taken from there.
        has_mask_input: float32 [B].
    """

    point_coords: FloatArray
    point_labels: NDArray[np.int32]
    mask_input: FloatArray | DeviceTensor
    has_mask_input: FloatArray


# Prompts in; low-res logits [B, 4, L, L] and predicted IoUs [B, 4] out.
Decode = Callable[[DecoderPrompts], tuple[FloatArray | DeviceTensor, FloatArray]]


@dataclass(frozen=True)
class Stage:
    """One stage of the cascade.

    Attributes:
        low_res_logits: float32 [L, L], of the mask that was chosen.
        predicted_iou: float32 [B, 4], all that the decoder gave.
        chosen: Token of the chosen mask, one for each prompt of the batch.
        boxes: Inclusive (x0, y0, x1, y1) in frame pixels that prompted the stage.
        empty: Whether the chosen mask has no pixel.
    """

    low_res_logits: FloatArray
    predicted_iou: FloatArray
    chosen: tuple[int, ...]
    boxes: tuple[Box, ...]
    empty: bool


@dataclass(frozen=True, eq=False)
class Cascade:
    """What the cascade gave.

    Attributes:
        mask: bool [H, W] at the frame's size.
        mask_box: `inclusive_box` of the mask; None if nobody has looked.
        low_res_logits: float32 [L, L], of the kept stage; None if there is none.
        geometry: The frame's grids.
        predicted_iou: Of the kept stage's mask, as the decoder gave it.
        kept_stage: 1 to 3, the last stage whose mask is not empty; 0 if there is none.
        status: `ok`, or which stage came out empty.
        stages: Those that ran.
    """

    mask: BoolArray
    mask_box: Box | None
    low_res_logits: FloatArray | None
    geometry: FrameGeometry
    predicted_iou: float
    kept_stage: int
    status: Literal["ok", "stage_1_empty", "stage_2_empty", "stage_3_empty"]
    stages: tuple[Stage, ...]

    @cached_property
    def content_logits(self) -> FloatArray | None:
        """float32 [h, w], logits of the kept stage over SAM's content; None if there is none."""
        if self.low_res_logits is None:
            return None
        return logits_at_sam(self.low_res_logits, self.geometry)


def run_cascade(
    decode: Decode,
    points: PointPrompts,
    geometry: FrameGeometry,
    parameters: MethodParameters,
    *,
    max_prompts: int,
    low_res_size: int,
    workspace: Workspace | None = None,
) -> Cascade:
    """Run the cascade: points; points and logits; points, box and logits (Eq. 9 to 12).

    A stage whose mask is empty ends the cascade: the last mask that is not empty is kept, and
    the extreme region itself if stage 1 is already empty; the status says so.

    Args:
        points: From `point_prompts`.
        max_prompts: Rows of the decoder's point input.
        low_res_size: Side of the decoder's logits.
        workspace: Memory to use again.

    Returns:
        The mask and how it came about.
    """
    workspace = workspace or Workspace()
    stages: list[Stage] = []
    scores: list[float] = []
    masks: dict[int, MaskPart] = {}
    boxes: tuple[Box, ...] = ()
    on_device: DeviceTensor | None = None
    for number in range(1, parameters.cascade_stages + 1):
        prompts = decoder_prompts(
            points,
            boxes,
            stages[-1].low_res_logits if stages else None,
            geometry,
            max_prompts=max_prompts,
            low_res_size=low_res_size,
            on_device=on_device,
        )
        logits, predicted_iou = decode(prompts)
        chosen, best, score, on_device = _choose(
            logits, predicted_iou, single=number == 1 and parameters.stage1_mask == "single"
        )
        # The mask at the frame's size is needed where a box is read off it, and at the end.
        if number in {2, parameters.cascade_stages} or _must_judge_at_frame(geometry):
            masks[number] = mask_at_frame(best, geometry, workspace)
            empty = masks[number].box is None
        else:
            empty = not has_content(best, geometry)
        stages.append(Stage(best, predicted_iou, chosen, boxes, empty))
        scores.append(score)
        if empty:
            break
        if number == 2:
            boxes = location(masks[number], parameters)

    kept = len(stages) - stages[-1].empty
    if kept and kept not in masks:
        masks[kept] = mask_at_frame(stages[kept - 1].low_res_logits, geometry, workspace)
    if not kept or masks[kept].box is None:
        return Cascade(
            mask=region_at_frame(points.extreme_region, geometry.frame),
            mask_box=None,
            low_res_logits=None,
            geometry=geometry,
            predicted_iou=0.0,
            kept_stage=0,
            status="stage_1_empty",
            stages=tuple(stages),
        )
    return Cascade(
        mask=masks[kept].whole(),
        mask_box=masks[kept].box,
        low_res_logits=stages[kept - 1].low_res_logits,
        geometry=geometry,
        predicted_iou=scores[kept - 1],
        kept_stage=kept,
        status="ok" if kept == len(stages) else _EMPTY[len(stages)],
        stages=tuple(stages),
    )


_EMPTY: Final[dict[int, Literal["stage_2_empty", "stage_3_empty"]]] = {
    2: "stage_2_empty",
    3: "stage_3_empty",
}


def _must_judge_at_frame(geometry: FrameGeometry) -> bool:
    """Return whether SAM's image may have content that the frame, coarser or thin, does not."""
    (height, width), (rows, columns) = geometry.frame, geometry.sam_content
    return height < rows or width < columns or min(height, width) < _THIN


def location(mask: MaskPart, parameters: MethodParameters) -> tuple[Box, ...]:
    """Return F_location (Eq. 11): the box, or boxes, of a mask.

    Args:
        parameters: `box` chooses one box over all of it, or one for each of its components
            (the 16 largest).

    Returns:
        Inclusive (x0, y0, x1, y1) in frame pixels.
    """
    if mask.box is None:
        return ()
    if parameters.box == "union":
        return (mask.box,)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.pixels.view(np.uint8))
    largest = sorted(stats[1:].tolist(), key=lambda s: -s[cv2.CC_STAT_AREA])[:MAX_COMPONENTS]
    left, top = mask.columns.start, mask.rows.start
    return tuple(
        (left + x, top + y, left + x + w - 1, top + y + h - 1) for x, y, w, h, _ in largest
    )


def decoder_prompts(
    points: PointPrompts,
    boxes: tuple[Box, ...],
    low_res_logits: FloatArray | None,
    geometry: FrameGeometry,
    *,
    max_prompts: int,
    low_res_size: int,
    on_device: DeviceTensor | None = None,
) -> DecoderPrompts:
    """Lay points, boxes and logits out as the decoder takes them.

    Without a box, SAM appends one not-a-point row (prompt_encoder.py:73-100); with a box, none.

    Args:
        points: Points in frame pixels.
        boxes: One prompt for each box, all with the same points; none for a prompt without box.
        low_res_logits: float32 [L, L] of the stage before, or None.
        max_prompts: Rows of the decoder's point input.
        low_res_size: L.
        on_device: float32 [1, 1, L, L], the same logits where the decoder left them; taken from
            there if there is one prompt.
    """
    count, batch = len(points.labels), max(1, len(boxes))
    coords = np.zeros((batch, max_prompts, 2), np.float32)
    labels = np.full((batch, max_prompts), LABEL_UNUSED, np.int32)
    coords[:, :count] = frame_to_sam(points.coords, geometry)
    labels[:, :count] = points.labels
    if boxes:
        corners = np.array(boxes, np.float32).reshape(-1, 2)
        coords[:, count : count + 2] = frame_to_sam(corners, geometry).reshape(-1, 2, 2)
        labels[:, count : count + 2] = (LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT)
    else:
        labels[:, count] = LABEL_NOT_A_POINT
    has_mask = np.full(batch, low_res_logits is not None, np.float32)
    if on_device is not None and batch == 1:
        return DecoderPrompts(coords, labels, on_device, has_mask)
    mask_input = np.zeros((batch, 1, low_res_size, low_res_size), np.float32)
    if low_res_logits is not None:
        mask_input[:] = low_res_logits
    return DecoderPrompts(coords, labels, mask_input, has_mask)


def _choose(
    logits: FloatArray | DeviceTensor, predicted_iou: FloatArray, *, single: bool
) -> tuple[tuple[int, ...], FloatArray, float, DeviceTensor | None]:
    """Return the best mask of each prompt, and their union: a logit is positive where any is.

    Of the logits, the best alone come to the host. With them comes where the best of a single
    prompt lies, [1, 1, L, L], if the decoder left it on its device.
    """
    prompts, _, *grid = logits.shape
    if single:
        tokens = [_SINGLE_MASK_TOKEN] * prompts
    else:
        tokens = [1 + int(row[MULTIMASK_TOKENS].argmax()) for row in predicted_iou]
    on_device = None
    if isinstance(logits, np.ndarray):
        picked = [logits[i, token] for i, token in enumerate(tokens)]
    else:
        parts = [logits.view((i, token), (1, 1, *grid)) for i, token in enumerate(tokens)]
        picked = [part.numpy()[0, 0] for part in parts]
        on_device = parts[0] if prompts == 1 else None
    for values in picked:
        require_written(SAM_DECODER, "low_res_logits", values)
    best = picked[0] if len(picked) == 1 else np.maximum.reduce(picked)
    score = float(np.mean([predicted_iou[i, token] for i, token in enumerate(tokens)]))
    return tuple(tokens), best, score, on_device
