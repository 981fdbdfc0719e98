"""The kit's command on the GPU machine; it needs nothing but Python.

    python3 piece_1/gpu_kit.pyz --out reports

Puts the pieces in place that have come, runs the steps that can run, and writes `summary.md` and
`reports.tar.gz`, whatever happens on the way. The same command again, with further pieces or more
time, goes on where it ended. It changes no setting of the GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from zeroflaw_benchmarks.verify.gpu_kit.installation import Place, environment, install
from zeroflaw_benchmarks.verify.gpu_kit.pieces import collect, read_contents
from zeroflaw_benchmarks.verify.gpu_kit.runner import Limits, Results, StoppedError, run_steps
from zeroflaw_benchmarks.verify.gpu_kit.steps import steps_for
from zeroflaw_benchmarks.verify.gpu_kit.summary import SUMMARY, publish, summary_page
from zeroflaw_engines.errors import BenchmarkError

EXIT_FAILED: Final = 5
_STOPPED: Final = 143
_QUERY: Final = ("--query-gpu=name,driver_version", "--format=csv,noheader")


def main(words: Sequence[str] | None = None) -> int:
    """Run the kit.

    Returns:
        The exit code: 0, 1 for an error, 5 if a step failed, 143 if it was asked to end.
    """
    given = _parser().parse_args(words)
    try:
        return _run(given, time.monotonic())
    except BenchmarkError as error:
        print(f"error: {error.cause}\n  remedy: {error.remedy}", file=sys.stderr)  # noqa: T201
        return 1


def _run(given: argparse.Namespace, begun: float) -> int:
    pieces = Path(given.pieces)
    contents = read_contents(_a_piece(pieces))
    if contents.python != f"{sys.version_info.major}.{sys.version_info.minor}":
        raise BenchmarkError(
            f"the kit is for Python {contents.python}, and this is {sys.version.split()[0]}",
            "run it with that Python, or pack it with --python",
        )
    place = Place(
        Path(given.work).resolve(), None if given.tree is None else Path(given.tree).resolve()
    )
    if place.checkout is not None and not (place.checkout / "pyproject.toml").is_file():
        raise BenchmarkError(
            f"{place.checkout} is no checkout of zeroflaw",
            "name one with --tree, or leave --tree out",
        )
    place.work.mkdir(parents=True, exist_ok=True)
    for fault in collect(contents, pieces, place.chunks):
        _say(fault)
    for part in install(contents, place):
        _say(f"the part {part} is not complete")
    gpu = None if given.dry_run else gpu_name()
    if gpu is None and not given.dry_run:
        raise BenchmarkError(
            "no NVIDIA GPU answers `nvidia-smi`",
            "run it on a GPU machine, or with --dry-run on CPUs",
        )
    if not (place.has("tree") and place.has("site")):
        raise BenchmarkError(
            "zeroflaw and its packages are not here yet", "copy the first pieces as well"
        )
    steps = steps_for(place, dry_run=given.dry_run)
    out, known = Path(given.out).resolve(), {step.name for step in steps}
    for name in given.again:
        if name not in known:
            raise BenchmarkError(
                f"there is no step {name!r}", f"one of: {', '.join(sorted(known))}"
            )

    said: dict[str, str] = {}

    def record(results: Results) -> None:
        for name, result in results.items():
            if said.get(name) != result.outcome:
                said[name] = result.outcome
                _say(f"{time.monotonic() - begun:5.0f} s  {name}: {result.outcome} {result.detail}")
        seconds = time.monotonic() - begun
        page = summary_page(steps, results, contents=contents, seconds=seconds, gpu=gpu)
        publish(page, place, out)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        results = run_steps(
            steps,
            place,
            Limits(budget_s=given.budget - (time.monotonic() - begun)),
            variables=environment(place),
            gpu=not given.dry_run,
            again=given.again,
            record=record,
        )
    except StoppedError:
        return _STOPPED
    _say(f"{out / SUMMARY}")
    return EXIT_FAILED if {r.outcome for r in results.values()} & {"failed", "timed out"} else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu_kit.pyz", description=(__doc__ or "").split("\n")[0])
    here = Path(sys.argv[0]).resolve().parent.parent
    parser.add_argument("--out", default="gpu_kit_reports", help="folder of the results")
    parser.add_argument("--pieces", default=str(here), help="folder of piece_1, piece_2, ...")
    parser.add_argument(
        "--work", default="zeroflaw_gpu_kit", help="folder of what is unpacked and exported"
    )
    parser.add_argument("--tree", help="a checkout of zeroflaw in place of the kit's own")
    parser.add_argument("--budget", type=float, default=570, help="seconds of this call")
    parser.add_argument("--again", action="append", default=[], help="run this step again")
    parser.add_argument("--dry-run", action="store_true", help="on CPUs: verifies no GPU")
    return parser


def _a_piece(pieces: Path) -> Path:
    for piece in sorted(pieces.glob("piece_*")):
        if (piece / "contents.json").is_file():
            return piece
    raise BenchmarkError(f"{pieces} holds no piece of a kit", "name their folder with --pieces")


def gpu_name() -> str | None:
    """Return name and driver of the first GPU, as its driver says them; None without one."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own command
            [command, *_QUERY], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return None
    name, _, driver = lines[0].partition(",")
    return f"{name.strip()}, driver {driver.strip()}"


def _stop(_number: int, _frame: object) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # once is enough
    raise StoppedError


def _say(text: str) -> None:
    sys.stdout.write(text + os.linesep)
    sys.stdout.flush()
