"""Where PyTorch runs a network, and what only a GPU has: pinned memory, events, CUDA graphs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

import torch

from zeroflaw_engines.errors import BenchmarkError

CPU: Final = "cpu"
# Runs before a capture, on the stream of the capture: PyTorch's own manual asks for three, lest
# libraries set themselves up within it.
_BEFORE_CAPTURE: Final = 3


class TorchDevice(Protocol):
    """One device of PyTorch."""

    @property
    def torch_device(self) -> torch.device:
        """As PyTorch names it."""

    @property
    def name(self) -> str:
        """As a report names it: `cpu`, or the name of the GPU."""

    def on_host(self, like: torch.Tensor) -> torch.Tensor:
        """Allocate host memory of the same shape and dtype that this device copies fastest."""

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""

    def event_ms(self, work: Callable[[], object]) -> float | None:
        """Do some work and measure it by the device's own events.

        Returns:
            Milliseconds from where the device begins with it to where it ends, gaps in which it
            waits for the host included. None where there are no events.
        """

    def recorded(self, work: Callable[[], object]) -> Callable[[], object]:
        """Record some work as a CUDA graph.

        Returns:
            Replays it: on the same memory, giving the same tensors.

        Raises:
            BenchmarkError: The device has no graphs.
            RuntimeError: The work cannot be captured.
        """


class CpuDevice:
    """The processor: memory is the host's own, and all work is done when a call returns."""

    torch_device = torch.device(CPU)
    name = CPU

    def on_host(self, like: torch.Tensor) -> torch.Tensor:
        """Allocate host memory of the same shape and dtype."""
        return torch.empty_like(like)

    def wait(self) -> None:
        """Do nothing: nothing is under way."""

    def event_ms(self, work: Callable[[], object]) -> float | None:
        """Do the work; there are no events."""
        work()
        return None

    def recorded(self, work: Callable[[], object]) -> Callable[[], object]:
        """Raise: there are no graphs. See `TorchDevice.recorded`."""
        del work
        raise BenchmarkError("a CPU has no CUDA graphs", "choose a GPU, or another peer")


class CudaDevice:
    """One NVIDIA GPU.

    Args:
        number: As CUDA counts.

    Raises:
        BenchmarkError: PyTorch is built without CUDA, or sees no such GPU.
    """

    def __init__(self, number: int) -> None:
        if not torch.cuda.is_available():
            built = torch.version.cuda
            raise BenchmarkError(
                f"PyTorch {torch.__version__} sees no GPU"
                + (f", though it is built for CUDA {built}" if built else ": it has no CUDA"),
                "install NVIDIA's driver and a PyTorch that is built for CUDA",
            )
        if number >= torch.cuda.device_count():
            raise BenchmarkError(
                f"there is no GPU {number}: PyTorch sees {torch.cuda.device_count()}",
                "give a number below that",
            )
        torch.cuda.set_device(number)
        self.torch_device = torch.device("cuda", number)
        self.name = torch.cuda.get_device_name(number)

    def on_host(self, like: torch.Tensor) -> torch.Tensor:
        """Allocate pinned host memory of the same shape and dtype."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def wait(self) -> None:
        """Wait for every stream of the GPU."""
        torch.cuda.synchronize()

    def event_ms(self, work: Callable[[], object]) -> float | None:
        """Measure by two events on the current stream; see `TorchDevice.event_ms`."""
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def recorded(self, work: Callable[[], object]) -> Callable[[], object]:
        """Record a CUDA graph; see `TorchDevice.recorded`."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_BEFORE_CAPTURE):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = work()

        def replay() -> object:
            graph.replay()
            return outputs

        return replay


def torch_device(name: str) -> TorchDevice:
    """Open a device by its name: `cpu`, `cuda`, or `cuda:1` for the second GPU.

    Raises:
        BenchmarkError: There is no such device.
    """
    kind, _, number = name.partition(":")
    if kind == CPU:
        return CpuDevice()
    if kind != "cuda" or not (number or "0").isdigit():
        raise BenchmarkError(f"there is no device {name!r}", "choose cpu, cuda or cuda:NUMBER")
    return CudaDevice(int(number or "0"))


def best_ms(device: TorchDevice, work: Callable[[], object], repeats: int) -> float:
    """Return the shortest time of some work after one untimed run.

    By the device's events, or by the host's clock where there are none.
    """
    work()
    device.wait()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        by_events = device.event_ms(work)
        times.append(1e3 * (time.perf_counter() - start) if by_events is None else by_events)
    return min(times)
