"""The loss of the cascade: three answers of the decoder, each prompted by the last.

As SAM learned (arXiv 2304.02643, appendix A), each mask is asked for several times, every time
with the logits of the answer before; here the three rounds are the cascade's own: points; points
and logits; points, box and logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from zeroflaw_benchmarks.mini.sam_prompts import LOW_RES_CELL
from zeroflaw_engines.contract import LABEL_BOX_BOTTOM_RIGHT, LABEL_BOX_TOP_LEFT
from zeroflaw_export.sam_decoder import SamDecoder

_MULTIMASK: Final = slice(1, 4)
# Logits beyond these say no more, and their gradient should not either.
_SURE: Final = 30.0

Stages = tuple[float, float, float]


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts and the answers that are wanted.

    Attributes:
        coords: float32 [B, rows, 2], (x, y) px of the crop.
        labels: int32 [B, rows].
        wanted: float32 [B, L, L], share of each cell that is defective.
    """

    coords: torch.Tensor
    labels: torch.Tensor
    wanted: torch.Tensor


def cascade_loss(
    decoder: SamDecoder,
    features: torch.Tensor,
    prompts: Prompts,
    *,
    shift: torch.Tensor,
    weights: Stages,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of the three stages.

    The gradient runs back through the logits that one stage hands to the next. So the three
    calls learn as one deeper decoder: the first stages learn to leave behind what the last one
    can use, not only to be right themselves.

    Args:
        decoder: For the grid of the features.
        features: float32 [B, C, G, G].
        prompts: Points; the last two rows are kept for the box.
        shift: float32 [2], where the crop lies in the whole image, px.
        weights: Of the stages' losses.

    Returns:
        The loss, and the mean IoU of the mask that each stage would hand on, float32 [3].
    """
    coords, labels, wanted = prompts.coords.clone(), prompts.labels.clone(), prompts.wanted
    batch, side = wanted.shape[0], wanted.shape[-1]
    rows = torch.arange(batch)
    mask_input, has_mask = wanted.new_zeros(batch, 1, side, side), wanted.new_zeros(batch)
    total, reached = wanted.new_zeros(()), []
    for number, weight in enumerate(weights, start=1):
        logits, predicted_iou = decoder(features, coords + shift, labels, mask_input, has_mask)
        logits, predicted_iou = logits.float(), predicted_iou.float()
        best = predicted_iou[:, _MULTIMASK].argmax(dim=1) + 1
        loss, actual = _mask_loss(logits, predicted_iou, wanted, best, ambiguous=number == 1)
        total = total + weight * loss
        chosen = logits[rows, best]
        reached.append(actual[rows, best].mean())
        mask_input, has_mask = chosen[:, None].clamp(-_SURE, _SURE), torch.ones_like(has_mask)
        if number == 2:
            _add_boxes(coords, labels, chosen.detach())
    return total, torch.stack(reached)


def _mask_loss(
    logits: torch.Tensor,
    predicted_iou: torch.Tensor,
    wanted: torch.Tensor,
    best: torch.Tensor,
    *,
    ambiguous: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """SAM's: focal and dice of one mask, and the error of every predicted IoU.

    Points alone may mean several masks, so of stage 1 the nearest learns, as in SAM. Later
    there is one answer, and the mask learns that the predicted IoU chooses and the cascade keeps.

    Returns:
        The loss, and the IoU of every mask, float32 [B, 4].
    """
    target = wanted[:, None].expand_as(logits)
    cross = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = torch.sigmoid(logits)
    focal = ((probability - target).abs() ** 2 * cross).flatten(2).mean(-1)
    overlap = (probability * target).flatten(2).sum(-1)
    size = (probability + target).flatten(2).sum(-1)
    dice = 1 - (2 * overlap + 1) / (size + 1)
    each = 20 * focal + cross.flatten(2).mean(-1) + dice
    multi = each[:, _MULTIMASK]
    one = multi.amin(dim=1) if ambiguous else each[torch.arange(len(each)), best]
    # The others keep a little, so that none is lost.
    masks = 0.85 * one + 0.15 * multi.mean(dim=1) + 0.3 * each[:, 0]
    with torch.no_grad():
        hit, true = logits > 0, target > 0.5
        union = (hit | true).flatten(2).sum(-1)
        actual = (hit & true).flatten(2).sum(-1) / union.clamp(min=1)
    error = (predicted_iou - actual).square().mean(dim=1)
    return (masks + error).mean(), actual


def _add_boxes(coords: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor) -> None:
    """Puts the box of each mask into the last two rows; an empty mask has none."""
    for row, mask in enumerate(logits > 0):
        places = mask.nonzero()
        if len(places):
            first, last = places.amin(dim=0).flip(0), places.amax(dim=0).flip(0)
            coords[row, -2] = first.float() * LOW_RES_CELL
            coords[row, -1] = (last + 1).float() * LOW_RES_CELL - 1
            labels[row, -2], labels[row, -1] = LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT
