"""One run of `zeroflaw inspect`: every picture inspected, and its results in their folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

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
from zeroflaw.pictures.overlay import draw_map, draw_mask, draw_overlay, draw_truth
from zeroflaw.pictures.reading import Reading, ReadPicture
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
from zeroflaw_engines.process.terminal import print_error, print_warning

_NAMED_AT_MOST: Final = 20

_Result = TypeVar("_Result")


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
    batch: int = 1,
    report: Callable[[bytes], None] | None = None,
) -> RunCounts:
    """Inspect every picture and write its results, the page and the summary.

    Args:
        batch: Pictures that the encoders take in one call, up to the Inspector's `max_batch`.
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
        for start in range(0, len(folder.jobs), batch):
            jobs = folder.jobs[start : start + batch]
            stamps = [
                new_stamp(
                    part_id=identifiers.part,
                    frame_id=path_text(job.picture.path),
                    camera_id=identifiers.camera,
                )
                for job in jobs
            ]
            for done in _inspect_jobs(
                inspector, jobs, folder, truth,
                product=header.product, stamps=stamps, reading=reading,
            ):  # fmt: skip
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


def _inspect_jobs(
    inspector: Inspector,
    jobs: Sequence[Job],
    folder: RunFolder,
    truth: TruthMasks | None,
    *,
    product: str,
    stamps: Sequence[Stamp],
    reading: Reading,
) -> Iterator[_Done]:
    """Inspect pictures, several of them in one call of the encoders, and write their results."""
    read = [_tried(job, partial(reading.read, job.picture.path)) for job in jobs]
    readable = [
        (job, one) for job, one in zip(jobs, read, strict=True) if isinstance(one, ReadPicture)
    ]
    inspections = iter(_inspected(inspector, readable, product))
    for job, one, stamp in zip(jobs, read, stamps, strict=True):
        done: _Done | ZeroflawError
        if isinstance(one, ZeroflawError):
            done = one
        elif isinstance(seen := next(inspections), ZeroflawError):
            done = seen
        else:
            warnings = seen.warnings + one.warnings
            inspection = replace(stamped(seen, stamp), warnings=warnings)
            done = _tried(job, partial(_keep, folder, job, inspection, truth, one.warnings))
        yield done if isinstance(done, _Done) else _hold(folder, job, stamp, product, done)


def _inspected(
    inspector: Inspector, pictures: Sequence[tuple[Job, ReadPicture]], product: str
) -> Sequence[Inspection | ZeroflawError]:
    """Inspect pictures in one call of the encoders; each alone if that fails, to hold that one."""
    if len(pictures) > 1:
        frames = [one.frame for _, one in pictures]
        try:
            return inspector.inspect_batch(frames, product=product, trace=True)
        except (FrameError, EngineError, MemoryError) as error:
            print_warning(f"a batch of {len(frames)} failed, and is inspected one by one: {error}")
    return [
        _tried(job, partial(inspector.inspect, one.frame, product=product, trace=True))
        for job, one in pictures
    ]


def _tried(job: Job, work: Callable[[], _Result]) -> _Result | ZeroflawError:
    """Do a part of the work on a picture, or return why it cannot be done."""
    try:
        return work()
    except (ImageFileError, FrameError, EngineError, ResultsError) as error:
        return error
    except MemoryError:
        return ImageFileError(
            f"{job.picture.path} needs more memory than there is", "inspect tiles of it"
        )


def _keep(
    folder: RunFolder,
    job: Job,
    inspection: Inspection,
    truth: TruthMasks | None,
    file_warnings: tuple[str, ...],
) -> _Done:
    """Hold an inspection against the truth, and write its results."""
    mask, unusable = _truth_of(job.picture.path, inspection, truth)
    judgement = None if mask is None else judge(inspection, mask)
    record = _store(folder, job, inspection, truth=mask, judgement=judgement, unusable=unusable)
    return _Done(
        inspection.decision, record, file_warnings, judgement, without_truth=unusable is not None
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
