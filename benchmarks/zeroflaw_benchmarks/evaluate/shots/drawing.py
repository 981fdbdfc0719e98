"""Few-shot evaluation: which good photos are drawn as reference, and the banks they make."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zeroflaw.station.thinning import rows_of_a_photo
from zeroflaw_benchmarks.evaluate.cache import EvaluationCache, digest_of
from zeroflaw_benchmarks.evaluate.passes.reference_pass import BankSource
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import REFERENCE_MATCHER, ReferenceSizes
from zeroflaw_engines.errors import EvaluationError
from zeroflaw_export.datasets import (
    Dataset,
    DatasetClass,
    Sample,
    read_dataset,
    sample_image_digest,
)


@dataclass(frozen=True)
class ShotBank:
    """The reference bank of one class at one draw.

    Attributes:
        shots: How many photos were drawn.
        photos: That were drawn, sorted by path.
        source: Where the bank comes from.
    """

    class_name: str
    shots: int
    seed: int
    photos: tuple[Sample, ...]
    source: BankSource


def parsed_shots(text: str) -> tuple[int, ...]:
    """Read numbers of reference photos, such as `1,2,4,8`.

    Returns:
        In ascending order, each once.

    Raises:
        EvaluationError: They are not whole numbers from 1 on.
    """
    words = text.split(",")
    if not all(word.strip().isascii() and word.strip().isdigit() for word in words):
        raise EvaluationError(
            f"--shots {text!r} is not a list of whole numbers", "write for example --shots 1,2,4,8"
        )
    shots = sorted({int(word) for word in words})
    if shots[0] == 0:
        raise EvaluationError(
            "--shots asks for 0 reference photos",
            "ask for 1 or more; the row without any is measured anyway",
        )
    return tuple(shots)


def drawn_photos(count: int, shots: int, seed: int, class_name: str) -> list[int]:
    """Draw reference photos; whoever has the sorted list of a class can draw them again.

    Args:
        count: Good photos that there are.
        shots: How many of them to draw.

    Returns:
        Their places in the list, in ascending order.
    """
    generator = np.random.default_rng((seed, shots, zlib.crc32(class_name.encode())))
    return sorted(int(n) for n in generator.choice(count, shots, replace=False))


def reference_sizes(bundle: Bundle) -> ReferenceSizes:
    """Return the sizes of a bundle's reference banks.

    Raises:
        EvaluationError: It takes none.
    """
    sizes = bundle.manifest.sizes.reference
    if sizes is None or REFERENCE_MATCHER not in bundle.manifest.engines:
        raise EvaluationError(
            f"the bundle {bundle.path} takes no reference photos: it has no {REFERENCE_MATCHER}",
            "export it again with this version of zeroflaw, or evaluate without --shots",
        )
    return sizes


def shot_banks(
    bundle: Bundle,
    dataset: Dataset,
    shots: Sequence[int],
    seeds: int,
    *,
    cache: EvaluationCache,
    backend: str,
) -> tuple[ShotBank, ...]:
    """Draw the reference photos of every class from its train split, for every seed.

    Args:
        dataset: What is evaluated.
        shots: Numbers of photos.
        seeds: Draws of each number.
        backend: `Session.backend`, with the version.

    Raises:
        EvaluationError: The bundle takes no banks, the dataset has no train split beside what is
            evaluated, a class has too few good photos, or one cannot be read.
        DatasetError: A class has no train split.
        ReferenceBankError: More photos are asked for than a bank has rows.
    """
    sizes = reference_sizes(bundle)
    if dataset.layout == "folder" or dataset.split != "test":
        what = "a plain folder" if dataset.layout == "folder" else f"its {dataset.split} split"
        raise EvaluationError(
            f"--shots draws reference photos from the train split, and {dataset.root} is"
            f" evaluated as {what}",
            "evaluate the test split of a dataset with train/good (mvtec), or with a list of its"
            " train images (visa); python -m"
            " zeroflaw_benchmarks.evaluate.photos_as_reference takes photos without a layout",
        )
    train = read_dataset(
        dataset.root,
        layout=dataset.layout,
        split="train",
        classes=[entry.name for entry in dataset.classes],
        white_level=dataset.classes[0].samples[0].white_level,
    )
    variant = digest_of("patch tokens", backend)
    banks = []
    for entry in train.classes:
        for count in shots:
            rows = rows_of_a_photo(count, sizes.rows)
            for seed in range(seeds):
                photos = _drawn(entry, count, seed)
                digests = [_digest(photo) for photo in photos]
                key = digest_of("bank", backend, str(rows), *digests)
                files = tuple(cache.photo(digest, variant) for digest in digests)
                source = BankSource(key, None, files, rows)
                banks.append(ShotBank(entry.name, count, seed, photos, source))
    return tuple(banks)


def photo_files(banks: Sequence[ShotBank]) -> dict[Path, Sample]:
    """List every photo of some banks once, by the file of its tokens."""
    return {
        file: photo
        for bank in banks
        for file, photo in zip(bank.source.photos, bank.photos, strict=True)
    }


def _drawn(entry: DatasetClass, shots: int, seed: int) -> tuple[Sample, ...]:
    good = [sample for sample in entry.samples if not sample.anomalous]
    if shots > len(good):
        raise EvaluationError(
            f"the class {entry.name!r} has {len(good)} good images in its train split, and"
            f" --shots asks for {shots}",
            "ask for fewer shots, or evaluate other classes (--class)",
        )
    return tuple(good[place] for place in drawn_photos(len(good), shots, seed, entry.name))


def _digest(photo: Sample) -> str:
    try:
        return sample_image_digest(photo)
    except OSError as error:
        raise EvaluationError(
            f"the reference photo {photo.image} cannot be read: {error.strerror}",
            "check its permissions",
        ) from error
