"""A small data set in MVTec-AD's layout: grey noise, and red squares on it that are defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


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
