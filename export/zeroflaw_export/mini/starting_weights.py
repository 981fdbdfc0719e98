"""Where a small tower starts: cosines for patches, waves for places, likeness for attention.

Towers that see millions of photos learn such filters, and which places are near each other, by
themselves; with some thousands of frames it saves most of the training to start from them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

# Luminance and two colour differences, orthonormal.
_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
_LUMINANCE_SHARE = 0.7


def cosine_basis(width: int, patch: int) -> torch.Tensor:
    """Make filters of rising frequency, each amplified as much as photos lack it.

    Args:
        width: Number of filters.
        patch: Side of a patch, px.

    Returns:
        float32 [width, 3, patch, patch]; on pixels of unit variance each filter's output is
        about 1.
    """
    lit = round(width * _LUMINANCE_SHARE)
    counts = (lit, (width - lit + 1) // 2, (width - lit) // 2)
    place = (np.arange(patch) + 0.5) * np.pi / patch
    waves = np.cos(place[None] * np.arange(patch)[:, None])
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    order = sorted(
        ((u, v) for u in range(patch) for v in range(patch)), key=lambda f: (f[0] + f[1], f)
    )
    filters = [
        tone[:, None, None] * np.outer(waves[u], waves[v]) * (1 + np.hypot(u, v)) / patch
        for tone, count in zip(_COLOURS, counts, strict=True)
        for u, v in order[:count]
    ]
    return torch.from_numpy(np.stack(filters)).float()


def place_waves(grid: int, width: int) -> torch.Tensor:
    """Make sines and cosines of each patch's row and column, so that near patches are alike.

    Args:
        grid: Patches along one side.
        width: Width of the tower, a multiple of 4.

    Returns:
        float32 [grid * grid, width] in [-0.1, 0.1].
    """
    frequencies = np.pi * np.geomspace(1 / grid, 0.5, width // 4)
    phase = np.arange(grid)[:, None] * frequencies
    line = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    rows = np.broadcast_to(line[:, None], (grid, grid, width // 2))
    columns = np.broadcast_to(line[None], (grid, grid, width // 2))
    waves = np.concatenate([rows, columns], axis=-1).reshape(grid * grid, width)
    return torch.from_numpy(0.1 * waves).float()


def start_alike(attention: nn.MultiheadAttention, generator: torch.Generator) -> None:
    """Start an attention as trained ones look: each token attends to those that are like it.

    After Trockman and Kolter, Mimetic Initialization of Self-Attention Layers (arXiv 2305.09828):
    the product of queries and keys is near the identity, that of values and output near its
    negative.

    Args:
        attention: Changed in place.
    """
    width, heads = attention.embed_dim, attention.num_heads
    size = width // heads

    def near_identity(noise: float, identity: float) -> torch.Tensor:
        random = torch.randn(width, width, generator=generator) / width**0.5
        mixed: torch.Tensor = noise * random + identity * torch.eye(width)
        return mixed

    with torch.no_grad():
        queries, keys = [], []
        for _ in range(heads):
            left, values, right = torch.linalg.svd(near_identity(0.7, 0.7))
            root = values[:size].sqrt()
            queries.append((left[:, :size] * root).T)
            keys.append((right[:size].T * root).T)
        left, values, right = torch.linalg.svd(near_identity(0.4, -0.4))
        root = values.sqrt()
        attention.in_proj_weight.copy_(torch.cat([*queries, *keys, root[:, None] * right]))
        attention.out_proj.weight.copy_(left * root)
