"""Finding built engines: only what fits the bundle, the backend and the GPU is handed out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from support.gpu.built_engines import PLAN, VERSION, publish, sidecar_for
from zeroflaw_engines.built_engines.key import key_differences, key_parts
from zeroflaw_engines.built_engines.lookup import engine_statuses, find_engine
from zeroflaw_engines.built_engines.options import BatchRange, BuildOptions, gpu_architectures
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import (
    BackendUnavailableError,
    BuildError,
    EngineDamagedError,
    EngineMissingError,
    EngineStaleError,
)
from zeroflaw_engines.machine import Gpu


def find(bundle: Bundle, **arguments):
    return find_engine(
        bundle,
        "sam_decoder",
        **{"backend": "tensorrt-rtx", "backend_version": VERSION, **arguments},
    )


def altered(bundle: Bundle, **entries: dict[str, str]) -> Bundle:
    """The bundle with other digests for some files."""
    files = {
        name: msgspec.structs.replace(entry, **entries.get(name, {}))
        for name, entry in bundle.manifest.files.items()
    }
    return Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, files=files))


def test_a_fitting_engine(bundle: Bundle) -> None:
    paths = publish(bundle)
    for arguments in ({}, {"architecture": "sm89"}, {"target": "sm86-sm89"}):
        found = find(bundle, **arguments)
        assert found.path == paths.plan
        assert found.sidecar.key == found.sidecar.parts.key
        assert found.runtime_cache == paths.directory / "sam_decoder.runtime_cache"


def test_the_most_specific_engine_is_taken(bundle: Bundle) -> None:
    publish(bundle)
    publish(bundle, architectures=("sm89",))
    assert find(bundle, architecture="sm89").path.parent.name == "sm89"
    assert find(bundle, architecture="sm86").path.parent.name == "sm86-sm89"
    assert find(bundle, architecture="sm89", target="sm86-sm89").path.parent.name == "sm86-sm89"


def test_nothing_was_built(bundle: Bundle) -> None:
    with pytest.raises(EngineMissingError, match="no sam_decoder built by tensorrt-rtx") as caught:
        find(bundle)
    assert f"zeroflaw build {bundle.path} --backend tensorrt-rtx" in caught.value.remedy


def test_an_engine_of_another_gpu_architecture(bundle: Bundle) -> None:
    publish(bundle)
    with pytest.raises(
        EngineMissingError, match=r"for sm120 .there are some for sm86-sm89"
    ) as caught:
        find(bundle, architecture="sm120")
    assert "--gpu sm120" in caught.value.remedy
    publish(bundle, architectures=(), gpu=Gpu("NVIDIA L4", "sm89"), backend="tensorrt")
    assert find(bundle, backend="tensorrt", architecture="sm89").sidecar.parts.gpu
    with pytest.raises(EngineMissingError, match=r"for sm86 .there are some for sm89"):
        find(bundle, backend="tensorrt", architecture="sm86")


def test_an_engine_of_another_version(bundle: Bundle) -> None:
    publish(bundle)
    with pytest.raises(EngineStaleError, match=r"backend_version: 1.7.1.116 -> 1.8.0.1") as caught:
        find(bundle, backend_version="1.8.0.1")
    assert "--gpu sm86 --gpu sm89 --precision fp32" in caught.value.remedy


def test_a_version_compatible_engine_runs_on_later_versions_only(bundle: Bundle) -> None:
    publish(
        bundle, backend="tensorrt", architectures=(), gpu=Gpu("NVIDIA L4", "sm89"),
        version_compatible=True, version="10.9.0.34",
    )  # fmt: skip
    assert find(bundle, backend="tensorrt", backend_version="10.13.0.1")
    with pytest.raises(EngineStaleError):
        find(bundle, backend="tensorrt", backend_version="10.8.0.1")


def test_an_engine_of_another_graph(bundle: Bundle) -> None:
    publish(bundle)
    other = altered(bundle, **{"sam_decoder.onnx": {"sha256": "0" * 64}})
    with pytest.raises(EngineStaleError, match=r"graph.sam_decoder.onnx: .* -> 000000000000"):
        find(other)


def test_a_truncated_engine(bundle: Bundle) -> None:
    paths = publish(bundle)
    paths.plan.write_bytes(PLAN[:-1])
    with pytest.raises(EngineDamagedError, match=f"{len(PLAN) - 1} bytes where its sidecar says"):
        find(bundle)


def test_an_altered_engine(bundle: Bundle) -> None:
    paths = publish(bundle)
    paths.plan.write_bytes(b"B" + PLAN[1:])
    with pytest.raises(EngineDamagedError, match="was altered") as caught:
        find(bundle)
    assert "zeroflaw build" in caught.value.remedy


def test_an_engine_that_is_gone(bundle: Bundle) -> None:
    publish(bundle).plan.unlink()
    with pytest.raises(EngineDamagedError, match="cannot be read"):
        find(bundle)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sm86-sm89/sam_encoder", "sm86-sm89/sam_decoder"),
        ("sm120/sam_decoder", "sm86-sm89/sam_decoder"),
    ],
)
def test_the_sidecar_of_another_engine(bundle: Bundle, source: str, target: str) -> None:
    publish(bundle, "sam_encoder")
    publish(bundle, architectures=("sm120",))
    root = publish(bundle).directory.parent
    shutil.copy(root / f"{source}.json", root / f"{target}.json")
    with pytest.raises(EngineDamagedError, match="sidecar of another engine"):
        find(bundle, target="sm86-sm89")


def test_the_engine_of_another_sidecar(bundle: Bundle) -> None:
    """Same name, size and key, but of another build: only the digest tells."""
    paths = publish(bundle)
    paths.plan.write_bytes(PLAN[::-1])
    with pytest.raises(EngineDamagedError, match="was altered"):
        find(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "is not a sidecar"),
        (lambda text: "", "is not a sidecar"),
        (lambda text: "[]", "is not a sidecar"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "version 9"),
        (lambda text: '{"schema_version": 9, "new": 1}', "version 9"),
        (lambda text: text.replace("sm89", "sm90"), "its key is not that of its parts"),
        (lambda text: text.replace('"created"', '"crated"'), "is not a sidecar"),
    ],
)
def test_a_damaged_sidecar(bundle: Bundle, change, message: str) -> None:
    paths = publish(bundle)
    paths.sidecar.write_text(change(paths.sidecar.read_text()))
    with pytest.raises(EngineDamagedError, match=message) as caught:
        find(bundle)
    assert "zeroflaw build" in caught.value.remedy


def test_an_engine_without_its_sidecar_is_none(bundle: Bundle) -> None:
    publish(bundle).sidecar.unlink()
    with pytest.raises(EngineMissingError):
        find(bundle)
    [status] = engine_statuses(bundle)
    assert status.status == "damaged"
    assert "did not end" in status.reason


def test_a_backend_that_is_not_installed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(bundle, backend="tensorrt", architectures=(), gpu=Gpu("NVIDIA L4", "sm89"))
    with pytest.raises(BackendUnavailableError, match="tensorrt is not installed") as caught:
        find_engine(bundle, "sam_decoder", backend="tensorrt")
    assert "zeroflaw[tensorrt]" in caught.value.remedy


def test_statuses_explain(bundle: Bundle) -> None:
    publish(bundle)
    publish(bundle, "sam_encoder").plan.write_bytes(b"")
    statuses = engine_statuses(bundle, backend_versions={"tensorrt-rtx": "9.9"})
    assert [(one.paths.engine, one.status) for one in statuses] == [
        ("sam_decoder", "stale"),
        ("sam_encoder", "damaged"),
    ]
    [difference] = statuses[0].differences
    assert (difference.part, difference.old, difference.new) == ("backend_version", VERSION, "9.9")
    publish(bundle, "sam_encoder")
    assert {one.status for one in engine_statuses(bundle)} == {"up to date"}


def test_the_runtime_cache_changes_nothing(bundle: Bundle) -> None:
    paths = publish(bundle)
    paths.runtime_cache.write_bytes(b"kernels")
    assert find(bundle).path == paths.plan
    assert [one.status for one in engine_statuses(bundle)] == ["up to date"]


def test_every_option_and_every_part_is_in_the_key(bundle: Bundle) -> None:
    """Each option of a build changes the key, but for the one that only changes its duration."""
    base = {"backend": "tensorrt", "precision": "fp32"}

    def parts(**options):
        version = options.pop("version", "10.9.0.34")
        gpu = options.pop("gpu", Gpu("NVIDIA L4", "sm89"))
        return key_parts(
            bundle, "sam_decoder", BuildOptions(**{**base, **options}),
            backend_version=version, gpu=gpu,
        )  # fmt: skip

    changes = {
        "backend": {"backend": "tensorrt-rtx"},
        "architectures": {"architectures": ("sm86",)},
        "batch": {"batch": BatchRange(max=4)},
        "workspace_mib": {"workspace_mib": 512},
        "hardware_compatibility": {"hardware_compatibility": "ampere_plus"},
        "version_compatible": {"version_compatible": True},
        "strip_weights": {"strip_weights": True},
        "tf32": {"tf32": True},
        "version": {"version": "10.9.0.35"},
        "gpu": {"gpu": Gpu("NVIDIA A10", "sm86")},
    }
    # Of encoders alone, and of those of bundles that were exported for batches.
    options = set(BuildOptions.__struct_fields__) - {"timing_cache", "precision", "images"}
    assert options <= set(changes)
    keys = {name: parts(**change).key for name, change in changes.items()}
    assert len({*keys.values(), parts().key}) == len(keys) + 1
    assert parts(timing_cache=Path("/tmp/timings")).key == parts().key  # noqa: S108
    [difference] = key_differences(parts(), parts(tf32=True))
    assert str(difference) == "flags.tf32: False -> True"


def test_images_of_a_call_are_in_the_key_of_encoders_that_take_several(
    bundle: Bundle, batch_bundle: Bundle
) -> None:
    def keys(of: Bundle, engine: str) -> set[str]:
        ranges = (None, BatchRange(max=2), BatchRange(max=4), BatchRange(opt=4, max=4))
        options = [BuildOptions(backend="tensorrt", precision="fp32", images=r) for r in ranges]
        return {
            key_parts(of, engine, one, backend_version="10.9.0.34", gpu=None).key for one in options
        }

    assert len(keys(batch_bundle, "sam_encoder")) == 3, "None is as many as the graphs take"
    assert len(keys(batch_bundle, "sam_decoder")) == 1
    whole = BuildOptions(backend="tensorrt", precision="fp32")
    profile = whole.profile(batch_bundle.contract("sam_encoder"))
    assert profile["image_size"] == ((1, 2), (1, 2), (4, 2))
    assert whole.profile(bundle.contract("sam_encoder")) == {}
    for too_many, of in ((5, batch_bundle), (2, bundle)):
        images = msgspec.structs.replace(whole, images=BatchRange(max=too_many))
        with pytest.raises(BuildError, match=f"in one call, not {too_many}") as caught:
            images.profile(of.contract("clip_encoder"))
        assert f"--max-batch {too_many}" in caught.value.remedy


def test_the_key_does_not_depend_on_the_order_of_names(bundle: Bundle) -> None:
    parts = sidecar_for(bundle).parts
    turned = msgspec.structs.replace(parts, graph=dict(reversed(parts.graph.items())))
    assert turned.key == parts.key
    assert json.loads(msgspec.json.encode(turned)) == json.loads(msgspec.json.encode(parts))


def test_gpu_architectures() -> None:
    assert gpu_architectures(["sm120", "SM86", "sm89", "sm86"]) == ("sm86", "sm89", "sm120")
    for name in ("8.6", "sm", "sm8", "ampere", "sm86a", "../sm86"):
        with pytest.raises(BuildError, match="is not the name of a GPU architecture") as caught:
            gpu_architectures([name])
        assert "8.6 is sm86" in caught.value.remedy
    for batch in ((0, 1, 2), (2, 1, 2), (1, 3, 2)):
        with pytest.raises(BuildError, match="batch range"):
            BatchRange(min=batch[0], opt=batch[1], max=batch[2])
