"""The report of a GPU acceptance: what was checked, with which figures, on which machine."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Outcome = Literal["passed", "failed", "not applicable"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check.

    Attributes:
        name: What was checked.
        outcome: `not applicable` is never a pass: `detail` says why there was nothing to check.
        detail: In words.
        figures: What was measured, by name with its unit.
    """

    name: str
    outcome: Outcome
    detail: str
    figures: dict[str, float] = {}


class AcceptanceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One acceptance of one bundle on one machine.

    Attributes:
        verdict: `verified on <GPU>, ...`, or why nothing of a GPU was verified.
        accepted: Whether no check failed.
        gpu_verified: Whether every check passed, those of the GPU among them.
        bundle: Identity of the models.
        backend: What ran them: name, version, device and precision.
        created: UTC time, ISO 8601.
        machine: Of `zeroflaw doctor`.
        versions: Of the distributions that are installed.
        settings: How the checks were run.
        checks: In order.
    """

    verdict: str
    accepted: bool
    gpu_verified: bool
    bundle: str
    backend: str
    created: str
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    checks: tuple[Check, ...]


def verdict_of(checks: tuple[Check, ...], gpu: str | None, versions: str) -> tuple[str, bool, bool]:
    """Say what the checks amount to.

    Returns:
        The verdict in words, whether no check failed, and whether the GPU is verified: every
        check that there is for the backend passed.
    """
    failed = [check.name for check in checks if check.outcome == "failed"]
    passed = [check.name for check in checks if check.outcome == "passed"]
    left_out = [check.name for check in checks if check.outcome == "not applicable"]
    if failed:
        return f"NOT verified: {', '.join(failed)} failed", False, False
    if gpu is None:
        return f"no GPU was verified: the engines ran on {versions}", True, False
    if not passed:
        return f"NOT verified on {gpu}: nothing was checked", True, False
    verdict = f"verified on {gpu}, {versions}: {', '.join(passed)}"
    return verdict + (f" (not applicable: {', '.join(left_out)})" if left_out else ""), True, True


def as_markdown(report: AcceptanceReport) -> str:
    """Write the report as a page."""
    lines = [
        "# GPU acceptance",
        "",
        f"**{report.verdict}**",
        "",
        f"- bundle {report.bundle}",
        f"- engines on {report.backend}",
        f"- {report.created}",
        f"- {', '.join(f'{name} {version}' for name, version in report.versions.items())}",
        f"- settings: {', '.join(f'{name} {value}' for name, value in report.settings.items())}",
        "",
        "| check | outcome | detail |",
        "|---|---|---|",
    ]
    lines += [f"| {check.name} | {check.outcome} | {check.detail} |" for check in report.checks]
    for check in report.checks:
        if check.figures:
            lines += ["", f"## {check.name}", "", "| figure | value |", "|---|---|"]
            lines += [f"| {name} | {value:.6g} |" for name, value in check.figures.items()]
    return "\n".join(lines) + "\n"
