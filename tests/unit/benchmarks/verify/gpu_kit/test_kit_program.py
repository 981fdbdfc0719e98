"""The program `gpu_kit.pyz` as it is packed from this checkout: pip alone is left out."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from zeroflaw_benchmarks.verify.gpu_kit import packages
from zeroflaw_benchmarks.verify.gpu_kit.pack import PROGRAM, PackOptions, pack, sizes
from zeroflaw_benchmarks.verify.gpu_kit.run import EXIT_FAILED
from zeroflaw_benchmarks.verify.gpu_kit.summary import REPORTS, SUMMARY

ROOT: Final = Path(__file__).resolve().parents[5]
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
PIECE_SIZE: Final = 12 * 2**20

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None,
    reason="a kit is packed from a checkout, by git's list of files",
)


@dataclass(frozen=True)
class Kit:
    folder: Path
    pieces: int


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The part `tree`, and a part `site` with one file in place of what pip would bring."""

    def install(_packages, target: Path, python: str) -> None:
        (target / "of_the_site.py").write_text(f"PYTHON = {python!r}\n")

    folder = tmp_path_factory.mktemp("kits") / "kit"
    options = PackOptions(parts=("tree", "site"), piece_size=PIECE_SIZE, python=PYTHON, preset=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "install", install)
        contents = pack(folder, options)
    assert max(sizes(contents)) < PIECE_SIZE
    return Kit(folder, contents.pieces)


def program(pieces: Path, cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs it as on a bare machine: no packages but Python's own, and no driver."""
    cwd.mkdir(exist_ok=True)
    command = [sys.executable, "-I", "-S", str(pieces / "piece_1" / PROGRAM), *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip


def test_it_runs_without_any_package_and_reports_what_was_not_reached(
    kit: Kit, tmp_path: Path
) -> None:
    done = program(kit.folder, tmp_path / "there", "--dry-run", "--budget", 0, "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    there = tmp_path / "there"
    page = (there / "out" / SUMMARY).read_text()
    assert "no GPU was verified" in page
    assert "- not reached: export_full" in page
    assert "passed" not in page
    with tarfile.open(there / "out" / REPORTS) as archive:
        assert archive.getnames() == []
    parts = there / "zeroflaw_gpu_kit" / "parts"
    for name in ("pyproject.toml", "engines/zeroflaw_engines/errors.py",
                 "benchmarks/zeroflaw_benchmarks/verify/gpu_kit/steps.py"):  # fmt: skip
        assert (parts / "tree" / name).read_bytes() == (ROOT / name).read_bytes()
    assert any((parts / "tree" / "examples" / "frames").iterdir())
    assert (parts / "site" / "of_the_site.py").read_text() == f"PYTHON = {PYTHON!r}\n"
    assert (
        "bench = zeroflaw_benchmarks.bench.cli:bench"
        in (parts / "site" / "zeroflaw-0.dist-info" / "entry_points.txt").read_text()
    )


def test_what_fits_a_piece_is_the_whole_of_its_folder(kit: Kit) -> None:
    assert kit.pieces > 1, "this test wants a kit of several pieces"
    for piece in kit.folder.iterdir():
        assert sum(file.stat().st_size for file in piece.iterdir()) <= PIECE_SIZE


def test_pieces_come_one_by_one(kit: Kit, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for number in range(1, kit.pieces + 1):
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(kit.folder / "piece_1", here / "piece_1")
        shutil.copytree(
            kit.folder / f"piece_{number}", here / f"piece_{number}", dirs_exist_ok=True
        )
        done = program(here, there, "--dry-run", "--budget", 0, "--out", "out")
        last = number == kit.pieces
        assert done.returncode == (0 if last else 1), done.stderr
        assert ("copy the first pieces as well" in done.stderr) != last
        for later in range(number + 1, kit.pieces + 1):
            assert f"piece_{later} is not here yet" in done.stdout
        assert (there / "out" / SUMMARY).exists() == last


def test_a_damaged_piece_is_named(kit: Kit, tmp_path: Path) -> None:
    here = shutil.copytree(kit.folder, tmp_path / "here")
    with (here / "piece_1" / "tree.00").open("r+b") as chunk:
        chunk.seek(1000)
        chunk.write(b"damage")
    done = program(here, tmp_path / "there", "--dry-run", "--budget", 0)
    assert done.returncode == 1
    assert "piece_1 is damaged: tree.00" in done.stdout
    assert "the part tree is not complete" in done.stdout


def test_without_a_gpu_only_a_dry_run_goes_on(kit: Kit, tmp_path: Path) -> None:
    done = program(kit.folder, tmp_path / "there", "--budget", 0)
    assert done.returncode == 1
    assert "no NVIDIA GPU answers" in done.stderr
    assert "--dry-run" in done.stderr


def test_packages_for_another_python_are_refused(kit: Kit, tmp_path: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(kit.folder / "piece_1", here / "piece_1")
    path = here / "piece_1" / "contents.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "python": "3.9"}))
    done = program(here, tmp_path / "there", "--dry-run")
    assert done.returncode == 1
    assert "the kit is for Python 3.9" in done.stderr
    assert not (tmp_path / "there" / "zeroflaw_gpu_kit").exists()


def test_words_that_it_does_not_know(kit: Kit, tmp_path: Path) -> None:
    there = tmp_path / "there"
    done = program(kit.folder, there, "--dry-run", "--budget", 0, "--again", "no_step")
    assert done.returncode == 1
    assert "there is no step 'no_step'" in done.stderr
    assert "one of: attention_kernels" in done.stderr
    assert program(kit.folder, there, "--no-such-option").returncode == 2
    (tmp_path / "empty").mkdir()
    done = program(kit.folder, there, "--pieces", tmp_path / "empty")
    assert (done.returncode, "holds no piece of a kit" in done.stderr) == (1, True)


def test_a_tree_that_is_no_checkout_is_refused(kit: Kit, tmp_path: Path) -> None:
    done = program(kit.folder, tmp_path / "there", "--dry-run", "--tree", tmp_path / "no_tree")
    assert done.returncode == 1
    assert "no_tree is no checkout of zeroflaw" in done.stderr
    assert "Traceback" not in done.stderr


FAKE = """
import sys
from zeroflaw_benchmarks.verify.gpu_kit import run
from zeroflaw_benchmarks.verify.gpu_kit.steps import Step
steps = tuple(Step(name=name, shows=name, commands=(("sh", "-c", text),), limit_s=60)
              for name, text in {steps!r})
run.steps_for = lambda place, dry_run: steps
sys.exit(run.main({words!r}))
"""


def fake(kit: Kit, there: Path, *steps: tuple[str, str]) -> subprocess.Popen[str]:
    """Starts the kit with other steps than its own."""
    there.mkdir(exist_ok=True)
    words = ["--pieces", str(kit.folder), "--dry-run", "--out", "out"]
    code = FAKE.format(steps=steps, words=words)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=there, stdout=subprocess.PIPE, text=True
    )


def test_a_failed_step_has_an_exit_code_of_its_own(kit: Kit, tmp_path: Path) -> None:
    steps = (("bad", "exit 1"), ("good", "true"))
    with fake(kit, tmp_path / "there", *steps) as started:
        said, _ = started.communicate(timeout=60)
    assert started.returncode == EXIT_FAILED == 5
    assert "bad: failed" in said
    assert "- failed: bad\n- passed: good" in (tmp_path / "there" / "out" / SUMMARY).read_text()
    with fake(kit, tmp_path / "there", ("good", "exit 1")) as started:
        started.communicate(timeout=60)
    assert started.returncode == EXIT_FAILED, "a step that had failed before still has"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_stops_its_step_and_goes_on_later(
    kit: Kit, tmp_path: Path, number: int
) -> None:
    there = tmp_path / "there"
    hang = "test -e again && exit 0; echo $$ > begun; exec sleep 600"
    with fake(kit, there, ("good", "true"), ("hangs", hang)) as started:
        begun = there / "zeroflaw_gpu_kit" / "begun"
        end = time.monotonic() + 30
        while not (begun.is_file() and begun.read_text()):
            assert time.monotonic() < end
            time.sleep(0.05)
        started.send_signal(number)
        started.communicate(timeout=30)
    assert started.returncode == 143
    assert "- not reached: hangs" in (there / "out" / SUMMARY).read_text()
    with tarfile.open(there / "out" / REPORTS) as archive:
        assert archive.getnames() == ["logs/good.log", "logs/hangs.log"]
    left = Path(f"/proc/{begun.read_text().strip()}/cmdline")
    assert not left.exists() or not left.read_bytes(), "what is left may be a zombie at most"
    (there / "zeroflaw_gpu_kit" / "again").touch()
    with fake(kit, there, ("good", "true"), ("hangs", hang)) as started:
        started.communicate(timeout=30)
    assert started.returncode == 0
