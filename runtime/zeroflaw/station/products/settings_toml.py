"""The settings of a product as TOML: what a person writes, and what is printed."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

import msgspec

from zeroflaw_engines.bundle.graph_entries import Struct
from zeroflaw_engines.bundle.products.settings import (
    MAX_TILES,
    Alignment,
    Pixels,
    Positive,
    ProductSettings,
    Rule,
    Share,
    Tiles,
    Zone,
)
from zeroflaw_engines.bundle.products.settings_checks import require_finite
from zeroflaw_engines.errors import SettingsError

# What each setting is, for the remedy of an error in it.
_MEANINGS: Final[Mapping[str, str]] = {
    "frame_width": "the frames' width in px; left out, that of the photo",
    "frame_height": "the frames' height in px; left out, that of the photo",
    "mm_per_pixel": "the side of a pixel on the part in mm, above 0",
    "tiles": "a table [tiles]",
    "zones": "tables [[zones]]",
    "rules": "tables [[rules]]",
    "alignment": "a table [alignment]",
    "rows": f"tiles from top to bottom, 1 to {MAX_TILES}",
    "columns": f"tiles from left to right, 1 to {MAX_TILES}",
    "smallest_defect": "the extent of the smallest defect in px of the frame, above 0",
    "overlap": "the share of a tile's side that it has in common with the next one, 0 to 0.5",
    "coarse_to_fine": "true or false",
    "coarse_limit": "the highest value of the coarse map that is clearly good, 0 to 1",
    "banks": '"one" or "per_tile"',
    "name": "a text of its own",
    "polygon": "a list of corners [x, y]",
    "kind": '"include" or "exclude"',
    "severity": '"minor", "major" or "critical"',
    "units": '"px" or "relative"',
    "by": '"regions" or "image_score"',
    "min_area_px": "the least area of a region in px, a whole number from 1",
    "min_area_mm2": "the least area of a region in mm2, above 0",
    "min_peak": "the least peak of the map in a region, above 0 and up to 1",
    "min_regions": "how many such regions it takes, a whole number from 1",
    "min_image_score": "the least image score, above 0 and up to 1",
    "photo": "the path of the reference photo; left out, the photo of the command line",
    "photo_sha256": "the SHA-256 of the reference photo, 64 hexadecimal digits",
    "method": '"ecc" or "phase_correlation"',
    "max_shift": "the largest shift in px of the frame, above 0",
    "max_rotation": "the largest rotation in degrees, 0 to 45",
    "min_correlation": "the least correlation with the reference photo, 0 to 1",
}
_PLACE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<place>.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
# Longer outlines have a corner a line.
_CORNERS_OF_A_LINE: Final = 8
# Whole numbers up to here are the same as a float.
_WHOLE: Final = 2**53


class WrittenTiles(Struct, frozen=True, kw_only=True):
    """`Tiles` as a person writes them: by rows and columns, or by the smallest defect.

    Attributes:
        smallest_defect: Extent along either axis, px of the frame.
    """

    rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_TILES)] | None = None
    columns: Annotated[int, msgspec.Meta(ge=1, le=MAX_TILES)] | None = None
    smallest_defect: Positive | None = None
    overlap: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.2
    coarse_to_fine: bool = False
    coarse_limit: Share | None = None
    banks: Literal["one", "per_tile"] = "one"


class WrittenAlignment(Struct, frozen=True, kw_only=True):
    """An `Alignment` as a person writes it: the reference photo is a file, or the one there is.

    Attributes:
        photo: Path of the reference photo, from the folder of the TOML; None: that of the command.
        photo_sha256: Of the reference photo, where it is the one that the product has already.
    """

    photo: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    photo_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    method: Literal["ecc", "phase_correlation"] = "ecc"
    max_shift: Positive
    max_rotation: Annotated[float, msgspec.Meta(ge=0, le=45)] = 0.0
    min_correlation: Share = 0.5


class WrittenSettings(Struct, frozen=True, kw_only=True):
    """`ProductSettings` as a person writes them; what a photo says may be left out."""

    frame_width: Pixels | None = None
    frame_height: Pixels | None = None
    mm_per_pixel: Positive | None = None
    tiles: WrittenTiles | None = None
    zones: tuple[Zone, ...] = ()
    rules: tuple[Rule, ...] = ()
    alignment: WrittenAlignment | None = None


def read_settings(text: str, where: str) -> WrittenSettings:
    """Read settings that a person wrote.

    Args:
        text: TOML.
        where: Path for error messages.

    Raises:
        SettingsError: It is no TOML; or a setting is unknown, missing, of another kind or out of
            its range.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a bare ValueError: of thousands of digits
        raise SettingsError(
            f"{where} is no TOML: {error}",
            "mend it there; `zeroflaw products show BUNDLE NAME --toml` prints settings as TOML",
        ) from error
    try:
        written = msgspec.convert(document, WrittenSettings)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), where) from error
    require_finite(document)
    if written.tiles is not None:
        _check_grid(written.tiles)
    alignment = written.alignment
    if alignment is not None and alignment.photo is not None and alignment.photo_sha256 is not None:
        raise SettingsError(
            "alignment: photo and photo_sha256 were both given",
            "give photo for a new reference photo, photo_sha256 for the one that the product has",
        )
    return written


def settings_text(settings: ProductSettings) -> str:
    """Return settings as TOML that `read_settings` takes; all but what is None, in fixed order.

    The reference photo of an alignment is named by its digest: it is the one that the product has.
    """
    lines = list(_fields(msgspec.structs.asdict(settings)))
    if settings.tiles is not None:
        lines += ["", "[tiles]", *_fields(msgspec.structs.asdict(settings.tiles))]
    for part, each in (("zones", settings.zones), ("rules", settings.rules)):
        for one in each:
            lines += ["", f"[[{part}]]", *_fields(msgspec.structs.asdict(one))]
    if settings.alignment is not None:
        fields = msgspec.structs.asdict(settings.alignment)
        fields["photo_sha256"] = fields.pop("photo")
        del fields["template"]
        lines += ["", "[alignment]", *_fields(fields)]
    return "\n".join(lines) + "\n"


def _check_grid(tiles: WrittenTiles) -> None:
    grid = (tiles.rows, tiles.columns)
    if tiles.smallest_defect is not None:
        if grid != (None, None):
            raise SettingsError(
                "tiles: smallest_defect was given with rows or columns",
                "give smallest_defect alone, which chooses rows and columns; or both of these",
            )
    elif None in grid:
        raise SettingsError(
            "tiles: rows or columns are missing",
            "give both, or smallest_defect, which chooses them",
        )


def _misfit(message: str, where: str) -> SettingsError:
    """Say what does not fit, where, and what would."""
    match = _PLACE.fullmatch(message)
    what, place = (match["what"], match["place"] or "") if match else (message, "")
    unknown, missing = _UNKNOWN.fullmatch(what), _MISSING.fullmatch(what)
    if unknown is not None:
        known = _names_at(place)
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        full = f"{place}.{unknown[1]}" if place else unknown[1]
        return SettingsError(
            f"{where}: {full}: there is no such setting",
            f"{hint}there are: {', '.join(known)}",
        )
    if missing is not None:
        place, what = (f"{place}.{missing[1]}" if place else missing[1]), "it is missing"
    names = re.findall(r"[a-z_0-9]+(?=\[|\.|$)", re.sub(r"\[[0-9.]*\]", "", place))
    meaning = _MEANINGS.get(names[-1] if names else "", "a table of settings")
    # TOML has no null.
    what = (what[:1].lower() + what[1:]).replace(" | null", "")
    return SettingsError(f"{where}: {place or 'the file'}: {what}", f"give {meaning}")


def _names_at(place: str) -> list[str]:
    kinds: dict[str, type[msgspec.Struct]] = {
        "": WrittenSettings,
        "tiles": WrittenTiles,
        "zones": Zone,
        "rules": Rule,
        "alignment": WrittenAlignment,
    }
    kind = kinds.get(re.sub(r"\[.*", "", place), WrittenSettings)
    return list(kind.__struct_fields__)


def _fields(values: Mapping[str, object]) -> Iterator[str]:
    """Write the settings that are no tables of their own."""
    for name, value in values.items():
        if value is None or value == () or isinstance(value, Tiles | Alignment):
            continue
        if isinstance(value, tuple) and isinstance(value[0], msgspec.Struct):
            continue
        yield f"{name} = {_value(value)}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _WHOLE else repr(value)
    if isinstance(value, tuple):
        items = [_value(item) for item in value]
        if len(items) > _CORNERS_OF_A_LINE:
            return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
        return f"[{', '.join(items)}]"
    return _text(str(value))


def _text(value: str) -> str:
    """Write a basic string of TOML: JSON's, but for DEL, which TOML wants as an escape."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
