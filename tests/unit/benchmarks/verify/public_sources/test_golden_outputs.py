"""Localizers against what the public code of their authors gave on the same seeded weights.

The golden files are written by `python -m zeroflaw_benchmarks.verify.public_sources`, which needs a
clone of the source; nothing of ours is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from zeroflaw_benchmarks.verify.public_sources.__main__ import Method
from zeroflaw_benchmarks.verify.public_sources.comparison import Comparison

GOLDEN = Path(__file__).parents[4] / "golden"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Narrow towers lose more in waiting for each other's threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# SAA is a refiner: `test_saa` has its scene, which needs no weights.
@pytest.mark.parametrize("method", [one for one in Method if one is not Method.SAA])
def test_ours_gives_what_the_public_source_gave(method: Method, tmp_path: Path) -> None:
    module = import_module(f"zeroflaw_benchmarks.verify.public_sources.{method.value}")
    ours: Callable[[Path], dict[str, np.ndarray]] = module.our_outputs
    module.write_weights(tmp_path)
    golden = load_file(GOLDEN / f"{method.value}.safetensors")
    comparison = Comparison(golden, ours(tmp_path), module.TOLERANCES)
    for figure in comparison.figures:
        assert figure.accepted, figure
    for name, values in golden.items():
        if name.endswith("map"):
            assert np.ptp(values) > 0.02, "a map that does not vary shows nothing"
