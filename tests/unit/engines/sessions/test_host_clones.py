"""Clones of sessions whose memory is the host's: another handle on the same loaded model."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import onnxruntime
import openvino
import pytest

from zeroflaw_engines.backends import load_session
from zeroflaw_engines.builder.parity import fixed_inputs
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.session import Session

MODELS = {"onnxruntime": "_session", "openvino": "_model"}


@pytest.fixture(params=MODELS)
def session(request: pytest.FixtureRequest, tiny_bundle: Bundle) -> Iterator[Session]:
    session = load_session(tiny_bundle, "sam_decoder", backend=request.param, threads=1)
    yield session
    session.close()


def test_a_clone_loads_nothing_and_outlives_the_session(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        pytest.fail("a clone loads the model again")

    inputs = fixed_inputs(session.contract)
    want = session.execute(inputs)
    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    monkeypatch.setattr(openvino, "Core", load)
    clone = session.clone()
    session.close()
    with pytest.raises(EngineError, match="is closed"):
        session.execute(inputs)
    with pytest.raises(EngineError, match="is closed"):
        session.clone()
    got = clone.execute(inputs)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
    assert clone.backend == session.backend
    clone.close()


def test_the_model_goes_with_the_last_session_on_it(session: Session) -> None:
    clone = session.clone()
    model = weakref.ref(getattr(session, MODELS[session.backend.split()[0]]))
    clone.close()
    gc.collect()
    assert model() is not None
    session.close()
    gc.collect()
    assert model() is None
