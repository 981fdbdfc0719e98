"""Frames in tiles with MMR and with the map alone, on engines that see brightness."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scripted_engines import dim_frame

from zeroflaw.pipeline.refining.refinement import RefinerEngines
from zeroflaw.pipeline.view.blending import blending_of
from zeroflaw.pipeline.view.tiled_decoding import decode_tiles
from zeroflaw_engines.bundle.products.settings import Tiles
from zeroflaw_engines.errors import ParametersError
from zeroflaw_engines.parameters import MethodParameters

# Of tiles of 120 x 120 px: a pixel of the map is two of the frame.
FRAME = (216, 312)
TILES = Tiles(rows=2, columns=3)
MMR = MethodParameters(refiner="mmr", mmr_threshold=0.35)
NONE = MethodParameters(refiner="none", extreme_threshold=0.35)
IOU = 0.9  # of every mask that the scripted decoder gives


def spotted(*spots: tuple[int, int, int]) -> np.ndarray:
    frame = dim_frame(*FRAME)
    for x, y, radius in spots:
        cv2.circle(frame, (x, y), radius, (240,) * 3, -1)
    return frame


@pytest.mark.parametrize("normalisation", ["fixed", "per_image"])
def test_what_two_tiles_see_counts_once_in_the_scores_of_mmr(part, normalisation) -> None:
    one = part(FRAME, TILES, parameters=MMR.replace(mmr_normalisation=normalisation))
    # The first spot lies in one tile, the second in four.
    spots = ((270, 45, 9), (108, 108, 9))
    found = one.inspect(spotted(*spots))
    assert found.status == "ok"
    assert len(one.sam.images) == sum(
        bool((found.anomaly_map[tile.rows, tile.columns] > 0.35).any())
        for tile in blending_of(one.grid).tiles
    )
    assert len(one.sam.images) == 5
    assert len(one.decoder.images) == len(one.sam.images)  # one call a tile
    total = found.anomaly_map.astype(np.float64)
    ys, xs = np.mgrid[: found.anomaly_map.shape[0], : found.anomaly_map.shape[1]]
    inside, outside = np.zeros(total.shape, bool), np.ones(total.shape, bool)
    for x, y, radius in spots:
        distance = np.hypot(2 * xs + 0.5 - x, 2 * ys + 0.5 - y)
        inside |= distance < radius - 4
        outside &= distance > radius + 6
    total[inside] += 3 * IOU
    want = np.minimum(total / 4, 1)
    if normalisation == "per_image":
        low, high = found.anomaly_map.min(), total[inside].max()
        want = (total - low) / (high - low)
    sure = inside | outside
    assert inside.any()
    np.testing.assert_allclose(found.score_map[sure], want[sure], atol=2e-3)
    for x, y, _ in spots:
        assert found.mask[y, x]
    assert not found.mask[:, 140:240].any()
    assert all(len(stage.boxes) >= 1 for stage in found.trace.stages)
    assert found.trace.kept_stage == 1
    # Points and boxes are in pixels of the frame.
    places = np.array([(x, y) for x, y, _ in spots])
    for coords in found.trace.points.coords:
        assert np.hypot(*(places - coords).T).min() < 14


def test_only_tiles_with_foreground_are_shown_to_sam(part) -> None:
    one = part(FRAME, TILES, parameters=MMR)
    found = one.inspect(spotted())
    assert (found.status, one.sam.images, one.decoder.images) == ("no_region", [], [])
    np.testing.assert_allclose(found.score_map, found.anomaly_map / 4)
    always = part(FRAME, TILES, parameters=MMR.replace(no_region="always_run"))
    always.inspect(spotted())
    assert always.sam.images == [1]


def test_the_map_alone_is_that_of_the_frame_and_sam_never_runs(part) -> None:
    one = part(FRAME, TILES, parameters=NONE)
    found = one.inspect(spotted((108, 108, 9), (270, 45, 9)))
    assert (one.sam.images, one.decoder.images) == ([], [])
    assert one.clip.images == [1] * 6
    np.testing.assert_array_equal(found.score_map, found.anomaly_map)
    grown = cv2.resize(found.anomaly_map, FRAME[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(found.mask, grown > 0.35)
    assert found.mask[108, 108]
    assert found.mask[45, 270]


def test_the_map_alone_is_not_looked_for_in_tiles(part) -> None:
    one = part(FRAME, TILES, parameters=NONE)
    encoded = one.encode(spotted((45, 45, 9)))
    with pytest.raises(ParametersError, match="none takes no tiles"):
        decode_tiles(
            encoded.encoding,
            encoded.view,
            one.grid,
            NONE,
            sam_encoder=one.sam,
            engines=RefinerEngines(one.decoder, one.sizes),
        )


@pytest.mark.parametrize("parameters", [MMR, NONE])
def test_what_is_not_judged_has_no_mask_and_no_points(part, parameters) -> None:
    judged = np.zeros(FRAME, np.bool_)
    judged[15:200, 20:180] = True
    one = part(FRAME, TILES, parameters=parameters, judged=judged)
    found = one.inspect(spotted((108, 108, 9), (270, 45, 20)))
    assert found.mask[108, 108]
    assert not found.mask[~judged].any()
    assert not found.score_map[:, 95:].any()
    if parameters is MMR:
        assert (found.trace.points.coords[:, 0] < 180).all()
