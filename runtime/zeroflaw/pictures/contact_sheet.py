"""The contact sheet of a folder of results: one HTML page, no scripts, nothing from afar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Literal

from zeroflaw.inspection import Inspection
from zeroflaw.pictures.markup import link_to, score_line, shown_text
from zeroflaw.pictures.truth_parts import LEGEND, figure_rows, truth_head, verdict_line
from zeroflaw.pipeline.masks.regions import Region
from zeroflaw.pipeline.trace import Status
from zeroflaw.station.truth.judgement import Judgement
from zeroflaw_engines.errors import ZeroflawError

_STATUS: Final[dict[Status, str]] = {
    "ok": "the refiner ran through",
    "no_region": "nothing extreme in the map, or no box",
    "stage_1_empty": "SAM found nothing at the points, or in the boxes",
    "stage_2_empty": "stage 2 was empty, stage 1 kept",
    "stage_3_empty": "stage 3 was empty, stage 2 kept",
}
_MAX_REGIONS: Final = 20
_FILTERS: Final = {
    "all": "all",
    "reject": "rejected",
    "hold": "held",
    "failed": "failed",
    "accept": "accepted",
}
# Only on pages of runs that know the truth.
_TRUTH_FILTERS: Final = {"right": "right", "wrong": "wrong"}
_PICTURES: Final = ((".overlay.png", "overlay"), (".map.png", "anomaly map"))
_PICTURES_WITH_TRUTH: Final = ((".truth.png", "truth and mask"), (".map.png", "anomaly map"))
# Pictures wider than this lie above each other, so that small defects can be seen.
WIDE: Final = 1.6


@dataclass(frozen=True)
class SheetHeader:
    """What the page says of the run as a whole.

    Attributes:
        bundle: How the user named the bundle.
        identity: Digest of its engines and weights.
        product: The product it was inspected as.
        started: UTC time at which the run began, ISO 8601.
        files: Number of files that were to be inspected.
        state: `under way` until the run has ended, also if it was killed; `interrupted` if it
            ended before all files were done; `done`.
        notes: What a reader must know, such as that the weights are random.
    """

    bundle: str
    identity: str
    product: str
    started: str
    files: int
    notes: tuple[str, ...]
    state: Literal["under way", "interrupted", "done"] = "done"


@dataclass(frozen=True)
class Card:
    """One image on the page.

    Attributes:
        outcome: Its decision; `failed` if it is held because it could not be inspected;
            `left_out` if it was not looked at.
        html: Its part of the page: one element, escaped.
        judgement: The inspection against the truth, where that is known.
    """

    outcome: str
    html: str
    judgement: Judgement | None = None


def inspected_card(
    source: PurePath,
    stem: PurePath,
    inspection: Inspection,
    judgement: Judgement | None = None,
    *,
    without_truth: str | None = None,
) -> Card:
    """Return the card of an inspected image.

    Args:
        stem: Path of its results relative to the page, without `.overlay.png` and the like.
        judgement: The inspection against the truth, where that is known.
        without_truth: Why a truth mask that there is cannot be used.
    """
    height, width = inspection.frame_size
    size = f'width="{width}" height="{height}" loading="lazy" decoding="async"'
    pictures = "".join(
        f'<a href="{link_to(stem, kind)}"><figure><img src="{link_to(stem, kind)}" {size}'
        f' alt="{alt}"><figcaption>{alt}</figcaption></figure></a>'
        for kind, alt in (_PICTURES if judgement is None else _PICTURES_WITH_TRUTH)
    )
    area = int(inspection.mask.sum()) / (height * width)
    told = inspection.decision == "hold" or inspection.rule is not None
    reason = f'<p class="reason">{shown_text(inspection.reason.text)}</p>' if told else ""
    classes = [inspection.decision, *(["wide"] if width > WIDE * height else [])]
    verdict, figures, overlay = "", "", ""
    if judgement is not None:
        classes += [name for name in _TRUTH_FILTERS if getattr(judgement, name)]
        verdict, figures = verdict_line(judgement), figure_rows(judgement)
        overlay = f' <a href="{link_to(stem, ".overlay.png")}">points and boxes</a>'
    if without_truth is not None:
        verdict = f'<p class="error">No truth: {shown_text(without_truth)}</p>'
    return Card(
        inspection.decision,
        f'<article class="card {" ".join(classes)}">'
        f"{_heading(source, _verdict(inspection.decision, inspection.reason.code))}"
        f"{verdict}{reason}"
        f'<div class="pictures">{pictures}</div>{_scale(inspection)}'
        "<dl>"
        f"<dt>status</dt><dd><code>{inspection.status}</code>: {_STATUS[inspection.status]}</dd>"
        f"<dt>mask</dt><dd>{area:.2%} of {width} × {height} px</dd>"  # noqa: RUF001 - a product
        f"{figures}<dt>time</dt><dd>{inspection.timings_ms['total']:.0f} ms</dd>"
        f"</dl>{_regions(inspection.regions)}{_timings(inspection.timings_ms)}"
        f'<p class="files"><a href="{link_to(stem, ".mask.png")}">mask</a>'
        f' <a href="{link_to(stem, ".json")}">JSON</a>{overlay}</p></article>\n',
        judgement,
    )


def failed_card(source: PurePath, stem: PurePath | None, error: ZeroflawError) -> Card:
    """Return the card of a file that could not be inspected: it is held.

    Args:
        stem: Path of its record relative to the page, without `.json`; None if it has none.
    """
    files = "" if stem is None else f'<a href="{link_to(stem, ".json")}">JSON</a>'
    return Card(
        "failed",
        f'<article class="card hold failed">{_heading(source, _verdict("hold", "failed"))}'
        f'<p class="error">{shown_text(error.cause)}</p>'
        f'<p class="remedy">{shown_text(error.remedy)}</p>'
        f'<p class="files">{files}</p></article>\n',
    )


def left_out_card(path: PurePath, why: str, *, may_be_picture: bool) -> Card:
    """Return the line of a file that was not looked at.

    Args:
        why: The end of a sentence that begins with it.
        may_be_picture: Whether a picture may be missing because of it.
    """
    kind = ' class="missed"' if may_be_picture else ""
    return Card(
        "left_out", f"<li{kind}><bdi>{shown_text(path.as_posix())}</bdi> {shown_text(why)}</li>\n"
    )


def contact_sheet(header: SheetHeader, cards: Sequence[Card], earlier: Sequence[Card] = ()) -> str:
    """Return the page.

    Args:
        cards: In the order of the files; fewer than `header.files` if the run was interrupted.
        earlier: Of earlier runs into the same folder, whose results are there still.
    """
    ours, left_out = _parted(cards)
    theirs, left_out_earlier = _parted(earlier)
    counts = _counts([*ours, *theirs])
    notes = [shown_text(note) for note in header.notes]
    if header.state == "under way":
        notes.insert(
            0,
            f"The run is under way, or was killed: {len(ours)} of {header.files} files so far.",
        )
    elif len(ours) < header.files:
        notes.insert(0, f"The run was interrupted after {len(ours)} of {header.files} files.")
    judgements = [card.judgement for card in ours if card.judgement is not None]
    kinds = dict(_FILTERS)
    if any(card.judgement is not None for card in (*ours, *theirs)):
        kinds |= _TRUTH_FILTERS
    filters = "".join(
        f'<input type="radio" name="show" id="show-{kind}"{" checked" if kind == "all" else ""}>'
        f'<label for="show-{kind}">{text} <b>{counts[kind]}</b></label>'
        for kind, text in kinds.items()
    )
    here = _counts(ours)
    held = f", {here['hold']} held" if here["hold"] else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{shown_text(header.product)}: {here['reject']} of {len(ours)} rejected{held}"
        "</title>"
        f"<style>{_STYLE}</style></head><body>\n<header><h1>Inspection of"
        f" <em>{shown_text(header.product)}</em></h1>"
        f"<p>Bundle <b>{shown_text(header.bundle)}</b>, engines"
        f' <code title="{shown_text(header.identity)}">{shown_text(header.identity[:12])}</code>.'
        f" Run of <time>{shown_text(header.started)}</time>.</p>"
        + "".join(f'<p class="note" role="note">{note}</p>' for note in notes)
        + f'</header>\n{truth_head(judgements)}<div class="filters">{filters}</div>\n'
        + _section("", ours)
        + (_section(f"Earlier runs into this folder: {len(theirs)}", theirs) if theirs else "")
        + _left_out([*left_out, *left_out_earlier])
        + "<footer>Red: mask; green and blue: positive and negative points; yellow: boxes."
        " The map runs from blue (0) to red (1)."
        + (f" With a truth: {LEGEND}" if kinds.keys() > _FILTERS.keys() else "")
        + "</footer>\n</body></html>\n"
    )


def _parted(cards: Sequence[Card]) -> tuple[list[Card], list[Card]]:
    """Return cards of images, and lines of files that were left out."""
    shown = [card for card in cards if card.outcome != "left_out"]
    return shown, [card for card in cards if card.outcome == "left_out"]


def _counts(cards: Sequence[Card]) -> dict[str, int]:
    """Return how many cards each filter shows; a failed file is held, too."""
    found = {kind: sum(card.outcome == kind for card in cards) for kind in _FILTERS}
    judged = [card.judgement for card in cards if card.judgement is not None]
    return {
        **found,
        "all": len(cards),
        "hold": found["hold"] + found["failed"],
        "right": sum(one.right for one in judged),
        "wrong": sum(one.wrong for one in judged),
    }


def _section(title: str, cards: Sequence[Card]) -> str:
    heading = f'<h2 class="section">{shown_text(title)}</h2>\n' if title else ""
    return heading + '<div class="cards">\n' + "".join(card.html for card in cards) + "</div>\n"


def _left_out(lines: Sequence[Card]) -> str:
    if not lines:
        return ""
    return (
        f'<section class="left-out"><h2 class="section">Left out: {len(lines)}</h2>\n<ul>\n'
        + "".join(line.html for line in lines)
        + "</ul></section>\n"
    )


def _verdict(decision: str, code: str) -> str:
    """Return the decision, and for a held frame the kind of its reason."""
    return f"hold: {code.replace('_', ' ')}" if decision == "hold" else decision


def _heading(source: PurePath, verdict: str) -> str:
    folder = source.parent.as_posix()
    return (
        f'<h2><span class="badge">{verdict}</span> <bdi>{shown_text(source.name)}</bdi>'
        f"<small><bdi>{shown_text('' if folder == '.' else folder)}</bdi></small></h2>"
    )


def _scale(inspection: Inspection) -> str:
    """Return the score against its threshold, in figures and as a bar."""
    score, threshold = inspection.decision_score, inspection.threshold
    by_rules = inspection.rule is not None or score != inspection.image_score
    name = "decision score" if by_rules else "score"
    return (
        f'<div class="scale"><p>{score_line(score, threshold, name=name)}</p>'
        f'<div class="bar"><i style="width:{100 * score:.2f}%"></i>'
        f'<s style="left:{100 * threshold:.2f}%"></s></div></div>'
    )


def _regions(regions: Sequence[Region]) -> str:
    if not regions:
        return '<p class="none">no regions</p>'
    zones = any(region.zones for region in regions)
    scale = any(region.area_mm2 is not None for region in regions)
    rows = "".join(
        f"<tr><td>{region.x}, {region.y}</td><td>{region.width} × {region.height}</td>"  # noqa: RUF001
        f"<td>{region.area}</td>{f'<td>{region.area_mm2:.4g}</td>' if scale else ''}"
        f"<td>{region.peak_score:.3f}</td>{_zone_cells(region) if zones else ''}</tr>"
        for region in regions[:_MAX_REGIONS]
    )
    left = len(regions) - _MAX_REGIONS
    columns = 4 + scale + 2 * zones
    more = f'<tr><td colspan="{columns}">and {left} smaller ones</td></tr>' if left > 0 else ""
    return (
        f"<details><summary>{len(regions)} region{'s' * (len(regions) > 1)}</summary><table>"
        "<tr><th>x, y (px)</th><th>size (px)</th><th>area (px)</th>"
        f"{'<th>area (mm²)</th>' if scale else ''}<th>peak score</th>"
        f"{'<th>zones</th><th>severity</th>' if zones else ''}</tr>"
        f"{rows}{more}</table></details>"
    )


def _zone_cells(region: Region) -> str:
    zones = ", ".join(map(shown_text, region.zones))
    return f"<td>{zones}</td><td>{region.severity or ''}</td>"


def _timings(milliseconds: dict[str, float]) -> str:
    rows = "".join(
        f"<tr><td>{shown_text(name)}</td><td>{value:.1f}</td></tr>"
        for name, value in milliseconds.items()
    )
    return (
        "<details><summary>timing</summary><table><tr><th>stage</th><th>ms</th></tr>"
        f"{rows}</table></details>"
    )


_STYLE: Final = Path(__file__).with_name("contact_sheet.css").read_text(encoding="utf-8")
