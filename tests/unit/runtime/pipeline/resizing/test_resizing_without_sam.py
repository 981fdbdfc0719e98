"""On a device, frames for a bundle without SAM are resized for CLIP alone."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from zeroflaw.pipeline.geometry import frame_geometry, resized_for_encoders, squash
from zeroflaw.pipeline.resizing.on_device import DeviceResizer
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import FRAME_RESIZER
from zeroflaw_engines.sessions.device_tensor import on_host


def test_clips_square_is_compared_and_made_and_there_is_no_image_of_sams(rng) -> None:
    frame = rng.integers(0, 256, (90, 140, 3), np.uint8)
    geometry = frame_geometry((90, 140), map_size=32, sam_size=0, feature_size=0, squash_sam=False)
    assert (geometry.sam_content, geometry.sam_size, geometry.feature_size) == ((0, 0), 0, 0)
    with closing(load_session(open_bundle("mini", verify_digests=False), FRAME_RESIZER)) as session:
        resizer = DeviceResizer(session)
        up = resizer.upload(frame, geometry)
        assert up is not None
        assert not resizer.is_wrong
        assert resizer.takes(geometry)
        np.testing.assert_array_equal(on_host(up.squash())[0], squash(frame, 32))
    square, fitted = resized_for_encoders(frame, geometry)
    np.testing.assert_array_equal(square, squash(frame, 32))
    assert fitted.shape == (0, 0, 3)
