"""frame_resizer as a built engine on the simulated GPU: frames of any size, one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from support.gpu.built_engines import publish
from support.gpu.engine_calls import engine_version
from zeroflaw.pipeline.geometry import frame_geometry
from zeroflaw.pipeline.resizing.on_device import DeviceResizer
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import FRAME_RESIZER
from zeroflaw_engines.errors import EngineContractError
from zeroflaw_engines.sessions.cuda_tensor import CudaTensor
from zeroflaw_engines.sessions.session import Session


@pytest.fixture
def session(bundle: Bundle, gpu) -> Session:
    contract = bundle.contract(FRAME_RESIZER)
    plan = b"plan of frame_resizer" * 9
    publish(bundle, FRAME_RESIZER, plan=plan, version=engine_version(), precision="fp16")
    gpu.graphs[plan] = (bundle.onnx_path(FRAME_RESIZER), contract)
    gpu.axes = {axis: (1, most // 8) for axis, most in contract.limits.items()}
    return load_session(bundle, FRAME_RESIZER, backend="tensorrt-rtx")


def test_frames_of_changing_sizes_stay_on_the_device(session: Session, gpu) -> None:
    session.prepare()
    resizer = DeviceResizer(session, checks=False)
    rng = np.random.default_rng(3)
    for size in ((120, 90), (200, 50), (60, 200), (120, 90)):
        frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        geometry = frame_geometry(size, map_size=56, sam_size=96, feature_size=6, squash_sam=False)
        gpu.cuda.copies.clear()
        up = resizer.upload(frame, geometry)
        assert up is not None
        squashed, fitted = up.squash(), up.fit()
        assert isinstance(squashed, CudaTensor)
        assert isinstance(fitted, CudaTensor)
        kinds = [kind for kind, size_ in gpu.cuda.copies if size_ == frame.nbytes]
        assert kinds.count("HostToDevice") == 1
        assert "DeviceToHost" not in {kind for kind, _ in gpu.cuda.copies}
        image = Image.fromarray(frame)
        np.testing.assert_array_equal(squashed.numpy()[0], image.resize((56, 56), 3))
        height, width = geometry.sam_content
        want = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(fitted.numpy()[0, :height, :width], want)


def test_frames_that_follow_each_other_pin_no_memory_anew(session: Session, gpu) -> None:
    frames = [np.full((40, 50, 3), value, np.uint8) for value in range(4)]
    session.upload("frame", frames[0])
    pinned = gpu.cuda.calls["cudaMallocHost"]
    kept = [session.upload("frame", frame) for frame in frames]
    assert gpu.cuda.calls["cudaMallocHost"] == pinned
    for tensor, frame in zip(kept, frames, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), frame)


def test_frames_beyond_the_profile_are_refused(session: Session) -> None:
    weights = np.zeros((2, 1, 513), np.float16)
    given = {"frame": np.zeros((513, 1, 3), np.uint8), "row_weights": weights}
    with pytest.raises(EngineContractError, match="takes 1 to 512 in the axis 'height'"):
        session.execute({**given, "column_weights": np.zeros((2, 1, 1), np.float16)})
