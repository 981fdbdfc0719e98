"""What an evaluation computes, keeps and takes from its cache."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from support.evaluations import evaluated
from zeroflaw import MethodParameters
from zeroflaw_benchmarks.evaluate import cache as evaluation_cache
from zeroflaw_benchmarks.evaluate.report.tables import evaluation_json
from zeroflaw_engines.errors import EvaluationError, ProductError


def test_ablations_run_the_encoders_once_and_change_only_what_they_should(
    tiny_bundle, dataset_dir, tmp_path, calls
) -> None:
    cache = tmp_path / "cache"
    plain = evaluated(tiny_bundle, dataset_dir, cache)
    assert calls == {"clip_encoder": 12, "sam_encoder": 12, "sam_decoder": 36}
    calls.clear()
    ablated = evaluated(tiny_bundle, dataset_dir, cache, ablations=("kernel", "cascade"))
    # Nine kernels of which one is the bundle's own; stages 1 and 2 were decoded on the way.
    assert calls == {"sam_decoder": 8 * 36}
    # As text, since NaN is not equal to itself.
    assert str(ablated.table("scoring")) == str(plain.table("scoring"))
    assert ablated.image_rows == plain.image_rows
    for row in ablated.table("kernel"):
        changed = ("dilation_kernel", "dilation_size")
        assert differing(row.parameters, plain.parameters) <= set(changed)
    kernels = {row.name: row for row in ablated.table("kernel")}
    assert len(kernels) == 9
    assert kernels["ellipse 25"].classes == plain.table("scoring")[0].classes
    assert len({row.mean.auroc for row in kernels.values()}) > 4
    stages = ablated.table("cascade")
    assert all(differing(row.parameters, plain.parameters) <= {"cascade_stages"} for row in stages)
    assert stages[2].classes == plain.table("scoring")[0].classes
    assert len({row.mean.auroc for row in stages}) == 3
    calls.clear()
    # What only matters after decoding needs no engine at all.
    evaluated(
        tiny_bundle,
        dataset_dir,
        cache,
        parameters=plain.parameters.replace(fusion_weight=0.9, image_scoring="map_max"),
    )
    assert not calls


def differing(a: MethodParameters, b: MethodParameters) -> set[str]:
    one, other = dataclasses.asdict(a), dataclasses.asdict(b)
    return {name for name in one if one[name] != other[name]}


def test_several_processes_give_what_one_gives(
    tiny_bundle, dataset_dir, shared_cache, tmp_path
) -> None:
    one = evaluated(tiny_bundle, dataset_dir, shared_cache, ablations=("cascade",))
    two = evaluated(
        tiny_bundle, dataset_dir, tmp_path / "cache", ablations=("cascade",), processes=2
    )
    assert evaluation_json(two) == evaluation_json(one)


def test_half_a_cache_is_completed_to_the_same_result(
    tiny_bundle, dataset_dir, tmp_path, calls
) -> None:
    cache = tmp_path / "cache"
    first = evaluated(tiny_bundle, dataset_dir, cache)
    for kind in ("encodings", "decodings"):
        for path in sorted((cache / kind).rglob("*.npz"))[::2]:
            path.unlink()
    # What a killed writer leaves behind is not taken for an entry.
    (cache / "encodings" / ".half.npz.1.partial").write_bytes(b"half")
    calls.clear()
    again = evaluated(tiny_bundle, dataset_dir, cache)
    assert calls == {"clip_encoder": 6, "sam_encoder": 6, "sam_decoder": 18}
    assert evaluation_json(again) == evaluation_json(first)


def test_other_embeddings_of_a_product_are_encoded_anew(
    tiny_bundle, dataset_dir, tmp_path, calls
) -> None:
    one = evaluated(tiny_bundle, dataset_dir, tmp_path, product="object")
    assert calls["clip_encoder"] == 12
    other = evaluated(tiny_bundle, dataset_dir, tmp_path, product="metal_nut")
    assert calls["clip_encoder"] == 24
    assert {count.product for count in other.classes} == {"metal_nut"}
    assert one.rows[0].classes["object"] != other.rows[0].classes["object"]


def test_a_cache_of_other_weights_is_refused(
    tiny_bundle, dataset_dir, tmp_path, monkeypatch
) -> None:
    evaluation_cache.open_cache(tmp_path, "f" * 64)
    with pytest.raises(EvaluationError, match="other weights") as caught:
        evaluated(tiny_bundle, dataset_dir, tmp_path)
    assert "--cache" in caught.value.remedy


def test_too_small_a_disk_is_found_before_any_work(
    tiny_bundle, dataset_dir, tmp_path, monkeypatch, calls
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        evaluation_cache.shutil, "disk_usage", lambda path: usage._replace(free=100_400_000)
    )
    with pytest.raises(EvaluationError, match=r"needs 3 MB more and 100 MB to spare") as caught:
        evaluated(tiny_bundle, dataset_dir, tmp_path)
    assert "--cache" in caught.value.remedy
    assert not calls


def test_products_of_classes(tiny_bundle, dataset_dir, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copytree(dataset_dir / "object", tmp_path / "data" / "bottle")
    with pytest.raises(ProductError, match="no product 'bottle'") as caught:
        evaluated(tiny_bundle, tmp_path / "data", tmp_path / "cache")
    assert "products add" in caught.value.remedy
    assert "--product" in caught.value.remedy
    with pytest.raises(ProductError, match="no product 'screw'"):
        evaluated(tiny_bundle, tmp_path / "data", tmp_path / "cache", product="screw")
    got = evaluated(tiny_bundle, tmp_path / "data", tmp_path / "cache", product="object")
    assert [(c.name, c.product) for c in got.classes] == [("bottle", "object")]
