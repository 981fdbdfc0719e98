"""A small synthetic dataset in the layout of MVTec-AD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

DEFECTS = ("hole", "scratch")


def write_dataset(
    root: Path, classes: tuple[str, ...] = ("metal_nut", "object"), good: int = 2, bad: int = 2
) -> Path:
    """Writes blocks of random grey and colour; a defect is a rectangle of one colour.

    Args:
        root: Directory to make.
        classes: Names.
        good: Good images of each class.
        bad: Images of each kind of defect.
    """
    rng = np.random.default_rng(5)
    for name in classes:
        for kind, count in (("good", good), *((defect, bad) for defect in DEFECTS)):
            for number in range(count):
                size = (90 + 13 * number, 120)
                image = rng.integers(0, 255, (size[0] // 9 + 1, size[1] // 9 + 1, 3))
                image = image.repeat(9, 0).repeat(9, 1)[: size[0], : size[1]].astype(np.uint8)
                if kind != "good":
                    y, x, h, w = rng.integers(8, 40, 4)
                    mask = np.zeros(size, np.uint8)
                    mask[y : y + h, x : x + w] = 255
                    image[mask > 0] = rng.integers(0, 255, 3)
                    save(root / name / "ground_truth" / kind / f"{number:03d}_mask.png", mask)
                save(root / name / "test" / kind / f"{number:03d}.png", image)
    return root


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
