"""Streams of frames: order, policies, deadlines, and that nothing but a result is an acceptance."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from skimage import data

from zeroflaw import InspectionStream, Inspector
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import (
    EngineError,
    FrameError,
    ProductError,
    StreamError,
    StreamFullError,
)


@pytest.fixture(scope="module")
def inspector(tiny_bundle: Bundle):
    with Inspector.load(tiny_bundle.path) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    photo = np.ascontiguousarray(data.coffee())
    return [np.roll(photo, 37 * i, axis=1) for i in range(6)]


class Gate:
    """An Inspector whose halves wait until they are let through, and say what runs when."""

    def __init__(self, inspector: Inspector) -> None:
        self.inspector = inspector
        self.encode_open, self.decode_open = threading.Event(), threading.Event()
        self.encoding, self.decoding = threading.Event(), threading.Event()

    def encode_frame(self, image, **options):
        self.encoding.set()
        assert self.encode_open.wait(30)
        return self.inspector.encode_frame(image, **options)

    def decode_frame(self, encoded, **options):
        self.decoding.set()
        assert self.decode_open.wait(30)
        return self.inspector.decode_frame(encoded, **options)


def stream_of(gate: Gate, **options) -> InspectionStream:
    return InspectionStream(gate, **options)


@pytest.mark.parametrize("pipelined", [True, False])
def test_results_are_those_of_inspect_in_order(inspector, frames, pipelined: bool) -> None:
    with InspectionStream(inspector, pipelined=pipelined, capacity=3) as stream:
        results = []
        for i, frame in enumerate(frames):
            ticket = stream.submit(frame, product="object", frame_id=f"f{i}", part_id=f"p{i}")
            assert ticket == i + 1
            if i >= 3:
                results.append(stream.poll())
        results += list(stream.drain())
        assert [r.ticket for r in results] == [1, 2, 3, 4, 5, 6]
        assert stream.poll(0) is None
        health = stream.health()
    assert (health.submitted, health.finished, health.queued, health.running) == (6, 6, 0, 0)
    for i, (result, frame) in enumerate(zip(results, frames, strict=True)):
        alone = inspector.inspect(frame, product="object")
        got = result.inspection
        assert np.array_equal(got.mask, alone.mask)
        assert np.array_equal(got.anomaly_map, alone.anomaly_map)
        assert np.array_equal(got.score_map, alone.score_map)
        assert (got.image_score, got.regions) == (alone.image_score, alone.regions)
        assert got.timings_ms.keys() == alone.timings_ms.keys()
        assert result.decision == alone.decision
        assert (result.frame_id, result.part_id) == (f"f{i}", f"p{i}")
        assert result.latency_ms >= result.queue_ms >= 0


def test_encoders_of_the_next_frame_run_beside_the_cascade(inspector, frames) -> None:
    gate = Gate(inspector)
    gate.encode_open.set()
    with stream_of(gate) as stream:
        stream.submit(frames[0], product="object")
        assert gate.decoding.wait(30)
        gate.encoding.clear()
        stream.submit(frames[1], product="object")
        assert gate.encoding.wait(30), "the second frame waited for the first one's cascade"
        gate.decode_open.set()
        assert [r.ticket for r in stream.drain()] == [1, 2]


def test_what_fails_says_so_and_the_stream_goes_on(inspector, frames, caplog) -> None:
    class Broken(Gate):
        def decode_frame(self, encoded, **options):
            if encoded.product.name == "metal_nut":
                raise RuntimeError("the fan stopped")
            return self.inspector.decode_frame(encoded, **options)

    gate = Broken(inspector)
    gate.encode_open.set()
    with stream_of(gate) as stream:
        stream.submit(np.zeros((4, 4, 7), np.uint8), product="object")
        stream.submit("not a frame", product="object")
        stream.submit(frames[0], product="screw")
        stream.submit(frames[0], product="metal_nut")
        stream.submit(frames[0], product="object")
        results = list(stream.drain())
        health = stream.health()
    kinds = [type(r.error) for r in results]
    assert kinds == [FrameError, FrameError, ProductError, StreamError, type(None)]
    assert "the fan stopped" in results[3].error.cause
    assert [r.decision for r in results[:4]] == ["hold"] * 4
    assert [r.reason.code for r in results[:4]] == ["failed"] * 4
    assert results[4].decision in {"accept", "reject"}
    assert (health.failed, health.finished) == (4, 1)


def test_a_late_result_is_no_acceptance(inspector, frames) -> None:
    gate = Gate(inspector)
    with stream_of(gate) as stream:
        stream.submit(frames[0], product="object", deadline_ms=50)  # late while it is encoded
        assert gate.encoding.wait(30)
        stream.submit(frames[1], product="object", deadline_ms=50)  # late before it begins
        stream.submit(frames[2], product="object", deadline_ms=60_000)
        time.sleep(0.06)
        gate.encode_open.set()
        gate.decode_open.set()
        given_up, never_begun, in_time = stream.drain()
        gate.decode_open.clear()
        gate.decoding.clear()
        stream.submit(frames[0], product="object", deadline_ms=2_000)  # late in its cascade
        assert gate.decoding.wait(30)
        time.sleep(2.0)
        gate.decode_open.set()
        late = stream.poll()
        health = stream.health()
    for result in (given_up, never_begun, late):
        assert result.deadline_missed
        assert result.decision == "hold"
        assert result.reason.code == "late"
        assert result.inspection is None
        assert result.error is None
    assert given_up.late_inspection is None
    assert late.late_inspection.mask.shape == frames[0].shape[:2]
    assert never_begun.queue_ms >= 50
    assert in_time.decision in {"accept", "reject"}
    assert (health.late, health.finished) == (3, 1)


def test_drop_oldest_drops_what_waits_and_keeps_the_order(inspector, frames) -> None:
    gate = Gate(inspector)
    with stream_of(gate, capacity=2, when_full="drop_oldest") as stream:
        stream.submit(frames[0], product="object")
        assert gate.encoding.wait(30)
        for frame in frames[1:5]:
            stream.submit(frame, product="object")
        assert stream.poll(0) is None, "the first frame comes first, dropped ones after it"
        gate.encode_open.set()
        gate.decode_open.set()
        results = list(stream.drain())
        health = stream.health()
    assert [r.ticket for r in results] == [1, 2, 3, 4, 5]
    assert [r.dropped for r in results] == [False, True, True, False, False]
    assert all((r.inspection is None) == r.dropped for r in results)
    assert {(r.decision, r.reason.code) for r in results if r.dropped} == {("hold", "dropped")}
    assert (health.dropped, health.finished, health.submitted) == (2, 3, 5)


def test_refuse_and_wait(inspector, frames) -> None:
    for policy, timeout in (("refuse", None), ("wait", 0.05)):
        gate = Gate(inspector)
        with stream_of(gate, capacity=1, when_full=policy) as stream:
            stream.submit(frames[0], product="object")
            assert gate.encoding.wait(30)
            stream.submit(frames[1], product="object")
            with pytest.raises(StreamFullError, match="capacity"):
                stream.submit(frames[2], product="object", timeout=timeout)
            gate.encode_open.set()
            gate.decode_open.set()
            assert [r.ticket for r in stream.drain()] == [1, 2]


def test_results_that_nobody_takes_stop_the_stream_but_never_block_it(inspector, frames) -> None:
    with InspectionStream(inspector, capacity=1, when_full="refuse") as stream:
        taken = 0
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            try:
                stream.submit(frames[taken % 2] if taken % 2 else "bad", product="object")
                taken += 1
            except StreamFullError:
                time.sleep(0.01)
        assert taken <= 6
        results = list(stream.drain())
    assert [r.ticket for r in results] == list(range(1, taken + 1))


def test_a_frame_may_be_overwritten_after_submit(inspector, frames) -> None:
    gate = Gate(inspector)
    gate.decode_open.set()
    buffer = frames[0].copy()
    with stream_of(gate) as stream:
        stream.submit(buffer, product="object")
        buffer[:] = 0
        gate.encode_open.set()
        result = stream.poll()
    alone = inspector.inspect(frames[0], product="object")
    assert result.inspection.image_score == alone.image_score


def test_close_drops_what_waits_and_ends_what_runs(inspector, frames) -> None:
    gate = Gate(inspector)
    stream = stream_of(gate)
    for frame in frames[:3]:
        stream.submit(frame, product="object")
    assert gate.encoding.wait(30)
    closing = threading.Thread(target=stream.close)
    closing.start()
    gate.encode_open.set()
    gate.decode_open.set()
    closing.join(30)
    assert not closing.is_alive()
    first, *rest = [stream.poll() for _ in range(3)]
    assert first.inspection is not None
    assert all(r.dropped for r in rest)
    assert stream.poll() is None
    with pytest.raises(StreamError, match="closed"):
        stream.submit(frames[0])
    stream.close()


def test_wrong_arguments_are_refused(inspector, frames) -> None:
    with pytest.raises(StreamError, match="capacity"):
        InspectionStream(inspector, capacity=0)
    with pytest.raises(StreamError, match="drop_newest"):
        InspectionStream(inspector, when_full="drop_newest")  # type: ignore[arg-type]
    with InspectionStream(inspector) as stream:
        for deadline in (0, -1, float("nan")):
            with pytest.raises(StreamError, match="deadline"):
                stream.submit(frames[0], deadline_ms=deadline)


def test_a_closed_inspector_is_an_error_not_an_acceptance(tiny_bundle, frames) -> None:
    inspector = Inspector.load(tiny_bundle.path)
    with InspectionStream(inspector) as stream:
        inspector.close()
        stream.submit(frames[0], product="object")
        result = stream.poll()
    assert isinstance(result.error, EngineError)
    assert (result.decision, result.reason.code) == ("hold", "failed")
