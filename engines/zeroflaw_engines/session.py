"""Sessions: one loaded engine, whatever backend runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.bundle import Bundle
from zeroflaw_engines.contract import EngineContract, EngineName, TensorSpec
from zeroflaw_engines.errors import BackendUnavailableError, EngineContractError

Tensor = NDArray[Any]

BACKENDS = ("onnxruntime",)


class Session(Protocol):
    """One engine on one backend.

    `execute` may be called from several threads at once.
    """

    @property
    def contract(self) -> EngineContract:
        """The tensors that go in and come out."""

    @property
    def backend(self) -> str:
        """Name of the backend, with its version and device."""

    def execute(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Runs the engine once.

        Args:
            inputs: Every input of the contract by name, C-contiguous.

        Returns:
            Every output of the contract by name.

        Raises:
            EngineContractError: An input is missing, unknown, or of another dtype or shape.
            EngineError: The backend failed.
        """

    def close(self) -> None:
        """Releases the engine; `execute` may not be called afterwards."""


def load_session(
    bundle: Bundle, engine: EngineName, *, backend: str = "onnxruntime", threads: int = 0
) -> Session:
    """Loads one engine of a bundle.

    Args:
        bundle: Where the engine is.
        engine: Which one.
        backend: One of `BACKENDS`.
        threads: CPU threads of the engine; 0 takes every core.

    Raises:
        BackendUnavailableError: The backend is unknown or not installed.
        EngineError: The graph cannot be loaded.
        EngineContractError: The graph's tensors are not those of the contract.
    """
    if backend == "onnxruntime":
        from zeroflaw_engines.onnxruntime_session import OnnxRuntimeSession

        return OnnxRuntimeSession(
            bundle.onnx_path(engine), bundle.contract(engine), threads=threads
        )
    raise BackendUnavailableError(
        f"there is no backend {backend!r}", f"choose one of: {', '.join(BACKENDS)}"
    )


def check_inputs(contract: EngineContract, inputs: Mapping[str, Tensor]) -> None:
    """Checks the inputs of one call against the contract.

    Raises:
        EngineContractError: An input is missing, unknown, or of another dtype or shape.
    """
    wanted = {spec.name: spec for spec in contract.inputs}
    if inputs.keys() != wanted.keys():
        raise EngineContractError(
            f"{contract.name} takes the inputs {sorted(wanted)}, not {sorted(inputs)}",
            "give exactly the inputs of the contract",
        )
    for name, spec in wanted.items():
        array = inputs[name]
        if not isinstance(array, np.ndarray):
            raise EngineContractError(
                f"{contract.name} takes {spec}, not a {type(array).__name__}",
                "give a NumPy array",
            )
        dtype = array.dtype.name if array.dtype.isnative else array.dtype.str
        if not spec.accepts(dtype, array.shape):
            raise EngineContractError(
                f"{contract.name} takes {spec}, not {dtype}{list(array.shape)}",
                "give an array of that dtype and shape",
            )
        if not array.flags.c_contiguous:
            raise EngineContractError(
                f"{contract.name} takes {name} C-contiguous", "use numpy.ascontiguousarray"
            )


def check_graph(
    contract: EngineContract, inputs: list[TensorSpec], outputs: list[TensorSpec], where: str
) -> None:
    """Checks that a graph's tensors are those of the contract.

    Raises:
        EngineContractError: They are not; the error names the first that differs.
    """
    for side, want, got in (
        ("input", contract.inputs, inputs),
        ("output", contract.outputs, outputs),
    ):
        found = {spec.name: spec for spec in got}
        if found.keys() != {spec.name for spec in want}:
            raise EngineContractError(
                f"{where} has the {side}s {sorted(found)}, not {sorted(s.name for s in want)}",
                "export the bundle again with this version of zeroflaw",
            )
        for spec in want:
            if not _same(spec, found[spec.name]):
                raise EngineContractError(
                    f"{where} has the {side} {found[spec.name]}, not {spec}",
                    "export the bundle again with this version of zeroflaw",
                )


def _same(want: TensorSpec, got: TensorSpec) -> bool:
    return (
        want.dtype == got.dtype
        and len(want.shape) == len(got.shape)
        and all(
            isinstance(a, str) if isinstance(b, str) else a == b
            for a, b in zip(want.shape, got.shape, strict=True)
        )
    )


def zeros_for(contract: EngineContract) -> dict[str, Tensor]:
    """Zero inputs for a warm-up call, with every dynamic axis 1."""
    return {
        spec.name: np.zeros([1 if isinstance(n, str) else n for n in spec.shape], spec.dtype)
        for spec in contract.inputs
    }
