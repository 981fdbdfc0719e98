"""What the tests of learning share: a bundle to learn in, good photos, and what is encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from zeroflaw.station.reference.scorer import PhotoEncoding, PhotoScorer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.writer import copy_bundle
from zeroflaw_engines.image_files.frame import Frame


@pytest.fixture
def mini_copy(tmp_path: Path) -> Bundle:
    """mini, where it may be changed, with nothing beside it."""
    return copy_bundle(open_bundle("mini"), tmp_path / "station" / "bundle")


@pytest.fixture(scope="session")
def good_photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos of "good parts", 200 x 160 px: crops of one photo."""
    folder = tmp_path_factory.mktemp("good")
    paths = [folder / f"{i:02d}.png" for i in range(12)]
    for i, path in enumerate(paths):
        crop = data.gravel()[5 * i : 5 * i + 160, 10 * i : 10 * i + 200]
        Image.fromarray(np.stack([crop] * 3, axis=-1)).save(path)
    return paths


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """The frames that a learning encodes from here on, in this process."""
    frames: list[Frame] = []
    real = PhotoScorer.encode

    def encode(self: PhotoScorer, one: Frame) -> PhotoEncoding:
        frames.append(one)
        return real(self, one)

    monkeypatch.setattr(PhotoScorer, "encode", encode)
    return frames
