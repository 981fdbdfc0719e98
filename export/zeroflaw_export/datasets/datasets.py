"""A data set: which samples of which classes it holds, and the digest that identifies it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from zeroflaw_engines.errors import DatasetError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_export.datasets.layouts import (
    Layout,
    Skipped,
    Split,
    Unmasked,
    list_folder,
    list_mvtec,
    list_visa,
    recognised_layout,
)
from zeroflaw_export.datasets.samples import Sample


@dataclass(frozen=True)
class DatasetClass:
    """The images of one class of products, sorted by path; good or defective ones may be none."""

    name: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Dataset:
    """A split of a data set.

    Attributes:
        layout: Of the files; recognised where none was given.
        classes: Sorted by name; each has at least one sample.
        skipped: Files that were left out, sorted by path.
    """

    root: Path
    layout: Layout
    split: Split
    classes: tuple[DatasetClass, ...]
    skipped: tuple[Skipped, ...]


def read_dataset(
    root: Path,
    *,
    layout: Layout | None = None,
    split: Split = "test",
    classes: Sequence[str] | None = None,
    unmasked: Unmasked = "error",
    white_level: float | None = None,
) -> Dataset:
    """List a data set.

    Args:
        layout: How it is laid out. Default: recognised from the directories.
        split: Which part. A plain folder has no split: all of it is "test".
        classes: Names of the classes to read. Default: all. A plain folder is one class with the
            directory's name.
        unmasked: What an image without a mask file is, in a plain folder: a "good" one, or an
            "error", since a lost mask would otherwise count as a good part.
        white_level: The value that is white in its images, against what their files say.

    Returns:
        The data set, in an order that does not depend on the file system.

    Raises:
        DatasetError: There is no such directory, its layout is unknown or ambiguous, a class is
            unknown or has no usable image, VisA's list is missing or malformed, or a plain
            folder has images without a mask.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a directory", "check the path of the data set")
    if split not in get_args(Split):
        raise DatasetError(f"unknown split {split!r}", f"say one of {', '.join(get_args(Split))}")
    found = layout or recognised_layout(root)
    skipped: list[Skipped] = []
    if found == "mvtec":
        listed = list_mvtec(root, split, classes, skipped)
    elif found == "visa":
        listed = list_visa(root, split, classes, skipped)
    elif found == "folder":
        listed = list_folder(root, split, classes, skipped, unmasked)
    else:
        raise DatasetError(f"unknown layout {found!r}", f"say one of {', '.join(get_args(Layout))}")
    for name, samples in listed.items():
        if not samples:
            first = f" ({skipped[0].path}: {skipped[0].reason})" if skipped else ""
            raise DatasetError(
                f"the class {name!r} of {root} has no usable image in its {split} split; "
                f"{len(skipped)} files were left out{first}",
                "check that the data set was unpacked completely, or leave the class out",
            )
    return Dataset(
        root=root,
        layout=found,
        split=split,
        classes=tuple(
            DatasetClass(
                name,
                tuple(
                    replace(sample, white_level=white_level)
                    for sample in sorted(listed[name], key=lambda sample: sample.image)
                ),
            )
            for name in sorted(listed)
        ),
        skipped=tuple(sorted(skipped, key=lambda skip: skip.path)),
    )


def dataset_digest(dataset: Dataset) -> str:
    """Identify what was read: the truth, the relative path and the content of every sample.

    Returns:
        sha256, 64 hexadecimal digits. Neither the place of the data set nor the order in which
        the file system lists it changes it; what was skipped does not enter.

    Raises:
        DatasetError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for entry in dataset.classes:
        for sample in entry.samples:
            fields = [entry.name, sample.defect, "anomalous" if sample.anomalous else "good"]
            if sample.white_level is not None:
                fields.append(f"white {sample.white_level!r}")
            for path in (sample.image, sample.mask):
                if path is not None:
                    fields += [path.relative_to(dataset.root).as_posix(), _file_digest(path)]
            # No path or name holds a NUL, so that two different lists never read the same.
            digest.update("\0".join(fields).encode() + b"\0\n")
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error}", "check that the file is there and complete"
        ) from error
