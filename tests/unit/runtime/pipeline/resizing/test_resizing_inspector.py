"""An Inspector whose frames are resized by frame_resizer gives what one with Pillow gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroflaw import Inspector
from zeroflaw.pipeline.resizing import on_device
from zeroflaw.sessions import load_sessions
from zeroflaw_engines.backends import choose_backend, load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import FRAME_RESIZER
from zeroflaw_engines.parameters import MethodParameters

FRAMES = Path(__file__).parents[5] / "examples" / "frames"


def pictures() -> list[np.ndarray]:
    """The example frames, whole, as a tall part, of which columns come first, and as a flat one."""
    whole = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(FRAMES.iterdir())]
    tall = [np.ascontiguousarray(frame[:, : frame.shape[1] // 3]) for frame in whole]
    return [*whole, *tall, np.ascontiguousarray(whole[0][:250])]


def test_a_size_that_was_warmed_up_is_resized_on_the_device_at_once(monkeypatch) -> None:
    bundle = open_bundle("mini")
    sessions = dataclasses.replace(
        load_sessions(bundle, choose_backend("onnxruntime")),
        frame_resizer=load_session(bundle, FRAME_RESIZER),
    )
    frame = pictures()[0]
    with Inspector(bundle, sessions) as inspector:
        inspector.warm_up(frame_size=frame.shape[:2])
        monkeypatch.setattr(on_device, "resized_for_encoders", None)
        inspector.inspect(frame, product=min(bundle.manifest.products))


@pytest.mark.parametrize("sam_input", ["original", "squashed"])
@pytest.mark.parametrize("schedule", ["side_by_side", "clip_first"])
def test_masks_and_maps_are_those_of_the_host(sam_input: str, schedule: str) -> None:
    bundle = open_bundle("mini")
    sessions = load_sessions(bundle, choose_backend("onnxruntime"))
    resizing = dataclasses.replace(
        load_sessions(bundle, choose_backend("onnxruntime")),
        frame_resizer=load_session(bundle, FRAME_RESIZER),
    )
    options = {
        "parameters": MethodParameters(sam_input=sam_input),
        "encoder_schedule": schedule,
    }
    product = min(bundle.manifest.products)
    with (
        Inspector(bundle, sessions, **options) as host,
        Inspector(bundle, resizing, **options) as gpu,
    ):
        resizer = resizing.resizer
        assert resizer is not None
        for frame in pictures():
            want, got = (one.inspect(frame, product=product) for one in (host, gpu))
            np.testing.assert_array_equal(got.anomaly_map, want.anomaly_map)
            np.testing.assert_array_equal(got.mask, want.mask)
            assert got.image_score == want.image_score
        assert not resizer._has_refused
        assert gpu.backend == host.backend
