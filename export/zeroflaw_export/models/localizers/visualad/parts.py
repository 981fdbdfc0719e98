"""What VisualAD learns: two tokens, and for each tapped block SCA and SAF."""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import nn
from torch.nn import functional

from zeroflaw_export.models.random_weights import randomise_weights

# Of the public source; its tables have room for 39 x 39 patches.
ANCHORS: Final = 4
POSITIONS: Final = 1536


class SpatialCrossAttention(nn.Module):
    """SCA: it adds to the two tokens what learned anchors see in the patches of one block.

    utils/spatial_cross_attention.py: with patches X [N, C], anchors A and the position table P,
    `attention = softmax(LN_q(W_q A) LN_k(W_k (X + P))^T / sqrt(C))`, and of a token t
    `t + r W_o sum_a sigmoid(W_g t)_a (attention W_v X)_a`.

    Args:
        width: Of the tokens, C.
        anchors: Number of anchors.
        positions: Rows of the position table, at least as many as there are patches.
    """

    def __init__(self, width: int, anchors: int = ANCHORS, positions: int = POSITIONS) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.zeros(anchors, width))
        self.positions = nn.Parameter(torch.zeros(1, positions, width))
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.query_norm = nn.LayerNorm(width)
        self.key_norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, anchors)
        self.output = nn.Linear(width, width)
        self.residual_scale = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Add to each token what the anchors gathered, weighed by the token's own gates.

        Args:
            tokens: float [B, T, C].
            patches: float [B, N, C], row by row of their grid.

        Returns:
            float [B, T, C].
        """
        count, width = patches.shape[1:]
        query = self.query_norm(self.query(self.anchors))
        key = self.key_norm(self.key(patches + self.positions[:, :count]))
        attention = torch.softmax(query @ key.transpose(1, 2) * width**-0.5, dim=-1)
        # A projection without bias may follow the sum over patches, of which there are far more
        # than anchors; so may the tokens, for which alone the source does all this twice.
        gathered = self.value(attention @ patches)
        gates = torch.sigmoid(self.gate(tokens))
        enhanced: torch.Tensor = tokens + self.residual_scale * self.output(gates @ gathered)
        return enhanced


class SelfAlignment(nn.Module):
    """SAF: two linear layers with GELU between them, on the patches of one block.

    Args:
        width: Of the patches, in and out.
        hidden: Between the two.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches: float [B, N, C] -> float [B, N, C]."""
        aligned: torch.Tensor = self.outer(functional.gelu(self.inner(patches)))
        return aligned


class VisualAdParts(nn.Module):
    """The trained parts of VisualAD, all that its checkpoints hold.

    Args:
        blocks: Number of tapped blocks.
        width: Of the tower's tokens.
        hidden: Of SAF.
        anchors: Of SCA, for each block.
        positions: Rows of each position table of SCA.
    """

    def __init__(
        self,
        blocks: int,
        width: int,
        *,
        hidden: int,
        anchors: int = ANCHORS,
        positions: int = POSITIONS,
    ) -> None:
        super().__init__()
        self.anomaly_token = nn.Parameter(torch.zeros(width))
        self.normal_token = nn.Parameter(torch.zeros(width))
        self.ln_post = nn.LayerNorm(width)
        self.attentions = nn.ModuleList(
            SpatialCrossAttention(width, anchors, positions) for _ in range(blocks)
        )
        self.alignments = nn.ModuleList(SelfAlignment(width, hidden) for _ in range(blocks))

    @property
    def of_blocks(self) -> list[tuple[SpatialCrossAttention, SelfAlignment]]:
        """SCA and SAF of each tapped block."""
        pairs = list(zip(self.attentions, self.alignments, strict=True))
        return cast("list[tuple[SpatialCrossAttention, SelfAlignment]]", pairs)


def random_parts(blocks: int, width: int, seed: int) -> VisualAdParts:
    """Build parts of seeded random weights, in eval mode.

    They are drawn far enough from zero that each of them shows in the map: the attention is not
    flat, places differ from one another, and what the anchors gather is not small beside a token.
    """
    parts = VisualAdParts(blocks, width, hidden=width).eval()
    randomise_weights(parts, seed)
    with torch.no_grad():
        parts.anomaly_token.mul_(20)
        parts.normal_token.mul_(20)
        for attention, alignment in parts.of_blocks:
            attention.query_norm.weight.mul_(4)
            attention.query_norm.bias.mul_(10)
            attention.key_norm.weight.sub_(1).mul_(4).add_(1)
            attention.positions.mul_(5)
            attention.gate.bias.mul_(20)
            attention.output.bias.mul_(5)
            attention.residual_scale.fill_(0.5)
            alignment.inner.bias.mul_(5)
            alignment.outer.bias.mul_(5)
    return parts
