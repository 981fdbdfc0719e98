"""Alignment against known motions, of which frames are made by an interpolation of its own."""

from __future__ import annotations

import hashlib

import cv2
import msgspec
import numpy as np
import pytest

from support.small_bundle import write_small_bundle
from zeroflaw.pipeline.view.alignment import (
    AlignedFrame,
    Aligner,
    aligner_of,
    reference_template,
)
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw_engines.bundle.manifest import FileEntry
from zeroflaw_engines.bundle.products.settings import Alignment, Zone
from zeroflaw_engines.errors import BundleDamagedError, FrameError

H, W = 240, 320
MOTIONS = [
    (0, 0, 0),
    (3.3, -2.7, 0),
    (10.25, 7.5, 1.3),
    (-19.2, 9.6, -4),
    (2, 1, 9.5),
    (32, 0, 0.2),
]


def texture(kind: str, h: int = H, w: int = W, seed: int = 3) -> np.ndarray:
    """A picture of blobs, of a part with holes in it, or of waves with a name on them."""
    rng = np.random.default_rng(seed)
    if kind == "blobs":
        small = rng.integers(0, 256, (h // 6 + 2, w // 6 + 2, 3), np.uint8)
        return cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)
    if kind == "part":
        image = np.full((h, w, 3), 60, np.uint8)
        cv2.rectangle(image, (w // 6, h // 5), (w * 5 // 6, h * 4 // 5), (190, 180, 170), -1)
        for k in range(5):
            middle = int(w * (0.25 + 0.12 * k)), int(h * (0.35 + 0.08 * (k % 3)))
            cv2.circle(image, middle, max(2, h // 25), (40, 40, 50), -1, cv2.LINE_AA)
        return (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
    y, x = np.mgrid[:h, :w] / h
    waves = 127 + 60 * np.sin(9 * x + 3 * y) + 50 * np.cos(13 * y - 4 * x * x)
    image = np.ascontiguousarray(waves[..., None].repeat(3, 2).clip(0, 255).astype(np.uint8))
    cv2.putText(image, "A17", (w // 4, h // 2), 0, h / 150, (255, 255, 0), 2, cv2.LINE_AA)
    return image


def matrix_of(x: float, y: float, degrees: float, h: int = H, w: int = W) -> np.ndarray:
    """A turn about the middle, counter-clockwise as one looks at the picture, then a shift."""
    middle = ((w - 1) / 2, (h - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, degrees, 1)
    matrix[:, 2] += (x, y)
    return matrix


def moved(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    h, w = image.shape[:2]
    return cv2.warpAffine(
        image, matrix, (w, h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def aligner(image: np.ndarray, **settings) -> Aligner:
    """An aligner of a photo, whose template is read back from its PNG."""
    png = cv2.imdecode(np.frombuffer(reference_template(image), np.uint8), cv2.IMREAD_UNCHANGED)
    known = {"max_shift": 60, "max_rotation": 10, **settings}
    return Aligner(Alignment(template="x", photo="x", **known), png.astype(np.float32))


def apart(one: np.ndarray, other: np.ndarray, h: int = H, w: int = W) -> float:
    """The largest distance of a corner of the frame under two matrices, px."""
    at = np.array([(0, 0, 1), (w - 1, 0, 1), (0, h - 1, 1), (w - 1, h - 1, 1)], float)
    return float(np.hypot(*(at @ (one - other).T).T).max())


@pytest.mark.parametrize("kind", ["blobs", "part", "waves"])
def test_known_motions_are_found_to_half_a_pixel(kind: str) -> None:
    image = texture(kind)
    of_photo = aligner(image)
    for x, y, degrees in MOTIONS:
        matrix = matrix_of(x, y, degrees)
        found = of_photo.align(moved(image, matrix))
        assert found.fault is None
        assert apart(found.matrix, matrix) < 0.5
        assert np.allclose(found.shift, (x, y), atol=0.3)
        assert abs(found.rotation - degrees) < 0.1
        assert found.correlation > 0.98
        inner = np.s_[60:-60, 80:-80]
        assert np.abs(found.frame[inner].astype(int) - image[inner]).mean() < 8


@pytest.mark.parametrize("kind", ["blobs", "part", "waves"])
def test_phase_correlation_finds_translations(kind: str) -> None:
    image = texture(kind)
    of_photo = aligner(image, method="phase_correlation")
    for x, y in ((0, 0), (3.3, -2.7), (-19.2, 9.6)):
        found = of_photo.align(moved(image, matrix_of(x, y, 0)))
        assert found.fault is None
        assert found.rotation == 0
        assert np.allclose(found.shift, (x, y), atol=0.5)


def test_a_large_frame_is_aligned_at_its_full_size() -> None:
    h, w = 3000, 4096
    image = texture("part", h, w)
    matrix = matrix_of(-120.4, 77.7, 1.7, h, w)
    of_photo = aligner(image, max_shift=200, max_rotation=2)
    assert of_photo.template.shape == (750, 1024)
    found = of_photo.align(moved(image, matrix))
    assert found.fault is None
    assert apart(found.matrix, matrix, h, w) < 0.5
    assert np.allclose(found.shift, (-120.4, 77.7), atol=0.5)


def test_sides_that_do_not_reduce_evenly_keep_their_centres() -> None:
    h, w = 1021, 1531
    image = texture("blobs", h, w)
    matrix = matrix_of(7.3, -9.1, -2.2, h, w)
    found = aligner(image).align(moved(image, matrix))
    assert apart(found.matrix, matrix, h, w) < 0.5


def test_the_photo_itself_comes_back_unchanged() -> None:
    image = texture("part")
    found = aligner(image).align(image)
    assert found.fault is None
    assert np.array_equal(found.frame, image)


def test_what_is_beyond_the_limits_is_a_fault() -> None:
    image = texture("blobs")
    found = aligner(image, max_shift=10).align(moved(image, matrix_of(9, 9, 0)))
    assert "shifted by 12.7 px" in found.fault
    assert "10 px are allowed" in found.fault
    turned = moved(image, matrix_of(0, 0, 3.4))
    found = aligner(image, max_rotation=3).align(turned)
    assert "turned by 3.40 degrees" in found.fault
    assert found.frame is turned
    assert aligner(image, max_rotation=3.5).align(turned).fault is None


@pytest.mark.parametrize(("degrees", "held"), [(0, False), (0.2, False), (1, True), (-4, True)])
def test_a_turned_part_is_held_where_no_rotation_is_allowed(degrees: float, held: bool) -> None:
    """Its correlation is high all the same, and zones would lie beside their places."""
    image = texture("waves")
    found = aligner(image, max_rotation=0).align(moved(image, matrix_of(5, -3, degrees)))
    assert found.correlation > 0.8
    assert (found.fault is not None) == held
    if held:
        assert f"turned by {found.rotation:.2f} degrees" in found.fault
        assert found.rotation == pytest.approx(degrees, abs=0.1)
    else:
        assert found.rotation == 0


def test_what_is_not_the_part_is_a_fault() -> None:
    of_photo = aligner(texture("part"), max_shift=1000)
    rng = np.random.default_rng(0)
    for other in (
        rng.integers(0, 256, (H, W, 3), np.uint8),
        np.zeros((H, W, 3), np.uint8),
        np.full((H, W, 3), 90, np.uint8),
        texture("blobs"),
        texture("waves"),
        255 - texture("part"),
    ):
        found = of_photo.align(other)
        assert "correlation" in found.fault
        assert -1 <= found.correlation < 0.5
    assert of_photo.align(np.full((H, W, 3), 90, np.uint8)).correlation == 0


def test_another_light_is_no_fault() -> None:
    image = texture("part")
    matrix = matrix_of(5, 3, 1)
    dim = (moved(image, matrix) * 0.5 + 20).astype(np.uint8)
    found = aligner(image).align(dim)
    assert found.fault is None
    assert apart(found.matrix, matrix) < 0.5


def lying(matrix: np.ndarray, h: int = H, w: int = W) -> AlignedFrame:
    return AlignedFrame(np.zeros((h, w, 3), np.uint8), matrix, (0.0, 0.0), 0.0, 1.0)


def layout(*zones: Zone) -> ZoneLayout:
    return ZoneLayout(zones, np.ones((H, W), np.bool_))


def test_a_zone_that_leaves_the_frame_is_lost() -> None:
    near = Zone(name="rim", polygon=((300, 20), (320, 20), (320, 60), (300, 60)))
    inner = Zone(name="hub", polygon=((0.4, 0.4), (0.6, 0.4), (0.5, 0.6)), units="relative")
    cut = Zone(name="clamp", polygon=near.polygon, kind="exclude")
    assert lying(matrix_of(0.9, 0, 0)).lost_zone(layout(near, inner)) is None
    lost = lying(matrix_of(3.5, 0, 0)).lost_zone(layout(inner, near))
    assert "'rim'" in lost
    assert "3.5 px outside" in lost
    assert lying(matrix_of(3.5, 0, 0)).lost_zone(layout(inner, cut)) is None
    assert "'rim'" in lying(matrix_of(0, 0, -5)).lost_zone(layout(near))


@pytest.mark.parametrize("motion", [(0, 0, 0), (4, -3, 0), (10.25, 7.5, 1.3), (2, 1, 30)])
def test_masks_come_back_where_the_part_lies(motion: tuple[float, float, float]) -> None:
    matrix = matrix_of(*motion)
    mask = np.zeros((H, W), np.bool_)
    mask[90:130, 120:190] = True
    mask[150:153, 100:220] = True
    found = lying(matrix).mask_in_frame(mask)
    back = cv2.invertAffineTransform(matrix)
    rows, columns = np.mgrid[:H, :W]
    x = back[0, 0] * columns + back[0, 1] * rows + back[0, 2]
    y = back[1, 0] * columns + back[1, 1] * rows + back[1, 2]
    u, v = np.rint(x).astype(int).clip(0, W - 1), np.rint(y).astype(int).clip(0, H - 1)
    expected = mask[v, u] & (np.abs(x - u) <= 0.5) & (np.abs(y - v) <= 0.5)
    # Ties and OpenCV's fixed-point positions move single pixels of an outline.
    thick = cv2.dilate(expected.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    thin = cv2.erode(expected.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert not (found & ~thick).any()
    assert (found | ~thin).all()
    assert abs(int(found.sum()) - int(expected.sum())) <= 0.01 * expected.sum()


def test_no_region_of_a_mask_is_lost() -> None:
    rng = np.random.default_rng(5)
    for number in range(20):
        matrix = matrix_of(*rng.uniform(-9, 9, 2), rng.uniform(-45, 45))
        mask = np.zeros((H, W), np.bool_)
        for y, x in zip(range(30, 210, 9), rng.integers(60, 260, 20), strict=True):
            mask[y, x] = True
        mask[number % 3, 0] = True  # its place in the frame may lie outside it
        found = lying(matrix).mask_in_frame(mask)
        assert cv2.connectedComponents(found.view(np.uint8))[0] == 22
    empty = np.zeros((H, W), np.bool_)
    assert not lying(matrix).mask_in_frame(empty).any()


def test_maps_come_back_bilinearly_and_zero_outside() -> None:
    """A map of a smooth function of the part's place, sampled where the frame shows it."""
    matrix = matrix_of(12.5, -7.25, 6)
    size = 56
    at = (np.arange(size) + 0.5) / size
    values = (0.2 + 0.3 * at[:, None] + 0.4 * at[None]).astype(np.float32)
    found = lying(matrix).map_in_frame(values)
    back = cv2.invertAffineTransform(matrix)
    y, x = np.meshgrid(at * H - 0.5, at * W - 0.5, indexing="ij")
    u = (back[0, 0] * x + back[0, 1] * y + back[0, 2] + 0.5) / W
    v = (back[1, 0] * x + back[1, 1] * y + back[1, 2] + 0.5) / H
    within = (np.minimum(u, v) > 0.5 / size) & (np.maximum(u, v) < 1 - 0.5 / size)
    assert found.dtype == np.float32
    assert np.abs(found - (0.2 + 0.3 * v + 0.4 * u))[within].max() < 0.005
    outside = (np.minimum(u, v) < -0.5 / size) | (np.maximum(u, v) > 1 + 0.5 / size)
    assert outside.any()
    assert (found[outside] == 0).all()


def test_a_peak_on_the_border_of_a_zone_comes_back_as_high() -> None:
    """Half a pixel of the map away, it would be half as high between it and what is 0."""
    values, judged = np.zeros((56, 56), np.float32), np.zeros((56, 56), np.bool_)
    judged[20:40, 20:40] = True
    values[20:40, 20], values[20:40, 21:40] = 0.9, 0.1
    shift = W / 56 / 2
    found = lying(matrix_of(shift, 0, 0)).map_in_frame(values, judged)
    assert found[25:35].max(axis=1) == pytest.approx(0.9, abs=1e-6)
    # What is judged is not spread by more than the pixel, and 0 is not made of it.
    assert (found[:, 22:40].max(axis=0) <= 0.1 + 1e-6).all()
    assert (found[:19] == 0).all()
    assert (found[:, 41:] == 0).all()


def test_a_template_is_read_from_the_bundle_and_refused_if_it_is_none(tmp_path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    settings = Alignment(template="alignment-1.png", photo="0" * 64, max_shift=5)
    image = texture("part", 300, 2048)
    of_other_size = reference_template(texture("part"))

    def reading(data: bytes) -> Aligner | None:
        (bundle.path / settings.template).write_bytes(data)
        entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        files = {**bundle.manifest.files, settings.template: entry}
        manifest = msgspec.structs.replace(bundle.manifest, files=files)
        return aligner_of(settings, (300, 2048), type(bundle)(bundle.path, manifest))

    found = reading(reference_template(image))
    assert found.template.shape == (150, 1024)
    assert found.align(image).fault is None
    for damaged in (b"", b"no picture", of_other_size):
        with pytest.raises(BundleDamagedError, match="reference photo"):
            reading(damaged)
    assert aligner_of(None, (300, 2048), bundle) is None


def test_a_photo_of_one_grey_is_no_reference() -> None:
    with pytest.raises(FrameError, match="one grey"):
        reference_template(np.full((H, W, 3), 7, np.uint8))
