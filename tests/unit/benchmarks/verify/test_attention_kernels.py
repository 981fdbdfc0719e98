"""The check of attention kernels, on the CPU provider and on kernels that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from zeroflaw_benchmarks.verify import attention_kernels
from zeroflaw_benchmarks.verify.attention_kernels import (
    EXIT_WRONG,
    TOLERANCES,
    AttentionErrors,
    AttentionShape,
    attention_errors,
    main,
)
from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.process.terminal import out
from zeroflaw_engines.sessions.quiet_onnxruntime import ort

SHAPE = AttentionShape("small", 2, 3, 50, 24, 8)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_cpu_provider_is_right(precision: str) -> None:
    errors = attention_errors(SHAPE, "onnxruntime", precision)
    assert 0 < errors.unfused < TOLERANCES[precision]
    assert 0 < errors.fused < TOLERANCES[precision]


class WrongSession(ort.InferenceSession):
    """Gives what a kernel would that takes one value for another's."""

    value = 0.0

    def run(self, *arguments: object) -> list[np.ndarray]:
        (result,) = super().run(*arguments)
        result[0, 0, 0, 0] = self.value
        return [result]


@pytest.mark.parametrize("value", [10.0, np.nan, np.inf])
def test_wrong_values_are_seen(monkeypatch, value: float) -> None:
    monkeypatch.setattr(WrongSession, "value", value)
    monkeypatch.setattr(ort, "InferenceSession", WrongSession)
    errors = attention_errors(SHAPE, "onnxruntime", "fp32")
    assert errors.unfused > 0.1
    assert errors.fused > 0.1


def test_a_provider_that_is_missing_is_named() -> None:
    with pytest.raises(BackendUnavailableError, match="CUDAExecutionProvider"):
        attention_errors(SHAPE, "onnxruntime-cuda", "fp32")


@pytest.mark.parametrize(("wrong_where", "code"), [("unfused", EXIT_WRONG), ("fused", 0)])
def test_what_zeroflaw_uses_decides(monkeypatch, wrong_where: str, code: int) -> None:
    errors = AttentionErrors(**{"unfused": 1e-7, "fused": 1e-7, wrong_where: 0.7})
    monkeypatch.setattr(attention_kernels, "attention_errors", lambda *_: errors)
    app = typer.Typer()
    app.command()(main)
    with out.capture() as printed:
        result = CliRunner().invoke(app, [])
    assert result.exit_code == code
    assert printed.get().count("WRONG") == 2 * len(attention_kernels.SHAPES)
