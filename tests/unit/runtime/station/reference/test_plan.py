"""Which photos go into the bank, and which calibrate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from zeroflaw.station.reference.photos import Photo
from zeroflaw.station.reference.plan import plan_learning, rows_of_budget
from zeroflaw_engines.contract import ReferenceSizes
from zeroflaw_engines.errors import ArgumentError, CalibrationError, ReferenceBankError

SIZES = ReferenceSizes(blocks=4, tokens=1369, width=1024, rows=2048)


def photos(n: int) -> list[Photo]:
    return [
        Photo(Path(f"{i}.png"), hashlib.sha256(f"photo {i}".encode()).hexdigest(), (10, 10))
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("n", "rate", "scheme", "bank", "calibrating"),
    [
        (2, 0.01, "leave_one_out", 2, 2),
        (8, 0.01, "leave_one_out", 8, 8),
        (114, 0.01, "leave_one_out", 114, 114),
        (115, 0.01, "split", 16, 99),  # 99 claim the rate, and 16 are worth a bank
        (150, 0.01, "split", 51, 99),
        (400, 0.01, "split", 64, 336),
        (35, 0.05, "split", 16, 19),
        (40, 0.2, "split", 20, 20),
        (19, 0.2, "leave_one_out", 19, 19),
    ],
)
def test_photos_are_split_where_enough_are_left_to_claim_the_rate(
    n: int, rate: float, scheme: str, bank: int, calibrating: int
) -> None:
    plan = plan_learning(photos(n), rate, rows=2048)
    assert (plan.scheme, len(plan.bank), len(plan.calibrating)) == (scheme, bank, calibrating)
    assert plan.rows_of_a_photo == 2048 // bank
    if scheme == "split":
        assert set(plan.bank).isdisjoint(plan.calibrating)
        assert set(plan.bank) | set(plan.calibrating) == set(photos(n))
    else:
        assert plan.bank == plan.calibrating == tuple(photos(n))


@pytest.mark.parametrize(
    ("choice", "shots", "scheme", "bank", "calibrating"),
    [
        ("split", None, "split", 10, 10),
        ("split", 3, "split", 3, 17),
        ("split", 1, "split", 1, 19),
        ("leave_one_out", 3, "leave_one_out", 3, 3),
        ("auto", 3, "leave_one_out", 3, 3),
    ],
)
def test_a_scheme_and_a_number_can_be_chosen(
    choice, shots: int | None, scheme: str, bank: int, calibrating: int
) -> None:
    plan = plan_learning(photos(20), 0.01, choice, rows=64, shots=shots)
    assert (plan.scheme, len(plan.bank), len(plan.calibrating)) == (scheme, bank, calibrating)
    assert plan_learning(photos(20), 0.1, rows=64, shots=3).scheme == "split"


def test_the_draw_is_of_contents_and_seed_alone() -> None:
    def drawn(seed: int, given: list[Photo]) -> set[str]:
        plan = plan_learning(given, 0.01, rows=64, shots=5, seed=seed)
        return {photo.sha256 for photo in plan.bank}

    given = photos(20)
    renamed = [Photo(Path("other"), one.sha256, one.size) for one in reversed(given)]
    assert drawn(0, given) == drawn(0, renamed)
    assert len({frozenset(drawn(seed, given)) for seed in range(5)}) == 5
    # One photo less changes no more than it must.
    for left_out in given:
        assert len(drawn(0, [one for one in given if one != left_out]) & drawn(0, given)) >= 4


@pytest.mark.parametrize(
    ("n", "arguments", "text"),
    [
        (0, {}, "there is no photo to learn from"),
        (0, {"failed": 3}, r"there is no photo to learn from \(3 files were left out\)"),
        (1, {}, "one photo alone cannot be learned from"),
        (8, {"shots": 1}, "one photo alone cannot be learned from"),
        (4, {"shots": 5}, "5 photos were to be drawn of 4"),
        (4, {"shots": 4, "calibration": "split"}, "all 4 photos would be in the bank"),
        (9, {"rows": 8}, "9 photos do not fit into a bank of 8 rows"),
    ],
)
def test_photos_that_do_not_do_are_refused(n: int, arguments: dict, text: str) -> None:
    with pytest.raises(ReferenceBankError, match=text) as caught:
        plan_learning(photos(n), 0.01, **{"rows": 64, **arguments})
    assert caught.value.remedy


def test_arguments_that_are_none_are_refused() -> None:
    for wrong in ({"shots": 0}, {"seed": -1}, {"calibration": "jackknife"}):
        with pytest.raises(ArgumentError):
            plan_learning(photos(9), 0.01, rows=64, **wrong)
    with pytest.raises(CalibrationError, match="not inside"):
        plan_learning(photos(9), 1.0, rows=64)


def test_a_budget_gives_whole_rows() -> None:
    assert rows_of_budget(SIZES, None) == 2048
    assert rows_of_budget(SIZES, SIZES.bank_bytes) == 2048
    assert rows_of_budget(SIZES, SIZES.bank_bytes - 1) == 2047
    assert rows_of_budget(SIZES, 8192) == 1
    for wrong in (8191, SIZES.bank_bytes + 1):
        with pytest.raises(ReferenceBankError, match=f"{wrong} bytes was asked for"):
            rows_of_budget(SIZES, wrong)
