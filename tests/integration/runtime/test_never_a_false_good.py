"""Nothing that was not seen is accepted: tampered engine outputs and odd frames."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
from skimage import data

from support.products.learned_product import bank_of, store
from zeroflaw import Inspector
from zeroflaw_benchmarks.verify.false_goods import (
    REFUSED,
    originals_of,
    try_odd_frames,
    try_tampered_outputs,
)
from zeroflaw_benchmarks.verify.odd_frames import ODDITIES
from zeroflaw_benchmarks.verify.tampered_outputs import TAMPERINGS
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import EngineError


@pytest.fixture(scope="module")
def tried(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory):
    """An Inspector that accepts every frame in which it sees anything, and a photograph.

    Its product has a reference bank, so that every engine and output matters.
    """
    path = tmp_path_factory.mktemp("learned") / "b"
    shutil.copytree(tiny_bundle.path, path)
    with Inspector.load(path) as loaded:
        photo = np.ascontiguousarray(data.coffee()[:300, :300])
        store(path, "object", bank_of(loaded, [photo], 5))
        loaded.reload()
        parameters = loaded.parameters.replace(decision_threshold=1.0, image_scoring="map_max")
        inspector = Inspector(loaded.bundle, loaded.sessions, parameters=parameters)
        originals = originals_of(inspector, [np.ascontiguousarray(data.coffee())], "object")
        assert [original.decision for original in originals] == ["accept"]
        yield inspector, originals


def test_values_that_no_engine_returns_are_never_accepted(tried) -> None:
    inspector, originals = tried
    tally = try_tampered_outputs(inspector, originals, "object", 7 * len(TAMPERINGS))
    assert {kind.partition(": ")[0] for kind in tally.outcomes} >= {"patch_tokens", "reference_map"}
    for kind, outcomes in tally.outcomes.items():
        output, _, tampering = kind.partition(": ")
        plausible = tampering in {"negative", "above 1", "past 3e38 everywhere"}
        if output not in {"anomaly_map", "image_score", "reference_map"} and plausible:
            continue  # tokens, features, logits and IoUs may have any finite value
        assert set(outcomes) == {REFUSED}, kind


def test_odd_frames_are_never_accepted(tried) -> None:
    inspector, originals = tried
    tally = try_odd_frames(inspector, originals, "object", 3 * len(ODDITIES))
    for kind, outcomes in tally.outcomes.items():
        assert set(outcomes) <= {"hold", REFUSED}, kind


def test_a_nan_fails_and_the_next_frame_is_inspected(tried) -> None:
    inspector, originals = tried
    session, photo = inspector.sessions.clip_encoder, originals[0].frame

    def returns_nan(inputs, *, keep=()):
        outputs = type(session).execute(session, inputs, keep=keep)
        return {**outputs, "image_score": np.full(1, np.nan, np.float32)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "execute", returns_nan, raising=False)
        with pytest.raises(EngineError, match="image_score"):
            inspector.inspect(photo, product="object")
    assert inspector.inspect(photo, product="object").decision == "accept"


def test_contradictions_are_said_and_can_hold(tried) -> None:
    inspector, originals = tried
    lenient = inspector.parameters.replace(extreme_threshold=0.01)
    for choice, decision in (("warn", "accept"), ("hold", "hold")):
        other = Inspector(
            inspector.bundle,
            inspector.sessions,
            parameters=lenient.replace(contradiction=choice),
        )
        inspection = other.inspect(originals[0].frame, product="object")
        assert inspection.regions
        assert inspection.decision == decision
        said = [*inspection.warnings, inspection.reason.text]
        assert any("the mask covers" in text for text in said)


def test_the_record_names_the_frame_as_it_was_inspected(tried) -> None:
    inspector, originals = tried
    photo = originals[0].frame.copy()
    wanted = hashlib.sha256(photo.tobytes()).hexdigest()
    inspection = inspector.inspect(
        photo, product="object", part_id="4711", frame_id="7", camera_id="left"
    )
    photo[:] = 0  # the camera writes the next frame
    assert inspection.frame_sha256 == inspection.record().frame_sha256 == wanted
    assert (inspection.part_id, inspection.frame_id, inspection.camera_id) == ("4711", "7", "left")
    mono = inspector.inspect(originals[0].frame[..., 0].astype(np.uint16) * 257, product="object")
    as_rgb = np.dstack([originals[0].frame[..., 0]] * 3)
    assert mono.frame_sha256 == hashlib.sha256(as_rgb.tobytes()).hexdigest()
