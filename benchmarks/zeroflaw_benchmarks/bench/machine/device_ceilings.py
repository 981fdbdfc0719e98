"""The best that a GPU does: what a process that measures it is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zeroflaw_benchmarks.bench.report.gpu import PinnedCopy
from zeroflaw_benchmarks.bench.report.rooflines import Ceiling

# Rows, inner size, columns: the layers of ViT-H on its 4096 tokens, and squares up to where a
# large GPU is full.
SIZES: Final = (
    (4096, 1280, 3840),
    (4096, 1280, 5120),
    (4096, 5120, 1280),
    (4096, 4096, 4096),
    (8192, 8192, 8192),
)
_COPIED: Final = 2**30
_PINNED: Final = 64 * 2**20


@dataclass(frozen=True)
class CeilingsTask:
    """What is to be measured.

    Attributes:
        device: As `torch_device` takes it.
        precisions: Of the products: `fp32`, `fp16`, `bf16`. Products in fp32 are in FP32, not in
            TF32.
        sizes: Rows, inner size and columns of the products.
        copied: Bytes of the copy within the device; more than its caches hold.
        pinned: Bytes of the copies to and from the host.
        repeats: The best counts.
    """

    device: str
    precisions: tuple[str, ...] = ("fp16", "bf16", "fp32")
    sizes: tuple[tuple[int, int, int], ...] = SIZES
    copied: int = _COPIED
    pinned: int = _PINNED
    repeats: int = 10


@dataclass(frozen=True)
class DeviceCeilings:
    """What a GPU does at best.

    Attributes:
        ceilings: One for each precision.
        pinned: Copies from the host and to it; none where the device is the host.
        why_not: Why nothing was measured; empty if it was.
    """

    ceilings: tuple[Ceiling, ...] = ()
    pinned: tuple[PinnedCopy, ...] = ()
    why_not: str = ""
