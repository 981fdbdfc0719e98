"""What a GPU does at best, by PyTorch, in a process of its own: products, copies, pinned copies.

python -m zeroflaw_benchmarks.bench.process.torch_ceilings '{"device": "cuda:0"}'
"""

from __future__ import annotations

from functools import partial

import torch

from zeroflaw_benchmarks.bench.machine.device_ceilings import CeilingsTask, DeviceCeilings
from zeroflaw_benchmarks.bench.process.child_process import answer
from zeroflaw_benchmarks.bench.process.torch_device import TorchDevice, best_ms, torch_device
from zeroflaw_benchmarks.bench.process.torch_networks import DTYPES
from zeroflaw_benchmarks.bench.report.gpu import PinnedCopy
from zeroflaw_benchmarks.bench.report.rooflines import Ceiling


def measure(task: CeilingsTask) -> DeviceCeilings:
    """Measure products of matrices, copies within the device, and those to and from the host.

    Raises:
        BenchmarkError: There is no such device.
    """
    device = torch_device(task.device)
    with torch.inference_mode():
        copied = _copy_rate(device, task)
        ceilings = tuple(
            _product_rate(device, task, precision, copied) for precision in task.precisions
        )
        pinned = _pinned_rates(device, task) if device.torch_device.type == "cuda" else ()
    return DeviceCeilings(ceilings, pinned)


def _product_rate(
    device: TorchDevice, task: CeilingsTask, precision: str, copied: float
) -> Ceiling:
    torch.backends.cuda.matmul.allow_tf32 = False
    best, best_size = 0.0, task.sizes[0]
    for rows, inner, columns in task.sizes:
        dtype, where = DTYPES[precision], device.torch_device
        left = torch.randn(rows, inner, dtype=dtype, device=where)
        right = torch.randn(inner, columns, dtype=dtype, device=where)
        product = torch.empty(rows, columns, dtype=dtype, device=where)

        multiply = partial(torch.mm, left, right, out=product)
        spent = best_ms(device, multiply, task.repeats)
        rate = 2 * rows * inner * columns / spent / 1e6
        if rate > best:
            best, best_size = rate, (rows, inner, columns)
    return Ceiling(
        precision=precision,
        gflops=best,
        library=f"torch {torch.__version__}",
        gigabytes_per_second=copied,
        threads=None,
        device=device.name,
        size=best_size,
    )


def _copy_rate(device: TorchDevice, task: CeilingsTask) -> float:
    """GB/s that a copy reads and writes together."""
    source = torch.zeros(task.copied, dtype=torch.uint8, device=device.torch_device)
    target = torch.empty_like(source)
    return 2 * task.copied / best_ms(device, lambda: target.copy_(source), task.repeats) / 1e6


def _pinned_rates(device: TorchDevice, task: CeilingsTask) -> tuple[PinnedCopy, ...]:
    there = torch.zeros(task.pinned, dtype=torch.uint8, device=device.torch_device)
    here = device.on_host(there)
    up = best_ms(device, lambda: there.copy_(here, non_blocking=True), task.repeats)
    down = best_ms(device, lambda: here.copy_(there, non_blocking=True), task.repeats)
    return (
        PinnedCopy(direction="in", gigabytes_per_second=task.pinned / up / 1e6),
        PinnedCopy(direction="out", gigabytes_per_second=task.pinned / down / 1e6),
    )


if __name__ == "__main__":
    answer(CeilingsTask, measure)
