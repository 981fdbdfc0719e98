"""The prompt bank, against the safetensors format itself."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zeroflaw_engines.bundle.prompt_bank import (
    check_text_embeddings,
    encode_prompt_bank,
    read_prompt_bank,
)
from zeroflaw_engines.errors import BundleDamagedError, ProductError


def unit_rows(rng: np.random.Generator, size: int = 32) -> np.ndarray:
    rows = rng.normal(size=(2, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_bytes_are_those_of_the_format(rng: np.random.Generator) -> None:
    """Parsed by hand: 8 bytes of length, a JSON header, then little-endian rows."""
    bank = {"b": unit_rows(rng), "a": unit_rows(rng)}
    data = encode_prompt_bank(bank)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert set(header) - {"__metadata__"} == {"a", "b"}
    for name, want in bank.items():
        assert header[name]["dtype"] == "F32"
        assert header[name]["shape"] == [2, 32]
        start, end = header[name]["data_offsets"]
        raw = data[8 + length + start : 8 + length + end]
        np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(2, 32), want)


def test_round_trip(rng: np.random.Generator, tmp_path: Path) -> None:
    bank = {"metal_nut": unit_rows(rng), "Schraube groß": unit_rows(rng)}
    (tmp_path / "bank").write_bytes(encode_prompt_bank(bank))
    got = read_prompt_bank(tmp_path / "bank", 32)
    assert got.keys() == bank.keys()
    for name, want in bank.items():
        np.testing.assert_array_equal(got[name], want)


def test_rows_that_are_not_contiguous_are_written_in_order(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    rows = np.asfortranarray(unit_rows(rng))
    (tmp_path / "bank").write_bytes(encode_prompt_bank({"x": rows}))
    np.testing.assert_array_equal(read_prompt_bank(tmp_path / "bank", 32)["x"], rows)


def test_the_order_of_adding_does_not_change_the_bytes(rng: np.random.Generator) -> None:
    a, b = unit_rows(rng), unit_rows(rng)
    assert encode_prompt_bank({"a": a, "b": b}) == encode_prompt_bank({"b": b, "a": a})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda rows: rows.astype(np.float64), "float64"),
        (lambda rows: rows.astype(np.float16), "float16"),
        (lambda rows: rows.T, r"\[32, 2\]"),
        (lambda rows: rows[:1], r"\[1, 32\]"),
        (lambda rows: rows[:, :31], r"\[2, 31\]"),
        (lambda rows: rows[None], r"\[1, 2, 32\]"),
        (lambda rows: rows * np.float32(1.01), "normalised"),
        (lambda rows: rows * np.float32([[1], [0]]), "normalised"),
        (lambda rows: np.where(np.arange(32) == 3, np.float32("nan"), rows), "finite"),
        (lambda rows: np.where(np.arange(32) == 3, np.float32("inf"), rows), "finite"),
    ],
)
def test_embeddings_that_are_refused(rng: np.random.Generator, change, fault: str) -> None:
    with pytest.raises(ProductError, match=fault) as caught:
        check_text_embeddings("bolt", change(unit_rows(rng)), 32)
    assert "'bolt'" in caught.value.cause
    assert "products add" in caught.value.remedy


def test_good_embeddings_are_accepted(rng: np.random.Generator) -> None:
    check_text_embeddings("bolt", unit_rows(rng), 32)


@pytest.mark.parametrize("keep", [0, 4, 7, 8, 20, 100, -1])
def test_a_truncated_bank_is_named(rng: np.random.Generator, tmp_path: Path, keep: int) -> None:
    (tmp_path / "bank").write_bytes(encode_prompt_bank({"x": unit_rows(rng)})[:keep])
    with pytest.raises(BundleDamagedError) as caught:
        read_prompt_bank(tmp_path / "bank", 32)
    assert str(tmp_path / "bank") in caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize("data", [b"text", b"\xff" * 64, b"\0" * 64, b"PK\x03\x04" + b"x" * 64])
def test_garbage_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bank").write_bytes(data)
    with pytest.raises(BundleDamagedError) as caught:
        read_prompt_bank(tmp_path / "bank", 32)
    assert str(tmp_path / "bank") in caught.value.cause


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_bank_of_another_dtype_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"x": torch.full((2, 32), 32**-0.5, dtype=dtype)}, tmp_path / "bank")
    with pytest.raises((ProductError, BundleDamagedError)):
        read_prompt_bank(tmp_path / "bank", 32)


def test_a_bank_of_another_clip_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    (tmp_path / "bank").write_bytes(encode_prompt_bank({"x": unit_rows(rng, 64)}))
    with pytest.raises(ProductError, match=r"float32\[2, 32\]"):
        read_prompt_bank(tmp_path / "bank", 32)
