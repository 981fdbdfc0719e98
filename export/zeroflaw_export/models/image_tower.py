"""What the CLIP encoder of every localizer is built on: pixels in, patch tokens out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.model import CLIP
from torch import nn
from torch.nn import functional

from zeroflaw_export.models.architectures import CLIP_MEAN, CLIP_STD, float32


class ImageTower(nn.Module):
    """CLIP's image tower with the normalisation of its input.

    Args:
        batched: Whether it takes several images, and gives patch tokens an axis for them.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, clip: CLIP, *, batched: bool) -> None:
        super().__init__()
        self.batched = batched
        self.visual = clip.visual
        self.register_buffer("scale", 1.0 / (255.0 * float32(CLIP_STD)))
        self.register_buffer("shift", float32(CLIP_MEAN) / float32(CLIP_STD))

    def pixels(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise images: uint8 [B, S, S, 3], RGB -> float32 [B, 3, S, S]."""
        return (image.float() * self.scale - self.shift).permute(0, 3, 1, 2)

    def patch_tokens(self, blocks: Sequence[torch.Tensor]) -> torch.Tensor:
        """Join the tokens of each block, float32 [B, tokens, width], to those of the contract.

        Returns:
            float32 [blocks, tokens, width], L2-normalised; with a first axis of B if it is batched.
        """
        return self.joined([functional.normalize(tokens, dim=-1) for tokens in blocks])

    def joined(self, unit: Sequence[torch.Tensor]) -> torch.Tensor:
        """Join tokens as `patch_tokens` does that are L2-normalised already."""
        return torch.stack(list(unit), dim=1) if self.batched else torch.cat(list(unit))
