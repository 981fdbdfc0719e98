"""Trains the SAM-like encoder and decoder of `mini`.

The encoder learns first, with a head that marks defects; then encoder and decoder learn the
cascade that they will run (`cascade_loss`). Points are as the anomaly map gives them: its cells
are coarse, so they may lie beside a thin defect, and now and then where there is none, which must
give an empty mask of predicted IoU 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from zeroflaw_benchmarks.mini.cascade_loss import Prompts, Stages, cascade_loss
from zeroflaw_benchmarks.mini.crops import draw_crops
from zeroflaw_benchmarks.mini.phases import Phase, StepLoss, pixel_loss, train_phases
from zeroflaw_benchmarks.mini.sam_prompts import LOW_RES_CELL, draw_prompt
from zeroflaw_benchmarks.mini.starting_weights import cosine_basis, place_waves
from zeroflaw_benchmarks.mini.training_frames import TrainingFrames
from zeroflaw_export.architectures import (
    SAM_MEAN,
    SAM_STD,
    SamArchitecture,
    float32,
    sam_architecture,
)
from zeroflaw_export.sam_decoder import SamDecoder

PATCH: Final = 16


@dataclass(frozen=True, kw_only=True)
class SamPhase(Phase):
    """A phase of SAM's training.

    Attributes:
        stages: Weights of the losses of the cascade's stages, or None to train the encoder
            alone. The last counts most: it is the one that is kept.
    """

    stages: Stages | None = None


@dataclass(frozen=True, kw_only=True)
class SamTraining:
    """Settings of SAM's training.

    Attributes:
        encoder: Phases of the encoder with its head.
        cascade: Phases of encoder and decoder.
        misled: Share of the prompts that point at no defect.
        seed: Of weights and data.
    """

    encoder: tuple[SamPhase, ...] = (
        SamPhase(name="sam-small", grid=8, window=(80, 240), batch=48, steps=1400,
                 learning_rate=2.5e-3, balance=1.0, seed=8),
        SamPhase(name="sam-medium", grid=16, window=(170, 420), batch=12, steps=800,
                 learning_rate=1.5e-3, balance=0.3, seed=16),
    )  # fmt: skip
    cascade: tuple[SamPhase, ...] = (
        SamPhase(name="sam-refined", grid=16, window=(170, 480), batch=12, steps=620,
                 learning_rate=1e-3, balance=0.0, seed=17, stages=(0.3, 0.6, 1.2)),
        SamPhase(name="sam-whole", grid=32, window=(400, 512), batch=4, steps=420,
                 learning_rate=6e-4, balance=0.0, seed=32, stages=(0.2, 0.6, 1.2)),
    )  # fmt: skip
    misled: float = 0.15
    seed: int = 2


def new_sam(architecture: SamArchitecture, seed: int) -> Sam:
    """A SAM before training, the same for the same seed."""
    torch.manual_seed(seed)
    sam = architecture.build()
    encoder = sam.image_encoder
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(std=0.02)
        grid, width = encoder.pos_embed.shape[1], encoder.pos_embed.shape[3]
        encoder.pos_embed.copy_(place_waves(grid, width).reshape(encoder.pos_embed.shape))
        filters = encoder.patch_embed.proj.weight
        filters.copy_(cosine_basis(filters.shape[0], PATCH))
    return sam


class SamWithHead(nn.Module):
    """What is trained: SAM, and a head on its features that is dropped afterwards.

    Through the decoder alone, an encoder learns boundaries only once the decoder can ask for
    them. The head shows it the defects from the first step on.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam
        self.head = nn.Conv2d(sam.prompt_encoder.embed_dim, (PATCH // LOW_RES_CELL) ** 2, 1)

    def saliency(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of "defective", float32 [B, L, L]."""
        cells: torch.Tensor = functional.pixel_shuffle(self.head(features), PATCH // LOW_RES_CELL)
        return cells[:, 0].float()


def new_sam_with_head(seed: int) -> SamWithHead:
    """The SAM of `mini` before training, with its head; the same for the same seed."""
    return SamWithHead(new_sam(sam_architecture("mini"), seed))


def train_sam(
    trained: SamWithHead,
    phases: tuple[SamPhase, ...],
    frames: TrainingFrames,
    *,
    settings: SamTraining,
    folder: Path,
    report: Callable[[str, int, float], None],
) -> None:
    """Trains a SAM in place.

    Args:
        trained: A SAM from `new_sam`, with its head.
        phases: Those of `settings` to train.
        frames: What to learn from.
        settings: The rest of the settings.
        folder: Where checkpoints are kept.
        report: Is told the phase, the step and its loss.
    """
    trained.train()
    train_phases(
        trained, phases, lambda phase: _loss_of(trained, phase, frames, settings), folder, report
    )
    trained.eval()


@dataclass(frozen=True)
class _Batch:
    images: torch.Tensor
    truth: torch.Tensor
    prompts: Prompts | None
    offset: tuple[int, int]


def _loss_of(
    trained: SamWithHead, phase: SamPhase, frames: TrainingFrames, settings: SamTraining
) -> StepLoss:
    sam, grid = trained.sam, phase.grid
    full = sam.prompt_encoder.image_embedding_size[0]
    decoder = SamDecoder(sam)
    decoder.grid = grid
    whole_pe = decoder.image_pe.reshape(full, full, -1)

    def draw(step: int) -> _Batch:
        rng = np.random.default_rng([settings.seed, phase.seed, step])
        images, truth, _ = draw_crops(
            frames, rng, phase.batch, side=grid * PATCH, window=phase.window, cell=LOW_RES_CELL,
            defective=1.0 if phase.stages else 0.8,
        )  # fmt: skip
        y, x = (int(n) for n in rng.integers(full - grid + 1, size=2))
        prompts = None
        if phase.stages:
            drawn = [draw_prompt(rng, mask, rng.random() < settings.misled) for mask in truth]
            prompts = Prompts(
                torch.from_numpy(np.stack([prompt.coords for prompt in drawn])),
                torch.from_numpy(np.stack([prompt.labels for prompt in drawn])),
                torch.from_numpy(np.stack([prompt.wanted for prompt in drawn])),
            )
        return _Batch(torch.from_numpy(images), torch.from_numpy(truth), prompts, (y, x))

    def loss(batch: _Batch) -> torch.Tensor:
        y, x = batch.offset
        decoder.image_pe = whole_pe[y : y + grid, x : x + grid].flatten(0, 1)[None]
        with torch.autocast("cpu", torch.bfloat16):
            features = sam_features(sam, batch.images, grid, batch.offset)
            total = pixel_loss(trained.saliency(features), batch.truth, phase.balance)
            if phase.stages is None or batch.prompts is None:
                return total
            shift = torch.tensor([x, y], dtype=torch.float32) * PATCH
            cascade, _ = cascade_loss(
                decoder, features, batch.prompts, shift=shift, weights=phase.stages
            )
        return total + cascade

    return StepLoss(draw, loss)


def sam_features(
    sam: Sam, images: torch.Tensor, grid: int, offset: tuple[int, int]
) -> torch.Tensor:
    """Features of crops, as if they lay at an offset of the whole image.

    Args:
        sam: Whose encoder is run.
        images: uint8 [B, 16 * grid, 16 * grid, 3], RGB.
        grid: Patches along one side of a crop.
        offset: Row and column of the crops' first patch in the whole image.

    Returns:
        float32 [B, C, grid, grid].
    """
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
