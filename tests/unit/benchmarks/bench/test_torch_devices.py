"""PyTorch on devices: what needs a GPU is held against PyTorch's own names and a device of ours."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from zeroflaw_benchmarks.bench.machine.device_ceilings import CeilingsTask
from zeroflaw_benchmarks.bench.measure.roofline import measure_gpu_ceilings
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.process.torch_ceilings import measure
from zeroflaw_benchmarks.bench.process.torch_device import CpuDevice, best_ms, torch_device
from zeroflaw_benchmarks.bench.process.torch_modes import mode_note, prepared
from zeroflaw_engines.errors import BenchmarkError

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="it is of machines without GPU")


class GraphDevice(CpuDevice):
    """A device whose graphs are calls that are kept."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.replays = 0

    def recorded(self, work: Callable[[], object]) -> Callable[[], object]:
        if self.refuses:
            # As `torch.cuda.graph` does: leaving it fails, too, and says less.
            first = RuntimeError("operation not permitted when stream is capturing\nmore of it")
            later = RuntimeError("operation failed due to a previous error")
            later.__context__ = first
            raise later
        work()

        def replay() -> object:
            self.replays += 1
            return work()

        return replay


@needs_no_gpu
def test_without_a_gpu_the_error_says_so_and_what_helps() -> None:
    with pytest.raises(BenchmarkError, match=r"PyTorch \S+ sees no GPU") as caught:
        torch_device("cuda:0")
    assert "driver" in caught.value.remedy


@pytest.mark.parametrize("name", ["tpu", "cuda:x", ""])
def test_there_is_no_such_device(name: str) -> None:
    with pytest.raises(BenchmarkError, match="no device"):
        torch_device(name)


def test_what_is_called_of_cuda_exists() -> None:
    """The names and parameters of `CudaDevice`, in the PyTorch that is installed."""
    for name in ("is_available", "device_count", "set_device", "get_device_name", "synchronize",
                 "current_stream", "stream", "Stream", "CUDAGraph"):  # fmt: skip
        assert callable(getattr(torch.cuda, name)), name
    assert "enable_timing" in inspect.signature(torch.cuda.Event.__new__).parameters
    for name in ("record", "synchronize", "elapsed_time"):
        assert callable(getattr(torch.cuda.Event, name)), name
    assert callable(torch.cuda.Stream.wait_stream)
    assert callable(torch.cuda.CUDAGraph.replay)
    assert next(iter(inspect.signature(torch.cuda.graph).parameters)) == "cuda_graph"


def test_eager_and_replayed_graphs_see_new_inputs() -> None:
    module, inputs = nn.Linear(3, 2), [torch.ones(1, 3)]
    device = GraphDevice()
    runs = [prepared(module, inputs, mode, device) for mode in ("eager", "cuda-graph")]
    inputs[0].copy_(torch.arange(3.0)[None])
    with torch.inference_mode():
        want = module(torch.arange(3.0)[None])
    for run in runs:
        (got,) = run()
        torch.testing.assert_close(got, want)
    assert device.replays == 1


def test_a_network_that_cannot_be_captured_says_what_went_wrong_first() -> None:
    with pytest.raises(BenchmarkError) as caught:
        prepared(nn.Linear(3, 2), [torch.ones(1, 3)], "cuda-graph", GraphDevice(refuses=True))
    assert caught.value.cause == (
        "it cannot be captured as a CUDA graph: operation not permitted when stream is capturing"
    )
    with pytest.raises(BenchmarkError, match="no CUDA graphs"):
        prepared(nn.Linear(3, 2), [torch.ones(1, 3)], "cuda-graph", CpuDevice())


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler on a CPU")
def test_a_compiled_network_computes_the_same() -> None:
    module, inputs = nn.Linear(3, 2), [torch.arange(3.0)[None]]
    with torch.inference_mode():
        want = module(*inputs)
    (got,) = prepared(module, inputs, "compile", CpuDevice())()
    torch.testing.assert_close(got, want)


def test_graphs_that_torch_compile_left_out_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setitem(counters["inductor"], "cudagraph_skips", 2)
    assert "2 of its graphs without CUDA graphs" in mode_note("reduce-overhead")
    assert mode_note("compile") == mode_note("eager") == "", "they were not asked for any"


def test_the_best_of_some_runs_is_by_events_where_there_are_any() -> None:
    times = iter([9.0, 3.0, 5.0])

    class Timed(CpuDevice):
        def event_ms(self, work: Callable[[], object]) -> float | None:
            work()
            return next(times)

    calls: list[int] = []
    assert best_ms(Timed(), lambda: calls.append(1), 3) == 3.0
    assert len(calls) == 4, "one before them"
    assert best_ms(CpuDevice(), lambda: calls.append(1), 2) > 0, "by the host's clock"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two that the system puts on one core wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_ceilings_are_the_best_of_several_sizes() -> None:
    task = CeilingsTask(
        "cpu", ("fp32", "bf16"), ((8, 8, 8), (128, 128, 128)), copied=2**20, repeats=3
    )
    found = measure(task)
    assert [one.precision for one in found.ceilings] == ["fp32", "bf16"]
    for one in found.ceilings:
        assert one.size == (128, 128, 128), "a small product is no ceiling"
        assert one.gflops > 0
        assert one.gigabytes_per_second > 0
        assert one.threads is None
    assert found.pinned == (), "a host copies nothing to itself"


@pytest.mark.long
@needs_no_gpu
def test_ceilings_that_cannot_be_measured_are_absent_with_the_reason() -> None:
    found = measure_gpu_ceilings(RunOn("onnxruntime-cuda"))
    assert found.ceilings == found.pinned == ()
    assert "sees no GPU" in found.why_not
