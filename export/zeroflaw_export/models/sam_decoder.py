"""SAM's prompt encoder and mask decoder as one export module with fixed shapes.

The arithmetic is that of prompt_encoder.py, mask_decoder.py and transformer.py. Three things
are written otherwise, each exact:

- A fixed number of prompt rows. SAM attends to every row it is given, so rows that are not in
  use (label -2) are masked out as keys; no token then depends on them.
- The transposed convolutions of the upscaling have stride 2 and kernel 2, so each is a matrix
  product on channels-last tokens; only the finished masks are shuffled into image order.
- No boolean indexing, no repeat_interleave, no resize: nothing depends on data.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import nn
from torch.nn import functional

from zeroflaw_engines.contract import LABEL_NOT_A_POINT, LABEL_UNUSED, MASKS_PER_PROMPT
from zeroflaw_export.models.sam_encoder import layer_norm_2d

# exp(-1e4) is 0 in float32 and float16 alike, and -1e4 itself is finite in both.
_MASKED = -1e4


class SamDecoder(nn.Module):
    """Prompts and features in, all four low-res logits and predicted IoUs out."""

    image_pe: torch.Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompt_encoder: Any = sam.prompt_encoder
        self.mask_decoder: Any = sam.mask_decoder
        self.transformer: Any = sam.mask_decoder.transformer
        self.image_size = float(sam.image_encoder.img_size)
        self.grid = sam.prompt_encoder.image_embedding_size[0]
        self.register_buffer("image_pe", sam.prompt_encoder.get_dense_pe().flatten(2).mT.detach())

    def forward(
        self,
        features: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
        has_mask_input: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode a batch of prompts on one image.

        Args:
            features: float32 [1, C, G, G] from the SAM encoder.
            point_coords: float32 [B, N, 2], (x, y) px of the padded image.
            point_labels: int32 [B, N]: 1 positive, 0 negative, 2 and 3 box corners, -1 SAM's
                not-a-point row (one of them whenever there is no box), -2 unused.
            mask_input: float32 [B, 1, 4G, 4G], low-res logits of an earlier call.
            has_mask_input: float32 [B], 1 if `mask_input` counts, else 0.

        Returns:
            Low-res logits, float32 [B, 4, 4G, 4G].
            Predicted IoUs, float32 [B, 4], unbounded regressions.
        """
        prompts = self._embed_points(point_coords, point_labels)
        unused = (point_labels == LABEL_UNUSED).float() * _MASKED
        decoder = self.mask_decoder
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        batch = point_coords.shape[0]
        tokens = torch.cat([output_tokens[None].expand(batch, -1, -1), prompts], dim=1)
        key_bias = functional.pad(unused, (len(output_tokens), 0))[:, None, None, :]

        dense = self._embed_masks(mask_input, has_mask_input)
        image = features.flatten(2).mT + dense
        tokens, image = self._two_way_transformer(tokens, image, key_bias)

        logits = self._masks(image, tokens[:, 1 : 1 + MASKS_PER_PROMPT])
        return logits, decoder.iou_prediction_head(tokens[:, 0])

    def _embed_points(self, coords: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        encoder = self.prompt_encoder
        unit = 2 * ((coords + 0.5) / self.image_size) - 1
        phase = 2 * math.pi * (unit @ encoder.pe_layer.positional_encoding_gaussian_matrix)
        position = torch.cat([phase.sin(), phase.cos()], dim=-1)
        label = labels[..., None]
        embedded: torch.Tensor = position * (label >= 0).float()
        embedded = (
            embedded + (label == LABEL_NOT_A_POINT).float() * encoder.not_a_point_embed.weight
        )
        for value, table in enumerate(encoder.point_embeddings):
            embedded = embedded + (label == value).float() * table.weight
        return embedded

    def _embed_masks(self, mask: torch.Tensor, has_mask: torch.Tensor) -> torch.Tensor:
        down = self.prompt_encoder.mask_downscaling
        x = _channels_first_norm(down[0](mask), down[1])
        x = _channels_first_norm(down[3](down[2](x)), down[4])
        x = down[6](down[5](x)).flatten(2).mT
        has = has_mask[:, None, None]
        embedded: torch.Tensor = has * x + (1 - has) * self.prompt_encoder.no_mask_embed.weight
        return embedded

    def _two_way_transformer(
        self, tokens: torch.Tensor, image: torch.Tensor, key_bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        queries, keys = tokens, image
        for layer in self.transformer.layers:
            queries, keys = self._two_way_block(layer, queries, keys, tokens, key_bias)
        attended = _attend(
            self.transformer.final_attn_token_to_image,
            queries + tokens,
            keys + self.image_pe,
            keys,
        )
        return self.transformer.norm_final_attn(queries + attended), keys

    def _two_way_block(
        self,
        layer: TwoWayAttentionBlock,
        queries: torch.Tensor,
        keys: torch.Tensor,
        tokens: torch.Tensor,
        key_bias: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if layer.skip_first_layer_pe:
            queries = _attend(layer.self_attn, queries, queries, queries, key_bias)
        else:
            q = queries + tokens
            queries = queries + _attend(layer.self_attn, q, q, queries, key_bias)
        queries = layer.norm1(queries)
        located = keys + self.image_pe
        queries = layer.norm2(
            queries + _attend(layer.cross_attn_token_to_image, queries + tokens, located, keys)
        )
        queries = layer.norm3(queries + layer.mlp(queries))
        keys = layer.norm4(
            keys
            + _attend(layer.cross_attn_image_to_token, located, queries + tokens, queries, key_bias)
        )
        return queries, keys

    def _masks(self, image: torch.Tensor, mask_tokens: torch.Tensor) -> torch.Tensor:
        first, norm, gelu, second, _ = self.mask_decoder.output_upscaling
        batch, grid = image.shape[0], self.grid
        x = _upscale_tokens(image, first)
        x = gelu(layer_norm_2d(x, norm))
        x = gelu(_upscale_tokens(x, second))
        hyper = torch.stack(
            [
                mlp(mask_tokens[:, i])
                for i, mlp in enumerate(self.mask_decoder.output_hypernetworks_mlps)
            ],
            dim=1,
        )
        # [B, (row, column, row2, column2, row4, column4), masks] into image order
        masks: torch.Tensor = (x.reshape(batch, -1, x.shape[-1]) @ hyper.mT).reshape(
            batch, grid, grid, 2, 2, 2, 2, MASKS_PER_PROMPT
        )
        return masks.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(
            batch, MASKS_PER_PROMPT, 4 * grid, 4 * grid
        )


def _attend(
    attention: Attention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    key_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run SAM's attention with an additive bias on its keys; [B, N, C] in and out."""
    heads = attention.num_heads
    width = attention.internal_dim // heads
    q = attention.q_proj(q).reshape(q.shape[0], -1, heads, width).transpose(1, 2)
    k = attention.k_proj(k).reshape(k.shape[0], -1, heads, width).transpose(1, 2)
    v = attention.v_proj(v).reshape(v.shape[0], -1, heads, width).transpose(1, 2)
    scores = (q * (1 / math.sqrt(width))) @ k.mT
    if key_bias is not None:
        scores = scores + key_bias
    out = scores.softmax(dim=-1) @ v
    mapped: torch.Tensor = attention.out_proj(out.transpose(1, 2).flatten(2))
    return mapped


def _upscale_tokens(x: torch.Tensor, conv: nn.ConvTranspose2d) -> torch.Tensor:
    """Run a 2x2, stride-2 transposed convolution on tokens: [..., C] -> [..., 2 * 2, C']."""
    weight = conv.weight.permute(0, 2, 3, 1)
    bias = conv.bias
    assert bias is not None  # noqa: S101 - SAM's upscaling has biases; this is for mypy
    channels = weight.shape[-1]
    y = x @ weight.reshape(weight.shape[0], -1) + bias.repeat(4)
    return y.reshape(*y.shape[:-1], 4, channels)


def _channels_first_norm(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """Run SAM's LayerNorm2d on an image, float32 [B, C, H, W]."""
    return layer_norm_2d(x.permute(0, 2, 3, 1), norm).permute(0, 3, 1, 2)
