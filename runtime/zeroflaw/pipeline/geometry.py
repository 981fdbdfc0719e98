"""Geometry: the three pixel grids of a frame and the ways between them.

A frame is seen on three grids, each covering all of it:

- the *frame*, H x W, as the camera gave it;
- the *map* grid, S x S (518): the frame squashed, for CLIP;
- the *SAM image*, h x w within 1024 x 1024: the frame with its aspect kept, at the top left.

Points are (x, y), and whole numbers are the centres of pixels. SAM scales such indices by the
ratio of the sizes and adds its half pixel inside the network (transforms.py:33-45); ways between
other grids keep the centres of pixels together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zeroflaw.pipeline.resizing.strips import Picture, Strips, resize
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class FrameGeometry:
    """Sizes of one frame's grids, px.

    Attributes:
        frame: Height and width of the frame.
        map_size: Side of the map grid.
        sam_source: Height and width of what SAM is given: the frame, or the squashed frame.
        sam_content: Height and width of the content of SAM's square image.
        sam_size: Side of SAM's square image; this and what follows from it is 0 without SAM.
        feature_size: Side of SAM's feature grid, cells.
    """

    frame: tuple[int, int]
    map_size: int
    sam_source: tuple[int, int]
    sam_content: tuple[int, int]
    sam_size: int
    feature_size: int

    @property
    def cell(self) -> float:
        """Side of one feature cell in the SAM image, px."""
        return self.sam_size / self.feature_size


def frame_geometry(
    frame: tuple[int, int], *, map_size: int, sam_size: int, feature_size: int, squash_sam: bool
) -> FrameGeometry:
    """Return the grids of a frame.

    Args:
        frame: Height and width, px.
        map_size: Side of the map grid.
        sam_size: Side of SAM's square image; 0 without SAM.
        feature_size: Side of SAM's feature grid, cells; the same.
        squash_sam: Whether SAM sees the squashed frame instead of the frame.
    """
    source = (map_size, map_size) if squash_sam else frame
    if not sam_size:
        return FrameGeometry(frame, map_size, source, (0, 0), 0, 0)
    scale = sam_size / max(source)
    content = (
        max(1, int(source[0] * scale + 0.5)),
        max(1, int(source[1] * scale + 0.5)),
    )
    return FrameGeometry(frame, map_size, source, content, sam_size, feature_size)


def geometry_of(
    frame: tuple[int, int], sizes: EngineSizes, parameters: MethodParameters
) -> FrameGeometry:
    """Return the grids of a frame for the engines of one bundle.

    Args:
        frame: Height and width, px.
        parameters: `sam_input`.
    """
    return frame_geometry(
        frame,
        map_size=sizes.clip_image_size,
        sam_size=sizes.sam_image_size,
        feature_size=sizes.sam_feature_size,
        squash_sam=parameters.sam_input == "squashed",
    )


def to_resize_twice(frame: Frame, geometry: FrameGeometry) -> Picture:
    """Return a frame in the form in which `squash` and `fit` take the least time.

    Pillow resizes only what lies in its own memory, so a frame that both of them resize is
    better copied there once.

    Args:
        frame: uint8 [H, W, 3].
    """
    return frame if geometry.sam_content == geometry.frame else Image.fromarray(frame)


def squash(frame: Picture, size: int, strips: Strips | None = None) -> Frame:
    """Resize a frame to a square, as APRIL-GAN does: Pillow's antialiased bicubic.

    Args:
        frame: uint8 [H, W, 3].
        size: Side of the square, px.

    Returns:
        uint8 [size, size, 3].
    """
    return resize(frame, (size, size), Image.Resampling.BICUBIC, strips)


def fit(source: Picture, geometry: FrameGeometry, strips: Strips | None = None) -> Frame:
    """Resize a frame into the top left of SAM's square image: Pillow's antialiased bilinear.

    Args:
        source: uint8 [H, W, 3], of the size `geometry.sam_source`.

    Returns:
        uint8 [sam_size, sam_size, 3]; what is outside the content is zero, and blanked by the
        encoder.
    """
    content = resize(source, geometry.sam_content, Image.Resampling.BILINEAR, strips)
    size = geometry.sam_size
    if content.shape[:2] == (size, size):
        return content
    image = np.zeros((size, size, 3), np.uint8)
    image[: content.shape[0], : content.shape[1]] = content
    return image


def resized_for_encoders(frame: Frame, geometry: FrameGeometry) -> tuple[Frame, Frame]:
    """Resize a frame on the host for both encoders, one after the other.

    Args:
        frame: uint8 [H, W, 3], of the size `geometry.frame`.

    Returns:
        CLIP's square, as `squash` makes it, and SAM's image, as `fit` makes it; of no pixels
        without SAM.
    """
    square = squash(frame, geometry.map_size)
    if not geometry.sam_size:
        return square, np.zeros((0, 0, 3), np.uint8)
    return square, fit(frame if geometry.sam_source == geometry.frame else square, geometry)


def grid_to_frame(
    points: NDArray[np.floating], grid: tuple[int, int], geometry: FrameGeometry
) -> FloatArray:
    """Map points of a grid that covers the frame to frame pixels.

    Args:
        points: [N, 2], (x, y) on the grid.
        grid: Height and width of the grid, px.

    Returns:
        float32 [N, 2].
    """
    return _between(points, grid, geometry.frame)


def frame_to_sam(points: NDArray[np.floating], geometry: FrameGeometry) -> FloatArray:
    """Map points in frame pixels to SAM's image as `ResizeLongestSide.apply_coords` does.

    Args:
        points: [N, 2], (x, y) in the frame.

    Returns:
        float32 [N, 2], before SAM's own half-pixel shift.
    """
    if geometry.sam_source != geometry.frame:
        points = _between(points, geometry.frame, geometry.sam_source)
    ratio = np.divide(geometry.sam_content[::-1], geometry.sam_source[::-1])
    return (points * ratio).astype(np.float32)


@lru_cache(maxsize=64)
def cell_coverage(grid: int, content: int, geometry_cell: float, cells: int) -> FloatArray:
    """Return how much of each grid pixel lies in each feature cell, along one axis.

    Args:
        grid: Pixels of the grid that covers the content.
        content: Extent of the content in the SAM image, px.
        geometry_cell: Side of one cell, px.
        cells: Cells of the feature grid.

    Returns:
        float32 [cells, grid], overlap lengths in cells.
    """
    edges = np.arange(grid + 1) * (content / grid / geometry_cell)
    cell = np.arange(cells)[:, None]
    overlap = np.minimum(edges[None, 1:], cell + 1) - np.maximum(edges[None, :-1], cell)
    # what rounding leaves where two intervals only touch is no overlap
    lengths: FloatArray = np.where(overlap > 1e-9, overlap, 0).astype(np.float32)
    return lengths


@lru_cache(maxsize=64)
def cell_interpolation(grid: int, content: int, geometry_cell: float, cells: int) -> FloatArray:
    """Interpolate feature cells bilinearly at the centres of grid pixels, along one axis.

    Cells without content are not used; beyond the outermost centres the last cell holds.

    Args:
        grid: As for `cell_coverage`.
        content: As for `cell_coverage`.
        geometry_cell: As for `cell_coverage`.
        cells: As for `cell_coverage`.

    Returns:
        float32 [grid, cells]; every row sums to 1.
    """
    real = real_cells(content, geometry_cell)
    at = (np.arange(grid) + 0.5) * (content / grid / geometry_cell) - 0.5
    at = np.clip(at, 0, real - 1)
    low = np.minimum(at.astype(int), max(real - 2, 0))
    weight = at - low
    matrix = np.zeros((grid, cells), np.float32)
    rows = np.arange(grid)
    matrix[rows, low] = 1 - weight
    if real > 1:
        matrix[rows, low + 1] = weight
    return matrix


def real_cells(content: int, geometry_cell: float) -> int:
    """Return the feature cells that hold any content, along one axis."""
    return int(np.ceil(content / geometry_cell))


def _between(
    points: NDArray[np.floating], source: tuple[int, int], target: tuple[int, int]
) -> FloatArray:
    ratio = np.divide(target[::-1], source[::-1])
    return ((np.asarray(points, np.float64) + 0.5) * ratio - 0.5).astype(np.float32)
