"""Patch tokens of a frozen CLIP tower on disk, so that an epoch of training costs no tower.

A cache is a directory of one tower: `cache.json` says which, `tokens/` and `masks/` hold one file
for each image. Every file gets its name when it is whole, so a killed run loses one image.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from open_clip.model import CLIP
from PIL import Image

from zeroflaw_engines.errors import TrainingError
from zeroflaw_engines.files import replacing
from zeroflaw_export.models.architectures import CLIP_MEAN, CLIP_STD, clip_architecture, float32
from zeroflaw_export.models.clip_encoder import token_grids
from zeroflaw_export.models.pyramid import PyramidTower

_SCHEMA: Final = 1
_INFO: Final = "cache.json"
_LOCK_SECONDS: Final = 10
# Room that is left on the disk for everything else.
_SPARE_BYTES: Final = 64 << 20


@dataclass(frozen=True, kw_only=True)
class TowerIdentity:
    """What decides the tokens of an image; a cache belongs to one of these.

    Attributes:
        architecture: Name in the registry.
        weights: `sha256:<digest>` of the weights file, or `random:<seed>`.
        image_size: Side of the square input, px.
        tapped_blocks: 1-based.
        activation: `gelu` or `quick_gelu`.
    """

    architecture: str
    weights: str
    image_size: int
    tapped_blocks: tuple[int, ...]
    activation: str


@dataclass(frozen=True)
class FrozenTower:
    """A CLIP whose image tower only ever runs forward.

    Attributes:
        clip: On any device, float32, in eval mode.
        identity: Where it came from.
    """

    clip: CLIP
    identity: TowerIdentity

    @property
    def grids(self) -> tuple[int, ...]:
        """Patches along one side, of each tapped block or level of a pyramid."""
        return token_grids(self.clip, self.identity.tapped_blocks, self.identity.image_size)

    @property
    def token_shape(self) -> tuple[int, int, int]:
        """Tapped blocks, patches, width; of a pyramid, 1 and the patches of all levels."""
        width = clip_architecture(self.identity.architecture).token_width
        places = [grid**2 for grid in self.grids]
        if isinstance(self.clip.visual, PyramidTower):
            return 1, sum(places), width
        return len(places), places[0], width

    def patch_tokens(self, image: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Compute the raw residual stream after each tapped block, without the CLS token.

        Of a pyramid, these are its levels, one after the other.

        Images go through the tower one by one: in batches the last bits of the tokens would
        depend on where a killed run was taken up again.

        Args:
            image: uint8 RGB [H, W, 3] of any size; it is squashed to a square (algorithm 1.4).

        Returns:
            float16, of the shape `token_shape`.

        Raises:
            TrainingError: Tokens are not finite, or too large for float16.
        """
        side = self.identity.image_size
        squashed = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        device = self.clip.text_projection.device
        pixels = torch.from_numpy(np.asarray(squashed).copy()).float() / 255
        pixels = ((pixels - float32(CLIP_MEAN)) / float32(CLIP_STD)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            seen = self.clip.visual.forward_intermediates(
                pixels.to(device),
                indices=[block - 1 for block in self.identity.tapped_blocks],
                stop_early=True,
                normalize_intermediates=False,
                intermediates_only=True,
                output_fmt="NLC",
            )["image_intermediates"]
            joined = torch.cat(seen, dim=1).reshape(self.token_shape)
            tokens: NDArray[np.float16] = joined.half().cpu().numpy()
        if not np.isfinite(tokens).all():
            raise TrainingError(
                f"{self.identity.architecture} gives tokens that float16 cannot hold",
                "check the CLIP weights; no published CLIP does this",
            )
        return tokens


@dataclass(frozen=True)
class TokenCache:
    """A cache that was opened for one tower.

    Attributes:
        directory: Where it is.
        token_shape: Of one image's tokens, as `FrozenTower` has it.
        image_size: Side of the masks, px.
    """

    directory: Path
    token_shape: tuple[int, int, int]
    image_size: int

    @property
    def token_bytes(self) -> int:
        """Size of one image's tokens."""
        return int(np.prod(self.token_shape)) * np.dtype(np.float16).itemsize

    @property
    def mask_bytes(self) -> int:
        """Size of one mask, eight pixels to a byte."""
        return (self.image_size**2 + 7) // 8

    def has_tokens(self, key: str) -> bool:
        """Return whether the tokens of an image are there and whole."""
        return _size(self._tokens(key)) == self.token_bytes

    def has_mask(self, key: str) -> bool:
        """Return whether a mask is there and whole."""
        return _size(self._mask(key)) == self.mask_bytes

    def write_tokens(self, key: str, tokens: NDArray[np.float16]) -> None:
        """Write the tokens of an image.

        Raises:
            TrainingError: The disk is full or cannot be written.
        """
        _write_whole(self._tokens(key), np.ascontiguousarray(tokens).data)

    def write_mask(self, key: str, mask: NDArray[np.bool_]) -> None:
        """Write a mask, bool [image_size, image_size].

        Raises:
            TrainingError: The disk is full or cannot be written.
        """
        _write_whole(self._mask(key), np.packbits(mask).data)

    def read_tokens(self, key: str) -> NDArray[np.float16]:
        """Read the tokens of an image, float16 of the shape `token_shape`.

        Raises:
            TrainingError: They are not there, or not whole.
        """
        path = self._tokens(key)
        values = np.frombuffer(_read_whole(path, self.token_bytes), np.float16)
        return values.reshape(self.token_shape)

    def read_mask(self, key: str) -> bytes:
        """Read a mask as packed bits; see `unpack_mask`.

        Raises:
            TrainingError: It is not there, or not whole.
        """
        return _read_whole(self._mask(key), self.mask_bytes)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from filling the cache at the same time.

        Raises:
            TrainingError: Another run is filling it.
        """
        try:
            with FileLock(self.directory / ".lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout as error:
            raise TrainingError(
                f"another run is filling the token cache {self.directory}",
                "wait for it, or name another directory with --cache",
            ) from error

    def require_space(self, images: int, masks: int) -> int:
        """Check that what is missing fits on the disk.

        Args:
            images: Number of images whose tokens are missing.
            masks: Number of masks that are missing.

        Returns:
            Bytes that will be written.

        Raises:
            TrainingError: The disk has too little space.
        """
        wanted = images * self.token_bytes + masks * self.mask_bytes
        free = shutil.disk_usage(self.directory).free
        if wanted and wanted + _SPARE_BYTES > free:
            raise TrainingError(
                f"the tokens of {images} images need {wanted / 1e9:.2f} GB, and the disk of"
                f" {self.directory} has {free / 1e9:.2f} GB free",
                "name a directory on another disk with --cache, or train on fewer classes",
            )
        return wanted

    def _tokens(self, key: str) -> Path:
        return self.directory / "tokens" / f"{key}.f16"

    def _mask(self, key: str) -> Path:
        return self.directory / "masks" / f"{key}.bits"


def open_token_cache(directory: Path, tower: FrozenTower) -> TokenCache:
    """Open the cache of a tower, or begin one.

    Args:
        directory: An existing cache, or an empty or missing directory.

    Raises:
        TrainingError: It is the cache of another tower, or no cache, or cannot be written.
    """
    shape = tower.token_shape
    written = msgspec.json.encode(
        {**asdict(tower.identity), "schema": _SCHEMA, "dtype": "float16", "shape": shape}
    )
    path = directory / _INFO
    try:
        if path.exists():
            _require_same(directory, written)
        elif any(not entry.name.startswith(".") for entry in directory.glob("*")):
            raise TrainingError(
                f"{directory} is not a token cache: it holds files and no {_INFO}",
                "name an empty or new directory with --cache",
            )
        else:
            directory.mkdir(parents=True, exist_ok=True)
            _write_whole(path, msgspec.json.format(written, indent=2))
        for name in ("tokens", "masks"):
            (directory / name).mkdir(exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"the token cache {directory} cannot be opened: {error}",
            "name a directory that can be written with --cache",
        ) from error
    return TokenCache(directory, shape, tower.identity.image_size)


def unpack_mask(packed: bytes, image_size: int) -> NDArray[np.bool_]:
    """Unpack a mask from its bits; no bits at all stand for a good part.

    Returns:
        bool [image_size, image_size].
    """
    if not packed:
        return np.zeros((image_size, image_size), np.bool_)
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=image_size**2)
    return bits.reshape(image_size, image_size).astype(np.bool_)


def joint_key(parts: list[str]) -> str:
    """Join the keys of several files, in order, into the key of what is made of them."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _require_same(directory: Path, written: bytes) -> None:
    remedy = "name another directory with --cache, or delete this one"
    try:
        have = msgspec.json.decode((directory / _INFO).read_bytes(), type=dict[str, object])
    except msgspec.DecodeError as error:
        raise TrainingError(f"{directory / _INFO} cannot be read ({error})", remedy) from error
    want = msgspec.json.decode(written, type=dict[str, object])
    for name, value in want.items():
        found = have.get(name)
        if found != value:
            raise TrainingError(
                f"the token cache {directory} is of another tower: its {name} is {found},"
                f" and this run's is {value}",
                remedy,
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _write_whole(path: Path, content: bytes | memoryview) -> None:
    # always the same name, so that the next run overwrites what a killed one left
    partial = path.with_name(f".{path.name}.partial")
    try:
        with replacing(path, partial):
            partial.write_bytes(content)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error}",
            "make space on its disk, or name another directory with --cache; what is there is kept",
        ) from error


def _read_whole(path: Path, size: int) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be read: {error}", "start again; what is missing is made anew"
        ) from error
    if len(content) != size:
        raise TrainingError(
            f"{path} has {len(content)} bytes, not {size}",
            "start again; what is not whole is made anew",
        )
    return content
