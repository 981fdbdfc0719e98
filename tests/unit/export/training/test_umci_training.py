"""The training of ClipSAM's UMCI: its loss is the paper's, it learns, and a kill costs nothing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from support.adapter_training import SIZE, SOURCE, text_of
from support.datasets import write_defect_pictures
from zeroflaw_engines.errors import ExportError, TrainingError, WeightsError
from zeroflaw_export.datasets import read_dataset, read_sample_image, read_sample_mask
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.models.localizers.clipsam import load_stages, new_stages, save_stages
from zeroflaw_export.models.localizers.umci import ClipSamParameters
from zeroflaw_export.training.clipsam import default_stage_weights, umci_learner
from zeroflaw_export.training.job import TrainingJob
from zeroflaw_export.training.learner import Batch
from zeroflaw_export.training.run import frozen_tower, run_training
from zeroflaw_export.training.samples import TrainingProgress
from zeroflaw_export.training.train import TrainingSettings, _step, train_localizer

SMALL = ClipSamParameters(hidden_channels=8, pool_sizes=(2, 3), head_channels=8)
SETTINGS = TrainingSettings(epochs=2, batch=4, learning_rate=1e-3, seed=1)


class Killed(BaseException):
    """What no code catches."""


def fresh_stages(name="tiny", size=SIZE):
    architecture = clip_architecture(name)
    torch.manual_seed(2)
    return new_stages(architecture.build(size), architecture, size, SMALL)


def test_the_loss_is_that_of_the_equations():
    """Equations 10 to 12, by the pixel: focal, dice with squares, and the stages' weights."""
    torch.manual_seed(3)
    stages, weights = fresh_stages(), (0.1, 0.1, 0.1, 0.7)
    tokens = tuple(torch.randn(2, 16, 64).half() for _ in range(4))
    texts = torch.nn.functional.normalize(torch.randn(2, 2, 32), dim=-1)
    masks = torch.rand(2, 4, 4) > 0.6
    learner = umci_learner(stages, weights)
    batch = Batch(tokens, texts, masks, (torch.eye(4),) * 4)  # as large as the grid
    got = _step(learner, learner.optimizer(1e-3), batch)
    want = 0.0
    for stage, weight, values in zip(stages.stages, weights, tokens, strict=True):
        with torch.no_grad():
            # the step has moved the weights: those of before, by the same seed
            before = fresh_stages().stages[list(stages.stages).index(stage)]
            probability = torch.softmax(before(values.float(), texts), dim=-1)[..., 1].double()
        focal, dice = 0.0, 0.0
        for image, truth in zip(probability, masks.flatten(1), strict=True):
            of_class = torch.where(truth, image, 1 - image)
            focal += float((-((1 - of_class) ** 2) * of_class.log()).mean()) / 2
            overlap, size = float(image[truth].sum()), float((image**2).sum() + truth.sum())
            dice += (1 - (2 * overlap + 1) / (size + 1)) / 2
        want += weight * (focal + dice)
    assert got == pytest.approx(want, rel=1e-3)


def test_it_learns_where_the_defects_are(tmp_path):
    dataset = read_dataset(write_defect_pictures(tmp_path / "data"))
    architecture, stages = clip_architecture("tiny"), fresh_stages()
    tower = frozen_tower(load_clip(architecture, SIZE, SOURCE), architecture, SIZE, SOURCE)
    record = train_localizer(
        tower,
        umci_learner(stages, default_stage_weights(4, pyramid=False)),
        dataset,
        text_of,
        dataclasses.replace(SETTINGS, epochs=20, learning_rate=5e-3),
        cache=tmp_path / "cache",
    )
    # a good image has a Dice loss of almost 1, however good the map is
    assert record.losses[-1] - 0.5 < 0.3 * (record.losses[0] - 0.5)
    differences = []
    for product in dataset.classes:
        for sample in product.samples:
            if sample.anomalous:
                image = read_sample_image(sample)
                mask = read_sample_mask(sample, image.shape[:2])
                tokens = torch.from_numpy(tower.patch_tokens(image)).float()
                with torch.no_grad():
                    logits = stages.stages[3].eval()(tokens[3:], text_of(product.name)[None])
                found = torch.softmax(logits, -1)[0, :, 1].reshape(4, 4).numpy()
                at = [np.linspace(0, side - 1, 4).astype(int) for side in mask.shape]
                shown = mask[np.ix_(*at)]
                if shown.any():
                    differences.append(found[shown].mean() - found[~shown].mean())
    assert np.mean(differences) > 0.3


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_killed_umci_training_goes_on_to_the_same_bits(tmp_path, at):
    dataset = read_dataset(write_defect_pictures(tmp_path / "data", count=2))
    architecture = clip_architecture("tiny")
    tower = frozen_tower(load_clip(architecture, SIZE, SOURCE), architecture, SIZE, SOURCE)

    def train(stages, checkpoint, report=lambda _: None):
        return train_localizer(
            tower,
            umci_learner(stages, (0.1, 0.1, 0.1, 0.7)),
            dataset,
            text_of,
            SETTINGS,
            cache=tmp_path / "cache",
            checkpoint=checkpoint,
            checkpoint_seconds=0.0,
            report=report,
        )

    def kill(progress: TrainingProgress) -> None:
        if progress.stage == "training" and progress.done == at + 1:
            raise Killed

    undisturbed, resumed = fresh_stages(), fresh_stages()
    train(undisturbed, None)
    with pytest.raises(Killed):
        train(fresh_stages(), tmp_path / "checkpoint", kill)
    record = train(resumed, tmp_path / "checkpoint")
    assert len(record.losses) == SETTINGS.epochs
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def job_of(tmp_path, **changes):
    data = tmp_path / "data"
    if not data.exists():
        write_defect_pictures(data, count=2)
    job = TrainingJob(
        dataset=read_dataset(data),
        settings=dataclasses.replace(SETTINGS, epochs=1),
        clip_architecture="tiny",
        clip_weights=SOURCE,
        clip_image_size=SIZE,
        localizer="clipsam",
        localizer_parameters=dataclasses.asdict(SMALL),
        token_cache=tmp_path / "cache",
    )
    return dataclasses.replace(job, **changes)


def test_a_pyramid_is_trained_on_its_levels(tmp_path):
    size = 128
    job = job_of(tmp_path, clip_architecture="mini", clip_image_size=size)
    out = tmp_path / "umci.safetensors"
    record = run_training(job, out)
    tokens = next((tmp_path / "cache" / "tokens").glob("*.f16"))
    assert tokens.stat().st_size == 2 * 64 * (32**2 + 16**2 + 8**2)
    assert record.parameters["stage_weights"] == pytest.approx((1 / 3,) * 3)
    stages = fresh_stages("mini", size)
    load_stages(stages, WeightsSource(name="w", path=out))
    described = json.loads(out.with_name(out.name + ".json").read_text())
    assert described["localizer"] == "clipsam"
    assert described["parameters"]["hidden_channels"] == 8


def test_cached_levels_are_those_that_the_encoder_reads(tmp_path):
    size, architecture = 128, clip_architecture("mini")
    clip = load_clip(architecture, size, SOURCE)
    tower = frozen_tower(clip, architecture, size, SOURCE)
    image = np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8)
    seen = []
    forward = clip.visual.forward_intermediates
    clip.visual.forward_intermediates = lambda *a, **k: seen.append(forward(*a, **k)) or seen[-1]
    tokens = torch.from_numpy(tower.patch_tokens(image))
    levels = seen[0]["image_intermediates"]
    assert [len(level[0]) for level in levels] == [grid**2 for grid in tower.grids]
    parts = tokens[0].split([grid**2 for grid in tower.grids])
    for part, level in zip(parts, levels, strict=True):
        torch.testing.assert_close(part.float(), level[0], atol=0.01, rtol=1e-3)


def test_a_training_goes_on_from_weights(tmp_path):
    start = tmp_path / "start.safetensors"
    stages = fresh_stages()
    save_stages(stages, start)
    source = WeightsSource(name="start", path=start)
    settings = dataclasses.replace(SETTINGS, epochs=1, learning_rate=1e-12)
    out = tmp_path / "umci.safetensors"
    run_training(job_of(tmp_path, initial_weights=source, settings=settings), out)
    again = fresh_stages()
    load_stages(again, WeightsSource(name="w", path=out))
    for name, value in stages.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"localizer": "winclip"}, TrainingError, "no training for a localizer 'winclip'"),
        ({"stage_weights": (0.5, 0.5)}, TrainingError, "do not fit 4 stages"),
        ({"stage_weights": (0.5, 0.5, 0.5, 0.0)}, TrainingError, "do not fit 4 stages"),
        ({"localizer_parameters": {"colour": 1}}, ExportError, "no parameter colour"),
        ({"localizer_parameters": {"pool_sizes": [3, 9]}}, ExportError, "a grid of 4 tokens"),
    ],
)
def test_a_job_that_cannot_be_is_refused(tmp_path, changes, error, said):
    with pytest.raises(error, match=said):
        run_training(job_of(tmp_path, **changes), tmp_path / "umci.safetensors")


def test_other_suffixes_and_other_weights_are_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"suffix '\.pth'"):
        run_training(job_of(tmp_path), tmp_path / "umci.pth")
    start = tmp_path / "start.safetensors"
    other = dataclasses.replace(SMALL, hidden_channels=9)
    architecture = clip_architecture("tiny")
    save_stages(new_stages(architecture.build(SIZE), architecture, SIZE, other), start)
    job = job_of(tmp_path, initial_weights=WeightsSource(name="s", path=start))
    with pytest.raises(WeightsError, match="trained with hidden_channels 9"):
        run_training(job, tmp_path / "umci.safetensors")


def test_weights_of_stages():
    assert default_stage_weights(4, pyramid=False) == (0.1, 0.1, 0.1, 0.7)
    assert default_stage_weights(3, pyramid=False) == (0.15, 0.15, 0.7)
    assert default_stage_weights(1, pyramid=False) == (0.7,)
    assert default_stage_weights(3, pyramid=True) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
