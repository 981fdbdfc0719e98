"""Whether zeroflaw refuses a backend on the kit's GPU: its own table decides, and not the probe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from support.gpu.simulated_gpu import SimulatedCuda
from zeroflaw_benchmarks.verify.gpu_kit import served
from zeroflaw_benchmarks.verify.gpu_kit.installation import Place
from zeroflaw_benchmarks.verify.gpu_kit.runner import Limits, run_steps
from zeroflaw_benchmarks.verify.gpu_kit.steps import EXIT_REFUSED, Step, steps_for
from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.sessions import cuda as cuda_runtime


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    simulated = SimulatedCuda()
    monkeypatch.setattr(cuda_runtime, "load_cuda", lambda: simulated)
    return simulated


def asked(backend: str):
    app = typer.Typer(add_completion=False)
    app.command()(served.main)
    return CliRunner().invoke(app, [backend])


@pytest.mark.parametrize(
    ("backend", "architecture", "code", "text"),
    [
        ("tensorrt-rtx", (8, 0), EXIT_REFUSED, "this is a data-centre card"),
        ("tensorrt-rtx", (9, 0), EXIT_REFUSED, "this is a data-centre card"),
        ("tensorrt-rtx", (10, 0), EXIT_REFUSED, "this is a data-centre card"),
        ("tensorrt-rtx", (7, 5), EXIT_REFUSED, "lacks the FP32 products"),
        (
            "tensorrt-rtx",
            (8, 9),
            0,
            "zeroflaw does not refuse tensorrt-rtx on Simulated GPU (sm89)",
        ),
        (
            "tensorrt-rtx",
            (15, 0),
            0,
            "zeroflaw does not refuse tensorrt-rtx on Simulated GPU (sm150)",
        ),
        ("tensorrt", (9, 0), 0, "does not refuse tensorrt on Simulated GPU (sm90)"),
    ],
)
def test_the_table_of_zeroflaw_decides(cuda, backend, architecture, code: int, text: str) -> None:
    cuda.architecture = architecture
    result = asked(backend)
    assert result.exit_code == code, result.output
    # One line, whatever the terminal: the summary shows the last one of the log.
    (line,) = result.output.splitlines()
    assert text in line


def test_a_machine_without_a_driver_is_no_refusal(cuda) -> None:
    cuda.devices = 0
    result = asked("tensorrt-rtx")
    assert result.exit_code not in {0, EXIT_REFUSED}
    assert isinstance(result.exception, BackendUnavailableError)


def test_what_builds_engines_asks_first(tmp_path: Path) -> None:
    """Else the acceptance fails on a card that `load` refuses, though the probe ran there."""
    steps = {step.name: step for step in steps_for(Place(tmp_path))}
    for name, step in steps.items():
        words = {word for command in step.commands for word in command}
        backends = words & {"tensorrt", "tensorrt-rtx"}
        if not backends:
            continue
        (backend,) = backends
        assert step.commands[0][2:] == (served.__name__, backend), name
        assert ("rtx_probe" in step.needs) == (backend == "tensorrt-rtx")
    for name in ("tensorrt_mini", "tensorrt_full", "rtx_mini", "rtx_full"):
        assert len(steps[name].commands) == 2


def test_a_step_on_a_card_that_is_not_served_is_refused_with_the_reason(tmp_path: Path) -> None:
    place, reason = Place(tmp_path), "the backend does not serve it: this is a data-centre card"
    refuses = f"import sys; print({reason!r}); sys.exit({EXIT_REFUSED})"
    goes_on = f"open({str(tmp_path / 'built')!r}, 'w')"
    step = Step(
        name="rtx_mini",
        shows="engines",
        commands=tuple((sys.executable, "-c", code) for code in (refuses, goes_on)),
        limit_s=30,
        verdict=tmp_path / "rtx_mini.json",
    )
    limits = Limits(budget_s=30, poll_s=0.02, least_s=0.1)
    result = run_steps([step], place, limits, variables={})["rtx_mini"]
    assert (result.outcome, result.detail) == ("refused", reason)
    assert not (tmp_path / "built").exists()
