"""Sessions on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from zeroflaw_engines.contract import EngineContract, TensorSpec
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.session import Tensor, check_graph, check_inputs

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_ERRORS_ONLY: Final = 3
_LARGE_WEIGHTS: Final = 200_000_000


class OnnxRuntimeSession:
    """One graph on ONNX Runtime's CPU provider.

    External weights are mapped, not copied: pre-packing, which would copy every matrix of a
    2.4 GiB encoder, is switched off for graphs with external weights. Large engines give their
    working memory back after each call.

    Args:
        path: The ONNX file.
        contract: What its tensors must be.
        threads: Threads inside one operator; 0 takes every core.

    Raises:
        EngineError: ONNX Runtime cannot load the graph.
        EngineContractError: The graph's tensors are not those of the contract.
    """

    def __init__(self, path: Path, contract: EngineContract, *, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads
        # Encoders run side by side: a pool that spins while it waits would take the other's cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Patterns of an earlier call's memory are kept beside the arena: gigabytes for ViT-H.
        options.enable_mem_pattern = False
        weights = path.with_name(path.name + ".data")
        if weights.exists():
            options.add_session_config_entry("session.disable_prepacking", "1")
        self._run_options = ort.RunOptions()
        if weights.exists() and weights.stat().st_size >= _LARGE_WEIGHTS:
            # Else the arena fragments and grows from call to call (ViT-H: 6.1, then 7.6 GB).
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise EngineError(
                f"ONNX Runtime cannot load {path}: {error}",
                "verify the bundle with `zeroflaw bundle verify` and export it again",
            ) from error
        self._contract = contract
        check_graph(
            contract,
            [_spec(value) for value in self._session.get_inputs()],
            [_spec(value) for value in self._session.get_outputs()],
            str(path),
        )
        self._outputs = [spec.name for spec in contract.outputs]

    @property
    def contract(self) -> EngineContract:
        """The tensors that go in and come out."""
        return self._contract

    @property
    def backend(self) -> str:
        """`onnxruntime <version> CPUExecutionProvider`."""
        return f"onnxruntime {ort.__version__} {self._session.get_providers()[0]}"

    def execute(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Runs the graph once; see `Session.execute`."""
        check_inputs(self._contract, inputs)
        try:
            values = self._session.run(self._outputs, dict(inputs), self._run_options)
        except Exception as error:  # as above
            raise EngineError(
                f"ONNX Runtime failed in {self._contract.name}: {error}",
                "check the memory that is free; `zeroflaw bundle verify` checks the bundle",
            ) from error
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}

    def close(self) -> None:
        """Releases the graph and its mapped weights."""
        del self._session


def _spec(value: ort.NodeArg) -> TensorSpec:
    shape = tuple(n if isinstance(n, int) else str(n) for n in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)
