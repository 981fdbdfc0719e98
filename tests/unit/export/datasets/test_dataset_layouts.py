"""Data sets in the layouts of MVTec-AD, VisA and a plain folder, sound and damaged."""

import shutil

import numpy as np
import pytest

from support.datasets import SIZE, VISA_ROWS, mask, picture, save
from zeroflaw_engines.errors import DatasetError
from zeroflaw_export.datasets import read_dataset


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
