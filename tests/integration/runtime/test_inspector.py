"""The Inspector as an integrator uses it, on a small random-weight bundle."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from skimage import data

from support.manifests import written
from zeroflaw import Inspector, MethodParameters
from zeroflaw.records.record import inspection_json_schema
from zeroflaw.sessions import Sessions
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EngineError, FrameError, ProductError

SCHEMA = Path(__file__).parents[3] / "docs" / "inspection.schema.json"


@pytest.fixture(scope="module")
def inspector(tiny_bundle: Bundle):
    with Inspector.load(tiny_bundle.path) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.ascontiguousarray(data.coffee())


def same(a, b) -> bool:
    return (
        np.array_equal(a.mask, b.mask)
        and np.array_equal(a.anomaly_map, b.anomaly_map)
        and np.array_equal(a.score_map, b.score_map)
        and a.image_score == b.image_score
        and a.regions == b.regions
    )


def test_result_is_complete(inspector, photo) -> None:
    inspection = inspector.inspect(photo, product="metal_nut", trace=True)
    size = inspector.bundle.manifest.clip.image_size
    assert inspection.status == "ok"
    assert inspection.mask.shape == photo.shape[:2]
    assert inspection.mask.dtype == np.bool_
    assert inspection.anomaly_map.shape == inspection.score_map.shape == (size, size)
    assert 0 <= inspection.anomaly_map.min() <= inspection.anomaly_map.max() <= 1
    assert inspection.product == "metal_nut"
    assert inspection.decision == ("reject" if inspection.image_score >= 0.5 else "accept")
    assert sum(region.area for region in inspection.regions) == inspection.mask.sum()
    assert inspection.bundle == inspector.bundle.identity
    assert "random weights" in inspection.warnings[0]
    stages = {"squash", "fit", "clip_encoder", "sam_encoder", "prompt_points", "sam_decoder_1",
              "sam_decoder_2", "sam_decoder_3", "cascade", "score", "regions", "total"}  # fmt: skip
    assert stages <= inspection.timings_ms.keys()
    assert len(inspection.trace.stages) == 3
    assert inspector.inspect(photo, product="metal_nut").trace is None


def test_json_follows_the_published_schema(inspector, photo) -> None:
    schema = json.loads(SCHEMA.read_text())
    assert schema == json.loads(json.dumps(inspection_json_schema())), "run `make schema`"
    for trace in (False, True):
        inspection = inspector.inspect(photo, product="object", trace=trace)
        record = json.loads(inspection.to_json())
        jsonschema.validate(record, schema)
        assert record["schema_version"] == 4
        assert (record["trace"] is not None) == trace
    broken = {**record, "decision": "good"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_products_change_the_result_and_unknown_ones_are_refused(inspector, photo) -> None:
    as_object = inspector.inspect(photo, product="object")
    as_nut = inspector.inspect(photo, product="metal_nut")
    assert not np.array_equal(as_object.anomaly_map, as_nut.anomaly_map)
    for product in ("screw", None):
        with pytest.raises(ProductError, match="metal_nut, object"):
            inspector.inspect(photo, product=product)


def test_threads_share_one_inspector(inspector, photo) -> None:
    frames = [np.roll(photo, 31 * i, axis=1) for i in range(8)]
    alone = [inspector.inspect(frame, product="object") for frame in frames]
    barrier = threading.Barrier(4)

    def work(frame):
        if barrier.n_waiting < 4 and not barrier.broken:
            barrier.wait(timeout=30)
        return inspector.inspect(frame, product="object")

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, frames))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert len({a.image_score for a in alone}) == len(frames)


def test_closed_inspector_refuses(tiny_bundle: Bundle, photo) -> None:
    inspector = Inspector.load(tiny_bundle.path)
    inspector.warm_up()
    inspector.close()
    inspector.close()
    with pytest.raises(EngineError, match="closed"):
        inspector.inspect(photo, product="object")


def test_no_region_skips_sam(tiny_bundle: Bundle, photo) -> None:
    strict = MethodParameters(extreme_threshold=0.999)
    with Inspector.load(tiny_bundle.path, parameters=strict) as inspector:
        inspection = inspector.inspect(photo, product="object", trace=True)
        assert inspection.status == "no_region"
        assert not inspection.mask.any()
        assert inspection.regions == ()
        assert "sam_decoder_1" not in inspection.timings_ms
        assert inspection.trace.points is None
        np.testing.assert_array_equal(
            inspection.score_map, np.float32(0.5) * inspection.anomaly_map
        )
        json.loads(inspection.to_json())
    always = dataclasses.replace(strict, no_region="always_run")
    with Inspector.load(tiny_bundle.path, parameters=always) as inspector:
        inspection = inspector.inspect(photo, product="object", trace=True)
        assert inspection.trace.points is not None
        assert not inspection.trace.points.from_region
        assert len(inspection.trace.stages) >= 1


def test_clip_first_gives_the_same_and_leaves_sam_out_where_nothing_is_extreme(
    tiny_bundle: Bundle, inspector, photo
) -> None:
    with Inspector.load(tiny_bundle.path, encoder_schedule="clip_first") as sequential:
        want = inspector.inspect(photo, product="object")
        assert same(sequential.inspect(photo, product="object"), want)
    strict = MethodParameters(extreme_threshold=0.999)
    with Inspector.load(
        tiny_bundle.path, parameters=strict, encoder_schedule="clip_first"
    ) as sequential:
        inspection = sequential.inspect(photo, product="object")
        assert inspection.status == "no_region"
        assert "sam_encoder" not in inspection.timings_ms


class WaitingSession:
    """Delegates, but only once the other encoder is under way too."""

    def __init__(self, session, barrier: threading.Barrier) -> None:
        self.session, self.barrier = session, barrier
        self.contract, self.backend = session.contract, session.backend

    def execute(self, inputs, *, keep=()):
        self.barrier.wait(timeout=20)
        return self.session.execute(inputs, keep=keep)

    def close(self) -> None:
        self.session.close()


def test_encoders_run_side_by_side(tiny_bundle: Bundle, inspector, photo) -> None:
    loaded = Inspector.load(tiny_bundle.path)._sessions
    barrier = threading.Barrier(2)
    sessions = Sessions(
        clip_encoder=WaitingSession(loaded.clip_encoder, barrier),
        sam_encoder=WaitingSession(loaded.sam_encoder, barrier),
        sam_decoder=loaded.sam_decoder,
    )
    with Inspector(tiny_bundle, sessions) as waiting:
        # Each encoder waits for the other: run one after the other, they would time out.
        assert same(
            waiting.inspect(photo, product="object"), inspector.inspect(photo, product="object")
        )


@pytest.mark.parametrize("name", ["clip_encoder", "sam_encoder", "sam_decoder"])
def test_a_failing_engine_gives_an_error_and_no_result(tiny_bundle: Bundle, photo, name) -> None:
    loaded = Inspector.load(tiny_bundle.path)._sessions

    class Failing:
        contract = getattr(loaded, name).contract
        backend = "failing"

        def execute(self, inputs, *, keep=()):
            raise EngineError("out of memory", "buy more")

        def close(self) -> None:
            pass

    sessions = dataclasses.replace(loaded, **{name: Failing()})
    with Inspector(tiny_bundle, sessions) as inspector:
        for _ in range(2):
            with pytest.raises(EngineError, match="out of memory"):
                inspector.inspect(photo, product="object")


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((300, 200, 3), np.uint8),
        np.full((300, 200, 3), 255, np.uint8),
        np.zeros((3, 900), np.uint8),
        np.zeros((900, 3, 4), np.uint16),
    ],
    ids=["1x1", "black", "white", "flat", "thin"],
)
def test_extreme_frames_are_inspected(inspector, frame) -> None:
    inspection = inspector.inspect(frame, product="object")
    assert inspection.mask.shape == frame.shape[:2]
    json.loads(inspection.to_json())


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (np.zeros((20000, 20000), np.uint8), "20000x20000"),
        (np.full((8, 8), np.nan, np.float32), "not finite"),
        (np.full((8, 8, 3), 1.5), r"outside \[0, 1\]"),
        (np.zeros((8, 8, 2), np.uint8), r"\[8, 8, 2\]"),
        (np.zeros((0, 8, 3), np.uint8), "empty"),
    ],
    ids=["huge", "nan", "range", "channels", "empty"],
)
def test_bad_frames_are_refused(inspector, frame, text) -> None:
    with pytest.raises(FrameError, match=text) as caught:
        inspector.inspect(frame, product="object")
    assert caught.value.remedy


def test_equivalent_frames_give_the_same_result(inspector, photo) -> None:
    want = inspector.inspect(photo, product="object")
    padded = np.zeros((photo.shape[0], photo.shape[1] + 24, 3), np.uint8)
    padded[:, :-24] = photo
    alternatives = {
        "bgr": inspector.inspect(photo[..., ::-1], product="object", channel_order="bgr"),
        "stride": inspector.inspect(padded[:, :-24], product="object"),
        "alpha": inspector.inspect(np.dstack([photo, photo[..., 0]]), product="object"),
        "uint16": inspector.inspect(photo.astype(np.uint16) * 257, product="object"),
        "float": inspector.inspect(photo / 255, product="object"),
    }
    for name, got in alternatives.items():
        assert same(got, want), name


def test_alternatives_of_the_method_run(tiny_bundle: Bundle, photo) -> None:
    values = {
        "point_spacing": ["euclidean", "rank_stride"],
        "prompt_grid": ["sam"],
        "dilation_kernel": ["rectangle", "cross"],
        "sam_input": ["squashed"],
        "similarity": ["max_pair"],
        "stage1_mask": ["single"],
        "box": ["per_component"],
        "cascade_stages": [1, 2],
        "scoring": ["map", "mask", "sam_probability"],
        "image_scoring": ["map_max"],
    }
    default = MethodParameters()
    with Inspector.load(tiny_bundle.path) as inspector:
        for name, alternatives in values.items():
            for value in alternatives:
                parameters = default.replace(**{name: value})
                # Not closed: the sessions are not its own.
                other = Inspector(tiny_bundle, inspector.sessions, parameters=parameters)
                inspection = other.inspect(photo, product="object")
                assert inspection.status != "no_region", (name, value)
                assert inspection.mask.shape == photo.shape[:2]
                assert np.isfinite(inspection.score_map).all()


def test_a_products_own_threshold_decides(tiny_bundle: Bundle, photo, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.path, copy)
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["products"]["object"]["threshold"] = 0.999
    manifest["products"]["metal_nut"]["threshold"] = 0.0
    (copy / "bundle.json").write_bytes(written(manifest))
    with Inspector.load(copy) as inspector:
        assert inspector.inspect(photo, product="object").decision == "accept"
        assert inspector.inspect(photo, product="metal_nut").decision == "reject"
