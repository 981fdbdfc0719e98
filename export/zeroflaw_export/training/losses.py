"""The losses that localizers are trained with: APRIL-GAN's focal and Dice loss (loss.py:7-107).

Both are written for two classes, whose softmax is the sigmoid of the difference of their logits.
Bilinear upsampling is linear, so upsampling that difference once gives exactly what the reference
gets from upsampling both logits and taking the softmax.
"""

from __future__ import annotations

from typing import Final

import torch

# Of the label: the target is clamped to [1e-5, 1 - 1e-5], and 1e-5 is added to the probability.
LABEL_SMOOTHING: Final = 1e-5
DICE_SMOOTHING: Final = 1.0


def segmentation_loss(
    logits: torch.Tensor, mask: torch.Tensor, *, squared: bool = False
) -> torch.Tensor:
    """Compute the focal plus Dice loss of one tapped block.

    Args:
        logits: float32 [batch, S, S], abnormal minus normal logit, upsampled to the image.
        mask: bool [batch, S, S], true where a pixel is abnormal.
        squared: As `dice_loss` takes it.

    Returns:
        float32 [], at least 0.
    """
    return focal_loss(logits, mask) + dice_loss(logits, mask, squared=squared)


def focal_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the focal loss with gamma 2 and alpha 1, mean over all pixels (loss.py:31-85).

    With p the probability of the true class and s the smoothing, the reference takes
    q = (1 - s) p + s (1 - p) + s and -(1 - q)^2 log q.

    Args:
        logits: float32 [batch, S, S], abnormal minus normal logit.
        mask: bool [batch, S, S].

    Returns:
        float32 [], in [0, 10.9].
    """
    # the sigmoid of the signed logit, and not 1 - sigmoid: small probabilities keep their digits
    true_class = torch.sigmoid(torch.where(mask, logits, -logits))
    smoothed = true_class * (1 - 2 * LABEL_SMOOTHING) + 2 * LABEL_SMOOTHING
    remainder = 1 - smoothed
    return -(remainder * remainder * smoothed.log()).mean()


def dice_loss(logits: torch.Tensor, mask: torch.Tensor, *, squared: bool = False) -> torch.Tensor:
    """Compute 1 - soft Dice coefficient of the abnormal class, mean over images (loss.py:88-107).

    Args:
        logits: float32 [batch, S, S], abnormal minus normal logit.
        mask: bool [batch, S, S].
        squared: Whether the denominator sums squares (V-Net; ClipSAM, Eq. 11) or values
            (APRIL-GAN).

    Returns:
        float32 [], in [0, 1].
    """
    abnormal = torch.sigmoid(logits).flatten(1)
    target = mask.flatten(1).to(abnormal.dtype)
    overlap = (abnormal * target).sum(dim=1)
    size = abnormal.square() if squared else abnormal
    total = size.sum(dim=1) + target.sum(dim=1)
    return 1 - ((2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()
