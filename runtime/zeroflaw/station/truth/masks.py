"""Which mask of a folder tells the truth of which photo, and reading it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Final

import numpy as np

from zeroflaw.pictures.images import read_image_file
from zeroflaw.pipeline.geometry import BoolArray
from zeroflaw.station.picture_search import LeftOut, Picture, PictureSearch
from zeroflaw_engines.errors import DatasetError, ImageFileError

_SUFFIX: Final = ".png"
_ENDINGS: Final = ("", "_mask")
_NAMED_AT_MOST: Final = 5


@dataclass(frozen=True)
class TruthMasks:
    """The masks of a folder, each with its photo.

    Attributes:
        folder: As the user named it.
        mask_of: The mask of each photo that has one, by the photo's path; a photo without one
            shows a good part.
        strays: Masks that belong to no photo.
    """

    folder: Path
    mask_of: Mapping[Path, Path]
    strays: tuple[Path, ...]

    def read(self, photo: Path, size: tuple[int, int]) -> BoolArray:
        """Read where a photo is defective.

        Args:
            size: Height and width of its frame, px.

        Returns:
            bool [H, W], True where any channel of the mask is not 0; all False where the photo
            has no mask.

        Raises:
            DatasetError: The mask cannot be read, or is not of the photo's size.
        """
        mask = self.mask_of.get(photo)
        if mask is None:
            return np.zeros(size, np.bool_)
        try:
            pixels = read_image_file(mask).pixels
        except ImageFileError as error:
            raise DatasetError(
                f"the truth mask of {photo} cannot be used: {error.cause}", error.remedy
            ) from error
        if pixels.shape[:2] != size:
            raise DatasetError(
                f"the truth mask {mask} has {pixels.shape[1]}x{pixels.shape[0]} px, its photo"
                f" {photo} {size[1]}x{size[0]} px",
                "give the mask the size of the photo",
            )
        channels = pixels.reshape(*size, -1)[..., :3]  # without alpha
        defective: BoolArray = (channels != 0).any(axis=-1)
        return defective


def apart_from_masks(search: PictureSearch, folder: Path) -> PictureSearch:
    """Leave the masks out of the photos, where their folder lies among those that were searched.

    Raises:
        DatasetError: All the photos lie in the folder of the masks.
    """
    real = folder.resolve()
    photos = tuple(one for one in search.pictures if not one.path.resolve().is_relative_to(real))
    masks = len(search.pictures) - len(photos)
    if not photos:
        raise DatasetError(
            f"every photo lies in {folder}, the folder of the truth masks",
            "put the masks into a folder of their own",
        )
    if not masks:
        return search
    left_out = LeftOut(folder, f"holds {masks} truth masks", may_be_picture=False)
    return replace(search, pictures=photos, left_out=(*search.left_out, left_out))


def find_truth_masks(folder: Path, photos: Sequence[Picture]) -> TruthMasks:
    """Find the mask of each photo: a PNG of the photo's stem, or of that and `_mask`.

    It lies where the photo lies below the folder that was searched, as in MVTec-AD's
    `ground_truth`, or at the top of the folder.

    Raises:
        DatasetError: There is no such folder, no mask in it, none of them belongs to a photo, or
            it is not plain which mask belongs to which photo.
    """
    masks = dict(_masks_in(folder))
    mask_of: dict[Path, Path] = {}
    photo_of: dict[Path, Path] = {}
    for photo in photos:
        mask = _mask_of(photo, masks)
        if mask is None:
            continue
        if mask in photo_of:
            raise DatasetError(
                f"the truth mask {mask} bears the name of two photos: {photo_of[mask]} and"
                f" {photo.path}",
                f"put the masks into folders below {folder} as the photos are",
            )
        mask_of[photo.path] = mask
        photo_of[mask] = photo.path
    strays = tuple(mask for mask in masks.values() if mask not in photo_of)
    if not mask_of:
        names = ", ".join(mask.name for mask in strays[:_NAMED_AT_MOST])
        raise DatasetError(
            f"none of the {len(strays)} masks in {folder} belongs to a photo: {names}"
            + (", ..." if len(strays) > _NAMED_AT_MOST else ""),
            f"name the mask of part.jpg part.png or part_mask.png; photos: {photos[0].path}, ...",
        )
    return TruthMasks(folder, mask_of, strays)


def photos_without_mask(truth: TruthMasks, photos: int) -> tuple[str, ...]:
    """Say that photos without a mask count as good parts, if there are any.

    Args:
        photos: How many photos there are.
    """
    without = photos - len(truth.mask_of)
    if not without:
        return ()
    text = f"{without} of {photos} photos have no mask in {truth.folder} and count as good parts"
    return (text,)


def masks_without_photo(truth: TruthMasks) -> tuple[str, ...]:
    """Name the masks that belong to no photo, if there are any."""
    strays = [mask.relative_to(truth.folder).as_posix() for mask in truth.strays]
    if not strays:
        return ()
    names = ", ".join(strays[:_NAMED_AT_MOST]) + (", ..." if len(strays) > _NAMED_AT_MOST else "")
    return (f"{len(strays)} masks in {truth.folder} belong to no photo: {names}",)


# Folder below that of the masks, and the name without suffix, as the disk need not spell them.
_Place = tuple[str, str]


def _masks_in(folder: Path) -> Iterator[tuple[_Place, Path]]:
    if not folder.is_dir():
        raise DatasetError(
            f"the folder of truth masks {folder} "
            + ("is a file" if folder.exists() else "does not exist"),
            "name the folder that the masks lie in",
        )
    try:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == _SUFFIX)
    except OSError as error:
        raise DatasetError(
            f"{folder} cannot be read: {error.strerror}", "check its permissions"
        ) from error
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        raise DatasetError(
            f"there is no mask in {folder}",
            f"name a folder of masks ending in {_SUFFIX}; a black mask says that a part is good",
        )
    for path in files:
        yield _place(path.relative_to(folder).with_suffix("")), path


def _mask_of(photo: Picture, masks: Mapping[_Place, Path]) -> Path | None:
    """Return the mask of a photo: that beside its like, else that at the top."""
    name = photo.name.with_suffix("")
    for parent in (name.parent, PurePath()):
        places = (_place(parent / (name.name + ending)) for ending in _ENDINGS)
        found = [masks[place] for place in places if place in masks]
        if len(found) > 1:
            raise DatasetError(
                f"{photo.path} has two truth masks: {found[0]} and {found[1]}", "remove one of them"
            )
        if found:
            return found[0]
    return None


def _place(path: PurePath) -> _Place:
    text = unicodedata.normalize("NFC", path.as_posix())
    folder, _, name = text.rpartition("/")
    return folder, name
