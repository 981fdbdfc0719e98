"""Both halves of an inspection in tiles, on engines that see brightness."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scripted_engines import PARAMETERS, TiledPart, dim_frame

from zeroflaw.pipeline.geometry import squash
from zeroflaw.pipeline.refining import decoding
from zeroflaw.pipeline.refining.decoding import Decoding
from zeroflaw.pipeline.refining.refinement import RefinerEngines
from zeroflaw.pipeline.view import tiled_decoding
from zeroflaw.pipeline.view.blending import blending_of
from zeroflaw_engines.bundle.products.settings import Tiles
from zeroflaw_engines.errors import EngineError

# Of tiles of 120 x 120 px: a pixel of the map is two of the frame.
FRAME = (216, 312)
TILES = Tiles(rows=2, columns=3)


def with_spots(*spots: tuple[int, int, int], frame=FRAME, seed=0, value=240) -> np.ndarray:
    picture = dim_frame(*frame, seed)
    for x, y, radius in spots:
        cv2.circle(picture, (x, y), radius, (value,) * 3, -1)
    return picture


def test_every_engine_is_called_as_often_as_there_are_tiles_for_it(part) -> None:
    spots = with_spots((250, 200, 12), frame=(900, 900))
    for rows in (1, 2, 3, 5):
        one = part((900, 900), Tiles(rows=rows, columns=rows + 1, overlap=0.1))
        found = one.inspect(spots)
        holding = sum(
            (found.anomaly_map[tile_rows, tile_columns] > PARAMETERS.extreme_threshold).any()
            for tile_rows, tile_columns in parts_of(one)
        )
        assert one.clip.images == [1] * (rows * (rows + 1))
        assert 1 <= holding <= 4
        assert one.sam.images == [1] * holding
        assert len(one.decoder.images) == 3 * holding
        assert one.encode(spots).encoding.tiles.run == rows * (rows + 1)


def parts_of(part: TiledPart):
    return [(tile.rows, tile.columns) for tile in blending_of(part.grid).tiles]


def test_a_good_frame_calls_no_sam(part) -> None:
    one = part(FRAME, TILES)
    found = one.inspect(dim_frame(*FRAME))
    assert (one.sam.images, one.decoder.images) == ([], [])
    assert (found.status, found.regions, found.trace.points) == ("no_region", (), None)
    assert found.trace.kept_stage == 0
    np.testing.assert_array_equal(found.score_map, np.float32(0.5) * found.anomaly_map)


def test_without_an_extreme_pixel_sam_may_be_run_on_the_tile_of_the_peak(part) -> None:
    frame = with_spots((260, 170, 5), value=80)  # in the last tile, and far from extreme
    one = part(FRAME, TILES, parameters=PARAMETERS.replace(no_region="always_run"))
    found = one.inspect(frame)
    assert one.sam.images == [1]
    x, y = found.trace.points.coords[0]
    assert np.hypot(x - 260, y - 170) < 6
    assert not found.trace.points.from_region
    assert found.trace.points.extreme_region.sum() == 1
    # SAM sees nothing bright: the extreme pixel itself is kept, and the worst status told.
    assert found.status == "stage_1_empty"
    assert found.mask[170 - 5 : 170 + 6, 260 - 5 : 260 + 6].any()


@pytest.mark.parametrize("max_batch", [2, 4])
def test_batches_give_what_tiles_give_one_by_one(part, max_batch) -> None:
    frame = with_spots((60, 60, 7), (105, 105, 14), (205, 100, 6), (290, 200, 9))
    alone, together = part(FRAME, TILES), part(FRAME, TILES, max_batch=max_batch)
    one, several = alone.inspect(frame), together.inspect(frame)
    assert together.clip.images == [max_batch] * (6 // max_batch) + [2] * (6 % max_batch > 0)
    assert max(together.sam.images) > 1
    assert together.sam.seen == alone.sam.seen
    np.testing.assert_array_equal(one.mask, several.mask)
    np.testing.assert_array_equal(one.score_map, several.score_map)
    assert one.image_score == several.image_score
    assert [r.polygon for r in one.regions] == [r.polygon for r in several.regions]
    assert len(one.trace.stages) == len(several.trace.stages)


def test_the_score_is_that_of_the_worst_tile(part) -> None:
    frame = with_spots((60, 60, 4))
    one = part(FRAME, TILES)
    encoded = one.encode(frame).encoding
    tiles = [squash(np.ascontiguousarray(frame[window]), 64) for window in one.grid.windows]
    want = max(
        cv2.GaussianBlur(tile.astype(np.float32).mean(axis=-1) / 255, (0, 0), 0.7).max()
        for tile in tiles
    )
    assert encoded.cls_score == pytest.approx(want, abs=1e-6)
    assert encoded.anomaly_map.max() == pytest.approx(want, abs=0.05)
    assert encoded.zero_shot_map is encoded.anomaly_map
    assert (encoded.features, encoded.reference_map) == (None, None)


def test_points_and_boxes_lie_in_pixels_of_the_frame(part) -> None:
    spots = [(55, 165, 9), (270, 40, 8)]
    found = part(FRAME, TILES).inspect(with_spots(*spots))
    points = found.trace.points
    positive = points.coords[points.labels == 1]
    assert (np.diff(points.labels) <= 0).all()  # positives first
    for x, y, radius in spots:
        assert np.hypot(*(positive - (x, y)).T).min() < radius
        assert any(
            np.abs(np.array(box) - (x - radius, y - radius, x + radius, y + radius)).max() <= 1
            for stage in found.trace.stages
            for box in stage.boxes
        )
    assert all(np.hypot(*(positive - (x, y)).T).min() < 20 for x, y, _ in spots)
    assert found.trace.kept_stage == 3
    np.testing.assert_array_equal(
        points.extreme_region, found.anomaly_map > PARAMETERS.extreme_threshold
    )


@pytest.mark.parametrize("scoring", ["fused", "mask", "sam_probability", "map"])
def test_score_maps_are_those_of_the_mask_at_the_centres_of_the_maps_pixels(part, scoring) -> None:
    frame = with_spots((110, 105, 18), (260, 40, 11))
    one = part(FRAME, TILES, parameters=PARAMETERS.replace(scoring=scoring))
    found = one.inspect(frame)
    height, width = found.score_map.shape
    # The centre of a pixel of this map lies on a corner of the frame's: between four pixels.
    assert (2 * height, 2 * width) == FRAME
    corners = found.mask.reshape(height, 2, width, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
    inside = corners.all(axis=1).reshape(height, width)
    outside = ~corners.any(axis=1).reshape(height, width)
    assert inside.sum() > 250
    score, values = found.score_map, found.anomaly_map
    if scoring == "map":
        np.testing.assert_array_equal(score, values)
    elif scoring == "mask":
        assert (score[inside] == 1).all()
        assert (score[outside] == 0).all()
    elif scoring == "fused":
        np.testing.assert_allclose(score[inside], 0.5 * values[inside] + 0.5 * 0.9, atol=1e-6)
        np.testing.assert_allclose(score[outside], 0.5 * values[outside], atol=1e-6)
    else:
        assert (score[inside] > 0.5).all()
        assert (score[outside] < 0.5).all()
        assert score.max() > 0.98
    assert [region.peak_score for region in found.regions] == pytest.approx(
        [
            score[region.y // 2 : (region.y + region.height) // 2 + 1,
                  region.x // 2 : (region.x + region.width) // 2 + 1].max()
            for region in found.regions
        ]
    )  # fmt: skip


def test_a_tile_without_judged_area_is_never_run(part) -> None:
    judged = np.zeros(FRAME, np.bool_)
    judged[15:80, 20:80] = True  # within the first tile
    frame = with_spots((45, 45, 9), (150, 150, 20), (260, 170, 20))
    one = part(FRAME, TILES, judged=judged)
    encoded = one.encode(frame)
    assert one.clip.images == [1]
    assert encoded.encoding.tiles.run == 1
    at_map = judged.reshape(108, 2, 156, 2).any(axis=(1, 3))
    assert not encoded.encoding.anomaly_map[~at_map].any()
    assert (encoded.encoding.anomaly_map[at_map] > 0).all()
    tiled = tiled_decoding.decode_tiles(
        encoded.encoding,
        encoded.view,
        one.grid,
        PARAMETERS,
        sam_encoder=one.sam,
        engines=RefinerEngines(one.decoder, one.sizes),
    )
    assert one.sam.images == [1]
    for x, y in tiled.points.coords[tiled.points.labels == 1]:
        assert judged[int(y), int(x)]
    assert tiled.found.mask[45, 45]
    assert not tiled.found.mask[:, 120:].any()


def test_nothing_of_a_tile_is_extreme_outside_of_what_is_judged(part, monkeypatch) -> None:
    judged = np.zeros(FRAME, np.bool_)
    judged[15:80, 20:60] = True  # its right side cuts the spot
    one = part(FRAME, TILES, judged=judged)
    seen = []
    monkeypatch.setattr(
        decoding, "decode", lambda tile, *_, **__: seen.append(tile) or Decoding(None, None)
    )
    encoded = one.encode(with_spots((60, 45, 9)))
    encoded.encoding.anomaly_map[:, :30] = 0.9  # as if the defect reached the side
    encoded.encoding.anomaly_map[:, 30:] = 0
    tiled_decoding.decode_tiles(
        encoded.encoding,
        encoded.view,
        one.grid,
        PARAMETERS,
        sam_encoder=one.sam,
        engines=RefinerEngines(one.decoder, one.sizes),
    )
    at_map = (np.arange(64) + 0.5) * 120 / 64  # of the first tile, which begins at 0
    assert seen[0].anomaly_map[:, at_map < 60].min() > 0.4
    assert not seen[0].anomaly_map[:, at_map > 60].any()


def test_a_tile_takes_nothing_away_of_what_another_has_found(part) -> None:
    frame = dim_frame(*FRAME)
    # The first lies in two tiles; of the second of them, the one point goes to the other spot.
    cv2.circle(frame, (108, 45), 7, (200,) * 3, -1)
    cv2.circle(frame, (160, 45), 12, (255,) * 3, -1)
    found = part(FRAME, TILES, parameters=PARAMETERS.replace(positive_points=1)).inspect(frame)
    assert found.mask[45, 108]
    assert found.mask[45, 160]
    assert found.score_map[22, 54] > 0.5 * found.anomaly_map[22, 54] + 0.4


@pytest.mark.parametrize("places", [((45, 45), (270, 170)), ((270, 170), (45, 45))])
def test_the_status_is_that_of_the_worst_tile(part, places) -> None:
    frame = dim_frame(*FRAME)
    (x, y), faint = places
    cv2.circle(frame, (x, y), 9, (240,) * 3, -1)
    cv2.circle(frame, faint, 9, (110,) * 3, -1)  # extreme, and nothing that SAM cuts out
    found = part(FRAME, TILES).inspect(frame)
    assert found.status == "stage_1_empty"
    assert found.trace.kept_stage == 3
    assert found.mask[y, x]
    assert found.mask[faint[1], faint[0]]


def test_judged_area_in_an_overlap_is_seen_by_both_tiles(part) -> None:
    one = part(FRAME, Tiles(rows=1, columns=3), judged=np.ones(FRAME, np.bool_))
    first, second = one.grid.windows[0][1], one.grid.windows[1][1]
    middle = (first.stop + second.start) // 2
    judged = np.zeros(FRAME, np.bool_)
    judged[50:90, middle - 3 : middle + 3] = True
    narrow = part(FRAME, Tiles(rows=1, columns=3), judged=judged)
    frame = dim_frame(*FRAME)
    assert narrow.encode(frame).encoding.tiles.run == 2
    whole = one.encode(frame).encoding.anomaly_map
    got = narrow.encode(
        np.where(judged[..., None], frame, 40).astype(np.uint8)
    ).encoding.anomaly_map
    seen = got > 0
    # As if all of the frame were judged: no share of a tile is missing there.
    assert seen.sum() >= 10 * 3
    np.testing.assert_allclose(got[seen], whole[seen], atol=0.05)


class TestCoarseToFine:
    TILES = Tiles(rows=3, columns=3, coarse_to_fine=True, coarse_limit=0.3)

    def test_a_good_frame_is_seen_as_a_whole_alone(self, part) -> None:
        one = part(FRAME, self.TILES)
        frame = dim_frame(*FRAME)
        encoded = one.encode(frame).encoding
        assert one.clip.images == [1]
        assert (encoded.tiles.rows, encoded.tiles.columns, encoded.tiles.run) == (3, 3, 0)
        coarse = cv2.GaussianBlur(
            squash(frame, 64).astype(np.float32).mean(axis=-1) / 255, (0, 0), 0.7
        )
        assert encoded.cls_score == pytest.approx(coarse.max(), abs=1e-6)
        height, width = encoded.anomaly_map.shape
        want = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(encoded.anomaly_map, want, atol=1e-3)

    def test_tiles_with_something_in_them_or_a_patch_beside_are_seen(self, part) -> None:
        one = part(FRAME, self.TILES)
        frame = with_spots((25, 25, 15))  # of the first tile alone, and far inside
        encoded = one.encode(frame).encoding
        assert encoded.tiles.run == 1
        fine = part(FRAME, Tiles(rows=3, columns=3)).encode(frame).encoding
        whole = part(FRAME, None).encode(frame).encoding
        assert encoded.cls_score == max(whole.cls_score, fine.cls_score)
        np.testing.assert_allclose(
            encoded.anomaly_map[:30, :45], fine.anomaly_map[:30, :45], atol=1e-6
        )

    @pytest.mark.parametrize(("x", "y"), [(150, 300), (450, 300), (300, 150), (300, 450)])
    def test_a_patch_beside_a_tile_counts_as_in_it(self, part, x, y) -> None:
        # It ends 25 px short of the middle tile; a patch has 37.5 px.
        frame = with_spots((x, y, 10), frame=(600, 600))
        one = part((600, 600), self.TILES)
        assert one.grid.windows[4] == (slice(185, 416), slice(185, 416))
        assert one.encode(frame).encoding.tiles.run == 2

    def test_the_limit_itself_is_clearly_good(self, part) -> None:
        frame = with_spots((25, 25, 15))
        coarse = squash(frame, 64).astype(np.float32).mean(axis=-1) / 255
        peak = float(cv2.GaussianBlur(coarse, (0, 0), 0.7).clip(0, 1).max())
        for limit, run in ((peak, 0), (np.nextafter(np.float32(peak), np.float32(0)).item(), 1)):
            tiles = Tiles(rows=3, columns=3, coarse_to_fine=True, coarse_limit=limit)
            assert part(FRAME, tiles).encode(frame).encoding.tiles.run == run

    def test_its_score_is_never_below_that_of_the_whole_frame(self, part) -> None:
        frame = with_spots((150, 100, 50))
        coarse = part(FRAME, self.TILES).encode(frame).encoding
        assert coarse.cls_score >= part(FRAME, None).encode(frame).encoding.cls_score

    def test_reference_maps_are_nothing_where_tiles_are_left_out(self, part) -> None:
        one = part(FRAME, self.TILES, distances=[0.25] * 9)
        encoded = one.encode(with_spots((25, 25, 15))).encoding
        assert encoded.reference_map[10, 10] == pytest.approx(0.25, abs=1e-4)
        assert not encoded.reference_map[80:, 120:].any()
        np.testing.assert_array_equal(
            encoded.anomaly_map[80:, 120:], encoded.zero_shot_map[80:, 120:]
        )


def test_every_tile_is_matched_with_its_own_bank(part) -> None:
    distances = [0.05, 0.15, 0.25, 0.35, 0.45, 0.55]
    one = part(FRAME, Tiles(rows=2, columns=3, overlap=0.1), distances=distances)
    encoded = one.encode(dim_frame(*FRAME)).encoding
    got = [encoded.reference_map[y, x] for y in (20, 85) for x in (20, 78, 135)]
    assert got == pytest.approx(distances, abs=1e-3)
    fused = np.minimum(encoded.zero_shot_map + encoded.reference_map, 1)
    np.testing.assert_allclose(encoded.anomaly_map, fused, atol=1e-5)


def test_a_single_extreme_pixel_between_the_pixels_of_a_tile_is_found(part) -> None:
    one = part(FRAME, TILES)
    frame = with_spots((60, 60, 9))
    encoded = one.encode(frame)
    values = np.full_like(encoded.encoding.anomaly_map, 0.1)
    values[29, 31] = PARAMETERS.extreme_threshold + 1e-4
    np.copyto(encoded.encoding.anomaly_map, values)
    found = one.pipeline.decode(encoded, trace=True)
    assert found.mask[60, 60]
    assert found.status == "ok"


def test_a_tile_that_fails_fails_the_frame(part) -> None:
    one = part(FRAME, TILES)
    one.clip._run = lambda *_: {}
    with pytest.raises(EngineError, match="returned nothing"):
        one.inspect(dim_frame(*FRAME))
