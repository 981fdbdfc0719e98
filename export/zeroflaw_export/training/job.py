"""What a training is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zeroflaw_export.datasets import Dataset
from zeroflaw_export.models.load import WeightsSource
from zeroflaw_export.training.train import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What to train.

    Attributes:
        dataset: The data set.
        clip_architecture: Name in the registry.
        clip_weights: Of both towers.
        clip_image_size: Side of CLIP's input, px; default: the architecture's.
        localizer: Name of the method whose weights are trained.
        localizer_parameters: Its parameters, by name; others take their defaults.
        stage_weights: Of the loss of each stage of ClipSAM; default: see `default_stage_weights`.
        initial_weights: To start from; default: PyTorch's initial values, from the seed.
        ensembles: A file of prompt ensembles; default: WinCLIP's and APRIL-GAN's.
        token_cache: Directory; default: one for each tower in the user's cache directory.
        device: On which tower and localizer run, as PyTorch calls it.
    """

    dataset: Dataset
    settings: TrainingSettings
    clip_architecture: str
    clip_weights: WeightsSource
    clip_image_size: int | None = None
    localizer: str = "april_gan"
    localizer_parameters: Mapping[str, Any] = field(default_factory=dict)
    stage_weights: tuple[float, ...] | None = None
    initial_weights: WeightsSource | None = None
    ensembles: Path | None = None
    token_cache: Path | None = None
    device: str = "cpu"
