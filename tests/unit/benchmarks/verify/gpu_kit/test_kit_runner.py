"""Steps within limits and a budget, with commands of this test in place of the kit's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from support.gpu.kit_steps import FOREVER, is_gone, outcomes, run, shell, step, wait_until
from zeroflaw_benchmarks.verify.gpu_kit import process
from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
from zeroflaw_benchmarks.verify.gpu_kit.pieces import Contents
from zeroflaw_benchmarks.verify.gpu_kit.runner import Result, Results
from zeroflaw_benchmarks.verify.gpu_kit.steps import EXIT_REFUSED, Step
from zeroflaw_benchmarks.verify.gpu_kit.summary import REPORTS, SUMMARY, publish, summary_page

CONTENTS = Contents("2026-11-29T00:00:00+00:00", "abc", "3.12", 1, ())
TESTS = Path(__file__).parents[4]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "work")


def test_outcomes_are_told_by_exit_codes(place: Place) -> None:
    results = run(
        place,
        step("good", "echo first", "echo second"),
        step("bad", "exit 7", "touch never"),
        step("refuses", f"echo not this card; exit {EXIT_REFUSED}"),
        step("killed", "kill -9 $$"),
        step("absent", "exec /no/such/program"),
    )
    assert outcomes(results) == {
        "good": "passed", "bad": "failed", "refuses": "refused", "killed": "failed",
        "absent": "failed",
    }  # fmt: skip
    assert results["good"].detail == "second"
    assert results["refuses"].detail == "not this card"
    assert not (place.work / "never").exists()
    log = (place.logs / "good.log").read_text().splitlines()
    assert log == ["$ sh -c echo first", "first", "$ sh -c echo second", "second"]


def test_the_verdict_of_a_report_is_what_is_said(place: Place) -> None:
    verdict = place.reports / "one.json"
    place.reports.mkdir(parents=True)
    verdict.write_text('{"verdict": "of an earlier run"}')
    write = """echo '{"verdict": "REFUSED: masks"}' > reports/one.json; exit 5"""
    assert run(place, step("one", write, verdict=verdict))["one"].detail == "REFUSED: masks"
    # An earlier report is no word of a run that wrote none.
    again = run(place, step("one", "echo died", verdict=verdict), again=["one"])
    assert again["one"].detail == "died"


def test_what_a_step_needs(place: Place) -> None:
    steps = (
        step("bad", "exit 1"),
        step("refuses", f"exit {EXIT_REFUSED}"),
        step("after_bad", "touch after_bad", needs=("bad",)),
        step("after_refusal", "touch after_refusal", needs=("refuses",)),
        step("after_that", "touch after_that", needs=("after_bad",)),
        step("no_part", "touch no_part", parts=("ort",)),
        step("no_module", "touch no_module", modules=("no_such_module_of_python",)),
        step("a_module", "touch a_module", modules=("json",)),
        step("gpu", "touch gpu", gpu_only=True),
        step("last", "touch last"),
    )
    results = run(place, *steps, gpu=False)
    assert outcomes(results) == {
        "bad": "failed", "refuses": "refused", "after_bad": "not applicable",
        "after_refusal": "not applicable", "after_that": "not applicable",
        "no_part": "not reached", "no_module": "not applicable", "a_module": "passed",
        "gpu": "not applicable", "last": "passed",
    }  # fmt: skip
    assert "part ort" in results["no_part"].detail
    done = {path.name for path in place.work.iterdir() if path.is_file()}
    assert done == {"a_module", "last", "results.json"}


def test_a_part_that_comes_later_and_a_step_that_is_run_again(place: Place) -> None:
    steps = (
        step("waits", "touch waits", parts=("ort",)),
        step("first", "test -e mended"),
        step("second", "touch second", needs=("first",)),
    )
    assert set(outcomes(run(place, *steps)).values()) == {
        "not reached", "failed", "not applicable"
    }  # fmt: skip
    (place.work / "parts").mkdir()
    (place.work / "parts" / "ort.sha256").write_text("0")
    (place.work / "mended").touch()
    assert outcomes(run(place, *steps))["first"] == "failed"
    assert set(outcomes(run(place, *steps, again=["first"])).values()) == {"passed"}
    assert (place.work / "second").exists()


def test_a_step_that_hangs_is_killed_with_all_that_it_has_started(place: Place) -> None:
    hang = f"""trap '' TERM; sh -c 'trap "" TERM; echo $$ > child; while :; do sleep 0.1; done' &
    echo hanging; sleep {FOREVER}; sleep {FOREVER}"""
    begun = time.monotonic()
    results = run(place, step("hangs", hang, limit_s=0.5), step("next", "true"))
    assert outcomes(results) == {"hangs": "timed out", "next": "passed"}
    assert results["hangs"].detail.endswith("hanging")
    assert time.monotonic() - begun < 15
    child = int((place.work / "child").read_text())
    wait_until(lambda: is_gone(child))


def test_children_of_a_step_whose_own_process_is_gone_are_killed(place: Place) -> None:
    place.work.mkdir()
    running = process.start(
        [shell(f"sleep {FOREVER} & echo $! > child; wait")],
        log=place.logs / "log", code=place.logs / "code", variables=os.environ, cwd=place.work,
    )  # fmt: skip
    wait_until(lambda: (place.work / "child").is_file() and (place.work / "child").read_text())
    os.kill(running.process, signal.SIGKILL)
    wait_until(lambda: process.exit_code(running) == -signal.SIGKILL)
    assert process.stop(running)
    wait_until(lambda: is_gone(int((place.work / "child").read_text())))


def test_another_process_of_the_same_number_is_left_alone(tmp_path: Path) -> None:
    """A record may be older than the machine's last start."""
    other = subprocess.Popen(["/bin/sleep", str(FOREVER)], start_new_session=True)
    try:
        assert process.stop(process.Running(other.pid, "1", tmp_path / "code"))
        time.sleep(0.1)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_budget_ends_a_step_and_a_later_call_finishes_it(place: Place) -> None:
    steps = (
        step("short", "true", limit_s=5),
        step("long", f"test -e second_call || sleep {FOREVER}", limit_s=5),
        step("third", "true"),
    )
    results = run(place, *steps, budget_s=1.5)
    assert outcomes(results) == {
        "short": "passed", "long": "not reached", "third": "not reached"
    }  # fmt: skip
    assert "the time of this call was over" in results["long"].detail
    assert "were left" in results["third"].detail
    (place.work / "second_call").touch()
    again = run(place, *steps)
    assert set(outcomes(again).values()) == {"passed"}
    assert again["short"] == results["short"]
    assert (again["long"].starts, again["short"].starts) == (2, 1)


def test_a_step_that_would_get_too_little_is_not_begun(place: Place) -> None:
    steps = (step("long", "touch long", limit_s=100), step("short", "touch short", limit_s=2))
    results = run(place, *steps, budget_s=15)
    assert outcomes(results) == {"long": "not reached", "short": "passed"}
    assert not (place.work / "long").exists()
    assert outcomes(run(place, *steps, budget_s=25))["long"] == "passed"


def test_the_background_runs_beside_others_and_is_waited_for(place: Place) -> None:
    steps = (
        step("behind", "while ! test -e beside_ran; do sleep 0.05; done", background=True),
        step("needs_it", "true", needs=("behind",)),
        step("beside", "touch beside_ran"),
    )
    results = run(place, *steps)
    assert set(outcomes(results).values()) == {"passed"}
    assert results["beside"].beside == ("behind",)
    assert results["needs_it"].beside == ()
    assert results["needs_it"].began > results["beside"].began


def test_the_background_goes_on_into_the_next_call(place: Place) -> None:
    steps = (
        step("behind", "while ! test -e go; do sleep 0.05; done", background=True, limit_s=7),
        step("needs_it", "true", needs=("behind",)),
    )
    first = run(place, *steps, budget_s=1.5)
    assert outcomes(first) == {"behind": "running", "needs_it": "not reached"}
    assert first["needs_it"].detail == "waits for behind"
    (place.work / "go").touch()
    second = run(place, *steps)
    assert set(outcomes(second).values()) == {"passed"}
    assert second["behind"].starts == 1


def test_the_background_has_a_limit_too(place: Place) -> None:
    steps = (
        step("behind", f"sleep {FOREVER}", background=True, limit_s=0.3),
        step("needs_it", "true", needs=("behind",)),
    )
    assert outcomes(run(place, *steps)) == {"behind": "timed out", "needs_it": "not applicable"}


@pytest.mark.parametrize("damage", ["{", "[]", '{"one": {"outcome": "passed", "new": 1}}'])
def test_a_damaged_record_begins_anew(place: Place, damage: str) -> None:
    run(place, step("one", "echo x >> runs"))
    (place.work / "results.json").write_text(damage)
    assert outcomes(run(place, step("one", "echo x >> runs"))) == {"one": "passed"}
    assert (place.work / "runs").read_text() == "x\nx\n"


KIT = """
import os, sys
from pathlib import Path
from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
sys.path[:0] = {folders!r}
from test_kit_runner import published
from support.gpu.kit_steps import run, step
place, out = Place(Path({work!r})), Path({out!r})
run(place, *{steps}, record=lambda results: published(place, out, {steps}, results))
"""


def published(place: Place, out: Path, steps: tuple[Step, ...], results: Results) -> None:
    publish(summary_page(steps, results, contents=CONTENTS, seconds=1, gpu="a card"), place, out)


def test_a_kit_that_was_killed_goes_on(place: Place, tmp_path: Path) -> None:
    """Killed in one step twice: it is tried once more, then it has failed, and others run."""
    out = tmp_path / "out"
    hang = f"echo $$ >> begun; sleep {FOREVER}"
    text = f'(step("quick", "echo x >> runs"), step("hangs", "{hang}"), step("last", "true"))'
    code = KIT.format(
        folders=[str(TESTS), str(Path(__file__).parent)],
        work=str(place.work),
        out=str(out),
        steps=text,
    )
    begun = place.work / "begun"

    def numbers() -> list[int]:
        return [int(line) for line in begun.read_text().splitlines()] if begun.exists() else []

    for times in (1, 2):
        with subprocess.Popen([sys.executable, "-c", code]) as kit:
            wait_until(lambda times=times: len(numbers()) == times)
            wait_until(lambda: "hangs: running" in states(out))
            kit.kill()
        assert "- running: hangs" in (out / SUMMARY).read_text()
        assert "logs/quick.log" in names_in(out / REPORTS)
        assert not is_gone(numbers()[-1]), "the step outlives the kit: it has a session of its own"
    steps = (step("quick", "echo x >> runs"), step("hangs", hang), step("last", "true"))
    results = run(place, *steps)
    assert outcomes(results) == {"quick": "passed", "hangs": "failed", "last": "passed"}
    assert results["hangs"].detail == "the kit was killed in it"
    for number in numbers():
        wait_until(lambda number=number: is_gone(number))
    assert (place.work / "runs").read_text() == "x\n"


def states(out: Path) -> str:
    if not (out / SUMMARY).is_file():
        return ""
    rows = [line.split(" | ") for line in (out / SUMMARY).read_text().splitlines() if " | " in line]
    return "\n".join(f"{row[0].strip('| ')}: {row[1].strip('*')}" for row in rows)


def names_in(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return set(opened.getnames())


def test_the_page_and_the_archive_tell_every_outcome(place: Place, tmp_path: Path) -> None:
    steps = (
        step("good", "echo '{}' > reports/good.json"),
        step("bad", "head -c 300000 /dev/zero | tr '\\0' x; echo; echo 'a | b'; exit 1"),
        step("later", "true", parts=("ort",)),
    )
    results = run(place, *steps)
    results = {**results, "good": replace(results["good"], beside=("export",))}
    published(place, tmp_path / "out", steps, results)
    page = (tmp_path / "out" / SUMMARY).read_text()
    assert "**on a card**" in page
    assert states(tmp_path / "out").splitlines()[1:] == [
        "good: passed", "bad: failed", "later: not reached"
    ]  # fmt: skip
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} == {6}, "a text in a cell broke the table"
    assert "(beside export)" in page
    assert names_in(tmp_path / "out" / REPORTS) == {
        "reports/good.json", "logs/good.log", "logs/bad.log"
    }  # fmt: skip
    with tarfile.open(tmp_path / "out" / REPORTS) as archive:
        long = archive.extractfile("logs/bad.log")
        assert long is not None
        end = long.read()
    assert len(end) == 200_000
    assert end.endswith(b"a | b\n")
    dry = summary_page(steps, {}, contents=CONTENTS, seconds=1, gpu=None)
    assert "no GPU was verified" in dry
    assert "- not reached: good, bad, later" in dry


def test_a_kit_killed_while_it_writes_leaves_an_archive_that_can_be_read(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (step("one", "true"), step("two", "true"))
    results = run(place, *steps)
    out = tmp_path / "out"
    published(place, out, steps, results)
    read = Path.read_bytes

    def killed(path: Path) -> bytes:
        if path.name == "two.log":
            raise SystemExit
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", killed)
    with pytest.raises(SystemExit):
        published(place, out, steps, results)
    assert names_in(out / REPORTS) == {"logs/one.log", "logs/two.log"}


def test_the_record_is_what_was_returned(place: Place) -> None:
    results = run(place, step("one", "true"), step("two", "exit 1"))
    written = json.loads((place.work / "results.json").read_text())
    assert {name: Result(**{**one, "beside": tuple(one["beside"])}) for name, one in
            written.items()} == results  # fmt: skip
