"""Standard output and error that are full, closed, or lack characters; files with a BOM."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.command_line import ZEROFLAW, zeroflaw
from zeroflaw_engines.bundle.prompt_ensembles import read_prompt_ensembles

GOOD = Path(__file__).parents[3] / "examples" / "frames" / "casting_good.jpg"
COMMANDS = [
    ("--help",), ("--version",), ("inspect", "--help"), ("doctor",), ("doctor", "--json"),
    ("bundle", "info", "mini"), ("bundle", "info", "mini", "--json"), ("products", "list", "mini"),
    ("engines", "list", "mini"), ("products", "list", "mini", "--json"),
    ("bundle", "verify", "mini", "--json"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_under_standard_output_is_an_error(command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [ZEROFLAW, *command], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"standard output cannot be written: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_closed_pipe_is_an_error(command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([ZEROFLAW, *command], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert b"standard output cannot be written: Broken pipe" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_results_stay_where_standard_output_is_full(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [ZEROFLAW, "inspect", "mini", GOOD, "-p", "object", "-o", out]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert "interrupted" not in (out / "index.html").read_text()
    assert (out / "casting_good.json").exists()


def test_standard_error_that_is_full_or_closed_stops_nothing(tmp_path: Path) -> None:
    command = [ZEROFLAW, "inspect", "mini", GOOD, "-p", "object", "-o", tmp_path / "out"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.returncode == 0
    assert b"1 of 1 inspected" in done.stdout
    closed = f"'{ZEROFLAW}' products list mini >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", closed], check=False).returncode == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252:strict"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=str,
)
def test_output_that_lacks_a_character_has_an_escape(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    photo = tmp_path / "größe 螺丝.jpg"
    shutil.copy(GOOD, photo)
    (tmp_path / "螺\udcff.png").write_bytes(b"")
    out = tmp_path / "ergebnis 螺丝"
    command = [ZEROFLAW, "inspect", "mini", photo, tmp_path / "螺\udcff.png", "-p", "object"]
    done = subprocess.run(
        list(map(os.fsencode, [*command, "-o", out])),
        capture_output=True, env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert b"1 of 2 inspected" in done.stdout
    assert b"Traceback" not in done.stderr
    assert (out / "größe 螺丝.json").exists()


def test_a_parameters_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file, out = tmp_path / "method.toml", tmp_path / "out"
    file.write_text('positive_points = 2\nno_region = "always_run"\n', encoding="utf-8-sig")
    done = zeroflaw("inspect", "mini", GOOD, "-p", "object", "-o", out, "--parameters", file)
    assert done.returncode == 0, done.stderr
    points = json.loads((out / "casting_good.json").read_bytes())["trace"]["points"]
    assert 1 <= sum(point["positive"] for point in points) <= 2


def test_an_ensembles_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "ensembles.toml"
    file.write_text(
        'normal = ["{}"]\nabnormal = ["broken {}"]\ntemplates = ["a photo of {}"]\n',
        encoding="utf-8-sig",
    )
    assert read_prompt_ensembles(file).abnormal == ("broken {}",)


def test_an_interrupt_while_the_commands_are_imported_is_no_traceback() -> None:
    code = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'numpy':\n"
        "            os.kill(os.getpid(), int(sys.argv[1]))\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from zeroflaw.cli.app import main\n"
        "assert 'numpy' not in sys.modules\n"
        "main()\n"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        done = subprocess.run(
            [sys.executable, "-c", code, str(int(number))], capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (128 + number, b"")
