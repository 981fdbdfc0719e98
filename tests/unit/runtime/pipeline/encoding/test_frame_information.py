"""How much there is to see in a frame, against NumPy's plain means and counts."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from zeroflaw.pipeline.encoding.frame_information import frame_information
from zeroflaw.records.decision import blind_reason
from zeroflaw_engines.parameters import MethodParameters

PHOTOS = {"coffee": data.coffee, "astronaut": data.astronaut, "brick": data.brick}


def rgb(image):
    return np.ascontiguousarray(np.dstack([image] * 3) if image.ndim == 2 else image)


@pytest.mark.parametrize("size", [(512, 1024), (128, 128), (30, 77), (9, 200)])
@pytest.mark.parametrize("photo", PHOTOS)
def test_contrast_is_that_of_means_over_8_by_8_pixels_of_the_grid(photo, size):
    frame = np.array(Image.fromarray(rgb(PHOTOS[photo]())).resize(size[::-1]))
    grid = frame
    for axis, extent in enumerate(size):
        if extent > 128:  # the pixels at the centres of 128 equal parts
            centres = ((np.arange(128) + 0.5) * extent / 128).astype(int)
            grid = np.take(grid, centres, axis=axis)
    means = grid.astype(float)
    for _ in range(3):
        even = means[: means.shape[0] // 2 * 2, : means.shape[1] // 2 * 2]
        means = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    wanted = (means.max(axis=(0, 1)) - means.min(axis=(0, 1))).max() / 255
    # Each halving rounds to a whole level.
    assert frame_information(frame).contrast == pytest.approx(wanted, abs=3.1 / 255)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_clipped_is_the_share_of_black_and_white_pixels(share, level):
    frame = rgb(data.brick().clip(5, 250).astype(np.uint8))
    frame[: int(share * len(frame))] = level
    assert frame_information(frame).clipped == pytest.approx(share, abs=0.01)


def test_one_channel_at_its_end_is_not_clipped():
    frame = rgb(data.brick().clip(5, 250).astype(np.uint8))
    frame[..., 0] = 255
    assert frame_information(frame).clipped == 0


@pytest.mark.parametrize("sigma", [0, 1, 5, 10])
@pytest.mark.parametrize("level", [40, 128, 200])
def test_the_noise_of_a_sensor_is_no_information(sigma, level):
    noise = np.random.default_rng(0).normal(level, sigma, (1024, 1024))
    frame = rgb(np.clip(np.round(noise), 0, 255).astype(np.uint8))
    assert blind_reason(frame_information(frame), MethodParameters()).code == "low_contrast"


@pytest.mark.parametrize("photo", PHOTOS)
def test_photographs_have_information(photo):
    assert blind_reason(frame_information(rgb(PHOTOS[photo]())), MethodParameters()) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (5, 4000)])
def test_frames_of_any_shape_are_frame_information(shape):
    frame = np.random.default_rng(0).integers(20, 230, (*shape, 3)).astype(np.uint8)
    information = frame_information(frame)
    assert 0 <= information.contrast <= 1
    assert information.clipped == 0
    assert 20 / 255 <= information.peak <= frame.max() / 255


@pytest.mark.parametrize("level", [0, 16, 17, 32])
def test_the_peak_of_a_dark_frame_is_that_of_every_pixel(level):
    frame = np.zeros((700, 900, 3), np.uint8)
    frame[333, 777, 1] = level
    assert frame_information(frame).peak == level / 255
