"""What is said to be verified: the ranking, the doctor and the docs say the same of a backend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zeroflaw.cli.commands import app
from zeroflaw.cli.doctor import doctor
from zeroflaw_engines.backends import BACKENDS, RANKING

ROOT = Path(__file__).parents[4]
PAGES = ("README.md", "docs/gpu.md", "docs/backends.md")


def states() -> dict[str, str]:
    """The column `state` of the table of backends, by backend."""
    text = (ROOT / "docs" / "backends.md").read_text("utf-8")
    rows = (line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `"))
    return {cells[0].strip(" `"): cells[-1] for cells in rows}


@pytest.mark.parametrize("backend", RANKING, ids=lambda backend: backend.name)
def test_the_docs_call_unverified_what_the_ranking_does(backend) -> None:
    state = states()[backend.name]
    assert state.startswith("tested" if backend.verified else "**unverified**")


def test_the_ranking_calls_no_gpu_verified_whose_acceptance_was_an_earlier_one() -> None:
    """Each page that names the run says of what it was."""
    assert not any(backend.verified for backend in BACKENDS.values() if backend.on_gpu)
    for page in PAGES:
        text = " ".join((ROOT / page).read_text("utf-8").split())
        for said in ("earlier acceptance", "H200", "until 28 November 2026", "the code of then"):
            assert said in text, (page, said)
        assert not re.search(r"verified,? on (an )?NVIDIA", text), page


def test_the_doctor_does_not_deny_the_runs_that_there_were() -> None:
    app.command()(doctor)
    said = " ".join(CliRunner().invoke(app, ["doctor", "--help"]).output.split())
    assert "on no GPU" not in said
    assert "has not passed the acceptance on any GPU as it is now" in said
