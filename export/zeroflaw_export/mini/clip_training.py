"""Train the CLIP-like towers of `mini`: text tower, image tower on a trunk, and its adapters.

CLIP's towers learned from photos and captions. The image tower here starts from a trunk that knows
photographs, and the text tower learns the very sentences of the prompt ensembles first
(`text_training`). Then the tokens of every level (through adapters) and the image embedding are
pulled towards the abnormal sentences where there is a defect and towards the normal ones elsewhere.
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

from zeroflaw_export.mini.crops import draw_crops
from zeroflaw_export.mini.phases import Phase, pixel_loss, train_phases
from zeroflaw_export.mini.text_training import Sentences, train_text
from zeroflaw_export.mini.training_frames import TrainingFrames
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import CLIP_MEAN, CLIP_STD, ClipArchitecture, float32
from zeroflaw_export.models.clip_encoder import LOGIT_SCALE

# The two finest stages stay as ImageNet made them: edges and colours are the same everywhere, and
# half of the time of a step would be theirs.
_FROZEN: Final = ("conv_stem", "blocks.0.", "blocks.1.")
# A step of the trunk, as a share of each tensor's own size; after its batch norms were folded in,
# they differ by orders of magnitude.
_TRUNK_STEP: Final = 1.5
_CELL: Final = 4


@dataclass(frozen=True, kw_only=True)
class ClipPhase(Phase):
    """A phase of the towers' training.

    Attributes:
        balance: Weight of the loss that counts defective and good pixels alike; it teaches
            fast, and calibrates badly.
    """

    balance: float


@dataclass(frozen=True, kw_only=True)
class ClipTraining:
    """Settings of the towers' training.

    Attributes:
        text_steps: Steps of the text tower, before the rest.
        text_learning_rate: Peak of the schedule of the text tower.
        phases: Of the image tower.
        defective: Share of the crops that are laid over a defect.
        seed: Of weights and data.
    """

    text_steps: int = 250
    text_learning_rate: float = 1.5e-3
    phases: tuple[ClipPhase, ...] = (
        ClipPhase(name="clip-crops", side=256, window=(140, 512), batch=10, steps=2500,
              learning_rate=2e-3, balance=0.15, seed=8),
        ClipPhase(name="clip-whole", side=448, window=(380, 512), batch=4, steps=1000,
              learning_rate=5e-4, balance=0.0, seed=28),
    )  # fmt: skip
    defective: float = 0.6
    seed: int = 1


class Towers(nn.Module):
    """What is trained: both towers and the adapters.

    The adapters have one layer for each tapped level.
    """

    def __init__(self, clip: CLIP, architecture: ClipArchitecture) -> None:
        super().__init__()
        self.clip = clip
        self.adapters = LinearAdapters(
            len(architecture.tapped_blocks), architecture.token_width, architecture.embedding_size
        )


def new_towers(architecture: ClipArchitecture, trunk: nn.Module, seed: int) -> Towers:
    """Make towers to train, the same for the same seed.

    Args:
        trunk: From `pretrained_trunk`.
    """
    torch.manual_seed(seed)
    clip = architecture.build(architecture.image_size)
    clip.visual.load_trunk(trunk)
    return Towers(clip, architecture)


def train_towers(
    towers: Towers,
    architecture: ClipArchitecture,
    frames: TrainingFrames,
    sentences: Sentences,
    *,
    settings: ClipTraining,
    folder: Path,
    report: Callable[[str, int, float], None],
) -> None:
    """Train the towers in place, crops first and whole frames after.

    Args:
        towers: From `new_towers`.
        sentences: Of the towers' own text tower.
        folder: Directory of the checkpoints.
        report: Called with the phase, the step, from 1, and its loss.
    """
    train_text(
        towers.clip,
        sentences,
        steps=settings.text_steps,
        learning_rate=settings.text_learning_rate,
        seed=settings.seed,
        checkpoint=folder / "text.pt",
        report=lambda step, loss: report("text", step, loss),
    )
    visual = towers.clip.visual.to(memory_format=torch.channels_last)
    for name, parameter in visual.trunk.named_parameters():
        parameter.requires_grad_(not name.startswith(_FROZEN))
    visual.reference_blocks.requires_grad_(False)
    taps = [block - 1 for block in architecture.tapped_blocks]

    def loss_of(phase: ClipPhase) -> Callable[[int], torch.Tensor]:
        def loss(step: int) -> torch.Tensor:
            rng = np.random.default_rng([settings.seed, phase.seed, step])
            images, truth, _ = draw_crops(
                frames, rng, phase.batch, side=phase.side, window=phase.window, cell=_CELL,
                defective=settings.defective,
            )  # fmt: skip
            stages = list(visual.trunk(normalised(images)))
            embedding, tokens = visual.encode_stages(stages, taps)
            with torch.no_grad():
                normal, abnormal = sentences.states(rng)
            return _loss(
                towers.adapters(tokens),
                embedding,
                truth=torch.from_numpy(truth),
                towards_abnormal=abnormal - normal,
                balance=phase.balance,
            )

        return loss

    train_phases(towers, settings.phases, loss_of, folder, report, rates=trunk_rates(visual.trunk))
    towers.eval()


def trunk_rates(trunk: nn.Module, prefix: str = "clip.visual.trunk.") -> dict[str, float]:
    """Return the learning rate of each tensor of a trunk, as a share of the peak."""
    return {
        prefix + name: _TRUNK_STEP * float(parameter.detach().square().mean().sqrt())
        for name, parameter in trunk.named_parameters()
    }


def normalised(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    """Normalise crops, uint8 [B, S, S, 3], as CLIP's: float32 [B, 3, S, S], channels last."""
    scale = 1.0 / (255.0 * float32(CLIP_STD))
    pixels = torch.from_numpy(images).float() * scale - float32(CLIP_MEAN) / float32(CLIP_STD)
    return pixels.permute(0, 3, 1, 2)


def mean_map(
    towers: Towers, stages: list[torch.Tensor], towards_abnormal: torch.Tensor, size: int
) -> torch.Tensor:
    """Return the anomaly map, the mean of the levels.

    Args:
        stages: The five of the trunk.
        towards_abnormal: float32 [E], abnormal less normal text embedding.
        size: Side of the map.

    Returns:
        float32 [B, size, size] in [0, 1].
    """
    levels = towers.clip.visual.pyramid(stages[1:])
    tokens = [level.flatten(2).mT for level in levels[: len(towers.adapters.fc)]]
    logits = _map_logits(towers.adapters(tokens), towards_abnormal, size)
    return _mean_probability(logits)


def _mean_probability(logits: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([torch.sigmoid(level) for level in logits]).mean(dim=0)


def _map_logits(
    adapted: list[torch.Tensor], towards_abnormal: torch.Tensor, size: int
) -> list[torch.Tensor]:
    maps = []
    for tokens in adapted:
        logits = LOGIT_SCALE * functional.normalize(tokens, dim=-1) @ towards_abnormal
        side = round(logits.shape[1] ** 0.5)
        grid = logits.reshape(-1, 1, side, side)
        whole = functional.interpolate(grid, size=size, mode="bilinear", align_corners=True)
        maps.append(whole[:, 0])
    return maps


def _loss(
    adapted: list[torch.Tensor],
    embedding: torch.Tensor,
    *,
    truth: torch.Tensor,
    towards_abnormal: torch.Tensor,
    balance: float,
) -> torch.Tensor:
    logits = _map_logits(adapted, towards_abnormal, truth.shape[1])
    levels = torch.stack([pixel_loss(level, truth, balance) for level in logits]).mean()
    # What is shipped is the mean of the levels, so it learns as a whole too.
    whole = pixel_loss(torch.logit(_mean_probability(logits).clamp(1e-5, 1 - 1e-5)), truth, 0.0)
    defective = (truth.flatten(1).sum(dim=1) > 0.5).float()
    image_loss = functional.binary_cross_entropy_with_logits(
        LOGIT_SCALE * functional.normalize(embedding, dim=-1) @ towards_abnormal, defective
    )
    return levels + whole + 0.5 * image_loss
