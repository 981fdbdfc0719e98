"""The state of a training between two steps, on disk, so that a killed run can go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from torch import nn

from zeroflaw_engines.errors import TrainingError
from zeroflaw_engines.files import replacing

_SCHEMA: Final = 2


@dataclass(frozen=True)
class TrainingPosition:
    """Where a training is. What is random is drawn from the seed and the epoch's number alone.

    Attributes:
        epoch: Epochs that are complete.
        step: Steps of the running epoch that are complete.
        loss_sum: Sum of the losses of those steps.
        losses: Mean loss of each complete epoch.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    losses: tuple[float, ...] = ()

    def after_step(self, loss: float, steps: int) -> TrainingPosition:
        """Return the position after one more step of an epoch of `steps` steps."""
        total, done = self.loss_sum + loss, self.step + 1
        if done < steps:
            return replace(self, step=done, loss_sum=total)
        return TrainingPosition(self.epoch + 1, losses=(*self.losses, total / steps))


def write_checkpoint(
    path: Path,
    run: dict[str, Any],
    position: TrainingPosition,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the state of a training, all of it or nothing.

    Args:
        run: What the training is made of; another training may not go on with it.

    Raises:
        TrainingError: The disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    content = {
        "schema": _SCHEMA,
        "run": msgspec.json.encode(run).decode(),
        "position": msgspec.json.encode(position).decode(),
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, partial):
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into the latter
        raise TrainingError(
            f"the checkpoint {path} cannot be written: {error}", "make space on its disk"
        ) from error


def read_checkpoint(
    path: Path, run: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainingPosition:
    """Take a training up where it was; from the beginning if there is no checkpoint.

    Args:
        run: What this training is made of; that of the checkpoint must be equal.
        module: What is trained; takes the state of the checkpoint, in place.
        optimizer: Takes its moments, in place.

    Raises:
        TrainingError: The checkpoint is damaged, or that of another training.
    """
    if not path.exists():
        return TrainingPosition()
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        have: dict[str, Any] = msgspec.json.decode(content["run"])
        position = msgspec.json.decode(content["position"], type=TrainingPosition)
        states = content["module"], content["optimizer"]
    except Exception as error:  # a damaged file makes the readers raise almost anything
        raise TrainingError(
            f"the checkpoint {path} cannot be read ({type(error).__name__})",
            "delete it; the training then begins anew, with the token cache",
        ) from error
    want: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(run))
    for name in sorted({*have, *want}):
        if have.get(name) != want.get(name):
            raise TrainingError(
                f"the checkpoint {path} is of another training: its {name} is"
                f" {have.get(name)}, and this run's is {want.get(name)}",
                "start with the same data and settings, or delete the checkpoint",
            )
    module.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    return position
