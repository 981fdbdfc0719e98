"""One run of `zeroflaw inspect`: every picture inspected, and its results in their folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from zeroflaw.cli.json_lines import encodable, path_text
from zeroflaw.cli.options import print_file_warnings, progress_bar
from zeroflaw.inspection import Inspection, stamped
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.contact_sheet import (
    Card,
    SheetHeader,
    contact_sheet,
    failed_card,
    inspected_card,
    left_out_card,
)
from zeroflaw.pictures.images import Orientation, file_frame, read_image_file
from zeroflaw.pictures.overlay import draw_map, draw_mask, draw_overlay, draw_truth
from zeroflaw.pipeline.geometry import BoolArray
from zeroflaw.records.record import held_record
from zeroflaw.records.stamp import Stamp, new_stamp
from zeroflaw.station.earlier_results import Existing
from zeroflaw.station.picture_search import PictureSearch
from zeroflaw.station.run_folder import Job, Results, RunFolder, open_run_folder
from zeroflaw.station.run_log import (
    PICTURE_SUFFIXES,
    SHEET_NAME,
    SUMMARY_NAME,
    TRUTH_SUFFIX,
    Entry,
)
from zeroflaw.station.summary import failed_row, inspected_row, left_out_row, summary_csv
from zeroflaw.station.truth.judgement import Judgement, judge, judgement_in
from zeroflaw.station.truth.masks import TruthMasks
from zeroflaw_engines.errors import (
    DatasetError,
    EngineError,
    FrameError,
    ImageFileError,
    ResultsError,
    ZeroflawError,
)
from zeroflaw_engines.image_files.frame import MAX_FRAME_PIXELS
from zeroflaw_engines.process.terminal import print_error, print_warning

_NAMED_AT_MOST: Final = 20


@dataclass(frozen=True)
class Identifiers:
    """What the user calls the part and the camera that the pictures show.

    Attributes:
        part: Name of the part, or None.
        camera: Name of the camera, or None.
    """

    part: str | None = None
    camera: str | None = None


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        white_level: The value that is white, against what the files say; None takes theirs.
        orientation: Whether pixels are turned as an orientation tag says.
        max_pixels: Larger images are refused, height x width.
    """

    white_level: float | None = None
    orientation: Orientation = "as_stored"
    max_pixels: int = MAX_FRAME_PIXELS


@dataclass(frozen=True)
class RunCounts:
    """What became of the pictures of a run.

    Attributes:
        inspected: How many have a decision of an inspection.
        rejected: How many of these are rejected.
        held: How many of these are held.
        failed: How many could not be inspected; they are held, too.
        without_truth: How many have a truth mask that cannot be used.
        judgements: Those of the others, where the truth is known.
    """

    inspected: int = 0
    rejected: int = 0
    held: int = 0
    failed: int = 0
    without_truth: int = 0
    judgements: tuple[Judgement, ...] = ()

    def with_outcome(
        self, outcome: str, judgement: Judgement | None = None, *, without_truth: bool = False
    ) -> RunCounts:
        """Count one more picture.

        Args:
            outcome: `accept`, `reject`, `hold` or `failed`.
            judgement: The inspection against the truth, where that is known.
            without_truth: Whether its truth mask cannot be used.
        """
        return RunCounts(
            self.inspected + (outcome != "failed"),
            self.rejected + (outcome == "reject"),
            self.held + (outcome == "hold"),
            self.failed + (outcome == "failed"),
            self.without_truth + without_truth,
            self.judgements if judgement is None else (*self.judgements, judgement),
        )


@dataclass(frozen=True)
class _Done:
    """What became of one picture.

    Attributes:
        outcome: `accept`, `reject`, `hold` or `failed`.
        record: Its record as JSON.
        warnings: What is to be known of the file.
        judgement: The inspection against the truth, where that is known.
        without_truth: Whether its truth mask cannot be used.
    """

    outcome: str
    record: bytes
    warnings: tuple[str, ...] = ()
    judgement: Judgement | None = None
    without_truth: bool = False


def run_inspections(
    inspector: Inspector,
    search: PictureSearch,
    header: SheetHeader,
    out_dir: Path,
    *,
    existing: Existing,
    identifiers: Identifiers,
    reading: Reading,
    truth: TruthMasks | None = None,
    report: Callable[[bytes], None] | None = None,
) -> RunCounts:
    """Inspect every picture and write its results, the page and the summary.

    Args:
        truth: Where the parts are defective, if that is known.
        report: Called with the record of each picture, as JSON, once its results are written.

    Raises:
        ResultsError: The folder cannot be taken or written.
    """
    counts = RunCounts()
    file_warnings: list[str] = []
    with (
        open_run_folder(out_dir, search, _publisher(header), existing=existing) as folder,
        progress_bar() as progress,
    ):
        _report_earlier(folder)
        for one in search.left_out:
            row = left_out_row(one) if one.may_be_picture else {}
            card = left_out_card(one.path, one.why, may_be_picture=one.may_be_picture)
            folder.leave_out(one, row, card.html)
        task = progress.add_task("inspecting", total=len(folder.jobs))
        for job in folder.jobs:
            stamp = new_stamp(
                part_id=identifiers.part,
                frame_id=path_text(job.picture.path),
                camera_id=identifiers.camera,
            )
            done = _inspect_one(
                inspector, job, folder, truth,
                product=header.product, stamp=stamp, reading=reading,
            )  # fmt: skip
            counts = counts.with_outcome(
                done.outcome, done.judgement, without_truth=done.without_truth
            )
            file_warnings += done.warnings
            if report is not None:
                report(done.record)
            progress.advance(task)
    print_file_warnings(file_warnings)
    return counts


def _publisher(header: SheetHeader) -> Callable[[Results], Mapping[str, bytes]]:
    """Return how the page and the summary are made of what the folder holds."""

    def publish(results: Results) -> Mapping[str, bytes]:
        page = contact_sheet(
            replace(header, state=results.state, files=results.planned),
            _cards(results.entries),
            _cards(results.earlier),
        )
        rows = (entry.row for entry in (*results.earlier, *results.entries) if entry.row)
        return {SUMMARY_NAME: summary_csv(rows), SHEET_NAME: page.encode()}

    return publish


def _cards(entries: tuple[Entry, ...]) -> list[Card]:
    return [
        Card(entry.outcome, entry.card, judgement_in(entry.row)) for entry in entries if entry.card
    ]


def _report_earlier(folder: RunFolder) -> None:
    """Say what becomes of everything that lay in the folder before."""
    for path in folder.set_aside:
        print_warning(f"no run of zeroflaw wrote this file, which is now called {path}")
    replaced = folder.earlier.replaced
    kept = [entry for entry in folder.earlier.stay if entry.outcome != "left_out"]
    if replaced:
        names = ", ".join(entry.name for entry in replaced[:_NAMED_AT_MOST])
        more = ", ..." if len(replaced) > _NAMED_AT_MOST else ""
        print_warning(
            f"earlier results of {len(replaced)} files in {folder.path} give way to this run:"
            f" {names}{more}"
        )
    if kept:
        print_warning(
            f"{folder.path} keeps the results of {len(kept)} other files of earlier runs, which"
            " its page and summary name, too"
        )


def _inspect_one(
    inspector: Inspector,
    job: Job,
    folder: RunFolder,
    truth: TruthMasks | None,
    *,
    product: str,
    stamp: Stamp,
    reading: Reading,
) -> _Done:
    """Inspect one picture and write its results, or why there are none."""
    source = job.picture.path
    try:
        file = read_image_file(
            source,
            white_level=reading.white_level,
            orientation=reading.orientation,
            max_pixels=reading.max_pixels,
        )
        frame = file_frame(file, max_pixels=reading.max_pixels)
        inspection = inspector.inspect(frame, product=product, trace=True)
        inspection = replace(
            stamped(inspection, stamp), warnings=inspection.warnings + file.warnings
        )
        mask, unusable = _truth_of(source, inspection, truth)
        judgement = None if mask is None else judge(inspection, mask)
        record = _store(folder, job, inspection, truth=mask, judgement=judgement, unusable=unusable)
    except (ImageFileError, FrameError, EngineError, ResultsError) as error:
        return _hold(folder, job, stamp, product, error)
    except MemoryError:
        too_large = ImageFileError(
            f"{source} needs more memory than there is", "inspect tiles of it"
        )
        return _hold(folder, job, stamp, product, too_large)
    return _Done(
        inspection.decision, record, file.warnings, judgement, without_truth=unusable is not None
    )


def _truth_of(
    source: Path, inspection: Inspection, truth: TruthMasks | None
) -> tuple[BoolArray | None, DatasetError | None]:
    """Return where a part is defective, if that is known, or why its mask cannot be used."""
    if truth is None:
        return None, None
    try:
        return truth.read(source, inspection.frame_size), None
    except DatasetError as error:
        print_error(error)
        return None, error


def _store(
    folder: RunFolder,
    job: Job,
    inspection: Inspection,
    *,
    truth: BoolArray | None,
    judgement: Judgement | None,
    unusable: DatasetError | None,
) -> bytes:
    """Write the results of a picture, and return its record."""
    source, stem = job.picture.path, job.entry.stem
    drawn = (
        draw_mask(inspection),
        draw_overlay(inspection.frame, inspection),
        draw_map(inspection.anomaly_map, inspection.frame_size),
    )
    pictures = dict(zip(PICTURE_SUFFIXES, drawn, strict=True))
    if truth is not None:
        pictures[TRUTH_SUFFIX] = draw_truth(inspection.frame, inspection, truth)
    record = inspection.record()
    document = record.to_json()
    folder.store(
        job,
        pictures=pictures,
        record=document,
        outcome=inspection.decision,
        row=inspected_row(source, stem, record, judgement),
        card=inspected_card(
            source,
            PurePosixPath(stem),
            inspection,
            judgement,
            without_truth=None if unusable is None else unusable.cause,
        ).html,
    )
    return document


def _hold(folder: RunFolder, job: Job, stamp: Stamp, product: str, error: ZeroflawError) -> _Done:
    """Note that a picture could not be inspected, and write it down in the place of its results."""
    print_error(error)
    source, stem = job.picture.path, job.entry.stem
    record = held_record(stamp, "failed", encodable(str(error)), product=product)
    try:
        folder.store(
            job,
            pictures={},
            record=record.to_json(),
            outcome="failed",
            row=failed_row(source, stem, record),
            card=failed_card(source, PurePosixPath(stem), error).html,
        )
    except ResultsError as unwritten:
        print_error(unwritten)
        folder.store_nothing(
            job,
            outcome="failed",
            row=failed_row(source, "", record),
            card=failed_card(source, None, error).html,
        )
    return _Done("failed", record.to_json())
