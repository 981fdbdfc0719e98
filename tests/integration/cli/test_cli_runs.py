"""Runs of `zeroflaw inspect` one after the other, at once, and cut short."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.command_line import ZEROFLAW, zeroflaw
from zeroflaw.records.record import InspectionRecord

GOOD = Path(__file__).parents[3] / "examples" / "frames" / "casting_good.jpg"
DENT = GOOD.with_name("casting_dent.jpg")


def inspect(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return zeroflaw("inspect", "mini", "-p", "object", *arguments, **options)


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open(newline="", errors="surrogateescape") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def decisions(out: Path) -> dict[str, str]:
    return {Path(file).name: row["decision"] for file, row in rows(out).items()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(GOOD, folder / "good.jpg")
    shutil.copy(DENT, folder / "dent.jpg")
    return folder


def test_a_file_that_fails_on_a_second_run_has_no_result_of_the_first(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = inspect(photos, "-o", out)
    assert first.returncode == 0, first.stderr
    assert decisions(out) == {"good.jpg": "accept", "dent.jpg": "reject"}
    whole = (photos / "good.jpg").read_bytes()
    (photos / "good.jpg").write_bytes(whole[: len(whole) // 2])
    second = inspect(photos, "-o", out)
    assert second.returncode == 3
    assert "earlier results of 2 files" in second.stderr
    assert "1 of 2 inspected, 1 rejected, 0 held, 1 failed, 0 left out" in second.stdout
    assert sorted(path.name for path in out.glob("good.*")) == ["good.json"]
    record = InspectionRecord.from_json((out / "good.json").read_bytes())
    assert (record.decision, record.reason.code) == ("hold", "failed")
    assert record.image_score is record.frame_sha256 is record.bundle is None
    assert decisions(out) == {"good.jpg": "hold", "dent.jpg": "reject"}
    page = (out / "index.html").read_text()
    assert "hold: failed" in page
    assert 'class="card accept"' not in page


def test_blind_frames_are_held_with_an_exit_code_of_their_own(tmp_path: Path) -> None:
    out, black = tmp_path / "out", tmp_path / "black.png"
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(black)
    done = inspect(black, DENT, "-o", out, "--exit-on-reject")
    assert done.returncode == 6, done.stderr
    assert "2 of 2 inspected, 1 rejected, 1 held, 0 failed, 0 left out" in done.stdout
    row = rows(out)[black.as_posix()]
    assert (row["decision"], row["reason"], row["status"]) == ("hold", "dark", "no_region")
    assert 'class="card hold"' in (out / "index.html").read_text()
    (tmp_path / "empty.png").write_bytes(b"")
    assert inspect(black, tmp_path / "empty.png", "-o", out).returncode == 3


def test_what_is_left_out_is_counted_and_named(photos: Path, tmp_path: Path) -> None:
    out = photos / "out"
    (photos / "README.txt").write_text("good parts\n")
    (photos / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    done = inspect(photos, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "2 left out" in done.stdout
    assert "README.txt ends in .txt" in done.stderr
    (photos / "frame.raw").write_bytes(bytes(range(256)))
    (photos / "gone.png").symlink_to(tmp_path / "nowhere")
    done = inspect(photos, "-o", out)
    assert done.returncode == 3
    assert "2 of 2 inspected" in done.stdout
    assert "5 left out" in done.stdout  # the folder of the results is the fifth
    page = (out / "index.html").read_text()
    for name in ("README.txt", ".DS_Store", "frame.raw", "gone.png"):
        assert name in done.stderr
        assert name in page
    missed = {file for file, row in rows(out).items() if row["status"] == "left_out"}
    assert missed == {f"{photos}/frame.raw", f"{photos}/gone.png"}
    # Another folder for the results: the first is not taken for input.
    again = inspect(photos, "-o", photos / "another")
    assert "2 of 2 inspected" in again.stdout
    assert len(rows(photos / "another")) == 4


def test_calibrate_names_what_it_leaves_out(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    shutil.copy(GOOD, good)
    (good / "more").write_bytes(GOOD.read_bytes())
    assert zeroflaw("bundle", "copy", "mini", tmp_path / "mini").returncode == 0
    done = zeroflaw("calibrate", tmp_path / "mini", good, "-p", "object")
    assert done.returncode == 3, done.stderr
    assert f"{good / 'more'} has no suffix" in done.stderr


def test_a_second_run_appends_replaces_or_is_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert inspect(photos / "good.jpg", "-o", out).returncode == 0
    refused = inspect(photos / "dent.jpg", "-o", out, "--existing", "refuse")
    assert refused.returncode == 1
    assert "holds the results of 1 files already" in refused.stderr
    assert decisions(out) == {"good.jpg": "accept"}
    appended = inspect(photos / "dent.jpg", "-o", out)
    assert "keeps the results of 1 other files" in appended.stderr
    assert decisions(out) == {"good.jpg": "accept", "dent.jpg": "reject"}
    page = (out / "index.html").read_text()
    assert "Earlier runs into this folder: 1" in page
    assert 'href="good.overlay.png"' in page
    replaced = inspect(photos / "dent.jpg", "-o", out, "--existing", "replace")
    assert "earlier results of 2 files" in replaced.stderr
    assert decisions(out) == {"dent.jpg": "reject"}
    assert not list(out.glob("good.*"))


def test_part_and_camera_are_in_the_records(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (photos / "bad.png").write_bytes(b"")
    inspect(photos, "-o", out, "--part-id", "4711", "--camera-id", "top")
    for stem, file in (("good", "good.jpg"), ("bad", "bad.png")):
        record = InspectionRecord.from_json((out / f"{stem}.json").read_bytes())
        assert (record.part_id, record.camera_id) == ("4711", "top")
        row = rows(out)[f"{photos}/{file}"]
        assert (row["part_id"], row["camera_id"]) == ("4711", "top")
        assert record.frame_id == row["frame_id"] == f"{photos}/{file}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_with_a_page_of_what_was_done(
    photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start_on(photos, 300, out, until="003.json")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"Traceback" not in stderr
    done = rows(out)
    assert 3 <= len(done) < 302
    assert {row["output"] for row in done.values()} == {path.stem for path in out.glob("*.json")}
    assert f"interrupted after {len(done)} of 302 files" in (out / "index.html").read_text()
    assert not list((out / ".zeroflaw-run").glob("*.part"))


def test_a_run_that_is_killed_is_made_up_for_by_the_next(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start_on(photos, 100, out, until="003.json")
    process.kill()
    process.communicate()
    done = rows(out)  # whole, and as far as it came, but for the last moments
    assert 1 <= len(done) < 102
    assert {row["decision"] for row in done.values()} == {"accept"}
    again = inspect(photos / "dent.jpg", "-o", out)
    assert again.returncode == 0, again.stderr
    records = {path.name for path in out.glob("*.json")}
    assert {f"{row['output']}.json" for row in rows(out).values()} == records
    assert len(list(out.glob("*.mask.png"))) == len(records)


def test_the_second_of_two_runs_at_once_is_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start_on(photos, 100, out, until="000.json")
    second = inspect(DENT, "-o", out)
    first.terminate()
    first.communicate(timeout=60)
    assert second.returncode == 1
    assert "another run is writing into" in second.stderr
    assert not (out / "casting_dent.json").exists()


def test_odd_names_stay_inside_and_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    names = [
        "index.html.jpg", "summary.csv.jpg", "l" * 250 + ".jpg", "A.jpg", "a.jpg",
        "red\x1b[31m.jpg", "two\nlines.jpg", "comma, \"quote\".jpg", "latin\udce4.jpg",
    ]  # fmt: skip
    for name in names:
        shutil.copy(GOOD, folder / name)
    (folder / "bad\x1b]0;title\x07\nerror: of mine.png").write_bytes(b"")
    done = inspect(folder, "-o", out, "--existing", "refuse")
    assert done.returncode == 3, done.stderr
    assert "9 of 10 inspected" in done.stdout
    assert "\x1b" not in done.stderr + done.stdout
    assert "\\x1b]0;title" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("error: of mine")]
    assert {Path(file).name for file in rows(out)} == {path.name for path in folder.iterdir()}
    for row in rows(out).values():
        assert json.loads((out / f"{row['output']}.json").read_bytes())["decision"]


def start_on(photos: Path, copies: int, out: Path, *, until: str) -> subprocess.Popen[bytes]:
    """Start a run on copies of the good frame, and wait for one of its results."""
    for i in range(copies):
        shutil.copy(GOOD, photos / f"{i:03d}.jpg")
    process = start(photos, "-o", out)
    while not (out / until).exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [ZEROFLAW, "inspect", "mini", "-p", "object", *arguments]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,  # noqa: PLW1509 - pytest has no other threads here
    )


def hear_signals() -> None:
    """Under nohup, or in the background of a shell, it would inherit that they are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
