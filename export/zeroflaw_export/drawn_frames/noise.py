"""Seeded noise fields, the raw material of surfaces and defects."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Rng = np.random.Generator

_WIDEST_BLUR: Final = 64.0


def as_floats(values: object) -> FloatArray:
    """Convert what OpenCV or NumPy gave to float32."""
    return np.asarray(values, np.float32)


def blurred(image: FloatArray, pixels: float) -> FloatArray:
    """Blur an image with a Gaussian of that standard deviation, px."""
    return as_floats(cv2.GaussianBlur(image, (0, 0), pixels))


def widely_blurred(image: FloatArray, pixels: float) -> FloatArray:
    """Blur as `blurred` does, by more than 64 px on a smaller image.

    That loses nothing that would remain: the time of a Gaussian grows with its width, and large
    frames would take minutes.
    """
    halvings = max(0, int(np.ceil(np.log2(pixels / _WIDEST_BLUR))))
    if not halvings:
        return blurred(image, pixels)
    height, width = image.shape[:2]
    small = (max(1, width >> halvings), max(1, height >> halvings))
    reduced = as_floats(cv2.resize(image, small, interpolation=cv2.INTER_AREA))
    soft = blurred(reduced, pixels * small[0] / width)
    return as_floats(cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC))


def smooth_noise(rng: Rng, size: int, cells: float, cells_x: float | None = None) -> FloatArray:
    """Draw noise that changes over about `size / cells` pixels.

    Args:
        size: Side of the field, px.
        cells: Cells along y.
        cells_x: Cells along x; default: as many.

    Returns:
        float32 [size, size] of mean 0 and standard deviation about 1.
    """
    rows = min(size, max(2, round(cells) + 1))
    columns = min(size, max(2, round(cells if cells_x is None else cells_x) + 1))
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    field = as_floats(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))
    return as_floats((field - field.mean()) / (float(field.std()) + 1e-6))


def fractal_noise(
    rng: Rng, size: int, cells: float, octaves: int, persistence: float = 0.5
) -> FloatArray:
    """Add octaves of noise, each twice as fine and `persistence` times as strong as the last.

    Returns:
        float32 [size, size] of mean 0 and standard deviation about 1.
    """
    field = np.zeros((size, size), np.float32)
    weight = 1.0
    for _ in range(octaves):
        field += np.float32(weight) * smooth_noise(rng, size, cells)
        cells, weight = cells * 2, weight * persistence
    return as_floats(field / (float(field.std()) + 1e-6))


def cellular_noise(rng: Rng, size: int, cells: int) -> tuple[FloatArray, FloatArray]:
    """Draw the Voronoi cells of random points.

    Returns:
        Distance of each pixel to its cell's point, in cell widths, float32 [size, size].
        A random value for each cell in [0, 1], float32 [size, size].
    """
    count = cells * cells
    points = rng.integers(0, size, (count, 2))
    seeds = np.full((size, size), 255, np.uint8)
    seeds[points[:, 0], points[:, 1]] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = rng.random(int(labels.max()) + 1, dtype=np.float32)
    return (distance * np.float32(cells / size)), values[labels]


def blob(rng: Rng, size: int, area: float, roughness: float = 0.35) -> FloatArray:
    """Draw a soft irregular spot somewhere in the frame.

    Args:
        size: Side of the frame, px.
        area: Share of the frame that it covers, in (0, 1).
        roughness: 0 is an ellipse; 1 is torn.

    Returns:
        Level set, float32 [size, size]: at least 0 inside, exactly `area` of the frame.
    """
    radius = np.sqrt(area / np.pi)
    margin = min(0.5, radius * 0.8)
    centre_y, centre_x = rng.uniform(margin, 1 - margin, 2)
    aspect, angle = rng.uniform(1.0, 2.2), rng.uniform(0, np.pi)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = (grid - np.float32(centre_y))[:, None], (grid - np.float32(centre_x))[None]
    along = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) / np.float32(
        radius * np.sqrt(aspect)
    )
    across = (y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))) / np.float32(
        radius / np.sqrt(aspect)
    )
    distance = np.sqrt(along**2 + across**2)
    torn = fractal_noise(rng, size, max(3.0, 0.9 / radius), 3)
    level = -distance + np.float32(roughness) * torn * np.exp(-0.5 * (distance - 1) ** 2)
    wanted = max(1, round(area * size * size))
    cut = np.partition(level, -wanted, axis=None)[-wanted]
    return as_floats(level - cut)


def soft_edge(level: FloatArray, pixels: float) -> FloatArray:
    """Return the opacity of a level set: 0.5 on its border, with an edge about `pixels` wide.

    Returns:
        float32 [size, size] in [0, 1].
    """
    inside = (level >= 0).astype(np.uint8)
    signed = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(
        1 - inside, cv2.DIST_L2, 5
    )
    scaled: FloatArray = np.clip(0.5 + signed / np.float32(2 * max(pixels, 0.5)), 0, 1)
    return scaled.astype(np.float32)


def turned(image: FloatArray, degrees: float, zoom: float = 1.0) -> FloatArray:
    """Turn and magnify an image about its centre; the border mirrors.

    Args:
        image: float32 [S, S] or [S, S, C].
        degrees: Angle, anticlockwise.
        zoom: Magnification; above 1 enlarges.

    Returns:
        The same shape.
    """
    size = image.shape[0]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), degrees, zoom)
    return as_floats(
        cv2.warpAffine(
            image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
    )


def relief_shading(height: FloatArray, light_degrees: float) -> FloatArray:
    """Shade a relief under oblique light, by its slope towards the lamp.

    Args:
        height: float32 [S, S].
        light_degrees: Direction of the lamp in the image, degrees clockwise from the x axis.

    Returns:
        float32 [S, S], 0 on level ground.
    """
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    angle = np.deg2rad(light_degrees)
    shaded: FloatArray = slope_x * np.float32(np.cos(angle)) + slope_y * np.float32(np.sin(angle))
    return shaded
