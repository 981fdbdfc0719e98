"""One network in PyTorch on one device, in a process of its own: seconds of each run.

python -m zeroflaw_benchmarks.bench.process.torch_run '{"bundle": "mini", ...}'
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from zeroflaw.pictures.images import read_image
from zeroflaw_benchmarks.bench.process.child_process import RunTimes, answer
from zeroflaw_benchmarks.bench.process.device_run import (
    COMPARED,
    Arrays,
    Calls,
    engine_inputs,
    time_calls,
)
from zeroflaw_benchmarks.bench.process.run_on import TorchMode
from zeroflaw_benchmarks.bench.process.torch_device import TorchDevice, torch_device
from zeroflaw_benchmarks.bench.process.torch_modes import mode_note, prepared
from zeroflaw_benchmarks.bench.process.torch_networks import (
    network,
    network_inputs,
    output_names,
)
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import EngineName


@dataclass(frozen=True)
class TorchTask:
    """What is to be run.

    Attributes:
        bundle: As `open_bundle` takes it.
        engine: Whose work the network does.
        product: That the frame shows.
        frame: Path of the image file.
        device: As `torch_device` takes it.
        mode: How PyTorch runs it.
        precision: `fp32`, `fp16` or `bf16`.
        runs: That are timed of each way to call it.
        warm_ups: That are not, before them.
        output: Where the output of `COMPARED` is written, `.npy`; empty: nowhere.
        threads: Of the CPU; 0 takes every core.
    """

    bundle: str
    engine: EngineName
    product: str
    frame: str
    device: str
    mode: TorchMode
    precision: str
    runs: int
    warm_ups: int
    output: str = ""
    threads: int = 0


def run_torch(task: TorchTask) -> RunTimes:
    """Load the network and time it.

    Raises:
        BenchmarkError: There is no such device, or the network cannot run in that mode.
    """
    if task.threads:
        torch.set_num_threads(task.threads)
    device = torch_device(task.device)
    times, outputs = time_calls(lambda: torch_calls(task, device), task.runs, task.warm_ups)
    if task.output:
        np.save(task.output, outputs[COMPARED[task.engine]])
    return replace(times, device=device.name)


def torch_calls(task: TorchTask, device: TorchDevice) -> Calls:
    """Load the network of a task on a device."""
    bundle = open_bundle(task.bundle, verify_digests=False)
    frame = np.ascontiguousarray(read_image(Path(task.frame)))
    inputs = engine_inputs(bundle, task.engine, frame, task.product)
    # Copies: a bundle's embeddings are read-only, which PyTorch's tensors cannot be.
    arrays = [torch.tensor(array) for array in network_inputs(task.engine, inputs)]
    module = network(bundle, task.engine, task.precision).to(device.torch_device)
    resident = [array.to(device.torch_device) for array in arrays]
    run = prepared(module, resident, task.mode, device)
    # Every call goes through the same memory of the host, as our sessions' do.
    going_up = [device.on_host(array) for array in arrays]
    coming_down = [device.on_host(output) for output in run()]
    names = output_names(task.engine)

    @torch.inference_mode()
    def whole() -> Arrays:
        for array, staged, there in zip(arrays, going_up, resident, strict=True):
            there.copy_(staged.copy_(array), non_blocking=True)
        for output, staged in zip(run(), coming_down, strict=True):
            staged.copy_(output, non_blocking=True)
        device.wait()
        return dict(zip(names, (staged.numpy().copy() for staged in coming_down), strict=True))

    def alone() -> None:
        run()
        device.wait()

    return Calls(
        whole=whole,
        resident=alone,
        event_ms=lambda: device.event_ms(run),
        note=lambda: mode_note(task.mode),
    )


if __name__ == "__main__":
    answer(TorchTask, run_torch)
