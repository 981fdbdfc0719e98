"""The stages that a model is made in: all of them one after the other, or one alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import typer

from zeroflaw_engines.process.terminal import err


def run_stages(
    stages: Mapping[str, Callable[[], object]], only: str | None, *, work: Path, threads: int
) -> None:
    """Run stages in their order, and say how long each took.

    Args:
        only: Name of the stage to run alone; None runs all.
        work: Directory of what they make, made if needed.
        threads: That train.

    Raises:
        BadParameter: There is no stage of that name.
    """
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    if only is not None and only not in stages:
        raise typer.BadParameter(f"there is no stage {only!r}; choose one of {', '.join(stages)}")
    for name, stage in stages.items():
        if only in {None, name}:
            began = time.monotonic()
            stage()
            err.print(f"{name}: {time.monotonic() - began:.0f} s")
