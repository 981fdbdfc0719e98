"""How much there is to see in a frame, against NumPy's plain means and counts."""

import numpy as np
import pytest
from skimage import data

from zeroflaw.decision import blind_reason
from zeroflaw.frame_information import frame_information
from zeroflaw.geometry import squash
from zeroflaw_engines.parameters import MethodParameters

SIZE = 448
PHOTOS = {"coffee": data.coffee, "astronaut": data.astronaut, "brick": data.brick}


def measured(frame, size=SIZE):
    return frame_information(frame, squash(frame, size))


def rgb(image):
    return np.ascontiguousarray(np.dstack([image] * 3) if image.ndim == 2 else image)


@pytest.mark.parametrize("size", [448, 518, 30, 9])
@pytest.mark.parametrize("photo", PHOTOS)
def test_contrast_is_that_of_means_over_8_by_8_pixels(photo, size):
    squashed = squash(rgb(PHOTOS[photo]()), size).astype(float)
    # Halvings leave an odd last row and column out, each time.
    blocks = squashed
    for _ in range(3):
        even = blocks[: blocks.shape[0] // 2 * 2, : blocks.shape[1] // 2 * 2]
        blocks = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    wanted = (blocks.max(axis=(0, 1)) - blocks.min(axis=(0, 1))).max() / 255
    # Each halving rounds to a whole level.
    assert measured(rgb(PHOTOS[photo]()), size).contrast == pytest.approx(wanted, abs=3.1 / 255)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_clipped_is_the_share_of_black_and_white_pixels(share, level):
    frame = rgb(data.brick().clip(5, 250).astype(np.uint8))
    frame[: int(share * len(frame))] = level
    assert measured(frame).clipped == pytest.approx(share, abs=0.01)


def test_one_channel_at_its_end_is_not_clipped():
    frame = rgb(data.brick().clip(5, 250).astype(np.uint8))
    frame[..., 0] = 255
    assert measured(frame).clipped == 0


def test_peak_is_that_of_any_pixel():
    frame = np.zeros((700, 900, 3), np.uint8)
    frame[333, 777, 1] = 51
    assert measured(frame).peak == pytest.approx(0.2)


@pytest.mark.parametrize("sigma", [0, 1, 5, 10, 20])
@pytest.mark.parametrize("level", [40, 128, 200])
def test_the_noise_of_a_sensor_is_no_information(sigma, level):
    noise = np.random.default_rng(0).normal(level, sigma, (1024, 1024))
    frame = rgb(np.clip(np.round(noise), 0, 255).astype(np.uint8))
    assert blind_reason(measured(frame), MethodParameters()).code == "low_contrast"


@pytest.mark.parametrize("photo", PHOTOS)
def test_photographs_have_information(photo):
    assert blind_reason(measured(rgb(PHOTOS[photo]())), MethodParameters()) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (5, 4000)])
def test_frames_of_any_shape_are_measured(shape):
    frame = np.random.default_rng(0).integers(20, 230, (*shape, 3)).astype(np.uint8)
    information = measured(frame)
    assert 0 <= information.contrast <= 1
    assert information.clipped == 0
    assert information.peak == frame.max() / 255
