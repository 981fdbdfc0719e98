"""The pixels of a sample: its image as stations read it, and the mask of its defects."""

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from support.datasets import SIZE, mask, picture, save
from zeroflaw_engines.errors import DatasetError
from zeroflaw_engines.image_files.frame import rgb_frame
from zeroflaw_export.datasets import (
    Sample,
    mask_at_size,
    read_dataset,
    read_sample_image,
    read_sample_mask,
    sample_image_digest,
)


def sample_of(image, mask=None, **others):
    return Sample(image, mask, anomalous=mask is not None, defect="any", **others)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_images_of_any_kind_come_as_rgb(tmp_path, mode):
    path = tmp_path / "image.tiff"
    original = Image.open(picture(tmp_path / "rgb.png")).convert(mode)
    original.save(path)
    pixels = read_sample_image(sample_of(path))
    assert (pixels.shape, pixels.dtype) == ((*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(pixels, np.asarray(original.convert("RGB")))


def test_damaged_images(tmp_path):
    path = picture(tmp_path / "image.png")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"image\.png is damaged"):
        read_sample_image(sample_of(path))
    path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="not an image, whatever its name says"):
        read_sample_image(sample_of(path))
    path.unlink()
    with pytest.raises(DatasetError, match="cannot be read"):
        read_sample_image(sample_of(path))
    pages = [Image.new("L", (4, 4)), Image.new("L", (4, 4), 9)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(DatasetError, match="2 pages"):
        read_sample_image(sample_of(tmp_path / "pages.tiff"))


def test_deep_images_are_read_as_stations_read_them(tmp_path, rng):
    values = rng.integers(0, 4096, SIZE, dtype=np.uint16)
    path = save(tmp_path / "deep.png", values)
    for white, sample in ((65535, sample_of(path)), (4095, sample_of(path, white_level=4095))):
        expected = rgb_frame(values, white_level=white)
        np.testing.assert_array_equal(read_sample_image(sample), expected)


def test_the_white_level_is_part_of_what_identifies_an_image(folder):
    plain, again, deep = (
        sample_image_digest(read_dataset(folder, white_level=white).classes[0].samples[0])
        for white in (None, None, 4095)
    )
    assert plain == again != deep


def test_the_photograph_in_a_file_with_a_second_view(tmp_path):
    views = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    views[0].save(tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=views[1:])
    assert read_sample_image(sample_of(tmp_path / "photo.jpg")).min() == 255


@pytest.mark.parametrize("value", [255, 1, 37])
def test_masks_of_any_two_values(tmp_path, value):
    expected = np.zeros(SIZE, bool)
    expected[2:5, 3:9] = True
    found = read_sample_mask(sample_of(tmp_path, mask(tmp_path / "m.png", value)), SIZE)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "I;16", "P"])
def test_masks_of_any_kind(tmp_path, mode):
    values = np.zeros(SIZE, np.uint8)
    values[2:5, 3:9] = 255
    Image.fromarray(values).convert(mode).save(tmp_path / "m.png")
    found = read_sample_mask(sample_of(tmp_path, tmp_path / "m.png"), SIZE)
    np.testing.assert_array_equal(found, values > 0)


def test_mask_of_a_good_sample_is_empty(tmp_path):
    assert read_sample_mask(sample_of(tmp_path), (3, 5)).shape == (3, 5)
    assert not read_sample_mask(sample_of(tmp_path), (3, 5)).any()


def test_all_defective_mask(tmp_path):
    path = save(tmp_path / "m.png", np.full(SIZE, 255, np.uint8))
    assert read_sample_mask(sample_of(tmp_path, path), SIZE).all()


def test_masks_that_do_not_fit(tmp_path):
    path = tmp_path / "m.png"
    with pytest.raises(DatasetError, match="16x12 px, its image 12x16"):
        read_sample_mask(sample_of(tmp_path, mask(path)), SIZE[::-1])
    with pytest.raises(DatasetError, match="empty although its image is listed as defective"):
        read_sample_mask(sample_of(tmp_path, mask(path, 0)), SIZE)
    values = np.zeros(SIZE, np.uint8)
    values[0, :2] = 1, 2
    with pytest.raises(DatasetError, match="not binary: it has 3 different values"):
        read_sample_mask(sample_of(tmp_path, save(path, values)), SIZE)
    with pytest.raises(DatasetError, match="but none is 0"):
        read_sample_mask(sample_of(tmp_path, save(path, (values > 0) + np.uint8(7))), SIZE)


def test_visa_masks_number_the_kinds_of_defect(visa):
    values = np.zeros(SIZE, np.uint8)
    values[0, :3] = 1, 2, 9
    path = save(visa / "pcb/Data/Masks/Anomaly/000.png", values)
    first = read_dataset(visa, classes=["pcb"]).classes[0].samples[0]
    assert first.mask == path
    np.testing.assert_array_equal(read_sample_mask(first, SIZE), values > 0)
    save(path, np.arange(192, dtype=np.uint8).reshape(SIZE))
    with pytest.raises(DatasetError, match="192 different values"):
        read_sample_mask(first, SIZE)


@pytest.mark.parametrize(("shape", "size"), [((900, 700), 518), ((37, 91), 64), ((20, 20), 20)])
def test_mask_at_size_is_april_gans(rng, shape, size):
    coarse = rng.random((shape[0] // 9 + 1, shape[1] // 9 + 1)) > 0.6
    truth = np.kron(coarse, np.ones((9, 9), bool))[: shape[0], : shape[1]]
    reference = transforms.Compose(
        [transforms.Resize((size, size)), transforms.CenterCrop(size), transforms.ToTensor()]
    )
    expected = reference(Image.fromarray(truth.astype(np.uint8) * 255)).numpy()[0] > 0.5
    found = mask_at_size(truth, size)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, expected)
