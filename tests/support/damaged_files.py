"""Image files of every format that is read, and the kinds of damage that files suffer."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files import read_image_file

# Formats that store pixels as they are: overwritten bytes are other pixels, and nothing tells.
RAW = frozenset({"bmp", "pgm16", "ppm", "pfm", "tiff raw", "tiff raw tiled"})
END_MARKERS = {"jpeg": b"\xff\xd9", "gif": b"\0;", "jp2": b"\xff\xd9", "j2k": b"\xff\xd9"}


def photograph(size: tuple[int, int] = (240, 320), seed: int = 0) -> np.ndarray:
    """Something like a photograph: soft shapes, a scratch, noise. uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(rng.normal(0, 1, (*size, 3)), (0, 0), 6)
    picture = 140 + 60 * soft / soft.std() / 2 + rng.normal(0, 3, (*size, 1))
    picture[size[0] // 3 : size[0] // 3 + 4, size[1] // 4 : -size[1] // 4] = 30
    return np.clip(picture, 1, 254).astype(np.uint8)


def whole_files(pixels: np.ndarray) -> dict[str, bytes]:
    """A file of each format and coding, by name."""
    grey = pixels[:, :, 1]
    deep = grey.astype(np.uint16) * 257

    def saved(kind: str, image: np.ndarray = pixels, **options: object) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **options)
        return buffer.getvalue()

    def tiff(image: np.ndarray, **options: object) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, image, metadata=None, **options)
        return buffer.getvalue()

    height, width = grey.shape
    size = b"%d %d\n" % (width, height)
    rgb = {"photometric": "rgb"}
    return {
        "jpeg": saved("JPEG", quality=90),
        "jpeg 95": saved("JPEG", quality=95),
        "jpeg grey": saved("JPEG", grey, quality=80),
        "jpeg optimised": saved("JPEG", quality=80, optimize=True),
        "jpeg progressive": saved("JPEG", quality=85, progressive=True),
        "jpeg restarts": saved("JPEG", quality=90, restart_marker_rows=1),
        "jpeg cmyk": _cmyk_jpeg(pixels),
        "png": saved("PNG"),
        "png 16": saved("PNG", deep),
        "webp": saved("WEBP", quality=85),
        "webp lossless": saved("WEBP", lossless=True),
        "jp2": saved("JPEG2000"),
        "jp2 lossy": saved("JPEG2000", quality_mode="rates", quality_layers=[15]),
        "jp2 tiles": saved("JPEG2000", tile_size=(64, 64)),
        "j2k": saved("JPEG2000", no_jp2=True),
        "gif": saved("GIF"),
        "bmp": saved("BMP"),
        "ppm": b"P6\n" + size + b"255\n" + pixels.tobytes(),
        "pgm16": b"P5\n" + size + b"65535\n" + deep.astype(">u2").tobytes(),
        "pgm plain": b"P2\n" + size + b"255\n" + b" ".join(b"%d" % v for v in grey.ravel()),
        "pfm": b"Pf\n" + size + b"-1.0\n" + (grey[::-1] / 255).astype("<f4").tobytes(),
        "tiff raw": tiff(pixels, **rgb),
        "tiff raw tiled": tiff(pixels, tile=(64, 64), **rgb),
        "tiff lzw": tiff(pixels, compression="lzw", predictor=True, **rgb),
        "tiff deflate": tiff(pixels, compression="zlib", rowsperstrip=16, **rgb),
        "tiff packbits": tiff(pixels, compression="packbits", **rgb),
        "tiff zstd": tiff(deep, compression="zstd", tile=(64, 64)),
        "tiff jpeg": tiff(pixels, compression="jpeg", rowsperstrip=64, **rgb),
        "tiff jpeg tables": saved("TIFF", compression="jpeg"),
    }


def _cmyk_jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(len(data) * rng.uniform(0.02, 0.995))]


def _zero_tail(data: bytes, rng: np.random.Generator) -> bytes:
    kept = int(len(data) * rng.uniform(0.05, 0.99))
    return data[:kept] + bytes(len(data) - kept)


def _block(data: bytes, rng: np.random.Generator) -> int:
    """Where a block of 512 bytes may be lost: behind the headers."""
    return int(rng.integers(min(1000, len(data) // 4), len(data) - 600))


def _zero_block(data: bytes, rng: np.random.Generator) -> bytes:
    at = _block(data, rng)
    return data[:at] + bytes(512) + data[at + 512 :]


def _lost_block(data: bytes, rng: np.random.Generator) -> bytes:
    at = _block(data, rng)
    return data[:at] + data[at + 512 :]


def _repeated_block(data: bytes, rng: np.random.Generator) -> bytes:
    at = _block(data, rng)
    return data[: at + 512] + data[at:]


def _flipped_bit(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "cut": _cut,
    "zero tail": _zero_tail,
    "zero block": _zero_block,
    "lost block": _lost_block,
    "repeated block": _repeated_block,
    "flipped bit": _flipped_bit,
}


@dataclass(frozen=True)
class Trial:
    """What became of one damaged file.

    Attributes:
        coding: Name in `whole_files`.
        damage: Name in `DAMAGES`, or "end marker appended".
        outcome: "refused", "same pixels", "other pixels, warned" or "other pixels".
        reason: Of the refusal, or the warning.
        data: The damaged file.
    """

    coding: str
    damage: str
    outcome: str
    reason: str
    data: bytes

    @property
    def excused(self) -> bool:
        """Whether the docs say that this cannot be seen."""
        return (
            self.outcome != "other pixels"
            or self.damage == "flipped bit"
            or (self.coding in RAW and self.damage in ("zero block", "repeated block"))
            # A decoder may find its way back within the refining scans, and then all is valid.
            or (self.coding == "jpeg progressive" and self.damage == "lost block")
        )


def damage_trials(count: int, seed: int = 0) -> Iterator[Trial]:
    """Damages files in turn, each coding with each kind of damage, and reads them.

    Args:
        count: How many.
        seed: Of pictures and damages.
    """
    rng = np.random.default_rng(seed)
    files = whole_files(photograph(seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        originals = {}
        for coding, data in files.items():
            path.write_bytes(data)
            originals[coding] = read_image_file(path).pixels
        turns = [(coding, damage) for damage in DAMAGES for coding in files]
        turns += [(coding, "end marker appended") for coding in files if _end_marker(coding)]
        for number in range(count):
            coding, damage = turns[number % len(turns)]
            if damage in DAMAGES:
                data = DAMAGES[damage](files[coding], rng)
            else:
                data = _cut(files[coding], rng) + _end_marker(coding)
            path.write_bytes(data)
            yield _trial(path, coding, damage, originals[coding], data)


def _end_marker(coding: str) -> bytes:
    return END_MARKERS.get(coding.split(maxsplit=1)[0], b"")


def _trial(path: Path, coding: str, damage: str, original: np.ndarray, data: bytes) -> Trial:
    try:
        file = read_image_file(path)
    except ImageFileError as error:
        return Trial(coding, damage, "refused", error.cause, data)
    if file.pixels.shape == original.shape and np.array_equal(file.pixels, original):
        return Trial(coding, damage, "same pixels", "", data)
    if file.warnings:
        return Trial(coding, damage, "other pixels, warned", file.warnings[0], data)
    return Trial(coding, damage, "other pixels", "", data)


def table_of(trials: list[Trial]) -> str:
    """A line for each coding and damage: how many had which outcome."""
    outcomes = ("refused", "same pixels", "other pixels, warned", "other pixels")
    lines = [f"{'coding':18} {'damage':20}" + "".join(f"{name:>22}" for name in outcomes)]
    for coding, damage in sorted({(t.coding, t.damage) for t in trials}):
        counts = [
            sum((t.coding, t.damage, t.outcome) == (coding, damage, name) for t in trials)
            for name in outcomes
        ]
        lines.append(f"{coding:18} {damage:20}" + "".join(f"{count:>22}" for count in counts))
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    done = list(damage_trials(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
    print(table_of(done))
    unseen = [trial for trial in done if trial.outcome == "other pixels"]
    unnamed = [trial for trial in unseen if not trial.excused]
    print(
        f"{len(done)} files; read as other pixels without a warning: {len(unseen)},"
        f" of these not among what docs/image_files.md names: {len(unnamed)}"
    )
