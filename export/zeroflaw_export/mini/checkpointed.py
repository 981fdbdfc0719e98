"""A training loop that a kill cannot spoil: it goes on from its last checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn


def train_steps(
    module: nn.Module,
    loss_of_step: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    checkpoint: Path,
    report: Callable[[int, float], None],
    weight_decay: float = 0.02,
    rates: Mapping[str, float] | None = None,
    seconds_between_checkpoints: float = 60.0,
) -> None:
    """Train with AdamW, a linear warm-up and a cosine decay.

    Every step draws its data from its own number, so a run that was killed and goes on ends in
    the same weights as one that was not.

    Args:
        loss_of_step: Takes the step, from 0; gives the loss of its batch.
        steps: Steps in all, those of the checkpoint included.
        learning_rate: Peak of the schedule.
        checkpoint: File of the state; where it exists, the training goes on from it.
        report: Called with the step, from 1, and its loss.
        weight_decay: Of matrices; vectors have none.
        rates: Learning rate of parameters of these names, as a share of the peak; of others, 1.
        seconds_between_checkpoints: Shortest time between two checkpoints, s.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        kind = parameter.ndim > 1, (rates or {}).get(name, 1.0)
        groups.setdefault(kind, []).append(parameter)
    optimiser = torch.optim.AdamW(
        [
            {"params": members, "weight_decay": weight_decay if matrices else 0.0, "share": share}
            for (matrices, share), members in groups.items()
        ],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )
    warm_up = max(1, min(200, steps // 10))

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))

    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["steps"]
    saved = time.monotonic()
    for step in range(first, steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * group["share"] * rate(step)
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of_step(step)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimiser.step()
        report(step + 1, float(loss.detach()))
        late = time.monotonic() - saved > seconds_between_checkpoints
        if late or step + 1 == steps:
            saved = time.monotonic()
            partial = checkpoint.with_suffix(".partial")
            torch.save(
                {
                    "module": module.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "steps": step + 1,
                },
                partial,
            )
            partial.replace(checkpoint)
