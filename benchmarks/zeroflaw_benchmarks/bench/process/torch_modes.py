"""The ways in which PyTorch runs a network: eager, compiled, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import nn

from zeroflaw_benchmarks.bench.process.run_on import TorchMode
from zeroflaw_benchmarks.bench.process.torch_device import TorchDevice
from zeroflaw_engines.errors import BenchmarkError

_SKIPPED: Final = "cudagraph_skips"

Tensors = tuple[torch.Tensor, ...]


def prepared(
    module: nn.Module, inputs: Sequence[torch.Tensor], mode: TorchMode, device: TorchDevice
) -> Callable[[], Tensors]:
    """Make a network ready to run on inputs that stay where they are.

    - `eager`: as it is written.
    - `compile`: `torch.compile` with its defaults.
    - `reduce-overhead`: `torch.compile` with CUDA graphs where the network allows them.
    - `cuda-graph`: eager, recorded once as a CUDA graph and replayed.

    Args:
        module: On the device.
        inputs: Its arguments, on the device; their values may change between runs.

    Returns:
        Runs it once and gives its outputs, which the next run may overwrite.

    Raises:
        BenchmarkError: The network cannot be captured, or the device has no graphs.
    """
    run: Callable[..., Any] = module
    if mode in {"compile", "reduce-overhead"}:
        run = torch.compile(module, mode="default" if mode == "compile" else mode)

    @torch.inference_mode()
    def work() -> Tensors:
        outputs = run(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    if mode != "cuda-graph":
        return work
    try:
        replay = device.recorded(work)
    except RuntimeError as error:
        raise BenchmarkError(
            f"it cannot be captured as a CUDA graph: {_first_cause(error)}",
            "compare with another way to run it",
        ) from error
    return replay  # type: ignore[return-value] # what it recorded gave tensors


def _first_cause(error: BaseException) -> str:
    """What went wrong first: leaving a failed capture raises again, and less clearly."""
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def mode_note(mode: TorchMode) -> str:
    """Say what a compiled network did other than it was asked to, in this process so far."""
    if mode != "reduce-overhead":
        return ""
    from torch._dynamo.utils import counters

    skipped = counters["inductor"][_SKIPPED]
    return f"torch.compile ran {skipped} of its graphs without CUDA graphs" if skipped else ""
