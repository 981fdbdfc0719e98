"""PPG against a slow oracle written from sections 3.1 and 4 of the method's description."""

import numpy as np
import pytest

from support.prompt_point_oracle import (
    FRAMES,
    SPACING_PIXELS,
    SPACINGS,
    assert_as_oracle,
    grid_points,
    random_features,
    small_geometry,
    smooth_map,
)
from zeroflaw.pipeline.geometry import frame_geometry
from zeroflaw.pipeline.refining.prompt_points import point_prompts
from zeroflaw_engines.parameters import MethodParameters


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("point_spacing", SPACINGS)
@pytest.mark.parametrize("similarity", ["prototype", "max_pair"])
@pytest.mark.parametrize("dilation_kernel", ["ellipse", "rectangle", "cross"])
@pytest.mark.parametrize("prompt_grid", ["map", "sam"])
def test_points_are_those_of_the_oracle(
    frame, point_spacing, similarity, dilation_kernel, prompt_grid
):
    parameters = MethodParameters(
        extreme_threshold=0.8,
        positive_points=6,
        negative_points=5,
        point_spacing=point_spacing,
        spacing_pixels=SPACING_PIXELS[point_spacing],
        similarity=similarity,
        dilation_kernel=dilation_kernel,
        prompt_grid=prompt_grid,
    )
    for seed in (1, 2):
        assert_as_oracle(smooth_map(seed), random_features(seed), small_geometry(frame), parameters)


@pytest.mark.parametrize("count", range(1, 11))
@pytest.mark.parametrize("point_spacing", SPACINGS)
def test_every_count(count, point_spacing):
    parameters = MethodParameters(
        extreme_threshold=0.6,
        positive_points=count,
        negative_points=count,
        point_spacing=point_spacing,
        spacing_pixels=SPACING_PIXELS[point_spacing],
    )
    want = assert_as_oracle(smooth_map(3), random_features(3), small_geometry((40, 56)), parameters)
    assert len(want.positives) == len(want.negatives) == count


@pytest.mark.parametrize("negative_points", [0, 4])
def test_signs_have_counts_of_their_own(negative_points):
    parameters = MethodParameters(
        extreme_threshold=0.6,
        positive_points=2,
        negative_points=negative_points,
        spacing_pixels=30,
    )
    got = point_prompts(smooth_map(3), random_features(3), small_geometry((40, 56)), parameters)
    assert got.labels.tolist() == [1, 1] + [0] * negative_points


@pytest.mark.parametrize(("kernel", "size"), [("rectangle", 7), ("cross", 31), ("rectangle", 1)])
def test_dilation_of_other_sizes(kernel, size):
    parameters = MethodParameters(
        extreme_threshold=0.8, dilation_kernel=kernel, dilation_size=size, spacing_pixels=9
    )
    for seed in range(3):
        assert_as_oracle(
            smooth_map(seed), random_features(seed), small_geometry((50, 70)), parameters
        )


@pytest.mark.parametrize("similarity", ["prototype", "max_pair"])
@pytest.mark.parametrize("frame", [(480, 640), (700, 250), (1536, 1536)])
def test_sizes_of_the_paper(frame, similarity):
    geometry = frame_geometry(frame, map_size=518, sam_size=1024, feature_size=64, squash_sam=False)
    parameters = MethodParameters(extreme_threshold=0.85, similarity=similarity)
    anomaly_map, features = smooth_map(11, size=518, sigma=25), random_features(11, cells=64)
    want = assert_as_oracle(anomaly_map, features, geometry, parameters)
    assert len(want.positives) == len(want.negatives) == 3


@pytest.mark.parametrize("prompt_grid", ["map", "sam"])
@pytest.mark.parametrize("frame", [(30, 90), (3, 500)])
def test_squashed_sam_input(frame, prompt_grid):
    parameters = MethodParameters(
        extreme_threshold=0.8, prompt_grid=prompt_grid, spacing_pixels=30, sam_input="squashed"
    )
    for seed in (4, 5):
        want = assert_as_oracle(
            smooth_map(seed),
            random_features(seed),
            small_geometry(frame, squash_sam=True),
            parameters,
        )
        assert want.grid == ((64, 64) if prompt_grid == "map" else (128, 128))


CORNERS = [(0, 0), (0, 58), (58, 0), (58, 58), (0, 30), (30, 58)]


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("similarity", ["prototype", "max_pair"])
def test_regions_at_the_border(corner, similarity):
    y, x = corner
    anomaly_map = 0.4 * smooth_map(6)
    anomaly_map[y : y + 6, x : x + 6] += 0.55
    parameters = MethodParameters(spacing_pixels=20, similarity=similarity)
    want = assert_as_oracle(anomaly_map, random_features(6), small_geometry((64, 80)), parameters)
    assert want.region.sum() == 36
    assert want.negatives


def test_region_that_fills_the_map_has_no_negatives():
    anomaly_map = 0.6 + 0.4 * smooth_map(7)
    got = point_prompts(
        anomaly_map, random_features(7), small_geometry((40, 60)), MethodParameters()
    )
    assert got.extreme_region.all()
    assert got.labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("pixel", [(20, 41), (0, 0), (63, 63), (0, 17)])
@pytest.mark.parametrize("point_spacing", SPACINGS)
def test_single_pixel(pixel, point_spacing):
    anomaly_map = np.full((64, 64), 0.1, np.float32)
    anomaly_map[pixel] = 0.9
    parameters = MethodParameters(point_spacing=point_spacing, spacing_pixels=5)
    want = assert_as_oracle(anomaly_map, random_features(8), small_geometry((64, 48)), parameters)
    assert want.positives == [pixel[::-1]]


def test_pixel_at_the_threshold_is_not_extreme():
    anomaly_map = np.full((64, 64), 0.5, np.float32)
    geometry = small_geometry((20, 20))
    assert point_prompts(anomaly_map, random_features(1), geometry, MethodParameters()) is None
    anomaly_map[5, 9] = np.nextafter(np.float32(0.5), np.float32(1))
    got = point_prompts(anomaly_map, random_features(1), geometry, MethodParameters())
    assert np.argwhere(got.extreme_region).tolist() == [[5, 9]]


@pytest.mark.parametrize("prompt_grid", ["map", "sam"])
@pytest.mark.parametrize("frame", [(48, 48), (30, 90), (1, 1), (3, 500)])
def test_no_region(frame, prompt_grid):
    anomaly_map, features = 0.3 * smooth_map(9), random_features(9)
    geometry = small_geometry(frame)
    skip = MethodParameters(prompt_grid=prompt_grid, no_region="skip")
    assert point_prompts(anomaly_map, features, geometry, skip) is None
    seeded = MethodParameters(prompt_grid=prompt_grid, no_region="always_run")
    want = assert_as_oracle(anomaly_map, features, geometry, seeded)
    assert want.seeded
    assert len(want.positives) == 1


def test_no_region_does_not_alter_a_map_that_has_one():
    anomaly_map, features, geometry = smooth_map(2), random_features(2), small_geometry((48, 48))
    for no_region in ("skip", "always_run"):
        want = assert_as_oracle(
            anomaly_map, features, geometry, MethodParameters(no_region=no_region, spacing_pixels=9)
        )
        assert not want.seeded


def test_ties_are_taken_in_row_major_order():
    anomaly_map = np.full((64, 64), 0.1, np.float32)
    anomaly_map[20:40, 10:50] = 0.75
    # All features alike: every similarity is equal too.
    features = np.ones((4, 8, 8), np.float32)
    features[0] = 3
    parameters = MethodParameters(spacing_pixels=49, dilation_kernel="rectangle", dilation_size=5)
    got = point_prompts(anomaly_map, features, small_geometry((64, 64)), parameters)
    assert grid_points(got, small_geometry((64, 64)), (64, 64))[:3] == [
        (10, 20),
        (17, 20),
        (24, 20),
    ]
    assert got.coords[got.labels == 1].tolist() == [[10, 20], [17, 20], [24, 20]]


@pytest.mark.parametrize("similarity", ["prototype", "max_pair"])
def test_zero_features_give_finite_points(similarity):
    features = np.zeros((4, 8, 8), np.float32)
    parameters = MethodParameters(spacing_pixels=9, similarity=similarity, extreme_threshold=0.8)
    with np.errstate(all="raise"):
        got = point_prompts(smooth_map(2), features, small_geometry((48, 48)), parameters)
    assert got.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert np.isfinite(got.coords).all()


def test_padding_of_sam_is_not_looked_at():
    geometry = small_geometry((30, 90))
    parameters = MethodParameters(extreme_threshold=0.8, spacing_pixels=20)
    features = random_features(3)
    want = point_prompts(smooth_map(3), features, geometry, parameters)
    # 30 x 90 becomes 43 x 128: rows 3 to 7 of the feature grid hold padding only.
    features[:, 3:] = np.nan
    got = point_prompts(smooth_map(3), features, geometry, parameters)
    np.testing.assert_array_equal(got.coords, want.coords)


def test_inputs_stay_as_they_are():
    anomaly_map, features = 0.3 * smooth_map(9), random_features(9)
    before = anomaly_map.copy(), features.copy()
    point_prompts(
        anomaly_map, features, small_geometry((9, 9)), MethodParameters(no_region="always_run")
    )
    np.testing.assert_array_equal(anomaly_map, before[0])
    np.testing.assert_array_equal(features, before[1])


def test_max_pair_leaves_out_a_cell_that_the_region_only_touches():
    # Content 666 px high: the lower edge of map row 335 is exactly at 432 px = 27 cells.
    geometry = frame_geometry(
        (666, 1024), map_size=518, sam_size=1024, feature_size=64, squash_sam=False
    )
    assert geometry.sam_content == (666, 1024)
    anomaly_map = np.zeros((518, 518), np.float32)
    anomaly_map[330:336, 250:260] = 0.9
    features = np.zeros((2, 64, 64), np.float32)
    features[0] = 1
    # Row 27 of the cells, just below S_a, is the only one unlike it: all negatives lie there.
    features[:, 27] = np.array([0, 1], np.float32)[:, None]
    assert_as_oracle(anomaly_map, features, geometry, MethodParameters(similarity="max_pair"))
