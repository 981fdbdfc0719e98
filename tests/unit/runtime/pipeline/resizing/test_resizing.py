"""Resizing in strips against Pillow itself: to the last bit, whatever the sizes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from zeroflaw.pipeline.resizing.strips import Strips, resize

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(3) as made:
        yield made


def settled(pool, count, frame, wanted, resample) -> Strips:
    """Strips that have seen two frames of a size, and found out what there is to know."""
    strips = Strips(pool, count)
    for _ in range(2):
        resize(frame, wanted, resample, strips)
    for found in strips._found.values():
        found.result()
    return strips


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("form", [np.asarray, Image.fromarray])
@pytest.mark.parametrize(
    ("size", "wanted", "resample"),
    [
        ((1024, 1024), (518, 518), BICUBIC),
        ((1024, 1024), (1024, 518), BICUBIC),
        ((1024, 1024), (518, 1024), BICUBIC),
        ((1201, 1999), (518, 518), BICUBIC),
        ((2000, 2600), (518, 518), BICUBIC),  # ten strips, more than there are threads
        ((1500, 1125), (1024, 768), BILINEAR),
        ((480, 640), (768, 1024), BILINEAR),
        ((467, 511), (1024, 1024), BICUBIC),
        ((3, 100_000), (1, 1024), BILINEAR),
        ((100_000, 3), (1024, 1), BILINEAR),  # columns come first here
        ((1500, 1000), (518, 518), BICUBIC),  # and here, in Pillow 13
    ],
)
def test_strips_give_what_the_whole_gives(pool, rng, size, wanted, resample, form, count) -> None:
    frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    want = np.asarray(Image.fromarray(frame).resize(wanted[::-1], resample))
    strips = settled(pool, count, form(frame), wanted, resample)
    got = resize(form(frame), wanted, resample, strips)
    np.testing.assert_array_equal(got, want)


def test_several_threads_share_the_strips(pool, rng) -> None:
    frames = [rng.integers(0, 256, (700, 900, 3), dtype=np.uint8) for _ in range(6)]
    strips = settled(pool, 3, frames[0], (518, 518), BICUBIC)
    with ThreadPoolExecutor(6) as callers:
        got = list(callers.map(lambda frame: resize(frame, (518, 518), BICUBIC, strips), frames))
    for frame, one in zip(frames, got, strict=True):
        want = np.asarray(Image.fromarray(frame).resize((518, 518), BICUBIC))
        np.testing.assert_array_equal(one, want)


def test_a_frame_of_the_size_comes_back_as_it_is(pool, rng) -> None:
    frame = rng.integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    assert resize(frame, (1024, 1024), BILINEAR, Strips(pool, 3)) is frame


def test_the_order_of_pillows_passes_is_found_out_from_pillow(monkeypatch) -> None:
    """With a Pillow that filtered columns first everywhere, nothing would be split."""
    from zeroflaw.pipeline.resizing import strips as resizing

    assert resizing._rows_come_first((1024, 1024), (518, 518), BICUBIC)
    original = Image.Image.resize

    def columns_first(self, size, *arguments):
        halfway = original(self, (self.width, size[1]), *arguments)
        return original(halfway, size, *arguments)

    monkeypatch.setattr(Image.Image, "resize", columns_first)
    assert not resizing._rows_come_first((1024, 1024), (518, 518), BICUBIC)


def test_a_size_that_is_seen_once_costs_nothing_more(pool, rng, monkeypatch) -> None:
    resizes = []
    original = Image.Image.resize

    def counted(self, *arguments, **options):
        resizes.append(self.size)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", counted)
    strips = Strips(pool, 2)
    for width in range(600, 620):
        resize(np.zeros((500, width, 3), np.uint8), (518, 518), BICUBIC, strips)
    assert len(resizes) == 20
    for width in range(600, 700):
        resize(np.zeros((500, width, 3), np.uint8), (518, 518), BICUBIC, strips)
    assert len(strips._found) <= 64


def test_rows_come_first_for_a_frame_of_1024(pool, rng) -> None:
    """Else the host time of docs/performance.md would be that of one core."""
    frame = rng.integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    strips = settled(pool, 2, frame, (518, 518), BICUBIC)
    assert strips.may_split((1024, 1024), (518, 518), BICUBIC)
    assert not Strips(pool, 1).may_split((1024, 1024), (518, 518), BICUBIC)
