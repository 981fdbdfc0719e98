"""Train the SAM-like encoder and decoder of `mini` on the cascade that they will run.

As SAM learned (arXiv 2304.02643, appendix A), each mask is asked for several times, every time
with the logits of the answer before; here the three rounds are the cascade's own: points; points
and logits; points, box and logits. Points are as the anomaly map gives them: its cells are coarse,
so they may lie beside a thin defect, and now and then where there is none, which must give an
empty mask of predicted IoU 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from zeroflaw_engines.contract import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_NEGATIVE,
    LABEL_NOT_A_POINT,
    LABEL_POSITIVE,
    LABEL_UNUSED,
)
from zeroflaw_export.drawn_frames.noise import Rng
from zeroflaw_export.mini.crops import draw_crops
from zeroflaw_export.mini.phases import Phase, pixel_loss, train_phases
from zeroflaw_export.mini.starting_weights import cosine_basis
from zeroflaw_export.mini.training_frames import TrainingFrames
from zeroflaw_export.models.architectures import SAM_MEAN, SAM_STD, SamArchitecture, float32
from zeroflaw_export.models.sam_decoder import SamDecoder

_PATCH: Final = 16
# Side of a cell of the low-res logits, px.
_CELL: Final = 4
_MAX_POINTS: Final = 3
# Three positive and three negative points, and a box or a not-a-point row.
_ROWS: Final = 2 * _MAX_POINTS + 2
_MULTIMASK: Final = slice(1, 4)


@dataclass(frozen=True, kw_only=True)
class SamPhase(Phase):
    """A phase of SAM's training.

    Attributes:
        stages: Weights of the losses of the three stages. Once the decoder can answer at all,
            the last counts most: it is the one that is kept.
        decoder_only: Whether the encoder stays as it is.
    """

    stages: tuple[float, float, float]
    decoder_only: bool = False


@dataclass(frozen=True, kw_only=True)
class SamTraining:
    """Settings of SAM's training.

    Attributes:
        phases: Small crops first, whole frames last.
        misled: Share of the prompts that point at no defect.
        seed: Of weights and data.
    """

    phases: tuple[SamPhase, ...] = (
        SamPhase(name="sam-small", grid=8, window=(80, 240), batch=28, steps=1500,
                 learning_rate=1e-3, balance=1.0, seed=8, stages=(0.5, 1.0, 1.5)),
        SamPhase(name="sam-medium", grid=16, window=(170, 420), batch=8, steps=800,
                 learning_rate=6e-4, balance=0.3, seed=16, stages=(0.5, 1.0, 1.5)),
        SamPhase(name="sam-refined", grid=16, window=(200, 480), batch=8, steps=900,
                 learning_rate=6e-4, balance=0.0, seed=17, stages=(0.1, 0.6, 1.8)),
        SamPhase(name="sam-whole", grid=32, window=(400, 512), batch=3, steps=450,
                 learning_rate=3e-4, balance=0.0, seed=32, stages=(0.1, 0.6, 1.8)),
        SamPhase(name="sam-decoder", grid=32, window=(400, 512), batch=4, steps=260,
                 learning_rate=6e-4, balance=0.0, seed=33, stages=(0.02, 0.6, 2.0),
                 decoder_only=True),
    )  # fmt: skip
    misled: float = 0.12
    seed: int = 2


def new_sam(architecture: SamArchitecture, seed: int) -> Sam:
    """Make a SAM to train, the same for the same seed."""
    torch.manual_seed(seed)
    sam = architecture.build()
    with torch.no_grad():
        for name, parameter in sam.image_encoder.named_parameters():
            if "pos" in name:
                parameter.normal_(std=0.02)
        filters = sam.image_encoder.patch_embed.proj.weight
        filters.copy_(cosine_basis(filters.shape[0], _PATCH))
    return sam


class _Trained(nn.Module):
    """What is trained: SAM, and a head on its features that is dropped afterwards.

    Through the decoder alone, an encoder learns boundaries only once the decoder can ask for
    them. The head shows it the defects from the first step on.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam
        self.head = nn.Conv2d(sam.prompt_encoder.embed_dim, (_PATCH // _CELL) ** 2, 1)

    def saliency(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of "defective", float32 [B, L, L]."""
        cells: torch.Tensor = functional.pixel_shuffle(self.head(features), _PATCH // _CELL)
        return cells[:, 0]


def train_sam(
    sam: Sam,
    frames: TrainingFrames,
    settings: SamTraining,
    folder: Path,
    report: Callable[[str, int, float], None],
) -> None:
    """Train a SAM in place, crops first and whole frames after.

    Args:
        sam: From `new_sam`.
        folder: Directory of the checkpoints.
        report: Called with the phase, the step, from 1, and its loss.
    """
    sam.train()
    torch.manual_seed(settings.seed)
    trained = _Trained(sam)
    full = sam.prompt_encoder.image_embedding_size[0]

    def loss_of(phase: SamPhase) -> Callable[[int], torch.Tensor]:
        sam.image_encoder.requires_grad_(not phase.decoder_only)
        grid = phase.grid
        decoder = SamDecoder(sam)
        decoder.grid = grid
        whole_pe = decoder.image_pe.reshape(full, full, -1)

        def loss(step: int) -> torch.Tensor:
            rng = np.random.default_rng([settings.seed, phase.seed, step])
            images, truth, _ = draw_crops(
                frames, rng, phase.batch, side=grid * _PATCH, window=phase.window, cell=_CELL,
                defective=1.0,
            )  # fmt: skip
            y, x = (int(n) for n in rng.integers(full - grid + 1, size=2))
            decoder.image_pe = whole_pe[y : y + grid, x : x + grid].flatten(0, 1)[None]
            with torch.set_grad_enabled(not phase.decoder_only):
                features = _features(sam, torch.from_numpy(images), grid, (y, x))
            prompts = [draw_prompt(rng, mask, rng.random() < settings.misled) for mask in truth]
            shown = pixel_loss(trained.saliency(features), torch.from_numpy(truth), phase.balance)
            wanted = torch.stack([torch.from_numpy(prompt.wanted) for prompt in prompts])
            coords = torch.from_numpy(np.stack([prompt.coords for prompt in prompts]))
            labels = torch.from_numpy(np.stack([prompt.labels for prompt in prompts]))
            shift = torch.tensor([x, y], dtype=torch.float32) * _PATCH
            return shown + _cascade_loss(
                decoder, features, wanted, (coords, labels), shift=shift, weights=phase.stages
            )

        return loss

    train_phases(trained, settings.phases, loss_of, folder, report)
    sam.eval()


@dataclass(frozen=True)
class Prompt:
    """What the decoder is asked, and what it should answer.

    Attributes:
        coords: float32 [rows, 2], (x, y) px of the crop.
        labels: int32 [rows].
        wanted: float32 [L, L], share of each cell that is defective.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int32]
    wanted: NDArray[np.float32]


def draw_prompt(rng: Rng, truth: NDArray[np.float32], misled: bool) -> Prompt:
    """Draw points in the manner of PPG on a coarse map.

    Args:
        truth: float32 [L, L], share of each cell that is defective.
        misled: Whether the points go where there is no defect.
    """
    coords = np.zeros((_ROWS, 2), np.float32)
    labels = np.full(_ROWS, LABEL_UNUSED, np.int32)
    labels[-2] = LABEL_NOT_A_POINT
    defective = (truth > min(0.5, float(truth.max()) * 0.9)).astype(np.uint8)
    near = cv2.dilate(defective, np.ones((5, 5), np.uint8))
    far = cv2.dilate(defective, np.ones((13, 13), np.uint8))
    inside, clear = np.argwhere(defective), np.argwhere(far == 0)
    misled = misled and len(clear) > 0
    if misled:
        first = clear[rng.integers(len(clear))]
        positive = first + rng.integers(-4, 5, (int(rng.integers(1, _MAX_POINTS + 1)), 2))
        ring = clear[np.abs(clear - first).max(axis=1) < 14]
    else:
        positive = inside[rng.integers(len(inside), size=int(rng.integers(1, _MAX_POINTS + 1)))]
        ring = np.argwhere(far > near)
    astray = float(rng.choice([0.0, 0.8, 2.0])) * rng.standard_normal(positive.shape)
    points = [(point, LABEL_POSITIVE) for point in positive + astray]
    wrong = rng.random() < 0.08
    source = inside if wrong and not misled else ring
    if len(source):
        chosen = source[rng.integers(len(source), size=int(rng.integers(0, _MAX_POINTS + 1)))]
        points += [(point, LABEL_NEGATIVE) for point in chosen]
    for row, (point, label) in enumerate(points):
        coords[row] = (np.clip(point[::-1], 0, truth.shape[0] - 1) + rng.random(2)) * _CELL
        labels[row] = label
    return Prompt(coords, labels, np.zeros_like(truth) if misled else truth)


def _features(sam: Sam, images: torch.Tensor, grid: int, offset: tuple[int, int]) -> torch.Tensor:
    """Encode crops as if they lay at an offset of the whole image."""
    encoder: Any = sam.image_encoder
    full = encoder.pos_embed.shape[1]
    y, x = offset
    pixels = ((images.float() - float32(SAM_MEAN)) / float32(SAM_STD)).permute(0, 3, 1, 2)
    tokens = encoder.patch_embed(pixels) + encoder.pos_embed[:, y : y + grid, x : x + grid]
    for block in encoder.blocks:
        normed = block.norm1(tokens)
        if block.window_size:
            windows, padded = window_partition(normed, block.window_size)
            attended = window_unpartition(
                block.attn(windows), block.window_size, padded, (grid, grid)
            )
        else:
            tables = {
                name: table[full - grid : full + grid - 1]
                for name, table in block.attn.named_parameters()
                if name.startswith("rel_pos")
            }
            attended = functional_call(block.attn, tables, (normed,))
        tokens = tokens + attended
        tokens = tokens + block.mlp(block.norm2(tokens))
    features: torch.Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
    return features


def _cascade_loss(
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
