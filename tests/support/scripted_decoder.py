"""A decoder that records its prompts and answers what the test says, and refiners run on it."""

from types import SimpleNamespace

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box
from segment_anything.utils.transforms import ResizeLongestSide

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.encoding.frame_information import FrameInformation
from zeroflaw.pipeline.geometry import frame_geometry
from zeroflaw.pipeline.refining.cascade import run_cascade
from zeroflaw.pipeline.refining.prompt_points import PointPrompts
from zeroflaw.pipeline.refining.refinement import RefinerEngines
from zeroflaw_engines.contract import SAM_DECODER, EngineSizes, engine_contract
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import HostTensor
from zeroflaw_engines.sessions.session import CheckedSession

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


# --- a whole refiner, on a session --------------------------------------------------------------

SIZES = EngineSizes(
    clip_image_size=MAP_SIZE,
    embedding_size=4,
    sam_image_size=SAM_SIZE,
    sam_feature_size=LOW // 4,
    sam_feature_channels=2,
    max_prompts=MAX_PROMPTS,
)


class DecoderSession(CheckedSession):
    """Answers with the first prompts of its masks [B, 4, L, L] and IoUs [B, 4]; keeps its calls."""

    backend = "scripted"

    def __init__(self, masks, ious, sizes=SIZES):
        super().__init__(engine_contract(SAM_DECODER, sizes), HostTensor)
        self.masks, self.ious = np.float32(masks), np.float32(ious)
        self.calls = []

    def _run(self, inputs, keep, shapes):
        self.calls.append(inputs)
        count = len(inputs["point_labels"])
        return {
            "low_res_logits": self.masks[:count].copy(),
            "predicted_iou": self.ious[:count].copy(),
        }

    def _release(self):
        pass


def encoding_of(anomaly_map, frame=(120, 160), *, features=True, squash_sam=False):
    anomaly_map = np.float32(anomaly_map)
    grid = (1, SIZES.sam_feature_channels, SIZES.sam_feature_size, SIZES.sam_feature_size)
    values = np.random.default_rng(0).normal(size=grid).astype(np.float32)
    return Encoding(
        geometry_of(frame, squash_sam=squash_sam),
        anomaly_map,
        0.3,
        FrameInformation(0.5, 0.0, 0.9),
        values if features else None,
        anomaly_map,
    )


def engines_of(decoder, sizes=SIZES):
    return RefinerEngines(decoder, sizes)
