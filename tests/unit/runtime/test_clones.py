"""Clones of an Inspector: one set of weights, and the rest of their own."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from support.products.learned_product import bank_of, store
from zeroflaw import InspectionStream, Inspector
from zeroflaw import sessions as sessions_module
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession

PHOTO = np.ascontiguousarray(data.coffee())


def require_same(one, other) -> None:
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
    assert one.image_score == other.image_score
    assert (one.parameters, one.reference) == (other.parameters, other.reference)
    assert one.warnings == other.warnings


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_clone_loads_nothing_and_gives_the_same_bits(
    tiny_bundle: Bundle, backend, monkeypatch
) -> None:
    parameters = tiny_bundle.manifest.method_parameters.replace(positive_points=3)
    inspector = Inspector.load(
        tiny_bundle.path, backend, parameters=parameters, channel_order="bgr",
        decision_threshold=0.3, max_frame_pixels=PHOTO.shape[0] * PHOTO.shape[1],
    )  # fmt: skip
    monkeypatch.setattr(sessions_module, "load_session", lambda *_, **__: pytest.fail("loaded"))
    want = inspector.inspect(PHOTO, product="object")
    clone = inspector.clone()
    twice = clone.clone()
    for one in (clone, twice):
        assert one.parameters == inspector.parameters
        assert one.products == inspector.products
        assert one.backend == inspector.backend
        one.warm_up()
        require_same(one.inspect(PHOTO, product="object"), want)
    inspector.close()
    with pytest.raises(EngineError, match="closed"):
        inspector.inspect(PHOTO, product="object")
    with pytest.raises(EngineError, match="closed"):
        inspector.clone()
    require_same(clone.inspect(PHOTO, product="object"), want)
    clone.close()
    require_same(twice.inspect(PHOTO, product="object"), want)
    twice.close()


def test_streams_of_clones_run_at_once(tiny_bundle: Bundle) -> None:
    with Inspector.load(tiny_bundle.path) as inspector, inspector.clone() as clone:
        want = inspector.inspect(PHOTO, product="object")

        def flow(one: Inspector) -> list:
            with InspectionStream(one, capacity=4) as stream:
                for _ in range(4):
                    stream.submit(PHOTO, product="object")
                return list(stream.drain())

        with ThreadPoolExecutor(2) as pool:
            results = [result for got in pool.map(flow, (inspector, clone)) for result in got]
        assert len(results) == 8
        for result in results:
            assert result.error is None
            require_same(result.inspection, want)


def test_a_reload_is_of_one_alone(tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.path, path)
    with Inspector.load(path) as inspector, inspector.clone() as clone:
        before = inspector.inspect(PHOTO, product="object")
        store(path, "object", bank_of(inspector, [PHOTO[:200, :200]], 16), threshold=0.5)
        clone.reload()
        learned = clone.inspect(PHOTO, product="object")
        assert learned.reference is not None
        assert before.reference is None
        require_same(inspector.inspect(PHOTO, product="object"), before)
        # What a clone is made of is what the Inspector has then, its banks included.
        with clone.clone() as twice:
            require_same(twice.inspect(PHOTO, product="object"), learned)
            clone.close()
            require_same(twice.inspect(PHOTO, product="object"), learned)


def test_a_clone_that_fails_leaves_nothing_behind(tiny_bundle: Bundle, monkeypatch) -> None:
    made: list[OnnxRuntimeSession] = []
    clone = OnnxRuntimeSession.clone

    def failing(self: OnnxRuntimeSession) -> OnnxRuntimeSession:
        if self.contract.name == "sam_decoder":
            raise EngineError("there is not enough memory", "free some")
        made.append(clone(self))
        return made[-1]

    monkeypatch.setattr(OnnxRuntimeSession, "clone", failing)
    with Inspector.load(tiny_bundle.path) as inspector:
        with pytest.raises(EngineError, match="not enough memory"):
            inspector.clone()
        assert len(made) == 2
        for session in made:
            with pytest.raises(EngineError, match="closed"):
                session.prepare()
        inspector.inspect(PHOTO, product="object")
