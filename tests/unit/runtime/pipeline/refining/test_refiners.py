"""The refiners as rows: none takes a frame for good because what it needs was left out."""

from __future__ import annotations

import numpy as np
import pytest

from support.scripted_decoder import LOW, MAP_SIZE, DecoderSession, encoding_of, engines_of
from zeroflaw.pipeline.refining.refiners import refine
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.parameters import MethodParameters

# What `mmr` calls foreground, and the cascade does not call extreme.
BETWEEN = np.full((MAP_SIZE, MAP_SIZE), 0.48)


@pytest.mark.parametrize(
    ("parameters", "needed"),
    [
        (MethodParameters(), False),
        (MethodParameters(extreme_threshold=0.4), True),
        (MethodParameters(no_region="always_run"), True),
        (MethodParameters(refiner="mmr"), True),
        (MethodParameters(refiner="none"), False),
        (MethodParameters(refiner="box_proposals"), True),
    ],
    ids=lambda value: value if isinstance(value, bool) else value.refiner,
)
def test_a_frame_that_was_encoded_for_another_refiner_is_refused(parameters, needed):
    encoding = encoding_of(BETWEEN, features=False)
    engines = engines_of(DecoderSession(np.ones((1, 4, LOW, LOW)), np.ones((1, 4))))
    if needed:
        with pytest.raises(EngineError, match=f"the refiner {parameters.refiner}") as caught:
            refine(encoding, parameters, engines)
        assert "that encoded it" in caught.value.remedy
    else:
        found = refine(encoding, parameters, engines).findings(encoding, parameters)
        assert found.status == "no_region"
