"""References of the localizers with a second path, in the order of operations of their sources.

The original path is open_clip's own; the export modules are not involved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch import nn
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.parity.references import reference_pixels


@dataclass(frozen=True)
class BlockPasses:
    """A block and what passed it, each float32 [1, tokens, width].

    Attributes:
        number: 1-based.
        before: The original path before the block.
        attended: The original path after its attention.
        after: The original path after the block.
        values: Attention of its values with values, projected.
    """

    number: int
    before: torch.Tensor
    attended: torch.Tensor
    after: torch.Tensor
    values: torch.Tensor


def block_passes(clip: CLIP, image: NDArray[np.uint8]) -> Iterator[BlockPasses]:
    """Run the image tower block by block.

    Args:
        image: uint8 [S, S, 3].
    """
    visual = clip.visual
    patches = visual.conv1(reference_pixels(image)).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(1, 1, -1)
    x = visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding)
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        normed = block.ln_1(x)
        attended = x + block.attention(normed)
        after = block(x)
        yield BlockPasses(number, x, attended, after, attention_of_values(block.attn, normed))
        x = after


def attention_of_values(attention: nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """Compute softmax(V V^T / sqrt(d)) V for each head, and project it: [1, tokens, width]."""
    width, heads = x.shape[-1], attention.num_heads
    values = x[0] @ attention.in_proj_weight[2 * width :].T + attention.in_proj_bias[2 * width :]
    mixed = []
    for head in values.chunk(heads, dim=-1):
        scores = head @ head.T * (width // heads) ** -0.5
        mixed.append(scores.softmax(dim=-1) @ head)
    joined = torch.cat(mixed, dim=-1)
    return (joined @ attention.out_proj.weight.T + attention.out_proj.bias)[None]


def gaussian_smoothed(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smooth an image as scipy.ndimage.gaussian_filter does by default, in float64.

    Args:
        image: float [S, S].
    """
    smooth = image.double()
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return smooth
    distance = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (distance / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    for _ in range(2):
        side = len(smooth)
        # Mirrored with the border pixel twice, as often as the kernel reaches out.
        at = torch.arange(-radius, side + radius) % (2 * side)
        at = torch.minimum(at, 2 * side - 1 - at)
        smooth = functional.conv1d(smooth[:, at][:, None], kernel)[:, 0].T
    return smooth


@torch.inference_mode()
def reference_anomalyclip(
    clip: CLIP,
    text: torch.Tensor,
    image: NDArray[np.uint8],
    embeddings: TextEmbeddings,  # noqa: ARG001 - the prompts are learned
    *,
    tapped_blocks: tuple[int, ...],
    map_blocks: tuple[int, ...],
    first_value_block: int,
    temperature: float,
    sigma: float,
) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
    """Compute AnomalyCLIP's map and image score as its test.py does, the map over its blocks.

    Args:
        text: float32 [2, E], L2-normalised.
        image: uint8 [S, S, 3].
        embeddings: Not looked at.
        tapped_blocks: 1-based, of the patch tokens.
        map_blocks: 1-based.
        first_value_block: 1-based.

    Returns:
        float32 [S, S]; P(abnormal) of the CLS token; float32 [blocks, tokens, width].
    """
    size = len(image)
    taps, maps, last = [], [], torch.empty(0)
    second: torch.Tensor | None = None
    for passed in block_passes(clip, image):
        if passed.number >= first_value_block:
            second = (passed.before if second is None else second) + passed.values
        last = passed.after
        if passed.number in tapped_blocks:
            taps.append(last[:, 1:] / last[:, 1:].norm(dim=-1, keepdim=True))
        if passed.number in map_blocks:
            tokens = clip.visual.ln_post(last if second is None else second) @ clip.visual.proj
            tokens = tokens / tokens.norm(dim=-1, keepdim=True)
            similar = (tokens @ text.T / temperature).softmax(dim=-1)[:, 1:]
            side = int(similar.shape[1] ** 0.5)
            grid = similar.permute(0, 2, 1).reshape(1, 2, side, side)
            both = functional.interpolate(grid, (size, size), mode="bilinear")[0]
            maps.append((both[1] + 1 - both[0]) / 2)
    smooth = gaussian_smoothed(torch.stack(maps).sum(dim=0), sigma) / len(maps)
    cls = last[:, 0] @ clip.visual.proj
    cls = cls / cls.norm(dim=-1, keepdim=True)
    score = (cls @ text.T / temperature).softmax(dim=-1)[0, 1]
    return smooth.float().numpy(), float(score), torch.cat(taps).numpy()


@torch.inference_mode()
def reference_sdp(
    clip: CLIP,
    adapters: LinearAdapters | None,
    image: NDArray[np.uint8],
    embeddings: TextEmbeddings,
    *,
    stages: tuple[int, ...],
    parameters: Any,  # noqa: ANN401 - a dataclass of sdp.py, which imports this module
) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
    """Compute SDP's or SDP+'s map and image score as test.py and test_ft.py do.

    Args:
        adapters: None: SDP.
        image: uint8 [S, S, 3].
        embeddings: float32 [2, E].
        stages: The last block of each, 1-based.

    Returns:
        float32 [S, S], in [0, 1] by the fixed mappings; P(abnormal) of the CLS token; and float32
        [blocks, tokens, width].
    """
    size, text = len(image), torch.from_numpy(embeddings)
    passes = list(block_passes(clip, image))
    surgery, learned = torch.zeros(size, size), torch.zeros(size, size)
    unit = torch.empty(0)
    first = 0
    for index, stage in enumerate(stages):
        second = torch.stack([passed.values for passed in passes[first:stage]]).sum(dim=0)
        original = passes[stage - 1].after
        if parameters.stream_tap == "next_attention" and stage < len(passes):
            original = passes[stage].attended
        first = stage
        tokens = second.clone()
        tokens[:, 0] = original[:, 0]
        unit = clip.visual.ln_post(tokens) @ clip.visual.proj
        unit = unit / unit.norm(dim=-1, keepdim=True)
        weights = (unit[:, :1] @ text.T).softmax(dim=-1)
        weights = weights / weights.mean(dim=-1, keepdim=True)
        products = unit[:, :, None] * text[None, None] * weights[..., None]
        products = products - products.mean(dim=2, keepdim=True)
        grid = _on_grid(products.sum(dim=-1)[:, 1:])
        surgery += functional.interpolate(grid, (size, size), mode="bilinear")[0, 1]
        if adapters is not None:
            adapted = adapters.fc[index](original[:, 1:])
            logits = 100.0 * adapted / adapted.norm(dim=-1, keepdim=True) @ text.T
            grid = functional.interpolate(
                _on_grid(logits), (size, size), mode="bilinear", align_corners=True
            )
            learned += grid.softmax(dim=1)[0, 1]
    if adapters is None:
        smooth = gaussian_smoothed(surgery, parameters.sigma) / len(stages)
        anomaly_map = torch.sigmoid(2 * parameters.map_scale * smooth)
    else:
        weight = parameters.similarity_weight
        smooth = gaussian_smoothed(learned + weight * surgery, parameters.sigma) / len(stages)
        # From [-weight, 1 + weight] to [0, 1].
        anomaly_map = 0.5 + (smooth - 0.5) / (1 + 2 * weight)
    score = (100.0 * unit[:, 0] @ text.T).softmax(dim=-1)[0, 1]
    ends = torch.cat([passes[stage - 1].after[:, 1:] for stage in stages])
    ends = ends / ends.norm(dim=-1, keepdim=True)
    return anomaly_map.float().numpy(), float(score), ends.numpy()


def _on_grid(values: torch.Tensor) -> torch.Tensor:
    """Arrange float [1, patches, texts] as [1, texts, side, side]."""
    side = int(values.shape[1] ** 0.5)
    return values.permute(0, 2, 1).reshape(1, -1, side, side)
