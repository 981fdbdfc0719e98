"""Resizing in bands against Pillow itself: to the last bit, whatever the sizes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from zeroflaw.resizing import Bands, resize

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(3) as made:
        yield made


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("form", [np.asarray, Image.fromarray])
@pytest.mark.parametrize(
    ("size", "wanted", "resample"),
    [
        ((1024, 1024), (518, 518), BICUBIC),
        ((1024, 1024), (1024, 518), BICUBIC),
        ((1024, 1024), (518, 1024), BICUBIC),
        ((1201, 1999), (518, 518), BICUBIC),
        ((1500, 1125), (1024, 768), BILINEAR),
        ((480, 640), (768, 1024), BILINEAR),
        ((467, 511), (1024, 1024), BICUBIC),
        ((3, 100_000), (1, 1024), BILINEAR),
        ((100_000, 3), (1024, 1), BILINEAR),  # columns come first here
        ((1500, 1000), (518, 518), BICUBIC),  # and here, in Pillow 13
    ],
)
def test_bands_give_what_the_whole_gives(pool, rng, size, wanted, resample, form, count) -> None:
    frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    want = np.asarray(Image.fromarray(frame).resize(wanted[::-1], resample))
    got = resize(form(frame), wanted, resample, Bands(pool, count))
    np.testing.assert_array_equal(got, want)


def test_several_threads_share_the_bands(pool, rng) -> None:
    frames = [rng.integers(0, 256, (700, 900, 3), dtype=np.uint8) for _ in range(6)]
    bands = Bands(pool, 3)
    with ThreadPoolExecutor(6) as callers:
        got = list(callers.map(lambda frame: resize(frame, (518, 518), BICUBIC, bands), frames))
    for frame, one in zip(frames, got, strict=True):
        want = np.asarray(Image.fromarray(frame).resize((518, 518), BICUBIC))
        np.testing.assert_array_equal(one, want)


def test_a_frame_of_the_size_comes_back_as_it_is(pool, rng) -> None:
    frame = rng.integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    assert resize(frame, (1024, 1024), BILINEAR, Bands(pool, 3)) is frame


def test_the_order_of_pillows_passes_is_found_out_from_pillow(monkeypatch) -> None:
    """With a Pillow that filtered columns first everywhere, nothing would be split."""
    from zeroflaw import resizing

    assert resizing._rows_come_first.__wrapped__((1024, 1024), (518, 518), BICUBIC)
    original = Image.Image.resize

    def columns_first(self, size, *arguments):
        halfway = original(self, (self.width, size[1]), *arguments)
        return original(halfway, size, *arguments)

    monkeypatch.setattr(Image.Image, "resize", columns_first)
    assert not resizing._rows_come_first.__wrapped__((1024, 1024), (518, 518), BICUBIC)
