"""Outputs that ONNX Runtime left on the device of its provider, as `OrtValue`s."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.device_tensor import Tensor, offset_of
from zeroflaw_engines.sessions.quiet_onnxruntime import ort

_REMEDY: Final = (
    "look with nvidia-smi whether the GPU works and has memory, and restart this process: after"
    " most CUDA errors it can use the GPU no more"
)


@dataclass(frozen=True, eq=False)
class OrtMemory:
    """Memory of one device, as ONNX Runtime reaches it.

    Attributes:
        device: ONNX Runtime's name of the device: `cpu` or `cuda`.
        number: Of the device.
        plugin: The `OrtMemoryInfo` of a plugin provider's device: its allocator is the plugin's
            own. None where the wheel itself brings the provider.
        session: ONNX Runtime's, which copies parts of its tensors to the host; None before it
            is loaded. It is not kept alive: tensors may outlive their session.
    """

    device: str = "cpu"
    number: int = 0
    plugin: Any = None
    session: weakref.ReferenceType[ort.InferenceSession] | None = None

    def __str__(self) -> str:
        return self.device if self.device == "cpu" else f"{self.device}:{self.number}"

    def is_that_of(self, other: OrtMemory) -> bool:
        """Whether both are one device's."""
        return (self.device, self.number) == (other.device, other.number)

    def of(self, session: ort.InferenceSession) -> OrtMemory:
        """Return the same memory as that of a session which is now loaded."""
        return replace(self, session=weakref.ref(session))

    def allocate(self, shape: tuple[int, ...], dtype: str) -> ort.OrtValue:
        """Make a value on a device other than the CPU; what it holds is not set."""
        make, kind = ort.OrtValue.ortvalue_from_shape_and_type, np.dtype(dtype)
        if self.plugin is None:
            return make(list(shape), kind, self.device, self.number)
        return make(list(shape), kind, memory_info=self.plugin)

    def upload(self, array: Tensor) -> ort.OrtValue:
        """Copy an array to a device other than the CPU."""
        if self.plugin is None:
            return ort.OrtValue.ortvalue_from_numpy(array, self.device, self.number)
        value = self.allocate(array.shape, array.dtype.name)
        ort.copy_tensors([ort.OrtValue.ortvalue_from_numpy(array)], [value])
        return value

    def download(self, value: ort.OrtValue, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Copy a value of this memory to the host."""
        if self.plugin is None:
            array: Tensor = value.numpy()
            return array
        host = np.empty(shape, dtype)
        ort.copy_tensors([value], [ort.OrtValue.ortvalue_from_numpy(host)])
        return host

    def download_part(self, shape: tuple[int, ...], dtype: str, address: int) -> Tensor | None:
        """Copy values at an address of this memory to the host, and nothing beside them.

        Returns:
            None if the session is no longer loaded.
        """
        session = None if self.session is None else self.session()
        if session is None:
            return None
        # ONNX Runtime makes no OrtValue over a part of another one, but of what is bound as an
        # output; the session copies that without a run, whatever the output's own shape and dtype.
        binding = session.io_binding()
        name = session.get_outputs()[0].name
        binding.bind_output(name, self.device, self.number, np.dtype(dtype), list(shape), address)
        part: Tensor = binding.copy_outputs_to_cpu()[0]
        return part


@dataclass(frozen=True, eq=False)
class OrtDeviceTensor:
    """A tensor in the memory of an `OrtValue`, or a part of it.

    Attributes:
        value: Whose memory it is.
        host: The same memory as an array, where the device is the CPU; else None.
        memory: Of which device.
        shape: Sizes of all axes.
        dtype: NumPy dtype name.
        first: Elements of `value` before it.
        whole: Shape of `value`.
    """

    value: ort.OrtValue
    host: Tensor | None
    memory: OrtMemory
    shape: tuple[int, ...]
    dtype: str
    whole: tuple[int, ...]
    first: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: str, memory: OrtMemory) -> OrtDeviceTensor:
        """Make a tensor whose values are not set."""
        if memory.device == "cpu":
            host = np.empty(shape, dtype)
            value = ort.OrtValue.ortvalue_from_numpy(host)
            return cls(value, host, memory, shape, dtype, shape)
        return cls(memory.allocate(shape, dtype), None, memory, shape, dtype, shape)

    @classmethod
    def uploaded(cls, array: Tensor, memory: OrtMemory) -> OrtDeviceTensor:
        """Copy an array to a device other than the CPU.

        Raises:
            EngineError: ONNX Runtime failed, as where there is not enough memory.
        """
        shape = array.shape
        try:
            value = memory.upload(array)
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise EngineError(
                f"ONNX Runtime cannot copy an array of {list(shape)} to {memory}: {error}", _REMEDY
            ) from error
        return cls(value, None, memory, shape, array.dtype.name, shape)

    @property
    def is_on_host(self) -> bool:
        """Whether the device is the CPU."""
        return self.host is not None

    def numpy(self) -> Tensor:
        """Return the values in host memory; no copy on the CPU, elsewhere one of these alone.

        Raises:
            EngineError: ONNX Runtime failed.
        """
        if self.host is not None:
            return self._of(self.host)
        try:
            return self._downloaded()
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise EngineError(
                f"ONNX Runtime cannot copy a tensor of {list(self.shape)} from {self.memory}:"
                f" {error}",
                _REMEDY,
            ) from error

    def view(self, index: tuple[int, ...], shape: tuple[int, ...]) -> OrtDeviceTensor:
        """Return the part at some leading indices; see `DeviceTensor.view`."""
        first = self.first + offset_of(self.shape, index, shape)
        return OrtDeviceTensor(
            self.value, self.host, self.memory, shape, self.dtype, self.whole, first
        )

    def bind_input(self, binding: ort.IOBinding, name: str) -> None:
        """Make a call read its input from here; this tensor must outlive the call."""
        binding.bind_input(name, *self._bound)

    def bind_output(self, binding: ort.IOBinding, name: str) -> None:
        """Make a call write its output here."""
        binding.bind_output(name, *self._bound)

    @property
    def _bound(self) -> tuple[str, int, np.dtype[Any], list[int], int]:
        memory = self.memory
        return memory.device, memory.number, np.dtype(self.dtype), list(self.shape), self._address

    @property
    def _address(self) -> int:
        return int(self.value.data_ptr()) + self.first * np.dtype(self.dtype).itemsize

    def _downloaded(self) -> Tensor:
        if math.prod(self.shape) == math.prod(self.whole):
            return self._of(self.memory.download(self.value, self.whole, self.dtype))
        part = self.memory.download_part(self.shape, self.dtype, self._address)
        if part is None:
            # Copied, lest a small part keep the whole in the host's memory.
            part = self._of(self.memory.download(self.value, self.whole, self.dtype)).copy()
        return part

    def _of(self, whole: Tensor) -> Tensor:
        last = self.first + math.prod(self.shape)
        return whole.reshape(-1)[self.first : last].reshape(self.shape)
