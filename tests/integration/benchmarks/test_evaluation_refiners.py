"""Evaluations with refiners other than the cascade: their own score maps, and nothing mixed up."""

from __future__ import annotations

import dataclasses
import shutil

import msgspec
import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from support.evaluations import MAP_SIZE, evaluated, evaluated_job
from support.exported_bundle import with_proposer
from zeroflaw import Inspector
from zeroflaw_benchmarks.evaluate.comparison.methods import methods_of
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import map_at_size, read_scores
from zeroflaw_benchmarks.evaluate.passes.measuring_pass import CachedSample, cached_score
from zeroflaw_benchmarks.evaluate.passes.scorings import SCORINGS_OF_REFINER
from zeroflaw_benchmarks.evaluate.report.contact_sheet import class_sheet
from zeroflaw_benchmarks.evaluate.report.tables import markdown
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.manifest import LOCALIZERS_SINCE, parameters_record
from zeroflaw_engines.bundle.writer import replace_manifest
from zeroflaw_engines.errors import EvaluationError


def parameters_of(bundle, refiner):
    return bundle.manifest.method_parameters.replace(refiner=refiner)


@pytest.mark.parametrize("refiner", ["mmr", "none"])
def test_score_maps_are_those_of_an_inspector_bit_by_bit(
    refiner, tiny_bundle, dataset_dir, tmp_path
) -> None:
    parameters = parameters_of(tiny_bundle, refiner)
    job, got = evaluated_job(tiny_bundle, dataset_dir, tmp_path, parameters=parameters)
    scorings = SCORINGS_OF_REFINER[refiner]
    assert tuple(row.name for row in got.table("scoring")) == scorings
    assert sum(got.statuses.values()) == len(job.samples)
    for scoring in scorings:
        own = parameters.replace(scoring=scoring)
        with (
            threadpool_limits(1),
            Inspector.load(tiny_bundle.path, parameters=own, threads=1) as inspector,
        ):
            for sample in job.samples[::3]:
                frame = np.asarray(Image.open(sample.sample.image))
                want = inspector.inspect(frame, product=sample.product).score_map
                file = job.decoding_file(sample, own)
                cached = CachedSample(sample.truth, sample.encoding, file, sample.reference)
                found = cached_score(cached, own, tiny_bundle.manifest.sizes)
                np.testing.assert_array_equal(found, want)
                assert want.shape == (MAP_SIZE, MAP_SIZE)
    text = markdown(got)
    assert f"refiner {refiner}" in text
    assert ("measured: fused" in text) == ("fused" in scorings)
    other = "proposal_score" if refiner == "mmr" else "mmr_points"
    assert other not in text
    sheet = class_sheet(job, job.samples_of("object")[:2])
    assert sheet.shape[1] < 5 * 224


def test_refiners_share_encodings_and_nothing_else(
    tiny_bundle, dataset_dir, tmp_path, calls
) -> None:
    plain = evaluated(tiny_bundle, dataset_dir, tmp_path)
    calls.clear()
    mmr = evaluated(
        tiny_bundle, dataset_dir, tmp_path, parameters=parameters_of(tiny_bundle, "mmr")
    )
    assert set(calls) == {"sam_decoder"}
    assert calls["sam_decoder"] <= 12
    assert mmr.table("scoring")[0].mean != plain.table("scoring")[0].mean
    assert mmr.table("scoring")[1].mean == plain.table("scoring")[1].mean
    assert mmr.image_rows == plain.image_rows
    calls.clear()
    # Without SAM its encoder is left out; with the encodings of the others at hand, CLIP's too.
    alone = parameters_of(tiny_bundle, "none")
    evaluated(tiny_bundle, dataset_dir, tmp_path, parameters=alone, keep_features=True)
    assert not calls
    none = evaluated(tiny_bundle, dataset_dir, tmp_path, parameters=alone)
    assert calls == {"clip_encoder": 12}
    assert none.table("scoring")[0].classes == plain.table("scoring")[1].classes
    again = evaluated(tiny_bundle, dataset_dir, tmp_path)
    # As text, since NaN is not equal to itself.
    assert str(again.table("scoring")) == str(plain.table("scoring"))


def test_what_a_refiner_does_not_have_is_refused(tiny_bundle, dataset_dir, tmp_path) -> None:
    with pytest.raises(EvaluationError, match="of the cascade, and the refiner is none"):
        evaluated(
            tiny_bundle,
            dataset_dir,
            tmp_path,
            parameters=parameters_of(tiny_bundle, "none"),
            ablations=("kernel",),
        )
    assert not list(tmp_path.rglob("*.npz"))


def test_boxes_are_proposed_as_an_inspector_proposes_them(
    tiny_bundle, dataset_dir, tmp_path
) -> None:
    proposing = open_bundle(with_proposer(tiny_bundle, tmp_path))
    cache = tmp_path / "cache"
    with pytest.raises(EvaluationError, match="takes the frame itself"):
        evaluated(proposing, dataset_dir, cache, shots=(1,))
    assert not list(cache.rglob("*.npz"))
    job, got = evaluated_job(proposing, dataset_dir, cache)
    scorings = tuple(row.name for row in got.table("scoring"))
    assert scorings == SCORINGS_OF_REFINER["box_proposals"]
    with Inspector.load(proposing.path, threads=1, encoder_schedule="clip_first") as inspector:
        for sample in job.samples[:2]:
            want = inspector.inspect(sample.sample.image, product=sample.product).score_map
            scores, _ = read_scores(sample.inspection, inspector.parameters.scoring)
            assert np.array_equal(scores, map_at_size(want, job.options.size))
            assert scores.max() > 0


def test_maps_of_another_size_are_read_at_that_size(tiny_bundle, dataset_dir, tmp_path) -> None:
    """Masks keep hard edges at any size: they are never resized."""
    parameters = parameters_of(tiny_bundle, "mmr").replace(scoring="mask", no_region="always_run")
    job, _ = evaluated_job(
        tiny_bundle, dataset_dir, tmp_path, parameters=parameters, size=MAP_SIZE + 60
    )
    seen = set()
    for sample in job.samples[:4]:
        file = job.decoding_file(sample, parameters)
        cached = CachedSample(sample.truth, sample.encoding, file, sample.reference)
        found = cached_score(cached, parameters, tiny_bundle.manifest.sizes)
        assert found.shape == (MAP_SIZE + 60, MAP_SIZE + 60)
        seen |= set(np.unique(found))
    assert seen == {0, 1}
    smaller = dataclasses.replace(job.decodings[0], size=MAP_SIZE)
    assert smaller.digest() != job.decodings[0].digest()


def test_a_bundle_without_sam(tiny_bundle, dataset_dir, tmp_path, calls) -> None:
    bundle = without_sam(tiny_bundle, tmp_path / "lean")
    want = evaluated(
        tiny_bundle, dataset_dir, tmp_path / "a", parameters=parameters_of(tiny_bundle, "none")
    )
    calls.clear()
    got = evaluated(bundle, dataset_dir, tmp_path / "b", keep_features=True)
    assert calls == {"clip_encoder": 12}
    assert got.table("scoring")[0].classes == want.table("scoring")[0].classes
    assert got.image_rows == want.image_rows
    assert "no SAM" in got.models
    both = [str(tiny_bundle.path), str(bundle.path)]
    names = [method.name for method in methods_of(both, ["none"], shots=True)]
    assert names == ["april_gan + cascade", "april_gan + none (tiny)", "april_gan + none (lean)"]
    with pytest.raises(EvaluationError, match=r"1 of the rows cannot be measured: .*lean with mmr"):
        methods_of(both, ["mmr"], shots=False)


def without_sam(bundle, path):
    """A copy for the map alone."""
    shutil.copytree(bundle.path, path)
    manifest = bundle.manifest
    engines = {n: e for n, e in manifest.engines.items() if not n.startswith("sam_")}
    files = {n: e for n, e in manifest.files.items() if not n.startswith("sam_")}
    parameters = parameters_record(parameters_of(bundle, "none"))
    replace_manifest(
        path,
        msgspec.structs.replace(
            manifest,
            schema_version=LOCALIZERS_SINCE,
            sam=None,
            engines=engines,
            files=files,
            parameters=parameters,
            parity=(),
        ),
    )
    return open_bundle(path, verify_digests=False)
