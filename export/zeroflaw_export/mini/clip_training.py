"""Train the CLIP-like towers of `mini`: image tower, text tower, and adapters beside them.

CLIP's towers learned from photos and captions. These learn from drawn frames and the very
sentences of the prompt ensembles, the text tower first (`text_training`). Then patch tokens
(through adapters) and the CLS token are pulled towards the abnormal sentences where there is a
defect and towards the normal ones elsewhere, and the CLS token towards the sentences that name
its surface. Most steps see crops of a few patches; a crop's tokens get the position embedding of
where they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from open_clip.model import CLIP
from torch import nn
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_ensembles import PromptEnsembles, Tokenize
from zeroflaw_export.drawn_frames.noise import Rng
from zeroflaw_export.mini.crops import draw_crops
from zeroflaw_export.mini.phases import Phase, pixel_loss, train_phases
from zeroflaw_export.mini.starting_weights import cosine_basis, place_waves, start_alike
from zeroflaw_export.mini.text_training import Sentences, train_text
from zeroflaw_export.mini.training_frames import TrainingFrames
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import CLIP_MEAN, CLIP_STD, ClipArchitecture, float32
from zeroflaw_export.models.clip_encoder import LOGIT_SCALE, bilinear_matrix

# Cells of the truth for each patch along one side.
_CELLS: Final = 4


@dataclass(frozen=True, kw_only=True)
class ClipTraining:
    """Settings of the towers' training.

    Attributes:
        text_steps: Steps of the text tower, before the rest.
        text_learning_rate: Peak of the schedule of the text tower.
        phases: Of the image tower.
        seed: Of weights and data.
    """

    text_steps: int = 250
    text_learning_rate: float = 1.5e-3
    phases: tuple[Phase, ...] = (
        Phase(name="clip-small", grid=8, window=(80, 240), batch=40, steps=2000,
              learning_rate=1e-3, balance=1.0, seed=8),
        Phase(name="clip-medium", grid=14, window=(150, 420), batch=14, steps=900,
              learning_rate=6e-4, balance=0.3, seed=14),
        Phase(name="clip-whole", grid=28, window=(400, 512), batch=4, steps=450,
              learning_rate=3e-4, balance=0.0, seed=28),
    )  # fmt: skip
    seed: int = 1


class Towers(nn.Module):
    """What is trained: both towers and the adapters.

    Args:
        adapters: One layer for each tapped block.
    """

    def __init__(self, clip: CLIP, adapters: LinearAdapters) -> None:
        super().__init__()
        self.clip = clip
        self.adapters = adapters


def new_towers(architecture: ClipArchitecture, seed: int) -> Towers:
    """Make towers to train, the same for the same seed."""
    generator = torch.manual_seed(seed)
    clip = architecture.build(architecture.image_size)
    filters = clip.visual.conv1.weight
    with torch.no_grad():
        filters.copy_(cosine_basis(filters.shape[0], architecture.patch_size))
        grid = architecture.image_size // architecture.patch_size
        clip.visual.positional_embedding[1:] = place_waves(grid, filters.shape[0])
    for block in clip.visual.transformer.resblocks:
        start_alike(block.attn, generator)
    adapters = LinearAdapters(
        len(architecture.tapped_blocks),
        architecture.config["vision_cfg"]["width"],
        architecture.config["embed_dim"],
    )
    return Towers(clip, adapters)


def train_towers(
    towers: Towers,
    architecture: ClipArchitecture,
    frames: TrainingFrames,
    ensembles: PromptEnsembles,
    tokenize: Tokenize,
    *,
    settings: ClipTraining,
    folder: Path,
    report: Callable[[str, int, float], None],
) -> None:
    """Train the towers in place, crops first and whole frames after.

    Args:
        towers: From `new_towers`.
        folder: Directory of the checkpoints.
        report: Called with the phase, the step, from 1, and its loss.
    """
    towers.train()
    sentences = Sentences(towers.clip, ensembles, tokenize, sorted(set(frames.surfaces)))
    train_text(
        towers.clip,
        sentences,
        steps=settings.text_steps,
        learning_rate=settings.text_learning_rate,
        seed=settings.seed,
        checkpoint=folder / "text.pt",
        report=lambda step, loss: report("text", step, loss),
    )
    full = architecture.image_size // architecture.patch_size

    def loss_of(phase: Phase) -> Callable[[int], torch.Tensor]:
        grid = phase.grid
        upsample = bilinear_matrix(grid, grid * _CELLS)

        def loss(step: int) -> torch.Tensor:
            rng = np.random.default_rng([settings.seed, phase.seed, step])
            images, truth, index = draw_crops(
                frames, rng, phase.batch, side=grid * architecture.patch_size,
                window=phase.window, cell=architecture.patch_size // _CELLS, defective=0.7,
            )  # fmt: skip
            offset = rng.integers(full - grid + 1, size=2)
            tokens, cls = _image_tokens(
                towers.clip,
                torch.from_numpy(images),
                tapped=architecture.tapped_blocks,
                full=full,
                grid=grid,
                offset=offset,
            )
            names = [frames.surfaces[i] for i in index]
            return _loss(
                towers.adapters(tokens),
                cls,
                truth=torch.from_numpy(truth),
                names=names,
                upsample=upsample,
                balance=phase.balance,
                sentences=sentences,
                rng=rng,
            )

        return loss

    train_phases(towers, settings.phases, loss_of, folder, report)
    towers.eval()


def _image_tokens(
    clip: CLIP,
    images: torch.Tensor,
    *,
    tapped: tuple[int, ...],
    full: int,
    grid: int,
    offset: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Encode crops at an offset: patch tokens of the tapped blocks, and the CLS embedding."""
    visual = clip.visual
    scale = 1.0 / (255.0 * float32(CLIP_STD))
    pixels = images.float() * scale - float32(CLIP_MEAN) / float32(CLIP_STD)
    patches = visual.conv1(pixels.permute(0, 3, 1, 2)).flatten(2).mT
    place = visual.positional_embedding[1:].reshape(full, full, -1)
    y, x = int(offset[0]), int(offset[1])
    place = place[y : y + grid, x : x + grid].flatten(0, 1)
    cls = (visual.class_embedding + visual.positional_embedding[0]).expand(len(images), 1, -1)
    tokens = visual.ln_pre(torch.cat([cls, patches + place], dim=1))
    seen = []
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        tokens = block(tokens)
        if number in tapped:
            seen.append(tokens[:, 1:])
    return seen, visual.ln_post(tokens[:, 0]) @ visual.proj


def _loss(
    adapted: list[torch.Tensor],
    cls: torch.Tensor,
    *,
    truth: torch.Tensor,
    names: list[str],
    upsample: torch.Tensor,
    balance: float,
    sentences: Sentences,
    rng: Rng,
) -> torch.Tensor:
    with torch.no_grad():
        states, named = sentences.states(rng), sentences.named(rng)
    towards_abnormal = states[1] - states[0]
    total = truth.new_zeros(())
    for tokens in adapted:
        logits = LOGIT_SCALE * functional.normalize(tokens, dim=-1) @ towards_abnormal
        grid = upsample.shape[1]
        logits = upsample @ logits.reshape(-1, grid, grid) @ upsample.T
        total = total + pixel_loss(logits, truth, balance)
    embedding = functional.normalize(cls, dim=-1)
    defective = (truth.flatten(1).sum(dim=1) > 0.3).float()
    image_loss = functional.binary_cross_entropy_with_logits(
        LOGIT_SCALE * embedding @ towards_abnormal, defective
    )
    wanted = torch.tensor([sentences.surfaces.index(name) for name in names])
    caption_loss = functional.cross_entropy(20.0 * embedding @ named.T, wanted)
    return total / len(adapted) + 0.3 * image_loss + 0.05 * caption_loss
