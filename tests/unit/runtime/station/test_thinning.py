"""Thinning, against brute force; and what the guarantee of leave-one-out rests on."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflaw.station.thinning import bank_of_photos, greedy_coreset, rows_of_a_photo, thinned
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.errors import ReferenceBankError

TOWER = "0" * 64


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.normal(size=shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def brute_force(tokens: np.ndarray, rows: int) -> list[int]:
    """Farthest first, by Euclidean distances in double precision, one loop a token."""
    exact = tokens.astype(np.float64)
    chosen = [int(np.argmax(exact @ exact.mean(axis=0)))]
    while len(chosen) < min(rows, len(exact)):
        far = [
            -1.0 if i in chosen else min(float(np.linalg.norm(exact[i] - exact[j])) for j in chosen)
            for i in range(len(exact))
        ]
        chosen.append(int(np.argmax(far)))
    return chosen


@pytest.mark.parametrize("rows", [1, 2, 7, 30, 40])
def test_the_coreset_is_that_of_brute_force(rng, rows: int) -> None:
    tokens = unit(rng, 30, 8)
    assert greedy_coreset(tokens, rows).tolist() == brute_force(tokens, rows)


def test_each_token_is_chosen_once_even_where_tokens_are_equal(rng) -> None:
    tokens = unit(rng, 5, 8).repeat(4, axis=0)
    assert sorted(greedy_coreset(tokens, 20).tolist()) == list(range(20))
    assert len({tuple(tokens[i]) for i in greedy_coreset(tokens, 5)}) == 5


def test_fewer_rows_are_a_beginning_of_more(rng) -> None:
    tokens = unit(rng, 2, 50, 8)
    most = thinned(tokens, 50)
    for rows in (1, 3, 20, 49):
        np.testing.assert_array_equal(thinned(tokens, rows), most[:, :rows])


def test_blocks_are_thinned_each_by_itself(rng) -> None:
    tokens = unit(rng, 3, 20, 8)
    for block, alone in zip(thinned(tokens, 6), tokens, strict=True):
        np.testing.assert_array_equal(block, thinned(alone[None], 6)[0])


def test_the_bank_without_a_photo_is_that_of_the_others(rng) -> None:
    photos = [thinned(unit(rng, 2, 30, 8), rows) for rows in (5, 3, 5, 5)]
    bank = bank_of_photos(photos, TOWER)
    assert bank.photos.tolist() == [0] * 5 + [1] * 3 + [2] * 5 + [3] * 5
    for left_out in range(4):
        others = bank_of_photos([p for i, p in enumerate(photos) if i != left_out], TOWER)
        np.testing.assert_array_equal(bank.without_photo(left_out).tokens, others.tokens)


def distances(tokens: np.ndarray, bank: ReferenceBank) -> np.ndarray:
    cosines = np.einsum("lnd,lrd->lnr", tokens, bank.tokens.astype(np.float32))
    return (1 - cosines.max(axis=-1)).mean(axis=0)


def test_a_distance_never_falls_where_a_photo_is_taken_out(rng) -> None:
    bank = bank_of_photos([thinned(unit(rng, 2, 30, 8), 5) for _ in range(6)], TOWER)
    tokens = unit(rng, 2, 40, 8)
    whole = distances(tokens, bank)
    for photo in range(6):
        fewer = bank.without_photo(photo)
        assert (distances(tokens, fewer) >= whole).all()
        assert (distances(tokens, fewer) > whole).any()
        for other in range(6):
            assert (distances(tokens, fewer.without_photo(other)) >= distances(tokens, fewer)).all()


def test_rows_are_shared_equally() -> None:
    assert rows_of_a_photo(8, 2048) == 256
    assert rows_of_a_photo(3, 10) == 3
    assert rows_of_a_photo(10, 10) == 1
    assert rows_of_a_photo(3, 40, tiles=4) == 3
    with pytest.raises(ReferenceBankError, match="4 tiles share: 2 each"):
        rows_of_a_photo(3, 11, tiles=4)
    with pytest.raises(ReferenceBankError, match="11 photos do not fit into a bank of 10 rows"):
        rows_of_a_photo(11, 10)
