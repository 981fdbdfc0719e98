"""Ask TensorRT-RTX itself whether it serves this GPU: build, load and run one small network.

    python -m zeroflaw_benchmarks.verify.gpu_kit.rtx_probe

Exit code 0: an engine ran and its values are right; 3: it does not serve this GPU. Whether
zeroflaw then builds engines for the GPU says `served`.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from zeroflaw_benchmarks.verify.gpu_kit.steps import EXIT_REFUSED
from zeroflaw_engines.tensorrt_bindings import load_bindings

# An engine for no named architecture, for that of the GPU at hand, and for the oldest one.
TARGETS: Final = ("unset", "CURRENT", "SM80")
_SHAPE: Final = (1, 128, 64)
# Of a softmax in FP16 against FP32.
_MAX_ERROR: Final = 1e-3


def model(weights: npt.NDArray[np.float16]) -> bytes:
    """Write a network as ONNX: the softmax of a product.

    Args:
        weights: [64, 64].
    """
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Softmax", ["product"], ["y"]),
    ]
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, _SHAPE) for n in "xy"]
    graph = helper.make_graph(
        nodes, "probe", tensors[:1], tensors[1:], [numpy_helper.from_array(weights, "w")]
    )
    opset = [helper.make_opsetid("", 20)]
    written: bytes = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    return written


def build(bindings: Any, log: Any, target: str, network: bytes) -> bytes | None:  # noqa: ANN401
    """Build an engine of a network.

    Args:
        bindings: The module `tensorrt_rtx`, and a logger of it.
        target: One of `TARGETS`.

    Returns:
        The plan; None if the compiler refuses the target.
    """
    builder = bindings.Builder(log)
    typed = 1 << int(bindings.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    definition = builder.create_network(typed)
    if not bindings.OnnxParser(definition, log).parse(network):
        return None
    config = builder.create_builder_config()
    if target != "unset":
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(getattr(bindings.ComputeCapability, target), 0):
            return None
    plan = builder.build_serialized_network(definition, config)
    return None if plan is None else bytes(plan)


def largest_error(
    bindings: Any,  # noqa: ANN401 - loaded lazily
    log: Any,  # noqa: ANN401
    plan: bytes,
    weights: npt.NDArray[np.float16],
) -> float | None:
    """Run a plan on the GPU; return the largest error of a probability.

    Returns:
        None if the plan cannot be loaded or run there.
    """
    import torch

    engine = bindings.Runtime(log).deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        return None
    x = torch.rand(*_SHAPE, device="cuda", dtype=torch.float16)
    y = torch.empty_like(x)
    context.set_tensor_address("x", x.data_ptr())
    context.set_tensor_address("y", y.data_ptr())
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    if not context.execute_async_v3(stream.cuda_stream):
        return None
    stream.synchronize()
    product = x.float() @ torch.from_numpy(weights).cuda().float()
    return float((y.float() - torch.softmax(product, -1)).abs().max())


def main() -> int:
    """Try every target and say what came of it."""
    bindings = load_bindings("tensorrt-rtx")
    log = bindings.Logger(bindings.Logger.WARNING)
    weights = np.random.default_rng(0).random((64, 64)).astype(np.float16)
    served = False
    for target in TARGETS:
        plan = build(bindings, log, target, model(weights))
        error = None if plan is None else largest_error(bindings, log, plan, weights)
        said = "not built" if plan is None else "not run" if error is None else f"error {error:.2g}"
        sys.stdout.write(f"TensorRT-RTX {bindings.__version__}, target {target}: {said}\n")
        served = served or (error is not None and error <= _MAX_ERROR)
    return 0 if served else EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
