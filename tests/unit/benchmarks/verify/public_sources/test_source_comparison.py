"""The comparison with a public source: what is refused, and what importing one leaves behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from zeroflaw_benchmarks.verify.public_sources.comparison import Comparison, write_golden
from zeroflaw_benchmarks.verify.public_sources.source_tree import imported
from zeroflaw_engines.errors import ComparisonError, EvaluationError

RAMP = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


def test_a_difference_is_measured_and_judged() -> None:
    [figure] = Comparison({"map": RAMP}, {"map": RAMP + 0.5e-4}, {"map": 1e-4}).figures
    assert figure.accepted
    assert figure.value == pytest.approx(0.5e-4, rel=0.01)
    [figure] = Comparison({"map": RAMP}, {"map": RAMP + 2e-4}, {"map": 1e-4}).figures
    assert not figure.accepted


@pytest.mark.parametrize(
    ("source", "ours"),
    [
        ({"map": RAMP}, {"other": RAMP}),
        ({"map": RAMP, "more": RAMP}, {"map": RAMP, "more": RAMP}),
        ({"map": RAMP}, {"map": RAMP[:2]}),
        ({"map": RAMP}, {"map": RAMP * np.nan}),
        ({"map": RAMP * 0}, {"map": RAMP * 0}),
    ],
)
def test_what_shows_nothing_is_refused(source: dict, ours: dict) -> None:
    with pytest.raises(ComparisonError):
        _ = Comparison(source, ours, {"map": 1e-4}).figures


def test_golden_outputs_are_small(tmp_path: Path) -> None:
    write_golden({"map": RAMP[:, ::2]}, tmp_path / "g.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "g.safetensors")["map"], RAMP[:, ::2])
    with pytest.raises(EvaluationError, match="larger"):
        write_golden({"map": np.zeros((200, 200), np.float32)}, tmp_path / "large.safetensors")
    assert not (tmp_path / "large.safetensors").exists()


def test_a_source_with_modules_of_known_names_leaves_none_behind(tmp_path: Path) -> None:
    import calendar

    (tmp_path / "calendar.py").write_text("NAME = 'the source'\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/inner.py").write_text("import calendar\nNAME = calendar.NAME\n")
    (tmp_path / "test.py").write_text("import absent\nfrom parts.inner import NAME\nX = absent.X\n")
    path = list(sys.path)
    with imported(tmp_path, "test.py", {"absent": {"X": 3}}) as script:
        assert (script.NAME, script.X) == ("the source", 3)
    assert sys.path == path
    assert sys.modules["calendar"] is calendar
    assert not {"absent", "parts.inner", "test"} & {
        name for name, one in sys.modules.items() if str(tmp_path) in str(one)
    } | {"absent"} & set(sys.modules)


def test_another_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no test\.py"), imported(tmp_path, "test.py"):
        pass
