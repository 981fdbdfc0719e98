"""Starts the image tower of CLIP from the blocks of SAM's encoder.

Windows and relative positions let SAM's encoder learn several times faster than a plain ViT. Both
are ViTs of the same width, depth and heads on patches of the same pixels, so the tower can take
the encoder's blocks over, and has to learn only to do without windows and relative positions.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import nn

from zeroflaw_export.architectures import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD, float32


def start_from_sam(visual: nn.Module, sam: Sam) -> None:
    """Copies patch embedding, positions and blocks of SAM's encoder into a tower, in place.

    Args:
        visual: open_clip's VisionTransformer without `ln_pre`.
        sam: Of the same grid, width, depth and number of heads.
    """
    tower: Any = visual
    encoder: Any = sam.image_encoder
    with torch.no_grad():
        # (x - SAM's mean) / SAM's std, written in what CLIP's normalisation gives.
        scale = 255 * float32(CLIP_STD) / float32(SAM_STD)
        shift = (255 * float32(CLIP_MEAN) - float32(SAM_MEAN)) / float32(SAM_STD)
        filters, bias = encoder.patch_embed.proj.weight, encoder.patch_embed.proj.bias
        tower.conv1.weight.copy_(filters * scale[:, None, None])
        everywhere = bias + filters.sum(dim=(2, 3)) @ shift
        tower.positional_embedding[1:] = encoder.pos_embed.flatten(0, 2) + everywhere
        for block, source in zip(tower.transformer.resblocks, encoder.blocks, strict=True):
            for layer, taken in (
                (block.ln_1, source.norm1),
                (block.attn.out_proj, source.attn.proj),
                (block.ln_2, source.norm2),
                (block.mlp.c_fc, source.mlp.lin1),
                (block.mlp.c_proj, source.mlp.lin2),
            ):
                layer.weight.copy_(taken.weight)
                layer.bias.copy_(taken.bias)
            block.attn.in_proj_weight.copy_(source.attn.qkv.weight)
            block.attn.in_proj_bias.copy_(source.attn.qkv.bias)
