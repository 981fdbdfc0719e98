"""The runner: limits, needs, what is killed, and a record that outlives the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
from zeroflaw_benchmarks.verify.gpu_kit.pieces import Contents
from zeroflaw_benchmarks.verify.gpu_kit.runner import Limits, read_results, run_steps
from zeroflaw_benchmarks.verify.gpu_kit.steps import EXIT_REFUSED, Step
from zeroflaw_benchmarks.verify.gpu_kit.summary import publish, summary_page

CONTENTS = Contents("2026-11-29T00:00:00+00:00", "abc", "3.12", 1, ())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "work").mkdir()
    return Place(tmp_path / "work", tmp_path)


def python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def step(name: str, *texts: str, limit_s: float = 20, **settings) -> Step:
    commands = tuple(map(python, texts))
    return Step(name=name, shows=name, commands=commands, limit_s=limit_s, **settings)


def run(steps, place: Place, budget_s: float = 30, **settings):
    limits = Limits(budget_s=budget_s, poll_s=0.02, least_s=0.2)
    return run_steps(steps, place, limits, variables=os.environ, **settings)


def outcomes(results) -> dict[str, str]:
    return {name: result.outcome for name, result in results.items()}


def has_ended(process: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has asked about."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return True
    return fields[0] == "Z"


def test_steps_pass_fail_and_are_refused(place: Place) -> None:
    results = run(
        [
            step("good", "print('one')", "print('two')"),
            step("bad", "print('why')\nraise SystemExit(4)", "print('never')"),
            step("unserved", f"raise SystemExit({EXIT_REFUSED})"),
            step("after_good", "pass", needs=("good",)),
            step("after_bad", "pass", needs=("good", "bad")),
        ],
        place,
    )
    assert outcomes(results) == {
        "good": "passed",
        "bad": "failed",
        "unserved": "refused",
        "after_good": "passed",
        "after_bad": "not applicable",
    }
    assert results["good"].detail == "two"
    assert results["bad"].detail == "why"
    assert results["after_bad"].detail == "bad: failed"
    assert "never" not in (place.logs / "bad.log").read_text()
    assert read_results(place) == results


def test_a_step_that_hangs_is_stopped_with_its_children(place: Place, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hangs = (
        "import os, pathlib, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(100)"
    )
    begun = time.monotonic()
    results = run([step("hangs", hangs, limit_s=1.5), step("next", "pass")], place)
    assert time.monotonic() - begun < 15
    assert outcomes(results) == {"hangs": "timed out", "next": "passed"}
    assert all(has_ended(int(pid)) for pid in pids.read_text().split())


def test_what_the_budget_does_not_reach_is_reached_later(place: Place) -> None:
    steps = [
        step("long", "import time; time.sleep(2)", limit_s=5),
        step("later", "pass", limit_s=5),
    ]
    first = run(steps, place, budget_s=2.4)
    assert outcomes(first) == {"long": "passed", "later": "not reached"}
    second = run(steps, place)
    assert outcomes(second) == {"long": "passed", "later": "passed"}
    assert second["long"] == first["long"]  # not run again


def test_the_background_runs_beside_the_rest(place: Place, tmp_path: Path) -> None:
    made = tmp_path / "made"
    writes = f"import pathlib, time; time.sleep(1.5); pathlib.Path({str(made)!r}).touch()"
    results = run(
        [
            step("export", writes, background=True),
            step("waits", f"assert __import__('os').path.exists({str(made)!r})", needs=("export",)),
            step("meanwhile", "pass"),
        ],
        place,
    )
    assert set(outcomes(results).values()) == {"passed"}
    assert results["meanwhile"].beside == ("export",)
    assert results["waits"].beside == ()


def test_steps_that_cannot_run_here_are_left_out(place: Place) -> None:
    results = run(
        [
            step("gpu", "pass", gpu_only=True),
            step("module", "pass", modules=("a_module_that_is_not_there",)),
            step("part", "pass", parts=("ort",)),
        ],
        place,
        gpu=False,
    )
    assert results["gpu"].detail == "needs a GPU"
    assert results["module"].detail == "there is no Python module a_module_that_is_not_there"
    assert results["part"].outcome == "not reached"
    assert results["part"].detail == "the kit's part ort is not here"


def test_a_step_can_be_run_again(place: Place, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    steps = [
        step("first", f"raise SystemExit(not __import__('os').path.exists({str(mark)!r}))"),
        step("second", "pass", needs=("first",)),
    ]
    assert outcomes(run(steps, place)) == {"first": "failed", "second": "not applicable"}
    mark.touch()
    assert outcomes(run(steps, place)) == {"first": "failed", "second": "not applicable"}
    assert outcomes(run(steps, place, again=["first"])) == {"first": "passed", "second": "passed"}


RUNNER = """
import os, sys
from pathlib import Path
from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
from zeroflaw_benchmarks.verify.gpu_kit.runner import Limits, run_steps
from zeroflaw_benchmarks.verify.gpu_kit.steps import Step
commands = ((sys.executable, "-c", "import time; time.sleep(60)"),)
steps = [Step(name="killed", shows="", commands=commands, limit_s=60)]
run_steps(steps, Place(Path(sys.argv[1]), Path()), Limits(budget_s=60), variables=os.environ)
"""


def test_a_run_that_is_killed_goes_on_where_it_ended(place: Place) -> None:
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(place.work)])
    end = time.monotonic() + 20
    while not read_results(place) and time.monotonic() < end:
        time.sleep(0.05)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    left = read_results(place)["killed"]
    assert left.outcome == "running"
    results = run([step("killed", "pass")], place)
    assert (results["killed"].outcome, results["killed"].starts) == ("passed", 2)
    assert has_ended(left.process)


def test_the_verdict_of_a_report_is_the_detail(place: Place) -> None:
    report = place.reports / "accepted.json"
    verdict = json.dumps({"verdict": "yes"})
    text = f"import pathlib; pathlib.Path({str(report)!r}).write_text({verdict!r})"
    results = run([step("accepted", text, verdict=report)], place)
    assert results["accepted"].detail == "yes"


@pytest.mark.parametrize("gpu", [None, "NVIDIA H200, driver 580"])
def test_the_summary_names_every_step(place: Place, tmp_path: Path, gpu: str | None) -> None:
    steps = [
        step("good", "print('fine | so')"),
        step("bad", "raise SystemExit(1)"),
        step("left", ""),
    ]
    results = run(steps[:2], place)
    page = summary_page(steps, results, contents=CONTENTS, seconds=3, gpu=gpu)
    assert ("no GPU was verified" in page) == (gpu is None)
    assert (gpu or "dry run") in page
    assert "- passed: good" in page
    assert "- failed: bad" in page
    assert "- not reached: left" in page
    assert "fine / so" in page  # no cell of its own
    publish(page, place, tmp_path / "out")
    assert (tmp_path / "out" / "summary.md").read_text() == page
    with tarfile.open(tmp_path / "out" / "reports.tar.gz") as archive:
        assert sorted(archive.getnames()) == ["logs/bad.log", "logs/good.log"]


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"outcome": "passed"}}'])
def test_a_damaged_record_is_none(place: Place, text: str) -> None:
    (place.work / "results.json").write_text(text)
    assert read_results(place) == {}
