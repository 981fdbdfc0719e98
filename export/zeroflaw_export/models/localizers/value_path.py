"""A second path of attention through a ViT, of values with values.

CLIP Surgery (arXiv 2304.05653) sets values in for queries and keys, with the weights of the block
as they are. The original path stays: it is what every block reads, and gives the CLS token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.nn import functional


@dataclass(frozen=True)
class DualBlock:
    """What a block gives in both paths, each float32 [B, tokens, width], CLS first.

    Attributes:
        attended: The original path after the block's attention, before its MLP.
        stream: The original path after the block.
        values: What attention of values with values adds to the second path; it has no MLP.
    """

    attended: torch.Tensor
    stream: torch.Tensor
    values: torch.Tensor


def dual_block(block: ResidualAttentionBlock, stream: torch.Tensor) -> DualBlock:
    """Run a block of a ViT in both paths.

    Args:
        block: Batch first.
        stream: The original path before the block, float32 [B, tokens, width].
    """
    attention = block.attn
    heads = attention.num_heads
    normed = block.ln_1(stream)
    projected = functional.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    batch, tokens, width = normed.shape
    queries, keys, values = (
        part.reshape(batch, tokens, heads, width // heads).transpose(1, 2)
        for part in projected.chunk(3, dim=-1)
    )

    # Both paths are heads of one attention: the compiler of TensorRT-RTX 1.7.1 has no kernel for an
    # attention whose keys are its values, and dies where they are its queries as well.
    both = functional.scaled_dot_product_attention(
        torch.cat([queries, values], dim=1),
        torch.cat([keys, values], dim=1),
        torch.cat([values, values], dim=1),
    )
    original, second = (
        block.ls_1(attention.out_proj(part.transpose(1, 2).reshape(batch, tokens, width)))
        for part in both.chunk(2, dim=1)
    )
    attended = stream + original
    return DualBlock(
        attended=attended,
        stream=attended + block.ls_2(block.mlp(block.ln_2(attended))),
        values=second,
    )
