"""How publishers lay out their data sets, and which samples a layout holds.

A function for each layout lists the samples of a split by class. What it cannot use it appends
to `skipped`. No directory is entered recursively, so links that lead in circles do no harm.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from zeroflaw_engines.errors import DatasetError
from zeroflaw_engines.image_files import IMAGE_SUFFIXES
from zeroflaw_export.datasets.samples import Sample, mask_values

Layout = Literal["mvtec", "visa", "folder"]
Split = Literal["train", "test"]
Unmasked = Literal["good", "error"]
Listed = dict[str, list[Sample]]

VISA_SPLIT_FILE: Final = Path("split_csv/1cls.csv")
_VISA_COLUMNS: Final = ("object", "split", "label", "image", "mask")


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    path: Path
    reason: str


def recognised_layout(root: Path) -> Layout:
    """Recognise the layout of a data set by its directories.

    Raises:
        DatasetError: None of the three fits, or more than one.
    """
    fitting: list[Layout] = []
    if _mvtec_classes(root):
        fitting.append("mvtec")
    if (root / VISA_SPLIT_FILE).is_file() or any(root.glob("*/Data/Images")):
        fitting.append("visa")
    if (root / "images").is_dir() and (root / "masks").is_dir():
        fitting.append("folder")
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DatasetError(
            f"{root} could be laid out as any of {', '.join(fitting)}", "say which one it is"
        )
    if (root / "test").is_dir():
        raise DatasetError(
            f"{root} looks like a single class of an mvtec data set",
            f"give {root.parent} and name the class {root.name!r}",
        )
    raise DatasetError(
        f"{root} is not laid out as a data set: it has neither CLASS/test (mvtec), nor "
        f"{VISA_SPLIT_FILE} (visa), nor images and masks (folder)",
        "check the path, or arrange the files in one of these ways",
    )


def list_mvtec(
    root: Path, split: Split, classes: Sequence[str] | None, skipped: list[Skipped]
) -> Listed:
    """List the samples of MVTec-AD's layout.

    Raises:
        DatasetError: A class is not there.
    """
    listed: Listed = {}
    for name in _chosen(_mvtec_classes(root), classes, root):
        samples = listed.setdefault(name, [])
        for folder in _directories(root / name / split):
            good = folder.name == "good"
            truth = root / name / "ground_truth" / folder.name
            masks = {} if good else _by_stem(truth, skipped)
            for stem, image in _by_stem(folder, skipped).items():
                mask = masks.get(f"{stem}_mask")
                if good or mask is not None:
                    samples.append(Sample(image, mask, not good, folder.name))
                else:
                    skipped.append(Skipped(image, f"no mask {stem}_mask.png in {truth}"))
    return listed


def list_visa(
    root: Path, split: Split, classes: Sequence[str] | None, skipped: list[Skipped]
) -> Listed:
    """List the samples of VisA's layout, as its list `split_csv/1cls.csv` has them.

    Raises:
        DatasetError: The list is missing or malformed, or a class is not in it.
    """
    rows = _visa_rows(root)
    names = _chosen(sorted({row["object"] for row in rows}), classes, root)
    listed: Listed = {name: [] for name in names}
    seen: set[str] = set()
    for row in rows:
        if row["object"] not in listed or row["split"] != split:
            continue
        anomalous = row["label"] == "anomaly"
        image = _listed_file(root, row["image"])
        mask = _listed_file(root, row["mask"]) if anomalous and row["mask"] else None
        if row["image"] in seen:
            skipped.append(Skipped(root / row["image"], f"listed twice in {VISA_SPLIT_FILE}"))
        elif image is None:
            skipped.append(
                Skipped(root / row["image"], f"in {VISA_SPLIT_FILE}, but not in the data set")
            )
        elif anomalous and mask is None:
            named = f"its mask {row['mask']} is not there" if row["mask"] else "no mask is listed"
            skipped.append(Skipped(image, named))
        else:
            defect = "anomaly" if anomalous else "good"
            listed[row["object"]].append(
                Sample(image, mask, anomalous, defect, labelled_mask=anomalous)
            )
        seen.add(row["image"])
    return listed


def list_folder(
    root: Path,
    split: Split,
    classes: Sequence[str] | None,
    skipped: list[Skipped],
    unmasked: Unmasked,
) -> Listed:
    """List the samples of a plain folder; its masks are read, since they say what is good.

    Raises:
        DatasetError: `images` or `masks` is missing, a class or a split other than "test" is
            asked for, or images have no mask and may not.
    """
    name = root.resolve().name
    _chosen([name], classes, root)
    if split != "test":
        raise DatasetError(
            f"the plain folder {root} has no {split!r} split", "say the split 'test': all of it"
        )
    for needed in (root / "images", root / "masks"):
        if not needed.is_dir():
            raise DatasetError(
                f"{needed} is not a directory", "put the images in images, the masks in masks"
            )
    images, masks = _by_stem(root / "images", skipped), _by_stem(root / "masks", skipped)
    without = [image.name for stem, image in images.items() if stem not in masks]
    if without and unmasked == "error":
        more = ", …" if len(without) > 3 else ""
        raise DatasetError(
            f"{len(without)} of {len(images)} images in {root / 'images'} have no mask in "
            f"{root / 'masks'} ({', '.join(without[:3])}{more})",
            "add the masks (all zero for a good part), or say that unmasked images are good",
        )
    skipped.extend(
        Skipped(mask, "a mask without an image")
        for stem, mask in masks.items()
        if stem not in images
    )
    samples: list[Sample] = []
    for stem, image in images.items():
        if stem not in masks:
            samples.append(Sample(image, None, anomalous=False, defect="good"))
            continue
        try:
            anomalous = bool((mask_values(masks[stem], labelled=False) > 0).any())
        except DatasetError as error:
            skipped.append(Skipped(image, error.cause))
            continue
        samples.append(Sample(image, masks[stem], anomalous, "anomaly" if anomalous else "good"))
    return {name: samples}


def _mvtec_classes(root: Path) -> list[str]:
    return [
        folder.name
        for folder in _directories(root)
        if (folder / "test").is_dir() or (folder / "train").is_dir()
    ]


def _visa_rows(root: Path) -> list[dict[str, str]]:
    path = root / VISA_SPLIT_FILE
    try:
        # utf-8-sig: a spreadsheet that saved the list anew puts a mark before the first column.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [
                column for column in _VISA_COLUMNS if column not in (reader.fieldnames or ())
            ]
            rows = [{key: str(row.get(key) or "") for key in _VISA_COLUMNS} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path} cannot be read: {error}", "unpack the split_csv that VisA comes with"
        ) from error
    if missing:
        raise DatasetError(
            f"{path} has no column {', '.join(missing)}", "use the list that VisA comes with"
        )
    for number, row in enumerate(rows, start=2):
        if row["label"] not in ("normal", "anomaly"):
            raise DatasetError(
                f"line {number} of {path} has the label {row['label']!r}",
                "only 'normal' and 'anomaly' are known",
            )
    return rows


def _listed_file(root: Path, relative: str) -> Path | None:
    """Find a file of VisA's list, whatever the case of its suffix; None if it is not there."""
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts:
        return None
    path = root / parts
    if path.is_file():
        return path
    if not path.parent.is_dir():
        return None
    wanted = path.name.casefold()
    others = (other for other in path.parent.iterdir() if other.name.casefold() == wanted)
    return next((other for other in sorted(others) if other.is_file()), None)


def _chosen(names: Sequence[str], wanted: Sequence[str] | None, root: Path) -> list[str]:
    if not names:
        raise DatasetError(f"{root} has no class in it", "check the path of the data set")
    unknown = sorted(set(wanted or ()) - set(names))
    if unknown:
        raise DatasetError(
            f"{root} has no class {', '.join(unknown)}", f"it has {', '.join(names)}"
        )
    return [name for name in names if wanted is None or name in wanted]


def _directories(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(
        entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _by_stem(folder: Path, skipped: list[Skipped]) -> dict[str, Path]:
    """List the image files of a directory by stem; hidden files are left out silently."""
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            skipped.append(Skipped(path, "not an image file, by its suffix"))
        elif not path.is_file():
            skipped.append(Skipped(path, "not a file, or a link that leads nowhere"))
        elif path.stat().st_size == 0:
            skipped.append(Skipped(path, "an empty file"))
        elif path.stem in found:
            # Which of the two a mask belongs to is unknown.
            skipped.append(Skipped(path, f"has the same stem as {found[path.stem].name}"))
        else:
            found[path.stem] = path
    return found
