"""The reference matcher as an export module: patch tokens and a bank in, reference map out."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zeroflaw_engines.contract import PATCH_TOKENS, EngineSizes, ReferenceSizes
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_export.models.architectures import ClipArchitecture
from zeroflaw_export.models.clip_encoder import bilinear_matrix
from zeroflaw_export.models.pyramid import REFERENCE_STRIDE, REFERENCE_WIDTH

MOST_PHOTOS: Final = 16


class ReferenceMatcher(nn.Module):
    """The reference map of APRIL-GAN's few-shot mode (arXiv 2305.17382, section 2.2; test.py).

    Args:
        sizes: Of the banks.
        image_size: Side of the map, px.
    """

    upsample: torch.Tensor
    numbers: torch.Tensor
    one: torch.Tensor
    minus_one: torch.Tensor

    def __init__(self, sizes: ReferenceSizes, image_size: int) -> None:
        super().__init__()
        self.grid = round(sizes.tokens**0.5)
        self.register_buffer("upsample", bilinear_matrix(self.grid, image_size))
        self.register_buffer("numbers", torch.arange(sizes.rows, dtype=torch.int32)[None, :, None])
        # With zeros up to a multiple of 8, which tensor cores take.
        one = torch.tensor([1.0] + 7 * [0.0])[None, None]
        self.register_buffer("one", one)
        self.register_buffer("minus_one", -one)

    def forward(
        self, patch_tokens: torch.Tensor, bank: torch.Tensor, valid_rows: torch.Tensor
    ) -> torch.Tensor:
        """Measure how far each patch is from the nearest of the bank.

        Args:
            patch_tokens: float32 [blocks, tokens, width], L2-normalised.
            bank: float16 [blocks, rows, width], L2-normalised.
            valid_rows: int32 [1], at least 1: rows from there on are padding.

        Returns:
            float32 [1, S, S] in [0, 2]: the mean over the blocks of 1 - the highest cosine.
        """
        rows = bank.float()
        # A row that is there already changes no maximum, and costs less than a mask on cosines.
        rows = torch.where(self.numbers < valid_rows, rows, rows[:, :1])
        # One more column makes the products cosines minus 1, which FP16 does not round to steps
        # of 5e-4: its sums are FP32.
        rows = torch.cat([rows, self.minus_one.expand(*rows.shape[:2], -1)], dim=-1)
        tokens = torch.cat([patch_tokens, self.one.expand(*patch_tokens.shape[:2], -1)], dim=-1)
        distances = -(tokens @ rows.transpose(1, 2)).amax(dim=-1)
        grid = distances.mean(dim=0).reshape(1, self.grid, self.grid)
        return self.upsample @ grid @ self.upsample.T


def plain_reference_map(inputs: dict[str, Tensor], size: int) -> NDArray[np.float64]:
    """Compute the reference map of a matcher's inputs in float64, by its definition.

    Returns:
        float64 [size, size] in [0, 2].
    """
    tokens = inputs[PATCH_TOKENS].astype(np.float64)
    bank = inputs["bank"][:, : int(inputs["valid_rows"][0])].astype(np.float64)
    cosines = [block @ rows.T for block, rows in zip(tokens, bank, strict=True)]
    distances = np.mean([1 - cosine.max(axis=1) for cosine in cosines], axis=0)
    side = round(len(distances) ** 0.5)
    at = np.linspace(0, side - 1, size)  # align_corners
    columns = [np.interp(at, np.arange(side), row) for row in distances.reshape(side, side)]
    return np.array([np.interp(at, np.arange(side), row) for row in np.transpose(columns)]).T


def reference_sizes(
    architecture: ClipArchitecture, image_size: int, bank_bytes: int
) -> ReferenceSizes:
    """Size the banks of a tower.

    Args:
        bank_bytes: What one may take in FP16; a small tower's ends at all tokens of 16 photos, so
            that matching costs no more than the tower.
    """
    blocks, width = len(architecture.tapped_blocks), architecture.token_width
    tokens = (image_size // architecture.patch_size) ** 2
    if architecture.has_pyramid:
        blocks, width = 1, REFERENCE_WIDTH
        tokens = (image_size // REFERENCE_STRIDE) ** 2
    rows = min(bank_bytes // (2 * blocks * width), MOST_PHOTOS * tokens)
    return ReferenceSizes(blocks, tokens, width, rows)


def matcher_of(sizes: EngineSizes) -> ReferenceMatcher:
    """Build the matcher of a bundle's sizes, which must have those of banks."""
    assert sizes.reference is not None  # noqa: S101 - the export gives them
    return ReferenceMatcher(sizes.reference, sizes.clip_image_size).eval()
