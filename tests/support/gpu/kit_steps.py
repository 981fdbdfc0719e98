"""Steps of the GPU kit with commands of a test, and calls of the kit that run them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
from zeroflaw_benchmarks.verify.gpu_kit.runner import Limits, Results, run_steps
from zeroflaw_benchmarks.verify.gpu_kit.steps import Step

FOREVER = 600


def shell(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


def step(name: str, *texts: str, **fields) -> Step:
    known = {"shows": name, "limit_s": 30.0, **fields}
    return Step(name=name, commands=tuple(map(shell, texts)), **known)


def run(place: Place, *steps: Step, budget_s: float = 60, least_s: float = 0.1, **words) -> Results:
    place.work.mkdir(exist_ok=True)
    limits = Limits(budget_s=budget_s, poll_s=0.01, least_s=least_s)
    return run_steps(steps, place, limits, variables=dict(os.environ), **words)


def outcomes(results: Results) -> dict[str, str]:
    return {name: result.outcome for name, result in results.items()}


def wait_until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.02)


def is_gone(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"
