"""SAM's image encoder as segment_anything writes it, to be exported as it is."""

from __future__ import annotations

import torch
from segment_anything.modeling import Sam
from torch import nn


class PlainEncoder(nn.Module):
    """segment_anything's own modules, behind nothing but its normalisation."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        self.register_buffer("mean", sam.pixel_mean)
        self.register_buffer("std", sam.pixel_std)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Encode uint8 [1, S, S, 3] to float32 [1, C, S / 16, S / 16]."""
        features: torch.Tensor = self.encoder(
            (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
        )
        return features
