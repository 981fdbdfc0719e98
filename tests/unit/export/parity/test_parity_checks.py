"""Parity checks with engines that return what no difference can be taken of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from zeroflaw_engines.contract import EngineSizes, ReferenceSizes, engine_contract
from zeroflaw_engines.errors import ParityError
from zeroflaw_export.models.reference_matcher import plain_reference_map
from zeroflaw_export.parity import checks as parity

SIZES = EngineSizes(
    clip_image_size=8,
    embedding_size=4,
    sam_image_size=64,
    sam_feature_size=4,
    sam_feature_channels=3,
    max_prompts=24,
    reference=ReferenceSizes(blocks=2, tokens=4, width=5, rows=8),
)
RNG = np.random.default_rng(0)
TRUE = {
    "anomaly_map": RNG.random((1, 8, 8), np.float32),
    "image_score": np.array([0.25], np.float32),
    "patch_tokens": RNG.standard_normal((2, 4, 5), np.float32),
    "features": RNG.standard_normal((1, 3, 4, 4), np.float32),
    "low_res_logits": RNG.standard_normal((1, 4, 16, 16), np.float32),
    "predicted_iou": RNG.random((1, 4), np.float32),
    "sentence_embeddings": RNG.standard_normal((2, 4), np.float32),
}
Change = Callable[[np.ndarray], np.ndarray]


class Engine:
    """An engine that gives the true outputs, but for one of them from some call on."""

    def __init__(self, engine: Any, spoilt: str = "", change: Change = np.copy, call: int = 0):
        self.contract = engine_contract(engine, SIZES)
        self._spoilt, self._change, self._left = spoilt, change, call

    def execute(self, inputs: object) -> dict[str, np.ndarray]:
        self._left -= 1
        names = [spec.name for spec in self.contract.outputs]
        return {
            name: self._change(TRUE[name].copy())
            if name == self._spoilt and self._left < 0
            else TRUE[name].copy()
            for name in names
        }


def one(value: float) -> Change:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[array.size // 2] = value
        return array

    return change


CHANGES: dict[str, Change] = {
    "NaN": lambda array: array * np.float32(np.nan),
    "one NaN": one(np.nan),
    "inf": lambda array: array + np.float32(np.inf),
    "one -inf": one(-np.inf),
    "all zero": np.zeros_like,
    "all equal": lambda array: np.full_like(array, 0.7),
    "a smaller shape": lambda array: array[..., :1] if array.size > 1 else array[:0],
}
ENGINES = {
    "anomaly_map": "clip_encoder",
    "image_score": "clip_encoder",
    "patch_tokens": "clip_encoder",
    "features": "sam_encoder",
    "low_res_logits": "sam_decoder",
    "predicted_iou": "sam_decoder",
    "sentence_embeddings": "text_encoder",
}


def check(engine: Engine, want: dict[str, np.ndarray]) -> list[Any]:
    name = engine.contract.name
    if name == "clip_encoder":
        embeddings = np.zeros((2, 4), np.float32)
        reference = (want["anomaly_map"][0], float(want["image_score"][0]), want["patch_tokens"])
        return parity.check_clip_encoder(engine, lambda *_: reference, embeddings)
    if name == "sam_encoder":
        return parity.check_sam_encoder(engine, dict.fromkeys(("real", "noise"), want["features"]))
    if name == "text_encoder":
        tokens = np.zeros((2, 5), np.int32)
        return parity.check_text_encoder(engine, tokens, want["sentence_embeddings"])
    features = dict.fromkeys(("real", "noise"), want["features"])
    wanted = (want["low_res_logits"], want["predicted_iou"])
    return parity.check_sam_decoder(engine, lambda *_: wanted, features)


@pytest.mark.parametrize("name", sorted(set(ENGINES.values())))
def test_the_true_outputs_are_accepted(name: str) -> None:
    figures = check(Engine(name), TRUE)
    assert figures
    assert all(figure.value < 1e-7 for figure in figures)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("output", ENGINES)
@pytest.mark.parametrize("call", [0, 1], ids=["always", "from the second call on"])
def test_outputs_that_are_none_are_refused(output: str, change: Change, call: int) -> None:
    name = ENGINES[output]
    if name == "text_encoder" and call:
        call = 0  # which is called once
    with pytest.raises(ParityError, match=f"{name}.* differs from the original"):
        check(Engine(name, output, change, call), TRUE)


@pytest.mark.parametrize("change", [CHANGES["NaN"], CHANGES["one NaN"], CHANGES["inf"]])
@pytest.mark.parametrize("output", ENGINES)
def test_a_reference_that_is_not_finite_proves_nothing(output: str, change: Change) -> None:
    """Also where the engine gives the very same."""
    spoilt = TRUE | {output: change(TRUE[output].copy())}
    name = ENGINES[output]
    for engine in (Engine(name), Engine(name, output, change)):
        with pytest.raises(ParityError, match="not finite"):
            check(engine, spoilt)


@pytest.mark.parametrize("kind", parity.IMAGE_KINDS)
def test_the_plain_reference_map_is_the_mean_distance_to_the_nearest_valid_row(kind) -> None:
    inputs = parity.matcher_inputs(engine_contract("reference_matcher", SIZES), kind)
    valid = int(inputs["valid_rows"][0])
    want = np.zeros(4)
    for block in range(2):
        nearest = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute")
        nearest.fit(inputs["bank"][block, :valid].astype(np.float64))
        want += nearest.kneighbors(inputs["patch_tokens"][block])[0][:, 0] / 2
    at_corners = plain_reference_map(inputs, 8)[::7, ::7]
    # The bank is FP16, and its rows are not quite of length 1.
    np.testing.assert_allclose(at_corners.ravel(), want, rtol=0, atol=5e-4)
    assert 0 < valid < 8


@pytest.mark.parametrize("fault", ["padding", "first block", "corner"])
def test_a_matcher_that_is_wrong_is_refused(fault: str) -> None:
    class Matcher:
        contract = engine_contract("reference_matcher", SIZES)

        def execute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            given = dict(inputs)
            if fault == "padding":
                given["valid_rows"] = np.array([8], np.int32)
            elif fault == "first block":
                given |= {name: given[name][:1] for name in ("patch_tokens", "bank")}
            found = plain_reference_map(given, 8)
            if fault == "corner":
                found[0, 0] += 1e-3
            return {"reference_map": found[None].astype(np.float32)}

    with pytest.raises(ParityError, match=r"reference_matcher.* differs"):
        parity.check_reference_matcher(Matcher(), plain_reference_map, parity.fp32_tolerances())


@pytest.mark.parametrize("output", ["features", "low_res_logits", "predicted_iou"])
def test_a_reference_of_zeros_is_nothing_to_measure_by(output: str) -> None:
    spoilt = TRUE | {output: np.zeros_like(TRUE[output])}
    with pytest.raises(ParityError, match="zero everywhere"):
        check(Engine(ENGINES[output], output, np.zeros_like), spoilt)
