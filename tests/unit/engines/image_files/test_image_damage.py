"""Damaged image files are refused; what cannot be seen is what docs/image_files.md says."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from support.damaged_files import damage_trials, photograph, table_of, whole_files
from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files import read_image_file

PIXELS = photograph((96, 160))
FILES = whole_files(PIXELS)
LOSSY = ("jpeg", "webp", "jp2 lossy", "gif", "tiff jpeg")


def read(tmp_path, data: bytes):
    path = tmp_path / "file"
    path.write_bytes(data)
    return read_image_file(path)


def refused(tmp_path, data: bytes, reason: str) -> None:
    with pytest.raises(ImageFileError, match=reason) as caught:
        read(tmp_path, data)
    assert str(tmp_path / "file") in caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize("coding", FILES)
def test_whole_files_are_read_without_a_warning(tmp_path, coding):
    file = read(tmp_path, FILES[coding])
    assert file.warnings == ()
    pixels = file.pixels
    if pixels.dtype == np.uint16:
        assert not np.any(pixels % 257)
        pixels = pixels // 257
    if pixels.dtype == np.float32:
        pixels = np.round(pixels * 255)
    expected = PIXELS if pixels.ndim == 3 else PIXELS[:, :, 1]
    if coding == "webp lossless" or not coding.startswith(LOSSY):
        np.testing.assert_array_equal(pixels, expected)
    else:
        assert np.abs(pixels.astype(int) - expected).mean() < 12


def test_no_damaged_file_is_read_as_another_picture():
    trials = list(damage_trials(1000, seed=3))
    bad = [trial for trial in trials if not trial.excused]
    assert not bad, table_of(bad)
    refusals = [trial for trial in trials if trial.outcome == "refused"]
    assert len(refusals) > 600
    assert all(len(trial.reason) > 20 for trial in refusals)


def test_zero_tails_of_raw_formats_are_warned_of(tmp_path):
    for coding in ("bmp", "ppm", "pgm16", "pfm", "tiff raw", "tiff raw tiled"):
        data = FILES[coding]
        tail = len(data) // 3
        file = read(tmp_path, data[:-tail] + bytes(tail))
        assert "stored rows are all zero" in " ".join(file.warnings), coding


@pytest.mark.parametrize("share", [0.2, 0.3, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("coding", [name for name in FILES if name.startswith("jpeg")])
def test_a_part_of_a_jpeg_with_an_end_marker(tmp_path, coding, share):
    data = FILES[coding]
    refused(tmp_path, data[: int(len(data) * share)] + b"\xff\xd9", "is damaged")


def test_jpeg_without_its_end_or_its_last_scans(tmp_path):
    refused(tmp_path, FILES["jpeg"][:-2], "before its end marker")
    data = FILES["jpeg progressive"]
    last = data.rindex(b"\xff\xda")
    # libjpeg decodes this without any warning.
    refused(tmp_path, data[:last] + b"\xff\xd9", "scans are missing")


def test_zeros_in_coded_jpeg_data_are_told_from_flat_pictures(tmp_path):
    flat = np.full((512, 512, 3), 200, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(flat).save(buffer, "JPEG", optimize=True)
    assert bytes(64) in buffer.getvalue()
    assert np.abs(read(tmp_path, buffer.getvalue()).pixels.astype(int) - 200).max() < 3
    data = FILES["jpeg 95"]
    refused(tmp_path, data[:3000] + bytes(64) + data[3064:], "is damaged")


def test_what_follows_a_picture_is_told_unless_it_is_padding(tmp_path):
    for coding in ("jpeg", "png", "webp", "gif", "bmp", "ppm", "tiff lzw", "j2k"):
        assert read(tmp_path, FILES[coding] + bytes(512)).warnings == (), coding
        (warning,) = read(tmp_path, FILES[coding] + b"made by CAM 7").warnings
        assert "13 bytes after the end" in warning


def test_png_checksums_and_end(tmp_path):
    data = FILES["png"]
    body = data.index(b"IDAT") + 100
    refused(tmp_path, data[:body] + b"\x55" + data[body + 1 :], "checksum of its chunk b'IDAT'")
    refused(tmp_path, data[:-12], "before its end chunk")
    # A short picture whose checksums are right.
    start = data.index(b"IDAT") - 4
    half = zlib.compress(bytes(160 * 3 + 1) * 40)
    chunk = b"IDAT" + half
    rewritten = data[:start] + struct.pack(">I", len(half)) + chunk
    rewritten += struct.pack(">I", zlib.crc32(chunk)) + data[-12:]
    refused(tmp_path, rewritten, "is damaged")


def test_jpeg_2000_with_zeros_and_an_end_marker(tmp_path):
    for coding in ("jp2", "j2k"):
        data = FILES[coding]
        kept = len(data) * 9 // 10
        refused(tmp_path, data[:kept] + bytes(len(data) - kept), "is damaged")
        refused(tmp_path, data[:kept] + bytes(len(data) - kept - 2) + b"\xff\xd9", "only zeros")


def tiff_with(tag: str, value: tuple[int, ...], **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS, photometric="rgb", rowsperstrip=32, metadata=None, **options)
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as file:
        entry = file.pages[0].tags[tag]
        offset, kind = entry.valueoffset, {3: "H", 4: "I"}[entry.dtype]
    data = bytearray(buffer.getvalue())
    packed = struct.pack(f"<{len(value)}{kind}", *value)
    data[offset : offset + len(packed)] = packed
    return bytes(data)


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        ("StripOffsets", (0, 0, 0), "never written"),
        ("StripOffsets", (1 << 20,) * 3, "beyond the end"),
        ("StripByteCounts", (15360, 100, 15360), "has 100 bytes, not 15360"),
        ("StripByteCounts", (15360, 0, 15360), "never written"),
    ],
)
def test_tiff_strips_that_are_not_there(tmp_path, tag, value, reason):
    refused(tmp_path, tiff_with(tag, value), reason)


def test_tiff_with_a_strip_that_decodes_to_fewer_rows(tmp_path):
    whole = tiff_with("ImageWidth", (160,), compression="lzw")
    assert read(tmp_path, whole).pixels.shape == PIXELS.shape
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        offset, size = file.pages[0].dataoffsets[1], file.pages[0].databytecounts[1]
    # LZW's end code, as early as after the first clear code.
    short = bytearray(whole)
    short[offset : offset + size] = bytes([0x80, 0x40, 0x40]) + b"\xff" * (size - 3)
    refused(tmp_path, bytes(short), "is damaged")
