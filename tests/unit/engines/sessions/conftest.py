"""What the tests of sessions share."""

from __future__ import annotations

import pytest

from support.gpu.simulated_engines import simulate_gpu
from support.gpu.simulated_tensorrt import SimulatedTensorRt
from zeroflaw_engines.bundle.bundle import Bundle


@pytest.fixture
def gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> SimulatedTensorRt:
    """A simulated GPU of sm89, and engines of the small bundle that were built for it."""
    return simulate_gpu(bundle, monkeypatch)
