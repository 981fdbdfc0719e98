"""Errors of CUDA and TensorRT: nothing stays in flight, nothing hides the first one."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support.gpu.engine_calls import decoder_inputs, load, reference
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EngineContractError, EngineError
from zeroflaw_engines.sessions.cuda import Cuda
from zeroflaw_engines.sessions.cuda_memory import CudaMemoryPool, capture_of_this_thread


def requires_the_result(bundle: Bundle, session, seed: int) -> None:
    inputs = decoder_inputs(bundle, seed=seed)
    got, want = session.execute(inputs), reference(bundle, "sam_decoder", inputs)
    np.testing.assert_array_equal(got["low_res_logits"], want["low_res_logits"])


def test_after_an_error_no_copy_is_in_flight(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    requires_the_result(bundle, session, 0)
    gpu.execution_fault = "kernel not found"
    with pytest.raises(EngineError, match="kernel not found"):
        session.execute(decoder_inputs(bundle, seed=1), keep=("low_res_logits",))
    assert not any(queue.waiting for queue in gpu.cuda.queues.values())
    gpu.execution_fault = None
    requires_the_result(bundle, session, 2)


def test_an_interrupt_leaves_no_copy_in_flight(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    session.prepare()

    def interrupt(event: int) -> None:
        raise KeyboardInterrupt

    wait = gpu.cuda.cudaEventSynchronize.side_effect
    gpu.cuda.cudaEventSynchronize.side_effect = interrupt
    with pytest.raises(KeyboardInterrupt):
        session.execute(decoder_inputs(bundle), keep=("low_res_logits",))
    assert not any(queue.waiting for queue in gpu.cuda.queues.values())
    gpu.cuda.cudaEventSynchronize.side_effect = wait
    requires_the_result(bundle, session, 3)


def test_a_stream_that_cannot_be_waited_for_ends_the_session(bundle: Bundle, gpu, caplog) -> None:
    session = load(bundle, "sam_decoder")
    session.prepare()
    gpu.cuda.fault = gpu.cuda.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(EngineError, match="cudaErrorIllegalAddress") as first:
        session.execute(decoder_inputs(bundle))
    assert "cannot be used any more" not in first.value.cause  # nothing was in flight yet
    gpu.cuda.fault = None
    wait = gpu.cuda.cudaEventSynchronize.side_effect

    def fail(event: int) -> tuple[object]:
        gpu.cuda.fault = gpu.cuda.cudaError_t.cudaErrorLaunchFailure
        return (gpu.cuda.fault,)

    gpu.cuda.cudaEventSynchronize.side_effect = fail
    with pytest.raises(EngineError, match=r"cudaEventSynchronize failed: cudaErrorLaunchFailure"):
        session.execute(decoder_inputs(bundle))
    assert "the session of sam_decoder cannot be used any more" in caplog.text
    gpu.cuda.fault, gpu.cuda.cudaEventSynchronize.side_effect = None, wait
    with pytest.raises(EngineError, match="any more since cudaEventSynchronize failed") as caught:
        session.execute(decoder_inputs(bundle))
    assert "restart" in caught.value.remedy


def test_closing_after_a_lasting_fault_raises_nothing(bundle: Bundle, gpu, caplog) -> None:
    session = load(bundle, "sam_decoder")
    session.capture()
    session.execute(decoder_inputs(bundle, 2))
    steps = ("cudaFree", "cudaFreeHost", "cudaStreamDestroy", "cudaGraphExecDestroy")
    gpu.cuda.fault = gpu.cuda.cudaError_t.cudaErrorIllegalAddress
    session.close()
    assert all(gpu.cuda.calls[step] for step in steps)
    assert gpu.cuda.calls["cudaStreamDestroy"] == 2
    assert "cudaErrorIllegalAddress" in caplog.text
    with pytest.raises(EngineError, match="is closed"):
        session.execute(decoder_inputs(bundle))


def test_what_fails_to_be_released_keeps_nothing_else(bundle: Bundle, gpu, caplog) -> None:
    session = load(bundle, "sam_decoder")
    session.capture()
    gpu.cuda.cudaGraphExecDestroy.side_effect = lambda _: (
        gpu.cuda.cudaError_t.cudaErrorInvalidValue,
    )
    session.close()
    assert "cudaErrorInvalidValue" in caplog.text
    assert not gpu.cuda.memory
    assert not gpu.cuda.queues


@pytest.mark.parametrize("failure", ["says so", "TensorRT fails", "CUDA refuses", "instantiation"])
def test_a_capture_that_fails_is_given_up(bundle: Bundle, gpu, caplog, failure: str) -> None:
    """`cudaStreamEndCapture` has an error of its own then, which tells nothing."""
    session = load(bundle, "sam_decoder")
    session.prepare()
    errors = gpu.cuda.cudaError_t
    gpu.capturable = failure != "says so"
    if failure == "TensorRT fails":
        begin = gpu.cuda.cudaStreamBeginCapture.side_effect

        def begin_and_fail(stream, mode):
            gpu.execution_fault = "a step that cannot be captured"
            answer = begin(stream, mode)
            gpu.cuda.capture_fault = errors.cudaErrorStreamCaptureUnsupported
            return answer

        gpu.cuda.cudaStreamBeginCapture.side_effect = begin_and_fail
    elif failure == "CUDA refuses":
        end = gpu.cuda.cudaStreamEndCapture.side_effect

        def fail_and_end(stream):
            gpu.cuda.capture_fault = errors.cudaErrorStreamCaptureUnsupported
            return end(stream)

        gpu.cuda.cudaStreamEndCapture.side_effect = fail_and_end
    elif failure == "instantiation":
        gpu.cuda.cudaGraphInstantiate.side_effect = lambda *_: (errors.cudaErrorInvalidValue, None)
    session.capture()
    gpu.execution_fault = None
    assert not session.captured
    reasons = {
        "says so": "TensorRT-RTX says that it cannot be captured",
        "TensorRT fails": "a step that cannot be captured",
        "CUDA refuses": "cudaStreamEndCapture failed: cudaErrorStreamCaptureInvalidated",
        "instantiation": "cudaGraphInstantiate failed: cudaErrorInvalidValue",
    }
    assert "without a CUDA graph" in caplog.text
    assert reasons[failure] in caplog.text
    assert gpu.cuda.last_error == errors.cudaSuccess
    assert not gpu.cuda.graphs
    requires_the_result(bundle, session, 4)
    assert not gpu.cuda.calls["cudaGraphLaunch"]


def test_memory_that_is_full_is_named_as_such(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    full = gpu.cuda.cudaError_t.cudaErrorMemoryAllocation
    allocate = gpu.cuda.cudaMalloc.side_effect
    gpu.cuda.cudaMalloc.side_effect = lambda _: (full, 0)
    with pytest.raises(EngineError, match=r"is full \(cudaErrorMemoryAllocation") as caught:
        session.prepare()
    assert "free device memory" in caught.value.remedy
    gpu.cuda.cudaMalloc.side_effect = allocate
    requires_the_result(bundle, session, 5)


def test_an_engine_that_fails_to_load_keeps_nothing(bundle: Bundle, gpu) -> None:
    load(bundle, "sam_encoder").prepare()
    memory, streams = dict(gpu.cuda.memory), dict(gpu.cuda.queues)
    engines = []
    make = gpu._engine

    def make_engine(*known):
        engine = make(*known)
        engines.append(weakref.ref(engine))
        return engine

    gpu._engine = make_engine
    full = gpu.cuda.cudaError_t.cudaErrorMemoryAllocation
    create = gpu.cuda.cudaEventCreateWithFlags.side_effect
    for working in range(2):  # events of both streams, one after the other
        answers = [create] * working + [lambda _: (full, None)]
        gpu.cuda.cudaEventCreateWithFlags.side_effect = lambda flags, a=answers: a.pop(0)(flags)
        with pytest.raises(EngineError) as caught:
            load(bundle, "sam_decoder")
        gc.collect()
        assert gpu.cuda.memory == memory
        assert gpu.cuda.queues == streams
        assert len(engines) == working + 1
        assert engines[-1]() is None, "the error holds on to the weights"
        assert caught.value.__traceback__ is not None


def test_each_error_of_the_library_goes_to_the_call_at_hand(bundle: Bundle, gpu) -> None:
    """It has one logger a process, that of the first engine."""
    load(bundle, "sam_encoder")
    plans = dict(gpu.graphs)
    gpu.graphs.clear()
    for _ in range(2):
        with pytest.raises(EngineError) as caught:
            load(bundle, "sam_decoder")
        assert caught.value.cause.count("the plan is not for this GPU") == 1
    gpu.graphs.update(plans)
    session = load(bundle, "sam_decoder")
    gpu.execution_fault = "a kernel is missing"
    with pytest.raises(EngineError, match="failed in sam_decoder: a kernel is missing"):
        session.prepare()


def test_finalizers_free_nothing_while_their_thread_records(gpu) -> None:
    pool = CudaMemoryPool(Cuda(), "device")
    blocks = [pool.take(1000) for _ in range(3)]
    pool.close()
    stream = Cuda().call("cudaStreamCreateWithFlags", 1)
    mode = gpu.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    with capture_of_this_thread():
        gpu.cuda.cudaStreamBeginCapture(stream, mode)
        pool.give_back(blocks.pop())
        with ThreadPoolExecutor(1) as other:
            other.submit(pool.give_back, blocks.pop()).result()
        assert len(gpu.cuda.memory) == 2
        status, _ = gpu.cuda.cudaStreamEndCapture(stream)
    assert status == gpu.cuda.cudaError_t.cudaSuccess
    assert len(gpu.cuda.memory) == 1
    gpu.cuda.fault = gpu.cuda.cudaError_t.cudaErrorIllegalAddress
    pool.give_back(blocks.pop())  # raises nothing


def test_a_kept_tensor_is_garbage_within_a_capture(bundle: Bundle, gpu) -> None:
    encoder, decoder = load(bundle, "sam_decoder"), load(bundle, "sam_decoder")
    kept = [encoder.execute(decoder_inputs(bundle), keep=("low_res_logits",))]
    encoder.close()
    decoder.prepare()
    begin = gpu.cuda.cudaStreamBeginCapture.side_effect

    def begin_and_collect(stream, mode):
        answer = begin(stream, mode)
        kept.clear()
        gc.collect()
        return answer

    gpu.cuda.cudaStreamBeginCapture.side_effect = begin_and_collect
    decoder.capture()
    assert decoder.captured
    decoder.close()
    assert not gpu.cuda.memory


def test_refused_inputs_reach_no_stream(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    session.prepare()
    gpu.cuda.copies.clear()
    with pytest.raises(EngineContractError):
        session.execute(decoder_inputs(bundle, 17))
    assert not gpu.cuda.copies
