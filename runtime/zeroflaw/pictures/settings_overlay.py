"""The settings of a product drawn on a photo: zones, tiles, and the smallest defect."""

from __future__ import annotations

from typing import Final

import cv2
import msgspec
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zeroflaw.pictures.zone_outlines import draw_zones
from zeroflaw.pipeline.view.tiles import TileGrid
from zeroflaw.pipeline.view.zones import zone_layout
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.bundle.products.settings_checks import corners
from zeroflaw_engines.image_files.frame import Frame

TILE_COLOUR: Final = (60, 220, 60)
# Of its brightness, what is left of a pixel that is not judged.
DIMMED: Final = 0.4
# How much of a pixel that several tiles see is their colour.
_OVERLAP: Final = 0.15
_TEXT: Final = (255, 255, 255)
_OUTLINE: Final = (0, 0, 0)


def draw_settings(frame: Frame, settings: ProductSettings, grid: TileGrid) -> Frame:
    """Draw how the frames of a product are looked at.

    What is not judged is dimmed. Zones are drawn as `draw_zones` does, with names and severities.
    Tiles are outlined in green, and what more than one of them sees has a tint of it. A square at
    the lower left shows a patch of the map: the smallest defect that covers one.

    Args:
        frame: uint8 [H, W, 3], RGB, of the size that the settings are made for.
        grid: Its tiles; one of the whole frame where it has none.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    picture = frame.copy()
    width = max(1, round(max(frame.shape[:2]) / 800))
    layout = zone_layout(settings.zones, settings.frame_size)
    if layout is not None:
        picture[~layout.judged] = (picture[~layout.judged] * DIMMED).astype(np.uint8)
    _draw_tiles(picture, grid, width)
    if layout is not None:
        # Their names are written below, with their severities.
        zones = [msgspec.structs.replace(zone, name="") for zone in layout.in_pixels]
        picture = draw_zones(picture, zones, 2 * width)
    return _with_texts(picture, settings, grid, width)


def _draw_tiles(picture: Frame, grid: TileGrid, width: int) -> None:
    if len(grid.windows) == 1:
        return
    height, wide = picture.shape[:2]
    rows, columns = np.zeros(height, np.int32), np.zeros(wide, np.int32)
    for down in {(window[0].start, window[0].stop) for window in grid.windows}:
        rows[slice(*down)] += 1
    for across in {(window[1].start, window[1].stop) for window in grid.windows}:
        columns[slice(*across)] += 1
    shared = (rows > 1)[:, None] | (columns > 1)[None]
    tint = np.multiply(TILE_COLOUR, _OVERLAP)
    picture[shared] = (picture[shared] * (1 - _OVERLAP) + tint).astype(np.uint8)
    for down_, across_ in grid.windows:
        last = (across_.stop - 1, down_.stop - 1)
        cv2.rectangle(picture, (across_.start, down_.start), last, TILE_COLOUR, width)


def _with_texts(picture: Frame, settings: ProductSettings, grid: TileGrid, width: int) -> Frame:
    """Write the zones' names, and draw the smallest defect with its size."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=16 * width)
    stroke = max(1, width)
    for zone in settings.zones:
        left, top = corners(zone, settings.frame_size).min(axis=0) + 4 * width
        kind = "excluded" if zone.kind == "exclude" else zone.severity
        # Pillow's own letters are those of ASCII.
        text = f"{zone.name} ({kind})".encode("ascii", "replace").decode()
        _, _, across, tall = draw.textbbox((0, 0), text, font, stroke_width=stroke)
        left = max(0, min(left, image.width - across))
        draw.text(
            (left, min(top, image.height - tall)), text, _TEXT, font,
            stroke_width=stroke, stroke_fill=_OUTLINE,
        )  # fmt: skip
    patch = patch_size(grid)
    if patch is not None:
        tall, across = max(1, round(patch[0])), max(1, round(patch[1]))
        left, bottom = 8 * width, picture.shape[0] - 8 * width
        box = (left, bottom - tall, left + across - 1, bottom - 1)
        draw.rectangle(box, fill=_TEXT, outline=_TEXT)
        draw.text(
            (left + across + 4 * width, bottom), patch_text(settings, patch), _TEXT, font,
            anchor="ls", stroke_width=stroke, stroke_fill=_OUTLINE,
        )  # fmt: skip
    return np.array(image, np.uint8)


def patch_text(settings: ProductSettings, patch: tuple[float, float]) -> str:
    """Say how large a patch of the map is in the frame: width, height, and in mm by the scale.

    Args:
        patch: Height and width, px of the frame.
    """
    text = f"{patch[1]:.3g} x {patch[0]:.3g} px"
    if settings.mm_per_pixel is not None:
        wide, tall = (side * settings.mm_per_pixel for side in patch[::-1])
        text += f", {wide:.3g} x {tall:.3g} mm"
    return text


def patch_size(grid: TileGrid) -> tuple[float, float] | None:
    """Return the height and width of a patch of the map, px of the frame.

    Returns:
        None where the bundle does not tell its patch grid.
    """
    if grid.patches is None:
        return None
    return grid.tile[0] / grid.patches, grid.tile[1] / grid.patches
