"""Sessions: one loaded engine, whatever backend runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, NoReturn, Protocol, Self

import numpy as np

from zeroflaw_engines.contract import EngineContract, TensorSpec
from zeroflaw_engines.errors import EngineContractError, EngineError
from zeroflaw_engines.process.lifetime import Lifetime, refuse_copy
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor

# Arrays by name; those that were to be kept are `DeviceTensor`s.
Outputs = dict[str, Any]


class Session(Protocol):
    """One engine on one backend.

    `execute` may be called from several threads at once; `prepare` and `capture` before it, by
    one thread. A fork of the process that loaded it cannot use it: every call there raises a
    `ProcessError`, and `close` does nothing.
    """

    @property
    def contract(self) -> EngineContract:
        """The tensors that go in and come out."""

    @property
    def backend(self) -> str:
        """Name of the backend, with its version, device and precision."""

    def prepare(self) -> None:
        """Allocate what calls need and run the engine once on zeros, lest the first one wait.

        Raises:
            EngineError: The backend failed.
        """

    def capture(self) -> None:
        """Record the call as a CUDA graph, where the backend has such; else do nothing.

        Raises:
            EngineError: The backend failed.
        """

    def execute(
        self, inputs: Mapping[str, Tensor | DeviceTensor], *, keep: Collection[str] = ()
    ) -> Outputs:
        """Run the engine once.

        Args:
            inputs: Every input of the contract by name: C-contiguous arrays, or tensors that a
                session of the same backend kept.
            keep: Outputs that are not to be copied to the host.

        Returns:
            Every output of the contract by name; those of `keep` as `DeviceTensor`.

        Raises:
            EngineContractError: An input is missing, unknown, of another dtype or shape, or of
                another backend; or there is no such output to keep.
            EngineError: The backend failed, or the session is closed.
        """

    def upload(self, name: str, array: Tensor) -> Tensor | DeviceTensor:
        """Put an input where the engine reads it, for any number of calls.

        Args:
            name: Of the input.
            array: C-contiguous, as the contract says; not written to afterwards.

        Returns:
            What to give to `execute`: a tensor on the device, or the array where that is the host.

        Raises:
            EngineContractError: There is no such input, or it is of another dtype or shape.
            EngineError: There is not enough memory.
        """

    def clone(self) -> Session:
        """Make another session on the same loaded weights, so that calls of both run at once.

        It has an execution context, a stream and working memory of its own where the backend has
        such, and is to be prepared, captured and closed by itself. The weights are released when
        the last session on them is closed. Tensors that one keeps may be given to the other.

        Raises:
            EngineError: There is not enough memory, or the session is closed.
        """

    def close(self) -> None:
        """Release the engine once the calls under way have ended; no more may follow.

        It raises nothing: what cannot be released after an error of the device is logged.
        """


class CheckedSession(ABC):
    """What the sessions of all backends share: the checks of a call, and the end of them all.

    A subclass runs the engine in `_run`, and gives back what it is made of in `_release`.

    Args:
        contract: What the engine's tensors must be.
        kept: The backend's own `DeviceTensor`, which calls take as an input.
    """

    def __init__(self, contract: EngineContract, kept: type[DeviceTensor]) -> None:
        self._contract = contract
        self._kept = kept
        self._lifetime = _lifetime_of(self, contract)

    @property
    def contract(self) -> EngineContract:
        """The tensors that go in and come out."""
        return self._contract

    def prepare(self) -> None:
        """Run the engine once on zeros; see `Session.prepare`."""
        self.execute(zeros_for(self._contract))

    def execute(
        self, inputs: Mapping[str, Tensor | DeviceTensor], *, keep: Collection[str] = ()
    ) -> Outputs:
        """Run the engine once; see `Session.execute`."""
        check_inputs(self._contract, inputs, kept=self._kept)
        check_keep(self._contract, keep)
        shapes = output_shapes(self._contract, inputs)
        with self._lifetime.call():
            return self._run(inputs, keep, shapes)

    def upload(self, name: str, array: Tensor) -> Tensor | DeviceTensor:
        """Put an input where the engine reads it; see `Session.upload`."""
        check_input(self._contract, name, array)
        with self._lifetime.call():
            return self._put(name, array)

    def clone(self) -> Self:
        """Make another session on the same loaded weights; see `Session.clone`."""
        with self._lifetime.call():
            # Both refer to what is loaded; closing drops a reference, and the last one frees it.
            clone = object.__new__(type(self))
            clone.__dict__.update(self.__dict__)
            clone._lifetime = _lifetime_of(clone, self._contract)
            clone._separate()
        return clone

    def close(self) -> None:
        """Release the engine once the calls under way have ended; see `Session.close`."""
        self._lifetime.close(self._release)

    def __reduce__(self) -> NoReturn:
        refuse_copy(
            f"a session of {self._contract.name}", "load it from its bundle where it is needed"
        )

    @abstractmethod
    def _run(
        self,
        inputs: Mapping[str, Tensor | DeviceTensor],
        keep: Collection[str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> Outputs:
        """Run the engine on inputs that were checked; `shapes` are those of the outputs."""

    def _put(self, name: str, array: Tensor) -> Tensor | DeviceTensor:  # noqa: ARG002
        """Put an input that was checked where the engine reads it: here, where it is."""
        return array

    def _separate(self) -> None:  # noqa: B027 - most backends share all that they have
        """Make what a clone may not share with the session that it was made of: here, nothing."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of what the session is made of, and leave what clones share; called once."""


def _lifetime_of(session: CheckedSession, contract: EngineContract) -> Lifetime:
    return Lifetime(
        session,
        f"the session of {contract.name}",
        lambda: EngineError(f"the session of {contract.name} is closed", "load another one"),
    )


def check_inputs(
    contract: EngineContract,
    inputs: Mapping[str, Tensor | DeviceTensor],
    *,
    kept: type[DeviceTensor] | None = None,
) -> None:
    """Check the inputs of one call against the contract.

    Args:
        kept: The backend's own `DeviceTensor`; None accepts arrays alone.

    Raises:
        EngineContractError: An input is missing, unknown, of another dtype, shape or backend.
    """
    names = {spec.name for spec in contract.inputs}
    if inputs.keys() != names:
        raise EngineContractError(
            f"{contract.name} takes the inputs {sorted(names)}, not {sorted(inputs)}",
            "give exactly the inputs of the contract",
        )
    for name, tensor in inputs.items():
        check_input(contract, name, tensor, kept=kept)


def check_input(
    contract: EngineContract,
    name: str,
    tensor: Tensor | DeviceTensor,
    *,
    kept: type[DeviceTensor] | None = None,
) -> None:
    """Check one input against the contract.

    Args:
        kept: The backend's own `DeviceTensor`; None accepts arrays alone.

    Raises:
        EngineContractError: It is unknown, or of another dtype, shape or backend.
    """
    spec = next((spec for spec in contract.inputs if spec.name == name), None)
    if spec is None:
        raise EngineContractError(
            f"{contract.name} takes no input {name}", "give an input of the contract"
        )
    if isinstance(tensor, np.ndarray):
        dtype = tensor.dtype.name if tensor.dtype.isnative else tensor.dtype.str
    elif kept is not None and isinstance(tensor, kept):
        dtype = tensor.dtype
    else:
        raise EngineContractError(
            f"{contract.name} takes {spec}, not a {type(tensor).__name__}",
            "give a NumPy array, or a tensor that a session of this backend kept",
        )
    if not spec.accepts(dtype, tensor.shape):
        raise EngineContractError(
            f"{contract.name} takes {spec}, not {dtype}{list(tensor.shape)}",
            "give an array of that dtype and shape",
        )
    if isinstance(tensor, np.ndarray) and not tensor.flags.c_contiguous:
        raise EngineContractError(
            f"{contract.name} takes {name} C-contiguous", "use numpy.ascontiguousarray"
        )


def check_keep(contract: EngineContract, keep: Collection[str]) -> None:
    """Check that what is to be kept are outputs of the engine.

    Raises:
        EngineContractError: One is not.
    """
    known = {spec.name for spec in contract.outputs}
    if not known.issuperset(keep):
        raise EngineContractError(
            f"{contract.name} gives the outputs {sorted(known)}, and cannot keep {sorted(keep)}",
            "keep outputs of the contract",
        )


def output_shapes(
    contract: EngineContract, inputs: Mapping[str, Tensor | DeviceTensor]
) -> dict[str, tuple[int, ...]]:
    """Compute the shapes of the outputs for inputs that fulfil the contract.

    Raises:
        EngineContractError: Inputs differ in a dynamic axis of the same name, or it is longer than
            the contract's limit.
    """
    sizes: dict[str, int] = {}
    for spec in contract.inputs:
        for axis, size in zip(spec.shape, inputs[spec.name].shape, strict=True):
            if isinstance(axis, str) and sizes.setdefault(axis, size) != size:
                raise EngineContractError(
                    f"{contract.name} takes one size of the axis {axis!r}, not {sizes[axis]} and"
                    f" {size} (in {spec})",
                    "give all inputs for the same number",
                )
    for axis, most in contract.limits.items():
        if not 1 <= sizes.get(axis, 1) <= most:
            raise EngineContractError(
                f"{contract.name} takes 1 to {most} {axis} in one call, not {sizes[axis]}",
                "give fewer at once; `--max-batch` of `zeroflaw export` and `zeroflaw build` sets"
                " the limit"
                if sizes[axis]
                else "give at least one",
            )
    return {
        spec.name: tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
        for spec in contract.outputs
    }


def check_graph(
    contract: EngineContract, inputs: list[TensorSpec], outputs: list[TensorSpec], where: str
) -> None:
    """Check that a graph's tensors are those of the contract.

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
    """Make zero inputs for a warm-up call, with every dynamic axis 1."""
    return {
        spec.name: np.zeros([1 if isinstance(n, str) else n for n in spec.shape], spec.dtype)
        for spec in contract.inputs
    }
