"""Photos to make frames of: two sources of scikit-image's textures and of drawn pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from zeroflaw_export.mini.photo_frames.photos import find_photos


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    drawn, real = root / "drawn", root / "real"
    drawn.mkdir()
    real.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        coarse = Image.fromarray(rng.integers(30, 230, (12, 16, 3), dtype=np.uint8))
        coarse.resize((320, 256), Image.Resampling.BICUBIC).save(drawn / f"{number:02d}.png")
    for name in ("brick", "grass"):
        photo = Image.fromarray(getattr(data, name)()).convert("RGB")
        for number in range(4):
            photo.rotate(90 * number).save(real / f"{name}_{number}.jpg", quality=90)
    return root


@pytest.fixture(scope="session")
def photos(photo_folder):
    return find_photos(photo_folder, "train")
