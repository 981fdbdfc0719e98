"""Outputs that ONNX Runtime left on the device of its provider, as `OrtValue`s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroflaw_engines.sessions.device_tensor import Tensor, offset_of
from zeroflaw_engines.sessions.quiet_onnxruntime import ort


@dataclass(frozen=True, eq=False)
class OrtMemory:
    """Memory of one device, as ONNX Runtime reaches it.

    Attributes:
        device: ONNX Runtime's name of the device: `cpu` or `cuda`.
        number: Of the device.
        plugin: The `OrtMemoryInfo` of a plugin provider's device: its allocator is the plugin's
            own. None where the wheel itself brings the provider.
    """

    device: str = "cpu"
    number: int = 0
    plugin: Any = None

    def __str__(self) -> str:
        return self.device if self.device == "cpu" else f"{self.device}:{self.number}"

    def is_that_of(self, other: OrtMemory) -> bool:
        """Whether both are one device's."""
        return (self.device, self.number) == (other.device, other.number)

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
        """Copy an array to a device other than the CPU."""
        shape = array.shape
        return cls(memory.upload(array), None, memory, shape, array.dtype.name, shape)

    @property
    def is_on_host(self) -> bool:
        """Whether the device is the CPU."""
        return self.host is not None

    def numpy(self) -> Tensor:
        """Return the values in host memory; no copy on the CPU."""
        whole = self.host
        if whole is None:
            whole = self.memory.download(self.value, self.whole, self.dtype)
        return whole.reshape(-1)[self.first : self.first + self._elements].reshape(self.shape)

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
        address = int(self.value.data_ptr()) + self.first * np.dtype(self.dtype).itemsize
        memory = self.memory
        return memory.device, memory.number, np.dtype(self.dtype), list(self.shape), address

    @property
    def _elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))
