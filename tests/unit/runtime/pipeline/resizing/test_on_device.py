"""frame_resizer gives what Pillow gives, to the last bit; here it runs on ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from zeroflaw.pipeline.geometry import FrameGeometry, frame_geometry
from zeroflaw.pipeline.resizing import on_device
from zeroflaw.pipeline.resizing.on_device import DeviceResizer
from zeroflaw.pipeline.resizing.weights import (
    AxisResizing,
    axis_weights,
    columns_come_first,
    fixed_point_weights,
)
from zeroflaw_engines.bundle.shipped import shipped_frame_resizer
from zeroflaw_engines.contract import MAX_FRAME_EXTENT, WEIGHT_UNIT, frame_resizer_contract
from zeroflaw_engines.sessions.device_tensor import on_host
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession

SIZES = 200
# Every frame is resized for one of these pairs of encoders: sides of CLIP's and of SAM's image.
SIDES = ((64, 128), (37, 96), (112, 100), (150, 256))


class CountedSession(OnnxRuntimeSession):
    """A session that knows what was uploaded to it and how often it ran."""

    def __init__(self) -> None:
        super().__init__(shipped_frame_resizer().path, frame_resizer_contract(), threads=1)
        self.uploads: list[tuple[str, tuple[int, ...]]] = []
        self.runs = 0

    def upload(self, name, array):
        self.uploads.append((name, array.shape))
        return super().upload(name, array)

    def execute(self, inputs, *, keep=()):
        self.runs += 1
        return super().execute(inputs, keep=keep)


@pytest.fixture
def session() -> Iterator[CountedSession]:
    one = CountedSession()
    yield one
    one.close()


def geometry_for(frame: tuple[int, int], number: int = 0) -> FrameGeometry:
    map_size, sam_size = SIDES[number % len(SIDES)]
    return frame_geometry(
        frame,
        map_size=map_size,
        sam_size=sam_size,
        feature_size=8,
        squash_sam=number % 3 == 2,
    )


def frame_sizes() -> list[tuple[int, int]]:
    """Heights and widths: of all kinds, tall and flat ones, single rows, what stays as it is."""
    rng = np.random.default_rng(16)
    sizes = [tuple(int(n) for n in rng.integers(2, 320, 2)) for _ in range(SIZES - 90)]
    sizes += [(int(n), int(n) // 3 + 1) for n in rng.integers(150, 500, 30)]
    sizes += [(int(n) // 4 + 1, int(n)) for n in rng.integers(150, 500, 20)]
    sizes += [(1, int(n)) for n in rng.integers(1, 200, 8)]
    sizes += [(int(n), 1) for n in rng.integers(1, 200, 8)]
    sizes += [SIDES[n % 4][n % 2] * np.ones(2, int) for n in range(12)]
    sizes += [(int(a), int(b)) for a, b in rng.integers(2, 30, (8, 2))]
    sizes += [(1024, 1024), (560, 630), (1280, 720), (900, 300)]
    return [(int(height), int(width)) for height, width in sizes]


def drawn(size: tuple[int, int], number: int) -> np.ndarray:
    """Noise, and every other time black and white alone, where filters overshoot most."""
    rng = np.random.default_rng(number)
    noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    return noise if number % 2 else np.where(noise > 127, 255, 0).astype(np.uint8)


def by_pillow(frame: np.ndarray, geometry: FrameGeometry) -> tuple[np.ndarray, np.ndarray]:
    image = Image.fromarray(frame)
    side = geometry.map_size
    squashed = image.resize((side, side), Image.Resampling.BICUBIC)
    source = image if geometry.sam_source == geometry.frame else squashed
    content = source.resize(geometry.sam_content[::-1], Image.Resampling.BILINEAR)
    padded = Image.new("RGB", (geometry.sam_size, geometry.sam_size))
    padded.paste(content, (0, 0))
    return np.asarray(squashed), np.asarray(padded)


def test_two_hundred_sizes_are_pillows_to_the_last_bit(session: CountedSession) -> None:
    resizer = DeviceResizer(session)
    on_the_host, columns_first = [], 0
    sizes = frame_sizes()
    assert len(sizes) == SIZES
    for number, size in enumerate(sizes):
        frame, geometry = drawn(size, number), geometry_for(size, number)
        up = resizer.upload(frame, geometry)
        if up is None:
            on_the_host.append(size)
            continue
        columns_first += columns_come_first(size, (geometry.map_size,) * 2)
        squashed, fitted = by_pillow(frame, geometry)
        np.testing.assert_array_equal(on_host(up.squash())[0], squashed, str(size))
        np.testing.assert_array_equal(on_host(up.fit())[0], fitted, str(size))
    assert not on_the_host
    if Image.__version__ >= "13":
        assert columns_first > 40, "both orders are among them"


def test_a_camera_frame_for_full_size_encoders(session: CountedSession) -> None:
    geometry = frame_geometry(
        (2048, 1500), map_size=518, sam_size=1024, feature_size=64, squash_sam=False
    )
    frame = drawn((2048, 1500), 0)
    up = DeviceResizer(session).upload(frame, geometry)
    assert up is not None
    squashed, fitted = by_pillow(frame, geometry)
    np.testing.assert_array_equal(on_host(up.squash())[0], squashed)
    np.testing.assert_array_equal(on_host(up.fit())[0], fitted)


@pytest.mark.parametrize(
    ("source", "content", "resample"),
    [
        (4096, 448, "bicubic"),
        (4096, 518, "bicubic"),
        (3000, 518, "bilinear"),
        (512, 1024, "bicubic"),
    ],
)
def test_the_sums_that_grow_most_are_exact(
    session: CountedSession, source: int, content: int, resample: str
) -> None:
    """White wherever the fine part of some pixel's weights is positive, or negative: no more."""
    weights = axis_weights(AxisResizing(source, content, content, resample))
    assert weights is not None
    fine = weights[1]
    worst = {
        int(side.sum(axis=1, dtype=np.float64).argmax())
        for side in (fine.clip(0), -fine.clip(None, 0))
    }
    pillows = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[resample]
    one = axis_weights(AxisResizing(1, 1, 1, resample))
    for place in worst:
        for sign in (1, -1):
            frame = np.repeat(np.where(sign * fine[place] > 0, 255, 0)[None, :, None], 3, 2)
            frame = frame.astype(np.uint8)
            got = session.execute({"frame": frame, "row_weights": one, "column_weights": weights})
            want = np.asarray(Image.fromarray(frame).resize((content, 1), pillows))
            np.testing.assert_array_equal(got["image"][0], want)


def test_weights_are_whole_and_make_up_pillows_own() -> None:
    parts = axis_weights(AxisResizing(1000, 300, 310, "bicubic"))
    assert parts is not None
    assert parts.dtype == np.float16
    coarse, fine = parts.astype(np.int64)
    np.testing.assert_array_equal(coarse, parts[0])
    whole = coarse * WEIGHT_UNIT + fine
    np.testing.assert_array_equal(whole[:300], fixed_point_weights(1000, 300, "bicubic"))
    assert not whole[300:].any()
    # Pillow's weights of a pixel make up one, but for the rounding of each.
    assert abs(whole[:300].sum(axis=1) - (1 << 22)).max() < 20


def test_sizes_that_cannot_be_summed_exactly_are_the_hosts(
    session: CountedSession, caplog: pytest.LogCaptureFixture
) -> None:
    assert axis_weights(AxisResizing(4000, 40, 40, "bicubic")) is None
    resizer = DeviceResizer(session)
    tall = geometry_for((3000, 60), 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert resizer.upload(np.zeros((3000, 60, 3), np.uint8), tall) is None
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "frames of 60 x 3000 px are resized on the host"
    ]
    assert not any(name == "frame" for name, _ in session.uploads)


def test_frames_beyond_the_engines_profile_are_the_hosts(session: CountedSession) -> None:
    size = (40, MAX_FRAME_EXTENT + 1)
    assert DeviceResizer(session).upload(np.zeros((*size, 3), np.uint8), geometry_for(size)) is None
    assert not session.runs


def test_a_frame_goes_up_once_and_weights_once_a_size(session: CountedSession) -> None:
    resizer = DeviceResizer(session, checks=False)
    size = (120, 160)
    for number in range(3):
        up = resizer.upload(drawn(size, number), geometry_for(size))
        assert up is not None
        up.squash()
        up.fit()
    names = [name for name, _ in session.uploads]
    assert names.count("frame") == 3
    assert len(names) - 3 == 4, "height and width for CLIP, height and width for SAM"
    assert session.runs == 6


def test_columns_first_takes_two_calls_and_what_fits_takes_none(session: CountedSession) -> None:
    resizer = DeviceResizer(session, checks=False)
    tall = resizer.upload(np.zeros((300, 80, 3), np.uint8), geometry_for((300, 80)))
    assert tall is not None
    tall.squash()
    assert session.runs == (2 if columns_come_first((300, 80), (64, 64)) else 1)
    square = resizer.upload(np.zeros((64, 64, 3), np.uint8), geometry_for((64, 64)))
    assert square is not None
    runs = session.runs
    square.squash()
    assert session.runs == runs


def test_old_weights_make_room(session: CountedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "_WEIGHT_BYTES", 100_000)
    resizer = DeviceResizer(session, checks=False)
    for width in range(100, 130):
        frame, geometry = drawn((90, width), width), geometry_for((90, width))
        up = resizer.upload(frame, geometry)
        assert up is not None
        np.testing.assert_array_equal(on_host(up.squash())[0], by_pillow(frame, geometry)[0])
    assert sum(map(on_device._bytes, resizer._weights)) <= 100_000


def test_threads_share_it(session: CountedSession) -> None:
    resizer = DeviceResizer(session, checks=False)

    def differs(number: int) -> bool:
        size = (60 + number % 5, 90)
        frame, geometry = drawn(size, number), geometry_for(size, number)
        up = resizer.upload(frame, geometry)
        assert up is not None
        return not np.array_equal(on_host(up.fit())[0], by_pillow(frame, geometry)[1])

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(differs, range(40)))


class WrongSession(CountedSession):
    """One that is off by one level in one pixel of SAM's image."""

    def execute(self, inputs, *, keep=()):
        out = super().execute(inputs, keep=keep)
        image = on_host(out["image"])
        if image.shape[1] == SIDES[0][1]:
            image[0, 7, 5, 1] ^= 1
        return out


def test_a_device_that_is_wrong_resizes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    session = WrongSession()
    resizer = DeviceResizer(session)
    assert not resizer.is_wrong
    for number in range(2):
        assert resizer.upload(drawn((90, 120), number), geometry_for((90, 120))) is None
    assert resizer.is_wrong
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1
    assert "other values than Pillow for frames of 120 x 90 px" in said[0].getMessage()
    session.close()


def test_the_first_frame_of_a_size_is_compared_and_no_other(session: CountedSession) -> None:
    resizer = DeviceResizer(session)
    flat = np.full((90, 120, 3), 7, np.uint8)
    for frame in (flat, flat, drawn((90, 120), 0), drawn((90, 120), 1)):
        assert resizer.upload(frame, geometry_for((90, 120))) is not None
    # Of one colour nothing is learned: three frames were compared, each for CLIP and for SAM.
    assert session.runs == 3 * 2
    resizer.upload(drawn((91, 120), 2), geometry_for((91, 120)))
    assert session.runs == 4 * 2
