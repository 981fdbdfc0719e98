"""One page that names what passed, what failed, and what was not reached."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
from zeroflaw_benchmarks.verify.gpu_kit.pieces import Contents
from zeroflaw_benchmarks.verify.gpu_kit.runner import Result
from zeroflaw_benchmarks.verify.gpu_kit.steps import Step

SUMMARY: Final = "summary.md"
REPORTS: Final = "reports.tar.gz"
_MAX_LOG: Final = 200_000


def summary_page(
    steps: Sequence[Step],
    results: Mapping[str, Result],
    *,
    contents: Contents,
    seconds: float,
    gpu: str | None,
) -> str:
    """Write the page.

    Args:
        seconds: Since this call began.
        gpu: Name and driver of the GPU; None in a dry run, or where none answers.
    """
    shown = {step.name: results.get(step.name, Result("not reached")) for step in steps}
    by_outcome: dict[str, list[str]] = {}
    for name, result in shown.items():
        by_outcome.setdefault(result.outcome, []).append(name)
    headline = (
        f"**on {gpu}**"
        if gpu is not None
        else "**no GPU was verified: this was a dry run on CPUs**"
    )
    lines = [
        "# The GPU kit's run",
        "",
        headline,
        "",
        f"- zeroflaw at {contents.commit}, packed {contents.made}",
        f"- this call: {seconds:.0f} s; all steps: {sum(r.seconds for r in shown.values()):.0f} s",
        *(f"- {outcome}: {', '.join(names)}" for outcome, names in by_outcome.items()),
        "",
        "| step | outcome | s | what it shows | detail |",
        "|---|---|---|---|---|",
    ]
    for step in steps:
        result = shown[step.name]
        beside = f" (beside {', '.join(result.beside)})" if result.beside else ""
        cells = (
            step.name,
            f"**{result.outcome}**"
            if result.outcome in {"failed", "timed out"}
            else result.outcome,
            f"{result.seconds:.0f}" if result.seconds else "",
            step.shows,
            " ".join(result.detail.split()).replace("|", "/") + beside,
        )
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        "Times that were taken beside a step in the background are no measurements. A step that was"
        " not reached is reached by the same command again, once what it waits for is there."
    )
    return "\n".join([*lines, "", note]) + "\n"


def publish(page: str, place: Place, out: Path) -> None:
    """Write the page, and beside it all reports and logs in one archive."""
    out.mkdir(parents=True, exist_ok=True)
    # Both are replaced as a whole: whatever ends the process, they can be read.
    unfinished = out / f"{SUMMARY}.part"
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(out / SUMMARY)
    unfinished = out / f"{REPORTS}.part"
    with tarfile.open(unfinished, "w:gz") as archive:
        for folder in (place.reports, place.logs):
            for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
                if file.is_file() and file.suffix != ".code":
                    # What grows meanwhile is packed as it is now, and of long logs the end.
                    data = file.read_bytes()
                    data = data[-_MAX_LOG:] if file.suffix == ".log" else data
                    entry = tarfile.TarInfo(str(file.relative_to(place.work)))
                    entry.size, entry.mtime = len(data), int(file.stat().st_mtime)
                    archive.addfile(entry, io.BytesIO(data))
    unfinished.replace(out / REPORTS)
