"""A folder of results at every moment of a run: whole results, none that are stale."""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath

import numpy as np
import pytest

from zeroflaw.station.picture_search import LeftOut, Picture, PictureSearch
from zeroflaw.station.run_folder import Job, Results, RunFolder, open_run_folder
from zeroflaw.station.run_log import (
    PICTURE_SUFFIXES,
    RESULT_SUFFIXES,
    SUMMARY_NAME,
    Entry,
    log_line,
)
from zeroflaw.station.summary import left_out_row, summary_csv
from zeroflaw_engines.errors import ResultsError, RunFolderError

PIXELS = np.zeros((20, 20), np.uint8)


def publish(results: Results) -> Mapping[str, bytes]:
    rows = [entry.row for entry in (*results.earlier, *results.entries) if entry.row]
    return {SUMMARY_NAME: summary_csv(rows), "index.html": results.state.encode()}


def searched(folder: Path, *names: str) -> PictureSearch:
    return PictureSearch(tuple(Picture(folder / name, PurePath(name)) for name in names), ())


def store(folder: RunFolder, job: Job, decision: str, **changes) -> None:
    values = {
        "pictures": dict.fromkeys(PICTURE_SUFFIXES, PIXELS) if decision != "hold" else {},
        "record": json.dumps({"decision": decision}).encode(),
        "outcome": decision,
        "row": {"file": job.entry.source, "decision": decision, "output": job.entry.stem},
        "card": "",
    }
    folder.store(job, **{**values, **changes})


def run(out: Path, search: PictureSearch, decision: str = "accept", **options) -> None:
    with open_run_folder(out, search, publish, **options) as folder:
        for job in folder.jobs:
            store(folder, job, decision)


def rows(out: Path) -> dict[str, str]:
    with (out / SUMMARY_NAME).open(newline="") as file:
        return {Path(row["file"]).name: row["decision"] for row in csv.DictReader(file)}


def results(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*")
            if path.is_file() and path.name.endswith(RESULT_SUFFIXES)}  # fmt: skip


def test_a_failure_leaves_nothing_of_an_earlier_success(tmp_path: Path) -> None:
    out, search = tmp_path / "out", searched(tmp_path, "a.png", "line/b.png")
    run(out, search)
    assert len(results(out)) == 8
    run(out, search, "hold")
    assert results(out) == {"a.json", "line/b.json"}
    assert json.loads((out / "a.json").read_bytes()) == {"decision": "hold"}
    assert rows(out) == {"a.png": "hold", "b.png": "hold"}


def test_earlier_results_are_gone_before_the_first_picture(tmp_path: Path) -> None:
    out, search = tmp_path / "out", searched(tmp_path, "a.png", "b.png")
    run(out, search)
    with open_run_folder(out, search, publish) as folder:
        assert results(out) == set()
        assert rows(out) == {}
        assert (out / "index.html").read_text() == "under way"
        assert len(folder.earlier.replaced) == 2


def test_a_picture_of_the_same_name_replaces_one_of_another_place(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, searched(tmp_path / "monday", "part.png"))
    run(out, searched(tmp_path / "tuesday", "part.png"), "hold")
    assert results(out) == {"part.json"}
    run(out, searched(tmp_path / "tuesday", "part.jpg"))
    assert "part_jpg.json" in results(out)


def test_append_keeps_replace_removes_refuse_ends(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, searched(tmp_path, "a.png"))
    (out / "a.notes.txt").write_text("of the user")
    run(out, searched(tmp_path, "b.png"), existing="append")
    assert rows(out) == {"a.png": "accept", "b.png": "accept"}
    with pytest.raises(RunFolderError, match="holds the results of 2 files"):
        run(out, searched(tmp_path, "c.png"), existing="refuse")
    assert rows(out) == {"a.png": "accept", "b.png": "accept"}
    assert len(results(out)) == 8
    run(out, searched(tmp_path, "c.png"), existing="replace")
    assert rows(out) == {"c.png": "accept"}
    assert {name.split(".")[0] for name in results(out)} == {"c"}
    assert (out / "a.notes.txt").read_text() == "of the user"


def test_files_of_the_user_are_never_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("index.html", "summary.csv", "a.json", "a.mask.png"):
        (out / name).write_text("of the user")
    with open_run_folder(out, searched(tmp_path, "a.png"), publish) as folder:
        aside = folder.set_aside
        store(folder, folder.jobs[0], "accept")
    run(out, searched(tmp_path, "a.png"), existing="replace")
    kept = {path.name for path in out.iterdir() if path.is_file()
            and path.read_bytes() == b"of the user"}  # fmt: skip
    assert kept == {"a.json", "a.mask.png", "index.before-1.html", "summary.before-1.csv"}
    assert [path.name for path in aside] == ["index.before-1.html", "summary.before-1.csv"]
    assert rows(out) == {"a.png": "accept"}


def test_results_of_a_run_before_there_was_a_log_are_taken_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.csv").write_text(
        "file,status,decision,image_score,threshold,regions,mask_area,frame_width,frame_height,"
        f"total_ms,output,error\n{tmp_path}/a.png,ok,accept,0.1,0.5,0,0,2,2,1.0,a,\n"
        f"{tmp_path}/b.png,ok,accept,0.1,0.5,0,0,2,2,1.0,b,\n{tmp_path}/c.png,failed,,,,,,,,,,no\n"
    )
    for stem in "ab":
        for suffix in RESULT_SUFFIXES:
            (out / (stem + suffix)).write_text("{}")
    run(out, searched(tmp_path, "a.png"), "hold")
    assert rows(out) == {"a.png": "hold", "b.png": "accept", "c.png": ""}
    assert {name for name in results(out) if name.startswith("a")} == {"a.json"}
    assert json.loads((out / "a.json").read_bytes()) == {"decision": "hold"}


def test_a_log_cannot_make_a_run_remove_what_lies_outside(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    run(out, searched(tmp_path, "line/a.png"))
    outside.mkdir()
    for name in ("victim.json", "a.json"):
        (outside / name).write_text("precious")
    log = out / ".zeroflaw-run" / "log.jsonl"
    for stem in ("../outside/victim", str(outside / "victim")):
        entry = Entry(source=stem, name="x", stem=stem, outcome="accept", row={"file": "x"})
        with log.open("ab") as file:
            file.write(log_line(entry))
    for path in (out / "line").iterdir():
        path.unlink()
    (out / "line").rmdir()
    (out / "line").symlink_to(outside)
    run(out, searched(tmp_path, "line/a.png"), existing="replace")
    assert (outside / "victim.json").read_text() == (outside / "a.json").read_text() == "precious"
    assert sorted(path.name for path in outside.iterdir()) == ["a.json", "victim.json"]


def test_the_second_of_two_runs_at_once_is_refused(tmp_path: Path) -> None:
    out, search = tmp_path / "out", searched(tmp_path, "a.png")
    with open_run_folder(out, search, publish) as folder:
        code = (
            "import sys; from test_run_folder import *\n"
            f"run(Path({str(out)!r}), searched(Path({str(tmp_path)!r}), 'b.png'))"
        )
        done = python(code)
        assert done.returncode == 1
        assert "another run is writing" in done.stderr
        store(folder, folder.jobs[0], "accept")
    assert rows(out) == {"a.png": "accept"}


def test_a_result_that_cannot_be_written_leaves_none_and_a_held_record_can(tmp_path: Path) -> None:
    out, search = tmp_path / "out", searched(tmp_path, "a.png")
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), np.uint8)
    pictures = dict(zip(PICTURE_SUFFIXES, (PIXELS, PIXELS, noise), strict=True))
    with open_run_folder(out, search, publish) as folder:
        job = folder.jobs[0]
        with largest_file(50_000), pytest.raises(ResultsError, match=r"a\.map\.png cannot be"):
            store(folder, job, "accept", pictures=pictures)
        assert results(out) == set()
        store(folder, job, "hold")
    assert results(out) == {"a.json"}
    assert not list((out / ".zeroflaw-run").glob("*.part"))


def test_a_full_disk_under_one_picture_keeps_the_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, searched(tmp_path, "a.png"))
    search = searched(tmp_path, "b.png", "c.png")
    with open_run_folder(out, search, publish) as folder:
        store(folder, folder.jobs[0], "accept")
        with largest_file(10), pytest.raises(ResultsError, match=r"c\.mask\.png cannot be"):
            store(folder, folder.jobs[1], "accept")
        folder.store_nothing(folder.jobs[1], outcome="hold", row={"file": "c.png"}, card="")
    assert rows(out) == {"a.png": "accept", "b.png": "accept", "c.png": ""}
    assert not [name for name in results(out) if name.startswith("c")]


def test_a_full_disk_keeps_no_run_from_removing_what_is_stale(tmp_path: Path) -> None:
    out, search = tmp_path / "out", searched(tmp_path, "a.png")
    run(out, search)
    with largest_file(10), pytest.raises(RunFolderError, match="cannot be written"):
        run(out, search, "hold")
    assert results(out) == set()
    assert not (out / "summary.csv").exists()
    assert not (out / "index.html").exists()
    run(out, search, "hold")
    assert rows(out) == {"a.png": "hold"}


def test_a_log_that_cannot_be_written_ends_the_run_and_counts_no_picture_twice(
    tmp_path: Path,
) -> None:
    out, search = tmp_path / "out", searched(tmp_path, "a.png", "b.png")
    with (  # noqa: PT012 - the page of the end is written
        pytest.raises(RunFolderError, match="cannot be written"),
        open_run_folder(out, search, publish) as folder,
    ):
        store(folder, folder.jobs[0], "accept")
        size = (out / ".zeroflaw-run" / "log.jsonl").stat().st_size
        with largest_file(size):
            store(folder, folder.jobs[1], "hold", record=b"{}")
    assert rows(out) == {"a.png": "accept", "b.png": "hold"}


def test_what_was_left_out_has_a_row_while_it_is_there(tmp_path: Path) -> None:
    out, raw = tmp_path / "out", tmp_path / "frame.raw"
    raw.write_bytes(b"\0")
    left = LeftOut(raw, "ends in .raw, which names no image", may_be_picture=True)
    search = searched(tmp_path, "a.png")
    with open_run_folder(out, PictureSearch(search.pictures, (left,)), publish) as folder:
        folder.leave_out(left, left_out_row(left), "")
    assert rows(out)["frame.raw"] == "hold"
    run(out, searched(tmp_path, "b.png"))
    assert rows(out)["frame.raw"] == "hold"
    raw.unlink()
    run(out, searched(tmp_path, "c.png"))
    assert "frame.raw" not in rows(out)


KILLED = """
import sys
from test_run_folder import *
out, photos = Path(sys.argv[1]), Path(sys.argv[2])
decisions = sys.argv[3].split(",")
print("begun", flush=True)
search = searched(photos, *(f"{i}.png" for i in range(len(decisions))))
with open_run_folder(out, search, publish) as folder:
    for job, decision in zip(folder.jobs, decisions):
        store(folder, job, decision)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("before", "after"), [("accept", "hold"), ("hold", "accept")])
def test_a_run_that_dies_at_any_moment_leaves_whole_results_of_one_run(
    tmp_path: Path, number: signal.Signals, before: str, after: str
) -> None:
    out, draw = tmp_path / "out", random.Random(number)  # noqa: S311 - moments, not secrets
    names = [f"{i}.png" for i in range(20)]
    run(tmp_path / "first", searched(tmp_path, *names), before)
    for _ in range(3):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp_path / "first", out)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(out), str(tmp_path), ",".join([after] * 20)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.uniform(0, 0.25))
        process.send_signal(number)
        process.communicate(timeout=60)
        there = results(out)
        decisions = {name.removesuffix(".json"): json.loads((out / name).read_bytes())["decision"]
                     for name in there if name.endswith(".json")}  # fmt: skip
        assert set(decisions.values()) in ({before}, {after}, set())
        for stem, decision in decisions.items():
            pictures = {stem + suffix for suffix in PICTURE_SUFFIXES}
            assert there & pictures == (pictures if decision == "accept" else set())
        in_summary = set(rows(out).values())
        assert in_summary in ({before}, {after}, set())
        if after in decisions.values():
            assert before not in in_summary


def environment() -> dict[str, str]:
    paths = [str(Path(__file__).parent), *sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Lets no file grow beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
