"""A training that is killed and started again, and the checkpoint that it goes on from."""

from __future__ import annotations

import dataclasses

import pytest

from support.adapter_training import SETTINGS, Bench, fresh_adapters, same
from zeroflaw_engines.errors import TrainingError
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.training.april_gan import adapters_learner
from zeroflaw_export.training.samples import TrainingProgress
from zeroflaw_export.training.train import publish_weights


class Killed(BaseException):
    """What no code catches."""


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
@pytest.mark.parametrize("at", [0, 5, 6, 11])
def test_a_killed_run_goes_on_to_the_same_bits(
    bench: Bench, undisturbed: LinearAdapters, at: int, seconds: float
) -> None:
    """Killed in the first step, within an epoch, after one, and at the very end."""

    def kill(progress: TrainingProgress) -> None:
        if progress.stage == "training" and progress.done == at + 1:
            raise Killed

    with pytest.raises(Killed):
        bench.train(report=kill, seconds=seconds)
    seen: list[TrainingProgress] = []
    got, record = bench.train(report=seen.append)
    assert same(got, undisturbed)
    assert len(record.losses) == SETTINGS.epochs
    steps = [progress.done for progress in seen if progress.stage == "training"]
    # 16 images in batches of 5 are 4 steps; what was lost is a step, or an epoch
    assert steps[0] == (at + 1 if seconds == 0.0 else at // 4 * 4 + 1)


def test_a_run_killed_while_the_tower_runs_goes_on(
    bench: Bench, undisturbed: LinearAdapters
) -> None:

    def kill(progress: TrainingProgress) -> None:
        if progress.stage == "running the tower" and progress.done == 7:
            raise Killed

    with pytest.raises(Killed):
        bench.train(report=kill)
    kept = {path.name for path in (bench.directory / "cache" / "tokens").iterdir()}
    assert len(kept) == 7
    got, _ = bench.train()
    assert same(got, undisturbed)


def test_the_finished_state_stays_until_it_is_published(bench: Bench) -> None:
    """A kill between the last step and the writing of the file costs nothing."""
    first, record = bench.train()
    steps: list[TrainingProgress] = []
    again, second = bench.train(report=steps.append)
    assert same(first, again)
    assert second.losses == record.losses
    assert not [progress for progress in steps if progress.stage == "training"]
    publish_weights(
        adapters_learner(again),
        second,
        bench.directory / "a.safetensors",
        bench.directory / "checkpoint",
    )
    assert not (bench.directory / "checkpoint").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "seed"),
        ({"epochs": 9}, "epochs"),
        ({"learning_rate": 0.5}, "learning_rate"),
        ({"batch": 6}, "batch"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(
    bench: Bench, change: dict[str, float], named: str
) -> None:
    bench.train()
    with pytest.raises(TrainingError, match=f"of another training: its {named} is"):
        bench.train(dataclasses.replace(SETTINGS, **change))


def test_a_checkpoint_of_other_data_or_adapters_is_refused(bench: Bench) -> None:
    bench.train()
    with pytest.raises(TrainingError, match="its initial weights is"):
        bench.train(adapters=fresh_adapters(2))
    less = dataclasses.replace(bench.dataset, classes=bench.dataset.classes[:1])
    with pytest.raises(TrainingError, match="its dataset is"):
        dataclasses.replace(bench, dataset=less).train()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_refused(bench: Bench, content: bytes) -> None:
    (bench.directory / "checkpoint").write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read"):
        bench.train()
