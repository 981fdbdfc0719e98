"""ClipSAM's UMCI (arXiv 2401.12665, section 3.2): language meets patch tokens at several scales.

One module for each stage of the tower. Two paths look at the projected tokens, one along rows and
columns and one at two coarser scales; in both, places attend to the texts. Equations are numbered
as in the paper. Its appendix, which has the attention, was not published with it: what it leaves
open is a field of `ClipSamParameters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import torch
from torch import nn
from torch.nn import functional

from zeroflaw_export.models.clip_encoder import bilinear_matrix

Channels = Annotated[int, msgspec.Meta(ge=1)]
PoolSize = Annotated[int, msgspec.Meta(ge=2)]


@dataclass(frozen=True, kw_only=True)
class ClipSamParameters:
    """The open points of ClipSAM's first half; docs/method.md has the reason of each default.

    Attributes:
        hidden_channels: c_h, channels of both paths (the paper's Table 3: 384).
        pool_sizes: s1 and s2, sides of the cells of the scale path (Table 3: 3 and 9).
        pool_border: What the scale path does with a border that fills no whole cell: `drop` it,
            or average what there is of it in a `partial` cell.
        strip_attention: The two steps of attention of the strip path. `gathered`: each text
            gathers the strip by t1, and each place of the strip takes from what was gathered by
            its likeness to t2. `stacked`: each place attends to t1, and the result to t2.
        text_kernel: Width of the convolutions over the two columns of the text, 1 or 3.
        head_channels: Of the hidden layer of the segmentation head.
        align_corners: Of all bilinear interpolation.
        combination: What is averaged over the stages: `probabilities`, each after its softmax, or
            `logits`, before it.
    """

    hidden_channels: Channels = 384
    pool_sizes: tuple[PoolSize, PoolSize] = (3, 9)
    pool_border: Literal["drop", "partial"] = "drop"
    strip_attention: Literal["gathered", "stacked"] = "gathered"
    text_kernel: Literal[1, 3] = 1
    head_channels: Channels = 384
    align_corners: bool = True
    combination: Literal["probabilities", "logits"] = "probabilities"


def pooled_side(grid: int, size: int, border: Literal["drop", "partial"]) -> int:
    """Return how many cells of `size` places lie along a side of `grid` places."""
    return -(-grid // size) if border == "partial" else grid // size


class StripAttention(nn.Module):
    """Rows, or columns, seen by the texts: the inner part of the strip path (Eq. 1).

    Args:
        embedding_size: C_t, channels of the projected tokens and of the texts.
    """

    def __init__(self, embedding_size: int, parameters: ClipSamParameters) -> None:
        super().__init__()
        self.stacked = parameters.strip_attention == "stacked"
        # The pooled side has one place, so of a kernel of 1 x 3 only what lies along the strip
        # ever meets a token.
        self.visual = nn.Conv1d(embedding_size, parameters.hidden_channels, 3, padding=1)
        self.text_1 = _text_convolution(embedding_size, parameters)
        self.text_2 = _text_convolution(embedding_size, parameters)

    def forward(self, strip: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Compute M_row, or M_col.

        Args:
            strip: float32 [B, C_t, N], means of rows or columns.
            text: float32 [T, C_t, 2], T is 1 or B.

        Returns:
            float32 [B, c_h, N].
        """
        places = self.visual(strip).mT
        first, second = self.text_1(text).mT, self.text_2(text).mT
        if self.stacked:
            return _attend(_attend(places, first, first), second, second).mT
        return _attend(places, second, _attend(first, places, places)).mT


class ScaleAttention(nn.Module):
    """Cells of a scale, seen by the texts: the inner part of the scale path (Eq. 3).

    Args:
        embedding_size: C_t, channels of the projected tokens and of the texts.
        grid: Side of the projected tokens.
        size: Side of a cell, places.
    """

    upsample: torch.Tensor

    def __init__(
        self, embedding_size: int, grid: int, size: int, parameters: ClipSamParameters
    ) -> None:
        super().__init__()
        self.size = size
        self.partial = parameters.pool_border == "partial"
        side = pooled_side(grid, size, parameters.pool_border)
        self.visual = nn.Conv2d(embedding_size, parameters.hidden_channels, 3, padding=1)
        self.key = _text_convolution(embedding_size, parameters)
        self.value = _text_convolution(embedding_size, parameters)
        matrix = bilinear_matrix(side, grid, align_corners=parameters.align_corners)
        self.register_buffer("upsample", matrix, persistent=False)

    def forward(self, projected: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Compute B(M_g).

        Args:
            projected: float32 [B, C_t, grid, grid].
            text: float32 [T, C_t, 2], T is 1 or B.

        Returns:
            float32 [B, c_h, grid, grid].
        """
        cells = self.visual(functional.avg_pool2d(projected, self.size, ceil_mode=self.partial))
        seen = _attend(cells.flatten(2).mT, self.key(text).mT, self.value(text).mT)
        return self.upsample @ seen.mT.reshape(cells.shape) @ self.upsample.T


class Umci(nn.Module):
    """The module of one stage.

    Args:
        width: Of the tower's tokens.
        embedding_size: C_t, width of the shared image-text space.
        grid: Side of the stage's grid of tokens.
    """

    def __init__(
        self, width: int, embedding_size: int, grid: int, parameters: ClipSamParameters
    ) -> None:
        super().__init__()
        hidden = parameters.hidden_channels
        self.grid = grid
        self.project = nn.Linear(width, embedding_size)
        self.row = StripAttention(embedding_size, parameters)
        self.column = StripAttention(embedding_size, parameters)
        self.strip = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.scales = nn.ModuleList(
            ScaleAttention(embedding_size, grid, size, parameters) for size in parameters.pool_sizes
        )
        self.scale = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.original = nn.Conv2d(embedding_size, hidden, 3, padding=1)
        self.fusion = nn.Conv2d(3 * hidden, embedding_size, 3, padding=1)
        self.head = nn.Sequential(
            nn.Linear(embedding_size, parameters.head_channels),
            nn.ReLU(),
            nn.Linear(parameters.head_channels, 2),
        )

    def forward(self, tokens: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
        """Segment what the stage sees.

        Args:
            tokens: float32 [B, grid * grid, width], not normalised.
            text_embeddings: float32 [T, 2, C_t], T is 1 or B: row 0 normal, row 1 abnormal.

        Returns:
            Logits, float32 [B, grid * grid, 2]: column 0 normal, column 1 abnormal.
        """
        text = text_embeddings.mT
        projected = self.project(tokens).mT.reshape(tokens.shape[0], -1, self.grid, self.grid)
        # Bilinear interpolation from one place gives that place everywhere: B is a broadcast (2).
        rows = self.row(projected.mean(dim=3), text)[:, :, :, None]
        columns = self.column(projected.mean(dim=2), text)[:, :, None, :]
        strip = self.strip(rows + columns)
        fine, coarse = (scale(projected, text) for scale in self.modules_of_scales())
        paths = [self.original(projected), strip, self.scale(fine + coarse)]  # Eq. 4 and 5
        fused = self.fusion(torch.cat(paths, dim=1))
        logits: torch.Tensor = self.head(functional.relu(fused + projected).flatten(2).mT)  # Eq. 6
        return logits

    def modules_of_scales(self) -> list[ScaleAttention]:
        """Return the two modules of the scale path, the finer one first."""
        return [scale for scale in self.scales if isinstance(scale, ScaleAttention)]


class UmciStages(nn.Module):
    """One module for each stage; what a checkpoint holds.

    Args:
        width: Of the tower's tokens.
        embedding_size: C_t, width of the shared image-text space.
        grids: Side of the grid of tokens of each stage.
    """

    def __init__(
        self,
        width: int,
        embedding_size: int,
        grids: tuple[int, ...],
        parameters: ClipSamParameters,
    ) -> None:
        super().__init__()
        self.parameters_of_method = parameters
        self.stages = nn.ModuleList(Umci(width, embedding_size, grid, parameters) for grid in grids)

    def modules_of_stages(self) -> list[Umci]:
        """Return the modules, one for each stage."""
        return [stage for stage in self.stages if isinstance(stage, Umci)]


def _text_convolution(embedding_size: int, parameters: ClipSamParameters) -> nn.Conv1d:
    kernel = parameters.text_kernel
    return nn.Conv1d(embedding_size, parameters.hidden_channels, kernel, padding=kernel // 2)


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Compute scaled dot-product attention (arXiv 1706.03762, Eq. 1) with one head.

    Args:
        queries: float32 [B, N, c].
        keys: float32 [B, M, c].
        values: float32 [B, M, c].

    Returns:
        float32 [B, N, c].
    """
    scores = queries @ keys.mT * queries.shape[-1] ** -0.5
    return torch.softmax(scores, dim=-1) @ values
