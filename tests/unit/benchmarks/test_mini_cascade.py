"""The prompts and the loss of SAM's training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zeroflaw_benchmarks.mini.cascade_loss import Prompts, cascade_loss
from zeroflaw_benchmarks.mini.sam_prompts import draw_prompt, no_points
from zeroflaw_engines.contract import LABEL_BOX_TOP_LEFT, LABEL_POSITIVE
from zeroflaw_export.architectures import sam_architecture
from zeroflaw_export.random_weights import randomise_weights
from zeroflaw_export.sam_decoder import SamDecoder


def test_prompts_point_at_the_defect_unless_misled():
    truth = np.zeros((64, 64), np.float32)
    truth[20:30, 30:50] = 1
    near = 0
    for seed in range(40):
        prompt = draw_prompt(np.random.default_rng(seed), truth, misled=False)
        assert np.array_equal(prompt.wanted, truth)
        positive = (prompt.coords[prompt.labels == 1] / 4).astype(int)
        assert 1 <= len(positive) <= 3
        near += np.mean([truth[18:32, 28:52].any() and 16 <= y <= 33 and 26 <= x <= 53
                         for x, y in positive])  # fmt: skip
        astray = draw_prompt(np.random.default_rng(seed), truth, misled=True)
        assert not astray.wanted.any()
    assert near > 36


class _Decoder:
    """Answers with given logits and notes what it was asked."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def __call__(self, features, coords, labels, mask_input, has_mask):
        self.asked.append((coords.clone(), labels.clone(), mask_input, has_mask.clone()))
        logits = self.answers[len(self.asked) - 1]
        return logits, torch.tensor([[0.1, 0.2, 0.9, 0.3]])


def _asked(wanted):
    coords, labels = no_points()
    coords[0], labels[0] = (20, 28), LABEL_POSITIVE
    return Prompts(torch.from_numpy(coords)[None], torch.from_numpy(labels)[None], wanted)


def test_each_stage_is_asked_with_what_the_last_one_chose():
    wanted = torch.zeros(1, 16, 16)
    wanted[0, 4:9, 3:7] = 1
    answers = [torch.full((1, 4, 16, 16), -9.0).requires_grad_() for _ in range(3)]
    with torch.no_grad():
        answers[1][0, 2, 4:9, 3:7] = 9
    decoder = _Decoder(answers)
    loss, reached = cascade_loss(
        decoder, torch.zeros(1, 8, 4, 4), _asked(wanted), shift=torch.tensor([32.0, 64.0]),
        weights=(1.0, 1.0, 1.0),
    )  # fmt: skip
    assert reached.tolist() == pytest.approx([0.0, 1.0, 0.0])
    assert [float(asked[3]) for asked in decoder.asked] == [0.0, 1.0, 1.0]
    assert torch.equal(decoder.asked[2][2][:, 0], answers[1][:, 2])
    assert LABEL_BOX_TOP_LEFT not in decoder.asked[1][1]
    coords, labels = decoder.asked[2][:2]
    assert labels[0, -2] == LABEL_BOX_TOP_LEFT
    # Cells of 4 px, inclusive corners, moved to where the crop lies.
    assert coords[0, -2].tolist() == [3 * 4 + 32, 4 * 4 + 64]
    assert coords[0, -1].tolist() == [7 * 4 - 1 + 32, 9 * 4 - 1 + 64]
    assert torch.isfinite(loss)


def test_the_last_stage_teaches_the_first():
    sam = sam_architecture("tiny").build()
    randomise_weights(sam, 3)
    wanted = torch.zeros(1, 64, 64)
    wanted[0, 20:30, 12:30] = 1
    handed = torch.zeros(1, 4, 64, 64, requires_grad=True)

    class FirstGiven(SamDecoder):
        calls = 0

        def forward(self, *arguments):
            self.calls += 1
            logits, iou = super().forward(*arguments)
            return (handed + 0.1 if self.calls == 1 else logits), iou

    loss, _ = cascade_loss(
        FirstGiven(sam), torch.randn(1, 32, 16, 16), _asked(wanted), shift=torch.zeros(2),
        weights=(0.0, 0.0, 1.0),
    )  # fmt: skip
    loss.backward()
    assert handed.grad.abs().sum() > 0
