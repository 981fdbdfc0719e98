"""A small data set in each layout."""

import pytest

from support.datasets import VISA_ROWS, mask, picture


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
