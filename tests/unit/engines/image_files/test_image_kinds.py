"""JPEG, PNG, BMP, PNM, WebP, JPEG 2000, GIF: kinds of them, against other decoders."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from support.damaged_files import photograph
from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files import file_frame, read_image_file

PIXELS = photograph((60, 91))
GREY = PIXELS[:, :, 1]


@pytest.fixture
def path(tmp_path):
    # Without a suffix: the content decides.
    return tmp_path / "image"


def saved(path, image, kind, **options):
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, kind, **options)
    return path


def png(image, depth, colour, *, more=b""):
    """A PNG file of kinds that Pillow cannot write."""

    def chunk(kind, body):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    rows = image.astype(">u2" if depth == 16 else "u1")
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], depth, colour, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    extra = chunk(more[:4], more[4:]) if more else b""
    return head + extra + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"keep_rgb": True},
     {"restart_marker_blocks": 3}, {"optimize": True}],
)  # fmt: skip
def test_jpeg_pixels_are_pillows(path, options):
    saved(path, PIXELS, "JPEG", **options)
    np.testing.assert_array_equal(read_image_file(path).pixels, np.asarray(Image.open(path)))
    saved(path, GREY, "JPEG", **{k: v for k, v in options.items() if k != "keep_rgb"})
    np.testing.assert_array_equal(read_image_file(path).pixels, np.asarray(Image.open(path)))


def test_jpeg_in_ink(path):
    saved(path, Image.fromarray(PIXELS).convert("CMYK"), "JPEG", quality=95)
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert np.abs(read_image_file(path).pixels - expected).max() <= 1
    assert np.abs(expected - PIXELS).mean() < 8  # neither of them is inverted
    data = path.read_bytes()
    at = data.index(b"\xff\xee")
    path.write_bytes(data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :])
    with pytest.raises(ImageFileError, match="does not say which colours"):
        read_image_file(path)


def test_jpeg_of_other_processes(path):
    path.write_bytes(imagecodecs.jpeg8_encode(GREY.astype(np.uint16) << 4, bitspersample=12))
    with pytest.raises(ImageFileError, match="JPEG file of 12 bits"):
        read_image_file(path)
    path.write_bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(GREY), lossless=True))
    np.testing.assert_array_equal(read_image_file(path).pixels, GREY)


def test_png_kinds_are_what_opencv_and_pillow_read(path, rng):
    for depth in (8, 16):
        kind = f"uint{depth}"
        top = (1 << depth) - 1
        for colour, shape in ((0, ()), (2, (3,)), (4, (2,)), (6, (4,))):
            image = rng.integers(0, top + 1, (*GREY.shape, *shape)).astype(kind)
            path.write_bytes(
                png(image.reshape(GREY.shape[0], -1).reshape(image.shape), depth, colour)
            )
            expected = image[:, :, 0] if colour == 4 else image
            np.testing.assert_array_equal(read_image_file(path).pixels, expected)
            if colour in (0, 2):
                other = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                np.testing.assert_array_equal(other, image[..., ::-1] if colour == 2 else image)
    palette = Image.fromarray(PIXELS).quantize(16)
    for picture in (palette, Image.fromarray(GREY > 128), Image.fromarray(PIXELS).quantize(3)):
        for options in ({}, {"transparency": 1}):
            saved(path, picture, "PNG", **options)
            expected = np.asarray(picture.convert("RGB"))
            np.testing.assert_array_equal(file_frame(read_image_file(path)), expected)


@pytest.mark.parametrize("depth", [10, 12, 14])
def test_significant_bits_of_png(path, depth):
    white = (1 << depth) - 1
    values = (GREY.astype(np.uint32) * white // 255).astype(np.uint16)
    lower = png(values, 16, 0, more=b"sBIT" + bytes([depth]))
    path.write_bytes(lower)
    file = read_image_file(path)
    assert file.white_level == white
    np.testing.assert_array_equal(file.pixels, values)
    expected = file_frame(file)
    assert np.abs(expected[:, :, 0].astype(int) - GREY).max() <= 1
    # As the standard wants it: the same bits at the upper end, white already white.
    path.write_bytes(png(values << (16 - depth), 16, 0, more=b"sBIT" + bytes([depth])))
    file = read_image_file(path)
    assert file.white_level is None
    assert np.abs(file_frame(file).astype(int) - expected).max() <= 1
    # Without the tag nothing says that the picture is not just dark.
    path.write_bytes(png(values, 16, 0))
    assert read_image_file(path).white_level is None
    assert np.array_equal(file_frame(read_image_file(path, white_level=white)), expected)


def test_a_colour_profile_that_libpng_does_not_like_is_not_printed(path, capfd):
    profile = b"iCCP" + b"made up\0\0" + zlib.compress(bytes(200))
    path.write_bytes(png(GREY, 8, 0, more=profile))
    np.testing.assert_array_equal(read_image_file(path).pixels, GREY)
    assert capfd.readouterr() == ("", "")


def test_a_chunk_that_a_decoder_must_know_refuses_the_file(path):
    path.write_bytes(png(GREY, 8, 0, more=b"CgBI" + bytes(4)))
    with pytest.raises(ImageFileError, match="is damaged"):
        read_image_file(path)


def bmp(stored, width, height, bits, compression=0, masks=(), palette=b""):
    table = struct.pack(f"<{len(masks)}I", *masks) + palette
    offset = 54 + len(table)
    head = b"BM" + struct.pack("<IHHI", offset + len(stored), 0, 0, offset)
    info = struct.pack(
        "<IiiHHIIiiII",
        40,
        width,
        height,
        1,
        bits,
        compression,
        len(stored),
        0,
        0,
        len(palette) // 4,
        0,
    )
    return head + info + table + stored


GREYS = b"".join(bytes((i, i, i, 0)) for i in range(256))


def run_lengths(image):
    rows = [b"".join(bytes((1, int(v))) for v in row) + b"\0\0" for row in image[::-1]]
    return b"".join(rows) + b"\0\1"


def test_bmp_kinds(path, rng):
    height, width = GREY.shape
    padded = np.pad(GREY, ((0, 0), (0, -width % 4)))
    for stored, sign in ((padded[::-1], 1), (padded, -1)):
        path.write_bytes(bmp(stored.tobytes(), width, sign * height, 8, palette=GREYS))
        np.testing.assert_array_equal(read_image_file(path).pixels, GREY)
    path.write_bytes(bmp(run_lengths(GREY), width, height, 8, 1, palette=GREYS))
    np.testing.assert_array_equal(read_image_file(path).pixels, GREY)
    alpha = np.dstack([PIXELS[:, :, ::-1], np.zeros_like(GREY)])[::-1]
    path.write_bytes(bmp(alpha.tobytes(), width, height, 32))
    np.testing.assert_array_equal(file_frame(read_image_file(path)), PIXELS)
    words = rng.integers(0, 1 << 16, (height, width + width % 2), dtype=np.uint16)
    for masks, compression in (
        ((0x7C00, 0x3E0, 0x1F), 0), ((0x7C00, 0x3E0, 0x1F), 3), ((0xF800, 0x7E0, 0x1F), 3)
    ):  # fmt: skip
        given = masks if compression else ()
        path.write_bytes(bmp(words[::-1].tobytes(), width, height, 16, compression, given))
        low = [mask & -mask for mask in masks]
        exact = np.stack(
            [(words & m) // b * 255 / (m // b) for m, b in zip(masks, low, strict=True)], -1
        )
        assert np.abs(read_image_file(path).pixels - exact[:, :width]).max() <= 1
    saved(path, GREY > 128, "BMP")
    np.testing.assert_array_equal(file_frame(read_image_file(path))[:, :, 0], (GREY > 128) * 255)


def test_bmp_runs_that_are_not_whole(path):
    height, width = GREY.shape
    coded = run_lengths(GREY)
    for kept, reason in ((len(coded) // 2, "before its last row"), (len(coded) - 2, "last row")):
        path.write_bytes(bmp(coded[:kept], width, height, 8, 1, palette=GREYS))
        with pytest.raises(ImageFileError, match=reason):
            read_image_file(path)
    path.write_bytes(bmp(coded[:90] + b"\0\1", width, height, 8, 1, palette=GREYS))
    with pytest.raises(ImageFileError, match="before its last row"):
        read_image_file(path)


@pytest.mark.parametrize("white", [1, 100, 255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("plain", [True, False])
def test_pnm_values_are_not_scaled(path, rng, white, plain):
    height, width = GREY.shape
    for channels, kind in ((1, 5), (3, 6)):
        shape = (height, width, 3) if channels == 3 else (height, width)
        image = rng.integers(0, white + 1, shape).astype(np.uint16 if white > 255 else np.uint8)
        head = b"P%d # of a camera\n# no. 7\n%d %d\n%d\n" % (kind - 3 * plain, width, height, white)
        words = " ".join(map(str, image.ravel())).encode()
        path.write_bytes(head + (words if plain else image.astype(f">u{image.itemsize}").tobytes()))
        file = read_image_file(path)
        np.testing.assert_array_equal(file.pixels, image)
        assert (file.white_level or np.iinfo(image.dtype).max) == white
        assert file_frame(file).max() == 255


def test_pnm_bits_floats_and_faults(path):
    bits = GREY > 128
    for data in (
        b"P4\n91 60\n" + np.packbits(~bits, axis=1).tobytes(),
        b"P1\n91 60\n" + b"".join(b"%d" % (not bit) for bit in bits.ravel()),
    ):
        path.write_bytes(data)
        np.testing.assert_array_equal(read_image_file(path).pixels, bits * 255)
    values = (PIXELS / 255).astype(np.float32)
    for scale, order in ((b"-1.0", "<f4"), (b"1.0", ">f4")):
        path.write_bytes(b"PF\n91 60\n" + scale + b"\n" + values[::-1].astype(order).tobytes())
        np.testing.assert_array_equal(read_image_file(path).pixels, values)
    raw = b"P5\n91 60\n200\n" + np.minimum(GREY, 200).tobytes()
    for data, reason in (
        (b"P5\n91 60\n100\n" + GREY.tobytes(), "values above its largest, 100"),
        (raw + raw, "has 2 pages"),
        (raw[:-1], "not 5460"),
        (b"P2\n2 2\n255\n1 2 3", "has 3 values, not 4"),
        (b"P2\n2 2\n255\n1 2 3 x", "no numbers"),
        (b"P5\n2 2\n70000\n" + bytes(8), "largest value is 70000"),
    ):
        path.write_bytes(data)
        with pytest.raises(ImageFileError, match=reason):
            read_image_file(path)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_jpeg_2000_bits(path, rng, bits):
    kind = np.uint8 if bits == 8 else np.uint16
    for shape in ((48, 40), (48, 40, 3)):
        image = rng.integers(0, 1 << bits, shape).astype(kind)
        path.write_bytes(
            imagecodecs.jpeg2k_encode(image, level=0, reversible=True, bitspersample=bits)
        )
        file = read_image_file(path)
        np.testing.assert_array_equal(file.pixels, image)
        assert file.white_level == (None if bits in (8, 16) else (1 << bits) - 1)


def test_webp_and_gif(path):
    saved(path, PIXELS, "WEBP", quality=70)
    np.testing.assert_array_equal(read_image_file(path).pixels, np.asarray(Image.open(path)))
    alpha = np.dstack([PIXELS, np.full_like(GREY, 7)])
    saved(path, alpha, "WEBP", lossless=True, exact=True)
    np.testing.assert_array_equal(file_frame(read_image_file(path)), PIXELS)
    saved(path, Image.fromarray(PIXELS).quantize(64), "GIF")
    np.testing.assert_array_equal(
        read_image_file(path).pixels, np.asarray(Image.open(path).convert("RGB"))
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_pictures_are_refused_with_their_number(path, kind):
    others = [Image.fromarray(PIXELS // n) for n in (2, 3)]
    saved(path, PIXELS, kind, save_all=True, append_images=others)
    with pytest.raises(ImageFileError, match="has 3 pages"):
        read_image_file(path)


def test_the_first_picture_of_an_mpo_is_the_photograph(path):
    saved(path, PIXELS, "MPO", save_all=True, append_images=[Image.fromarray(PIXELS // 2)])
    file = read_image_file(path)
    np.testing.assert_array_equal(file.pixels, np.asarray(Image.open(path)))
    assert "further pictures" in file.warnings[0]


def test_what_is_not_read_is_named(path):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "AVIF")
    for data, reason in (
        (buffer.getvalue(), "HEIF, AVIF or video"),
        (bytes(4096), "only zeros"),
        (b"", "is empty"),
        (b"<html>404</html>", "none of JPEG, PNG, TIFF"),
    ):
        path.write_bytes(data)
        with pytest.raises(ImageFileError, match=reason) as caught:
            read_image_file(path)
        assert caught.value.remedy
