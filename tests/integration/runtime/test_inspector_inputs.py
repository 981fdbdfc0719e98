"""What an Inspector is given: arrays, files, and the settings of a camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroflaw import Inspection, InspectionStream, Inspector, errors, read_image

PHOTO = Path(__file__).parents[3] / "examples" / "frames" / "casting_good.jpg"


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


def test_a_stream_takes_what_read_image_returns_and_no_path(inspector: Inspector) -> None:
    with InspectionStream(inspector) as stream:
        stream.submit(read_image(PHOTO), product="object")
        stream.submit(PHOTO, product="object")  # type: ignore[arg-type]
        first, second = stream.drain()
    assert same(first.inspection, inspector.inspect(PHOTO, product="object"))
    assert (second.error.code, second.decision) == ("frame", "hold")


def test_a_camera_is_described_once(inspector: Inspector) -> None:
    colour = read_image(PHOTO)
    bgr = np.ascontiguousarray(colour[:, :, ::-1]).astype(np.uint16) * 16
    expected = inspector.inspect(bgr, product="object", channel_order="bgr", white_level=4095)
    with Inspector.load("mini", channel_order="bgr", white_level=4095) as loaded:
        assert same(loaded.inspect(bgr, product="object"), expected)
        # The call goes before, None included: the largest value of uint16 is white then.
        rgb = colour.astype(np.uint16) * 257
        called = loaded.inspect(rgb, product="object", channel_order="rgb", white_level=None)
        assert same(called, inspector.inspect(rgb, product="object"))
        # A file says its own.
        of_file = inspector.inspect(colour, product="object")
        assert same(loaded.inspect(PHOTO, product="object"), of_file)
        with InspectionStream(loaded) as stream:
            stream.submit(bgr, product="object")
            assert same(stream.poll().inspection, expected)
    with InspectionStream(inspector, channel_order="bgr", white_level=4095) as stream:
        stream.submit(bgr, product="object")
        stream.submit(rgb, product="object", channel_order="rgb", white_level=None)
        camera, call = [result.inspection for result in stream.drain()]
    assert same(camera, expected)
    assert same(call, called)


def test_parameters_cannot_be_changed_behind_the_records(inspector: Inspector) -> None:
    with pytest.raises(AttributeError):
        inspector.parameters = inspector.parameters.replace(cascade_stages=1)  # type: ignore[misc]
