"""Runs the steps within a budget of time, and keeps a record of them that survives it.

The record is written whenever something begins or ends, so that it is true, whatever ends the
process. A later call goes on where an earlier one ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from zeroflaw_benchmarks.verify.gpu_kit import process
from zeroflaw_benchmarks.verify.gpu_kit.installation import Place, has_module
from zeroflaw_benchmarks.verify.gpu_kit.steps import EXIT_REFUSED, Step

Outcome = Literal[
    "passed", "failed", "timed out", "refused", "not applicable", "not reached", "running"
]
ENDED: Final = ("passed", "failed", "timed out", "refused", "not applicable")
_POLL_S: Final = 0.1
# A step that gets less than this, or than a fifth of its limit, is not begun.
_LEAST_S: Final = 10.0
_LEAST_SHARE: Final = 0.2
# A step during which the kit itself was killed is tried once more.
_MAX_STARTS: Final = 2
_DETAIL: Final = 400


@dataclass(frozen=True)
class Result:
    """What became of a step.

    Attributes:
        outcome: `refused`: what it tries does not serve this machine. `not reached`: a later call
            may reach it.
        detail: In words.
        seconds: That it took.
        beside: Steps in the background that ran meanwhile: times are no measurements then.
        starts: How often it was begun.
        began: When it was begun, seconds since the epoch.
        process: Number of its process, while it runs.
        started: When that process started.
    """

    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0
    beside: tuple[str, ...] = ()
    starts: int = 0
    began: float = 0.0
    process: int = 0
    started: str = ""


Results = dict[str, Result]


def read_results(place: Place) -> Results:
    """Read the record of earlier calls; there is none where it is missing or damaged."""
    try:
        read = json.loads(_record(place).read_text("utf-8"))
        return {
            name: Result(**{**result, "beside": tuple(result["beside"])})
            for name, result in read.items()
            if result["outcome"] in get_args(Outcome)
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_results(place: Place, results: Results) -> None:
    """Write the record; it is replaced as a whole."""
    path = _record(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(
        json.dumps({name: asdict(result) for name, result in results.items()}, indent=1) + "\n",
        encoding="utf-8",
    )
    unfinished.replace(path)


def _record(place: Place) -> Path:
    return place.work / "results.json"


class StoppedError(Exception):
    """The run was asked to end."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a run may take.

    Attributes:
        budget_s: Seconds of all steps of this call together.
        poll_s: Seconds between two looks at a process.
        least_s: A step that would get fewer seconds is not begun.
    """

    budget_s: float
    poll_s: float = _POLL_S
    least_s: float = _LEAST_S


def run_steps(
    steps: Sequence[Step],
    place: Place,
    limits: Limits,
    *,
    variables: Mapping[str, str],
    gpu: bool = True,
    again: Sequence[str] = (),
    record: Callable[[Results], None] = lambda _results: None,
) -> Results:
    """Run the steps that have not ended yet.

    The first in order that is ready runs; one that waits for the background lets others pass.

    Args:
        variables: Environment of the steps.
        gpu: False leaves out the steps that need a GPU.
        again: Steps that are run again, though they have ended.
        record: Is told whenever something has changed.

    Raises:
        StoppedError: The process was asked to end; the record says so, and the step was stopped.
    """
    run = _Run(steps, place, limits, variables=variables, gpu=gpu, record=record)
    return run.run(again)


class _Run:
    """One call."""

    def __init__(
        self,
        steps: Sequence[Step],
        place: Place,
        limits: Limits,
        *,
        variables: Mapping[str, str],
        gpu: bool,
        record: Callable[[Results], None],
    ) -> None:
        self._steps = {step.name: step for step in steps}
        self._place, self._limits, self._variables = place, limits, variables
        self._gpu, self._record = gpu, record
        self._end = time.monotonic() + limits.budget_s
        self._results = read_results(place)
        self._cut_short: set[str] = set()

    def run(self, again: Sequence[str]) -> Results:
        for name in again:
            self._forget(name)
        for name, step in self._steps.items():
            self._take_over(name, step)
        try:
            while (ready := self._next()) is not None:
                self._start(ready)
                if not ready.background:
                    self._wait_for(ready)
        except StoppedError:
            for name, step in self._steps.items():
                result = self._results.get(name, Result("not reached"))
                if result.outcome == "running" and not step.background:
                    process.stop(self._running(name))
                    self._set(name, replace(result, outcome="not reached", detail="was stopped"))
            raise
        for name, step in self._steps.items():
            result = self._results.get(name, Result("not reached"))
            if result.outcome == "not reached" and name not in self._cut_short:
                why = self._why_not(step) or f"{max(0.0, self._left()):.0f} s were left"
                self._set(name, replace(result, detail=why))
        return self._results

    def _forget(self, name: str) -> None:
        """Let a step be run as if for the first time, and what could not be run for want of it."""
        if self._outcome(name) == "running":
            # Beside it, the second one would write to the same files.
            process.stop(self._running(name))
        self._results.pop(name, None)
        for step in self._steps.values():
            if name in step.needs and self._outcome(step.name) == "not applicable":
                self._forget(step.name)

    def _take_over(self, name: str, step: Step) -> None:
        """Look at what an earlier call left: what was not reached may be tried again."""
        result = self._results.get(name)
        if result is None or result.outcome in ENDED:
            return
        if result.outcome == "running":
            running = self._running(name)
            # The background goes on without the kit, but not without the machine.
            if step.background and (process.is_alive(running) or running.code.is_file()):
                self._look_at(name)
                return
            process.stop(running)
            if result.starts >= _MAX_STARTS:
                killed = replace(result, outcome="failed", detail="the kit was killed in it")
                self._set(name, killed)
                return
        self._results[name] = replace(result, outcome="not reached")

    def _next(self) -> Step | None:
        """Return the step to begin; None if none can be any more."""
        while True:
            self._look_at_background()
            waits = False
            for name, step in self._steps.items():
                result = self._results.get(name)
                if result is not None and result.outcome in (*ENDED, "running"):
                    continue
                left_out = self._left_out(step)
                if left_out:
                    self._set(name, Result("not applicable", left_out))
                    continue
                if self._why_not(step):
                    waits |= any(self._outcome(need) == "running" for need in step.needs)
                elif self._seconds_for(step) >= self._least(step):
                    return step
            if not waits or self._left() <= self._limits.least_s:
                return None
            time.sleep(self._limits.poll_s)

    def _left_out(self, step: Step) -> str:
        if step.gpu_only and not self._gpu:
            return "needs a GPU"
        failed = [need for need in step.needs if self._outcome(need) in ENDED
                  and self._outcome(need) != "passed"]  # fmt: skip
        if failed:
            return f"{', '.join(failed)}: {self._outcome(failed[0])}"
        if all(map(self._place.has, step.parts)):
            lacking = [name for name in step.modules if not has_module(name, self._variables)]
            if lacking:
                return f"there is no Python module {', '.join(lacking)}"
        return ""

    def _why_not(self, step: Step) -> str:
        """Say what a step waits for."""
        missing = [part for part in step.parts if not self._place.has(part)]
        if missing:
            return f"the kit's part {', '.join(missing)} is not here"
        pending = [need for need in step.needs if self._outcome(need) != "passed"]
        return f"waits for {', '.join(pending)}" if pending else ""

    def _start(self, step: Step) -> None:
        old = self._results.get(step.name, Result("not reached"))
        self._place.reports.mkdir(parents=True, exist_ok=True)
        if step.verdict is not None:
            for suffix in (".json", ".md"):
                step.verdict.with_suffix(suffix).unlink(missing_ok=True)
        running = process.start(
            step.commands,
            log=self._place.logs / f"{step.name}.log",
            code=self._code(step.name),
            variables=self._variables,
            cwd=self._place.work,
        )
        self._set(
            step.name,
            Result(
                "running",
                beside=tuple(self._background()),
                starts=old.starts + 1,
                began=time.time(),
                process=running.process,
                started=running.started,
            ),
        )

    def _wait_for(self, step: Step) -> None:
        seconds = self._seconds_for(step)
        end = time.monotonic() + seconds
        while self._results[step.name].outcome == "running":
            self._look_at_background()
            if time.monotonic() > end:
                self._time_out(step.name, seconds)
            else:
                self._look_at(step.name)
                time.sleep(self._limits.poll_s)

    def _look_at_background(self) -> None:
        for name in self._background():
            self._look_at(name)
            if self._results[name].outcome == "running" and (
                self._taken(name) > self._steps[name].limit_s
            ):
                self._time_out(name, self._steps[name].limit_s)

    def _background(self) -> list[str]:
        return [
            name
            for name, result in self._results.items()
            if result.outcome == "running" and name in self._steps and self._steps[name].background
        ]

    def _look_at(self, name: str) -> None:
        code = process.exit_code(self._running(name))
        if code is None:
            return
        outcome: Outcome = (
            "passed" if code == 0 else "refused" if code == EXIT_REFUSED else "failed"
        )
        self._ended(name, outcome, self._said(name) or f"exit code {code}")

    def _time_out(self, name: str, seconds: float) -> None:
        gone = process.stop(self._running(name))
        said = self._said(name)
        detail = f"stopped after {seconds:.0f} s" + ("" if gone else ", and cannot be killed")
        outcome: Outcome = "timed out"
        if seconds < self._steps[name].limit_s:
            # It had less than its limit: with the time of a later call it may pass.
            self._cut_short.add(name)
            outcome, detail = "not reached", f"{detail}, when the time of this call was over"
        self._ended(name, outcome, f"{detail}; {said}" if said else detail)

    def _ended(self, name: str, outcome: Outcome, detail: str) -> None:
        result = self._results[name]
        seconds = self._taken(name)
        self._set(name, replace(result, outcome=outcome, detail=detail, seconds=seconds, process=0))

    def _said(self, name: str) -> str:
        """Return a step's own last word: the verdict of its report, or the end of its log."""
        report = self._steps[name].verdict
        if report is not None and report.is_file():
            try:
                return str(json.loads(report.read_text("utf-8"))["verdict"])
            except (ValueError, KeyError):
                pass
        log = self._place.logs / f"{name}.log"
        text = log.read_text("utf-8", errors="replace") if log.is_file() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:_DETAIL] if lines else ""

    def _taken(self, name: str) -> float:
        code = self._code(name)
        ended = code.stat().st_mtime if code.is_file() else time.time()
        return max(0.0, ended - self._results[name].began)

    def _seconds_for(self, step: Step) -> float:
        return min(step.limit_s, self._left())

    def _least(self, step: Step) -> float:
        return min(step.limit_s, max(self._limits.least_s, _LEAST_SHARE * step.limit_s))

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _outcome(self, name: str) -> str:
        result = self._results.get(name)
        return "not reached" if result is None else result.outcome

    def _running(self, name: str) -> process.Running:
        result = self._results[name]
        return process.Running(result.process, result.started, self._code(name))

    def _code(self, name: str) -> Path:
        return self._place.logs / f"{name}.code"

    def _set(self, name: str, result: Result) -> None:
        self._results[name] = result
        write_results(self._place, self._results)
        self._record(self._results)
