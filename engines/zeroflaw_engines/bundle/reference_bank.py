"""Reference banks: patch tokens of a product's good photos, in one safetensors file a product."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from zeroflaw_engines.bundle.manifest import Reference
from zeroflaw_engines.contract import ReferenceSizes
from zeroflaw_engines.errors import BundleDamagedError, ReferenceBankError

# FP16 rounds each of a token's values by 2^-11 of itself at most.
_NORM_TOLERANCE: Final = 2e-3


@dataclass(frozen=True, eq=False)
class ReferenceBank:
    """The tokens of a product's good photos.

    Attributes:
        tokens: float16 [blocks, rows, width], L2-normalised, in the order of the photos.
        photos: int32 [rows], the number of the photo that each row is of, from 0, ascending.
        tower: Digest of the CLIP encoder that gave the tokens; see `Bundle.tower`.
        tiles: int32 [rows], ascending, of banks of one tile each that lie one after the other: the
            number of the tile that each row is of, in each of which the photos begin anew; None:
            one bank for all tiles, or for the frame as a whole.
    """

    tokens: NDArray[np.float16]
    photos: NDArray[np.int32]
    tower: str
    tiles: NDArray[np.int32] | None = None

    @property
    def rows(self) -> int:
        """Rows for each block."""
        return int(self.tokens.shape[1])

    def without_photo(self, number: int) -> ReferenceBank:
        """Return the bank without the rows of one photo."""
        return self._of_rows(self.photos != number)

    @property
    def tile_numbers(self) -> tuple[int, ...]:
        """Tiles that have a bank each; none of one bank for all."""
        return () if self.tiles is None else tuple(np.unique(self.tiles).tolist())

    def of_tile(self, number: int) -> ReferenceBank:
        """Return the bank of one tile, of banks of one each."""
        of_tile = self._of_rows(np.asarray(self.tiles == np.int32(number), np.bool_))
        return ReferenceBank(of_tile.tokens, of_tile.photos, of_tile.tower)

    def _of_rows(self, rows: NDArray[np.bool_]) -> ReferenceBank:
        tiles = None if self.tiles is None else self.tiles[rows]
        return ReferenceBank(self.tokens[:, rows], self.photos[rows], self.tower, tiles)

    def padded(self, rows: int) -> NDArray[np.float16]:
        """Return the tokens with zeros after them, float16 [blocks, rows, width]."""
        padded = np.zeros((self.tokens.shape[0], rows, self.tokens.shape[2]), np.float16)
        padded[:, : self.rows] = self.tokens
        return padded


def check_reference_bank(bank: ReferenceBank, sizes: ReferenceSizes | None, tower: str) -> None:
    """Refuse a bank that does not belong to a bundle, or that nothing can be matched with.

    Args:
        sizes: Of the bundle; None if it takes no banks.
        tower: Digest of the bundle's CLIP encoder.

    Raises:
        ReferenceBankError: The bundle takes no banks; the bank is of another encoder or size; or
            its tokens are not finite, not L2-normalised or not assigned to photos.
    """
    if sizes is None:
        raise ReferenceBankError(
            "this bundle takes no reference banks: it has no reference_matcher",
            "export the bundle again with this version of zeroflaw",
        )
    _refuse(_fault(bank, sizes, tower))


def check_described(bank: ReferenceBank, reference: Reference) -> None:
    """Refuse a bank that is not the one that the manifest describes.

    Raises:
        ReferenceBankError: It is of another encoder, or has other rows or photos.
    """
    found = (bank.tower, bank.rows, int(bank.photos[-1]) + 1)
    if bank.tile_numbers != reference.tiles:
        _refuse(
            f"is not the one described: it is of the tiles {list(bank.tile_numbers)}, not"
            f" {list(reference.tiles)}"
        )
    if found != (reference.tower, reference.rows, len(reference.photos)):
        _refuse(
            f"is not the one described: encoder {bank.tower[:12]}, {found[1]} rows and {found[2]}"
            f" photos, not {reference.tower[:12]}, {reference.rows} and {len(reference.photos)}"
        )


def encode_reference_bank(bank: ReferenceBank) -> bytes:
    """Encode a bank as a safetensors file; the tower's digest is a tensor of 32 bytes."""
    arrays: dict[str, NDArray[Any]] = {
        "tokens": np.ascontiguousarray(bank.tokens),
        "photos": np.ascontiguousarray(bank.photos),
        "tower": np.frombuffer(bytes.fromhex(bank.tower), np.uint8),
    }
    if bank.tiles is not None:
        arrays["tiles"] = np.ascontiguousarray(bank.tiles)
    data: bytes = save(arrays)
    return data


def decode_reference_bank(
    data: bytes, path: Path, sizes: ReferenceSizes | None, of_bundle: str
) -> ReferenceBank:
    """Decode a bank, and check that it belongs to a bundle; see `check_reference_bank`.

    Args:
        path: For error messages.
        of_bundle: Digest of the bundle's CLIP encoder.

    Raises:
        BundleDamagedError: It is not such a file.
        ReferenceBankError: It does not belong to the bundle.
    """
    try:
        arrays: dict[str, NDArray[Any]] = load(data)
        tower = arrays["tower"].tobytes().hex()
        bank = ReferenceBank(arrays["tokens"], arrays["photos"], tower, arrays.get("tiles"))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleDamagedError(
            f"the reference bank {path} cannot be read ({error})",
            "copy the bundle anew, or learn the product again",
        ) from error
    check_reference_bank(bank, sizes, of_bundle)
    return bank


def digest_of_bank(data: bytes) -> str:
    """Name an encoded bank: SHA-256, as the manifest and inspections record it."""
    return hashlib.sha256(data).hexdigest()


def _refuse(fault: str | None) -> None:
    if fault:
        raise ReferenceBankError(
            f"the reference bank {fault}",
            "learn the product anew with `zeroflaw products learn`, in this bundle",
        )


def _fault(bank: ReferenceBank, sizes: ReferenceSizes, tower: str) -> str | None:
    """Say what is wrong with a bank; None if nothing is."""
    if bank.tower != tower:
        return f"is of another CLIP encoder ({bank.tower[:12]}, not {tower[:12]})"
    tokens = bank.tokens
    blocks, width = sizes.blocks, sizes.width
    if tokens.dtype != np.float16 or tokens.ndim != 3 or tokens.shape[::2] != (blocks, width):
        return (
            f"has tokens {tokens.dtype}{list(tokens.shape)}, not float16[{blocks}, rows, {width}]"
        )
    if not 1 <= bank.rows <= sizes.rows:
        return f"has {bank.rows} rows a block, not 1 to {sizes.rows}"
    return _fault_of_numbers(bank) or _fault_of_tokens(tokens)


def _fault_of_numbers(bank: ReferenceBank) -> str | None:
    photos, tiles = bank.photos, bank.tiles
    if tiles is not None and (
        tiles.dtype != np.int32
        or tiles.shape != (bank.rows,)
        or tiles[0] < 0
        or (np.diff(tiles) < 0).any()
    ):
        return "does not say of which tile each row is"
    fault = "does not say of which photo each row is"
    if photos.dtype != np.int32 or photos.shape != (bank.rows,):
        return fault
    ends = [] if tiles is None else (np.flatnonzero(np.diff(tiles)) + 1).tolist()
    # Each tile has rows of each photo.
    for part in np.split(photos, ends):
        whole = part[0] == 0 and part[-1] == photos[-1]
        if not (whole and np.isin(np.diff(part), (0, 1)).all()):
            return fault
    return None


def _fault_of_tokens(tokens: NDArray[np.float16]) -> str | None:
    norms = np.linalg.norm(tokens.astype(np.float32), axis=-1)
    if not np.isfinite(norms).all():
        return "has tokens that are not finite"
    if np.abs(norms - 1).max() > _NORM_TOLERANCE:
        return "has tokens that are not L2-normalised"
    return None
