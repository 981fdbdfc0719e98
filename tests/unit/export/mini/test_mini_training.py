"""The making of `mini`: what its training runs is what the exported modules run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from zeroflaw_export.mini.checkpointed import train_steps
from zeroflaw_export.mini.clip_training import _image_tokens, new_towers
from zeroflaw_export.mini.crops import draw_crops
from zeroflaw_export.mini.make import shuffle_weights
from zeroflaw_export.mini.phases import pixel_loss
from zeroflaw_export.mini.sam_training import _features, draw_prompt
from zeroflaw_export.mini.starting_weights import cosine_basis, place_waves
from zeroflaw_export.mini.training_frames import TrainingFrames
from zeroflaw_export.models.architectures import (
    CLIP_MEAN,
    CLIP_STD,
    clip_architecture,
    sam_architecture,
)
from zeroflaw_export.models.random_weights import randomise_weights


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (3, 512, 512, 3), dtype=np.uint8))
    masks = [np.zeros((512, 512), np.bool_) for _ in range(3)]
    masks[0][100:140, 200:260] = True
    return TrainingFrames(images, masks, ["brick", "wood", "wood"])


def test_tokens_of_a_whole_frame_are_open_clips():
    architecture = clip_architecture("tiny")
    towers = new_towers(architecture, seed=0).eval()
    randomise_weights(towers.clip, 1)
    side = architecture.image_size
    grid = side // architecture.patch_size
    images = torch.randint(0, 256, (2, side, side, 3), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tokens, cls = _image_tokens(
            towers.clip, images.to(torch.uint8), tapped=architecture.tapped_blocks,
            full=grid, grid=grid, offset=np.array([0, 0]),
        )  # fmt: skip
        pixels = (images / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
        seen = towers.clip.visual.forward_intermediates(
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
        got = _features(sam, images.to(torch.uint8), 16, (0, 0))
        pixels = (images - sam.pixel_mean.flatten()) / sam.pixel_std.flatten()
        want = sam.image_encoder(pixels.permute(0, 3, 1, 2))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_killed_training_ends_in_the_same_weights(tmp_path):
    def run(name, die_at):
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 4)

        def loss(step):
            if step == die_at:
                raise KeyboardInterrupt
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            return module(x).square().mean()

        train_steps(
            module, loss, steps=12, learning_rate=0.1, checkpoint=tmp_path / name,
            report=lambda step, loss: None, seconds_between_checkpoints=0.0,
        )  # fmt: skip
        return module.state_dict()

    whole = run("whole.pt", None)
    with pytest.raises(KeyboardInterrupt):
        run("killed.pt", 7)
    resumed = run("killed.pt", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


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
