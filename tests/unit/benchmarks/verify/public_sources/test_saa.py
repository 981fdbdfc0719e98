"""Our score maps of proposed boxes beside what SAA's public code gave for the same scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from zeroflaw_benchmarks.verify.public_sources.saa import TOLERANCE, our_outputs

GOLDEN = Path(__file__).parents[4] / "golden" / "saa.safetensors"


def test_score_maps_are_those_of_the_public_source() -> None:
    golden, ours = load_file(GOLDEN), our_outputs()
    assert golden.keys() == ours.keys()
    for name, values in golden.items():
        assert np.unique(values).size > 1, name
        np.testing.assert_allclose(ours[name], values, atol=TOLERANCE, err_msg=name)
    # More masks make another map.
    one, five = golden["score_map_of_1"], golden["score_map_of_5"]
    assert np.abs(one - five).max() > 100 * TOLERANCE
