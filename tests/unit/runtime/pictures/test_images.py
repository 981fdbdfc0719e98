from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from zeroflaw.pictures.images import read_image, write_image
from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files.frame import rgb_frame


@pytest.fixture
def pixels(rng) -> np.ndarray:
    return rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
def test_lossless_files_come_back_as_they_were(tmp_path, pixels, suffix) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(pixels).save(path, lossless=True)
    np.testing.assert_array_equal(read_image(path), pixels)


def test_grey_deep_and_alpha_keep_their_kind(tmp_path, rng) -> None:
    deep = rng.integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    got = read_image(tmp_path / "deep.png")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, deep)
    for channels in ((), (4,)):
        image = rng.integers(0, 256, (5, 7, *channels), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "image.png")
        np.testing.assert_array_equal(read_image(tmp_path / "image.png"), image)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK"])
def test_other_kinds_become_the_same_frame(tmp_path, pixels, mode) -> None:
    path = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    image = Image.fromarray(pixels).convert(mode)
    image.save(path)
    np.testing.assert_array_equal(rgb_frame(read_image(path)), np.asarray(image.convert("RGB")))


def test_exif_rotation_is_not_applied(tmp_path, pixels) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").shape == pixels.shape


def test_what_is_not_a_whole_single_image_is_refused(tmp_path, pixels) -> None:
    def refused(name: str, text: str) -> None:
        with pytest.raises(ImageFileError, match=text) as caught:
            read_image(tmp_path / name)
        assert name in caught.value.cause
        assert caught.value.remedy

    refused("missing.png", "cannot be read")
    (tmp_path / "folder.png").mkdir()
    refused("folder.png", "cannot be read")
    (tmp_path / "empty.jpg").write_bytes(b"")
    refused("empty.jpg", "is empty")
    (tmp_path / "text.png").write_text("hello")
    refused("text.png", "not an image")
    for suffix in ("png", "jpg", "bmp", "tiff", "webp"):
        whole = tmp_path / f"whole.{suffix}"
        big = np.kron(pixels, np.ones((40, 40, 1), np.uint8))
        Image.fromarray(big).save(whole)
        data = whole.read_bytes()
        (tmp_path / f"half.{suffix}").write_bytes(data[: len(data) // 2])
        refused(f"half.{suffix}", "half")
    frames = [Image.fromarray(pixels), Image.fromarray(pixels[::-1])]
    frames[0].save(tmp_path / "pages.tiff", save_all=True, append_images=frames[1:])
    refused("pages.tiff", "2 pages")
    Image.new("F", (4, 4), 2.0).save(tmp_path / "float.tiff")
    refused("float.tiff", "floats from 2 to 2")


@pytest.mark.parametrize("side", [10_001, 20_000])
def test_huge_files_are_refused_without_being_decoded(tmp_path, side) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(ImageFileError, match=r"huge\.png"):
        read_image(path)


def test_what_cannot_be_written_is_named(tmp_path, pixels) -> None:
    write_image(tmp_path / "good.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "good.png"), pixels)
    with pytest.raises(ImageFileError, match="nowhere"):
        write_image(tmp_path / "nowhere" / "image.png", pixels)
