"""Is a bundle safe in FP16? Found out without a GPU.

    python -m zeroflaw_benchmarks.verify.fp16.safety mini PHOTOS... --json fp16_safety.json
    python -m zeroflaw_benchmarks.verify.fp16.safety mini PHOTOS... --backend openvino

1. Every frame is inspected in FP32 and with true FP16 storage, and the final masks are compared.
2. Every tensor that is stored in FP16 is watched on all of these frames.
3. The same once more with weights that provoke overflow, with the recipe and without it: a scan
   that finds nothing is worth something only if it finds what is there.

With a backend, the final masks of that backend are compared with those of ONNX Runtime in FP32,
and that is all. Masks mean something only where the weights do: with random ones a threshold cuts
noise.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from zeroflaw.cli.options import DeviceOption
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import IMAGE_SUFFIXES, read_image
from zeroflaw.sessions import Sessions, load_sessions
from zeroflaw_benchmarks.verify.fp16.engines import StoredSession
from zeroflaw_benchmarks.verify.fp16.scan import (
    SCANNED_ENGINES,
    EngineScan,
    provoke,
    scan_summary,
)
from zeroflaw_engines.backends import choose_backend
from zeroflaw_engines.builder.differences import largest_difference, mask_iou
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER, SAM_ENCODER
from zeroflaw_engines.errors import DatasetError
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_export.drawn_frames.draw import DEFECTS, SURFACES, draw_frame
from zeroflaw_export.graphs.precision_recipe import FP16_RECIPE, PrecisionRecipe

MIN_MEAN_IOU: Final = 0.998
MIN_IOU: Final = 0.99
MIN_MASKS: Final = 50
PROVOCATION: Final = 300.0
UNPROTECTED: Final = PrecisionRecipe(name="unprotected", islands=())

Photo = NDArray[np.uint8]


@dataclass(frozen=True)
class Miss:
    """A frame whose masks agree less than is accepted.

    Attributes:
        frame: Its number, from 0.
        iou: Of the final masks.
        pixels: Of both masks together.
        differing: Pixels that only one of them has.
    """

    frame: int
    iou: float
    pixels: int
    differing: int


@dataclass(frozen=True)
class MaskAgreement:
    """Inspections with other engines against those of ONNX Runtime in FP32.

    Attributes:
        frames: Frames that were inspected.
        masks: Frames on which either inspection has a mask; the IoUs are over these.
        mean_iou: Of the final masks.
        least_iou: Of the final masks.
        largest_score_difference: Of the image scores.
        flipped_decisions: Frames on which accept and reject change places.
        misses: Frames below the least IoU that is accepted.
    """

    frames: int
    masks: int
    mean_iou: float
    least_iou: float
    largest_score_difference: float
    flipped_decisions: int
    misses: tuple[Miss, ...]

    @property
    def accepted(self) -> bool:
        """Say whether the masks agree closely enough: the least of all frames counts as well."""
        enough = self.masks >= MIN_MASKS and self.mean_iou >= MIN_MEAN_IOU
        return enough and not self.misses

    def __str__(self) -> str:
        return (
            f"{self.frames} frames, {self.masks} with a mask, IoU mean {self.mean_iou:.5f},"
            f" least {self.least_iou:.5f}, {len(self.misses)} below {MIN_IOU};"
            f" {self.flipped_decisions} decisions change"
        )


@dataclass(frozen=True)
class SafetyReport:
    """All of it.

    Attributes:
        bundle: Identity of the bundle.
        recipe: Identity of the recipe.
        agreement: Of the final masks.
        natural: Scans on the frames, weights as they are.
        provoked: Scans with scaled weights.
        unprotected: The same without the recipe, which must fail.
    """

    bundle: str
    recipe: str
    agreement: MaskAgreement
    natural: tuple[EngineScan, ...]
    provoked: tuple[EngineScan, ...]
    unprotected: tuple[EngineScan, ...]

    @property
    def accepted(self) -> bool:
        """Say whether FP16 is safe, and the scan is able to find what is not."""
        return (
            self.agreement.accepted
            and all(scan.accepted for scan in (*self.natural, *self.provoked))
            and not any(scan.accepted for scan in self.unprotected)
        )


def frames_of(photos: list[Path], count: int) -> Iterator[Photo]:
    """Yield real photos and crops of them, then drawn frames with defects, up to a number.

    Each photo comes whole, and as its four quarters; of a directory all photos are taken.

    Raises:
        DatasetError: A path has no photo.
        ImageFileError: A photo cannot be read.
    """
    files = [file for path in photos for file in _photo_files(path)]
    left = count
    for frame in _photo_frames(files):
        if not left:
            return
        yield frame
        left -= 1
    kinds = [(s, d) for s in sorted(SURFACES["test"]) for d in sorted(DEFECTS["test"])]
    for seed in range(left):
        surface, defect = kinds[seed % len(kinds)]
        yield draw_frame("test", surface, defect, seed=seed, size=512).image


def _photo_frames(files: list[Path]) -> Iterator[Photo]:
    for file in files:
        yield read_image(file)
    for file in files:
        yield from _quarters(read_image(file))


def _photo_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES and "mask" not in file.parts
    )
    if not found:
        raise DatasetError(f"{path} has no photo", "name files or directories of photos")
    return found


def _quarters(photo: Photo) -> Iterator[Photo]:
    height, width = photo.shape[0] // 2, photo.shape[1] // 2
    for row in (0, height):
        for column in (0, width):
            yield photo[row : row + height, column : column + width]


def compare_masks(
    bundle: Bundle,
    frames: Iterator[Photo],
    sessions: Sessions,
    product: str,
    report: Callable[[int], None] = lambda _: None,
) -> MaskAgreement:
    """Inspect every frame with other engines and with ONNX Runtime in FP32."""
    ious: list[float] = []
    misses: list[Miss] = []
    differences, flips, count = [0.0], 0, 0
    with Inspector(bundle, sessions) as other, Inspector.load(bundle.path) as reference:
        for count, frame in enumerate(frames, start=1):
            want, got = (it.inspect(frame, product=product) for it in (reference, other))
            agreement = mask_iou(got.mask, want.mask)
            union = int((want.mask | got.mask).sum())
            if union:
                differing = int((want.mask ^ got.mask).sum())
                ious.append(agreement)
                if ious[-1] < MIN_IOU:
                    misses.append(Miss(count - 1, ious[-1], union, differing))
            differences.append(largest_difference(got.image_score, want.image_score, "image score"))
            flips += want.decision != got.decision
            report(count)
    return MaskAgreement(
        frames=count,
        masks=len(ious),
        mean_iou=float(np.mean(ious)) if ious else float("nan"),
        least_iou=min(ious, default=float("nan")),
        largest_score_difference=max(differences),
        flipped_decisions=flips,
        misses=tuple(misses),
    )


def check_safety(
    bundle: Bundle,
    frames: Iterator[Photo],
    product: str,
    report: Callable[[str], None] = lambda _: None,
) -> SafetyReport:
    """Do all three steps for a bundle, which may or may not have FP16 graphs."""
    with tempfile.TemporaryDirectory() as folder:
        stored = {name: StoredSession(bundle, name, Path(folder)) for name in SCANNED_ENGINES}
        sessions = Sessions(
            clip_encoder=stored[CLIP_ENCODER],
            sam_encoder=stored[SAM_ENCODER],
            sam_decoder=stored[SAM_DECODER],
        )
        agreement = compare_masks(
            bundle, frames, sessions, product, lambda done: report(f"frame {done}")
        )
        natural = tuple(
            scan_summary(name, FP16_RECIPE, 1.0, session.scan()) for name, session in stored.items()
        )
    report("provoking overflow")
    return SafetyReport(
        bundle=bundle.identity,
        recipe=FP16_RECIPE.id,
        agreement=agreement,
        natural=natural,
        provoked=provoke(bundle, FP16_RECIPE, PROVOCATION),
        unprotected=provoke(bundle, UNPROTECTED, PROVOCATION),
    )


def main(
    bundle: Annotated[str, typer.Argument(help="A bundle, or mini.")],
    photos: Annotated[list[Path], typer.Argument(help="Photos, or directories of them.")],
    *,
    frames: Annotated[int, typer.Option(help="How many frames to inspect.")] = 120,
    product: Annotated[str | None, typer.Option(help="Default: the first.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="Compare the masks of this backend, and nothing else.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="Of that backend.")] = None,
    device: DeviceOption = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write a file.")] = None,
) -> None:
    """Prove that a bundle is safe in FP16, without a GPU; exit code 1 if it is not."""
    opened = open_bundle(bundle)
    shown = product or min(opened.manifest.products)
    if backend:
        choice = choose_backend(backend, precision, bundle=opened, device=device)
        sessions = load_sessions(opened, choice, precision=precision, device=device)
        agreement = compare_masks(opened, frames_of(photos, frames), sessions, shown)
        typer.echo(f"{choice.backend} in {choice.precision}: {agreement}")
        return
    err = Console(stderr=True)
    with err.status("writing graphs") as status:
        report = check_safety(opened, frames_of(photos, frames), shown, status.update)
    _print(report, Console())
    if json_file:
        json_file.write_text(json.dumps({**asdict(report), "accepted": report.accepted}, indent=2))
    raise typer.Exit(0 if report.accepted else 1)


def _print(report: SafetyReport, out: Console) -> None:
    seen = report.agreement
    out.print(
        f"{seen}; accepted from a mean of {MIN_MEAN_IOU}; image score differs by up to"
        f" {seen.largest_score_difference:.1e}",
        soft_wrap=True,
    )
    for miss in seen.misses:
        out.print(
            f"frame {miss.frame}: IoU {miss.iou:.5f}, {miss.differing} of {miss.pixels} px differ"
        )
    table = Table(
        "engine", "recipe", "weights", "FP16 tensors", "inf or NaN", "> 30000", "largest", "where",
        "error", box=None,
    )  # fmt: skip
    for scan in (*report.natural, *report.provoked, *report.unprotected):
        error = "" if scan.relative_error is None else f"{scan.relative_error:.1e}"
        table.add_row(
            scan.engine, scan.recipe, f"x {scan.scale:g}", str(scan.tensors),
            str(scan.overflowing), str(scan.large), f"{scan.largest:.1f}", scan.where, error,
        )  # fmt: skip
    out.print(table)
    out.print("safe" if report.accepted else "NOT safe")


if __name__ == "__main__":
    run_module(main)
