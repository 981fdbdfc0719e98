"""Seeded random weights that exercise every part of a network.

Default initialisations leave SAM's position embedding and relative-position tables at zero and
every norm at the identity; a parity check on such weights would not notice if the export dropped
them. Here every tensor is drawn away from those values.
"""

from __future__ import annotations

import math

import torch
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from torch import nn

_NORM_SPREAD = 0.1
_BIAS_STD = 0.05
_EMBEDDING_STD = 0.2


def randomise_weights(module: nn.Module, seed: int) -> None:
    """Fill every parameter of a module in place, the same for the same seed.

    Matrices get variance 1 / fan-in, norms scatter around the identity, embeddings and position
    tables have a standard deviation of 0.2.

    Args:
        seed: Any integer.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = (nn.LayerNorm, nn.GroupNorm)
    with torch.no_grad():
        for owner in module.modules():
            is_norm = isinstance(owner, norms) or type(owner).__name__ == "LayerNorm2d"
            is_matrix = isinstance(
                owner,
                (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.MultiheadAttention),
            )
            if isinstance(owner, PositionEmbeddingRandom):
                # a buffer, but a random one that belongs to the checkpoint
                owner.positional_encoding_gaussian_matrix.normal_(generator=generator)
            for name, parameter in sorted(owner.named_parameters(recurse=False)):
                parameter.normal_(generator=generator)
                if is_norm:
                    parameter.mul_(_NORM_SPREAD).add_(1.0 if name == "weight" else 0.0)
                elif parameter.ndim == 1 or "bias" in name:
                    parameter.mul_(_EMBEDDING_STD if "embedding" in name else _BIAS_STD)
                elif is_matrix:
                    parameter.div_(math.sqrt(parameter[0].numel()))
                elif "proj" in name:
                    parameter.div_(math.sqrt(parameter.shape[0]))
                else:
                    parameter.mul_(_EMBEDDING_STD)
