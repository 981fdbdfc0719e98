"""The prompt bank: text embeddings by product name, in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from zeroflaw_engines.errors import BundleDamagedError, ProductError

TextEmbeddings = NDArray[np.float32]


def check_text_embeddings(name: str, embeddings: TextEmbeddings, embedding_size: int) -> None:
    """Check one product's embeddings.

    Args:
        embeddings: float32 [2, embedding_size]: row 0 normal, row 1 abnormal, L2-normalised.
        embedding_size: Width of the shared space; 0 where the localizer takes no texts.

    Raises:
        ProductError: Shape, dtype, finiteness or norm is not as stated.
    """
    fault = None
    if embeddings.dtype != np.float32 or embeddings.shape != (2, embedding_size):
        fault = f"{embeddings.dtype}{list(embeddings.shape)}, not float32[2, {embedding_size}]"
    elif not np.isfinite(embeddings).all():
        fault = "not finite"
    elif embedding_size and np.abs(np.linalg.norm(embeddings, axis=1) - 1).max() > 1e-3:
        fault = "not L2-normalised"
    if fault:
        raise ProductError(
            f"the text embeddings of product {name!r} are {fault}",
            "compute them with `zeroflaw products add` for this bundle",
        )


def no_text_embeddings() -> TextEmbeddings:
    """Return the embeddings of a product whose localizer takes no texts, float32 [2, 0]."""
    return np.zeros((2, 0), np.float32)


def encode_prompt_bank(bank: Mapping[str, TextEmbeddings]) -> bytes:
    """Encode the bank as a safetensors file."""
    data: bytes = save({name: np.ascontiguousarray(value) for name, value in sorted(bank.items())})
    return data


def read_prompt_bank(path: Path, embedding_size: int) -> dict[str, TextEmbeddings]:
    """Read the bank; see `decode_prompt_bank`.

    Raises:
        BundleDamagedError: The file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleDamagedError(
            f"the prompt bank {path} cannot be read ({error})", "export the bundle again"
        ) from error
    return decode_prompt_bank(data, path, embedding_size)


def decode_prompt_bank(data: bytes, path: Path, embedding_size: int) -> dict[str, TextEmbeddings]:
    """Decode the bank.

    Args:
        embedding_size: Width of the shared space.

    Returns:
        float32 [2, embedding_size] by product name.

    Raises:
        BundleDamagedError: It is not a safetensors file.
        ProductError: An entry is not a product's embeddings.
    """
    try:
        bank = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleDamagedError(
            f"the prompt bank {path} cannot be read ({error})", "export the bundle again"
        ) from error
    for name, embeddings in bank.items():
        check_text_embeddings(name, embeddings, embedding_size)
    return dict(bank)
