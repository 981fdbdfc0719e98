"""TIFF: every combination that cameras and programs write, against the array that was written."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image

from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files import file_frame, read_image_file

H, W = 37, 53
COMPRESSIONS = (None, "lzw", "zlib", "packbits", "zstd", "lzma")
LAYOUTS = {"strips": {"rowsperstrip": 8}, "one strip": {}, "tiles": {"tile": (16, 32)}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.tif"


def write(path, image, **options):
    tifffile.imwrite(path, image, metadata=None, **options)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("bits", [8, 16])
def test_what_was_written(path, rng, bits, compression, layout):
    kind = np.dtype(f"uint{bits}")
    top = int(np.iinfo(kind).max)
    predictors = (False, True) if compression in ("lzw", "zlib", "zstd") else (False,)
    for kindred, order, predictor in itertools.product(
        ("minisblack", "miniswhite", "rgb", "planar"), "<>", predictors
    ):
        colours = kindred in ("rgb", "planar")
        # Soft, so that no coder runs out of codes, and never flat.
        image = rng.integers(0, top // 7, (H, W, 3) if colours else (H, W)).cumsum(1) % top
        image = image.astype(kind)
        stored = top - image if kindred == "miniswhite" else image
        options = {"photometric": "rgb" if colours else kindred}
        if kindred == "planar":
            stored = np.moveaxis(stored, -1, 0)
            options["planarconfig"] = "separate"
        options |= LAYOUTS[layout] | {"compression": compression, "predictor": predictor}
        file = read_image_file(write(path, stored, byteorder=order, **options))
        np.testing.assert_array_equal(file.pixels, image, err_msg=f"{kindred} {order} {predictor}")
        assert (file.pixels.dtype, file.white_level, file.format) == (kind, None, "TIFF")


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_packed_bits(path, rng, bits, photometric):
    top = (1 << bits) - 1
    image = rng.integers(0, top + 1, (H, W), dtype=np.uint16)
    stored = image if photometric == "minisblack" else (top - image).astype(np.uint16)
    write(path, stored, bitspersample=bits, photometric=photometric, rowsperstrip=10)
    file = read_image_file(path)
    np.testing.assert_array_equal(file.pixels, image)
    assert file.white_level == top
    expected = np.floor(image * (255 / top) + 0.5)
    np.testing.assert_array_equal(file_frame(file)[:, :, 0], expected)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_in_containers_of_16(path, rng, bits):
    image = rng.integers(0, 1 << bits, (H, W), dtype=np.uint16)
    write(path, image, photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["BitsPerSample"].overwrite(bits)
    file = read_image_file(path)
    np.testing.assert_array_equal(file.pixels, image)
    assert file.white_level == (1 << bits) - 1


@pytest.mark.parametrize(("bits", "step"), [(1, 255), (2, 85), (4, 17)])
def test_few_bits_are_spread(path, rng, bits, step):
    image = rng.integers(0, 1 << bits, (H, W), dtype=np.uint8)
    stored = image.astype(bool) if bits == 1 else image
    write(path, stored, bitspersample=bits, photometric="minisblack")
    np.testing.assert_array_equal(read_image_file(path).pixels, image * step)


@pytest.mark.parametrize(
    ("value", "white", "warning"),
    [(4095, 4095, None), (1023, None, "values above it"), (3000, None, "no end of a range")],
)
def test_max_sample_value(path, rng, value, white, warning):
    image = rng.integers(0, 2900, (H, W), dtype=np.uint16)
    write(path, image, extratags=[(281, "H", 1, value, True)])
    file = read_image_file(path)
    np.testing.assert_array_equal(file.pixels, image)
    assert file.white_level == white
    assert (warning or "") in " ".join(file.warnings)
    assert bool(file.warnings) == (warning is not None)


def test_white_is_zero_below_a_white_level(path, rng):
    image = rng.integers(0, 4096, (H, W), dtype=np.uint16)
    write(path, 4095 - image, photometric="miniswhite", extratags=[(281, "H", 1, 4095, True)])
    np.testing.assert_array_equal(read_image_file(path).pixels, image)
    write(path, 4095 - image, photometric="miniswhite")
    np.testing.assert_array_equal(read_image_file(path, white_level=4095).pixels, image)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_floats(path, rng, kind):
    image = rng.random((H, W)).astype(kind)
    file = read_image_file(write(path, image, photometric="minisblack"))
    np.testing.assert_array_equal(file.pixels, image.astype(np.float32))
    write(path, (image * 200).astype(kind), photometric="minisblack")
    with pytest.raises(ImageFileError, match="floats from"):
        read_image_file(path)
    file = read_image_file(path, white_level=255)
    assert file_frame(file).max() == np.floor((image * 200).astype(kind).max() + 0.5)
    image[3, 4] = np.nan
    with pytest.raises(ImageFileError, match="not finite"):
        read_image_file(write(path, image))


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "uint32", "uint64"])
def test_whole_numbers_without_a_white(path, rng, kind):
    image = rng.integers(0, 100, (H, W)).astype(kind)
    write(path, image)
    with pytest.raises(ImageFileError, match=f"{kind}, whose white is not defined") as caught:
        read_image_file(path)
    assert "--white-level" in caught.value.remedy
    file = read_image_file(path, white_level=1023)
    np.testing.assert_array_equal(file.pixels, image)
    assert (file.pixels.dtype, file.white_level) == (np.uint16, 1023)
    if kind.startswith("int"):
        write(path, image - np.dtype(kind).type(1))
        with pytest.raises(ImageFileError, match="values from -1"):
            read_image_file(path, white_level=1023)


@pytest.mark.parametrize("compression", [None, "lzw", "jpeg"])
def test_colours_as_pillow_and_libtiff_have_them(path, rng, compression):
    soft = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    for mode in ("RGB", "YCbCr", "CMYK", "P", "L", "1"):
        if compression == "jpeg" and mode in ("P", "1", "CMYK"):
            continue
        name = {"lzw": "tiff_lzw"}.get(compression, compression)
        Image.fromarray(soft).convert(mode).save(path, compression=name)
        if mode == "YCbCr" and compression != "jpeg":
            expected = Image.fromarray(soft).convert("YCbCr").convert("RGB")
        else:
            expected = Image.open(path).convert("RGB")
        found = file_frame(read_image_file(path)).astype(int)
        assert np.abs(found - np.asarray(expected)).max() <= (2 if compression == "jpeg" else 0)
    Image.fromarray(soft).convert("LAB").save(path)
    with pytest.raises(ImageFileError, match="CIELAB"):
        read_image_file(path)


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes(path, rng, bits):
    index = rng.integers(0, 256, (H, W), dtype=np.uint8)
    palette = rng.integers(0, 65536, (3, 256), dtype=np.uint16)
    if bits == 8:
        palette = palette // 257 * 257
    write(path, index, photometric="palette", colormap=palette)
    colours = np.moveaxis(palette[:, index], 0, -1)
    found = read_image_file(path).pixels
    np.testing.assert_array_equal(found, colours // 257 if bits == 8 else colours)


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
def test_extra_samples_do_not_change_the_colours(path, rng, extra):
    image = rng.integers(0, 256, (H, W, 4), dtype=np.uint8)
    write(path, image, photometric="rgb", extrasamples=[extra])
    np.testing.assert_array_equal(file_frame(read_image_file(path)), image[:, :, :3])


def test_more_channels_than_a_picture_has(path, rng):
    image = rng.integers(0, 256, (5, H, W), dtype=np.uint8)
    write(path, image, photometric="minisblack", planarconfig="separate")
    with pytest.raises(ImageFileError, match="has 5 samples a pixel"):
        read_image_file(path)


def test_big_tiff_and_one_picture_beside_its_copies(path, rng):
    image = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    small = image[::2, ::2]
    rgb = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(image, **rgb)
        writer.write(small, subfiletype=1, **rgb)
    np.testing.assert_array_equal(read_image_file(path).pixels, image)
    for flags in (1, 0):
        with tifffile.TiffWriter(path) as writer:
            writer.write(image, subifds=2, **rgb)
            writer.write(small, subfiletype=flags, **rgb)
            writer.write(image[::4, ::4], subfiletype=flags, **rgb)
        np.testing.assert_array_equal(read_image_file(path).pixels, image)
    with tifffile.TiffWriter(path) as writer:
        writer.write(small, subfiletype=1, **rgb)
        writer.write(image, **rgb)
    np.testing.assert_array_equal(read_image_file(path).pixels, image)
    with tifffile.TiffWriter(path) as writer:
        for page in (image, image, small):
            writer.write(page, **rgb)
    with pytest.raises(ImageFileError, match="has 3 pages"):
        read_image_file(path)


def test_compressions_that_cannot_tell_damage(path, rng):
    write(path, rng.integers(0, 256, (H, W), dtype=np.uint8), compression="lerc")
    with pytest.raises(ImageFileError, match="compression LERC"):
        read_image_file(path)
    soft = Image.fromarray(np.kron(rng.integers(0, 2, (8, 8)), np.ones((9, 9))) > 0)
    for compression in ("group3", "group4"):
        soft.save(path, compression=compression)
        np.testing.assert_array_equal(read_image_file(path).pixels, np.asarray(soft) * 255)


def test_what_tifffile_only_logs_refuses_the_file(path, rng):
    write(path, rng.integers(0, 256, (H, W), dtype=np.uint8), description="x" * 40)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x0e\x01\x02\x00")
    # A text beyond the end of the file: its directory cannot be trusted.
    data[at + 8 : at + 12] = (1 << 24).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(ImageFileError, match="TIFF decoder says"):
        read_image_file(path)
