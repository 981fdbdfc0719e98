"""What sessions keep on the GPU: read beside the engine, in little memory, used again."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorrt_rtx

from support.gpu.engine_calls import decoder_inputs, load, reference
from support.gpu.simulated_tensorrt import WORKING_MEMORY
from zeroflaw_engines.builder.parity import fixed_inputs
from zeroflaw_engines.bundle.bundle import Bundle


def test_features_are_read_while_the_next_frame_is_encoded(bundle: Bundle, gpu) -> None:
    encoder = load(bundle, "sam_encoder")
    inputs = fixed_inputs(encoder.contract)
    features = encoder.execute(inputs, keep=("features",))["features"]
    begun, read = threading.Event(), threading.Event()

    def encode_until_read() -> None:
        begun.set()
        assert read.wait(60), "the reader waits for the encoder"

    gpu.before_work = encode_until_read
    with ThreadPoolExecutor(2) as pool:
        following = pool.submit(encoder.execute, inputs, keep=("features",))
        assert begun.wait(60)
        try:
            values = pool.submit(features.numpy).result(20)
            assert not following.done()
        finally:
            read.set()
        following.result(60)
    np.testing.assert_array_equal(values, reference(bundle, "sam_encoder", inputs)["features"])


def test_what_was_read_is_not_overwritten_by_the_next_reading(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    calls = [decoder_inputs(bundle, seed=seed) for seed in range(6)]
    kept = [session.execute(call, keep=("low_res_logits",)) for call in calls]
    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda one: one["low_res_logits"].numpy(), kept))
    for call, got in zip(calls, values, strict=True):
        want = reference(bundle, "sam_decoder", call)["low_res_logits"]
        np.testing.assert_array_equal(got, want)


def test_both_contexts_work_in_the_same_memory(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    session.execute(decoder_inputs(bundle))
    before = gpu.cuda.calls["cudaMalloc"]
    session.execute(decoder_inputs(bundle, 3))
    assert gpu.contexts == 2
    assert gpu.cuda.calls["cudaMalloc"] == before
    sizes = [len(block) for block in gpu.cuda.memory.values()]
    assert sizes.count(WORKING_MEMORY) == 1


def test_pinned_memory_is_that_of_what_comes_from_the_host_or_goes_there(
    bundle: Bundle, gpu
) -> None:
    session = load(bundle, "sam_encoder")
    inputs = fixed_inputs(session.contract)
    session.execute(inputs, keep=("features",))
    assert gpu.cuda.calls["cudaMallocHost"] == len(inputs)
    session.execute(inputs, keep=("features",))
    assert gpu.cuda.calls["cudaMallocHost"] == len(inputs)


@pytest.mark.long
def test_the_pool_holds_few_sizes(bundle: Bundle, gpu) -> None:
    session = load(bundle, "sam_decoder")
    session.prepare()
    before = len(gpu.cuda.memory)
    for batch in range(1, 17):
        session.execute(decoder_inputs(bundle, batch), keep=("low_res_logits",))
        gc.collect()
    # Powers of two from one prompt to sixteen.
    assert len(gpu.cuda.memory) - before <= 5 + 1  # and the pinned memory of an output


@pytest.mark.parametrize("engine", ["sam_decoder", "sam_encoder"])
def test_kernels_are_those_of_the_shape_from_the_first_call(
    bundle: Bundle, gpu, engine: str
) -> None:
    """Lazily specialised ones would replace those that a graph was recorded of."""
    session = load(bundle, engine)
    session.capture()
    strategies = tensorrt_rtx.DynamicShapesKernelSpecializationStrategy
    [config] = gpu.configs
    assert config.dynamic_shapes_kernel_specialization_strategy == strategies.EAGER
    real = tensorrt_rtx.IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy
    assert real.fset is not None
