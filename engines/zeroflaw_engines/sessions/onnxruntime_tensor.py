"""Outputs that ONNX Runtime left on the device of its provider, as `OrtValue`s."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflaw_engines.sessions.device_tensor import Tensor, offset_of
from zeroflaw_engines.sessions.quiet_onnxruntime import ort


@dataclass(frozen=True, eq=False)
class OrtDeviceTensor:
    """A tensor in the memory of an `OrtValue`, or a part of it.

    Attributes:
        value: Whose memory it is.
        host: The same memory as an array, where the device is the CPU; else None.
        device: ONNX Runtime's name of the device.
        shape: Sizes of all axes.
        dtype: NumPy dtype name.
        first: Elements of `value` before it.
    """

    value: ort.OrtValue
    host: Tensor | None
    device: str
    shape: tuple[int, ...]
    dtype: str
    first: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: str, device: str) -> OrtDeviceTensor:
        """Make a tensor whose values are not set."""
        if device == "cpu":
            host = np.empty(shape, dtype)
            return cls(ort.OrtValue.ortvalue_from_numpy(host), host, device, shape, dtype)
        value = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype), device, 0)
        return cls(value, None, device, shape, dtype)

    @classmethod
    def uploaded(cls, array: Tensor, device: str) -> OrtDeviceTensor:
        """Copy an array to a device other than the CPU."""
        value = ort.OrtValue.ortvalue_from_numpy(array, device, 0)
        return cls(value, None, device, array.shape, array.dtype.name)

    @property
    def is_on_host(self) -> bool:
        """Whether the device is the CPU."""
        return self.host is not None

    def numpy(self) -> Tensor:
        """Return the values in host memory; no copy on the CPU."""
        whole = self.value.numpy() if self.host is None else self.host
        return whole.reshape(-1)[self.first : self.first + self._elements].reshape(self.shape)

    def view(self, index: tuple[int, ...], shape: tuple[int, ...]) -> OrtDeviceTensor:
        """Return the part at some leading indices; see `DeviceTensor.view`."""
        first = self.first + offset_of(self.shape, index, shape)
        return OrtDeviceTensor(self.value, self.host, self.device, shape, self.dtype, first)

    def bind_input(self, binding: ort.IOBinding, name: str) -> None:
        """Make a call read its input from here; this tensor must outlive the call."""
        binding.bind_input(
            name, self.device, 0, np.dtype(self.dtype), list(self.shape), self._address
        )

    def bind_output(self, binding: ort.IOBinding, name: str) -> None:
        """Make a call write its output here."""
        binding.bind_output(
            name, self.device, 0, np.dtype(self.dtype), list(self.shape), self._address
        )

    @property
    def _address(self) -> int:
        return int(self.value.data_ptr()) + self.first * np.dtype(self.dtype).itemsize

    @property
    def _elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))
