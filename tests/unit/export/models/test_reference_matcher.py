"""The reference matcher against APRIL-GAN's own operations, one after the other."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from zeroflaw_engines.contract import ReferenceSizes
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.reference_matcher import ReferenceMatcher, reference_sizes


def unit(*shape: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(vectors, dim=-1)


def april_gan(tokens: torch.Tensor, bank: torch.Tensor, size: int) -> torch.Tensor:
    """test.py of APRIL-GAN, few-shot, but for the mean over blocks instead of the sum."""
    maps = []
    for block, rows in zip(tokens.double(), bank.double(), strict=True):
        cosine = functional.cosine_similarity(rows[:, None], block[None], dim=-1)
        side = int(len(block) ** 0.5)
        distance = (1 - cosine).min(dim=0).values.reshape(1, 1, side, side)
        maps.append(
            functional.interpolate(distance, size=size, mode="bilinear", align_corners=True)
        )
    return torch.stack(maps).mean(dim=0)[0]


@pytest.mark.parametrize("valid", [1, 7, 30])
@pytest.mark.parametrize(("blocks", "side", "width", "size"), [(4, 6, 16, 84), (1, 9, 33, 20)])
@torch.inference_mode()
def test_the_reference_map(blocks: int, side: int, width: int, size: int, valid: int) -> None:
    matcher = ReferenceMatcher(ReferenceSizes(blocks, side**2, width, 30), size).eval()
    tokens = unit(blocks, side**2, width, seed=1)
    bank = unit(blocks, 30, width, seed=2).half()
    got = matcher(tokens, bank, torch.tensor([valid], dtype=torch.int32))
    want = april_gan(tokens, bank[:, :valid], size)
    assert got.shape == (1, size, size)
    # Rows in FP16 are not quite of length 1, which `cosine_similarity` mends.
    torch.testing.assert_close(got.double(), want, rtol=0, atol=5e-4)


@torch.inference_mode()
def test_a_token_of_the_bank_is_at_no_distance_and_padding_at_none_of_its_own() -> None:
    matcher = ReferenceMatcher(ReferenceSizes(2, 4, 8, 6), 8).eval()
    tokens = unit(2, 4, 8, seed=3)
    bank = torch.zeros(2, 6, 8)
    bank[:, :4] = tokens
    full = matcher(tokens, bank.half(), torch.tensor([4], dtype=torch.int32))
    assert float(full.abs().max()) < 1e-3
    # Zeros have a cosine of 0, nearer than rows that point away.
    away = torch.cat([-tokens.mean(dim=1, keepdim=True), bank[:, 4:], bank[:, 4:], bank[:, 4:5]], 1)
    far = matcher(tokens, away[:, :6].half(), torch.tensor([1], dtype=torch.int32))
    want = 1 - (tokens * away[:, :1].half().float()).sum(-1)
    torch.testing.assert_close(far[0, ::7, ::7].reshape(4), want.mean(0), rtol=0, atol=1e-5)
    assert float(far.max()) > 1


@pytest.mark.parametrize("megabytes", [16, 4])
def test_a_bank_takes_no_more_than_its_budget(megabytes: int) -> None:
    sizes = reference_sizes(clip_architecture("vit_l_14_336"), 518, megabytes * 10**6)
    assert (sizes.blocks, sizes.width) == (4, 1024)
    assert sizes.tokens == 37**2
    assert 0.99 * megabytes * 10**6 < sizes.bank_bytes <= megabytes * 10**6


def test_a_small_tower_gets_a_bank_of_sixteen_photos() -> None:
    assert reference_sizes(clip_architecture("tiny"), 224, 16 * 10**6).rows == 16 * 16**2
    assert reference_sizes(clip_architecture("mini"), 448, 2**20).rows == 2**20 // (2 * 152)
