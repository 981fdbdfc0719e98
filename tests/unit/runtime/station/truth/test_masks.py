"""Which mask belongs to which photo, and what is said of masks that cannot be used."""

from __future__ import annotations

from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image

from zeroflaw.station.picture_search import Picture, find_pictures
from zeroflaw.station.truth.masks import (
    apart_from_masks,
    find_truth_masks,
    masks_without_photo,
    photos_without_mask,
)
from zeroflaw_engines.errors import DatasetError


def photo(name: str) -> Picture:
    return Picture(Path("photos", name), PurePath(name))


def write_mask(path: Path, mask: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6), np.uint8) if mask is None else mask).save(path)
    return path


def found(folder: Path, *names: str) -> dict[str, str]:
    truth = find_truth_masks(folder, [photo(name) for name in names])
    return {
        one.relative_to("photos").as_posix(): mask.relative_to(folder).as_posix()
        for one, mask in truth.mask_of.items()
    }


def test_a_mask_bears_the_stem_of_its_photo(tmp_path: Path) -> None:
    for name in ("a.png", "b_mask.png", "sub/c.PNG", "gr\u00f6\u00dfe.png"):
        write_mask(tmp_path / name)
    names = ("a.jpg", "x/b.tif", "sub/c.jpg", "gro\u0308\u00dfe.jpg", "good.jpg")
    assert found(tmp_path, *names) == {
        "a.jpg": "a.png",
        "x/b.tif": "b_mask.png",
        "sub/c.jpg": "sub/c.PNG",
        "gro\u0308\u00dfe.jpg": "gr\u00f6\u00dfe.png",
    }


def test_the_layout_of_mvtec_ad_is_understood(tmp_path: Path) -> None:
    for name in ("bent/000_mask.png", "cut/000_mask.png"):
        write_mask(tmp_path / name)
    assert found(tmp_path, "bent/000.png", "cut/000.png", "good/000.png") == {
        "bent/000.png": "bent/000_mask.png",
        "cut/000.png": "cut/000_mask.png",
    }


def test_photos_without_masks_and_masks_without_photos_are_named(tmp_path: Path) -> None:
    for name in ("a.png", "typo.png", "sub/b.png", ".hidden.png"):
        write_mask(tmp_path / name)
    photos = [photo(name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    truth = find_truth_masks(tmp_path, photos)
    (text,) = photos_without_mask(truth, len(photos))
    assert text.startswith("2 of 3 photos have no mask")
    assert "count as good parts" in text
    (text,) = masks_without_photo(truth)
    assert text.startswith("2 masks")
    assert text.endswith("belong to no photo: sub/b.png, typo.png")
    whole = find_truth_masks(tmp_path / "sub", [photo("b.jpg")])
    assert photos_without_mask(whole, 1) == masks_without_photo(whole) == ()


@pytest.mark.parametrize(
    ("masks", "photos", "text"),
    [
        ([], ["a.jpg"], "there is no mask in"),
        (["b.png", "c.png"], ["a.jpg"], "none of the 2 masks"),
        (["a.png", "a_mask.png"], ["a.jpg"], "has two truth masks"),
        (["a.png"], ["x/a.jpg", "y/a.jpg"], "bears the name of two photos"),
        (["a.png"], ["a.jpg", "a.tif"], "bears the name of two photos"),
    ],
)
def test_what_is_not_plain_is_refused(
    tmp_path: Path, masks: list[str], photos: list[str], text: str
) -> None:
    for name in masks:
        write_mask(tmp_path / name)
    with pytest.raises(DatasetError, match=text) as caught:
        found(tmp_path, *photos)
    assert str(tmp_path) in caught.value.cause + caught.value.remedy


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        found(tmp_path / "nowhere", "a.jpg")
    mask = write_mask(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png is a file"):
        found(mask, "a.jpg")


TRUE = np.array([[0, 0, 1], [0, 1, 1]], bool)


@pytest.mark.parametrize(
    "mask",
    [
        TRUE,
        TRUE.astype(np.uint8),
        TRUE.astype(np.uint8) * 255,
        TRUE.astype(np.uint16) * 7,
        np.stack([TRUE * 0, TRUE * 128, TRUE * 0], axis=-1).astype(np.uint8),
        np.stack([TRUE * 255, TRUE * 0, TRUE * 0, TRUE * 0 + 255], axis=-1).astype(np.uint8),
    ],
    ids=["1 bit", "0 and 1", "0 and 255", "16 bits", "colour", "alpha"],
)
def test_what_is_not_zero_is_defective(tmp_path: Path, mask: np.ndarray) -> None:
    write_mask(tmp_path / "a.png", mask)
    truth = find_truth_masks(tmp_path, [photo("a.jpg")])
    read = truth.read(Path("photos/a.jpg"), (2, 3))
    assert read.dtype == np.bool_
    assert (read == TRUE).all()
    assert not truth.read(Path("photos/other.jpg"), (5, 4)).any()
    assert truth.read(Path("photos/other.jpg"), (5, 4)).shape == (5, 4)


def test_a_mask_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "a.png")
    truth = find_truth_masks(tmp_path, [photo("a.jpg")])
    with pytest.raises(DatasetError, match=r"a\.png has 6x4 px, its photo photos/a\.jpg 6x5 px"):
        truth.read(Path("photos/a.jpg"), (5, 6))
    mask.write_bytes(mask.read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"truth mask of photos/a\.jpg cannot be used.*a\.png"):
        truth.read(Path("photos/a.jpg"), (4, 6))


def test_masks_among_the_photos_are_left_out(tmp_path: Path) -> None:
    for name in ("good/a.png", "bad/b.png", "masks/b.png", "masks/deep/c.png"):
        write_mask(tmp_path / name)
    search = find_pictures([tmp_path])
    apart = apart_from_masks(search, tmp_path / "masks")
    assert [one.path.relative_to(tmp_path).as_posix() for one in apart.pictures] == [
        "bad/b.png",
        "good/a.png",
    ]
    (left_out,) = apart.left_out
    assert (left_out.path, left_out.why) == (tmp_path / "masks", "holds 2 truth masks")
    assert not apart.missed
    assert apart_from_masks(find_pictures([tmp_path / "good"]), tmp_path / "masks").left_out == ()
    with pytest.raises(DatasetError, match="every photo lies in"):
        apart_from_masks(search, tmp_path)
