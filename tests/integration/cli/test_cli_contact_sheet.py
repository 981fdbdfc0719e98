"""The page that `zeroflaw inspect` leaves beside its results."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from skimage import data

from support.command_line import ZEROFLAW
from zeroflaw_engines.bundle.bundle import Bundle

NAMES = ["plain.png", 'it\'s "50%" #1 <b>&amp;.png', "größe 螺丝?.png", "a.b.png", "new\nline.png"]


def inspect(bundle: Bundle, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [ZEROFLAW, "inspect", bundle.path, "-p", "object", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def linked(page: str) -> set[str]:
    return {unquote(unescape(link)) for link in re.findall(r'(?:href|src)="([^"]*)"', page)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for line in ("", "line <3> & 50%"):
        (folder / line).mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(NAMES):
            Image.fromarray(data.coffee()[i:200]).save(folder / line / name)
    return folder


def test_every_link_leads_to_a_result_and_every_result_is_linked(
    tiny_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    (photos / "cut <off>.png").write_bytes((photos / NAMES[0]).read_bytes()[:500])
    (photos / "not utf-8 \udcff.png").write_bytes((photos / NAMES[0]).read_bytes())
    out = tmp_path / "out"
    done = inspect(tiny_bundle, photos, "-o", out)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{out / 'index.html'}" in done.stdout
    page = (out / "index.html").read_text("utf-8")
    written = {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.name.endswith((".png", ".json"))
    }
    named = {name for name in written if "\udcff" not in name}
    assert len(named) == 4 * 2 * len(NAMES) + 1  # the record of the file that failed
    assert {name for name in linked(page) if "\ufffd" not in name} == named
    assert page.count('<article class="card hold failed">') == 1
    assert "cut &lt;off&gt;.png is damaged" in page
    assert "random weights (seed 7)" in page
    assert tiny_bundle.identity in page
    assert "interrupted" not in page


def test_an_interrupted_run_has_a_page_of_what_was_done(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for i in range(400):
        Image.fromarray(np.full((300, 300, 3), i % 256, np.uint8)).save(folder / f"{i:03d}.png")
    command = [ZEROFLAW, "inspect", tiny_bundle.path, folder, "-o", out, "-p", "object"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE)
    while not (out / "003.json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    page = (out / "index.html").read_text("utf-8")
    assert "of 400 files so far" in page
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    page = (out / "index.html").read_text("utf-8")
    done = page.count("<article")
    assert 3 <= done < 400
    assert f"interrupted after {done} of 400 files" in page
    for name in linked(page):
        assert (out / name).is_file()


def test_a_page_that_cannot_be_written_is_an_error(
    tiny_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "index.html").mkdir(parents=True)
    done = inspect(tiny_bundle, photos / NAMES[0], "-o", out)
    assert done.returncode == 1
    assert "index.html cannot be written" in done.stderr
    assert not (out / "plain.json").exists()
