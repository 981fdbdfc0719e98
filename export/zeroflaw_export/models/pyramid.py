"""Towers on a convolutional trunk: the stages of EfficientNet-lite0, joined by a pyramid.

`PyramidTower` stands where open_clip has a ViT and `PyramidImageEncoder` where segment_anything
has one; both answer to the same calls. The trunk is timm's `tf_efficientnet_lite0` with every
batch norm folded into the convolution before it, so that neither checkpoint nor graph has any.
"""

from __future__ import annotations

from typing import Any, Final

import timm
import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

TRUNK: Final = "tf_efficientnet_lite0"
# Channels of the stages at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's side.
TRUNK_CHANNELS: Final = (16, 24, 40, 112, 320)
TRUNK_STRIDES: Final = (2, 4, 8, 16, 32)
# Reference banks are made of the stages at 1/8 and 1/16, on the grid of the finer one; these
# blocks of the trunk lead there from its stage at 1/4.
REFERENCE_STRIDE: Final = TRUNK_STRIDES[2]
REFERENCE_BLOCKS: Final = slice(2, 5)
REFERENCE_WIDTH: Final = TRUNK_CHANNELS[2] + TRUNK_CHANNELS[3]
# The image score reads the highest and the mean of each of the finest levels.
POOLED_LEVELS: Final = 3
# Deviations of a stage that are noise: those of a picture without any texture.
_NOISE: Final = 0.05


def new_trunk() -> nn.Module:
    """Build the trunk without weights and with its batch norms still in place.

    Its `forward` takes float [B, 3, S, S] and gives the five stages, each [B, C, S / s, S / s]
    with the channels and strides above.
    """
    trunk: nn.Module = timm.create_model(
        TRUNK, features_only=True, out_indices=tuple(range(len(TRUNK_CHANNELS)))
    ).eval()
    return trunk


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it, in place; its activation stays."""
    convolution: str | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and convolution is not None:
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
            convolution = None
        elif isinstance(child, nn.Conv2d):
            convolution = name
        else:
            fold_batch_norms(child)


def folded_trunk() -> nn.Module:
    """Build the trunk as the towers hold it: without weights, batch norms folded."""
    trunk = new_trunk()
    fold_batch_norms(trunk)
    return trunk


class Pyramid(nn.Module):
    """A top-down pathway over stages (Lin et al., arXiv 1612.03144).

    Each stage comes normed, and with its deviation from the picture itself: what it is less its
    mean over the picture, in standard deviations. What is unusual in this picture shows there,
    whatever the surface is.

    Args:
        channels: Of the stages, finest first.
        width: Channels of every level.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(2 * c, width, 1) for c in channels)
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width),
                nn.Conv2d(width, width, 1),
                nn.GELU(),
            )
            for _ in channels
        )

    def forward(self, stages: list[torch.Tensor]) -> list[torch.Tensor]:
        """Join the stages.

        Args:
            stages: For each, float [B, C, H, W], every one half as large as the one before.

        Returns:
            For each, float [B, width, H, W].
        """
        levels: list[torch.Tensor] = []
        for stage, lateral, mix in zip(
            reversed(stages), reversed(self.lateral), reversed(self.mix), strict=True
        ):
            own = lateral(torch.cat([_normed(stage), _deviation(stage)], dim=1))
            if levels:
                own = own + doubled(levels[-1])
            own = _normed(own)
            levels.append(own + mix(own))
        return levels[::-1]


def _normed(stage: torch.Tensor) -> torch.Tensor:
    """Standardise each place over its channels, so that no magnitude of the trunk passes on.

    The trunk itself has no norm: what reads it would otherwise overflow FP16 with it.
    """
    return _standardised(stage.flatten(2).mT).mT.reshape(stage.shape)


def _deviation(stage: torch.Tensor) -> torch.Tensor:
    """Standardise each channel over the picture: a LayerNorm along the places."""
    return _standardised(stage.flatten(2)).reshape(stage.shape)


def _standardised(x: torch.Tensor) -> torch.Tensor:
    """Standardise along the last axis."""
    return functional.layer_norm(x, x.shape[-1:], eps=_NOISE**2)


def doubled(x: torch.Tensor) -> torch.Tensor:
    """Repeat each cell 2 x 2, without a Resize in the graph: [B, C, H, W] -> [B, C, 2H, 2W]."""
    batch, channels, height, width = x.shape
    repeated = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    return repeated.reshape(batch, channels, 2 * height, 2 * width)


class PyramidTower(nn.Module):
    """An image tower on the trunk, which answers as the towers of open_clip do.

    Its reference tokens come from blocks of their own, which keep the trunk's first weights: fine-
    tuning makes a trunk better at defects and worse at telling one patch from another.

    Args:
        width: Width of the tokens of every level.
        embedding_size: Width of the shared image-text space.
    """

    def __init__(self, width: int, embedding_size: int) -> None:
        super().__init__()
        self.trunk = folded_trunk()
        blocks: Any = folded_trunk().get_submodule("blocks")
        self.reference_blocks = blocks[REFERENCE_BLOCKS]
        self.pyramid = Pyramid(TRUNK_CHANNELS[1:], width)
        self.head = nn.Sequential(
            nn.Linear(2 * POOLED_LEVELS * width + TRUNK_CHANNELS[-1], width), nn.GELU(),
            nn.Linear(width, embedding_size),
        )  # fmt: skip

    def load_trunk(self, trunk: nn.Module) -> None:
        """Take the weights of a trunk, for reference tokens too.

        Args:
            trunk: As `folded_trunk` makes it: batch norms are folded into convolutions.
        """
        blocks: Any = trunk.get_submodule("blocks")
        self.trunk.load_state_dict(trunk.state_dict())
        self.reference_blocks.load_state_dict(blocks[REFERENCE_BLOCKS].state_dict())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images: float [B, 3, S, S] -> [B, embedding_size]."""
        embedding: torch.Tensor = self.forward_intermediates(image, indices=[])["image_features"]
        return embedding

    def forward_intermediates(
        self, image: torch.Tensor, *, indices: list[int], **_: object
    ) -> dict[str, Any]:
        """Encode images.

        Args:
            image: float [B, 3, S, S], S a multiple of 32.
            indices: 0-based levels, finest first.

        Returns:
            `image_features`, float [B, embedding_size]; `image_intermediates`, for each level
            float [B, tokens, width], row by row of its own grid; and `reference_tokens`, float
            [B, tokens, channels], what reference banks are made of.
        """
        stages = list(self.trunk(image))
        embedding, tokens = self.encode_stages(stages, indices)
        return {
            "image_features": embedding,
            "image_intermediates": tokens,
            "reference_tokens": self.reference_tokens(stages[1]),
        }

    def encode_stages(
        self, stages: list[torch.Tensor], indices: list[int]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Encode images by the five stages of the trunk.

        Returns:
            The `image_features` and `image_intermediates` of `forward_intermediates`.
        """
        levels = self.pyramid(stages[1:])
        pooled = [level.amax((2, 3)) for level in levels[:POOLED_LEVELS]]
        pooled += [level.mean((2, 3)) for level in levels[:POOLED_LEVELS]]
        pooled.append(_normed(stages[-1]).mean((2, 3)))
        embedding: torch.Tensor = self.head(torch.cat(pooled, dim=1))
        return embedding, [levels[i].flatten(2).mT for i in indices]

    def reference_tokens(self, quarter: torch.Tensor) -> torch.Tensor:
        """Encode the trunk's stage at 1/4 of the side for reference banks.

        Returns:
            float [B, tokens, channels].
        """
        second, third, fourth = self.reference_blocks
        fine = second(quarter)
        return joined_tokens(fine, fourth(third(fine)))


def joined_tokens(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """Join two stages as PatchCore does (arXiv 2106.08265), so that both count alike.

    Each is averaged over 3 x 3 cells, and each cell of it L2-normalised.

    Args:
        fine: float [B, C, H, W].
        coarse: float [B, D, H / 2, W / 2].

    Returns:
        float [B, H * W, C + D].
    """
    smooth = [
        functional.avg_pool2d(stage, 3, stride=1, padding=1, count_include_pad=False)
        for stage in (fine, coarse)
    ]
    unit = [functional.normalize(stage, dim=1) for stage in smooth]
    return torch.cat([unit[0], doubled(unit[1])], dim=1).flatten(2).mT


class PyramidImageEncoder(nn.Module):
    """SAM's image encoder on the trunk, with features at 1/8 of the image's side.

    The neck is SAM's own (image_encoder.py:87-103). It reads, beside the pyramid, the two finest
    stages with their cells folded into channels, so that a boundary is placed to 2 px.

    Args:
        img_size: Side of the square input, px.
        width: Width of the pyramid.
        out_chans: Channels of the features.
    """

    def __init__(self, img_size: int, width: int, out_chans: int) -> None:
        super().__init__()
        self.img_size = img_size
        self.trunk = folded_trunk()
        self.pyramid = Pyramid(TRUNK_CHANNELS[2:], width)
        folded = 16 * TRUNK_CHANNELS[0] + 4 * TRUNK_CHANNELS[1]
        self.neck = nn.Sequential(
            nn.Conv2d(width + folded, out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode images: float [B, 3, S, S] -> [B, out_chans, S / 8, S / 8]."""
        features: torch.Tensor = self.neck(self.joined(list(self.trunk(x))))
        return features

    def joined(self, stages: list[torch.Tensor]) -> torch.Tensor:
        """Join the five stages of the trunk at 1/8 of the image's side, as the neck takes them."""
        half, quarter, *rest = stages
        finest = self.pyramid(rest)[0]
        folded = [functional.pixel_unshuffle(half, 4), functional.pixel_unshuffle(quarter, 2)]
        return torch.cat([finest, *folded], dim=1)
