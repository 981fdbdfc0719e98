"""`zeroflaw build` and `zeroflaw engines` with NVIDIA's own compiler, on the small bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.command_line import zeroflaw
from support.manifests import written
from zeroflaw_engines.built_engines.lookup import find_engine
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.shipped import bundle_path
from zeroflaw_engines.errors import EngineDamagedError, EngineMissingError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of the small bundle with its decoder built in FP32; not to be changed."""
    path = tmp_path_factory.mktemp("built") / "bundle"
    shutil.copytree(bundle_path("mini"), path)
    done = zeroflaw(*decoder(path))
    assert done.returncode == 0, done.stderr
    assert "not built yet" in done.stdout
    assert "gemm float32" in done.stdout
    assert "parity with FP32 not run" in done.stdout
    return open_bundle(path)


def decoder(path: Path) -> list[object]:
    return ["build", path, "--gpu", "sm89", "--gpu", "sm86", "--engine", "sam_decoder",
            "--precision", "fp32"]  # fmt: skip


@pytest.fixture
def changed(built: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.path, tmp_path / "bundle"))


def test_a_real_engine_is_found_and_not_built_twice(built: Bundle) -> None:
    found = find_engine(built, "sam_decoder", backend="tensorrt-rtx", architecture="sm86")
    assert found.path.parent.name == "sm86-sm89"
    sidecar = found.sidecar
    assert sidecar.census.source == "plan"
    assert sidecar.census.count("gemm", "float32") > 30
    assert sidecar.peak_memory_bytes is not None
    assert 1e8 < sidecar.peak_memory_bytes < 8e9
    again = zeroflaw(*decoder(built.path))
    assert again.returncode == 0, again.stderr
    assert "up to date" in again.stdout


def test_engines_are_listed_and_explained(changed: Path) -> None:
    listed = zeroflaw("engines", "list", changed)
    assert listed.returncode == 0, listed.stderr
    for text in ("sam_decoder", "tensorrt-rtx", "sm86-sm89", "up to date"):
        assert text in listed.stdout
    [sidecar] = json.loads(zeroflaw("engines", "list", changed, "--json").stdout)
    assert sidecar["parts"]["engine"] == "sam_decoder"
    assert zeroflaw("engines", "explain", changed).returncode == 0

    directory = changed / "engines/tensorrt-rtx/sm86-sm89"
    (directory / "sam_decoder.runtime_cache").write_bytes(bytes(2_000_000))
    assert " 2.0 " in zeroflaw("engines", "list", changed).stdout
    assert zeroflaw("engines", "explain", changed).returncode == 0

    manifest = changed / "bundle.json"
    graph = changed / "sam_decoder.onnx"
    old = json.loads(manifest.read_text())["files"]["sam_decoder.onnx"]["sha256"]
    graph.write_bytes(graph.read_bytes() + b"\x82\x06\x01x")  # an unknown field
    import hashlib

    new = hashlib.sha256(graph.read_bytes()).hexdigest()
    raw = json.loads(manifest.read_text())
    raw["files"]["sam_decoder.onnx"] = {"sha256": new, "bytes": graph.stat().st_size}
    manifest.write_bytes(written(raw))
    stale = zeroflaw("engines", "explain", changed)
    assert stale.returncode == 1
    assert f"graph.sam_decoder.onnx: {old[:12]} -> {new[:12]}" in stale.stdout

    plan = directory / "sam_decoder.engine"
    plan.write_bytes(plan.read_bytes()[:-100])
    damaged = zeroflaw("engines", "explain", changed)
    assert damaged.returncode == 1
    assert "damaged" in damaged.stdout
    assert "bytes where its sidecar says" in damaged.stdout


def test_no_engines(tiny_bundle: Bundle) -> None:
    for command in ("list", "explain"):
        done = zeroflaw("engines", command, tiny_bundle.path)
        assert done.returncode == 0
        assert "has no built engines" in done.stdout


def test_what_cannot_be_built(built: Bundle) -> None:
    path = built.path
    for arguments, text, remedy in [
        (("mini", "--gpu", "sm86"), "part of the installation", "zeroflaw bundle copy mini"),
        ((path, "--backend", "onnxruntime"), "nothing to build", "tensorrt-rtx"),
        ((path, "--backend", "abacus"), "no backend 'abacus'", "openvino"),
        ((path, "--backend", "tensorrt"), "tensorrt is not installed", "zeroflaw[tensorrt]"),
        ((path, "--gpu", "8.6"), "not the name of a GPU architecture", "8.6 is sm86"),
        ((path, "--gpu", "sm86", "--engine", "abacus"), "no engine 'abacus'", "sam_decoder"),
        ((path, "--gpu", "sm86"), "no graph of clip_encoder for TensorRT", "fp16"),
        ((path, "--precision", "fp32"), "no GPU whose driver answers", "--gpu sm86"),
    ]:
        done = zeroflaw("build", *arguments)
        assert done.returncode == 1, (arguments, done.stderr)
        assert text in done.stderr
        assert remedy in done.stderr
        assert "Traceback" not in done.stderr


def test_openvino_keeps_its_compiled_models(changed: Path) -> None:
    done = zeroflaw("build", changed, "--backend", "openvino", "--engine", "sam_decoder")
    assert done.returncode == 0, done.stderr
    cache = changed / "engines/openvino/cpu"
    blobs = sorted(cache.rglob("*.blob"))
    assert blobs
    assert f"--model-cache {cache}" in done.stdout
    assert zeroflaw(
        "build", changed, "--backend", "openvino", "--engine", "sam_decoder"
    ).returncode == 0  # fmt: skip
    assert sorted(cache.rglob("*.blob")) == blobs, "the second run took them from the cache"
    assert zeroflaw("bundle", "verify", changed).returncode == 0


def test_the_resizer_is_built_from_the_one_graph_there_is(changed: Path) -> None:
    """Also beside engines in FP16: it is the same for both precisions, and no recipe touches it."""
    done = zeroflaw("build", changed, "--gpu", "sm89", "--engine", "frame_resizer")
    assert done.returncode == 0, done.stderr
    assert "2 gemm float32" in done.stdout
    bundle = open_bundle(changed)
    found = find_engine(bundle, "frame_resizer", backend="tensorrt-rtx", architecture="sm89")
    parts = found.sidecar.parts
    assert (parts.precision, parts.recipe) == ("fp32", None)
    height, width, _ = parts.profile["frame"][2]
    assert height * width >= 12_000_000
    assert min(height, width) >= 3000
    again = ["build", changed, "--gpu", "sm89", "--engine", "frame_resizer", "--precision", "fp32"]
    assert "up to date" in zeroflaw(*again).stdout
    listed = zeroflaw("engines", "list", changed)
    assert "frame_resizer: " in listed.stdout
    assert "damaged" not in listed.stdout
    found.path.write_bytes(found.path.read_bytes() + b"x")
    with pytest.raises(EngineDamagedError) as caught:
        find_engine(bundle, "frame_resizer", backend="tensorrt-rtx")
    assert caught.value.remedy.endswith("--gpu sm89 --engine frame_resizer")
    with pytest.raises(EngineMissingError) as missing:
        find_engine(bundle, "frame_resizer", backend="tensorrt-rtx", architecture="sm120")
    assert missing.value.remedy.endswith("--gpu sm120 --engine frame_resizer")
    assert zeroflaw("bundle", "verify", changed).returncode == 0
