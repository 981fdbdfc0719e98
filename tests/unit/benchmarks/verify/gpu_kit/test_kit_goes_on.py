"""What a later call of the kit makes of steps that an earlier one left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.gpu.kit_steps import is_gone, outcomes, run, step, wait_until
from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
from zeroflaw_benchmarks.verify.gpu_kit.runner import Results
from zeroflaw_benchmarks.verify.gpu_kit.steps import Step

# A step gets a fifth of its limit, or it is not begun.
LIMIT_S = 20
SHORT_S = 5


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "work")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def left_running(place: Place, *steps: Step, **words) -> Results:
    """Call the kit for so short that its background runs on, and wait until it has begun.

    It writes a line to `begun`.
    """
    before = len(lines(place.work / "begun"))
    results = run(place, *steps, budget_s=SHORT_S, least_s=SHORT_S - 1, **words)
    assert results["behind"].outcome == "running"
    wait_until(lambda: len(lines(place.work / "begun")) == before + 1)
    return results


def kill(results: Results) -> None:
    """As a machine does that is taken away: the step goes with the kit."""
    number = results["behind"].process
    os.killpg(number, signal.SIGKILL)
    wait_until(lambda: is_gone(number))


def hangs(until: str) -> str:
    return f"echo $$ >> begun; test -e {until} || sleep {LIMIT_S}"


def test_a_background_step_that_died_with_the_kit_is_tried_once_more(place: Place) -> None:
    steps = (
        step("behind", hangs("mended"), background=True, limit_s=LIMIT_S),
        step("needs_it", "true", needs=("behind",)),
    )
    for times in (1, 2):
        results = left_running(place, *steps)
        assert results["behind"].starts == times
        assert results["needs_it"].detail == "waits for behind"
        kill(results)
    results = run(place, *steps)
    assert outcomes(results) == {"behind": "failed", "needs_it": "not applicable"}
    assert results["behind"].detail == "the kit was killed in it"
    results = left_running(place, *steps, again=["behind"])
    assert results["behind"].starts == 1
    kill(results)
    (place.work / "mended").touch()
    assert set(outcomes(run(place, *steps)).values()) == {"passed"}


def test_a_background_step_that_is_killed_while_the_kit_runs_has_failed(place: Place) -> None:
    steps = (
        step("behind", "touch begun; kill -9 -$(ps -o pgid= $$ | tr -d ' ')", background=True),
        step("needs_it", "true", needs=("behind",)),
    )
    results = run(place, *steps)
    assert outcomes(results) == {"behind": "failed", "needs_it": "not applicable"}
    assert results["behind"].starts == 1


def test_a_background_step_that_ended_between_two_calls_keeps_its_outcome(place: Place) -> None:
    steps = (
        step("behind", "echo x >> begun; sleep 0.5", background=True, limit_s=LIMIT_S),
        step("bad", "sleep 0.5; exit 1", background=True, limit_s=LIMIT_S),
    )
    first = left_running(place, *steps)
    for name in first:
        wait_until((place.logs / f"{name}.code").is_file)
    second = run(place, *steps)
    assert outcomes(second) == {"behind": "passed", "bad": "failed"}
    assert {result.starts for result in second.values()} == {1}


def test_a_step_that_runs_is_stopped_before_it_is_run_again(place: Place) -> None:
    steps = (
        step("behind", hangs("second_call"), background=True, limit_s=LIMIT_S),
        step("needs_it", "true", needs=("behind",)),
    )
    first = left_running(place, *steps)
    (place.work / "second_call").touch()
    assert set(outcomes(run(place, *steps, again=["behind"])).values()) == {"passed"}
    assert is_gone(first["behind"].process), "two of them write to one folder"
    begun = lines(place.work / "begun")
    assert len(begun) == 2
    assert is_gone(int(begun[0]))


def test_what_waited_for_a_step_that_is_run_again_is_run_too(place: Place) -> None:
    """Also what needs it by way of others."""
    steps = (
        step("first", "test -e mended"),
        step("second", "true", needs=("first",)),
        step("third", "true", needs=("second",)),
        step("other", "exit 1"),
        step("after_other", "true", needs=("other",)),
    )
    assert outcomes(run(place, *steps))["third"] == "not applicable"
    (place.work / "mended").touch()
    assert outcomes(run(place, *steps, again=["first"])) == {
        "first": "passed", "second": "passed", "third": "passed",
        "other": "failed", "after_other": "not applicable",
    }  # fmt: skip
