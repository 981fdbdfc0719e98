"""The losses, against the reference's two-channel formulas written out (algorithm.md 1.5)."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.clip_encoder import bilinear_matrix
from zeroflaw_export.training.april_gan import adapters_learner
from zeroflaw_export.training.learner import Batch
from zeroflaw_export.training.losses import dice_loss, focal_loss, segmentation_loss
from zeroflaw_export.training.train import _step


def two_channel_focal(probabilities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """gamma 2, alpha 1, label smoothing 1e-5, on the softmaxed map [B, 2, S, S]."""
    smooth = 1e-5
    one_hot = functional.one_hot(mask.long(), 2).movedim(-1, 1).to(probabilities.dtype)
    one_hot = one_hot.clamp(smooth, 1 - smooth)
    pt = (one_hot * probabilities).sum(dim=1) + smooth
    return (-1 * (1 - pt) ** 2 * pt.log()).mean()


def binary_dice(abnormal: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """smooth 1, one coefficient for each image."""
    flat, target = abnormal.flatten(1), mask.flatten(1).to(abnormal.dtype)
    overlap = (flat * target).sum(1)
    return 1 - ((2 * overlap + 1) / (flat.sum(1) + target.sum(1) + 1)).sum() / len(mask)


def two_channel_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Of the logits [B, 2, g, g], upsampled before the softmax."""
    size = mask.shape[-1]
    upsampled = functional.interpolate(logits, size=size, mode="bilinear", align_corners=True)
    probabilities = torch.softmax(upsampled, dim=1)
    return two_channel_focal(probabilities, mask) + binary_dice(probabilities[:, 1], mask)


def random_case(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(int(scale * 10))
    logits = scale * torch.randn(3, 2, 5, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 33, 33, generator=generator) > 0.8
    mask[1] = False  # a good part
    return logits, mask


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 30.0])
def test_the_loss_and_its_gradient_are_the_references(scale: float) -> None:
    logits, mask = random_case(scale)
    theirs = logits.clone().requires_grad_()
    want = two_channel_loss(theirs, mask)
    want.backward()

    ours = logits.clone().requires_grad_()
    matrix = functional.interpolate(
        torch.eye(5, dtype=torch.float64)[None], size=33, mode="linear", align_corners=True
    )[0].T
    got = segmentation_loss(matrix @ (ours[:, 1] - ours[:, 0]) @ matrix.T, mask)
    got.backward()

    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_saturated_maps_give_finite_losses(sign: float) -> None:
    """100 * cosine can reach a difference of 200; 1e-5 keeps the logarithm away from zero."""
    logits = torch.full((1, 8, 8), sign * 200.0, requires_grad=True)
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    loss = segmentation_loss(logits, mask)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    if sign > 0:
        assert loss.item() == pytest.approx(0.0, abs=1e-6)
    else:
        assert focal_loss(logits, mask).item() == pytest.approx(-math.log(2e-5), rel=1e-3)
        assert dice_loss(logits, mask).item() == pytest.approx(1 - 1 / 65, rel=1e-6)


def test_a_step_has_the_gradient_of_the_sum_over_blocks() -> None:
    """Block by block, with text embeddings of several classes in one batch."""
    torch.manual_seed(2)
    adapters = LinearAdapters(4, 12, 8)
    tokens = torch.randn(3, 4, 16, 12).half()
    text = functional.normalize(torch.randn(3, 2, 8), dim=-1)
    mask = torch.rand(3, 28, 28) > 0.7

    want = torch.zeros(())
    for block, layer in enumerate(adapters.fc):
        adapted = layer(tokens[:, block].float())
        adapted = adapted / adapted.norm(dim=-1, keepdim=True)
        logits = (100.0 * adapted @ text.transpose(1, 2)).permute(0, 2, 1).view(3, 2, 4, 4)
        want = want + two_channel_loss(logits, mask)
    gradients = torch.autograd.grad(want, list(adapters.parameters()))

    learner = adapters_learner(adapters)
    batch = Batch(tokens.unbind(1), text, mask, (bilinear_matrix(4, 28),) * 4)
    got = _step(learner, learner.optimizer(1e-3), batch)
    assert got == pytest.approx(want.item(), rel=1e-5)
    for parameter, gradient in zip(adapters.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
