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


ZONES = {
    "half": np.s_[:, :300],
    "a corner": np.s_[:37, :40],
    "a stripe": np.s_[201:203, :],
    "one row": np.s_[200, :],
    "one pixel": np.s_[123, 321],
}


def in_zone(name, shape=(400, 600)):
    judged = np.zeros(shape, np.bool_)
    judged[ZONES[name]] = True
    return judged


def diagonal(width, shape=(400, 600)):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.abs(y - x * shape[0] / shape[1]) < width


@pytest.mark.parametrize("zone", ZONES)
def test_what_is_outside_of_the_zones_counts_for_nothing(zone, rng):
    frame, judged = rng.integers(0, 256, (400, 600, 3), dtype=np.uint8), in_zone(zone)
    seen = frame_information(frame, judged)
    for paint in (0, 255, 128):
        assert (
            frame_information(np.where(judged[..., None], frame, np.uint8(paint)), judged) == seen
        )


def test_all_that_is_judged_is_measured_as_the_whole_frame_is():
    for photo in PHOTOS.values():
        frame = rgb(photo())
        judged = np.ones(frame.shape[:2], np.bool_)
        whole, seen = frame_information(frame), frame_information(frame, judged)
        # The plain measure rounds to a whole level at each halving.
        assert seen.contrast == pytest.approx(whole.contrast, abs=3.1 / 255)
        assert (seen.clipped, seen.peak) == (whole.clipped, whole.peak)


@pytest.mark.parametrize("judged", [in_zone("a stripe"), in_zone("one row"), diagonal(0.4)])
@pytest.mark.parametrize("level", [0, 255])
def test_a_thin_zone_is_seen_between_the_pixels_of_the_grid(judged, level):
    frame = rgb(np.full(judged.shape, 128, np.uint8))
    frame[..., 1] += (np.arange(judged.shape[1]) // 8).astype(np.uint8)
    whole = frame_information(frame, judged)
    assert whole.clipped == 0
    assert whole.contrast == pytest.approx(69 / 255, abs=6 / 255)
    frame[judged] = level
    seen = frame_information(frame, judged)
    assert (seen.clipped, seen.contrast, seen.peak) == (1, 0, level / 255)


@pytest.mark.parametrize("sigma", [0, 5, 10])
@pytest.mark.parametrize(
    "judged", [in_zone("half"), in_zone("a corner"), in_zone("a stripe"), diagonal(3)]
)
def test_the_noise_of_a_sensor_is_no_information_in_a_zone_either(judged, sigma):
    noise = np.random.default_rng(0).normal(128, sigma, judged.shape)
    frame = rgb(np.clip(np.round(noise), 0, 255).astype(np.uint8))
    information = frame_information(frame, judged)
    assert blind_reason(information, MethodParameters()).code == "low_contrast"


def test_a_dark_zone_is_dark_whatever_shines_beside_it():
    judged = in_zone("half")
    frame = np.zeros((400, 600, 3), np.uint8)
    frame[:, 300:] = 255
    frame[333, 277, 1] = 16
    information = frame_information(frame, judged)
    assert (information.peak, information.clipped) == (16 / 255, 1.0)
    assert blind_reason(information, MethodParameters()).code == "dark"
