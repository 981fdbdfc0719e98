"""A training of tiny adapters on a small data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from zeroflaw_export.datasets import Dataset
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.load import WeightsSource
from zeroflaw_export.training.april_gan import adapters_learner
from zeroflaw_export.training.samples import TrainingProgress
from zeroflaw_export.training.token_cache import FrozenTower
from zeroflaw_export.training.train import (
    TrainingRecord,
    TrainingSettings,
    train_localizer,
)

SIZE = 56
SOURCE = WeightsSource(name="random", path=None, seed=3)
SETTINGS = TrainingSettings(epochs=3, batch=5, mosaic=0.5)


@dataclass
class Bench:
    """One data set, one tower, and a directory for everything that a training writes."""

    dataset: Dataset
    tower: FrozenTower
    directory: Path

    def train(
        self,
        settings: TrainingSettings = SETTINGS,
        report: Callable[[TrainingProgress], None] = lambda _: None,
        seconds: float = 0.0,
        cache: str = "cache",
        adapters: LinearAdapters | None = None,
    ) -> tuple[LinearAdapters, TrainingRecord]:
        trained = adapters or fresh_adapters()
        record = train_localizer(
            self.tower,
            adapters_learner(trained),
            self.dataset,
            text_of,
            settings,
            cache=self.directory / cache,
            checkpoint=self.directory / "checkpoint",
            checkpoint_seconds=seconds,
            report=report,
        )
        return trained, record


def fresh_adapters(seed: int = 1) -> LinearAdapters:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LinearAdapters(4, 64, 32)


def text_of(name: str) -> torch.Tensor:
    """Close to each other, as the two sides of CLIP's are: far ones saturate every logit."""
    generator = torch.Generator().manual_seed(len(name))
    normal, change = functional.normalize(torch.randn(2, 32, generator=generator), dim=-1)
    return functional.normalize(torch.stack([normal, normal + 0.1 * change]), dim=-1)


def same(left: LinearAdapters, right: LinearAdapters) -> bool:
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
