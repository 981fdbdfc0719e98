"""Zones, against brute force: the centre of every pixel, in an outline of Matplotlib's or not."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from zeroflaw.pipeline.view.blanking import Blanking
from zeroflaw.pipeline.view.zones import filled, zone_layout, zones_of_labels
from zeroflaw_engines.bundle.products.settings import Zone
from zeroflaw_engines.errors import SettingsError

FRAME = (60, 90)


def zone(name, *polygon, **more):
    return Zone(name=name, polygon=polygon, **more)


def box(name, x0, y0, x1, y1, **more):
    return zone(name, (x0, y0), (x1, y0), (x1, y1), (x0, y1), **more)


def star(rng, corners):
    """A polygon around the middle whose sides do not cross."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(5, 60, corners)
    return np.stack([45 + radius * np.cos(angles), 30 + radius * np.sin(angles)], axis=1)


@pytest.mark.parametrize("corners", [3, 4, 7, 30])
def test_a_polygon_holds_the_pixels_whose_centres_lie_in_it(rng, corners):
    y, x = np.mgrid[: FRAME[0], : FRAME[1]] + 0.5
    for _ in range(20):
        points = star(rng, corners)
        wanted = Outline(points).contains_points(np.stack([x.ravel(), y.ravel()], axis=1))
        assert (filled(points, (0, 0), FRAME) == wanted.reshape(FRAME)).all()
        part = filled(points, (13, 21), (25, 40))
        assert (part == wanted.reshape(FRAME)[21:46, 13:53]).all()


def test_a_rectangle_reaches_from_its_first_corner_to_just_before_its_last(rng):
    for _ in range(50):
        x0, y0 = rng.integers(0, 80), rng.integers(0, 50)
        x1, y1 = rng.integers(x0 + 1, 91), rng.integers(y0 + 1, 61)
        wanted = np.zeros(FRAME, bool)
        wanted[y0:y1, x0:x1] = True
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)
        assert (filled(points, (0, 0), FRAME) == wanted).all()
        assert (filled(points[::-1], (0, 0), FRAME) == wanted).all()


def test_neighbours_share_no_pixel_and_leave_none_out(rng):
    for _ in range(50):
        # Also through centres of pixels.
        middle = rng.integers(0, 2 * np.array(FRAME[::-1]), 2) / 2
        around = np.array([(0, 0), (90, 0), (90, 60), (0, 60)], float)
        parts = [
            filled(np.array([around[i], around[(i + 1) % 4], middle]), (0, 0), FRAME)
            for i in range(4)
        ]
        assert (np.sum(parts, axis=0) == 1).all()


def test_what_is_excluded_is_not_judged_though_it_is_included():
    layout = zone_layout(
        [
            box("part", 10, 10, 50, 40),
            box("label", 20, 20, 30, 60, kind="exclude"),
            box("rim", 0.5, 0.25, 1, 0.75, units="relative"),
        ],
        FRAME,
    )
    wanted = np.zeros(FRAME, bool)
    wanted[10:40, 10:50] = wanted[15:45, 45:90] = True
    wanted[20:60, 20:30] = False
    assert (layout.judged == wanted).all()
    assert layout.judged_pixels == wanted.sum()


def test_without_a_zone_to_include_all_else_is_judged():
    layout = zone_layout([box("label", 20, 20, 30, 60, kind="exclude")], FRAME)
    assert layout.judged_pixels == 60 * 90 - 10 * 40
    assert zone_layout([], FRAME) is None


@pytest.mark.parametrize(
    ("zones", "named"),
    [
        ([box("all", 0, 0, 90, 60, kind="exclude")], ["the frame", "'all'"]),
        ([box("a", 5, 5, 9, 9), box("b", 0, 0, 20, 20, kind="exclude")], ["zone 'a'", "'b'"]),
        # One of two.
        (
            [box("a", 5, 5, 9, 9), box("c", 30, 30, 40, 40), box("b", 0, 0, 9, 9, kind="exclude")],
            ["zone 'a'", "'b'"],
        ),
        # Between the centres.
        ([box("thin", 5.6, 0, 6.4, 60)], ["zone 'thin'", "centre"]),
    ],
)
def test_nothing_left_to_judge_is_an_error_that_names_the_zones(zones, named):
    with pytest.raises(SettingsError) as error:
        zone_layout(zones, FRAME)
    for text in named:
        assert text in str(error.value)


@pytest.mark.parametrize("shape", [(7, 7), (60, 90), (37, 37), (128, 128), (1, 1), (59, 91)])
def test_a_map_pixel_counts_if_it_overlaps_a_judged_pixel_of_the_frame(rng, shape):
    layout = zone_layout([zone("star", *map(tuple, star(rng, 9).clip(0, (90, 60))))], FRAME)
    got = layout.at_map(shape)
    assert layout.at_map(shape) is got
    for row in range(shape[0]):
        for column in range(shape[1]):
            y0, y1 = row * 60 // shape[0], -(-(row + 1) * 60 // shape[0])
            x0, x1 = column * 90 // shape[1], -(-(column + 1) * 90 // shape[1])
            assert got[row, column] == layout.judged[y0:y1, x0:x1].any()


def test_zones_move_as_the_pixels_of_the_frame_do():
    layout = zone_layout([box("a", 0.1, 0.1, 0.5, 0.5, units="relative", severity="minor")], FRAME)
    (still,) = layout.in_pixels
    assert (still.units, still.severity) == ("px", "minor")
    assert np.array(still.polygon) == pytest.approx(
        np.array([(9, 6), (45, 6), (45, 30), (9, 30)], float)
    )
    # A quarter turn about the centre of the first pixel, and a shift.
    (turned,) = layout.moved(np.array([[0.0, -1, 70], [1, 0, 4]]))
    was = filled(np.array(still.polygon), (0, 0), FRAME)
    now = filled(np.array(turned.polygon), (0, 0), FRAME)
    y, x = np.nonzero(was)
    assert now.sum() == was.sum()
    assert now[x + 4, 70 - y].all()


def test_components_are_named_after_every_zone_that_they_touch():
    labels = np.zeros((30, 40), np.int32)
    labels[0:3, 0:3] = 1  # in a alone
    labels[10, 5:30] = 2  # from a into b
    labels[20:22, 35:38] = 3  # beside both, nearer to b
    labels[0, 39] = 4  # in b alone
    at = np.array([np.argwhere(labels == n).mean(axis=0)[::-1] for n in range(1, 5)])
    zones = [
        box("a", 10, 20, 30, 50, severity="critical"),
        box("x", 0, 0, 90, 60, kind="exclude"),
        box("b", 30, 20, 50, 35, severity="minor"),
    ]
    got = zones_of_labels(labels, (10, 20), at, zones)
    assert got == [
        (("a",), "critical"),
        (("a", "b"), "critical"),
        (("b",), "minor"),
        (("b",), "minor"),
    ]
    assert zones_of_labels(labels, (10, 20), at, zones[1:2]) == [((), None)] * 4


@pytest.mark.parametrize(
    ("zones", "mirrors"),
    [
        ([{"kind": "exclude", "polygon": ((20, 10), (40, 10), (40, 30), (20, 30))}], True),
        ([{"polygon": ((20, 10), (40, 10), (40, 30), (20, 30))}], False),
        # Of a small part that is left, a defect would be copied all around it.
        ([{"kind": "exclude", "polygon": ((0, 0), (60, 0), (60, 30), (0, 30))}], False),
    ],
)
def test_what_is_excluded_shows_the_part_beside_it_if_there_is_more_of_that(zones, mirrors, rng):
    layout = zone_layout([Zone(name="a", **zone) for zone in zones], (40, 60))
    frame = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    seen = layout.blanked(frame)
    if mirrors:
        # Left and right of the middle, the nearest column is the one beside the zone.
        assert (seen[20, 20:25] == frame[20, 18:13:-1]).all()
    else:
        assert (seen == Blanking(layout.judged).blanked(frame)).all()
