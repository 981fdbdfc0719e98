"""The SAM image encoder as an export module: uint8 image in, features out.

The arithmetic is that of image_encoder.py, with the same weights. Two things are written
otherwise, each exact: the decomposed relative position (see `sam_attention`), and the padding of
windows. SAM pads windows with zeros before the QKV projection; the projection of zero is its
bias, so it is enough to pad what the projection gives and add the bias afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Block
from torch import nn
from torch.nn import functional

from zeroflaw_export.architectures import SAM_MEAN, SAM_STD, float32
from zeroflaw_export.sam_attention import AttentionForm, RelativePositionAttention


class SamEncoder(nn.Module):
    """Normalisation, padding and SAM's ViT (sam.py:164-174, image_encoder.py).

    SAM pads the image with zeros *after* normalisation, that is with its mean colour, which no
    uint8 can hold; the graph therefore takes the size of the content and blanks the rest itself.

    Args:
        sam: The SAM whose image encoder is exported.
        attention: How the relative position is written: the numbers are the same.

    Raises:
        ExportError: There is no such form of attention.
    """

    mean: torch.Tensor
    std: torch.Tensor
    pixel_index: torch.Tensor

    def __init__(self, sam: Sam, attention: AttentionForm = "extended") -> None:
        super().__init__()
        encoder = sam.image_encoder
        self.patch_embed = encoder.patch_embed.proj
        self.pos_embed = encoder.pos_embed
        self.neck: Any = encoder.neck
        grid = encoder.img_size // encoder.patch_embed.proj.stride[0]
        blocks = [_ExportBlock(block, grid, attention) for block in encoder.blocks]
        self.blocks = nn.ModuleList(blocks)
        # The same constant serves every block of one window size.
        places = {block.window: block.key_places() for block in blocks}
        self.key_place_names = [f"key_place_{block.window}" for block in blocks]
        for window, place in places.items():
            self.register_buffer(f"key_place_{window}", place)
        self.register_buffer("mean", float32(SAM_MEAN))
        self.register_buffer("std", float32(SAM_STD))
        self.register_buffer("pixel_index", torch.arange(encoder.img_size, dtype=torch.int32))

    def forward(self, image: torch.Tensor, image_size: torch.Tensor) -> torch.Tensor:
        """Encodes one image.

        Args:
            image: uint8 [1, S, S, 3], RGB, content at the top left.
            image_size: int32 [2], height and width of the content, px.

        Returns:
            Features, float32 [1, C, S / 16, S / 16].
        """
        inside_y = self.pixel_index < image_size[0]
        inside_x = self.pixel_index < image_size[1]
        inside = (inside_y[:, None] & inside_x[None, :])[None, :, :, None].float()
        pixels = (image.float() - self.mean) / self.std * inside
        x = self.patch_embed(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.pos_embed
        for block, name in zip(self.blocks, self.key_place_names, strict=True):
            x = block(x, getattr(self, name))
        narrow, norm_1, mix, norm_2 = self.neck
        x = layer_norm_2d(functional.linear(x, narrow.weight.flatten(1)), norm_1)
        x = mix(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return layer_norm_2d(x, norm_2).permute(0, 3, 1, 2)


class _ExportBlock(nn.Module):
    """One transformer block on a grid of tokens, windowed or global."""

    def __init__(self, block: Block, grid: int, form: AttentionForm) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.norm2 = block.norm2
        self.mlp = block.mlp
        self.qkv = block.attn.qkv
        self.proj = block.attn.proj
        self.heads = block.attn.num_heads
        self.grid = grid
        self.window = block.window_size or grid
        self.padded = -(-grid // self.window) * self.window
        self.attention = RelativePositionAttention(
            block.attn, self.window, form, in_groups=not block.window_size
        )

    def forward(self, x: torch.Tensor, key_place: torch.Tensor | None) -> torch.Tensor:
        """Runs the block.

        Args:
            x: Tokens, float32 [1, G, G, C].
            key_place: Where each key stands, from `key_places`.

        Returns:
            Tokens of the same shape.
        """
        qkv = functional.linear(self.norm1(x), self.qkv.weight)
        x = x + self.proj(self._attention(qkv, key_place))
        mapped: torch.Tensor = x + self.mlp(self.norm2(x))
        return mapped

    def _attention(self, qkv: torch.Tensor, key_place: torch.Tensor | None) -> torch.Tensor:
        side, count = self.window, self.padded // self.window
        margin = self.padded - self.grid
        qkv = functional.pad(qkv, (0, 0, 0, margin, 0, margin)) + self.qkv.bias
        # Three tensors of windows x heads x tokens of one window x width.
        q, k, v = (
            qkv.reshape(count, side, count, side, 3, self.heads, -1)
            .permute(4, 0, 2, 5, 1, 3, 6)
            .reshape(3, count * count, self.heads, side * side, -1)
            .unbind(0)
        )
        out: torch.Tensor = self.attention(q, k, v, key_place)
        out = out.reshape(count, count, self.heads, side, side, -1).permute(0, 3, 1, 4, 2, 5)
        out = out.reshape(1, self.padded, self.padded, -1)
        return out[:, : self.grid, : self.grid]

    def key_places(self) -> torch.Tensor | None:
        """The constant that `forward` takes, the same for every block of one window size."""
        return self.attention.key_places((self.padded // self.window) ** 2)


def layer_norm_2d(x: torch.Tensor, norm: Any) -> torch.Tensor:  # noqa: ANN401 - LayerNorm2d is untyped
    """SAM's LayerNorm2d on channels-last tokens, as a plain LayerNormalization."""
    return functional.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
