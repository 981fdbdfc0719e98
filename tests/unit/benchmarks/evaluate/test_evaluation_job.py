from types import SimpleNamespace

import numpy as np
import pytest

from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics
from zeroflaw_benchmarks.evaluate.passes.decoding_pass import (
    DecodingOptions,
    StageMask,
    decoded_parameters,
    read_stage_mask,
    write_stage_masks,
)
from zeroflaw_benchmarks.evaluate.passes.encoding_pass import Truth, encoding_variant
from zeroflaw_benchmarks.evaluate.passes.measuring_pass import processes_within_memory
from zeroflaw_benchmarks.evaluate.passes.rows import required_decodings, table_rows
from zeroflaw_benchmarks.evaluate.passes.scorings import kept_scorings, own_scoring
from zeroflaw_benchmarks.evaluate.products import product_of_class
from zeroflaw_benchmarks.evaluate.report.published import TABLE_1, TABLE_2, TABLE_3
from zeroflaw_benchmarks.evaluate.result import mean_of
from zeroflaw_engines.errors import EvaluationError, ProductError
from zeroflaw_engines.parameters import MethodParameters


def test_rows_and_what_is_decoded_for_them():
    own = MethodParameters(extreme_threshold=0.3, cascade_stages=2)
    rows = table_rows(own, ["kernel", "cascade"])
    assert len(rows) == 4 + 9 + 3
    assert {row.parameters.extreme_threshold for row in rows} == {0.3}
    decodings = required_decodings(own, rows, 518)
    assert len(decodings) == 9  # the bundle's own kernel is one of the nine
    assert decodings[0].stages == (1, 2, 3)
    assert {decoding.stages for decoding in decodings[1:]} == {(2,)}
    assert len({decoding.digest() for decoding in decodings}) == 9
    assert required_decodings(own, table_rows(own, []), 518)[0].stages == (1, 2)


@pytest.mark.parametrize(
    ("change", "decodes_anew"),
    [
        ({"scoring": "map"}, False),
        ({"fusion_weight": 0.1}, False),
        ({"image_scoring": "map_max"}, False),
        ({"decision_threshold": 0.1}, False),
        ({"extreme_threshold": 0.4}, True),
        ({"dilation_size": 20}, True),
        ({"box": "per_component"}, True),
        ({"sam_input": "squashed"}, True),
        ({"no_region": "always_run"}, True),
        ({"refiner": "mmr"}, True),
        ({"refiner": "mmr", "mmr_seed": 5}, True),
    ],
)
def test_what_needs_another_decoding(change, decodes_anew):
    own = MethodParameters()
    assert (decoded_parameters(own.replace(**change)) != decoded_parameters(own)) == decodes_anew


def test_decodings_of_two_refiners_are_never_the_same():
    mmr = decoded_parameters(MethodParameters(refiner="mmr"))
    digests = {
        DecodingOptions(one, (3,), size, kept_scorings(one)).digest()
        for one in (mmr, mmr.replace(mmr_seed=5), mmr.replace(fusion_weight=0.3),
                    decoded_parameters(MethodParameters()))
        for size in (448, 518)
    }  # fmt: skip
    # Masks of the cascade are kept at their own size, and fused afterwards.
    assert len(digests) == 2 * 3 + 1
    assert kept_scorings(MethodParameters(refiner="none")) == ()
    assert kept_scorings(MethodParameters(refiner="mmr"), of_draws=True) == ("fused",)
    assert own_scoring(MethodParameters(refiner="none")) == "map"
    # Its score map is its own, whatever `scoring` says.
    assert own_scoring(MethodParameters(refiner="box_proposals", scoring="map")) == "fused"
    assert own_scoring(MethodParameters(refiner="mmr", scoring="map")) == "map"
    with pytest.raises(EvaluationError, match="--ablate kernel is of the cascade"):
        table_rows(MethodParameters(refiner="mmr"), ["kernel"])


def test_what_needs_another_encoding():
    own, embeddings = MethodParameters(), np.eye(2, dtype=np.float32)
    variant = encoding_variant("ort 1", own, embeddings)
    assert encoding_variant("ort 1", own.replace(dilation_size=3), embeddings) == variant
    others = {
        encoding_variant("ort 2", own, embeddings),
        encoding_variant("ort 1", own.replace(sam_input="squashed"), embeddings),
        encoding_variant("ort 1", own, embeddings * 2),
        encoding_variant("ort 1", own, embeddings, with_features=False),
    }
    assert len(others - {variant}) == 4


def test_product_of_class():
    def bundle(*products):
        return SimpleNamespace(path="b", manifest=SimpleNamespace(products=dict.fromkeys(products)))

    assert product_of_class(bundle("screw", "tile"), "tile") == "tile"
    assert product_of_class(bundle("object"), "tile") == "object"
    assert product_of_class(bundle("screw", "tile"), "tile", "screw") == "screw"
    for products, class_name, forced in (
        (("screw", "tile"), "wood", None),
        ((), "wood", None),
        (("screw",), "screw", "wood"),
    ):
        with pytest.raises(ProductError, match="no product 'wood'") as caught:
            product_of_class(bundle(*products), class_name, forced)
        assert "--product" in caught.value.remedy


def test_stage_masks_survive_their_file(tmp_path, rng):
    one, two = rng.normal(size=(2, 8, 8)).astype(np.float32)
    masks = {
        1: StageMask("ok", 0.25, one),
        2: StageMask("ok", 1.5, two),
        3: StageMask("stage_3_empty", 1.5, two),
    }
    write_stage_masks(tmp_path / "ok.npz", masks)
    for stage, want in masks.items():
        got = read_stage_mask(tmp_path / "ok.npz", stage)
        assert (got.status, got.predicted_iou) == (want.status, want.predicted_iou)
        np.testing.assert_array_equal(got.low_res_logits, want.low_res_logits)
    with np.load(tmp_path / "ok.npz") as file:
        assert file["logits"].shape == (2, 8, 8)  # shared logits are kept once
    write_stage_masks(tmp_path / "none.npz", {3: StageMask("no_region", 0.0, None)})
    assert read_stage_mask(tmp_path / "none.npz", 3) == StageMask("no_region", 0.0, None)


def test_plans_are_named_by_parameters_and_stages():
    own = decoded_parameters(MethodParameters())
    digests = {
        DecodingOptions(own, (3,), 518).digest(),
        DecodingOptions(own, (1, 2, 3), 518).digest(),
        DecodingOptions(own.replace(positive_points=1), (3,), 518).digest(),
    }
    assert len(digests) == 3
    assert DecodingOptions(own, (3,), 518).digest() in digests


def test_truth_bits(rng):
    mask = rng.random((13, 13)) > 0.5
    truth = Truth("", np.packbits(mask).tobytes(), 13)
    np.testing.assert_array_equal(truth.mask(), mask)
    assert truth.mask().dtype == np.bool_


def test_means_leave_out_what_is_undefined():
    nan = float("nan")
    classes = {"a": ImageMetrics(0.2, 0.5, nan), "b": ImageMetrics(nan, 0.7, nan)}
    mean = mean_of(ImageMetrics, classes)
    assert (mean.auroc, mean.average_precision) == pytest.approx((0.2, 0.6))
    assert np.isnan(mean.f1_max)


def test_processes_within_memory():
    assert processes_within_memory([10, 200], 518) == 4  # VisA's largest class has 201 images
    assert processes_within_memory([100_000], 518) == 1
    assert processes_within_memory([], 518) > 1


def test_published_figures():
    assert [len(table) for table in (TABLE_1, TABLE_2, TABLE_3)] == [9, 9, 3]
    hou = TABLE_1[-1].mvtec
    assert TABLE_2["ellipse", 25] == TABLE_3[3] == hou
    assert max(TABLE_2.values(), key=lambda figures: figures.f1_max) == hou
