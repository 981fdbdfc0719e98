"""Photos are found in order, split by file, and named where they cannot be read."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from zeroflaw_engines.errors import DatasetError
from zeroflaw_export.mini.photo_frames.photos import (
    find_photos,
    read_photo,
    texture_window,
    whole_photo,
)


def _names(photos):
    return [path.name for source in photos.sources for path in source]


def test_splits_share_no_photo_and_leave_none_out(photo_folder):
    train, held_out = (find_photos(photo_folder, split) for split in ("train", "validation"))
    assert held_out.sources
    assert not set(_names(train)) & set(_names(held_out))
    everything = {path.name for path in photo_folder.glob("*/*")}
    assert set(_names(train)) | set(_names(held_out)) == everything
    assert all(list(source) == sorted(source) for source in train.sources)


def test_another_photo_moves_none_to_the_other_split(photo_folder, tmp_path):
    before = find_photos(photo_folder, "validation")
    shutil.copytree(photo_folder, tmp_path / "more")
    shutil.copy(photo_folder / "drawn" / "00.png", tmp_path / "more" / "drawn" / "0.png")
    after = find_photos(tmp_path / "more", "validation")
    assert set(_names(before)) <= set(_names(after)) <= {*_names(before), "0.png"}


def test_small_sources_are_drawn_from_more_than_their_share(photos):
    small = min(range(2), key=lambda i: len(photos.sources[i]))
    count = sum(map(len, photos.sources))
    assert photos.shares[small] > len(photos.sources[small]) / count
    assert sum(photos.shares) == pytest.approx(1)


def test_folder_without_photos_is_named(tmp_path):
    with pytest.raises(DatasetError, match=str(tmp_path)):
        find_photos(tmp_path, "train")


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_photo_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"broken\.jpg"):
        read_photo(path)


def test_photo_that_is_gone_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.jpg"):
        read_photo(tmp_path / "gone.jpg")


@pytest.mark.parametrize("shape", [(40, 300, 3), (300, 40, 3), (1000, 700, 3)])
@pytest.mark.parametrize("cut", [texture_window, whole_photo])
def test_window_of_any_photo_shows_nothing_but_the_photo(shape, cut):
    photo = np.full(shape, (200, 100, 50), np.uint8)
    for seed in range(8):
        window = cut(np.random.default_rng(seed), photo, 128)
        assert window.shape == (128, 128, 3)
        assert np.allclose(window, np.float32([200, 100, 50]) / 255, atol=0.005)


def test_window_without_contrast_is_not_taken(tmp_path):
    from PIL import Image

    (tmp_path / "s").mkdir()
    Image.new("RGB", (300, 300), (128, 128, 128)).save(tmp_path / "s" / "even.png")
    stripes = np.tile(np.repeat(np.uint8([60, 200]), 16), (300, 10))[:, :300]
    Image.fromarray(stripes).convert("RGB").save(tmp_path / "s" / "stripes.png")
    photos = find_photos(tmp_path, "train")
    assert len(_names(photos)) == 2
    for seed in range(10):
        assert photos.texture(np.random.default_rng(seed), 128).std() > 0.05
