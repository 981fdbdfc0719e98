"""Data sets in the layouts of MVTec-AD, VisA and a plain folder, sound and damaged."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from zeroflaw_engines.errors import DatasetError
from zeroflaw_engines.image_files.frame import rgb_frame
from zeroflaw_export.datasets import (
    Sample,
    dataset_digest,
    mask_at_size,
    read_dataset,
    read_sample_image,
    read_sample_mask,
    sample_image_digest,
)

SIZE = (12, 16)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def picture(path, seed=0):
    """A small image that no other seed gives."""
    rng = np.random.default_rng(seed)
    return save(path, rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8))


def mask(path, value=255, *, size=SIZE):
    values = np.zeros(size, np.uint8)
    values[2:5, 3:9] = value
    return save(path, values)


@pytest.fixture
def mvtec(tmp_path):
    root = tmp_path / "mvtec"
    for name in ("nut", "bolt"):
        picture(root / name / "train/good/000.png", 1)
        picture(root / name / "test/good/000.png", 2)
        picture(root / name / "test/good/001.PNG", 3)
        for defect in ("scratch", "bent"):
            picture(root / name / f"test/{defect}/000.png", 4)
            mask(root / name / f"ground_truth/{defect}/000_mask.png")
    (root / "readme.txt").write_text("as unpacked")
    return root


VISA_ROWS = """\
object,split,label,image,mask
pcb,test,anomaly,pcb/Data/Images/Anomaly/001.JPG,pcb/Data/Masks/Anomaly/001.png
pcb,test,anomaly,pcb/Data/Images/Anomaly/000.JPG,pcb/Data/Masks/Anomaly/000.png
pcb,test,normal,pcb/Data/Images/Normal/0001.JPG,
pcb,train,normal,pcb/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0000.JPG,
"""


@pytest.fixture
def visa(tmp_path):
    root = tmp_path / "visa"
    for number, name in enumerate(("pcb/Data/Images/Anomaly/000", "pcb/Data/Images/Anomaly/001")):
        picture(root / f"{name}.JPG", number)
        mask(root / f"{name.replace('Images', 'Masks')}.png", 1)
    for number, name in enumerate(("pcb", "candle")):
        picture(root / name / "Data/Images/Normal/0000.JPG", 10 + number)
        picture(root / name / "Data/Images/Normal/0001.JPG", 20 + number)
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text(VISA_ROWS)
    return root


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "brackets"
    for number, stem in enumerate("abc"):
        picture(root / f"images/{stem}.jpg", number)
    mask(root / "masks/a.png")
    mask(root / "masks/b.PNG", 0)
    mask(root / "masks/c.png", 1)
    return root


def listing(dataset):
    return {
        entry.name: [
            (
                sample.image.relative_to(dataset.root).as_posix(),
                sample.mask and sample.mask.relative_to(dataset.root).as_posix(),
                sample.anomalous,
                sample.defect,
            )
            for sample in entry.samples
        ]
        for entry in dataset.classes
    }


def skips(dataset):
    return {skip.path.relative_to(dataset.root).as_posix(): skip.reason for skip in dataset.skipped}


# Layouts --------------------------------------------------------------------------------------


def test_mvtec(mvtec):
    dataset = read_dataset(mvtec)
    assert (dataset.layout, dataset.split, dataset.skipped) == ("mvtec", "test", ())
    assert [entry.name for entry in dataset.classes] == ["bolt", "nut"]
    truth = "nut/ground_truth"
    assert listing(dataset)["nut"] == [
        ("nut/test/bent/000.png", f"{truth}/bent/000_mask.png", True, "bent"),
        ("nut/test/good/000.png", None, False, "good"),
        ("nut/test/good/001.PNG", None, False, "good"),
        ("nut/test/scratch/000.png", f"{truth}/scratch/000_mask.png", True, "scratch"),
    ]


def test_mvtec_train_split_and_chosen_classes(mvtec):
    dataset = read_dataset(mvtec, split="train", classes=["nut"])
    assert listing(dataset) == {"nut": [("nut/train/good/000.png", None, False, "good")]}


def test_visa(visa):
    dataset = read_dataset(visa)
    assert (dataset.layout, dataset.skipped) == ("visa", ())
    data = "pcb/Data"
    assert listing(dataset) == {
        "candle": [("candle/Data/Images/Normal/0000.JPG", None, False, "good")],
        "pcb": [
            (f"{data}/Images/Anomaly/{n}.JPG", f"{data}/Masks/Anomaly/{n}.png", True, "anomaly")
            for n in ("000", "001")
        ]
        + [(f"{data}/Images/Normal/0001.JPG", None, False, "good")],
    }
    train = read_dataset(visa, split="train", classes=["pcb"])
    assert listing(train) == {"pcb": [(f"{data}/Images/Normal/0000.JPG", None, False, "good")]}


def test_folder(folder):
    dataset = read_dataset(folder)
    assert (dataset.layout, dataset.skipped) == ("folder", ())
    assert listing(dataset) == {
        "brackets": [
            ("images/a.jpg", "masks/a.png", True, "anomaly"),
            ("images/b.jpg", "masks/b.PNG", False, "good"),
            ("images/c.jpg", "masks/c.png", True, "anomaly"),
        ]
    }


def test_folder_with_an_unmasked_image(folder):
    picture(folder / "images/d.jpg")
    with pytest.raises(DatasetError, match=r"1 of 4 images .*d\.jpg.*unmasked images are good"):
        read_dataset(folder)
    dataset = read_dataset(folder, unmasked="good")
    assert listing(dataset)["brackets"][3] == ("images/d.jpg", None, False, "good")


def test_a_folder_has_no_train_split(folder):
    with pytest.raises(DatasetError, match="no 'train' split"):
        read_dataset(folder, split="train")


def test_a_wrong_layout_is_refused(mvtec, visa, folder):
    with pytest.raises(DatasetError, match=r"1cls\.csv"):
        read_dataset(mvtec, layout="visa")
    with pytest.raises(DatasetError, match="no class"):
        read_dataset(visa, layout="mvtec")
    with pytest.raises(DatasetError, match="images is not a directory"):
        read_dataset(visa, layout="folder")
    with pytest.raises(DatasetError, match="unknown layout 'coco'"):
        read_dataset(folder, layout="coco")
    with pytest.raises(DatasetError, match="unknown split 'val'"):
        read_dataset(mvtec, split="val")


def test_unrecognisable_directories(mvtec, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="not laid out as a data set"):
        read_dataset(tmp_path / "empty")
    with pytest.raises(DatasetError, match="not a directory"):
        read_dataset(tmp_path / "missing")
    with pytest.raises(DatasetError, match=r"single class.*give .*mvtec and name.* 'nut'"):
        read_dataset(mvtec / "nut")
    shutil.copytree(mvtec / "nut", folder / "nut")
    with pytest.raises(DatasetError, match="any of mvtec, folder"):
        read_dataset(folder)
    assert read_dataset(folder, layout="folder").classes[0].name == "brackets"


def test_unknown_class(mvtec):
    with pytest.raises(DatasetError, match="no class screw -- it has bolt, nut"):
        read_dataset(mvtec, classes=["nut", "screw"])


def test_class_without_a_usable_image(mvtec):
    shutil.rmtree(mvtec / "nut/test")
    (mvtec / "nut/test").mkdir()
    with pytest.raises(DatasetError, match=r"'nut' of .* has no usable image in its test split"):
        read_dataset(mvtec)
    assert read_dataset(mvtec, classes=["bolt"]).classes


@pytest.mark.parametrize("gone", [{"good"}, {"bent", "scratch"}])
def test_class_without_good_or_without_defective_images_is_kept(mvtec, gone):
    for defect in gone:
        shutil.rmtree(mvtec / "nut/test" / defect)
    samples = read_dataset(mvtec, classes=["nut"]).classes[0].samples
    assert {sample.defect for sample in samples} == {"good", "bent", "scratch"} - gone


# Skipped files --------------------------------------------------------------------------------


def test_mvtec_states_what_it_skips(mvtec):
    (mvtec / "nut/ground_truth/bent/000_mask.png").unlink()
    (mvtec / "nut/test/good/002.png").touch()
    (mvtec / "nut/test/good/003.png").symlink_to(mvtec / "nowhere.png")
    (mvtec / "nut/test/good/Thumbs.db").write_bytes(b"x")
    (mvtec / "nut/test/good/._000.png").write_bytes(b"x")
    picture(mvtec / "nut/test/good/000.jpg")
    dataset = read_dataset(mvtec, classes=["nut"])
    assert len(dataset.classes[0].samples) == 3
    found = skips(dataset)
    assert "no mask 000_mask.png" in found.pop("nut/test/bent/000.png")
    assert found == {
        "nut/test/good/000.png": "has the same stem as 000.jpg",
        "nut/test/good/002.png": "an empty file",
        "nut/test/good/003.png": "not a file, or a link that leads nowhere",
        "nut/test/good/Thumbs.db": "not an image file, by its suffix",
    }


def test_visa_states_what_it_skips(visa):
    (visa / "pcb/Data/Images/Normal/0001.JPG").unlink()
    (visa / "pcb/Data/Masks/Anomaly/000.png").unlink()
    row = "pcb,test,anomaly,pcb/Data/Images/Anomaly/001.JPG,"
    outside = "pcb,test,normal,../brackets/images/a.jpg,"
    picture(visa.parent / "brackets/images/a.jpg")
    with (visa / "split_csv/1cls.csv").open("a") as file:
        file.write(f"{row}\n{outside}\n")
    dataset = read_dataset(visa, classes=["pcb"])
    assert [sample.image.name for sample in dataset.classes[0].samples] == ["001.JPG"]
    found = skips(dataset)
    assert found == {
        "../brackets/images/a.jpg": "in split_csv/1cls.csv, but not in the data set",
        "pcb/Data/Images/Anomaly/000.JPG": "its mask pcb/Data/Masks/Anomaly/000.png is not there",
        "pcb/Data/Images/Anomaly/001.JPG": "listed twice in split_csv/1cls.csv",
        "pcb/Data/Images/Normal/0001.JPG": "in split_csv/1cls.csv, but not in the data set",
    }


def test_visa_finds_files_whose_suffix_changed_case(visa):
    path = visa / "pcb/Data/Images/Normal/0001.JPG"
    path.rename(path.with_suffix(".jpg"))
    dataset = read_dataset(visa, classes=["pcb"])
    assert dataset.classes[0].samples[-1].image.name == "0001.jpg"
    assert dataset.skipped == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column object, split, label, image, mask"),
        ("object,split,label,image\n", "no column mask"),
        (VISA_ROWS.replace("anomaly,pcb", "odd,pcb", 1), "line 2 of .* the label 'odd'"),
        (VISA_ROWS.splitlines()[0], "no class in it"),
    ],
)
def test_visa_list_that_is_malformed(visa, text, reason):
    (visa / "split_csv/1cls.csv").write_text(text)
    with pytest.raises(DatasetError, match=reason):
        read_dataset(visa)


def test_visa_list_with_a_byte_order_mark(visa):
    (visa / "split_csv/1cls.csv").write_text(VISA_ROWS, encoding="utf-8-sig")
    assert len(read_dataset(visa).classes) == 2


def test_folder_states_what_it_skips(folder):
    mask(folder / "masks/z.png")
    save(folder / "masks/c.png", np.arange(192, dtype=np.uint8).reshape(SIZE))
    dataset = read_dataset(folder)
    assert [sample.image.name for sample in dataset.classes[0].samples] == ["a.jpg", "b.jpg"]
    found = skips(dataset)
    assert "not binary: it has 192 different values" in found.pop("images/c.jpg")
    assert found == {"masks/z.png": "a mask without an image"}


def test_links_in_circles_do_no_harm(mvtec):
    expected = listing(read_dataset(mvtec))
    (mvtec / "again").symlink_to(mvtec)
    (mvtec / "nut/test/good/up").symlink_to(mvtec / "nut")
    (mvtec / "self").symlink_to(mvtec / "self")
    assert listing(read_dataset(mvtec)) == expected


# Pixels ---------------------------------------------------------------------------------------


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


# Identity -------------------------------------------------------------------------------------


def test_digest_does_not_depend_on_the_place(mvtec, tmp_path):
    digest = dataset_digest(read_dataset(mvtec))
    assert len(digest) == 64
    shutil.copytree(mvtec, tmp_path / "copy")
    assert dataset_digest(read_dataset(tmp_path / "copy")) == digest
    # Nor on the order in which the file system lists it.
    again = tmp_path / "reversed"
    for path in sorted(mvtec.rglob("*"), reverse=True):
        target = again / path.relative_to(mvtec)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    assert dataset_digest(read_dataset(again)) == digest


def change_image(root):
    picture(root / "nut/test/good/000.png", 99)


def change_mask(root):
    mask(root / "nut/ground_truth/bent/000_mask.png", 1)


def rename_image(root):
    (root / "nut/test/good/000.png").rename(root / "nut/test/good/009.png")


def swap_images(root):
    good, other = root / "nut/test/good/000.png", root / "nut/test/good/001.PNG"
    first, second = good.read_bytes(), other.read_bytes()
    good.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("change", [change_image, change_mask, rename_image, swap_images])
def test_digest_tells_every_change(mvtec, change):
    before = dataset_digest(read_dataset(mvtec))
    change(mvtec)
    assert dataset_digest(read_dataset(mvtec)) != before


def test_digest_tells_what_was_taken_as_good(folder):
    dataset = read_dataset(folder)
    entry = dataset.classes[0]
    flipped = dataclasses.replace(entry.samples[0], anomalous=False)
    other = dataclasses.replace(
        dataset, classes=(dataclasses.replace(entry, samples=(flipped, *entry.samples[1:])),)
    )
    assert dataset_digest(other) != dataset_digest(dataset)


def test_datasets_need_no_torch():
    code = "import sys, zeroflaw_export.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
