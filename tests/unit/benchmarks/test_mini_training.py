"""The making of `mini`: what its training runs is what the exported modules run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from zeroflaw_benchmarks.mini.checkpointed import train_steps
from zeroflaw_benchmarks.mini.clip_from_sam import start_from_sam
from zeroflaw_benchmarks.mini.clip_training import image_tokens
from zeroflaw_benchmarks.mini.crops import draw_crops
from zeroflaw_benchmarks.mini.make import save_rounded, shuffle_weights
from zeroflaw_benchmarks.mini.phases import pixel_loss
from zeroflaw_benchmarks.mini.prefetched import Prefetched
from zeroflaw_benchmarks.mini.sam_training import sam_features
from zeroflaw_benchmarks.mini.starting_weights import cosine_basis, place_waves
from zeroflaw_benchmarks.mini.training_frames import TrainingFrames
from zeroflaw_export.architectures import CLIP_MEAN, CLIP_STD, clip_architecture, sam_architecture
from zeroflaw_export.random_weights import randomise_weights


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (3, 512, 512, 3), dtype=np.uint8))
    masks = [np.zeros((512, 512), np.bool_) for _ in range(3)]
    masks[0][100:140, 200:260] = True
    return TrainingFrames(images, masks, ["brick", "wood", "wood"])


def test_tokens_of_a_whole_frame_are_open_clips():
    architecture = clip_architecture("tiny")
    clip = architecture.build(architecture.image_size)
    randomise_weights(clip, 1)
    side = architecture.image_size
    grid = side // architecture.patch_size
    images = torch.randint(0, 256, (2, side, side, 3), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tokens, cls = image_tokens(
            clip, images.to(torch.uint8), tapped=architecture.tapped_blocks,
            full=grid, grid=grid, offset=(0, 0),
        )  # fmt: skip
        pixels = (images / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
        seen = clip.visual.forward_intermediates(
            pixels.permute(0, 3, 1, 2),
            indices=[block - 1 for block in architecture.tapped_blocks],
            normalize_intermediates=False,
            output_fmt="NLC",
        )
    for got, want in zip(tokens, seen["image_intermediates"], strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cls, seen["image_features"], atol=1e-4, rtol=1e-4)


def test_features_of_a_whole_frame_are_segment_anythings():
    sam = sam_architecture("tiny").build()
    randomise_weights(sam, 3)
    images = torch.randint(0, 256, (2, 256, 256, 3), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        got = sam_features(sam, images.to(torch.uint8), 16, (0, 0))
        pixels = (images - sam.pixel_mean.flatten()) / sam.pixel_std.flatten()
        want = sam.image_encoder(pixels.permute(0, 3, 1, 2))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_tower_that_starts_from_sam_sees_what_sam_sees():
    """On one window, without relative positions and with SAM's activation, both are one ViT."""
    architecture = clip_architecture("mini")
    sam = sam_architecture("mini").build()
    randomise_weights(sam, 5)
    encoder = sam.image_encoder
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "rel_pos" in name:
                parameter.zero_()
    clip = architecture.build(architecture.image_size)
    randomise_weights(clip, 6)
    start_from_sam(clip.visual, sam)
    for block in clip.visual.transformer.resblocks:
        block.mlp.gelu = torch.nn.GELU()
        # SAM's tokens know no CLS token; a value of zero leaves the rest as it was but for scale.
    images = torch.randint(0, 256, (1, 128, 128, 3), generator=torch.Generator().manual_seed(7))
    images = images.to(torch.uint8)
    grid, full = 8, 32
    place = (3, 5)
    with torch.no_grad():
        pixels = (images - sam.pixel_mean.flatten()) / sam.pixel_std.flatten()
        y, x = place
        want = encoder.patch_embed(pixels.permute(0, 3, 1, 2))
        want = want + encoder.pos_embed[:, y : y + grid, x : x + grid]
        tower = clip.visual
        own = (images / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
        tokens = tower.conv1(own.permute(0, 3, 1, 2)).flatten(2).mT
        at = tower.positional_embedding[1:].reshape(full, full, -1)
        tokens = tokens + at[y : y + grid, x : x + grid].flatten(0, 1)
        torch.testing.assert_close(tokens, want.flatten(1, 2), atol=1e-4, rtol=1e-4)
        for block, source in zip(tower.transformer.resblocks, encoder.blocks, strict=True):
            source.window_size = 0
            tables = (source.attn.rel_pos_h, source.attn.rel_pos_w)
            source.attn.use_rel_pos = False
            assert all(not table.any() for table in tables)
            tokens, want = block(tokens), source(want)
            torch.testing.assert_close(tokens, want.flatten(1, 2), atol=1e-3, rtol=1e-3)


class _Tower(torch.nn.Module):
    """A matrix that Muon moves, and a layer that AdamW does."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4)])
        self.last = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.blocks[0](x)))


def _trained(checkpoint, die_at=None, steps=12):
    torch.manual_seed(0)
    module = _Tower()
    losses = []

    def loss(step):
        if step == die_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return (module(x) - x[:, :2]).square().mean()

    train_steps(
        module, loss, steps=steps, learning_rate=0.1, checkpoint=checkpoint,
        report=lambda step, loss: losses.append(loss), seconds_between_checkpoints=0.0,
    )  # fmt: skip
    return module.state_dict(), losses


def test_killed_training_ends_in_the_same_weights(tmp_path):
    whole, _ = _trained(tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        _trained(tmp_path / "killed.pt", die_at=7)
    resumed, losses = _trained(tmp_path / "killed.pt")
    assert len(losses) == 5
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_lowers_the_loss_and_moves_every_weight(tmp_path):
    state, losses = _trained(tmp_path / "state.pt", steps=60)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    torch.manual_seed(0)
    assert all(not torch.equal(state[name], old) for name, old in _Tower().state_dict().items())


def test_data_drawn_ahead_is_that_of_each_step_also_after_a_jump():
    drawn = Prefetched(lambda step: torch.full((2,), step), steps=9)
    assert [int(drawn(step)[0]) for step in (0, 1, 2, 6, 7, 8)] == [0, 1, 2, 6, 7, 8]


def test_crops_over_defects_hold_them_and_truth_follows_the_image(frames):
    arguments = {"side": 64, "window": (80.0, 160.0), "cell": 4}
    images, truth, index = draw_crops(
        frames, np.random.default_rng(1), 12, defective=1.0, **arguments
    )
    assert images.shape == (12, 64, 64, 3)
    assert truth.shape == (12, 16, 16)
    assert (index == 0).all()
    assert (truth.reshape(12, -1).max(axis=1) > 0).all()
    again = draw_crops(frames, np.random.default_rng(1), 12, defective=1.0, **arguments)
    assert np.array_equal(again[0], images)


def test_truth_turns_with_the_image():
    image = np.zeros((512, 512, 3), np.uint8)
    mask = np.zeros((512, 512), np.bool_)
    mask[40:200, 60:130] = True
    image[mask] = 255
    frames = TrainingFrames([image], [mask], ["wood"])
    images, truth, _ = draw_crops(
        frames, np.random.default_rng(2), 40, side=64, window=(300.0, 500.0), cell=4, defective=1.0
    )
    for picture, share in zip(images, truth, strict=True):
        grey = picture.mean(axis=-1).reshape(16, 4, 16, 4).mean(axis=(1, 3))
        assert abs(np.corrcoef(grey.ravel(), share.ravel())[0, 1]) > 0.8


def test_pixel_loss_is_least_at_the_truth():
    truth = torch.zeros(2, 8, 8)
    truth[0, 2:5, 2:5] = 1
    right, wrong = (20 * sign * (2 * truth - 1) for sign in (1, -1))
    undecided = torch.zeros_like(truth)
    losses = [float(pixel_loss(logits, truth, 1.0)) for logits in (right, undecided, wrong)]
    assert losses[0] < 0.01
    assert losses == sorted(losses)


def test_cosine_basis_is_orthogonal_and_places_near_are_alike():
    filters = cosine_basis(24, 8).flatten(1)
    unit = torch.nn.functional.normalize(filters, dim=1)
    torch.testing.assert_close(unit @ unit.T, torch.eye(24), atol=1e-5, rtol=0)
    places = torch.nn.functional.normalize(place_waves(6, 32), dim=1)
    alike = places @ places[0]
    assert alike[0] > alike[1] > alike[3]


def test_shuffled_weights_are_the_same_values_in_another_order(tmp_path):
    state = {"matrix": torch.randn(6, 5), "vector": torch.randn(7)}
    save_file(state, tmp_path / "weights.safetensors")
    shuffle_weights(tmp_path / "weights.safetensors", tmp_path / "shuffled.safetensors", 0)
    shuffled = load_file(tmp_path / "shuffled.safetensors")
    assert torch.equal(shuffled["vector"], state["vector"])
    assert not torch.equal(shuffled["matrix"], state["matrix"])
    assert torch.equal(shuffled["matrix"].flatten().sort()[0], state["matrix"].flatten().sort()[0])


def test_saved_weights_fit_16_bits_and_are_near_the_trained_ones(tmp_path):
    torch.manual_seed(1)
    module = torch.nn.Linear(5, 3)
    save_rounded(module, tmp_path / "weights.safetensors")
    saved = load_file(tmp_path / "weights.safetensors")
    for name, value in module.state_dict().items():
        assert saved[name].dtype == torch.float32
        assert torch.equal(saved[name].bfloat16().float(), saved[name])
        torch.testing.assert_close(saved[name], value, rtol=2**-8, atol=0)
