"""The method in PyTorch, as its authors' libraries run it: open_clip, Pillow and SamPredictor.

Nothing of zeroflaw is used here but the brute-force PPG of these tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.utils.amg import batched_mask_to_box
from torch.nn import functional

from support.brute_force_ppg import brute_force_points

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


@dataclass
class ReferenceResult:
    anomaly_map: np.ndarray
    image_score: float
    features: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    low_res: list[np.ndarray]
    predicted_iou: list[np.ndarray]
    mask: np.ndarray


@torch.inference_mode()
def reference_map(clip, adapters, tapped_blocks, frame, embeddings, size):
    """APRIL-GAN: squash, towers, adapters, upsample both logits, softmax, mean over blocks."""
    squashed = Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC)
    pixels = (np.asarray(squashed).astype(np.float64) / 255 - MEAN) / STD
    pixels = torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float()
    tokens = []
    hooks = [
        clip.visual.transformer.resblocks[block - 1].register_forward_hook(
            lambda _module, _inputs, output: tokens.append(output)
        )
        for block in tapped_blocks
    ]
    cls = clip.encode_image(pixels, normalize=True)
    for hook in hooks:
        hook.remove()
    text = torch.from_numpy(embeddings).T
    maps = []
    for layer, block in zip(adapters.fc, tokens, strict=True):
        adapted = functional.normalize(layer(block[:, 1:]), dim=-1)
        logits = 100.0 * adapted @ text
        side = round(logits.shape[1] ** 0.5)
        logits = logits.permute(0, 2, 1).view(1, 2, side, side)
        logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=True)
        maps.append(torch.softmax(logits, dim=1)[0, 1])
    score = torch.softmax(100.0 * cls @ text, dim=-1)[0, 1]
    return torch.stack(maps).mean(0).numpy(), float(score)


def reference_inspection(clip, adapters, tapped_blocks, sam, frame, embeddings, size, k=3):
    """CLIP map, PPG and the three-step cascade with `SamPredictor` doing all of SAM's part."""
    anomaly_map, score = reference_map(clip, adapters, tapped_blocks, frame, embeddings, size)
    predictor = SamPredictor(sam)
    predictor.set_image(frame)
    features = predictor.get_image_embedding().numpy()[0]
    points, labels = brute_force_points(
        anomaly_map,
        features,
        frame.shape[:2],
        predictor.input_size,
        cell=sam.image_encoder.img_size / features.shape[1],
        k=k,
    )
    mask_input, box, low_res, ious, best = None, None, [], [], None
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


def mask_iou(a, b):
    union = np.logical_or(a, b).sum()
    return 1.0 if union == 0 else float(np.logical_and(a, b).sum() / union)
