"""One photo frame from one seed: a scene, its anomalies, a camera, a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw_export.drawn_frames.camera import Camera, draw_camera
from zeroflaw_export.drawn_frames.noise import FloatArray, Rng, as_floats
from zeroflaw_export.mini.photo_frames.anomalies import ANOMALIES, Anomaly
from zeroflaw_export.mini.photo_frames.photos import Photos
from zeroflaw_export.mini.photo_frames.scenes import Scene, SceneKind, draw_scene
from zeroflaw_export.mini.photo_frames.windows import Window, faded, open_window

_GOOD_SHARE: Final = 0.4
_SMALLEST: Final = 0.0003
_LARGEST: Final = 0.2
# Mean change of the photo inside the mask, in grey levels: less is no anomaly to a person.
_VISIBLE: Final = 12.0
# On a busy surface a change must reach that share of its own contrast as well.
_OF_CONTRAST: Final = 0.5
# A pixel is changed from so many grey levels on, and from that share of the strongest change.
_CHANGED: Final = 6.0
_OF_STRONGEST: Final = 0.25
# Holes of a mask up to that share of it are filled, islands below that share left out.
_HOLE: Final = 0.1
_SPECK: Final = 0.02
# Less of a mask than that may not have changed: it would be a net over what is as it was.
_SOLID: Final = 0.6
_TRIES: Final = 10
_JPEG_SHARE: Final = 1 / 3
# How far the lens's blur carries a change, px.
_MARGIN: Final = 8


@dataclass(frozen=True)
class PhotoFrame:
    """A frame and its truth.

    Attributes:
        image: uint8 [S, S, 3], RGB.
        mask: bool [S, S], True where anomalous.
        kind: What the scene shows.
        anomalies: Names of what was drawn; none on a good frame.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    kind: SceneKind
    anomalies: tuple[str, ...]


def draw_photo_frame(photos: Photos, seed: Sequence[int], size: int) -> PhotoFrame:
    """Draw a frame; the same photos, seed and size give the same frame.

    Args:
        seed: Whole numbers from 0.
        size: Side of the frame, px.
    """
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, photos, size)
    camera = draw_camera(rng, size)
    quality = int(rng.integers(60, 96)) if rng.random() < _JPEG_SHARE else None
    shot = _Shot(scene, camera.exposed(scene.image), np.zeros((size, size), np.bool_), ())
    if rng.random() >= _GOOD_SHARE:
        for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.12, 0.08]))):
            shot = _spoiled(rng, shot, camera, photos)
    image = shot.photo if quality is None else _compressed(shot.photo, quality)
    return PhotoFrame(image, shot.mask, scene.kind, shot.anomalies)


@dataclass(frozen=True)
class _Shot:
    """A scene with the anomalies so far, its photo and its mask."""

    scene: Scene
    photo: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    anomalies: tuple[str, ...]


def _spoiled(rng: Rng, shot: _Shot, camera: Camera, photos: Photos) -> _Shot:
    """Draw one more anomaly, anew until it can be seen; where none can be, nothing changes."""
    scene, photo, mask = shot.scene, shot.photo, shot.mask
    names = [n for n in ANOMALIES if scene.kind == "object" or ANOMALIES[n].place == "part"]
    weights = np.array([ANOMALIES[n].weight for n in names])
    for _ in range(_TRIES):
        name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        anomaly = ANOMALIES[name]
        area = float(np.exp(rng.uniform(*np.log(anomaly.areas))))
        window = open_window(rng, scene, photos, area, at_the_edge=anomaly.place == "edge")
        if window is None:
            continue
        changed = draw_in_window(rng, anomaly, window)
        inner, seen = _exposed(camera, scene.image, window, changed)
        new = change_mask(photo[inner], seen)
        share = float(new.sum()) / mask.size
        if not _SMALLEST <= share <= _LARGEST - float(mask.mean()) or (new & mask[inner]).any():
            continue
        if not shows(photo[inner], seen, new):
            continue
        scene = replace(scene, image=scene.image.copy())
        scene.image[window.place] = changed
        photo, mask = photo.copy(), mask.copy()
        photo[inner] = seen
        mask[inner] |= new
        return _Shot(scene, photo, mask, (*shot.anomalies, name))
    return shot


def _exposed(
    camera: Camera, scene: FloatArray, window: Window, changed: FloatArray
) -> tuple[tuple[slice, slice], NDArray[np.uint8]]:
    """Expose what a changed window changes in the photo: the window and what the lens blurs.

    Returns:
        Where that is, and uint8 [H, W, 3].
    """
    size = scene.shape[0]

    def box(margin: int) -> tuple[slice, slice]:
        rows, columns = (
            slice(max(0, at - margin), min(size, at + window.side + margin))
            for at in (window.y, window.x)
        )
        return rows, columns

    outer, inner = box(2 * _MARGIN), box(_MARGIN)
    (top, left), (rows, columns) = (o.start for o in outer), inner
    piece = scene[outer].copy()
    y, x = window.y - top, window.x - left
    piece[y : y + window.side, x : x + window.side] = changed
    part = replace(camera, light=camera.light[outer], noise=camera.noise[outer])
    photo = part.exposed(piece)
    return inner, photo[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]


def draw_in_window(rng: Rng, anomaly: Anomaly, window: Window) -> FloatArray:
    """Draw an anomaly into a window; on a part it ends where the part does.

    Returns:
        float32 [N, N, 3] in [0, 1]; the border of the window is unchanged.
    """
    share = faded(window.side)
    if anomaly.place == "part":
        share = share * window.part
    change = (np.clip(anomaly.draw(rng, window), 0, 1) - window.image) * share[..., None]
    return as_floats(window.image + change)


def shows(before: NDArray[np.uint8], after: NDArray[np.uint8], mask: NDArray[np.bool_]) -> bool:
    """Tell whether a person would see that a photo changed where the mask says.

    Args:
        before: uint8 [H, W, 3].
        after: uint8 [H, W, 3].
        mask: bool [H, W], with at least one pixel.
    """
    change = cv2.absdiff(before, after)[mask]
    contrast = float(before.mean(-1).std())
    strong = float(change.mean()) >= max(_VISIBLE, _OF_CONTRAST * contrast)
    return strong and float((change.max(-1) >= _CHANGED).mean()) >= _SOLID


def change_mask(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell where a photo changed: small gaps are closed and specks left out.

    Args:
        before: uint8 [H, W, 3].
        after: uint8 [H, W, 3].

    Returns:
        bool [H, W].
    """
    change = cv2.absdiff(before, after).max(-1)
    seen = change[change >= _CHANGED]
    if seen.size == 0:
        return np.zeros(change.shape, np.bool_)
    level = max(_CHANGED, _OF_STRONGEST * float(np.percentile(seen, 90)))
    raw = (change >= level).astype(np.uint8)
    reach = 3 + 2 * (min(change.shape) // 80)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    closed = cv2.morphologyEx(
        raw, cv2.MORPH_CLOSE, disk, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    solid = _filled(np.asarray(closed, np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid)
    sizes = stats[:, cv2.CC_STAT_AREA]
    kept = sizes >= max(4, _SPECK * float(sizes[1:].max(initial=0)))
    kept[0] = False
    return np.asarray(kept[labels], np.bool_)


def _filled(region: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill holes where the anomaly happens to look like what was there before."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - region, connectivity=4)
    sizes = stats[:, cv2.CC_STAT_AREA]
    hole = sizes <= _HOLE * float(region.sum())
    hole[0] = False
    # What reaches the border is not enclosed.
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        hole[side] = False
    return np.asarray(region | hole[labels], np.uint8)


def _compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Write a photo as JPEG and read it again."""
    # OpenCV takes the channels as BGR both ways, which for one round trip is only a name.
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), np.uint8)
