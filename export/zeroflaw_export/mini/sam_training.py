"""Train the SAM of `mini` for the prompts that the cascade gives it.

The image encoder stands on the trunk of the trained CLIP tower, which stays as it is, so both see
a defect alike; its pyramid starts from the tower's. The decoder is prompted as the runtime does it:
points where the tower's own map is highest and around them, then its logits, then their box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import nn
from torch.nn import functional

from zeroflaw_engines.contract import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_NEGATIVE,
    LABEL_NOT_A_POINT,
    LABEL_POSITIVE,
    LABEL_UNUSED,
)
from zeroflaw_export.drawn_frames.noise import FloatArray, Rng
from zeroflaw_export.mini.clip_training import Towers, mean_map, normalised
from zeroflaw_export.mini.crops import draw_crops
from zeroflaw_export.mini.phases import Phase, train_phases
from zeroflaw_export.mini.training_frames import TrainingFrames
from zeroflaw_export.models.architectures import SamArchitecture
from zeroflaw_export.models.sam_decoder import SamDecoder

# Side of a cell of the features and of the low-res logits, px.
_STRIDE: Final = 8
_CELL: Final = 2
_POINTS: Final = 3
# Three positive and three negative points, and a box or a not-a-point row.
_ROWS: Final = 2 * _POINTS + 2
_MULTIMASK: Final = slice(1, 4)
_REGION: Final = 0.5
# Spacing of points and width of the ring, px: those that `mini`'s parameters give the runtime.
_SPACING: Final = 20
_RING: Final = 24


@dataclass(frozen=True, kw_only=True)
class SamPhase(Phase):
    """A phase of SAM's training.

    Attributes:
        stages: Weights of the losses of the three stages. The last counts most: it is kept.
    """

    stages: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class SamTraining:
    """Settings of SAM's training.

    Attributes:
        phases: Small crops first, whole frames last.
        defective: Share of the crops that are laid over a defect; the others may show none.
        stray: Share of the prompts whose points are drawn from the truth instead of the map.
        seed: Of weights and data.
    """

    phases: tuple[SamPhase, ...] = (
        SamPhase(name="sam-crops", side=256, window=(140, 512), batch=8, steps=1300,
                 learning_rate=1.5e-3, seed=41, stages=(0.3, 0.7, 1.5)),
        SamPhase(name="sam-whole", side=512, window=(400, 512), batch=3, steps=450,
                 learning_rate=6e-4, seed=42, stages=(0.05, 0.4, 2.0)),
    )  # fmt: skip
    defective: float = 0.85
    stray: float = 0.2
    seed: int = 2


def new_sam(architecture: SamArchitecture, towers: Towers, seed: int) -> Sam:
    """Make a SAM to train on the trunk of trained towers, the same for the same seed."""
    torch.manual_seed(seed)
    sam = architecture.build()
    encoder, visual = sam.image_encoder, towers.clip.visual
    encoder.trunk.load_state_dict(visual.trunk.state_dict())
    # SAM's pyramid begins one stage later.
    for ours, theirs in (
        (encoder.pyramid.lateral, visual.pyramid.lateral[1:]),
        (encoder.pyramid.mix, visual.pyramid.mix[1:]),
    ):
        ours.load_state_dict(theirs.state_dict())
    return sam


def train_sam(
    sam: Sam,
    towers: Towers,
    towards_abnormal: torch.Tensor,
    frames: TrainingFrames,
    *,
    settings: SamTraining,
    folder: Path,
    report: Callable[[str, int, float], None],
) -> None:
    """Train a SAM in place, crops first and whole frames after.

    Args:
        sam: From `new_sam`.
        towers: Trained; their map gives the points.
        towards_abnormal: float32 [E], abnormal less normal text embedding.
        folder: Directory of the checkpoints.
        report: Called with the phase, the step, from 1, and its loss.
    """
    torch.manual_seed(settings.seed)
    encoder = sam.image_encoder.to(memory_format=torch.channels_last)
    encoder.trunk.requires_grad_(False)
    trained = nn.ModuleDict({
        "pyramid": encoder.pyramid, "neck": encoder.neck,
        "prompt_encoder": sam.prompt_encoder, "mask_decoder": sam.mask_decoder,
    })  # fmt: skip
    full = sam.prompt_encoder.image_embedding_size[0]

    def loss_of(phase: SamPhase) -> Callable[[int], torch.Tensor]:
        decoder, grid = SamDecoder(sam), phase.side // _STRIDE
        whole_pe = decoder.image_pe.reshape(full, full, -1)
        decoder.grid = grid

        def loss(step: int) -> torch.Tensor:
            rng = np.random.default_rng([settings.seed, phase.seed, step])
            images, truth, _ = draw_crops(
                frames, rng, phase.batch, side=phase.side, window=phase.window, cell=_CELL,
                defective=settings.defective,
            )  # fmt: skip
            with torch.no_grad():
                stages = list(encoder.trunk(normalised(images)))
                maps = mean_map(towers, stages, towards_abnormal, truth.shape[1]).numpy()
            features = encoder.neck(encoder.joined(stages))
            prompts = [
                draw_prompt(rng, of_truth if rng.random() < settings.stray else of_map)
                for of_truth, of_map in zip(truth, maps, strict=True)
            ]
            y, x = (int(n) for n in rng.integers(full - grid + 1, size=2))
            decoder.image_pe = whole_pe[y : y + grid, x : x + grid].flatten(0, 1)[None]
            shift = torch.tensor([x, y], dtype=torch.float32) * _STRIDE
            coords, labels = zip(*prompts, strict=True)
            points = torch.from_numpy(np.stack(coords)), torch.from_numpy(np.stack(labels))
            return cascade_loss(
                decoder, features, torch.from_numpy(truth), points, shift=shift,
                weights=phase.stages,
            )  # fmt: skip

        return loss

    train_phases(trained, settings.phases, loss_of, folder, report)
    sam.eval()


def draw_prompt(rng: Rng, anomaly_map: FloatArray) -> tuple[FloatArray, NDArray[np.int32]]:
    """Draw points as PPG sets them: on the highest places of the map, and around its region.

    Args:
        anomaly_map: float32 [L, L] in [0, 1].

    Returns:
        float32 [rows, 2], (x, y) px of the crop, and int32 [rows], their labels.
    """
    coords = np.zeros((_ROWS, 2), np.float32)
    labels = np.full(_ROWS, LABEL_UNUSED, np.int32)
    labels[-2] = LABEL_NOT_A_POINT
    region = anomaly_map > _REGION
    if not region.any():
        region.flat[int(anomaly_map.argmax())] = True
    kernel = np.ones((_RING // _CELL // 2 * 2 + 1,) * 2, np.uint8)
    near = region.astype(np.uint8)
    places = np.argwhere((cv2.dilate(near, kernel) > 0) & ~region)
    left = np.where(region, anomaly_map, -1.0)
    points: list[tuple[NDArray[np.float64], int]] = []
    for _ in range(_POINTS):
        if left.max() < 0:
            break
        y, x = np.unravel_index(int(left.argmax()), left.shape)
        points.append((np.array([y, x], np.float64), LABEL_POSITIVE))
        reach = _SPACING // _CELL
        left[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = -1
    if len(places):
        around = places[rng.integers(len(places), size=_POINTS)].astype(np.float64)
        points.extend((place, LABEL_NEGATIVE) for place in around)
    for row, (point, label) in enumerate(points):
        coords[row] = (point[::-1] + rng.random(2)) * _CELL
        labels[row] = label
    return coords, labels


def cascade_loss(
    decoder: SamDecoder,
    features: torch.Tensor,
    wanted: torch.Tensor,
    points: tuple[torch.Tensor, torch.Tensor],
    *,
    shift: torch.Tensor,
    weights: tuple[float, float, float],
) -> torch.Tensor:
    """Compute the loss of the three stages; only the chosen logits pass between them, detached."""
    coords, labels = (tensor.clone() for tensor in points)
    batch, side = wanted.shape[0], wanted.shape[-1]
    mask_input, has_mask = wanted.new_zeros(batch, 1, side, side), wanted.new_zeros(batch)
    total = wanted.new_zeros(())
    for number, weight in enumerate(weights, start=1):
        logits, predicted_iou = decoder(features, coords + shift, labels, mask_input, has_mask)
        total = total + weight * _mask_loss(logits, predicted_iou, wanted)
        best = predicted_iou[:, _MULTIMASK].argmax(dim=1) + 1
        chosen = logits[torch.arange(batch), best].detach()
        mask_input, has_mask = chosen[:, None].clamp(-30, 30), torch.ones_like(has_mask)
        if number == 2:
            _add_boxes(coords, labels, chosen)
    return total


def _mask_loss(
    logits: torch.Tensor, predicted_iou: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Compute SAM's loss: focal and dice of the best mask, and the error of every predicted IoU."""
    target = wanted[:, None].expand_as(logits)
    cross = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = torch.sigmoid(logits)
    focal = ((probability - target).abs() ** 2 * cross).flatten(2).mean(-1)
    overlap = (probability * target).flatten(2).sum(-1)
    size = (probability + target).flatten(2).sum(-1)
    dice = 1 - (2 * overlap + 1) / (size + 1)
    each = 20 * focal + cross.flatten(2).mean(-1) + dice
    multi = each[:, _MULTIMASK]
    # The best mask learns most; the others keep a little, so that none is lost.
    masks = 0.85 * multi.amin(dim=1) + 0.15 * multi.mean(dim=1) + 0.3 * each[:, 0]
    with torch.no_grad():
        hit, true = logits > 0, target > 0.5
        union = (hit | true).flatten(2).sum(-1)
        actual = (hit & true).flatten(2).sum(-1) / union.clamp(min=1)
    error = (predicted_iou - actual).square().mean(dim=1)
    return (masks + error).mean()


def _add_boxes(coords: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor) -> None:
    """Put the box of each mask into the last two rows; an empty mask has none."""
    for row, mask in enumerate(logits > 0):
        places = mask.nonzero()
        if len(places):
            (top, left), (bottom, right) = places.amin(dim=0).tolist(), places.amax(dim=0).tolist()
            coords[row, -2] = torch.tensor([left * _CELL, top * _CELL], dtype=torch.float32)
            coords[row, -1] = torch.tensor(
                [(right + 1) * _CELL - 1, (bottom + 1) * _CELL - 1], dtype=torch.float32
            )
            labels[row, -2], labels[row, -1] = LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT
