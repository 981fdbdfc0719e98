"""VisualAD in the public order of operations, which its export is checked against."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_export.models.localizers.visualad.parameters import VisualAdParameters
from zeroflaw_export.models.localizers.visualad.parts import SpatialCrossAttention, VisualAdParts
from zeroflaw_export.parity.references import reference_pixels


@torch.inference_mode()
def reference_visualad(
    clip: CLIP,
    parts: VisualAdParts,
    tapped_blocks: tuple[int, ...],
    image: NDArray[np.uint8],
    embeddings: TextEmbeddings,  # noqa: ARG001 - every localizer's reference is given them
    *,
    parameters: VisualAdParameters,
) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
    """Compute VisualAD's map and image score as its test.py does, block by block.

    Args:
        tapped_blocks: 1-based.
        image: uint8 [S, S, 3].
        embeddings: float32 [2, 0].

    Returns:
        What `VisualAdEncoder` gives of one image: float32 [S, S], the score, and float32
        [blocks, tokens, width].
    """
    visual, size = clip.visual, image.shape[0]
    rows = [parts.anomaly_token, parts.normal_token, visual.class_embedding]
    rows += list(visual.conv1(reference_pixels(image))[0].flatten(1).T)
    places = [visual.positional_embedding[0]] * 2 + list(visual.positional_embedding)
    tokens = torch.stack([row + place for row, place in zip(rows, places, strict=True)])[None]
    tokens, taps = visual.ln_pre(tokens), []
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        tokens = block(tokens)
        if number in tapped_blocks:
            taps.append(tokens)
    anomaly, normal = (parts.ln_post(tokens[:, place]) for place in (0, 1))
    summed = np.zeros((size, size), np.float32)
    for tap, (attention, alignment) in zip(taps, parts.of_blocks, strict=True):
        whole = parts.ln_post(tap)
        near = [_attended(attention, token, whole[:, 3:]) for token in (anomaly, normal)]
        aligned = alignment(whole)[:, 3:]
        cosines = [functional.cosine_similarity(aligned, token[:, None], dim=2) for token in near]
        side = math.isqrt(aligned.shape[1])
        grid = (cosines[0] - cosines[1]).reshape(1, 1, side, side)
        summed += functional.interpolate(grid, (size, size), mode="bilinear")[0, 0].numpy()
    smooth = torch.from_numpy(_smoothed(_smoothed(summed, parameters.sigma).T, parameters.sigma).T)
    top = math.ceil(size * size * parameters.top_share)
    score = parameters.mapped(smooth.flatten().sort(descending=True).values[:top].mean(), len(taps))
    patches = torch.cat([tap[:, 3:] for tap in taps])
    unit = patches / patches.norm(dim=-1, keepdim=True)
    return parameters.mapped(smooth, len(taps)).float().numpy(), float(score), unit.numpy()


def _attended(
    attention: SpatialCrossAttention, token: torch.Tensor, patches: torch.Tensor
) -> torch.Tensor:
    """Compute SCA of one token as its source has it: values are projected before they are summed.

    Args:
        token: float [1, C].
        patches: float [1, N, C].
    """
    query = attention.query_norm(attention.query(attention.anchors))
    places = attention.positions[0, : patches.shape[1]]
    key = attention.key_norm(attention.key(patches[0] + places))
    weights = torch.softmax(query @ key.T / math.sqrt(patches.shape[2]), dim=-1)
    gathered = weights @ attention.value(patches[0])
    gates = torch.sigmoid(attention.gate(token))
    weighed = (gathered * gates.T).sum(dim=0)
    enhanced: torch.Tensor = token + attention.residual_scale * attention.output(weighed)
    return enhanced


def _smoothed(rows: NDArray[np.floating], sigma: float) -> NDArray[np.float64]:
    """Filter rows [H, W] with a Gaussian that is cut at four sigma, by sums of shifted copies."""
    if not sigma:
        return rows.astype(np.float64)
    radius = int(4 * sigma + 0.5)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    padded = np.pad(rows.astype(np.float64), ((0, 0), (radius, radius)), mode="symmetric")
    shifted = (w * padded[:, k : k + rows.shape[1]] for k, w in enumerate(weights))
    total: NDArray[np.float64] = sum(shifted, start=np.zeros(rows.shape)) / sum(weights)
    return total
