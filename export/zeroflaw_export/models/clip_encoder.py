"""The CLIP encoder as an export module: uint8 image in, anomaly map, score and tokens out."""

from __future__ import annotations

import torch
from open_clip.model import CLIP
from torch import nn
from torch.nn import functional

from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import CLIP_MEAN, CLIP_STD, float32
from zeroflaw_export.models.pyramid import TRUNK_STRIDES, PyramidTower

# APRIL-GAN multiplies by the constant 100, not by the learned logit_scale (test.py:172-182).
LOGIT_SCALE = 100.0


class ClipEncoder(nn.Module):
    """CLIP tower, adapters and the anomaly map of APRIL-GAN (test.py:159-183).

    Patch tokens are the raw residual stream after the tapped blocks, without `ln_post` and
    projection; those act on the CLS token alone.

    Args:
        adapters: One linear layer for each tapped block, or level of a pyramid.
        tapped_blocks: 1-based.
        image_size: Side of the square input, px.
        batched: Whether it takes several images, and gives patch tokens an axis for them.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self,
        clip: CLIP,
        adapters: LinearAdapters,
        tapped_blocks: tuple[int, ...],
        image_size: int,
        *,
        batched: bool = False,
    ) -> None:
        super().__init__()
        self.batched = batched
        self.visual = clip.visual
        self.adapters = adapters
        self.tapped_blocks = tapped_blocks
        self.register_buffer("scale", 1.0 / (255.0 * float32(CLIP_STD)))
        self.register_buffer("shift", float32(CLIP_MEAN) / float32(CLIP_STD))
        grids = token_grids(clip, tapped_blocks, image_size)
        self.upsampling = [f"upsample_{grid}" for grid in grids]
        for name, grid in dict(zip(self.upsampling, grids, strict=True)).items():
            self.register_buffer(name, bilinear_matrix(grid, image_size))

    def forward(
        self, image: torch.Tensor, text_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Localise what is closer to the abnormal sentences than to the normal ones.

        Args:
            image: uint8 [B, S, S, 3], RGB, each frame squashed to a square; B is 1 unless the
                module is batched.
            text_embeddings: float32 [2, E], L2-normalised: row 0 normal, row 1 abnormal.

        Returns:
            The anomaly map, float32 [B, S, S] in [0, 1]: mean over the blocks of P(abnormal).
            The image score, float32 [B] in [0, 1]: P(abnormal) of the CLS token.
            The patch tokens, float32 [blocks, tokens, width], L2-normalised, before the adapters;
            of a pyramid, its `reference_tokens`. With a first axis of B if it is batched.
        """
        pixels = (image.float() * self.scale - self.shift).permute(0, 3, 1, 2)
        seen = self.visual.forward_intermediates(
            pixels,
            indices=[block - 1 for block in self.tapped_blocks],
            normalize_intermediates=False,
            output_fmt="NLC",
        )
        taps = seen["image_intermediates"]
        maps = []
        for tokens, name in zip(self.adapters(taps), self.upsampling, strict=True):
            logits = LOGIT_SCALE * functional.normalize(tokens, dim=-1) @ text_embeddings.T
            maps.append(_anomaly_map(logits, getattr(self, name)))
        cls = functional.normalize(seen["image_features"], dim=-1)
        cls_logits = LOGIT_SCALE * cls @ text_embeddings.T
        reference = [seen["reference_tokens"]] if "reference_tokens" in seen else taps
        unit = [functional.normalize(tokens, dim=-1) for tokens in reference]
        patch_tokens = torch.stack(unit, dim=1) if self.batched else torch.cat(unit)
        scores = torch.softmax(cls_logits, dim=-1)[:, 1]
        return torch.stack(maps).mean(dim=0), scores, patch_tokens


def _anomaly_map(logits: torch.Tensor, upsample: torch.Tensor) -> torch.Tensor:
    # The reference upsamples both logits and then takes softmax over the two classes.
    # Upsampling is linear and a softmax over two is the sigmoid of their difference, so one
    # upsampling serves; as two matrix products it needs no Resize in the graph.
    grid = upsample.shape[1]
    difference = (logits[..., 1] - logits[..., 0]).reshape(-1, grid, grid)
    return torch.sigmoid(upsample @ difference @ upsample.T)


def token_grids(clip: CLIP, tapped_blocks: tuple[int, ...], image_size: int) -> tuple[int, ...]:
    """Return the side of the grid of tokens of each tapped block, or level of a pyramid."""
    if isinstance(clip.visual, PyramidTower):
        return tuple(image_size // TRUNK_STRIDES[level] for level in tapped_blocks)
    return (image_size // clip.visual.patch_size[0],) * len(tapped_blocks)


def bilinear_matrix(source: int, target: int, *, align_corners: bool = True) -> torch.Tensor:
    """Return bilinear upsampling along one axis, as a matrix.

    Args:
        align_corners: As `torch.nn.functional.interpolate` has it.

    Returns:
        float32 [target, source]; every row sums to 1.
    """
    unit = torch.eye(source, dtype=torch.float64)[None]
    columns = functional.interpolate(unit, size=target, mode="linear", align_corners=align_corners)
    return columns[0].T.float().contiguous()
