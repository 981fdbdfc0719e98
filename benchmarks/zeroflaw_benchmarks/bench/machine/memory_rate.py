"""The best rate at which the cores of this machine read memory together.

An engine must at least read its weights once, so it cannot be faster than that at this rate.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.process.cores import usable_cores

_BYTES: Final = 256_000_000  # more than any cache of a processor of today holds
_GIGA: Final = 1e9


def memory_rate(
    *, threads: int = 0, megabytes: int = _BYTES // 1_000_000, repeats: int = 5
) -> float:
    """Read an array that no cache holds, each thread (0: one for each core) its own part.

    Returns:
        GB/s.
    """
    count = threads or usable_cores()
    parts = np.array_split(np.ones(megabytes * 1_000_000 // 4, np.float32), count)
    best = 0.0
    with ThreadPoolExecutor(count) as pool:
        for _ in range(repeats):
            start = time.perf_counter()
            for _ in pool.map(_read_all, parts):
                pass
            seconds = time.perf_counter() - start
            best = max(best, sum(part.nbytes for part in parts) / seconds / _GIGA)
    return best


def _read_all(part: NDArray[np.float32]) -> float:
    # A product with itself: BLAS reads as fast as memory gives, and NumPy lets other threads run.
    return float(np.dot(part, part))
