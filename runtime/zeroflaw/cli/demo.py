"""`zeroflaw demo`: a product learned and inspected on real photos, and one page that shows it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from zeroflaw.pictures.demo_page import GENERATOR, Closeup, Lesson, Shown, closeup_of, demo_page
from zeroflaw.pictures.images import file_frame, read_image_file
from zeroflaw.station.earlier_results import set_aside, source_of
from zeroflaw.station.picture_search import find_pictures
from zeroflaw.station.run_log import SHEET_NAME, Entry, read_log
from zeroflaw.station.truth.masks import find_truth_masks
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME
from zeroflaw_engines.errors import DatasetError, RunFolderError
from zeroflaw_engines.files import disk_errors_named, replace_durably
from zeroflaw_engines.process.terminal import err, out, print_warning, printable

_PRODUCT: Final = "ball_screw"
_ZERO_SHOT: Final = "object"
_LEARNED: Final = "learned"
_FOLDERS: Final = (
    "ball_screws/good", "ball_screws/good_held_out", "ball_screws/defective", "ball_screws/masks",
    "images", "frames", "frame_masks",
)  # fmt: skip
_SOURCES: Final = (
    "Ball screws: photos from BSData by T. Schlagenhauf and others (KIT), GitHub 2Obe/BSData, arXiv"
    " 2103.13003, scaled, with masks drawn from the authors' polygons and with what was found drawn"
    " in; licence CC BY-SA 4.0, which holds for these pictures too. Brick, coffee and gravel: CC0"
    " photos from scikit-image. The other frames are drawn."
)


def demo(
    context: typer.Context,
    *,
    examples: Annotated[
        Path, typer.Option(help="The folder `examples` of a checkout of zeroflaw.")
    ] = Path("examples"),
    out_dir: Annotated[
        Path, typer.Option("--out", "-o", help="Directory for bundle, results and page.")
    ] = Path("out/demo"),
) -> None:
    """Learn a product from real photos, inspect others, and show it all on one page.

    Each step is a command of zeroflaw, which is printed as it is run. The photos come with a
    checkout of zeroflaw, not with the wheel.

        zeroflaw demo --examples zeroflaw/examples --out out/demo
    """
    _require_examples(examples)
    bundle, screws = out_dir / "bundle", examples / "ball_screws"
    results = {name: out_dir / name for name in (_PRODUCT, _ZERO_SHOT)}
    photos = [screws / "good_held_out", screws / "defective"]
    steps = [
        ["bundle", "copy", SHIPPED_NAME, bundle, "--overwrite"],
        ["products", "learn", bundle, _PRODUCT, screws / "good", "--texts-of", _ZERO_SHOT,
         "--false-reject-rate", "0.1"],
        ["inspect", bundle, *photos, "--product", _PRODUCT,
         "--truth", screws / "masks", "--out", results[_PRODUCT], "--existing", "replace"],
        ["inspect", bundle, examples / "images", examples / "frames", "--product", _ZERO_SHOT,
         "--truth", examples / "frame_masks", "--out", results[_ZERO_SHOT],
         "--existing", "replace"],
    ]  # fmt: skip
    commands, codes = [], []
    for number, step in enumerate(steps, start=1):
        words = [str(word) for word in step]
        commands.append(shlex.join(["zeroflaw", *words]))
        err.print(f"[{number}/{len(steps)}] {printable(commands[-1])}", style="bold", markup=False)
        codes.append(context.find_root().command.main(words, standalone_mode=False) or 0)
    opened = open_bundle(bundle)
    lesson = _lesson(opened, screws / "good", out_dir)
    page = demo_page(
        lesson,
        _shown(opened, _PRODUCT, results[_PRODUCT], _closeups(photos, screws / "masks")),
        _shown(opened, _ZERO_SHOT, results[_ZERO_SHOT]),
        model=opened.manifest.demonstration or "",
        commands=commands,
        sources=_SOURCES,
    )
    _write(out_dir, page)
    out.print(f"Open {printable(out_dir / SHEET_NAME)}", markup=False)
    if any(codes):
        raise typer.Exit(next(code for code in codes if code))


def _require_examples(examples: Path) -> None:
    for name in _FOLDERS:
        if not (examples / name).is_dir():
            raise DatasetError(
                f"{examples / name} does not exist: the photos of the demo come with a checkout of"
                " zeroflaw, not with the wheel",
                "run it in a checkout, or name the folder `examples` of one with --examples",
            )


def _lesson(bundle: Bundle, good: Path, out_dir: Path) -> Lesson:
    """Say what the product was learned from, with the photos beside the page."""
    product = bundle.manifest.products[_PRODUCT]
    used = {photo.name for photo in product.reference.photos} if product.reference else set()
    photos = [one.path for one in find_pictures([good]).pictures if one.path.name in used]
    with disk_errors_named(out_dir, RunFolderError, "choose another --out"):
        (out_dir / _LEARNED).mkdir(exist_ok=True)
        for photo in photos:
            shutil.copyfile(photo, out_dir / _LEARNED / photo.name)
    return Lesson(_PRODUCT, product, [f"{_LEARNED}/{photo.name}" for photo in photos])


def _closeups(photos: Sequence[Path], masks: Path) -> dict[str, Closeup]:
    """Say which part of each defective photo to magnify, by the source of its results."""
    pictures = find_pictures(photos).pictures
    truth = find_truth_masks(masks, pictures)
    found = {}
    for photo in pictures:
        size = file_frame(read_image_file(photo.path)).shape[:2]
        closeup = closeup_of(truth.read(photo.path, size))
        if closeup is not None:
            found[source_of(photo.path)] = closeup
    return found


def _shown(
    bundle: Bundle, product: str, folder: Path, closeups: Mapping[str, Closeup] | None = None
) -> Shown:
    threshold = bundle.manifest.products[product].threshold
    default = bundle.manifest.method_parameters.decision_threshold
    return Shown(
        folder.name,
        _entries(folder),
        default if threshold is None else threshold,
        closeups or {},
    )


def _entries(folder: Path) -> list[Entry]:
    entries = (read_log(folder) or {}).values()
    return [entry for entry in entries if entry.outcome not in {"", "left_out"}]


def _write(out_dir: Path, page: str) -> None:
    """Write the page; one that something else wrote is kept under another name."""
    path = out_dir / SHEET_NAME
    with disk_errors_named(out_dir, RunFolderError, "choose another --out"):
        if path.is_file() and GENERATOR.encode() not in path.read_bytes():
            for renamed in set_aside(out_dir):
                print_warning(f"the demo did not write this file, which is now called {renamed}")
        replace_durably(path, page.encode())
