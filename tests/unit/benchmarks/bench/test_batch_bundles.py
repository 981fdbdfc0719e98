"""Engines of a bundle that takes several images a call, timed on one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zeroflaw_benchmarks.bench.frames import bench_frame
from zeroflaw_benchmarks.bench.process.device_run import COMPARED
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.process.session_run import SessionTask, run_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import EngineName


@pytest.mark.parametrize("engine", list(COMPARED))
def test_an_engine_for_batches_gives_what_the_one_for_single_frames_gives(
    tiny_bundle: Bundle, batch_bundle: Bundle, tmp_path: Path, engine: EngineName
) -> None:
    """Peers are held against one image, in the form of one image."""
    frame = bench_frame((192, 256), tmp_path)
    found = []
    for bundle in (tiny_bundle, batch_bundle):
        output = tmp_path / f"{bundle.path.name}.npy"
        task = SessionTask(
            str(bundle.path), RunOn(threads=1), engine, "object", str(frame.path), 1, 0,
            str(output),
        )  # fmt: skip
        times = run_session(task)
        assert len(times.seconds) == len(times.resident_seconds or []) == 1
        found.append(np.load(output))
    want, got = found
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
