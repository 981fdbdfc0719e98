"""What several pages write in HTML: links, names whatever they hold, scores."""

from __future__ import annotations

import os
from html import escape
from pathlib import PurePath
from urllib.parse import quote


def link_to(stem: PurePath, suffix: str) -> str:
    """Return a relative link: the bytes of the file's name, percent-encoded."""
    return quote(os.fsencode(stem.as_posix() + suffix))


def score_line(score: float, threshold: float, *, name: str = "score") -> str:
    """Return a score beside its threshold, with how they compare."""
    sign = "≥" if score >= threshold else "&lt;"
    return f"{name} <b>{score:.4f}</b> {sign} threshold {threshold:.4f}"


def shown_text(value: str) -> str:
    """Escape a text; what cannot be printed (or encoded, or turns the line around) is replaced."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value))
