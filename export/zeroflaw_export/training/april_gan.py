"""The linear adapters as something to train, after APRIL-GAN (arXiv 2305.17382; train.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import torch
from torch.nn import functional

from zeroflaw_export.datasets import Layout
from zeroflaw_export.models.adapters import LinearAdapters, save_adapters
from zeroflaw_export.models.clip_encoder import LOGIT_SCALE, upsampled
from zeroflaw_export.training.learner import Batch, Learner
from zeroflaw_export.training.losses import segmentation_loss
from zeroflaw_export.training.train import TrainingSettings

_BETAS: Final = (0.5, 0.999)


def published_recipe(layout: Layout) -> TrainingSettings:
    """Return the settings with which APRIL-GAN trained on a data set (train.sh).

    MVTec-AD's images get 3 epochs and mosaics, VisA's get 15 epochs and none: adapters for
    MVTec-AD are trained on VisA and the other way round, which is how Hou et al.'s "VisA 3
    epochs, MVTec-AD 15 epochs" is to be read. In a mosaic MVTec-AD's large, centred objects are
    small and beside others, as VisA's are. The reference trains any other folder like VisA.
    """
    if layout == "mvtec":
        return TrainingSettings(epochs=3, mosaic=0.2)
    return TrainingSettings(epochs=15)


def adapters_learner(adapters: LinearAdapters) -> Learner:
    """Return how adapters are trained: with Adam, betas (0.5, 0.999)."""
    return Learner(
        localizer="april_gan",
        parameters={},
        module=adapters,
        optimizer=lambda rate: torch.optim.Adam(adapters.parameters(), lr=rate, betas=_BETAS),
        losses=partial(_losses, adapters),
        save=partial(save_adapters, adapters),
    )


def _losses(adapters: LinearAdapters, batch: Batch) -> Iterator[torch.Tensor]:
    difference = LOGIT_SCALE * (batch.texts[:, 1] - batch.texts[:, 0])
    for layer, tokens, upsample in zip(adapters.fc, batch.tokens, batch.upsample, strict=True):
        adapted = functional.normalize(layer(tokens.float()), dim=-1)
        logits = torch.einsum("ble,be->bl", adapted, difference)
        yield segmentation_loss(upsampled(logits, upsample), batch.masks)
