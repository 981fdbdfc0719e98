"""The page of `zeroflaw demo`: a product that was learned, and other things by their name alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Final

import numpy as np

from zeroflaw.pictures.contact_sheet import WIDE
from zeroflaw.pictures.markup import link_to, score_line, shown_text
from zeroflaw.pictures.truth_parts import percent, truth_head, verdict_line
from zeroflaw.pipeline.geometry import BoolArray
from zeroflaw.station.run_log import SHEET_NAME, TRUTH_SUFFIX, Entry
from zeroflaw.station.truth.judgement import Judgement, judgement_in
from zeroflaw_engines.bundle.manifest import Product

# What tells a page of the demo from one that something else wrote.
GENERATOR: Final = '<meta name="generator" content="zeroflaw demo">'

# The side of a close-up: at least this share of the photo's height, and this many defects.
_CLOSEUP_LEAST: Final = 0.25
_CLOSEUP_MARGIN: Final = 1.8
_LEGEND: Final = (
    '<p class="legend"><i class="cyan"></i> the truth, drawn just outside the defect'
    ' <i class="red"></i> the mask that zeroflaw found <i class="turbo"></i> its anomaly map, from'
    " 0 to 1</p><p>The mask shows where a photo is most unlike; whether the part is rejected, the"
    " score decides, against the threshold.</p>"
)
_GROUPS: Final = ((True, "Defective, by the truth"), (False, "Good, by the truth"))


@dataclass(frozen=True)
class Closeup:
    """A square part of a photo, in shares of the photo's width and height.

    Attributes:
        left: Of its left edge.
        top: Of its top edge.
        width: Of its side, by the photo's width.
        height: Of its side, by the photo's height.
    """

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Shown:
    """The results of one run, as the page shows them.

    Attributes:
        folder: Of the results, relative to the page.
        entries: Of the run.
        threshold: That its scores were compared with.
        closeups: Where the defect is, of entries that have a close-up, by their source.
    """

    folder: str
    entries: Sequence[Entry]
    threshold: float
    closeups: Mapping[str, Closeup]


@dataclass(frozen=True)
class Lesson:
    """What a product was learned from.

    Attributes:
        name: Of the product.
        photos: Those it was learned from, relative to the page.
    """

    name: str
    product: Product
    photos: Sequence[str]


def demo_page(
    lesson: Lesson,
    learned: Shown,
    zero_shot: Shown,
    *,
    model: str,
    commands: Sequence[str],
    sources: str,
) -> str:
    """Return the page.

    Args:
        model: What the bundle's maker says of it; empty if nothing.
        commands: What was run, in order.
        sources: HTML that names whose photos these are.
    """
    name = shown_text(lesson.name.replace("_", " "))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{GENERATOR}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>zeroflaw: the demo</title><style>{_STYLE}</style></head><body>\n"
        "<header><h1>zeroflaw on real photos: what is right, and what is wrong</h1>"
        "<p>All of this was computed on this machine, by the commands at the end of the page."
        f" {_speed(learned, zero_shot)} Where the defects truly are is known for these photos; that"
        " is used for this page alone, to judge the decisions.</p>"
        + (f'<p class="note" role="note">The model: {shown_text(model)}.</p>' if model else "")
        + "</header>\n"
        f"<section><h2><span>1</span> It learns what a good {name} looks like</h2>"
        f"{_what_was_learned(lesson)}</section>\n"
        "<section><h2><span>2</span> It inspects photos that it has not seen</h2>"
        "<p>Other photos of the same part: some show pitting, down to a thousandth of the photo; in"
        " those that count as good, the people who marked the defects marked none.</p>"
        f"{_LEGEND}"
        f"{_results(learned)}</section>\n"
        "<section><h2><span>3</span> Zero-shot: other things, without any photo of a good one</h2>"
        "<p>Nothing was learned here, and nothing is calibrated: all it is told is the word"
        f" “object”, and it rejects from a score of {zero_shot.threshold:g}. Photos"
        " of brick, coffee and gravel without a defect, and drawn frames with one and without.</p>"
        f"{_results(zero_shot)}</section>\n"
        "<section><h2><span>4</span> Your own part</h2><p>These commands made this page. Put your"
        " photos in the place of ours; masks of defects (<code>--truth</code>) are only needed to"
        " know what is right.</p>"
        f"<pre>{escape(chr(10).join(commands))}</pre></section>\n"
        f"<footer>{sources}</footer>\n</body></html>\n"
    )


def closeup_of(truth: BoolArray) -> Closeup | None:
    """Return the part of a wide photo that shows its defect best; None if the photo is not wide.

    Args:
        truth: bool [H, W], True where the part is defective.
    """
    height, width = truth.shape
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    if not rows.size or width <= WIDE * height:
        return None
    extent = max(int(np.ptp(rows)), int(np.ptp(columns))) + 1
    side = min(height, max(_CLOSEUP_MARGIN * extent, _CLOSEUP_LEAST * height))
    left = min(max(0.0, (columns[0] + columns[-1] + 1 - side) / 2), width - side)
    top = min(max(0.0, (rows[0] + rows[-1] + 1 - side) / 2), height - side)
    return Closeup(left / width, top / height, side / width, side / height)


def _what_was_learned(lesson: Lesson) -> str:
    """Return from what a product was learned, and what its threshold promises."""
    links = [link_to(PurePosixPath(photo), "") for photo in lesson.photos]
    photos = "".join(
        f'<a href="{link}"><img src="{link}" alt="good part" loading="lazy"></a>' for link in links
    )
    promise, calibration = "", lesson.product.calibration
    if calibration is not None and lesson.product.threshold is not None:
        expected = 1 - calibration.rank / (calibration.images + 1)
        promise = (
            f" The threshold, {lesson.product.threshold:.4f}, was set with the same photos, each"
            " judged by the others, so that a new good part is rejected with a probability of at"
            f" most {expected:.1%}."
        )
    return (
        f"<p>{len(lesson.photos)} photos of good parts are all it was shown of this part: no"
        f" defect, no mask, no training.{promise}</p>"
        f'<div class="learned">{photos}</div>'
    )


def _results(shown: Shown) -> str:
    """Return the results of a run, those of defective parts first."""
    judged = [(entry, judgement_in(entry.row)) for entry in shown.entries]
    groups = []
    for defective, title in _GROUPS:
        tiles = [
            _tile(shown, entry, judgement)
            for entry, judgement in judged
            if judgement is not None and judgement.defective == defective
        ]
        if tiles:
            groups.append(
                f'<h3>{title}: {len(tiles)}</h3><div class="cards">\n{"".join(tiles)}</div>'
            )
    left = [entry.name for entry, judgement in judged if judgement is None and entry.row]
    missing = f'<p class="error">Not inspected: {shown_text(", ".join(left))}.</p>' if left else ""
    page = link_to(PurePosixPath(shown.folder, SHEET_NAME), "")
    return (
        truth_head([judgement for _, judgement in judged if judgement is not None])
        + "".join(groups)
        + missing
        + f'<p class="files"><a href="{page}">Every figure of these inspections</a></p>'
    )


def _tile(shown: Shown, entry: Entry, judgement: Judgement) -> str:
    """Return one photo: the truth beside what was found, the map, a close-up, the decision."""
    row, stem = entry.row, PurePosixPath(shown.folder, entry.stem)
    width, height = int(row["frame_width"]), int(row["frame_height"])
    both, map_ = (
        f'<a class="{kind}" href="{link}"><img src="{link}" width="{width}" height="{height}"'
        f' alt="{alt}" loading="lazy"></a>'
        for kind, link, alt in (
            ("photo", link_to(stem, TRUTH_SUFFIX), "truth and mask"),
            ("map", link_to(stem, ".map.png"), "anomaly map"),
        )
    )
    near = shown.closeups.get(entry.source)
    closeup = "" if near is None else _closeup(near, link_to(stem, TRUTH_SUFFIX))
    columns = f' style="grid-template-columns:{width / height:.3f}fr 1fr"' if closeup else ""
    found = (
        f"<br>The mask covers {percent(judgement.defect_found)} of the defect."
        if judgement.defective
        else ""
    )
    classes = [
        row["decision"],
        *(["wide"] if width > WIDE * height else []),
        *(["wrong"] if judgement.wrong else []),
        *(["near"] if closeup else []),
    ]
    score, threshold = float(row["decision_score"]), float(row["threshold"])
    rule = f", rule {shown_text(row['rule'])}" if row["rule"] else ""
    return (
        f'<article class="card {" ".join(classes)}">{verdict_line(judgement)}'
        f'<div class="pictures"{columns}>{both}{map_}{closeup}</div>'
        f'<p><span class="badge">{row["decision"]}</span>'
        f" {score_line(score, threshold)}{rule}{found}</p>"
        f'<p class="name"><bdi>{shown_text(entry.name)}</bdi></p></article>\n'
    )


def _closeup(near: Closeup, link: str) -> str:
    """Return a square that shows a part of a picture."""
    place = (
        f"width:{100 / near.width:.2f}%;left:{-100 * near.left / near.width:.2f}%;"
        f"top:{-100 * near.top / near.height:.2f}%"
    )
    return (
        f'<a class="closeup" href="{link}"><img src="{link}" alt="close-up of the defect"'
        f' style="{place}" loading="lazy"></a>'
    )


def _speed(*runs: Shown) -> str:
    times = [
        float(entry.row["total_ms"])
        for run in runs
        for entry in run.entries
        if entry.row.get("total_ms")
    ]
    return f"A photo took {median(times):.0f} ms (median)." if times else ""


_STYLE: Final = "".join(
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("contact_sheet.css", "demo_page.css")
)
