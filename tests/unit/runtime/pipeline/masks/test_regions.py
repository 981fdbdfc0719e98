"""Regions against scikit-image, and by drawing their polygons again."""

import copy
import dataclasses
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label, regionprops

from zeroflaw.pipeline.masks.regions import Region, regions_of
from zeroflaw_engines.bundle.products.settings import SEVERITIES, Zone

NO_SCORE = np.zeros((8, 8), np.float32)


def filled(polygon, shape):
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.array(polygon, np.int32)], 1)
    return canvas.astype(bool)


def outline(polygon, shape):
    canvas = np.zeros(shape, np.uint8)
    cv2.polylines(canvas, [np.array(polygon, np.int32)], isClosed=True, color=1)
    return canvas.astype(bool)


def drawn(region, shape):
    """The region's pixels; a hole's polygon is made of pixels that belong to the region."""
    canvas = filled(region.polygon, shape)
    for hole in region.holes:
        canvas &= ~(filled(hole, shape) & ~outline(hole, shape))
    return canvas


def assert_as_skimage(mask):
    regions = regions_of(mask, NO_SCORE)
    labels = label(mask, connectivity=2)
    parts = {part.label: part for part in regionprops(labels)}
    assert len(regions) == len(parts)
    assert [r.area for r in regions] == sorted((p.area for p in parts.values()), reverse=True)
    union = np.zeros(mask.shape, bool)
    for region in regions:
        x, y = region.polygon[0]
        part = parts.pop(labels[y, x])
        assert region.area == part.area
        top, left, bottom, right = part.bbox
        assert (region.x, region.y) == (left, top)
        assert (region.width, region.height) == (right - left, bottom - top)
        assert region.xyxy == (left, top, right, bottom)
        np.testing.assert_allclose(region.centroid, part.centroid[::-1], rtol=1e-9)
        own = labels == part.label
        # Euler number = 1 - holes.
        assert len(region.holes) == 1 - round(part.euler_number)
        for polygon in (region.polygon, *region.holes):
            assert all(own[v, u] for u, v in polygon)
        np.testing.assert_array_equal(drawn(region, mask.shape), own)
        union |= drawn(region, mask.shape)
    assert not parts
    np.testing.assert_array_equal(union, mask)
    return regions


@given(
    mask=st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
        lambda shape: arrays(np.bool_, shape)
    )
)
@settings(max_examples=300, deadline=None)
def test_any_small_mask(mask):
    assert_as_skimage(mask)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.45, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("shape", [(40, 60), (1, 80), (80, 1), (23, 7)])
def test_noise(density, shape):
    for seed in range(3):
        assert_as_skimage(np.random.default_rng(seed).random(shape) < density)


@pytest.mark.parametrize("seed", range(6))
def test_blobs(seed):
    noise = np.random.default_rng(seed).normal(size=(300, 420))
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    regions = assert_as_skimage(smooth > np.quantile(smooth, 0.45))
    assert len(regions) > 3
    assert any(region.holes for region in regions)


def test_islands_in_holes():
    mask = np.zeros((60, 70), bool)
    for inset in range(0, 28, 4):
        mask[2 + inset : 58 - inset, 3 + inset : 67 - inset] = inset % 8 == 0
    mask[5:8, 40:45] = False
    mask[5:8, 50] = False
    regions = assert_as_skimage(mask)
    assert len(regions) == 4
    assert len(regions[0].holes) == 1


def test_several_holes_in_one_region():
    mask = np.ones((20, 40), bool)
    mask[3:6, 3:6] = mask[10, 10] = mask[4:15, 20:30] = False
    # 4-connected background: diagonal neighbours are two holes.
    mask[12, 34] = mask[13, 35] = False
    (region,) = assert_as_skimage(mask)
    assert len(region.holes) == 5


def test_notch_at_the_border_is_no_hole():
    mask = np.ones((9, 9), bool)
    mask[0:3, 4] = False
    (region,) = assert_as_skimage(mask)
    assert region.holes == ()


def test_corner_contact_joins_regions():
    mask = np.zeros((6, 6), bool)
    mask[1:3, 1:3] = mask[3:5, 3:5] = True
    (region,) = assert_as_skimage(mask)
    assert (region.x, region.y, region.width, region.height) == (1, 1, 4, 4)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (400, 300)])
def test_empty_mask(shape):
    assert regions_of(np.zeros(shape, bool), NO_SCORE) == ()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (37, 53)])
def test_full_mask(shape):
    (region,) = assert_as_skimage(np.ones(shape, bool))
    height, width = shape
    assert (region.x, region.y, region.width, region.height) == (0, 0, width, height)
    assert region.holes == ()
    corners = {(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)}
    assert set(region.polygon) == corners


@pytest.mark.parametrize("pixel", [(0, 0), (0, 9), (7, 0), (7, 9), (3, 4)])
def test_one_pixel(pixel):
    mask = np.zeros((8, 10), bool)
    mask[pixel] = True
    (region,) = assert_as_skimage(mask)
    assert region.polygon == (pixel[::-1],)
    assert (region.width, region.height, region.area) == (1, 1, 1)
    assert region.centroid == pixel[::-1]


def test_values_are_plain_numbers():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    mask[4, 4] = False
    (region,) = regions_of(mask, NO_SCORE)
    for value in (region.x, region.y, region.width, region.height, region.area):
        assert type(value) is int
    assert {type(v) for v in (*region.centroid, region.peak_score)} == {float}
    assert {type(v) for point in region.polygon + region.holes[0] for v in point} == {int}


def test_mask_is_not_altered(rng):
    mask = rng.random((30, 40)) < 0.5
    before = mask.copy()
    regions_of(mask, NO_SCORE)
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("seed", range(3))
def test_views_of_a_mask(seed):
    whole = np.random.default_rng(seed).random((80, 90)) < 0.3
    assert_as_skimage(whole[5:70:2, 80:10:-2])


# --- peak score -------------------------------------------------------------------------------


def peak_of(own, score):
    """Highest score among the map's pixels whose centre lies in the region, if any does."""
    (height, width), (rows, columns) = own.shape, score.shape
    inside = [
        score[i, j]
        for i in range(rows)
        for j in range(columns)
        if own[(2 * i + 1) * height // (2 * rows), (2 * j + 1) * width // (2 * columns)]
    ]
    if inside:
        return max(inside)
    ys, xs = np.nonzero(own)
    i = int((ys.mean() + 0.5) * rows / height)
    j = int((xs.mean() + 0.5) * columns / width)
    return score[i, j]


@pytest.mark.parametrize(
    "frame", [(24, 24), (50, 30), (97, 61), (12, 200), (7, 9), (1, 1), (2, 90)]
)
@pytest.mark.parametrize("size", [24, 25])
def test_peak_score(frame, size):
    for seed, density in enumerate((0.02, 0.3, 0.55)):
        rng = np.random.default_rng(seed)
        mask, score = rng.random(frame) < density, rng.random((size, size), dtype=np.float32)
        mask[frame[0] // 2, frame[1] // 2] = True
        labels = label(mask, connectivity=2)
        for region in regions_of(mask, score):
            x, y = region.polygon[0]
            assert region.peak_score == peak_of(labels == labels[y, x], score)


def test_peak_is_the_regions_own():
    mask = np.zeros((48, 48), bool)
    mask[4:12, 4:20] = mask[30:44, 10:40] = True
    score = np.full((24, 24), 0.9, np.float32)  # high outside of both
    score[2:6, 2:10] = 0.25
    score[15:22, 5:20] = 0.5
    score[16, 6] = 0.625
    assert [r.peak_score for r in regions_of(mask, score)] == [0.625, 0.25]


# --- against a loop over components and contours ----------------------------------------------


def plain_regions(mask, score):
    """OpenCV's own measures of each component, and every polygon at once."""
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return ()
    x0, y0 = int(xs.min()), int(ys.min())
    part = mask[y0 : ys.max() + 1, x0 : xs.max() + 1].astype(np.uint8)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(part)
    contours, hierarchy = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer, holes = {}, dict.fromkeys(range(count), ())
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0], strict=True):
        owner = int(labels[contour[0, 0, 1], contour[0, 0, 0]])
        polygon = tuple((x0 + int(x), y0 + int(y)) for ((x, y),) in contour)
        if parent < 0:
            outer[owner] = polygon
        else:
            holes[owner] += (polygon,)
    found = []
    for i in range(1, count):
        own = np.zeros(mask.shape, bool)
        own[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = labels == i
        x, y, width, height, area = stats[i].tolist()
        centroid = (x0 + float(centroids[i, 0]), y0 + float(centroids[i, 1]))
        box, boundaries = (x0 + x, y0 + y, width, height), (outer[i], holes[i])
        found.append(Region(*box, area, centroid, float(peak_of(own, score)), *boundaries))
    return tuple(sorted(found, key=lambda region: -region.area))


@given(
    mask=st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
        lambda shape: arrays(np.bool_, shape)
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_regions_are_those_of_the_plain_loop(mask, seed):
    score = np.random.default_rng(seed).random((8, 8), np.float32)
    assert regions_of(mask, score) == plain_regions(mask, score)


@pytest.mark.parametrize("density", [0.03, 0.2, 0.5])
def test_specks_are_those_of_the_plain_loop(density):
    rng = np.random.default_rng(5)
    mask, score = rng.random((64, 96)) < density, rng.random((32, 32), np.float32)
    got = regions_of(mask, score)
    assert len(got) > 10
    assert got == plain_regions(mask, score)


# --- boundaries that are traced when asked for ------------------------------------------------


def two_regions():
    mask = np.zeros((30, 40), bool)
    mask[3:20, 5:25] = True
    mask[6:9, 8:12] = False
    mask[25:28, 30:33] = True
    return mask, regions_of(mask, NO_SCORE)


def spelled_out(region):
    return Region(*(getattr(region, field.name) for field in dataclasses.fields(Region)))


@pytest.mark.parametrize(
    "use",
    [
        lambda region: region,
        lambda region: pickle.loads(pickle.dumps(region)),  # noqa: S301
        copy.copy,
        copy.deepcopy,
        dataclasses.replace,
        lambda region: Region(**dataclasses.asdict(region)),
        lambda region: msgspec.convert(msgspec.to_builtins(region), Region),
    ],
)
def test_region_is_the_dataclass_that_it_says(use):
    _, regions = two_regions()
    for region, other in zip(regions, two_regions()[1], strict=True):
        assert use(region) == spelled_out(other)
        assert hash(use(region)) == hash(spelled_out(other))
        assert repr(use(region)) == repr(spelled_out(other))
        with pytest.raises(dataclasses.FrozenInstanceError):
            use(region).polygon = ()


def test_pickle_holds_fields_alone():
    _, (region, _) = two_regions()
    copied = pickle.loads(pickle.dumps(region))  # noqa: S301
    assert vars(copied).keys() == {field.name for field in dataclasses.fields(Region)}


def test_boundaries_are_of_the_mask_as_it_was():
    mask, regions = two_regions()
    want = [spelled_out(region) for region in two_regions()[1]]
    mask[:] = True
    assert list(regions) == want


def test_boundaries_asked_for_by_many_threads():
    rng = np.random.default_rng(0)
    mask = rng.random((200, 200)) < 0.3
    want, regions = plain_regions(mask, NO_SCORE), regions_of(mask, NO_SCORE)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda region: region.polygon, regions)) == [r.polygon for r in want]


def test_unknown_attribute():
    _, (region, _) = two_regions()
    with pytest.raises(AttributeError, match="colour"):
        region.colour  # noqa: B018


def box(name, x0, y0, x1, y1, severity="major", kind="include"):
    polygon = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return Zone(name=name, polygon=polygon, severity=severity, kind=kind)


@settings(max_examples=50, deadline=None)
@given(arrays(np.bool_, (30, 40), elements=st.booleans()), st.data())
def test_regions_bear_the_zones_that_their_pixels_lie_in(mask, draw):
    edges = st.tuples(
        st.integers(0, 19), st.integers(0, 14), st.integers(20, 40), st.integers(15, 30)
    )
    zones = [
        box(f"zone {i}", *draw.draw(edges), draw.draw(st.sampled_from(SEVERITIES)))
        for i in range(3)
    ]
    covering = box("all", 0, 0, 40, 30, "minor")
    zones = [*zones, covering, box("never", 0, 0, 9, 9, "critical", "exclude")]
    plain = regions_of(mask, NO_SCORE)
    named = regions_of(mask, NO_SCORE, zones=zones, mm_per_pixel=0.5)
    labels = label(mask, connectivity=2)
    for region, other in zip(named, plain, strict=True):
        x, y = region.polygon[0]
        rows, columns = np.nonzero(labels == labels[y, x])
        touched = []
        for zone in zones[:-1]:
            (x0, y0), _, (x1, y1), _ = zone.polygon
            if ((columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)).any():
                touched.append(zone)
        assert region.zones == tuple(zone.name for zone in touched)
        assert region.severity == SEVERITIES[max(SEVERITIES.index(z.severity) for z in touched)]
        assert region.area_mm2 == region.area / 4
        assert dataclasses.replace(region, zones=(), severity=None, area_mm2=None) == other
        assert (other.zones, other.severity, other.area_mm2) == ((), None, None)


def test_thousands_of_specks_are_named_in_little_more_time_than_they_are_found():
    mask = np.zeros((1500, 2000), np.bool_)
    mask[::10, ::10] = True
    zones = [box(f"zone {i}", 100 * i, 0, 100 * i + 900, 1500) for i in range(10)]

    def seconds(**named):
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            assert len(regions_of(mask, NO_SCORE, **named)) == 30_000
            times.append(time.perf_counter() - begin)
        return min(times)

    assert seconds(zones=zones) < 3 * seconds() + 0.2
