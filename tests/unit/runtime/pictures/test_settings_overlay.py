"""The picture of settings: what is judged is seen, what is not is dimmed, hatched or outlined."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from zeroflaw.pictures.settings_overlay import (
    DIMMED,
    TILE_COLOUR,
    draw_settings,
    patch_size,
    patch_text,
)
from zeroflaw.pipeline.view.tiles import TileGrid
from zeroflaw_engines.bundle.products.settings import ProductSettings, Tiles, Zone

HEIGHT, WIDTH = 240, 320
WHOLE = ProductSettings(frame_width=WIDTH, frame_height=HEIGHT)
ONE = TileGrid(Tiles(rows=1, columns=1), (HEIGHT, WIDTH), 448, 56)
GREY = 100


def square(x: int, y: int, side: int) -> tuple[tuple[int, int], ...]:
    return ((x, y), (x + side, y), (x + side, y + side), (x, y + side))


@pytest.fixture
def frame() -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)


def zoned(*zones: Zone) -> ProductSettings:
    return msgspec.structs.replace(WHOLE, zones=zones)


def colours(picture: np.ndarray) -> set[tuple[int, int, int]]:
    return set(map(tuple, np.unique(picture.reshape(-1, 3), axis=0).tolist()))


def test_a_frame_without_zones_and_tiles_shows_the_smallest_defect_alone(
    frame: np.ndarray,
) -> None:
    picture = draw_settings(frame, WHOLE, ONE)
    assert (frame == GREY).all()
    changed = np.argwhere((picture != GREY).any(axis=2))
    assert len(changed)
    assert changed[:, 0].min() > HEIGHT / 2
    # A patch of 320 / 56 x 240 / 56 px
    white = (picture[:, :16] == 255).all(axis=2)
    assert white.sum() == 6 * 4


def test_what_is_not_judged_is_dimmed(frame: np.ndarray) -> None:
    picture = draw_settings(frame, zoned(Zone(name="part", polygon=square(100, 60, 100))), ONE)
    assert (picture[140, 150] == GREY).all()
    assert (picture[30, 300] == int(GREY * DIMMED)).all()


def test_zones_are_outlined_and_named_with_their_severity(frame: np.ndarray) -> None:
    zone = Zone(name="part", polygon=square(100, 60, 120), severity="critical")
    picture = draw_settings(frame, zoned(zone), ONE)
    (outline,) = colours(picture[100:180, 100:101]) & colours(picture[60:61, 180:200])
    assert outline not in {(GREY,) * 3, (int(GREY * DIMMED),) * 3}
    for other in (
        msgspec.structs.replace(zone, name="seal"),
        msgspec.structs.replace(zone, name="p\u00e4rt"),
        msgspec.structs.replace(zone, severity="minor"),
    ):
        changed = np.argwhere((picture != draw_settings(frame, zoned(other), ONE)).any(axis=2))
        # Its name stands in its upper left corner.
        assert changed.min(axis=0) == pytest.approx((65, 110), abs=40)
        assert changed.min() > 50


def test_a_name_at_the_border_is_seen_whole_and_unknown_letters_are_marked(
    frame: np.ndarray,
) -> None:
    corner = square(WIDTH - 30, HEIGHT - 30, 29)
    written = draw_settings(frame, zoned(Zone(name="a name", polygon=corner)), ONE)
    other = draw_settings(frame, zoned(Zone(name="b name", polygon=corner)), ONE)
    changed = np.argwhere((written != other).any(axis=2))
    # The first letter stands well to the left of the zone.
    assert changed[:, 1].max() < WIDTH - 60
    marked = (
        draw_settings(frame, zoned(Zone(name=name, polygon=corner)), ONE)
        for name in ("p\u00e4rt", "p?rt")
    )
    np.testing.assert_array_equal(*marked)


def test_relative_corners_are_drawn_where_those_in_pixels_are(frame: np.ndarray) -> None:
    pixels = Zone(name="part", polygon=square(80, 60, 120))
    relative = Zone(
        name="part",
        polygon=tuple((x / WIDTH, y / HEIGHT) for x, y in pixels.polygon),
        units="relative",
    )
    np.testing.assert_array_equal(
        draw_settings(frame, zoned(pixels), ONE), draw_settings(frame, zoned(relative), ONE)
    )


def test_zones_to_exclude_are_hatched(frame: np.ndarray) -> None:
    picture = draw_settings(
        frame, zoned(Zone(name="hole", polygon=square(100, 60, 100), kind="exclude")), ONE
    )
    inside = picture[110:150, 115:185]
    dimmed = (inside == int(GREY * DIMMED)).all(axis=2)
    (hatching,) = colours(inside[~dimmed])
    assert hatching != (GREY,) * 3
    assert 0.05 < (~dimmed).mean() < 0.4
    assert (picture[30, 300] == GREY).all()


def test_tiles_are_outlined_and_their_overlap_is_tinted(frame: np.ndarray) -> None:
    grid = TileGrid(Tiles(rows=1, columns=2, overlap=0.2), (HEIGHT, WIDTH), 448, 56)
    picture = draw_settings(frame, WHOLE, grid)
    (_, left), (_, right) = grid.windows
    for column in (left.start, left.stop - 1, right.start, right.stop - 1):
        assert (picture[20:200, column] == TILE_COLOUR).all()
    shared = picture[20:200, right.start + 1 : left.stop - 1].reshape(-1, 3)
    assert (shared[:, 1] > GREY).all()
    assert (picture[20:200, left.start + 1 : right.start] == GREY).all()


def test_a_patch_is_named_in_pixels_and_by_the_scale() -> None:
    grid = TileGrid(Tiles(rows=2, columns=4, overlap=0), (HEIGHT, WIDTH), 448, 20)
    assert patch_size(grid) == (6, 4)
    assert patch_text(WHOLE, (6, 4)) == "4 x 6 px"
    scaled = msgspec.structs.replace(WHOLE, mm_per_pixel=0.05)
    assert patch_text(scaled, (6, 4)) == "4 x 6 px, 0.2 x 0.3 mm"
    assert patch_size(TileGrid(grid.tiles, grid.frame, 448)) is None
