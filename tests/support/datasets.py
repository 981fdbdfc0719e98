"""Small data sets: whole ones in the layout of MVTec-AD, and files to lay out as any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

DEFECTS = ("hole", "scratch")
SIZE = (12, 16)

VISA_ROWS = """\
object,split,label,image,mask
pcb,test,anomaly,pcb/Data/Images/Anomaly/001.JPG,pcb/Data/Masks/Anomaly/001.png
pcb,test,anomaly,pcb/Data/Images/Anomaly/000.JPG,pcb/Data/Masks/Anomaly/000.png
pcb,test,normal,pcb/Data/Images/Normal/0001.JPG,
pcb,train,normal,pcb/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0000.JPG,
"""


def write_dataset(
    root: Path,
    classes: tuple[str, ...] = ("metal_nut", "object"),
    good: int = 2,
    bad: int = 2,
    train: int = 0,
) -> Path:
    """Write blocks of random grey and colour; a defect is a rectangle of one colour.

    Args:
        root: Directory to make.
        classes: Names.
        good: Good images of each class.
        bad: Images of each kind of defect.
        train: Good images of each class in its train split.
    """
    rng = np.random.default_rng(5)
    for name in classes:
        for kind, count in (("good", good), *((defect, bad) for defect in DEFECTS)):
            for number in range(count):
                image = _blocks(rng, 90 + 13 * number)
                size = image.shape[:2]
                if kind != "good":
                    y, x, h, w = rng.integers(8, 40, 4)
                    mask = np.zeros(size, np.uint8)
                    mask[y : y + h, x : x + w] = 255
                    image[mask > 0] = rng.integers(0, 255, 3)
                    save(root / name / "ground_truth" / kind / f"{number:03d}_mask.png", mask)
                save(root / name / "test" / kind / f"{number:03d}.png", image)
    for name in classes:
        for number in range(train):
            image = _blocks(rng, 90 + 5 * number)
            save(root / name / "train" / "good" / f"{number:03d}.png", image)
    return root


def _blocks(rng: np.random.Generator, height: int) -> np.ndarray:
    size = (height, 120)
    image = rng.integers(0, 255, (size[0] // 9 + 1, size[1] // 9 + 1, 3))
    return image.repeat(9, 0).repeat(9, 1)[: size[0], : size[1]].astype(np.uint8)


def write_defect_pictures(
    root: Path, classes: tuple[str, ...] = ("bolt", "metal_nut"), count: int = 4, seed: int = 0
) -> Path:
    """`count` good and as many defective test images of each class, 80 x 60 px."""
    random = np.random.default_rng(seed)
    for name in classes:
        for folder in ("train/good", "test/good", "test/scratch", "ground_truth/scratch"):
            (root / name / folder).mkdir(parents=True)
        for i in range(count):
            for kind in ("good", "scratch"):
                image = random.integers(60, 90, (60, 80, 3), dtype=np.uint8)
                if kind == "scratch":
                    y, x = random.integers(0, 35), random.integers(0, 55)
                    mask = np.zeros((60, 80), np.uint8)
                    image[y : y + 25, x : x + 25] = (250, 20, 20)
                    mask[y : y + 25, x : x + 25] = 255
                    where = root / name / "ground_truth" / kind / f"{i:03}_mask.png"
                    Image.fromarray(mask).save(where)
                Image.fromarray(image).save(root / name / "test" / kind / f"{i:03}.png")
        Image.fromarray(image).save(root / name / "train" / "good" / "000.png")
    return root


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def picture(path: Path, seed: int = 0) -> Path:
    """A small image that no other seed gives."""
    rng = np.random.default_rng(seed)
    return save(path, rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8))


def mask(path: Path, value: int = 255, *, size: tuple[int, int] = SIZE) -> Path:
    values = np.zeros(size, np.uint8)
    values[2:5, 3:9] = value
    return save(path, values)
