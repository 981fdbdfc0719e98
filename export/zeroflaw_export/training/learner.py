"""What a training needs to know of a localizer: its module, its losses, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Batch:
    """What one step is trained on.

    Attributes:
        tokens: For each tapped block or level, float16 [batch, patches, width], not normalised.
        texts: float32 [batch, 2, E], L2-normalised: row 0 normal, row 1 abnormal.
        masks: bool [batch, S, S], true where a pixel is abnormal.
        upsample: For each block or level, float32 [S, grid]: see `bilinear_matrix`.
    """

    tokens: tuple[torch.Tensor, ...]
    texts: torch.Tensor
    masks: torch.Tensor
    upsample: tuple[torch.Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A localizer that is trained on the tokens of a frozen tower.

    Attributes:
        localizer: Name in the registry.
        parameters: Those of the localizer that its weights depend on.
        module: With its initial values, on the device where it shall be trained.
        optimizer: Makes the optimizer of the module's parameters for a learning rate.
        losses: Gives the loss of each stage of a batch, weighed, one after the other. The
            stages share no parameter, so each can give its gradient and free its memory in turn.
        save: Writes the module in the layout that the export reads.
        align_corners: How logits are upsampled to the image.
    """

    localizer: str
    parameters: Mapping[str, Any]
    module: nn.Module
    optimizer: Callable[[float], torch.optim.Optimizer]
    losses: Callable[[Batch], Iterator[torch.Tensor]]
    save: Callable[[Path], None]
    align_corners: bool = True

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return next(self.module.parameters()).device
