"""What the calls of an inspection cost: those of several images or prompts cost several times."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from zeroflaw_benchmarks.bench.machine.graph_macs import graph_cost
from zeroflaw_benchmarks.evaluate.comparison.cost import CountingSession, gmac_of
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER


def test_a_call_counts_with_its_prompts() -> None:
    bundle = open_bundle("mini")
    counts = Counter()
    for engine, inputs in (
        (SAM_DECODER, {"point_coords": np.zeros((3, 12, 2)), "features": np.zeros((1, 8, 4, 4))}),
        (CLIP_ENCODER, {"image": np.zeros((1, 8, 8, 3))}),
    ):
        engine_session = SimpleNamespace(
            contract=bundle.contract(engine), backend="none", execute=lambda *_, **__: {}
        )
        CountingSession(engine_session, counts).execute(inputs)
    assert counts == {(SAM_DECODER, 3): 1, (CLIP_ENCODER, 1): 1}
    clip = graph_cost(bundle.onnx_path(CLIP_ENCODER)).flops
    one, three = (
        graph_cost(bundle.onnx_path(SAM_DECODER), {"batch": prompts}).flops for prompts in (1, 3)
    )
    assert 2.5 * one < three <= 3 * one
    assert gmac_of(bundle, counts) == pytest.approx((clip + three) / 2e9)
