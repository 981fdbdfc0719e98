"""Orientation, white level, size limits: what holds for every format."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from support.damaged_files import photograph, whole_files
from zeroflaw.pictures.images import read_image
from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files import IMAGE_SUFFIXES, file_frame, read_image_file
from zeroflaw_engines.image_files.frame import rgb_frame

PIXELS = photograph((40, 64))


def tagged(path, kind, tag):
    if kind == "TIFF":
        entry = (274, "H", 1, tag, True)
        tifffile.imwrite(path, PIXELS, photometric="rgb", extratags=[entry], metadata=None)
        return PIXELS
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(PIXELS).save(path, kind, exif=exif, **options)
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_one_policy_for_all_formats(tmp_path, kind, tag):
    path = tmp_path / "image"
    stored = tagged(path, kind, tag)
    file = read_image_file(path)
    np.testing.assert_array_equal(file.pixels, stored)
    assert (file.orientation_tag, file.orientation) == (tag, "as_stored")
    assert [f"orientation tag is {tag}" in text for text in file.warnings] == [True] * (tag > 1)
    picture = Image.fromarray(stored)
    picture.getexif()[0x0112] = tag
    turned = read_image_file(path, orientation="apply")
    np.testing.assert_array_equal(turned.pixels, np.asarray(ImageOps.exif_transpose(picture)))
    assert turned.pixels.flags.c_contiguous
    assert [("turned" in text) for text in turned.warnings] == [True] * (tag > 1)


@pytest.mark.parametrize("tag", [0, 9, 4711])
def test_tags_that_mean_nothing(tmp_path, tag):
    path = tmp_path / "image"
    tagged(path, "PNG", tag)
    file = read_image_file(path, orientation="apply")
    np.testing.assert_array_equal(file.pixels, PIXELS)
    assert file.warnings == ()


def test_pixels_for_inspect_are_those_of_the_frame(tmp_path):
    for bits in (10, 12, 14):
        white = (1 << bits) - 1
        values = np.arange(white + 1, dtype=np.uint16).reshape(-1, 64)
        path = tmp_path / "all.pgm"
        head = b"P5\n64 %d\n%d\n" % (len(values), white)
        path.write_bytes(head + values.astype(">u2").tobytes())
        frame = file_frame(read_image_file(path))
        np.testing.assert_array_equal(frame, rgb_frame(values, white_level=white))
        pixels = read_image(path)
        assert (pixels.dtype, pixels.max()) == (np.uint16, 65535)
        np.testing.assert_array_equal(rgb_frame(pixels), frame)
        path.write_bytes(head.replace(b"%d\n" % white, b"65535\n") + values.astype(">u2").tobytes())
        np.testing.assert_array_equal(rgb_frame(read_image(path, white_level=white)), frame)


@pytest.mark.parametrize("coding", whole_files(PIXELS))
def test_sizes_are_checked_before_anything_is_decoded(tmp_path, coding):
    path = tmp_path / "image"
    path.write_bytes(whole_files(PIXELS)[coding])
    with pytest.raises(ImageFileError, match="64x40 px, over the limit") as caught:
        read_image_file(path, max_pixels=64 * 40 - 1)
    assert "tiles" in caught.value.remedy
    assert read_image_file(path, max_pixels=64 * 40).pixels.shape[:2] == (40, 64)


@pytest.mark.parametrize("white", [0, -1, float("nan"), float("inf"), "4095", True])
def test_white_levels_that_are_none(tmp_path, white):
    with pytest.raises(ImageFileError, match="the white level is"):
        read_image_file(tmp_path / "image.png", white_level=white)


def test_content_counts_not_the_suffix(tmp_path):
    for name in ("noext", "photo.JPG", "photo.bmp", "photo.txt"):
        Image.fromarray(PIXELS).save(tmp_path / name, "PNG")
        assert read_image_file(tmp_path / name).format == "PNG"
    assert {
        ".jpe",
        ".jfif",
        ".mpo",
        ".jp2",
        ".j2k",
        ".gif",
        ".pbm",
        ".pnm",
        ".pfm",
    } < IMAGE_SUFFIXES
    assert ".avif" not in IMAGE_SUFFIXES


def test_decoders_are_loaded_by_the_first_file_that_needs_them():
    code = (
        "import sys, zeroflaw; heavy = {'tifffile', 'imagecodecs', 'simplejpeg', 'torch'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
