"""How each backend's sessions are set up: every switch that speed and memory depend on, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeOptions:
    """Options of sessions on ONNX Runtime.

    Attributes:
        threads: Threads inside one operator; 0 takes every core that the process may use.
        spin: Whether idle threads spin. Encoders run side by side: a pool that spins while it
            waits would take the other's cores.
        memory_patterns: Whether allocation patterns of earlier calls are kept beside the arena:
            gigabytes for ViT-H.
        prepack_external_weights: Whether matrices of external weights are copied into the layout
            that kernels like best. Without it they stay mapped: for ViT-H 2.4 GiB less.
        shrink_arena_from: Size of the external weights, bytes, from which the arena is given back
            after each call; else it fragments and grows from call to call (ViT-H: 6.1, then
            7.6 GB).
        tf32: Whether CUDA may round FP32 products to TF32.
        fused_attention: Whether CUDA may take fused kernels of attention. Those of ONNX Runtime
            1.31 give wrong values and no error for some of SAM's global blocks: the kernel is
            chosen by the size of the values, and those of the queries exceed what it is made for.
        engine_cache: Where the TensorRT providers keep what they compile; None keeps nothing.
        provider_library: Library of a plugin provider that the installed ONNX Runtime lacks.
        device: Number of the GPU, as CUDA counts.
    """

    threads: int = 0
    spin: bool = False
    memory_patterns: bool = False
    prepack_external_weights: bool = False
    shrink_arena_from: int = 200_000_000
    tf32: bool = False
    fused_attention: bool = False
    engine_cache: Path | None = None
    provider_library: Path | None = None
    device: int = 0


@dataclass(frozen=True, kw_only=True)
class OpenVinoOptions:
    """Options of sessions on OpenVINO.

    Attributes:
        threads: Threads of one inference; 0 takes every core that the process may use.
        performance_hint: `LATENCY` gives one call all threads, `THROUGHPUT` shares them among
            calls.
        map_weights: Whether weights are mapped from their file where the plugin can.
        model_cache: Where compiled models are kept, so that the next load is faster; None keeps
            none.
    """

    threads: int = 0
    performance_hint: str = "LATENCY"
    map_weights: bool = True
    model_cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TensorRtOptions:
    """Options of sessions on TensorRT and TensorRT-RTX.

    Attributes:
        device: Number of the GPU, as CUDA counts.
        save_runtime_cache: Whether kernels that TensorRT-RTX compiled are saved for the next
            start, where the bundle can be written.
    """

    device: int = 0
    save_runtime_cache: bool = True
