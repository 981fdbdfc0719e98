"""Tensors that stay where an engine left them, so that the next engine can take them from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[Any]


@runtime_checkable
class DeviceTensor(Protocol):
    """An output that its session kept in its own memory, C-contiguous.

    It may be given as an input to any session of the same backend, and is valid until it is
    garbage: a later call never overwrites it.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes."""

    @property
    def dtype(self) -> str:
        """NumPy dtype name."""

    @property
    def is_on_host(self) -> bool:
        """Whether `numpy` takes no copy."""

    def numpy(self) -> Tensor:
        """Return the values in host memory; copied if they are not there already."""

    def view(self, index: tuple[int, ...], shape: tuple[int, ...]) -> DeviceTensor:
        """Return the part at some leading indices, without a copy.

        Args:
            index: One index for each of the first axes: `(0, 2)` of low-res logits is the mask
                of token 2 of the first prompt.
            shape: Shape of the part, of as many elements as the axes that are left have.

        Raises:
            IndexError: An index is out of range.
            ValueError: The shape is not of as many elements.
        """


@dataclass(frozen=True, eq=False)
class HostTensor:
    """A kept output of a backend whose memory is the host's.

    Attributes:
        array: The values, C-contiguous.
    """

    array: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes."""
        return self.array.shape

    @property
    def dtype(self) -> str:
        """NumPy dtype name."""
        return self.array.dtype.name

    @property
    def is_on_host(self) -> bool:
        """True: its memory is the host's."""
        return True

    def numpy(self) -> Tensor:
        """Return the values themselves, no copy."""
        return self.array

    def view(self, index: tuple[int, ...], shape: tuple[int, ...]) -> HostTensor:
        """Return the part at some leading indices; see `DeviceTensor.view`."""
        offset_of(self.shape, index, shape)
        return HostTensor(self.array[index].reshape(shape))


def offset_of(whole: tuple[int, ...], index: tuple[int, ...], part: tuple[int, ...]) -> int:
    """Count the elements before a part of a C-contiguous tensor at some leading indices.

    Args:
        index: One index for each of its first axes.

    Raises:
        IndexError: An index is out of range.
        ValueError: The part is not of as many elements as the axes that are left have.
    """
    if len(index) > len(whole) or any(
        not 0 <= i < size for i, size in zip(index, whole, strict=False)
    ):
        raise IndexError(f"there is no part {list(index)} in a tensor of shape {list(whole)}")
    rest = whole[len(index) :]
    elements = int(np.prod(rest, dtype=np.int64))
    if int(np.prod(part, dtype=np.int64)) != elements:
        raise ValueError(f"a part of shape {list(rest)} cannot be seen as {list(part)}")
    first = 0
    for i, size in zip(index, whole, strict=False):
        first = first * size + i
    return first * elements


def on_host(tensor: Tensor | DeviceTensor) -> Tensor:
    """Return the values of a tensor in host memory, wherever it is."""
    return tensor if isinstance(tensor, np.ndarray) else tensor.numpy()
