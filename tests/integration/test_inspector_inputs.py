"""What an Inspector is given: arrays, files, and the settings of a camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroflaw import Inspection, InspectionStream, Inspector, errors, read_image

PHOTO = Path(__file__).parents[2] / "examples" / "frames" / "casting_good.jpg"


@pytest.fixture(scope="module")
def inspector() -> Iterator[Inspector]:
    with Inspector.load("mini") as loaded:
        yield loaded


def same(a: Inspection, b: Inspection) -> bool:
    return (
        a.frame_sha256 == b.frame_sha256
        and np.array_equal(a.mask, b.mask)
        and np.array_equal(a.score_map, b.score_map)
        and a.image_score == b.image_score
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_gives_what_its_pixels_give(inspector: Inspector, kind: type) -> None:
    by_path = inspector.inspect(kind(PHOTO), product="object")
    assert same(by_path, inspector.inspect(read_image(PHOTO), product="object"))


def test_a_file_says_its_white_level_unless_the_call_does(
    inspector: Inspector, tmp_path: Path
) -> None:
    deep = np.asarray(Image.open(PHOTO).convert("L")).astype(np.uint16) * 16
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    by_path = inspector.inspect(path, product="object", white_level=4095)
    assert same(by_path, inspector.inspect(deep, product="object", white_level=4095))
    maxval = tmp_path / "deep.pgm"
    height, width = deep.shape
    maxval.write_bytes(b"P5 %d %d 4095\n" % (width, height) + deep.astype(">u2").tobytes())
    assert same(inspector.inspect(maxval, product="object"), by_path)


def test_what_is_to_be_known_of_a_file_is_in_the_result(
    inspector: Inspector, tmp_path: Path
) -> None:
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(PHOTO)
    picture.save(path, exif=exif)
    seen = inspector.inspect(path, product="object")
    assert any(str(path) in text and "orientation" in text for text in seen.warnings)
    assert seen.frame_size == picture.size[::-1]


def test_files_that_are_no_pictures_are_refused(inspector: Inspector, tmp_path: Path) -> None:
    cut, text = tmp_path / "cut.jpg", tmp_path / "text.png"
    cut.write_bytes(PHOTO.read_bytes()[:5000])
    text.write_text("a part")
    # The last but one is a product's name, given for the picture.
    for path in (cut, text, tmp_path, tmp_path / "missing.png", "", "object", "a\0b.png"):
        with pytest.raises(errors.ImageFileError):
            inspector.inspect(path, product="object")
    with pytest.raises(errors.FrameError, match="must be a NumPy array, not bytes"):
        inspector.inspect(PHOTO.read_bytes(), product="object")  # type: ignore[arg-type]


def test_the_order_of_a_files_channels_is_its_own(inspector: Inspector) -> None:
    with pytest.raises(errors.FrameError, match="channel order 'bgr' was given for the file"):
        inspector.inspect(PHOTO, product="object", channel_order="bgr")


def test_large_files_are_refused_before_they_are_decoded() -> None:
    with (
        Inspector.load("mini", max_frame_pixels=1000) as loaded,
        pytest.raises(errors.ImageFileError, match="limit"),
    ):
        loaded.inspect(PHOTO, product="object")


def test_a_stream_takes_paths(inspector: Inspector) -> None:
    with InspectionStream(inspector) as stream:
        for path in (PHOTO, str(PHOTO), "missing.png"):
            stream.submit(path, product="object")
        first, second, third = stream.drain()
    assert first.inspection is not None
    assert second.inspection is not None
    assert same(first.inspection, second.inspection)
    assert same(first.inspection, inspector.inspect(PHOTO, product="object"))
    assert third.error is not None
    assert (third.error.code, third.decision) == ("image_file", "hold")
