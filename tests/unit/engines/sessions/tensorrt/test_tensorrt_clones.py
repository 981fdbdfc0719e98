"""Clones of a session on a built engine: one set of weights, and everything else of their own."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support.gpu.engine_calls import decoder_inputs, load, reference
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EngineError


def test_calls_of_clones_run_at_once(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    clone = session.clone()
    calls = {one: decoder_inputs(bundle, seed=n) for n, one in enumerate((session, clone))}
    for one in calls:
        one.capture()
    both = threading.Barrier(2, timeout=60)
    gpu.before_work = both.wait  # neither call ends before the other has begun
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda one: one.execute(calls[one]), calls))
    for outputs, inputs in zip(got, calls.values(), strict=True):
        want = reference(bundle, "sam_decoder", inputs)
        np.testing.assert_array_equal(outputs["low_res_logits"], want["low_res_logits"])


def test_the_weights_go_with_the_last_session_on_them(bundle: Bundle, gpu) -> None:
    engines = []
    make = gpu._engine
    gpu._engine = lambda *known: engines.append(make(*known)) or engines[-1]
    session = load(bundle, "sam_decoder")
    clone = session.clone()
    twice = clone.clone()
    [weights] = [weakref.ref(engine) for engine in engines]
    engines.clear()
    inputs = decoder_inputs(bundle)
    kept = session.execute(inputs, keep=("low_res_logits",))["low_res_logits"]
    session.close()
    with pytest.raises(EngineError, match="is closed"):
        session.execute(inputs)
    with pytest.raises(EngineError, match="is closed"):
        session.clone()
    want = reference(bundle, "sam_decoder", inputs)
    got = clone.execute({**inputs, "mask_input": kept.view((0, 0), inputs["mask_input"].shape)})
    again = {**inputs, "mask_input": want["low_res_logits"][:, :1]}
    np.testing.assert_array_equal(
        got["low_res_logits"], reference(bundle, "sam_decoder", again)["low_res_logits"]
    )
    twice.close()
    gc.collect()
    assert weights() is not None
    clone.close()
    del kept
    gc.collect()
    assert weights() is None
    assert not gpu.cuda.memory
    assert not gpu.cuda.queues
    assert not gpu.cuda.events
