"""Bundles of random weights, exported by the command line, with what that cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from support.measured_process import ZEROFLAW, Cost, run_measured

# Of the random weights of every bundle that is exported here.
SEED = 3
# Of those of the fixture `tiny_bundle`.
TINY_SEED = 7


@dataclass(frozen=True)
class Exported:
    """A bundle, and what its export cost."""

    path: Path
    cost: Cost


def export(path: Path, clip: str, sam: str, *options: str) -> Exported:
    cost = run_measured(
        ZEROFLAW, "export", path, "--clip", clip, "--sam", sam, "--random-weights", SEED, *options
    )
    return Exported(path, cost)
