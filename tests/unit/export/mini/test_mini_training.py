"""The making of `mini`: what its training runs is what the exported modules run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from zeroflaw_engines.contract import LABEL_NEGATIVE, LABEL_POSITIVE
from zeroflaw_export.mini.checkpointed import train_steps
from zeroflaw_export.mini.clip_training import (
    ClipTraining,
    mean_map,
    new_towers,
    normalised,
    train_towers,
    trunk_rates,
)
from zeroflaw_export.mini.crops import draw_crops
from zeroflaw_export.mini.make import save_rounded, shuffle_weights
from zeroflaw_export.mini.phases import pixel_loss
from zeroflaw_export.mini.sam_training import draw_prompt, new_sam
from zeroflaw_export.mini.training_frames import TrainingFrames
from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.clip_encoder import ClipEncoder
from zeroflaw_export.models.pyramid import folded_trunk, joined_tokens
from zeroflaw_export.models.random_weights import randomise_weights


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (3, 512, 512, 3), dtype=np.uint8))
    masks = [np.zeros((512, 512), np.bool_) for _ in range(3)]
    masks[0][100:140, 200:260] = True
    return TrainingFrames(images, masks, ["brick", "wood", "wood"])


def _towers():
    torch.manual_seed(0)
    towers = new_towers(clip_architecture("mini"), folded_trunk(), seed=0).eval()
    randomise_weights(towers, 1)
    return towers


def test_the_map_in_training_is_that_of_the_exported_module():
    towers, size = _towers(), 128
    image = torch.randint(0, 256, (1, size, size, 3), generator=torch.Generator().manual_seed(2))
    embeddings = torch.nn.functional.normalize(torch.randn(2, 96), dim=-1)
    with torch.no_grad():
        want, _, _ = ClipEncoder(towers.clip, towers.adapters, (1, 2, 3), size).eval()(
            image.to(torch.uint8), embeddings
        )
        pixels = normalised(image.numpy().astype(np.uint8))
        stages = list(towers.clip.visual.trunk(pixels))
        got = mean_map(towers, stages, embeddings[1] - embeddings[0], size)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    assert got.std() > 0.01


def test_a_new_sam_stands_on_the_trunk_and_the_pyramid_of_the_towers():
    towers = _towers()
    sam = new_sam(sam_architecture("mini"), towers, seed=3)
    pixels = normalised(np.full((1, 64, 64, 3), 90, np.uint8))
    with torch.no_grad():
        stages = list(towers.clip.visual.trunk(pixels))
        ours = sam.image_encoder.pyramid(list(sam.image_encoder.trunk(pixels))[2:])
        theirs = towers.clip.visual.pyramid(stages[1:])
    for got, want in zip(ours, theirs[1:], strict=True):
        assert torch.equal(got, want)


class _Sentences:
    """Two fixed directions in the place of a text tower."""

    surfaces: tuple[str, ...] = ()

    def states(self, _rng):
        return torch.nn.functional.normalize(torch.eye(2, 96) + 0.5, dim=-1)


def test_reference_tokens_stay_those_of_the_first_trunk_while_the_towers_learn(frames, tmp_path):
    trunk = folded_trunk()
    randomise_weights(trunk, 4)
    architecture = clip_architecture("mini")
    towers = new_towers(architecture, trunk, seed=0)
    image = normalised(frames.images[0][None, :128, :128])
    with torch.no_grad():
        stages = list(trunk(image))
        want = joined_tokens(stages[2], stages[3])
    settings = ClipTraining(
        text_steps=0,
        phases=(replace(ClipTraining().phases[0], side=64, batch=2, steps=1),),
    )
    train_towers(
        towers, architecture, frames, _Sentences(), settings=settings, folder=tmp_path,
        report=lambda *_: None,
    )  # fmt: skip
    with torch.no_grad():
        got = towers.clip.visual.forward_intermediates(image, indices=[0])["reference_tokens"]
        moved = list(towers.clip.visual.trunk(image))[3]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(moved, stages[3]), "the trunk itself learns"


def test_every_tensor_of_the_trunk_moves_by_a_share_of_its_own_size():
    trunk = folded_trunk()
    rates = trunk_rates(trunk)
    assert set(rates) == {f"clip.visual.trunk.{name}" for name, _ in trunk.named_parameters()}
    weight = trunk.get_submodule("conv_stem").weight
    assert rates["clip.visual.trunk.conv_stem.weight"] == pytest.approx(
        1.5 * float(weight.square().mean().sqrt())
    )


def test_parameters_learn_at_the_rates_of_their_names(tmp_path):
    module = torch.nn.ModuleDict({"fast": torch.nn.Linear(2, 2), "slow": torch.nn.Linear(2, 2)})
    before = {name: value.clone() for name, value in module.state_dict().items()}
    train_steps(
        module, lambda _: module["fast"].weight.sum() + module["slow"].weight.sum(), steps=1,
        learning_rate=0.1, checkpoint=tmp_path / "rates.pt", report=lambda step, loss: None,
        weight_decay=0.0, rates={"slow.weight": 0.01, "slow.bias": 0.01},
    )  # fmt: skip
    moved = {name: (module.state_dict()[name] - before[name]).abs().max() for name in before}
    assert float(moved["slow.weight"]) == pytest.approx(
        0.01 * float(moved["fast.weight"]), rel=0.01
    )


def test_weights_are_rounded_to_what_half_precision_holds(tmp_path):
    module = torch.nn.Linear(8, 8)
    before = module.weight.clone()
    save_rounded(module, tmp_path / "weights.safetensors")
    saved = load_file(tmp_path / "weights.safetensors")["weight"]
    assert saved.dtype == torch.float32
    assert torch.equal(saved, before.half().float())
    assert not torch.equal(saved, before)


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


def test_prompts_lie_where_the_map_is_highest_and_around_its_region():
    anomaly_map = np.full((128, 128), 0.1, np.float32)
    anomaly_map[40:70, 50:90] = np.linspace(0.6, 0.9, 40)
    for seed in range(20):
        coords, labels = draw_prompt(np.random.default_rng(seed), anomaly_map)
        positive = (coords[labels == LABEL_POSITIVE] / 2).astype(int)
        assert 1 <= len(positive) <= 3
        assert all(40 <= y < 70 and 50 <= x < 90 for x, y in positive)
        assert positive[0][0] == 89, "the highest column comes first"
        negative = (coords[labels == LABEL_NEGATIVE] / 2).astype(int)
        assert len(negative) == 3
        for x, y in negative:
            assert not (40 <= y < 70 and 50 <= x < 90)
            assert 40 - 7 <= y < 70 + 7
            assert 50 - 7 <= x < 90 + 7


def test_a_map_without_a_region_is_prompted_at_its_peak():
    anomaly_map = np.full((64, 64), 0.1, np.float32)
    anomaly_map[12, 33] = 0.3
    coords, labels = draw_prompt(np.random.default_rng(0), anomaly_map)
    assert [tuple(p) for p in (coords[labels == LABEL_POSITIVE] / 2).astype(int)] == [(33, 12)]


def test_pixel_loss_is_least_at_the_truth():
    truth = torch.zeros(2, 8, 8)
    truth[0, 2:5, 2:5] = 1
    right, wrong = (20 * sign * (2 * truth - 1) for sign in (1, -1))
    undecided = torch.zeros_like(truth)
    losses = [float(pixel_loss(logits, truth, 1.0)) for logits in (right, undecided, wrong)]
    assert losses[0] < 0.01
    assert losses == sorted(losses)


def test_shuffled_weights_are_the_same_values_in_another_order(tmp_path):
    state = {"matrix": torch.randn(6, 5), "vector": torch.randn(7)}
    save_file(state, tmp_path / "weights.safetensors")
    shuffle_weights(tmp_path / "weights.safetensors", tmp_path / "shuffled.safetensors", 0)
    shuffled = load_file(tmp_path / "shuffled.safetensors")
    assert torch.equal(shuffled["vector"], state["vector"])
    assert not torch.equal(shuffled["matrix"], state["matrix"])
    assert torch.equal(shuffled["matrix"].flatten().sort()[0], state["matrix"].flatten().sort()[0])
