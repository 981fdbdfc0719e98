"""A decoder that records its prompts and answers what the test says, and the cascade run on it."""

from types import SimpleNamespace

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box
from segment_anything.utils.transforms import ResizeLongestSide

from zeroflaw.pipeline.geometry import frame_geometry
from zeroflaw.pipeline.refining.cascade import run_cascade
from zeroflaw.pipeline.refining.prompt_points import PointPrompts
from zeroflaw_engines.parameters import MethodParameters

SAM_SIZE, MAP_SIZE, LOW, MAX_PROMPTS = 64, 32, 16, 9
# Not the negative of a blob's 5, lest interpolated logits be zero to rounding.
EMPTY = np.full((LOW, LOW), -4.37, np.float32)


def geometry_of(frame=(120, 160), *, squash_sam=False):
    return frame_geometry(
        frame, map_size=MAP_SIZE, sam_size=SAM_SIZE, feature_size=4, squash_sam=squash_sam
    )


def blob(*boxes):
    logits = EMPTY.copy()
    for y0, y1, x0, x1 in boxes:
        logits[y0:y1, x0:x1] = 5
    return logits


def points_of(coords=((30, 40), (50.5, 44), (10, 90)), labels=(1, 1, 0)):
    region = np.zeros((MAP_SIZE, MAP_SIZE), bool)
    region[8:12, 5:11] = True
    return PointPrompts(np.array(coords, np.float32), np.array(labels, np.int32), region, True)


class Decoder:
    """Answers each call with [B, 4, L, L] logits and [B, 4] IoUs, and keeps the prompts."""

    def __init__(self, *answers):
        self.answers = answers
        self.calls = []

    def __call__(self, prompts):
        self.calls.append(prompts)
        masks, ious = self.answers[len(self.calls) - 1]
        return np.array(masks, np.float32), np.array(ious, np.float32)


def answer(best, *, token=1, iou=0.9, others=None):
    """One prompt's answer in which `token` is the best of the three multimask ones."""
    masks = [EMPTY if others is None else others] * 4
    masks[token] = best
    ious = [0.99, 0.1, 0.1, 0.1]  # the single mask looks best and must not win
    ious[token] = iou
    return [masks], [ious]


def run(decoder, *, points=None, geometry=None, **parameters):
    return run_cascade(
        decoder,
        points or points_of(),
        geometry or geometry_of(),
        MethodParameters(**parameters),
        max_prompts=MAX_PROMPTS,
        low_res_size=LOW,
    )


def sam_mask(low_res, frame, *, squash_sam=False):
    """The mask as segment-anything makes it of low-res logits."""
    sam = SimpleNamespace(image_encoder=SimpleNamespace(img_size=SAM_SIZE))
    source = (MAP_SIZE, MAP_SIZE) if squash_sam else frame
    content = ResizeLongestSide.get_preprocess_shape(*source, SAM_SIZE)
    logits = Sam.postprocess_masks(sam, torch.from_numpy(low_res)[None, None], content, source)
    if squash_sam:
        logits = torch.nn.functional.interpolate(logits, frame, mode="bilinear")
    assert (logits.abs() > 1e-4).all()
    return logits[0, 0].numpy() > 0


def sam_box(mask):
    return tuple(batched_mask_to_box(torch.from_numpy(mask)).tolist())


ONE, TWO, THREE = blob((2, 9, 3, 11)), blob((3, 8, 4, 9)), blob((3, 7, 2, 8))
