"""Which threshold applies, and what is said about it."""

from __future__ import annotations

import dataclasses

import pytest

from zeroflaw.records.threshold import decision_threshold, is_near_one
from zeroflaw.station.calibration import conformal_threshold
from zeroflaw_engines.bundle.manifest import Calibration, Product
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
