"""Golden vectors: frames and what the shipped model makes of them, for Python and for C.

    PYTHONPATH=tests python -m support.golden_vectors

writes `tests/golden/` anew: to be done when the shipped model or the method has changed on
purpose. `runtime/c/tests/golden.cpp` checks the same files with the same tolerances.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from zeroflaw.inspection import Inspection
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw.pipeline.masks.regions import Region
from zeroflaw_engines.builder.differences import largest_difference
from zeroflaw_engines.process.terminal import run_module

_ROOT: Final = Path(__file__).parents[2]
GOLDEN: Final = _ROOT / "tests" / "golden"
# Lossless files alone: JPEG decoders differ in the last bit.
FRAMES: Final = (("brick", "object"), ("coffee", "object"), ("gravel", "gravel"))


@dataclass(frozen=True)
class Tolerances:
    """How far results may be apart on other machines: engines add up in another order there.

    On one machine Python and C must agree to the last bit, which other tests see to.

    Attributes:
        score: Of the image score.
        pixels: Of the mask that may differ, and beyond them
        share: of the pixels that are set in either mask.
        smallest_region: Regions of fewer pixels may come and go.
        box: Pixels that each side of a region's box may move.
    """

    score: float = 1e-3
    pixels: int = 25
    share: float = 0.02
    smallest_region: int = 100
    box: int = 2


@dataclass(frozen=True)
class Vector:
    """What is expected of one frame.

    Attributes:
        name: Of the frame, and of its mask's file.
        product: That it is inspected as.
        decision: `accept` or `reject`.
        score: Of the image.
        boxes: x, y, width, height and area of each region that counts.
    """

    name: str
    product: str
    decision: str
    score: float
    boxes: tuple[tuple[int, int, int, int, int], ...]


def frame_path(name: str) -> Path:
    """The file of a golden frame."""
    return _ROOT / "examples" / "images" / f"{name}.png"


def boxes_of(
    regions: Iterable[Region], smallest: int
) -> tuple[tuple[int, int, int, int, int], ...]:
    """The boxes and areas of the regions that count."""
    return tuple((r.x, r.y, r.width, r.height, r.area) for r in regions if r.area >= smallest)


def write_vectors(directory: Path, tolerances: Tolerances) -> None:
    """Inspects the golden frames with the shipped model and writes what comes out."""
    directory.mkdir(parents=True, exist_ok=True)
    with Inspector.load() as inspector:
        lines = [
            "# PYTHONPATH=tests python -m support.golden_vectors",
            f"bundle {inspector.bundle.identity}",
            " ".join(["tolerances", *(f"{value:g}" for value in astuple(tolerances))]),
        ]
        for name, product in FRAMES:
            inspection = inspector.inspect(read_image(frame_path(name)), product=product)
            Image.fromarray(~inspection.mask).save(directory / f"{name}.pbm", format="PPM")
            decision, score = inspection.decision, inspection.image_score
            lines.append(f"frame {name} {product} {decision} {score:.9f}")
            boxes = boxes_of(inspection.regions, tolerances.smallest_region)
            lines += [" ".join(["region", *map(str, box)]) for box in boxes]
    (directory / "vectors.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_vectors(directory: Path) -> tuple[str, Tolerances, list[Vector]]:
    """The digest of the bundle, the tolerances and the vectors that a directory holds."""
    bundle, tolerances = "", Tolerances()
    vectors: list[Vector] = []
    for line in (directory / "vectors.txt").read_text(encoding="utf-8").splitlines():
        word, *fields = line.split()
        if word == "bundle":
            (bundle,) = fields
        elif word == "tolerances":
            tolerances = Tolerances(
                float(fields[0]), int(fields[1]), float(fields[2]), int(fields[3]), int(fields[4])
            )
        elif word == "frame":
            name, product, decision, score = fields
            vectors.append(Vector(name, product, decision, float(score), ()))
        elif word == "region":
            last = vectors.pop()
            x, y, width, height, area = map(int, fields)
            boxes = (*last.boxes, (x, y, width, height, area))
            vectors.append(Vector(last.name, last.product, last.decision, last.score, boxes))
    return bundle, tolerances, vectors


def read_mask(directory: Path, name: str) -> NDArray[np.bool_]:
    """The golden mask of a frame, bool [H, W]."""
    with Image.open(directory / f"{name}.pbm") as image:
        return ~np.asarray(image, np.bool_)  # PBM's 1 is black


def differences(
    vector: Vector, mask: NDArray[np.bool_], inspection: Inspection, tolerances: Tolerances
) -> list[str]:
    """In what an inspection differs from its golden vector by more than is tolerated."""
    found = []
    if inspection.decision != vector.decision:
        found.append("decision")
    if not abs(inspection.image_score - vector.score) <= tolerances.score:
        found.append("score")
    if mask.shape != inspection.mask.shape:
        found.append("size of the mask")
    else:
        either = int((mask | inspection.mask).sum())
        differing = int((mask ^ inspection.mask).sum())
        if differing > tolerances.pixels + tolerances.share * either:
            found.append("mask")
    boxes = boxes_of(inspection.regions, tolerances.smallest_region)
    if len(boxes) != len(vector.boxes):
        found.append("number of regions")
    for index, (box, golden) in enumerate(zip(boxes, vector.boxes, strict=False)):
        corners = np.array(
            [
                (box[0], box[1], box[0] + box[2], box[1] + box[3]),
                (golden[0], golden[1], golden[0] + golden[2], golden[1] + golden[3]),
            ]
        )
        if largest_difference(corners[0], corners[1], "corners") > tolerances.box:
            found.append(f"box of region {index}")
    return found


def main(
    directory: Annotated[Path, typer.Argument(help="Where the vectors are written.")] = GOLDEN,
) -> None:
    """Writes the golden vectors anew."""
    write_vectors(directory, Tolerances())


if __name__ == "__main__":
    run_module(main)
