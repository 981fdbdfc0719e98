"""Settings of products that tests start from, and any settings that hypothesis draws."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from hypothesis import strategies as st

from zeroflaw_engines.bundle.products.settings import (
    Alignment,
    ProductSettings,
    Rule,
    Tiles,
    Zone,
)

PART = Zone(name="part", polygon=((20, 20), (300, 20), (300, 220), (20, 220)))
SLOT = Zone(
    name="slot",
    polygon=((0.4, 0.4), (0.5, 0.4), (0.5, 0.6)),
    kind="exclude",
    units="relative",
)
EDGE = Zone(name="edge", polygon=((20, 20), (300, 20), (300, 40.5)), severity="critical")
ALIGNMENT = Alignment(
    template="", photo=hashlib.sha256(b"photo").hexdigest(), max_shift=12.5, max_rotation=2.0
)
WHOLE = ProductSettings(frame_width=320, frame_height=240)
# Of everything one.
FULL = ProductSettings(
    frame_width=320,
    frame_height=240,
    mm_per_pixel=0.05,
    tiles=Tiles(rows=2, columns=3, overlap=0.25, coarse_to_fine=True, coarse_limit=0.2),
    zones=(PART, SLOT, EDGE),
    rules=(
        Rule(name="large", zones=("part",), min_area_mm2=0.5),
        Rule(name="edge", zones=("edge",), min_area_px=8, min_peak=0.4, min_regions=2),
        Rule(name="whole", by="image_score", min_image_score=0.99),
    ),
    alignment=ALIGNMENT,
)


def with_zone(**changes: object) -> ProductSettings:
    """The full settings with another zone to include in place of the first."""
    part = msgspec.structs.replace(PART, **changes)
    return msgspec.structs.replace(FULL, zones=(part, *FULL.zones[1:]))


def with_rule(**fields: object) -> ProductSettings:
    """The full settings with one rule."""
    return msgspec.structs.replace(FULL, rules=(Rule(name="a rule", **fields),))


NAMES = st.text(
    st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=20
).filter(lambda name: name == name.strip() and name.isprintable())
SHARES = st.floats(0.001, 1)


@st.composite
def outlines(draw: st.DrawFn, width: float, height: float) -> tuple[tuple[float, float], ...]:
    """The corners of a polygon without crossings: on an ellipse, in the order of their angles."""
    count = draw(st.integers(3, 8))
    angles = 2 * np.pi * (np.arange(count) + draw(st.floats(0, 0.9))) / count
    grow = draw(st.floats(0.5, 1))
    x = width / 2 * (1 + grow * np.cos(angles))
    y = height / 2 * (1 + grow * np.sin(angles))
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


@st.composite
def product_settings(draw: st.DrawFn, width: int = 320, height: int = 240) -> ProductSettings:
    """Any settings that `check_settings` takes."""
    names = draw(st.lists(NAMES, max_size=4, unique_by=str.casefold))
    zones = []
    for name in names:
        units = draw(st.sampled_from(["px", "relative"]))
        size = (width, height) if units == "px" else (1.0, 1.0)
        zones.append(
            Zone(
                name=name,
                polygon=draw(outlines(*size)),
                kind=draw(st.sampled_from(["include", "exclude"])),
                severity=draw(st.sampled_from(["minor", "major", "critical"])),
                units=units,
            )
        )
    included = [zone.name for zone in zones if zone.kind == "include"]
    scale = draw(st.none() | st.floats(1e-6, 1e3))
    rules = []
    for name in draw(st.lists(NAMES, max_size=3, unique_by=str.casefold)):
        least = draw(st.none() | SHARES)
        if draw(st.booleans()):
            rules.append(Rule(name=name, by="image_score", min_image_score=least))
            continue
        area = draw(st.sampled_from(["none", "px", "mm2"]))
        most = width * height // 9  # what nine regions of a frame may have
        rules.append(
            Rule(
                name=name,
                zones=tuple(draw(st.lists(st.sampled_from(included), unique=True)))
                if included
                else (),
                min_area_px=draw(st.integers(1, most)) if area == "px" else None,
                min_area_mm2=draw(st.floats(1e-3, most - 1)) * scale**2
                if area == "mm2" and scale
                else None,
                min_peak=draw(st.none() | SHARES),
                min_regions=draw(st.integers(1, 9)),
                min_image_score=least,
            )
        )
    alignment = None
    if included and draw(st.booleans()):
        method = draw(st.sampled_from(["ecc", "phase_correlation"]))
        alignment = Alignment(
            template="",
            photo=ALIGNMENT.photo,
            method=method,
            max_shift=draw(st.floats(0.1, 1e4)),
            max_rotation=draw(st.floats(0, 45)) if method == "ecc" else 0.0,
            min_correlation=draw(st.floats(0, 1)),
        )
    tiles = None
    if draw(st.booleans()):
        limit = draw(st.none() | SHARES)
        tiles = Tiles(
            rows=draw(st.integers(1, 3)),
            columns=draw(st.integers(1, 3)),
            overlap=draw(st.floats(0, 0.5)),
            coarse_to_fine=limit is not None,
            coarse_limit=limit,
            banks=draw(st.sampled_from(["one", "per_tile"])) if alignment else "one",
        )
    return ProductSettings(
        frame_width=width,
        frame_height=height,
        mm_per_pixel=scale,
        tiles=tiles,
        zones=tuple(zones),
        rules=tuple(rules),
        alignment=alignment,
    )
