"""What the trainings of the image tower and of SAM share: phases, and the loss of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from zeroflaw_export.mini.checkpointed import train_steps


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of a training; small crops come first, since they show more defects a second.

    Attributes:
        name: For checkpoints and reports.
        side: Of a crop, px.
        window: Smallest and largest side of what a crop shows, px of the frame.
        batch: Crops in a step.
        steps: Steps.
        learning_rate: Peak.
        seed: Of its crops, beside that of the training.
    """

    name: str
    side: int
    window: tuple[float, float]
    batch: int
    steps: int
    learning_rate: float
    seed: int


AnyPhase = TypeVar("AnyPhase", bound=Phase)


def train_phases(
    module: nn.Module,
    phases: tuple[AnyPhase, ...],
    loss_of: Callable[[AnyPhase], Callable[[int], torch.Tensor]],
    folder: Path,
    report: Callable[[str, int, float], None],
    *,
    rates: Mapping[str, float] | None = None,
) -> None:
    """Train a module in place, one phase after the other.

    Args:
        loss_of: Called as a phase begins; gives the loss of each of its steps.
        folder: Directory of the checkpoints.
        report: Called with the phase, the step, from 1, and its loss.
        rates: As in `train_steps`.
    """
    for phase in phases:
        train_steps(
            module,
            loss_of(phase),
            steps=phase.steps,
            learning_rate=phase.learning_rate,
            checkpoint=folder / f"{phase.name}.pt",
            report=partial(report, phase.name),
            rates=rates,
        )


def pixel_loss(logits: torch.Tensor, truth: torch.Tensor, balance: float) -> torch.Tensor:
    """Compute focal loss and dice, as the adapters' recipe has them, on shares of cells.

    Args:
        logits: float32 [B, L, L].
        truth: float32 [B, L, L] in [0, 1].
        balance: Weight of the part in which defective and good cells count alike.
    """
    cross = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = torch.sigmoid(logits)
    focal = ((probability - truth).abs() ** 2 * cross).mean()
    overlap = (probability * truth).flatten(1).sum(1)
    size = probability.flatten(1).sum(1) + truth.flatten(1).sum(1)
    dice = (1 - (2 * overlap + 1) / (size + 1)).mean()
    defective = (cross * truth).sum() / (truth.sum() + 1)
    good = (cross * (1 - truth)).sum() / ((1 - truth).sum() + 1)
    return 4 * focal + cross.mean() + dice + balance * (defective + good)
