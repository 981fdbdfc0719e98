"""The check of attention kernels, on the CPU provider and on kernels that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from zeroflaw.cli.terminal import out
from zeroflaw_benchmarks.verify import attention_kernels
from zeroflaw_benchmarks.verify.attention_kernels import (
    EXIT_WRONG,
    TOLERANCES,
    AttentionShape,
    attention_error,
    main,
)
from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.quiet_onnxruntime import ort

SHAPE = AttentionShape("small", 2, 3, 50, 24, 8)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("fused", [False, True])
def test_the_cpu_provider_is_right(precision: str, fused: bool) -> None:
    error = attention_error(SHAPE, "onnxruntime", precision, fused_attention=fused)
    assert 0 < error < TOLERANCES[precision]


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
    error = attention_error(SHAPE, "onnxruntime", "fp32", fused_attention=False)
    assert error > 0.1


def test_a_provider_that_is_missing_is_named() -> None:
    with pytest.raises(BackendUnavailableError, match="CUDAExecutionProvider"):
        attention_error(SHAPE, "onnxruntime-cuda", "fp32", fused_attention=False)


@pytest.mark.parametrize(("wrong_where", "code"), [("unfused", EXIT_WRONG), ("fused", 0)])
def test_what_zeroflaw_uses_decides(monkeypatch, wrong_where: str, code: int) -> None:
    def error(shape, backend, precision, *, fused_attention):
        return 0.7 if fused_attention == (wrong_where == "fused") else 1e-7

    monkeypatch.setattr(attention_kernels, "attention_error", error)
    app = typer.Typer()
    app.command()(main)
    with out.capture() as printed:
        result = CliRunner().invoke(app, [])
    assert result.exit_code == code
    assert printed.get().count("WRONG") == 2 * len(attention_kernels.SHAPES)
