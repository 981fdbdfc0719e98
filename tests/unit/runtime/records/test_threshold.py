"""Which threshold applies, and what is said about it."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from zeroflaw.records.threshold import decision_threshold, is_near_one
from zeroflaw.station.conformal import conformal_threshold
from zeroflaw_engines.bundle.manifest import Calibration, Product, parameters_record
from zeroflaw_engines.bundle.products.settings import ProductSettings, Rule
from zeroflaw_engines.parameters import MethodParameters

BACKEND = "onnxruntime 1.32.0 CPU"
PARAMETERS = MethodParameters()


def calibrated(threshold: float = 0.8, **changes: object) -> Product:
    fields = {
        "false_reject_rate": 0.1,
        "images": 9,
        "rank": 9,
        "interval": (0.0, 0.3),
        "observed_rate": 0.0,
        "image_scoring": "cls",
        "data_digest": "0" * 64,
        "created": "",
        "backend": BACKEND,
        "precision": "fp32",
        "parameters": dataclasses.asdict(PARAMETERS),
        "parameters_digest": PARAMETERS.digest,
    }
    return Product(
        sentences=(1, 1), threshold=threshold, calibration=Calibration(**{**fields, **changes})
    )


def test_under_the_settings_of_the_calibration_nothing_is_said() -> None:
    got = decision_threshold("nut", calibrated(), PARAMETERS, backend=BACKEND)
    assert got == (0.8, ())


@pytest.mark.parametrize(
    ("backend", "parameters", "named"),
    [
        ("openvino 2026.4 CPU bf16", {}, [BACKEND, "openvino 2026.4 CPU bf16"]),
        (BACKEND, {"cascade_stages": 2}, ["cascade_stages=3, now 2"]),
        (BACKEND, {"min_contrast": 0.5, "scoring": "map"}, ["min_contrast", "scoring=fused"]),
    ],
)
def test_other_settings_are_named(backend: str, parameters: dict, named: list[str]) -> None:
    changed = PARAMETERS.replace(**parameters)
    threshold, warnings = decision_threshold("nut", calibrated(), changed, backend=backend)
    assert threshold == 0.8
    (warning,) = warnings
    for text in ("'nut'", "calibrate it again", *named):
        assert text in warning


@pytest.mark.parametrize(
    ("then", "now", "named"),
    [
        ({}, {"refiner": "mmr"}, "refiner=cascade, now mmr"),
        ({"refiner": "mmr"}, {}, "refiner=mmr, now cascade"),
        ({"refiner": "mmr", "mmr_points": 9}, {"refiner": "none"}, "refiner=mmr, now none"),
        ({"refiner": "mmr"}, {"refiner": "mmr", "mmr_points": 9}, "mmr_points=5, now 9"),
    ],
)
def test_another_refiner_is_named_and_not_what_it_alone_reads(
    then: dict, now: dict, named: str
) -> None:
    was = PARAMETERS.replace(**then)
    product = calibrated(parameters=parameters_record(was), parameters_digest=was.digest)
    assert decision_threshold("nut", product, was, backend=BACKEND) == (0.8, ())
    _, (warning,) = decision_threshold("nut", product, PARAMETERS.replace(**now), backend=BACKEND)
    assert f": {named};" in warning


def test_what_an_older_calibration_did_not_record_is_not_compared() -> None:
    old = calibrated(backend=None, precision=None, parameters=None, parameters_digest=None)
    changed = PARAMETERS.replace(cascade_stages=1)
    assert decision_threshold("nut", old, changed, backend="other") == (0.8, ())
    fewer = calibrated(parameters={"cascade_stages": 3})
    assert decision_threshold("nut", fewer, PARAMETERS, backend=BACKEND) == (0.8, ())


@pytest.mark.parametrize("product", [calibrated(), Product(sentences=(1, 1), threshold=0.8)])
@pytest.mark.parametrize("given", [0.5, 0.3])
def test_a_threshold_that_was_given_is_applied_and_said(product: Product, given: float) -> None:
    parameters = PARAMETERS.replace(decision_threshold=given)
    threshold, warnings = decision_threshold("nut", product, parameters, explicit=True)
    assert threshold == given
    (warning,) = warnings
    assert f"decision_threshold={given}" in warning
    assert "0.800000" in warning
    assert ("calibrated" in warning) == (product.calibration is not None)


def test_a_threshold_that_replaces_none_needs_no_warning() -> None:
    product = Product(sentences=(1, 1))
    assert decision_threshold("nut", product, PARAMETERS, explicit=True) == (0.5, ())
    assert decision_threshold("nut", calibrated(0.5), PARAMETERS, explicit=True) == (0.5, ())


@pytest.mark.parametrize(
    ("threshold", "near"), [(1.0, True), (0.9995, True), (0.999, True), (0.9989, False), (0, False)]
)
def test_a_threshold_near_one_is_said(threshold: float, near: bool) -> None:
    assert is_near_one(threshold) == near
    _, warnings = decision_threshold("nut", calibrated(threshold), PARAMETERS, backend=BACKEND)
    assert any("nearly every part is accepted" in text for text in warnings) == near
    given = PARAMETERS.replace(decision_threshold=threshold)
    _, warnings = decision_threshold("nut", Product(sentences=(1, 1)), given, explicit=True)
    assert bool(warnings) == near


@pytest.mark.parametrize(("highest", "near"), [(0.9999, True), (0.99, False)])
def test_a_calibration_near_one_is_said(highest: float, near: bool) -> None:
    fit = conformal_threshold([0.1] * 98 + [highest], 0.01)
    assert any("within 0.001 of 1" in text for text in fit.warnings) == near


BANK, OTHER_BANK = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("calibrated_with", "used", "named"),
    [
        (BANK, OTHER_BANK, ["the reference bank aaaaaaaaaaaa", "the reference bank bbbbbbbbbbbb"]),
        (BANK, None, ["the reference bank aaaaaaaaaaaa", "with no reference bank"]),
        (None, BANK, ["with no reference bank", "the reference bank aaaaaaaaaaaa"]),
    ],
)
def test_a_threshold_of_another_bank_is_set_aside(
    calibrated_with: str | None, used: str | None, named: list[str]
) -> None:
    product = calibrated(reference=calibrated_with)
    threshold, (warning,) = decision_threshold(
        "nut", product, PARAMETERS, backend=BACKEND, reference=used
    )
    assert threshold == PARAMETERS.decision_threshold
    for text in ("'nut'", "is applied instead", *named):
        assert text in warning
    # One that the user gave says that it is applied, whatever became of the product's own.
    given = PARAMETERS.replace(decision_threshold=0.3)
    assert decision_threshold("nut", product, given, explicit=True, reference=used)[0] == 0.3


@pytest.mark.parametrize(
    ("changes", "aside"),
    [
        ({}, False),
        ({"reference_distance": "half_cosine"}, True),
        ({"reference_image_scoring": "reference"}, True),
        ({"reference_fusion": "max"}, False),
    ],
)
def test_parameters_that_change_the_score_with_a_bank_set_the_threshold_aside(
    changes: dict, aside: bool
) -> None:
    parameters = PARAMETERS.replace(**changes)
    product = calibrated(reference=BANK)
    threshold, warnings = decision_threshold(
        "nut", product, parameters, backend=BACKEND, reference=BANK
    )
    assert threshold == (PARAMETERS.decision_threshold if aside else 0.8)
    assert len(warnings) == (1 if changes else 0)
    for name, value in changes.items():
        assert name in warnings[0]
        assert value in warnings[0]
    # Without a bank they change nothing.
    got = decision_threshold("nut", calibrated(), parameters, backend=BACKEND)
    assert got == (0.8, ())


BARE = Rule(name="large", min_area_px=50)


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ((BARE,), "the rule 'large'"),
        ((BARE, Rule(name="any")), "the rules 'large', 'any'"),
        ((Rule(name="sure", min_peak=0.4), Rule(name="whole", by="image_score")), None),
        ((), None),
    ],
)
def test_a_threshold_for_image_scores_that_limits_peaks_is_said(
    rules: tuple[Rule, ...], named: str | None
) -> None:
    settings = ProductSettings(frame_width=320, frame_height=240, rules=rules)
    bare = Product(sentences=(1, 1), settings=settings)
    own = msgspec.structs.replace(calibrated(), settings=settings)
    of_other_bank = msgspec.structs.replace(calibrated(reference="a" * 64), settings=settings)
    given = PARAMETERS.replace(decision_threshold=0.9)

    def said(product: Product, **how: object) -> bool:
        _, warnings = decision_threshold("nut", product, given, backend=BACKEND, **how)
        texts = [text for text in warnings if "compare" in text]
        assert all(
            named is not None and f"0.9 is made for image scores, and {named}" in text
            for text in texts
        )
        return len(texts) == 1

    expected = named is not None
    assert said(bare) == said(bare, explicit=True) == expected
    # One of the product's own that is set aside, or replaced.
    assert said(of_other_bank) == said(own, explicit=True) == expected
    assert not said(own)
