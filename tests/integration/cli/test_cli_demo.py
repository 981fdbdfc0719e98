"""`zeroflaw demo`, as someone runs it who has never seen zeroflaw."""

from __future__ import annotations

import csv
import re
import resource
import shutil
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from support.command_line import zeroflaw
from zeroflaw_engines.bundle.bundle import open_bundle

EXAMPLES = Path(__file__).parents[3] / "examples"
SCREWS = EXAMPLES / "ball_screws"
LIMIT_S = 60


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out" / "demo"


@pytest.fixture(scope="module")
def done(out: Path) -> subprocess.CompletedProcess[str]:
    before = _seconds_of_children()
    ended = zeroflaw("demo", "--examples", EXAMPLES, "--out", out)
    assert _seconds_of_children() - before < LIMIT_S
    return ended


def _seconds_of_children() -> float:
    """CPU time: the same as wall time on one idle core, and no worse on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_learns_inspects_and_shows_it(done: subprocess.CompletedProcess[str], out: Path) -> None:
    assert done.returncode == 0, done.stderr
    assert f"Open {out / 'index.html'}" in done.stdout
    assert "Traceback" not in done.stderr
    entry = open_bundle(out / "bundle").manifest.products["ball_screw"]
    learned = {photo.name for photo in entry.reference.photos}
    assert learned == {path.name for path in (SCREWS / "good").iterdir()}
    assert entry.calibration.scheme == "leave_one_out"
    screws, others = rows(out / "ball_screw"), rows(out / "object")
    assert [row["truth"] for row in screws].count("defective") == 8
    assert [row["truth"] for row in screws].count("good") == 4
    assert [row["truth"] for row in others].count("defective") == 4
    assert [row["truth"] for row in others].count("good") == 4
    assert not learned & {Path(row["file"]).name for row in screws}
    page = (out / "index.html").read_text("utf-8")
    for results in (screws, others):
        right = sum(row["judgement"].startswith("right_") for row in results)
        assert f"<b>{right} of {len(results)}</b> decisions are right" in page
    assert "CC BY-SA 4.0" in page
    assert page.count("close-up of the defect") == 8


def test_the_page_links_to_what_is_there_and_to_nothing_else(
    done: subprocess.CompletedProcess[str], out: Path
) -> None:
    page = (out / "index.html").read_text("utf-8")
    links = {unquote(unescape(link)) for link in re.findall(r'(?:href|src)="([^"]*)"', page)}
    assert len(links) > 12 + 2 * 20
    for link in links:
        assert (out / link).is_file(), link
    assert not re.search(r"https?:|<script|@import", page)


def test_each_step_is_a_command_that_the_page_and_the_terminal_name(
    done: subprocess.CompletedProcess[str], out: Path
) -> None:
    page = unescape((out / "index.html").read_text("utf-8"))
    commands = re.findall(r"^\[\d/4\] (zeroflaw .*)$", done.stderr, flags=re.MULTILINE)
    assert [command.split()[1] for command in commands] == [
        "bundle", "products", "inspect", "inspect",
    ]  # fmt: skip
    for command in commands:
        assert command in page


def test_it_runs_again_and_keeps_what_it_did_not_write(tmp_path: Path) -> None:
    examples, out = tmp_path / "examples", tmp_path / "demo"
    shutil.copytree(EXAMPLES, examples)
    for path in (*(examples / "images").glob("*.png"), *(examples / "frames").glob("*.jpg")):
        if path.stem not in {"brick", "glass_crack"}:
            path.unlink()
    for folder, keep in (("good", 3), ("good_held_out", 1), ("defective", 1)):
        for path in sorted((examples / "ball_screws" / folder).iterdir())[keep:]:
            path.unlink()
    out.mkdir()
    (out / "index.html").write_text("mine")
    for again in (False, True):
        done = zeroflaw("demo", "--examples", examples, "-o", out)
        assert done.returncode == 0, done.stderr
        assert ("did not write this file" in done.stderr) != again
        assert (out / "index.before-1.html").read_text() == "mine"
        assert not (out / "index.before-2.html").exists()
        assert len(rows(out / "ball_screw")) == len(rows(out / "object")) == 2


def test_without_the_photos_it_says_where_they_are(tmp_path: Path) -> None:
    done = zeroflaw("demo", cwd=tmp_path)
    assert done.returncode == 1
    assert "examples/ball_screws/good does not exist" in done.stderr
    assert "come with a checkout" in done.stderr
    assert "--examples" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_photos_are_small_and_each_defective_one_has_its_mask() -> None:
    photos = list(SCREWS.rglob("*.jpg"))
    assert len(photos) == 24
    for path in photos:
        assert path.stat().st_size <= 41_000, path
        assert max(Image.open(path).size) == 800
    masks = {path.stem: path for path in (SCREWS / "masks").glob("*.png")}
    assert set(masks) == {path.stem for path in (SCREWS / "defective").glob("*.jpg")}
    for stem, mask in masks.items():
        truth = np.asarray(Image.open(mask))
        assert truth.any()
        assert Image.open(SCREWS / "defective" / f"{stem}.jpg").size == truth.shape[::-1]
    assert "Attribution-ShareAlike 4.0" in (SCREWS / "LICENSE-CC-BY-SA-4.0.txt").read_text()
