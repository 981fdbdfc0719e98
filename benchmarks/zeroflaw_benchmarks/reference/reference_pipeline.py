"""The method in PyTorch, as its authors' libraries run it: open_clip, Pillow and SamPredictor.

Tests and the pipeline benchmark hold zeroflaw against it; nothing of zeroflaw's runtime is used
here, and of its export only the layers that hold the adapters' weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from zeroflaw_benchmarks.reference.brute_force_ppg import brute_force_points
from zeroflaw_export.models.adapters import LinearAdapters

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])

Array = NDArray[Any]
PointsOf = Callable[..., tuple[Array, Array]]
MapOf = Callable[..., tuple[Array, float]]


@dataclass(frozen=True)
class ReferenceClip:
    """CLIP with what APRIL-GAN adds to it.

    Attributes:
        model: With its weights.
        adapters: One linear layer for each tapped block.
        tapped_blocks: 1-based.
        size: Side of its image, px.
    """

    model: CLIP
    adapters: LinearAdapters
    tapped_blocks: tuple[int, ...]
    size: int


@dataclass
class ReferenceResult:
    """What the pipeline gives, and how it came about.

    Attributes:
        anomaly_map: float32 [S, S] in [0, 1].
        image_score: P(abnormal) of the CLS token.
        features: float32 [C, G, G] of SAM.
        points: (x, y) in the frame, px, [n, 2].
        labels: 1 and 0, [n].
        low_res: The chosen low-res logits of each stage.
        predicted_iou: Of the three masks of each stage.
        mask: bool [H, W] of the last stage.
    """

    anomaly_map: Array
    image_score: float
    features: Array
    points: Array
    labels: Array
    low_res: list[Array]
    predicted_iou: list[Array]
    mask: Array


@torch.inference_mode()
def reference_map(
    clip: ReferenceClip, frame: NDArray[np.uint8], embeddings: NDArray[np.float32]
) -> tuple[Array, float]:
    """Run APRIL-GAN: squash, towers, adapters, upsampled logits, softmax, mean over blocks."""
    squashed = Image.fromarray(frame).resize((clip.size, clip.size), Image.Resampling.BICUBIC)
    pixels = (np.asarray(squashed).astype(np.float64) / 255 - MEAN) / STD
    pixels = torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float()
    tokens: list[torch.Tensor] = []
    hooks = _tap(clip, tokens)
    cls = clip.model.encode_image(pixels, normalize=True)
    for hook in hooks:
        hook.remove()
    text = torch.from_numpy(embeddings).T
    maps = []
    for layer, block in zip(clip.adapters.fc, tokens, strict=True):
        adapted = functional.normalize(layer(block), dim=-1)
        logits = 100.0 * adapted @ text
        side = round(logits.shape[1] ** 0.5)
        logits = logits.permute(0, 2, 1).view(1, 2, side, side)
        logits = functional.interpolate(logits, size=clip.size, mode="bilinear", align_corners=True)
        maps.append(torch.softmax(logits, dim=1)[0, 1])
    score = torch.softmax(100.0 * cls @ text, dim=-1)[0, 1]
    return torch.stack(maps).mean(0).float().numpy(), float(score)


def _tap(clip: ReferenceClip, tokens: list[torch.Tensor]) -> list[RemovableHandle]:
    """Collect the patch tokens of the tapped blocks, or levels of a pyramid, of the next image."""
    visual = clip.model.visual
    if hasattr(visual, "pyramid"):
        return [
            visual.pyramid.register_forward_hook(
                lambda _module, _inputs, levels: tokens.extend(
                    levels[level - 1].flatten(2).mT for level in clip.tapped_blocks
                )
            )
        ]
    return [
        visual.transformer.resblocks[block - 1].register_forward_hook(
            lambda _module, _inputs, output: tokens.append(output[:, 1:])
        )
        for block in clip.tapped_blocks
    ]


def reference_inspection(
    clip: ReferenceClip,
    sam: Sam,
    frame: NDArray[np.uint8],
    embeddings: NDArray[np.float32],
    *,
    k: int = 3,
    bf16_encoders: bool = False,
    points_of: PointsOf = brute_force_points,
    map_of: MapOf = reference_map,
) -> ReferenceResult:
    """Run CLIP, PPG and the three-step cascade with `SamPredictor` doing all of SAM's part.

    SAM runs where it lies.

    Args:
        clip: CLIP with its adapters.
        frame: uint8 [H, W, 3], RGB.
        embeddings: float32 [2, E], normal and abnormal, L2-normalised.
        k: Points of each sign.
        bf16_encoders: Whether both encoders run under bfloat16 autocast.
        points_of: PPG, called as `brute_force_points`. That one is written for clarity alone:
            take another where time counts.
        map_of: CLIP's part, called as `reference_map`: another where CLIP is compiled or on a GPU.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16_encoders):
        anomaly_map, score = map_of(clip, frame, embeddings)
        predictor = SamPredictor(sam)
        predictor.set_image(frame)
    predictor.features = predictor.features.float()
    features = predictor.get_image_embedding().cpu().numpy()[0]
    # Where no pixel is extreme, the peak alone is: the method's `no_region` is `always_run`.
    threshold = min(0.5, float(np.nextafter(anomaly_map.max(), np.float32(0))))
    points, labels = points_of(
        anomaly_map,
        features,
        frame.shape[:2],
        predictor.input_size,
        cell=sam.image_encoder.img_size / features.shape[1],
        k=k,
        threshold=threshold,
    )
    mask_input, box, best = None, None, np.zeros(frame.shape[:2], np.bool_)
    low_res: list[Array] = []
    ious: list[Array] = []
    for stage in (1, 2, 3):
        masks, iou, logits = predictor.predict(
            point_coords=points,
            point_labels=labels,
            box=box,
            mask_input=mask_input,
            multimask_output=True,
        )
        chosen = int(iou.argmax())
        mask_input, best = logits[chosen : chosen + 1], masks[chosen]
        low_res.append(logits[chosen])
        ious.append(iou)
        if stage == 2:
            box = batched_mask_to_box(torch.from_numpy(best)[None])[0].numpy()
    return ReferenceResult(anomaly_map, score, features, points, labels, low_res, ious, best)
