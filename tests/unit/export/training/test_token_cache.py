"""The token cache: what it holds, whose it is, and what happens when it is not whole."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from zeroflaw_engines.errors import TrainingError
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.clip_encoder import ClipEncoder, upsampled
from zeroflaw_export.models.load import WeightsSource, load_clip, load_linear_adapters
from zeroflaw_export.training.run import default_token_cache, frozen_tower
from zeroflaw_export.training.token_cache import FrozenTower, open_token_cache, unpack_mask


class Usage(NamedTuple):
    total: int
    used: int
    free: int


SIZE = 56
SOURCE = WeightsSource(name="random", path=None, seed=3)


@pytest.fixture(scope="module")
def tower() -> FrozenTower:
    architecture = clip_architecture("tiny")
    return frozen_tower(load_clip(architecture, SIZE, SOURCE), architecture, SIZE, SOURCE)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def test_tokens_are_those_of_the_exported_encoder(tower: FrozenTower, image: np.ndarray) -> None:
    """The map made of cached tokens is the map that the bundle's engine gives."""
    adapters = load_linear_adapters(clip_architecture("tiny"), SOURCE)
    encoder = ClipEncoder(tower.clip, adapters, tower.identity.tapped_blocks, SIZE).eval()
    squashed = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    text = torch.nn.functional.normalize(torch.randn(2, 32), dim=-1)
    with torch.inference_mode():
        want, _, _ = encoder(torch.from_numpy(np.array(squashed))[None], text)
        tokens = torch.from_numpy(tower.patch_tokens(image)).float()
        maps = []
        for adapted in adapters([block[None] for block in tokens]):
            logits = 100.0 * torch.nn.functional.normalize(adapted, dim=-1) @ text.T
            difference = logits[..., 1] - logits[..., 0]
            upsample = getattr(encoder, encoder.upsampling[0])
            maps.append(torch.sigmoid(upsampled(difference, upsample)))
        got = torch.stack(maps).mean(dim=0)
    torch.testing.assert_close(got, want, rtol=0, atol=0.02)  # float16


def test_round_trip(tower: FrozenTower, image: np.ndarray, tmp_path: Path) -> None:
    cache = open_token_cache(tmp_path / "deep" / "cache", tower)
    tokens = tower.patch_tokens(image)
    assert tokens.shape == cache.token_shape == (4, 16, 64)
    mask = np.random.default_rng(2).random((SIZE, SIZE)) > 0.5
    assert not cache.has_tokens("a")
    cache.write_tokens("a", tokens)
    cache.write_mask("m", mask)
    again = open_token_cache(cache.directory, tower)
    assert again.has_tokens("a")
    assert again.has_mask("m")
    assert np.array_equal(again.read_tokens("a"), tokens)
    assert np.array_equal(unpack_mask(again.read_mask("m"), SIZE), mask)
    assert not unpack_mask(b"", SIZE).any()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights", "sha256:" + "0" * 64),
        ("weights", "random:4"),
        ("architecture", "vit_l_14_336"),
        ("image_size", 70),
        ("tapped_blocks", (1, 2, 3)),
        ("activation", "quick_gelu"),
    ],
)
def test_another_towers_cache_is_refused(
    tower: FrozenTower, tmp_path: Path, field: str, value: object
) -> None:
    open_token_cache(tmp_path, tower)
    identity = dataclasses.replace(tower.identity, **{field: value})
    with pytest.raises(TrainingError, match="of another tower") as caught:
        open_token_cache(tmp_path, dataclasses.replace(tower, identity=identity))
    assert str(tmp_path) in caught.value.cause
    assert default_token_cache(identity) != default_token_cache(tower.identity)


def test_the_refusal_names_what_differs(tower: FrozenTower, tmp_path: Path) -> None:
    open_token_cache(tmp_path, tower)
    identity = dataclasses.replace(tower.identity, weights="random:4")
    with pytest.raises(TrainingError, match="its weights is random:3, and this run's is random:4"):
        open_token_cache(tmp_path, dataclasses.replace(tower, identity=identity))


def test_a_folder_of_something_else_is_refused(tower: FrozenTower, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(TrainingError, match="is not a token cache"):
        open_token_cache(tmp_path, tower)
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_description_is_refused(tower: FrozenTower, tmp_path: Path, content: str) -> None:
    open_token_cache(tmp_path, tower)
    (tmp_path / "cache.json").write_text(content)
    with pytest.raises(TrainingError, match=r"cache\.json cannot be read"):
        open_token_cache(tmp_path, tower)


def test_the_description_can_be_read_by_others(tower: FrozenTower, tmp_path: Path) -> None:
    open_token_cache(tmp_path, tower)
    described = json.loads((tmp_path / "cache.json").read_text())
    assert described["dtype"] == "float16"
    assert described["shape"] == [4, 16, 64]
    assert described["weights"] == "random:3"


def test_a_truncated_file_counts_as_missing(
    tower: FrozenTower, image: np.ndarray, tmp_path: Path
) -> None:
    cache = open_token_cache(tmp_path, tower)
    cache.write_tokens("a", tower.patch_tokens(image))
    path = tmp_path / "tokens" / "a.f16"
    path.write_bytes(path.read_bytes()[:-1])
    assert not cache.has_tokens("a")
    with pytest.raises(TrainingError, match="bytes, not"):
        cache.read_tokens("a")
    path.unlink()
    with pytest.raises(TrainingError, match="cannot be read"):
        cache.read_tokens("a")


def test_too_little_disk_is_said_beforehand(
    tower: FrozenTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_token_cache(tmp_path, tower)
    assert cache.token_bytes == 4 * 16 * 64 * 2
    want = 1000 * cache.token_bytes + 10 * cache.mask_bytes
    assert cache.require_space(1000, 10) == want
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 10**6))
    with pytest.raises(TrainingError, match=r"0\.01 GB.* has 0\.00 GB free"):
        cache.require_space(1000, 10)
    assert cache.require_space(0, 0) == 0


def test_two_runs_do_not_fill_it_at_once(
    tower: FrozenTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeroflaw_export.training.token_cache._LOCK_SECONDS", 0)
    first, second = (open_token_cache(tmp_path, tower) for _ in range(2))
    refused = pytest.raises(TrainingError, match="another run is filling")
    with first.locked(), refused, second.locked():
        pass
    with second.locked():
        pass


def test_a_write_that_fails_leaves_nothing(
    tower: FrozenTower, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_token_cache(tmp_path, tower)

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TrainingError, match="No space left"):
        cache.write_tokens("a", tower.patch_tokens(image))
    assert not list((tmp_path / "tokens").iterdir())


def test_tokens_that_float16_cannot_hold_are_refused(image: np.ndarray) -> None:
    architecture = clip_architecture("tiny")
    clip = load_clip(architecture, SIZE, SOURCE)
    clip.visual.transformer.resblocks[2].mlp.c_proj.bias.data += 1e6
    with pytest.raises(TrainingError, match="float16"):
        frozen_tower(clip, architecture, SIZE, SOURCE).patch_tokens(image)
