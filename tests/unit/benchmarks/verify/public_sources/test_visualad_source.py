"""VisualAD against what its public source gave on the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from zeroflaw_benchmarks.verify.public_sources import visualad
from zeroflaw_benchmarks.verify.public_sources.comparison import MAP_TOLERANCE, SCORE_TOLERANCE
from zeroflaw_engines.errors import EvaluationError

GOLDEN = Path(__file__).parents[4] / "golden" / "visualad.safetensors"


def test_maps_and_scores_are_those_of_the_public_source(tmp_path: Path) -> None:
    visualad.write_weights(visualad.SMALL, tmp_path)
    ours = visualad.our_outputs(visualad.SMALL, tmp_path)
    golden = load_file(GOLDEN)
    assert set(ours) == set(golden)
    for name, want in golden.items():
        accepted = SCORE_TOLERANCE if "score" in name else MAP_TOLERANCE
        assert want.size == 1 or np.ptp(want) > 500 * accepted
        np.testing.assert_allclose(ours[name], want, rtol=0, atol=accepted, err_msg=name)


def test_another_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"has no test\.py"):
        visualad.compare(tmp_path)
