"""Draws the data of the next steps, in a process of its own, while the present one trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")

_AHEAD = 3


class Prefetched(Generic[T]):
    """Data of each step, drawn ahead; what is drawn depends on the step alone.

    A thread would not do: the many small calls of the drawing and those of the training would
    wait for each other's lock of the interpreter.

    Args:
        draw: Data of a step.
        steps: Steps in all.
    """

    def __init__(self, draw: Callable[[int], T], steps: int) -> None:
        self._draw = draw
        self._steps = steps
        self._expected = -1
        self._coming: Iterator[T] = iter(())

    def __call__(self, step: int) -> T:
        """The data of a step; asked for in order, the next are drawn meanwhile."""
        if step != self._expected:
            self._coming = self._begun(step)
        self._expected = step + 1
        return next(self._coming)

    def _begun(self, first: int) -> Iterator[T]:
        loader: DataLoader[Any] = DataLoader(
            _Steps(self._draw),
            batch_size=None,
            sampler=range(first, self._steps),
            num_workers=1,
            prefetch_factor=_AHEAD,
            worker_init_fn=_keep_to_one_thread,
            multiprocessing_context="fork",
        )
        return iter(loader)


class _Steps(Dataset[Any]):
    def __init__(self, draw: Callable[[int], Any]) -> None:
        self._draw = draw

    def __getitem__(self, step: int) -> Any:  # noqa: ANN401 - any data
        return self._draw(step)


def _keep_to_one_thread(_worker: int) -> None:
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
