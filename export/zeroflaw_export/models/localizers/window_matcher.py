"""The reference matcher of WinCLIP+: patches and windows against those of good photos."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zeroflaw_engines.contract import PATCH_TOKENS, EngineSizes, ReferenceSizes
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_export.models.clip_encoder import bilinear_matrix
from zeroflaw_export.models.localizers.windows import Windows, mean_inverse

# A window is never nearer to the bank than this: a harmonic mean divides by it. 4 of 4 windows
# that are the bank's own are then at 1e-6, which is what rounding leaves of 0.
_LEAST_DISTANCE: Final = 1e-6


class WindowSides(Protocol):
    """The parameters of WinCLIP, as far as its matcher reads them."""

    def windows(self, grid: int) -> tuple[Windows, Windows]:
        """Return the windows of both scales on a square grid of patches."""


class WindowMatcher(nn.Module):
    """The association map of WinCLIP+ (arXiv 2303.14814, Eq. 4; anomalib, winclip/torch_model.py).

    Args:
        sizes: Of the banks.
        image_size: Side of the map, px.
    """

    upsample: torch.Tensor
    numbers: torch.Tensor
    one: torch.Tensor
    first: torch.Tensor
    minus_one: torch.Tensor

    def __init__(self, sizes: ReferenceSizes, image_size: int, parameters: WindowSides) -> None:
        super().__init__()
        self.grid = round(sizes.tokens**0.5)
        self.windows = parameters.windows(self.grid)
        matrix = bilinear_matrix(self.grid, image_size, align_corners=False)
        self.register_buffer("upsample", matrix)
        self.register_buffer("numbers", torch.arange(sizes.rows, dtype=torch.int32)[None, :, None])
        self.register_buffer("one", torch.ones(1))
        # With zeros up to a multiple of 8, which tensor cores take.
        first = torch.tensor([1.0] + 7 * [0.0])[None, None]
        self.register_buffer("first", first)
        self.register_buffer("minus_one", -first)
        for number, windows in enumerate(self.windows):
            self.register_buffer(f"inverse_counts_{number}", windows.inverse_counts)

    def forward(
        self, patch_tokens: torch.Tensor, bank: torch.Tensor, valid_rows: torch.Tensor
    ) -> torch.Tensor:
        """Measure how far each patch, and the windows over it, are from the nearest of the bank.

        Args:
            patch_tokens: float32 [3, tokens, width], L2-normalised: patches, and the small and the
                mid window around each.
            bank: float16 [3, rows, width], L2-normalised, of the same.
            valid_rows: int32 [1], at least 1: rows from there on are padding.

        Returns:
            float32 [1, S, S] in [0, 2]: the mean of the patch's distance and of the harmonic means
            of the distances of the small and of the mid windows that cover it, upsampled. A
            distance is 1 - the highest cosine; WinCLIP+ has half of that.
        """
        rows = bank.float()
        # A row that is there already changes no maximum, and costs less than a mask on cosines.
        rows = torch.where(self.numbers < valid_rows, rows, rows[:, :1])
        # As in `ReferenceMatcher`, one more column makes the products cosines minus 1. What FP16
        # left of a row is not quite of length 1, which would move a distance by 1e-5: a harmonic
        # mean of small distances does not bear that. What depends on a norm stays in FP32.
        norms = torch.linalg.vector_norm(rows, dim=-1)[:, None]
        rows = torch.cat([rows, self.minus_one.expand(*rows.shape[:2], -1)], dim=-1)
        tokens = torch.cat([patch_tokens, self.first.expand(*patch_tokens.shape[:2], -1)], dim=-1)
        # One product a block: three of the graph's five products are then in FP16, and the builder
        # takes a graph for FP16 by most of its products.
        products = torch.stack(
            [block @ of_bank.T for block, of_bank in zip(tokens, rows, strict=True)]
        )
        nearness = torch.div(products - (norms - 1), norms)
        distances = -nearness.amax(dim=-1).reshape(3, self.grid, self.grid)
        total = distances[0]
        for number, windows in enumerate(self.windows):
            # Each window is taken once: where the patch in its middle is.
            inside = slice(windows.middle, windows.middle + windows.places)
            once = distances[number + 1, inside, inside].clamp(min=_LEAST_DISTANCE)
            counts = getattr(self, f"inverse_counts_{number}")
            inverse = mean_inverse(once[None], windows, counts)[0]
            total = total + torch.div(self.one, inverse)
        grid = (total / (1 + len(self.windows)))[None]
        return self.upsample @ grid @ self.upsample.T


def window_matcher(sizes: EngineSizes, parameters: WindowSides) -> WindowMatcher:
    """Build the matcher of a bundle's sizes, which must have those of banks."""
    assert sizes.reference is not None  # noqa: S101 - the export gives them
    return WindowMatcher(sizes.reference, sizes.clip_image_size, parameters).eval()


def plain_window_map(
    inputs: dict[str, Tensor], size: int, parameters: WindowSides
) -> NDArray[np.float64]:
    """Compute the map of a matcher's inputs in float64, window by window.

    Returns:
        float64 [size, size] in [0, 2].
    """
    tokens = inputs[PATCH_TOKENS].astype(np.float64)
    bank = inputs["bank"][:, : int(inputs["valid_rows"][0])].astype(np.float64)
    bank /= np.linalg.norm(bank, axis=-1, keepdims=True)
    patches, *of_windows = (
        1 - (block @ rows.T).max(axis=1) for block, rows in zip(tokens, bank, strict=True)
    )
    side = round(len(patches) ** 0.5)
    total = patches.reshape(side, side).copy()
    for windows, distances in zip(parameters.windows(side), of_windows, strict=True):
        inverse, count = np.zeros((side, side)), np.zeros((side, side))
        for place in np.ndindex(windows.places, windows.places):
            covered = tuple(slice(at, at + windows.side) for at in place)
            middle = tuple(at + windows.middle for at in place)
            distance = distances.reshape(side, side)[middle]
            inverse[covered] += 1 / max(distance, _LEAST_DISTANCE)
            count[covered] += 1
        total += count / inverse
    # Bilinear with align_corners=False: pixel centres, and the border's values beyond them.
    at = (np.arange(size) + 0.5) * side / size - 0.5
    columns = [np.interp(at, np.arange(side), row) for row in total / 3]
    return np.array([np.interp(at, np.arange(side), row) for row in np.transpose(columns)]).T
