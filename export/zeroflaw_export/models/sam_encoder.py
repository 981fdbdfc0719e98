"""The SAM image encoder as an export module: uint8 image in, features out.

The arithmetic is that of image_encoder.py, with the same weights. These are written otherwise,
each exact:

- The decomposed relative position; see `sam_attention`.
- Window padding. SAM pads windows with zeros before the QKV projection; the projection of zero is
  its bias, so it is enough to pad what the projection gives and add the bias afterwards.
- QKV is three projections: one would have to be split again, which copies all of it.
- Tokens stay in one row between blocks. OpenVINO reorders tensors of four axes, as those of
  convolutions, around each norm.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Block
from torch import nn
from torch.nn import functional

from zeroflaw_export.models.architectures import SAM_MEAN, SAM_STD, float32
from zeroflaw_export.models.sam_attention import (
    ATTENTION_OF_TARGET,
    AttentionForm,
    RelativePositionAttention,
)


class SamPreprocess(nn.Module):
    """Normalisation and padding (sam.py:164-174).

    SAM pads the image with zeros *after* normalisation, that is with its mean colour, which no
    uint8 can hold; the graph therefore takes the size of the content and blanks the rest itself.

    Args:
        size: Side of the padded image, px.
    """

    mean: torch.Tensor
    std: torch.Tensor
    pixel_index: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", float32(SAM_MEAN))
        self.register_buffer("std", float32(SAM_STD))
        self.register_buffer("pixel_index", torch.arange(size, dtype=torch.int32))

    def forward(self, image: torch.Tensor, image_size: torch.Tensor) -> torch.Tensor:
        """Normalise the content and blank the rest.

        Args:
            image: uint8 [B, S, S, 3], RGB, content at the top left.
            image_size: int32 [2], height and width of the content, px; [B, 2] where B may be
                more than 1.

        Returns:
            float32 [B, 3, S, S].
        """
        if image_size.ndim == 1:
            inside_y = self.pixel_index < image_size[0]
            inside_x = self.pixel_index < image_size[1]
            inside = (inside_y[:, None] & inside_x[None, :])[None, :, :, None].float()
        else:
            rows, columns = (self.pixel_index < image_size[:, axis, None] for axis in (0, 1))
            inside = (rows[:, :, None] & columns[:, None, :])[..., None].float()
        pixels = (image.float() - self.mean) / self.std * inside
        return pixels.permute(0, 3, 1, 2)


class PyramidSamEncoder(nn.Module):
    """Preprocessing and an image encoder on a convolutional trunk."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.preprocess = SamPreprocess(sam.image_encoder.img_size)
        self.image_encoder: Any = sam.image_encoder

    def forward(self, image: torch.Tensor, image_size: torch.Tensor) -> torch.Tensor:
        """Encode images, as `SamEncoder` does.

        Args:
            image: uint8 [B, S, S, 3], RGB, content at the top left.
            image_size: As `SamPreprocess` takes it.

        Returns:
            Features, float32 [B, C, S / 8, S / 8].
        """
        encoder = self.image_encoder
        x = encoder.joined(list(encoder.trunk(self.preprocess(image, image_size))))
        return _run_neck(encoder.neck, x.flatten(2).transpose(1, 2), x.shape[-1])


class SamEncoder(nn.Module):
    """Preprocessing and SAM's ViT (image_encoder.py).

    Args:
        attention: How the relative position is written: the numbers are the same. Default: the form
            of the reference graph.

    Raises:
        ExportError: There is no such form of attention.
    """

    def __init__(
        self, sam: Sam, attention: AttentionForm = ATTENTION_OF_TARGET["onnxruntime"]
    ) -> None:
        super().__init__()
        encoder = sam.image_encoder
        self.patch_embed = encoder.patch_embed.proj
        self.pos_embed = nn.Parameter(encoder.pos_embed.detach().flatten(1, 2))
        self.neck: Any = encoder.neck
        self.grid = encoder.img_size // encoder.patch_embed.proj.stride[0]
        blocks = [_ExportBlock(block, self.grid, attention) for block in encoder.blocks]
        self.blocks = nn.ModuleList(blocks)
        # The same constant serves every block of one window size.
        places = {block.window: block.key_places() for block in blocks}
        self.key_place_names = [f"key_place_{block.window}" for block in blocks]
        for window, place in places.items():
            self.register_buffer(f"key_place_{window}", place)
        self.preprocess = SamPreprocess(encoder.img_size)

    def forward(self, image: torch.Tensor, image_size: torch.Tensor) -> torch.Tensor:
        """Encode images.

        Args:
            image: uint8 [B, S, S, 3], RGB, content at the top left; B is 1 unless the form of
                attention is `additive`, the others have constants for one image.
            image_size: As `SamPreprocess` takes it.

        Returns:
            Features, float32 [B, C, S / 16, S / 16].
        """
        x = self.patch_embed(self.preprocess(image, image_size)).flatten(2).transpose(1, 2)
        x = x + self.pos_embed
        for block, name in zip(self.blocks, self.key_place_names, strict=True):
            x = block(x, getattr(self, name))
        return _run_neck(self.neck, x, self.grid)


class _ExportBlock(nn.Module):
    """One transformer block on a grid of tokens, windowed or global."""

    def __init__(self, block: Block, grid: int, form: AttentionForm) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.norm2 = block.norm2
        self.mlp = block.mlp
        self.q, self.k, self.v = _three_projections(block.attn.qkv)
        self.proj = block.attn.proj
        self.heads = block.attn.num_heads
        self.grid = grid
        self.window = block.window_size or grid
        self.padded = -(-grid // self.window) * self.window
        self.attention = RelativePositionAttention(
            block.attn, self.window, form, in_groups=not block.window_size
        )

    def forward(self, x: torch.Tensor, key_place: torch.Tensor | None) -> torch.Tensor:
        """Run the block.

        Args:
            x: Tokens, float32 [B, G * G, C].
            key_place: Where each key stands, from `key_places`.

        Returns:
            Tokens of the same shape.
        """
        normed = self.norm1(x)
        q, k, v = (self._windows(normed, part) for part in (self.q, self.k, self.v))
        x = x + self.proj(self._tokens(self.attention(q, k, v, key_place)))
        mapped: torch.Tensor = x + self.mlp(self.norm2(x))
        return mapped

    def _windows(self, x: torch.Tensor, projection: nn.Linear) -> torch.Tensor:
        """Project tokens: windows x heads x tokens of one window x width, image by image."""
        side, count, batch = self.window, self.padded // self.window, x.shape[0]
        if side == self.grid:
            whole: torch.Tensor = projection(x)
            return whole.reshape(batch, side * side, self.heads, -1).transpose(1, 2)
        margin = self.padded - self.grid
        x = functional.linear(x, projection.weight).reshape(batch, self.grid, self.grid, -1)
        x = functional.pad(x, (0, 0, 0, margin, 0, margin)) + projection.bias
        x = x.reshape(batch * count, side, count, side, self.heads, -1).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(batch * count * count, self.heads, side * side, -1)

    def _tokens(self, windows: torch.Tensor) -> torch.Tensor:
        """Put what `_windows` took apart together again: [B, G * G, C]."""
        side, count = self.window, self.padded // self.window
        batch = windows.shape[0] // (count * count)
        if side == self.grid:
            return windows.transpose(1, 2).flatten(2)
        x = windows.reshape(batch * count, count, self.heads, side, side, -1)
        x = x.permute(0, 3, 1, 4, 2, 5).reshape(batch, self.padded, self.padded, -1)
        return x[:, : self.grid, : self.grid].flatten(1, 2)

    def key_places(self) -> torch.Tensor | None:
        """Return the constant that `forward` takes, the same for every block of one window size."""
        return self.attention.key_places((self.padded // self.window) ** 2)


def _three_projections(qkv: nn.Linear) -> list[nn.Linear]:
    """Split the projection to queries, keys and values into layers of their own."""
    projections = []
    weights = qkv.weight.detach().chunk(3)
    biases = qkv.bias.detach().chunk(3)
    for weight, bias in zip(weights, biases, strict=True):
        projection = nn.Linear(qkv.in_features, qkv.in_features, device="meta")
        projection.weight, projection.bias = nn.Parameter(weight), nn.Parameter(bias)
        projections.append(projection)
    return projections


def _run_neck(neck: Any, tokens: torch.Tensor, grid: int) -> torch.Tensor:  # noqa: ANN401 - a Sequential
    """Run SAM's neck: tokens [B, G * G, C] -> features [B, C', G, G]."""
    narrow, norm_1, mix, norm_2 = neck

    def on_grid(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).reshape(x.shape[0], -1, grid, grid)

    x = layer_norm_2d(functional.linear(tokens, narrow.weight.flatten(1)), norm_1)
    x = mix(on_grid(x)).flatten(2)
    return on_grid(layer_norm_2d(x.transpose(1, 2), norm_2))


def layer_norm_2d(x: torch.Tensor, norm: Any) -> torch.Tensor:  # noqa: ANN401 - LayerNorm2d is untyped
    """Run SAM's LayerNorm2d on channels-last tokens, as a plain LayerNormalization."""
    return functional.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
