"""UMCI as something to train, after ClipSAM (arXiv 2401.12665, sections 3.4 and 4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Final

import torch

from zeroflaw_engines.errors import TrainingError
from zeroflaw_export.models.clip_encoder import upsampled
from zeroflaw_export.models.localizers.clipsam import NAME, save_stages
from zeroflaw_export.models.localizers.umci import UmciStages
from zeroflaw_export.training.learner import Batch, Learner
from zeroflaw_export.training.losses import segmentation_loss
from zeroflaw_export.training.train import TrainingSettings

# Of the four stages of a ViT (section 3.4): the last one counts most.
_PUBLISHED_WEIGHTS: Final = (0.1, 0.1, 0.1, 0.7)


def clipsam_recipe() -> TrainingSettings:
    """Return the settings with which ClipSAM was trained (section 4.1)."""
    return TrainingSettings(epochs=6, batch=8, learning_rate=1e-4)


def default_stage_weights(stages: int, *, pyramid: bool) -> tuple[float, ...]:
    """Return the weight of each stage's loss.

    A ViT's four stages have the published ones. Other numbers of stages share 0.3 among all but
    the last. A pyramid's levels count alike: there no level is the last of a depth. The finest,
    which comes first, sees what all others see, and bounds how sharp the map can be.

    Args:
        stages: How many there are.
        pyramid: Whether they are levels of a pyramid.
    """
    if pyramid:
        return (1.0 / stages,) * stages
    if stages == len(_PUBLISHED_WEIGHTS):
        return _PUBLISHED_WEIGHTS
    return (*((0.3 / max(stages - 1, 1),) * (stages - 1)), 0.7)


def umci_learner(stages: UmciStages, stage_weights: tuple[float, ...]) -> Learner:
    """Return how UMCI is trained: with AdamW.

    Args:
        stage_weights: Of each stage's loss, above 0.

    Raises:
        TrainingError: There are more or fewer weights than stages, or one is not above 0.
    """
    if len(stage_weights) != len(stages.stages) or not all(w > 0 for w in stage_weights):
        raise TrainingError(
            f"the stage weights {stage_weights} do not fit {len(stages.stages)} stages",
            "give one weight above 0 for each stage",
        )
    parameters = stages.parameters_of_method
    return Learner(
        localizer=NAME,
        parameters={**asdict(parameters), "stage_weights": stage_weights},
        module=stages,
        optimizer=lambda rate: torch.optim.AdamW(stages.parameters(), lr=rate),
        losses=partial(_losses, stages, stage_weights),
        save=partial(save_stages, stages),
        align_corners=parameters.align_corners,
    )


def _losses(stages: UmciStages, weights: tuple[float, ...], batch: Batch) -> Iterator[torch.Tensor]:
    parts = zip(stages.modules_of_stages(), weights, batch.tokens, batch.upsample, strict=True)
    for stage, weight, tokens, upsample in parts:
        logits = stage(tokens.float(), batch.texts)
        whole = upsampled(logits[..., 1] - logits[..., 0], upsample)
        yield weight * segmentation_loss(whole, batch.masks, squared=True)
