"""The best rate at which any installed library multiplies matrices on this machine.

    python -m zeroflaw_benchmarks.bench.machine.gemm_rate

It is what an encoder's time is held against: no encoder of a given number of FLOPs can be faster
than all of them at this rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.sessions.openvino_session import load_openvino
from zeroflaw_engines.sessions.quiet_onnxruntime import ort, quiet_settings

# Rows, inner size, columns: the layers of ViT-H on its 4096 tokens, and a large square.
SHAPES: Final = (
    (4096, 1280, 3840),
    (4096, 1280, 5120),
    (4096, 5120, 1280),
    (4096, 4096, 4096),
)
_OPSET: Final = 23
_Matrix = NDArray[np.float32]


def gemm_rates(
    shapes: tuple[tuple[int, int, int], ...] = SHAPES, *, repeats: int = 4
) -> dict[str, dict[str, float]]:
    """Measure the best rate of each library in each precision, over shapes and repeats.

    Returns:
        GFLOP/s by precision (`fp32`, `bf16`) and library.
    """
    rng = np.random.default_rng(0)
    best: dict[str, dict[str, float]] = {"fp32": {}, "bf16": {}}
    for rows, inner, columns in shapes:
        left = rng.standard_normal((rows, inner), dtype=np.float32)
        right = rng.standard_normal((inner, columns), dtype=np.float32)
        for precision, library, multiply in _products(left, right):
            seconds = _shortest(multiply, repeats)
            rate = 2 * rows * inner * columns / seconds / 1e9
            best[precision][library] = max(rate, best[precision].get(library, 0.0))
    return best


def _shortest(multiply: Callable[[], object], repeats: int) -> float:
    multiply()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - start)
    return min(times)


def _products(left: _Matrix, right: _Matrix) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Precision, library and the product, with every buffer made beforehand."""
    out = np.empty((len(left), right.shape[1]), np.float32)
    yield "fp32", "numpy", lambda: np.matmul(left, right, out=out)

    yield from _torch_products(left, right, out)
    model = _one_product(left, right)
    options = quiet_settings()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("left", left)
    binding.bind_ortvalue_output("product", ort.OrtValue.ortvalue_from_numpy(out))
    yield "fp32", "onnxruntime", lambda: session.run_with_iobinding(binding)

    try:
        openvino = load_openvino()
    except BackendUnavailableError:  # an optional backend
        return
    core = openvino.Core()
    for precision, hint in (("fp32", "f32"), ("bf16", "bf16")):
        compiled = core.compile_model(
            core.read_model(model),
            "CPU",
            {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"},
        )
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(left, shared_memory=True))
        yield precision, "openvino", request.infer


def _torch_products(
    left: _Matrix, right: _Matrix, out: _Matrix
) -> Iterator[tuple[str, str, Callable[[], object]]]:
    try:
        import torch
    except ImportError:  # stations have none
        return
    a, b = torch.from_numpy(left), torch.from_numpy(right)
    result = torch.from_numpy(out)
    yield "fp32", "torch", lambda: torch.mm(a, b, out=result)
    a16, b16, result16 = a.bfloat16(), b.mT.contiguous().bfloat16().mT, result.bfloat16()
    yield "bf16", "torch", lambda: torch.mm(a16, b16, out=result16)


def _one_product(left: _Matrix, right: _Matrix) -> bytes:
    """An ONNX model of `left @ right` in which `right` is a weight."""
    product = [len(left), right.shape[1]]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.FLOAT, left.shape)],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, product)],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


def main() -> None:
    """Print the rates."""
    from rich.console import Console

    console = Console(highlight=False)
    for precision, rates in gemm_rates().items():
        for library, rate in sorted(rates.items(), key=lambda item: -item[1]):
            console.print(f"{precision} {library:12} {rate:6.0f} GFLOP/s")


if __name__ == "__main__":
    main()
