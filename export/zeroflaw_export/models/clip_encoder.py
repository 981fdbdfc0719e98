"""The CLIP encoder as an export module: uint8 image in, anomaly map, score and tokens out."""

from __future__ import annotations

import torch
from open_clip.model import CLIP
from torch import nn
from torch.nn import functional

from zeroflaw_export.models.image_tower import ImageTower
from zeroflaw_export.models.pyramid import TRUNK_STRIDES, PyramidTower

# APRIL-GAN multiplies by the constant 100, not by the learned logit_scale (test.py:172-182).
LOGIT_SCALE = 100.0


class ClipEncoder(ImageTower):
    """CLIP tower, adapters and the anomaly map of APRIL-GAN (test.py:159-183).

    Patch tokens are the raw residual stream after the tapped blocks, without `ln_post` and
    projection; those act on the CLS token alone.

    Args:
        adapters: What makes a map of the tokens: one linear layer for each tapped block, or level
            of a pyramid; of a subclass, what its `anomaly_map` runs.
        tapped_blocks: 1-based.
        image_size: Side of the square input, px.
        align_corners: How maps are upsampled; APRIL-GAN's are with it.
        batched: Whether it takes several images, and gives patch tokens an axis for them.
    """

    def __init__(
        self,
        clip: CLIP,
        adapters: nn.Module,
        tapped_blocks: tuple[int, ...],
        image_size: int,
        *,
        batched: bool = False,
        align_corners: bool = True,
    ) -> None:
        super().__init__(clip, batched=batched)
        self.adapters = adapters
        self.tapped_blocks = tapped_blocks
        grids = token_grids(clip, tapped_blocks, image_size)
        self.upsampling = [f"upsample_{grid}" for grid in grids]
        for name, grid in dict(zip(self.upsampling, grids, strict=True)).items():
            self.register_buffer(
                name, bilinear_matrix(grid, image_size, align_corners=align_corners)
            )

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
        seen = self.visual.forward_intermediates(
            self.pixels(image),
            indices=[block - 1 for block in self.tapped_blocks],
            normalize_intermediates=False,
            output_fmt="NLC",
        )
        taps = seen["image_intermediates"]
        anomaly_map = self.anomaly_map(taps, text_embeddings)
        cls = functional.normalize(seen["image_features"], dim=-1)
        cls_logits = LOGIT_SCALE * cls @ text_embeddings.T
        reference = [seen["reference_tokens"]] if "reference_tokens" in seen else taps
        patch_tokens = self.patch_tokens(reference)
        scores = torch.softmax(cls_logits, dim=-1)[:, 1]
        return anomaly_map, scores, patch_tokens

    def anomaly_map(self, taps: list[torch.Tensor], text_embeddings: torch.Tensor) -> torch.Tensor:
        """Compute the map of the tapped tokens; a method of another map has its own.

        Args:
            taps: For each block, float32 [B, patches, width].
            text_embeddings: float32 [2, E], L2-normalised: row 0 normal, row 1 abnormal.

        Returns:
            float32 [B, S, S] in [0, 1].
        """
        maps = []
        for tokens, name in zip(self.adapters(taps), self.upsampling, strict=True):
            logits = LOGIT_SCALE * functional.normalize(tokens, dim=-1) @ text_embeddings.T
            difference = logits[..., 1] - logits[..., 0]
            maps.append(torch.sigmoid(upsampled(difference, getattr(self, name))))
        return torch.stack(maps).mean(dim=0)


def upsampled(difference: torch.Tensor, upsample: torch.Tensor) -> torch.Tensor:
    """Upsample the difference of two logits, abnormal less normal, to the image.

    Args:
        difference: float32 [B, grid * grid].
        upsample: float32 [S, grid], from `bilinear_matrix`.

    Returns:
        float32 [B, S, S].
    """
    # The reference upsamples both logits and then takes softmax over the two classes.
    # Upsampling is linear and a softmax over two is the sigmoid of their difference, so one
    # upsampling serves; as two matrix products it needs no Resize in the graph.
    grid = upsample.shape[1]
    return upsample @ difference.reshape(-1, grid, grid) @ upsample.T


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
