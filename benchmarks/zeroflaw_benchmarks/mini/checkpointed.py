"""A training loop that a kill cannot spoil: it goes on from its last checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
    seconds_between_checkpoints: float = 60.0,
) -> None:
    """Trains with Muon and AdamW, a linear warm-up and a cosine decay.

    Muon (Jordan 2024) moves the matrices of the blocks, with steps whose size is that of AdamW's
    (Moonlight, arXiv 2502.16982); AdamW moves all else.

    Every step draws its data from its own number, so a run that was killed and goes on ends in
    the same weights as one that was not.

    Args:
        module: What is trained, in place.
        loss_of_step: Loss of a step's batch.
        steps: Steps in all.
        learning_rate: Peak.
        checkpoint: Where the state is kept.
        report: Is told the step and its loss.
        weight_decay: Of matrices; vectors have none.
        seconds_between_checkpoints: How old the kept state may be.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [
        p for n, p in module.named_parameters() if p.requires_grad and p.ndim == 2 and _in_block(n)
    ]
    moved = {id(p) for p in matrices}
    rest = [p for p in trained if id(p) not in moved]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0},
            ],
            betas=(0.9, 0.98),
        )
    ]
    if matrices:
        optimisers.append(
            torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
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
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        first = state["steps"]
    saved = time.monotonic()
    for step in range(first, steps):
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = learning_rate * rate(step)
        module.zero_grad(set_to_none=True)
        loss = loss_of_step(step)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        report(step + 1, float(loss.detach()))
        late = time.monotonic() - saved > seconds_between_checkpoints
        if late or step + 1 == steps:
            saved = time.monotonic()
            partial = checkpoint.with_suffix(".partial")
            torch.save(
                {
                    "module": module.state_dict(),
                    "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                    "steps": step + 1,
                },
                partial,
            )
            partial.replace(checkpoint)


def _in_block(name: str) -> bool:
    """Whether a parameter is a matrix of a transformer's block, not a table or a last layer."""
    in_block = any(part in name for part in ("blocks.", "transformer.layers."))
    return in_block and "rel_pos" not in name
