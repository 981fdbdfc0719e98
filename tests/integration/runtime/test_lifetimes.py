"""Closing while others call, copies and pickles, and the end of the process."""

from __future__ import annotations

import copy
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from zeroflaw import InspectionStream, Inspector, ZeroflawError
from zeroflaw.sessions import Sessions
from zeroflaw_engines import backends
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import EngineError, ProcessError

FRAME = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)


@pytest.fixture(params=["onnxruntime", "openvino"])
def inspector(request: pytest.FixtureRequest) -> Iterator[Inspector]:
    with Inspector.load("mini", request.param, threads=1) as loaded:
        yield loaded


def test_closing_waits_for_calls_and_refuses_new_ones(inspector: Inspector) -> None:
    ends: list[object] = []

    def work() -> None:
        while True:
            try:
                ends.append(inspector.inspect(FRAME, product="object").decision)
            except EngineError as error:
                ends.append(error.cause)
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(ends) < 8:
        pass
    inspector.close()
    inspector.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert ends.count("this Inspector is closed") == 4
    assert set(ends) - {"this Inspector is closed"} <= {"accept", "reject", "hold"}
    for call in (
        inspector.warm_up,
        lambda: inspector.encode_frame(FRAME, product="object"),
    ):
        with pytest.raises(EngineError, match="this Inspector is closed"):
            call()


class ClosingSession:
    """A session in the midst of which the Inspector is closed, as a signal handler may do."""

    def __init__(self, inner: object, close: Callable[[], None]) -> None:
        self._inner, self._close = inner, close
        self.contract, self.backend = inner.contract, inner.backend
        self.closed = False

    def execute(self, inputs, *, keep=()):
        self._close()
        assert not self.closed, "the call that closes still needs it"
        return self._inner.execute(inputs, keep=keep)

    def close(self) -> None:
        self.closed = True
        self._inner.close()


def test_closing_within_a_call_lets_the_call_end() -> None:
    bundle = open_bundle("mini")
    loaded = [load_session(bundle, name, threads=1) for name in ("clip_encoder", "sam_encoder")]
    decoder = load_session(bundle, "sam_decoder", threads=1)
    wrapped = ClosingSession(loaded[1], lambda: made[0].close())  # noqa: PLW0108 - made later
    sessions = Sessions(clip_encoder=loaded[0], sam_encoder=wrapped, sam_decoder=decoder)
    made = [Inspector(bundle, sessions)]
    assert made[0].inspect(FRAME, product="object").decision in {"accept", "reject", "hold"}
    assert wrapped.closed
    with pytest.raises(EngineError, match="closed"):
        made[0].inspect(FRAME, product="object")


def test_engines_are_released_also_if_the_rest_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector.load("mini", threads=1)

    def fail() -> None:
        raise RuntimeError("a pool that does not end")

    monkeypatch.setattr(inspector._pipeline, "close", fail)
    with pytest.raises(RuntimeError, match="a pool that does not end"):
        inspector.close()
    for session in inspector.sessions:
        with pytest.raises(EngineError, match="is closed"):
            session.prepare()


def test_sessions_close_after_their_calls(inspector: Inspector) -> None:
    session = inspector.sessions.sam_encoder
    side = session.contract.inputs[0].shape[1]
    inputs = {
        "image": np.zeros((1, side, side, 3), np.uint8),
        "image_size": np.array([side, side], np.int32),
    }
    ends: list[str] = []

    def work() -> None:
        try:
            while True:
                session.execute(inputs)
                ends.append("ran")
        except EngineError as error:
            ends.append(error.cause)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(ends) < 3:
        pass
    session.close()
    for thread in threads:
        thread.join(30)
    assert set(ends) == {"ran", "the session of sam_encoder is closed"}


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_holds_engines_is_not_copied(inspector: Inspector, take) -> None:
    with InspectionStream(inspector) as stream:
        for thing in (inspector, stream, inspector.sessions.sam_encoder):
            with pytest.raises(ProcessError, match="cannot be pickled or copied") as caught:
                take(thing)
            assert "load" in caught.value.remedy or "open" in caught.value.remedy


def test_results_cross_to_other_processes(inspector: Inspector) -> None:
    inspection = inspector.inspect(FRAME, product="object", trace=True, frame_id="f")
    for again in (pickle.loads(pickle.dumps(inspection)), copy.deepcopy(inspection)):  # noqa: S301
        assert again.to_json() == inspection.to_json()
        np.testing.assert_array_equal(again.mask, inspection.mask)
        np.testing.assert_array_equal(again.score_map, inspection.score_map)
        assert len(again.trace.stages) == len(inspection.trace.stages)
    with InspectionStream(inspector) as stream:
        stream.submit(FRAME, product="object")
        stream.submit(FRAME, product="no such product")
        results = [stream.poll(), stream.poll()]
    for result in results:
        again = pickle.loads(pickle.dumps(result))  # noqa: S301
        assert (again.ticket, again.decision) == (result.ticket, result.decision)
        assert str(again.error) == str(result.error)
    assert pickle.loads(pickle.dumps(inspector.bundle)) == inspector.bundle  # noqa: S301


@pytest.mark.parametrize("fails", ["sam_decoder", "the Inspector"])
def test_a_failed_load_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    loaded: list[object] = []
    real = load_session

    def load(bundle, engine, **options):
        if engine == fails:
            raise EngineError("no memory", "buy some")
        loaded.append(real(bundle, engine, **options))
        return loaded[-1]

    monkeypatch.setattr("zeroflaw.sessions.load_session", load)
    before = threading.active_count()
    with pytest.raises(ZeroflawError):
        Inspector.load("mini", threads=1, max_frame_pixels=1 if fails == "sam_decoder" else -1)
    assert len(loaded) == (2 if fails == "sam_decoder" else 4)
    for session in loaded:
        with pytest.raises(EngineError, match="closed"):
            session.prepare()
    assert threading.active_count() == before
    assert backends.load_session is real


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "stream.poll()", "time.sleep(0.02)"])
def test_the_process_ends_with_a_stream_open(backend: str, end: str) -> None:
    code = f"""
import time, numpy as np
from zeroflaw import Inspector, InspectionStream
inspector = Inspector.load("mini", {backend!r})
stream = InspectionStream(inspector, capacity=50)
frame = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
for _ in range(6):
    stream.submit(frame, product="object")
{end}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == (3 if "3" in end else 0), done.stderr
    assert done.stderr == ""
    assert done.returncode != -signal.SIGABRT
