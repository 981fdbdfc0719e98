"""What a page says of inspections against the truth: of each photo, and of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zeroflaw.station.truth.judgement import Judgement, Tally, Verdict, tally

VERDICT_TEXTS: Final[dict[Verdict, tuple[str, str]]] = {
    "right_accept": ("right", "a good part is accepted"),
    "right_reject": ("right", "a defective part is rejected"),
    "false_reject": ("wrong", "false reject: a good part is rejected"),
    "missed": ("wrong", "missed: a defective part is accepted"),
    "hold": ("held", "neither right nor wrong"),
}
LEGEND: Final = "Cyan: the truth, drawn just outside the defect; red: the mask that was found."
_MARKS: Final = {"right": "✓", "wrong": "✗", "held": "·"}


def verdict_line(judgement: Judgement) -> str:
    """Return whether a decision is right, as a paragraph."""
    word, text = VERDICT_TEXTS[judgement.verdict]
    return f'<p class="verdict {word}"><b>{_MARKS[word]} {word}</b> {text}</p>'


def figure_rows(judgement: Judgement) -> str:
    """Return how well a defect is shown, as rows of a list; empty for a good part."""
    if not judgement.defective:
        return ""
    return (
        f"<dt>map</dt><dd>pixel AUROC {decimal(judgement.map_auroc)}</dd>"
        f"<dt>defect</dt><dd>{percent(judgement.defect_found)} of it found, IoU of the mask"
        f" {decimal(judgement.mask_iou)}</dd>"
    )


def truth_head(judgements: Sequence[Judgement]) -> str:
    """Return how many decisions are right, and what the others are; empty without judgements."""
    if not judgements:
        return ""
    counts = tally(judgements)
    rejected = sum(one.verdict == "right_reject" for one in judgements)
    accepted = counts.right - rejected
    parts = [
        part("right" if rejected == counts.defective else "", rejected, counts.defective,
             "defective parts rejected"),
        part("right" if accepted == counts.good else "", accepted, counts.good,
             "good parts accepted"),
        tile("wrong" if counts.missed else "", str(counts.missed), "missed"),
        tile("wrong" if counts.false_rejects else "", str(counts.false_rejects),
             "false rejects" if counts.false_rejects != 1 else "false reject"),
        tile("held" if counts.held else "", str(counts.held), "held"),
    ]  # fmt: skip
    return (
        f'<section class="truth" aria-label="Against the truth"><p class="score"><b>{counts.right}'
        f" of {counts.total}</b> decisions are right.</p><ul>{''.join(parts)}</ul>"
        f"{_means(counts)}</section>\n"
    )


def tally_text(judgements: Sequence[Judgement]) -> str:
    """Return how many decisions are right, and what the others are, as a part of a sentence."""
    counts = tally(judgements)
    return (
        f"against the truth {counts.right} of {counts.total} right, {counts.missed} missed,"
        f" {counts.false_rejects} false rejects, {counts.held} held"
    )


def part(tone: str, number: int, of: int, text: str) -> str:
    """Return a count of a group as a tile; empty where the group is."""
    return tile(tone, f"{number} of {of}", text) if of else ""


def tile(tone: str, number: str, text: str) -> str:
    """Return a number with what it counts.

    Args:
        tone: `right`, `wrong`, `held`, or empty.
    """
    kind = f' class="{tone}"' if tone else ""
    return f"<li{kind}><b>{number}</b> {text}</li>"


def decimal(figure: float | None) -> str:
    """Return a figure to three places."""
    return "not known" if figure is None else f"{figure:.3f}"


def percent(share: float | None) -> str:
    """Return a share in whole per cent."""
    return "not known" if share is None else f"{share:.0%}"


def _means(counts: Tally) -> str:
    if not counts.defective:
        return ""
    return (
        f'<p class="means">Means over the defective parts: pixel AUROC of the map'
        f" {decimal(counts.map_auroc)}, {percent(counts.defect_found)} of the defect found,"
        f" IoU of the mask {decimal(counts.mask_iou)}.</p>"
    )
