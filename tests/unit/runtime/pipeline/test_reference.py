"""Matching with a reference bank and fusing what comes of it, against NumPy in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zeroflaw.pipeline.encoding.clip import encode_clip
from zeroflaw.pipeline.encoding.frame import encode
from zeroflaw.pipeline.geometry import geometry_of
from zeroflaw.pipeline.reference import (
    fused_map,
    fused_score,
    load_bank,
    load_banks,
    match,
    reference_distances,
)
from zeroflaw.pipeline.scoring import image_score
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.station.thinning import bank_of_tiles
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.contract import EngineSizes, ReferenceSizes, engine_contract
from zeroflaw_engines.errors import EngineError, ReferenceBankError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import HostTensor
from zeroflaw_engines.sessions.session import check_inputs

SIZE, ROWS = 8, 6
SIZES = EngineSizes(SIZE, 4, 16, 2, 3, 9, ReferenceSizes(blocks=2, tokens=16, width=8, rows=ROWS))
EMBEDDINGS = np.eye(2, 4, dtype=np.float32)


class Engine:
    """A session that answers what it is told, and keeps what it was given."""

    backend = "scripted"

    def __init__(self, name, sizes=SIZES, **outputs):
        self.contract = engine_contract(name, sizes)
        self.outputs, self.calls, self.uploads = outputs, [], []

    def execute(self, inputs, *, keep=()):
        check_inputs(self.contract, inputs, kept=HostTensor)
        self.calls.append(inputs)
        return {
            name: HostTensor(array) if name in keep else array
            for name, array in self.outputs.items()
        }

    def upload(self, name, array):
        self.uploads.append(name)
        return HostTensor(array)


def unit(rng, *shape):
    values = rng.normal(size=shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def tokens(rng):
    return unit(rng, 2, 16, 8)


@pytest.fixture
def bank(rng):
    return ReferenceBank(
        unit(rng, 2, 4, 8).astype(np.float16), np.zeros(4, np.int32), tower="0" * 64
    )


@pytest.fixture
def distances(rng):
    return rng.uniform(0.01, 1.9, (1, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def zero_shot(rng):
    return rng.uniform(0.01, 0.9, (SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def clip_encoder(zero_shot, tokens):
    return Engine(
        "clip_encoder",
        anomaly_map=zero_shot[None],
        image_score=np.array([0.25], np.float32),
        patch_tokens=tokens,
    )


def test_a_bank_is_uploaded_once_and_padding_is_not_valid(bank, tokens, distances):
    matcher = Engine("reference_matcher", reference_map=distances)
    loaded = load_bank(bank, "d" * 64, matcher)
    for _ in range(3):
        np.testing.assert_array_equal(match(tokens, loaded, matcher), distances[0])
    assert matcher.uploads == ["bank"]
    assert loaded.digest == "d" * 64
    given = matcher.calls[0]
    assert given["patch_tokens"] is tokens
    assert given["valid_rows"].tolist() == [4]
    np.testing.assert_array_equal(given["bank"].numpy()[:, :4], bank.tokens)
    assert given["bank"].shape == (2, ROWS, 8)
    assert not given["bank"].numpy()[:, 4:].any()


@pytest.mark.parametrize("value", [-4e-3, 2 + 4e-3])
def test_what_rounding_carried_out_of_range_is_set_to_its_end(bank, tokens, distances, value):
    distances[0, 3, 4] = value
    matcher = Engine("reference_matcher", reference_map=distances)
    found = match(tokens, load_bank(bank, "", matcher), matcher)
    np.testing.assert_array_equal(found, distances[0].clip(0, 2))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda map_: map_ * 0, "0 everywhere"),
        (lambda map_: map_ + np.float32(0.2), r"outside \[0, 2\]"),
        (lambda map_: -map_, r"outside \[0, 2\]"),
        (lambda map_: np.where(map_ == map_.max(), np.nan, map_), "1 of 64 values"),
        (lambda map_: np.where(map_ == map_.min(), np.inf, map_), "1 of 64 values"),
        (lambda map_: map_.astype(np.float64), "float64"),
        (lambda map_: map_[0], r"float32\[8, 8\]"),
    ],
    ids=["unwritten", "above", "below", "nan", "infinite", "dtype", "shape"],
)
def test_what_are_no_distances_is_refused(bank, tokens, distances, change, complaint):
    matcher = Engine("reference_matcher", reference_map=change(distances))
    with pytest.raises(EngineError, match=complaint):
        match(tokens, load_bank(bank, "", matcher), matcher)


@pytest.mark.parametrize(("distance", "scale"), [("cosine", 1), ("half_cosine", 0.5)])
def test_distances_are_on_the_scale_of_the_zero_shot_map(distances, distance, scale):
    found = reference_distances(distances[0], MethodParameters(reference_distance=distance))
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, np.minimum(scale * distances[0].astype(np.float64), 1), atol=1e-7
    )


FUSIONS = {
    "sum": lambda a, b: np.minimum(a + b, 1),
    "mean": lambda a, b: (a + b) / 2,
    "max": np.maximum,
    "reference": lambda _, b: b,
    "zero_shot": lambda a, _: a,
}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_of_the_maps(rng, zero_shot, fusion):
    reference = rng.uniform(0, 1, (SIZE, SIZE)).astype(np.float32)
    found = fused_map(zero_shot, reference, MethodParameters(reference_fusion=fusion))
    assert found.dtype == np.float32
    wanted = FUSIONS[fusion](zero_shot.astype(np.float64), reference.astype(np.float64))
    np.testing.assert_allclose(found, wanted, atol=1e-7)
    assert found.max() <= 1


@pytest.mark.parametrize(
    ("scoring", "wanted"), [("mean", (0.25 + 0.75) / 2), ("reference", 0.75), ("zero_shot", 0.25)]
)
def test_fusion_of_the_scores(scoring, wanted):
    reference = np.full((SIZE, SIZE), 0.5, np.float32)
    reference[5, 1] = 0.75
    parameters = MethodParameters(reference_image_scoring=scoring)
    assert fused_score(0.25, reference, parameters) == wanted


@pytest.mark.parametrize("scoring", ["cls", "map_max"])
def test_the_image_score_takes_the_zero_shot_map_and_the_distances(zero_shot, scoring):
    reference = np.full((SIZE, SIZE), 0.5, np.float32)
    parameters = MethodParameters(image_scoring=scoring)
    alone = 0.3 if scoring == "cls" else float(zero_shot.max())
    assert image_score(0.3, zero_shot, parameters) == alone
    assert image_score(0.3, zero_shot, parameters, reference) == pytest.approx((alone + 0.5) / 2)


def test_without_a_bank_nothing_is_matched(clip_encoder, distances, zero_shot, tokens):
    matcher, watch = Engine("reference_matcher", reference_map=distances), Stopwatch()
    frame = np.zeros((20, 30, 3), np.uint8)
    seen = encode_clip(frame, SIZE, EMBEDDINGS, clip_encoder, matcher=matcher, watch=watch)
    assert not matcher.calls
    assert "reference_matcher" not in watch.milliseconds
    assert seen.anomaly_map is seen.zero_shot_map
    np.testing.assert_array_equal(seen.anomaly_map, zero_shot)
    assert seen.reference_map is None
    assert seen.patch_tokens.numpy() is tokens


def test_bundles_that_take_no_banks_give_no_tokens(zero_shot):
    encoder = Engine(
        "clip_encoder",
        replace(SIZES, reference=None),
        anomaly_map=zero_shot[None],
        image_score=np.array([0.25], np.float32),
    )
    seen = encode_clip(np.zeros((20, 30, 3), np.uint8), SIZE, EMBEDDINGS, encoder)
    assert seen.patch_tokens is None


def test_with_a_bank_the_kept_tokens_are_matched_and_the_maps_are_fused(
    clip_encoder, distances, zero_shot, bank, tokens
):
    matcher, watch = Engine("reference_matcher", reference_map=distances), Stopwatch()
    seen = encode_clip(
        np.zeros((20, 30, 3), np.uint8),
        SIZE,
        EMBEDDINGS,
        clip_encoder,
        matcher=matcher,
        bank=load_bank(bank, "", matcher),
        parameters=MethodParameters(reference_distance="half_cosine", reference_fusion="max"),
        watch=watch,
    )
    (given,) = matcher.calls
    assert given["patch_tokens"] is seen.patch_tokens  # a DeviceTensor: not copied to the host
    assert seen.patch_tokens.numpy() is tokens
    assert "reference_matcher" in watch.milliseconds
    np.testing.assert_array_equal(seen.zero_shot_map, zero_shot)
    np.testing.assert_array_equal(seen.reference_map, distances[0] / 2)
    np.testing.assert_array_equal(seen.anomaly_map, np.maximum(zero_shot, distances[0] / 2))


def test_a_bank_without_what_matches_it_is_refused(clip_encoder, distances, bank):
    matcher = Engine("reference_matcher", reference_map=distances)
    loaded, frame = load_bank(bank, "", matcher), np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(EngineError, match="no reference_matcher"):
        encode_clip(frame, SIZE, EMBEDDINGS, clip_encoder, bank=loaded)
    del clip_encoder.outputs["patch_tokens"]
    clip_encoder.contract = engine_contract("clip_encoder", replace(SIZES, reference=None))
    with pytest.raises(EngineError, match="no patch_tokens"):
        encode_clip(frame, SIZE, EMBEDDINGS, clip_encoder, matcher=matcher, bank=loaded)


def test_whether_sam_is_needed_is_asked_of_the_fused_map(clip_encoder, distances, bank):
    matcher = Engine("reference_matcher", reference_map=distances)
    frame, asked = np.zeros((20, 30, 3), np.uint8), []

    def needs_sam(anomaly_map):
        asked.append(anomaly_map)
        return False

    parameters = MethodParameters(reference_fusion="reference")
    encoding = encode(
        frame,
        geometry_of((20, 30), SIZES, parameters),
        EMBEDDINGS,
        clip_encoder=clip_encoder,
        sam_encoder=Engine("sam_encoder"),
        matcher=matcher,
        bank=load_bank(bank, "", matcher),
        parameters=parameters,
        needs_sam=needs_sam,
    )
    np.testing.assert_array_equal(asked[0], np.minimum(distances[0], 1))
    assert encoding.anomaly_map is asked[0]
    assert encoding.reference_map is not None
    assert encoding.features is None


def test_a_tile_is_matched_with_its_own_bank_or_with_none(rng) -> None:
    """A tile that is judged by the texts alone, as if it had been learned, would pass for good."""
    numbers = np.zeros(2, np.int32)
    parts = {
        number: ReferenceBank(unit(rng, 2, 2, 8).astype(np.float16), numbers, "0" * 64)
        for number in (1, 4)
    }
    matcher = Engine("reference_matcher")
    banks = load_banks(bank_of_tiles(parts), "digest", matcher)
    for number, part in parts.items():
        found = banks.of_tile(number)
        assert np.array_equal(found.tokens.array, part.padded(ROWS))
        assert found.valid_rows.tolist() == [2]
    assert banks.first is banks.of_tile(1)
    with pytest.raises(ReferenceBankError, match="tile 2 is judged"):
        banks.of_tile(2)
    one = load_banks(parts[1], "digest", matcher)
    assert one.of_tile(0) is one.of_tile(7) is one.first
