"""The settings of a product: how its frames are looked at, and what decides about them.

All positions are (x, y) in pixels of the frame, from its top left corner; of an aligned product, of
the reference photo.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec

from zeroflaw_engines.bundle.graph_entries import Struct

Severity = Literal["minor", "major", "critical"]
# From the least to the worst.
SEVERITIES: Final[tuple[Severity, ...]] = ("minor", "major", "critical")
# Most tiles along one axis.
MAX_TILES: Final = 64
# Most corners of a zone, and most zones and rules of a product: every reader checks them all.
MAX_CORNERS: Final = 2000
MAX_PARTS: Final = 64

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Pixels = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Tiles(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A grid of overlapping tiles of equal size, each of which the encoders see by itself.

    Attributes:
        rows: Tiles from top to bottom.
        columns: Tiles from left to right.
        overlap: Share of a tile's side that it has in common with the next one.
        coarse_to_fine: Whether tiles are left out where the map of the whole frame is clearly good.
        coarse_limit: Highest value of that map, in [0, 1], that is clearly good; given with
            `coarse_to_fine` alone.
        banks: Whether a learned product has `one` reference bank for all tiles, or one `per_tile`,
            which takes an aligned part.
    """

    rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_TILES)]
    columns: Annotated[int, msgspec.Meta(ge=1, le=MAX_TILES)]
    overlap: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.2
    coarse_to_fine: bool = False
    coarse_limit: Share | None = None
    banks: Literal["one", "per_tile"] = "one"


class Zone(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A polygon of the frame that is judged, or that is not.

    With a zone to include, nothing outside of all such zones is judged. What a zone excludes is
    never judged.

    Attributes:
        name: Unique among the product's zones.
        polygon: Corners (x, y), 3 to `MAX_CORNERS`; its sides do not cross, and the last one leads
            back to the first corner.
        kind: `include` or `exclude`.
        severity: How bad a defect in it is.
        units: Of the corners: `px`, or `relative` to the width and height of the frame, in [0, 1].
    """

    name: str
    polygon: tuple[tuple[float, float], ...]
    kind: Literal["include", "exclude"] = "include"
    severity: Severity = "major"
    units: Literal["px", "relative"] = "px"


class Rule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reason to reject a frame: all of its conditions hold. One such rule is enough.

    A rule by `regions` counts the regions that touch one of its zones, reach its least area and
    reach its peak; it rejects if there are `min_regions` of them. A region counts with all of its
    area in every zone that it touches.

    Attributes:
        name: Unique among the product's rules.
        by: Whether it looks at the `regions` or at the `image_score`.
        zones: Names of zones to include; none: every region.
        min_area_px: Least area of a region, px.
        min_area_mm2: The same in mm2, by the product's `mm_per_pixel`; not with the other.
        min_peak: Least peak of the score map in a region, in (0, 1]; None: the product's
            decision threshold, which calibration sets.
        min_regions: How many such regions it takes.
        min_image_score: Least image score, in (0, 1]. None: of a rule by `image_score` the
            product's decision threshold, of one by `regions` any score will do.
    """

    name: str
    by: Literal["regions", "image_score"] = "regions"
    zones: tuple[str, ...] = ()
    min_area_px: Annotated[int, msgspec.Meta(ge=1)] | None = None
    min_area_mm2: Positive | None = None
    min_peak: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    min_regions: Annotated[int, msgspec.Meta(ge=1)] = 1
    min_image_score: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


class Alignment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the frames of a fixtured part are brought onto a reference photo.

    Attributes:
        template: File of the reference photo in the bundle, an 8-bit grey PNG of the frame's
            shape, reduced to at most 1024 px along its longer side.
        photo: SHA-256 of the file that it was made of.
        method: `ecc` finds translation and rotation, `phase_correlation` translation alone.
        max_shift: Largest translation, px of the frame; a frame beyond it is held.
        max_rotation: Largest rotation, degrees; the same. 0: frames are not turned back, and one
            turned by more than half a degree is held. `phase_correlation` does not notice it.
        min_correlation: Least correlation of the aligned frame with the reference photo, in
            [0, 1]; a frame with less is held.
    """

    template: str
    photo: str
    method: Literal["ecc", "phase_correlation"] = "ecc"
    max_shift: Positive
    max_rotation: Annotated[float, msgspec.Meta(ge=0, le=45)] = 0.0
    min_correlation: Share = 0.5


class ProductSettings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the frames of a product are looked at, and what decides about them.

    Attributes:
        frame_width: Of the frames that the settings are made for, px; others are held.
        frame_height: Rows of these frames, px.
        mm_per_pixel: Side of a pixel on the part, mm.
        tiles: None: the encoders see the frame as a whole.
        zones: None: the whole frame is judged.
        rules: None: the image score decides.
        alignment: None: frames are taken as they are.
    """

    frame_width: Pixels
    frame_height: Pixels
    mm_per_pixel: Positive | None = None
    tiles: Tiles | None = None
    zones: tuple[Zone, ...] = ()
    rules: tuple[Rule, ...] = ()
    alignment: Alignment | None = None

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.frame_height, self.frame_width

    @property
    def digest(self) -> str:
        """SHA-256 of the settings, as inspections record it; the same in every bundle."""
        return _digest(self)

    @property
    def view_digest(self) -> str:
        """SHA-256 of what the encoders are shown by: not the rules, the scale, nor what zones say.

        A reference bank holds for it.
        """
        zones = tuple(
            msgspec.structs.replace(zone, name="", severity="major") for zone in self.zones
        )
        return _digest(msgspec.structs.replace(self, zones=zones, rules=(), mm_per_pixel=None))


def _digest(settings: ProductSettings) -> str:
    if settings.alignment is not None:
        # Its file has another name in each bundle; the photo that it is made of has the digest.
        alignment = msgspec.structs.replace(settings.alignment, template="")
        settings = msgspec.structs.replace(settings, alignment=alignment)
    # A program may give 20 where a file has 20.0: as they are read from a file.
    read = msgspec.convert(msgspec.to_builtins(settings), ProductSettings)
    return hashlib.sha256(msgspec.json.encode(read, order="sorted")).hexdigest()
