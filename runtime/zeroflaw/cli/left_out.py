"""What commands say of files that they leave out: each is counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zeroflaw.station.picture_search import PictureSearch, find_pictures
from zeroflaw.station.truth.masks import apart_from_masks
from zeroflaw_engines.process.terminal import err, print_warning, printable

_NAMED_AT_MOST: Final = 20


def search_and_report(
    files_or_folders: Sequence[Path], *, results: Path | None = None, masks: Path | None = None
) -> PictureSearch:
    """Find the pictures that a command works on, and name what it leaves out.

    Args:
        results: The folder of the results, whose files are none of them.
        masks: A folder of truth masks, which are none of them either.

    Raises:
        ImageFileError: A path does not exist, or there is no image.
        DatasetError: There is no picture but masks.
    """
    search = find_pictures(files_or_folders, results=results)
    if masks is not None:
        search = apart_from_masks(search, masks)
    missed = search.missed
    for one in missed[:_NAMED_AT_MOST]:
        print_warning(f"left out, and may be a picture: {one.path} {one.why}")
    if len(missed) > _NAMED_AT_MOST:
        print_warning(f"and {len(missed) - _NAMED_AT_MOST} more files that may be pictures")
    others = [one for one in search.left_out if not one.may_be_picture]
    for one in others[:_NAMED_AT_MOST]:
        err.print(printable(f"left out: {one.path} {one.why}"), markup=False)
    if len(others) > _NAMED_AT_MOST:
        err.print(f"and {len(others) - _NAMED_AT_MOST} more files that are no pictures")
    return search
