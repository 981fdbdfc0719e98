"""How well a bundle ranks the pixels of single photos: the mean within-image AUROC.

    python -m zeroflaw_benchmarks.evaluate.within_image BUNDLE IMAGES MASKS

For photos that have masks but no flawless counterpart, so that nothing can be said about classes
or thresholds. Each mask bears the stem of its image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import cv2
import numpy as np
import typer

from zeroflaw import Inspector
from zeroflaw.pictures.images import IMAGE_SUFFIXES
from zeroflaw_benchmarks.evaluate.metrics.metrics import within_image_auroc
from zeroflaw_benchmarks.evaluate.products import refuse_settings
from zeroflaw_engines.errors import DatasetError
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_export.datasets import (
    Sample,
    mask_at_size,
    read_sample_image,
    read_sample_mask,
)

SIZE: Final = 518


@dataclass(frozen=True)
class WithinImage:
    """Figures of one photo.

    Attributes:
        map_auroc: Of the anomaly map.
        fused_auroc: Of the score map.
    """

    image: Path
    map_auroc: float
    fused_auroc: float


def photos_in(folder: Path) -> list[Path]:
    """List the photos of a directory, sorted.

    Raises:
        DatasetError: There is none.
    """
    photos = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not photos:
        raise DatasetError(f"there is no image in {folder}", "name the directory of the photos")
    return photos


def masked_photos(images: Path, masks: Path) -> list[Sample]:
    """List defective photos with their masks.

    Raises:
        DatasetError: There is no photo, or one has no mask.
    """
    samples = []
    for path in photos_in(images):
        mask = masks / f"{path.stem}.png"
        if not mask.is_file():
            raise DatasetError(f"{path} has no mask {mask}", "name the directory of the masks")
        samples.append(Sample(path, mask, anomalous=True, defect="anomaly"))
    return samples


def within_images(
    inspector: Inspector, images: Path, masks: Path, product: str | None = None
) -> Iterator[WithinImage]:
    """Measure every photo that has a mask, at 518 x 518 px.

    Raises:
        DatasetError: There is no photo, one has no mask, or a file is not what it should be.
        EvaluationError: The product has settings.
    """
    refuse_settings(inspector.bundle, inspector.product_name(product))
    for sample in masked_photos(images, masks):
        frame = read_sample_image(sample)
        truth = mask_at_size(read_sample_mask(sample, frame.shape[:2]), SIZE)
        inspection = inspector.inspect(frame, product=product)
        scores = (
            np.asarray(cv2.resize(score, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), np.float32)
            for score in (inspection.anomaly_map, inspection.score_map)
        )
        yield WithinImage(sample.image, *(within_image_auroc(score, truth) for score in scores))


def main(
    bundle: Annotated[str, typer.Argument(help="A bundle's directory, or mini.")],
    images: Annotated[Path, typer.Argument(help="Directory of photos.")],
    masks: Annotated[Path, typer.Argument(help="Directory of masks of the same stems.")],
    *,
    product: Annotated[str, typer.Option(help="What the photos show.")] = "object",
) -> None:
    """Print the mean within-image AUROC of photos with masks."""
    with Inspector.load(bundle) as inspector:
        rows = list(within_images(inspector, images, masks, product))
    typer.echo(
        f"{len(rows)} photos, mean within-image pixel AUROC:"
        f" map {np.nanmean([row.map_auroc for row in rows]):.3f},"
        f" fused {np.nanmean([row.fused_auroc for row in rows]):.3f}"
    )


if __name__ == "__main__":
    run_module(main)
