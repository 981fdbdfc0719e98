"""VisualAD as an export module: uint8 image in, anomaly map, score and tokens out."""

from __future__ import annotations

import math
from functools import reduce

import torch
from open_clip.model import CLIP
from torch.nn import functional

from zeroflaw_export.models.clip_encoder import token_grids
from zeroflaw_export.models.image_tower import ImageTower
from zeroflaw_export.models.localizers.map_matrices import smoothed_upsampling
from zeroflaw_export.models.localizers.visualad.parameters import VisualAdParameters
from zeroflaw_export.models.localizers.visualad.parts import VisualAdParts


class VisualAdEncoder(ImageTower):
    """CLIP's tower with two more tokens, and the anomaly map of VisualAD (test.py:112-150).

    Args:
        tapped_blocks: 1-based.
        image_size: Side of the square input, px.
        batched: Whether it takes several images, and gives patch tokens an axis for them.
    """

    spread: torch.Tensor

    def __init__(
        self,
        clip: CLIP,
        parts: VisualAdParts,
        tapped_blocks: tuple[int, ...],
        image_size: int,
        parameters: VisualAdParameters,
        *,
        batched: bool = False,
    ) -> None:
        super().__init__(clip, batched=batched)
        self.parts = parts
        self.tapped_blocks = tapped_blocks
        self.parameters_ = parameters
        self.top = math.ceil(image_size**2 * parameters.top_share)
        # Upsampling and smoothing are linear along each axis: together one matrix, on the sum of
        # the blocks' grids, and no Resize in the graph.
        self.grid = token_grids(clip, tapped_blocks, image_size)[0]
        self.register_buffer("spread", smoothed_upsampling(self.grid, image_size, parameters.sigma))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Localise what is nearer to the anomaly token than to the normal one.

        Args:
            image: uint8 [B, S, S, 3], RGB, each frame squashed to a square; B is 1 unless the
                module is batched.

        Returns:
            The anomaly map, float32 [B, S, S] in [0, 1]: the mapped sum over the blocks of
            cosine(patch, anomaly token) - cosine(patch, normal token), smoothed.
            The image score, float32 [B] in [0, 1]: the mapped mean of the highest values of it.
            The patch tokens, float32 [blocks, tokens, width], L2-normalised: the residual stream
            after the tapped blocks, which has run with the two tokens, before `ln_post` and SAF.
            With a first axis of B if it is batched.
        """
        summed, highest, taps = self.differences(image)
        mapped, blocks = self.parameters_.mapped, len(taps)
        return mapped(summed, blocks), mapped(highest, blocks), self.patch_tokens(taps)

    def differences(
        self, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Compute what the source gives, before the fixed mapping.

        Args:
            image: uint8 [B, S, S, 3], as for `forward`.

        Returns:
            The smoothed sum over the blocks of cosine differences, float32 [B, S, S], in
            [-2 blocks, 2 blocks]; the mean of its highest values, float32 [B]; and the patches
            after each tapped block, float32 [B, N, C].
        """
        taps, pair = self._run(image)
        parts = self.parts
        pair = parts.ln_post(pair)
        differences = []
        for tokens, (attend, align) in zip(taps, parts.of_blocks, strict=True):
            patches = parts.ln_post(tokens)
            anomaly, normal = functional.normalize(attend(pair, patches), dim=-1).unbind(dim=1)
            unit = functional.normalize(align(patches), dim=-1)
            differences.append(unit @ (anomaly - normal)[..., None])
        grid = reduce(torch.add, differences).reshape(-1, self.grid, self.grid)
        summed = self.spread @ grid @ self.spread.T
        return summed, summed.flatten(1).topk(self.top, dim=-1).values.mean(dim=-1), taps

    def _run(self, image: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Run the tower with the anomaly token and the normal one before CLS.

        Returns:
            The patches after each tapped block, float [B, N, C]; the two tokens after the last
            block, float [B, 2, C].
        """
        visual, parts = self.visual, self.parts
        patches = visual.conv1(self.pixels(image)).flatten(2).transpose(1, 2)
        # The source puts both at CLS's place, and trains neither place (build_model.py:55-61).
        own = torch.stack([parts.anomaly_token, parts.normal_token, visual.class_embedding])
        own = own + visual.positional_embedding[:1]
        patches = patches + visual.positional_embedding[1:]
        tokens = torch.cat([own.expand(patches.shape[0], -1, -1), patches], dim=1)
        tokens, taps = visual.transformer.forward_intermediates(
            visual.ln_pre(tokens), indices=[block - 1 for block in self.tapped_blocks]
        )
        return [tap[:, 3:] for tap in taps], tokens[:, :2]
