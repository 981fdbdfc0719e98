"""Opening bundles: what is whole opens, and whatever is damaged is named."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.manifests import written
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import (
    BundleDamagedError,
    BundleError,
    BundleSchemaError,
    EngineError,
    ProductError,
    ZeroflawError,
)

ENGINES = ("clip_encoder", "sam_encoder", "sam_decoder", "text_encoder", "reference_matcher")
FILES = (
    *(f"{name}.onnx" for name in ENGINES),
    *(f"{name}.onnx.data" for name in ENGINES),
    "prompt_ensembles.toml",
    "prompts.safetensors",
    "tokenizer.json",
)


def assert_explains(error: ZeroflawError, *names: str) -> None:
    """The error's text has the cause with these names in it, and a remedy."""
    for name in names:
        assert name in error.cause
    assert len(error.remedy) > 10
    assert error.cause in str(error)
    assert error.remedy in str(error)


def test_the_whole_bundle_opens(tiny_bundle: Bundle) -> None:
    bundle = open_bundle(str(tiny_bundle.path))
    assert bundle.path == tiny_bundle.path
    assert bundle.manifest == tiny_bundle.manifest
    assert set(bundle.manifest.files) == set(FILES)
    assert {path.name for path in bundle.path.iterdir()} == {*FILES, "bundle.json"}


@pytest.mark.parametrize("name", FILES)
def test_the_digests_are_those_of_the_files(tiny_bundle: Bundle, name: str) -> None:
    data = (tiny_bundle.path / name).read_bytes()
    entry = tiny_bundle.manifest.files[name]
    assert (entry.sha256, entry.bytes) == (hashlib.sha256(data).hexdigest(), len(data))


@pytest.mark.parametrize("place", [0, 0.5, -1], ids=["first", "middle", "last"])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found(copied: Path, name: str, place: float) -> None:
    data = bytearray((copied / name).read_bytes())
    data[int(place * len(data)) if place > 0 else int(place)] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(BundleDamagedError) as caught:
        open_bundle(copied)
    assert_explains(caught.value, str(copied / name), "altered")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(BundleDamagedError) as caught:
        open_bundle(copied)
    assert_explains(caught.value, str(copied / name), "missing")


@pytest.mark.parametrize("verify_digests", [True, False])
@pytest.mark.parametrize("keep", [0, 1, -1], ids=["empty", "one byte", "one byte less"])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(
    copied: Path, name: str, keep: int, verify_digests: bool
) -> None:
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data[:keep])
    with pytest.raises(BundleDamagedError) as caught:
        open_bundle(copied, verify_digests=verify_digests)
    assert_explains(caught.value, str(copied / name), str(len(data)), str(len(data[:keep])))


def test_a_file_that_became_a_directory_is_named(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    (copied / "tokenizer.json").mkdir()
    with pytest.raises(BundleDamagedError) as caught:
        open_bundle(copied)
    assert_explains(caught.value, str(copied / "tokenizer.json"))


@pytest.mark.parametrize("name", FILES)
def test_a_changed_digit_of_a_digest_names_its_file(copied: Path, name: str) -> None:
    text = (copied / "bundle.json").read_text("utf-8")
    digest = json.loads(text)["files"][name]["sha256"]
    other = ("1" if digest[0] == "0" else "0") + digest[1:]
    (copied / "bundle.json").write_bytes(written(json.loads(text.replace(digest, other))))
    with pytest.raises(BundleDamagedError) as caught:
        open_bundle(copied)
    assert_explains(caught.value, str(copied / name))


@pytest.mark.parametrize("damage", [b"", b"{", b"\x00", b"[1, 2", b"\xff\xfe", b'"\xff"'])
def test_a_manifest_that_is_not_json_is_named(copied: Path, damage: bytes) -> None:
    (copied / "bundle.json").write_bytes(damage)
    with pytest.raises(BundleDamagedError) as caught:
        open_bundle(copied)
    assert_explains(caught.value, str(copied / "bundle.json"))


def test_a_manifest_cut_off_anywhere_is_refused(copied: Path) -> None:
    data = (copied / "bundle.json").read_bytes().rstrip()
    for length in range(0, len(data), 97):
        (copied / "bundle.json").write_bytes(data[:length])
        with pytest.raises(BundleDamagedError, match=r"bundle\.json is not valid JSON"):
            open_bundle(copied, verify_digests=False)


def test_a_file_in_place_of_the_manifest_that_is_no_object_is_refused(copied: Path) -> None:
    (copied / "bundle.json").write_text("[]", "utf-8")
    with pytest.raises(BundleSchemaError) as caught:
        open_bundle(copied)
    assert_explains(caught.value, str(copied / "bundle.json"))


@pytest.mark.parametrize("inside", [False, True], ids=["out of the bundle", "inside the bundle"])
def test_links(copied: Path, tmp_path: Path, inside: bool) -> None:
    file = copied / "prompts.safetensors"
    moved = copied / "moved" if inside else tmp_path / "outside"
    file.rename(moved)
    file.symlink_to(moved)
    if inside:
        assert open_bundle(copied).path == copied
        return
    for verify_digests in (True, False):
        with pytest.raises(BundleDamagedError) as caught:
            open_bundle(copied, verify_digests=verify_digests)
        assert_explains(caught.value, str(file), "out of the bundle")


def test_a_linked_directory_that_leads_out_is_refused(copied: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (copied / "prompts.safetensors").rename(outside / "prompts.safetensors")
    (copied / "sub").symlink_to(outside, target_is_directory=True)
    text = (copied / "bundle.json").read_text("utf-8")
    text = text.replace('"prompts.safetensors"', '"sub/prompts.safetensors"')
    (copied / "bundle.json").write_bytes(written(json.loads(text)))
    with pytest.raises(BundleDamagedError) as caught:
        open_bundle(copied)
    assert_explains(caught.value, "sub/prompts.safetensors", "out of the bundle")


def test_a_link_to_the_whole_bundle_is_a_bundle(copied: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(copied, target_is_directory=True)
    assert open_bundle(link).manifest == open_bundle(copied).manifest


@pytest.mark.parametrize("kind", ["nothing", "empty directory", "file", "inside a file"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "empty directory":
        path.mkdir()
    elif kind != "nothing":
        path.write_text("x")
    if kind == "inside a file":
        path /= "y"
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert_explains(caught.value, str(path), "not a bundle", "bundle.json")


def test_a_manifest_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").mkdir()
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path)
    assert_explains(caught.value, str(tmp_path / "bundle.json"))


@pytest.mark.parametrize("product", ["object", "metal_nut"])
def test_embeddings_are_those_of_the_bank(tiny_bundle: Bundle, product: str) -> None:
    want = load_file(tiny_bundle.path / "prompts.safetensors")[product]
    got = tiny_bundle.text_embeddings(product)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("product", ["Object", "nut", "", "metal nut"])
def test_an_unknown_product_is_told_with_the_known_ones(tiny_bundle: Bundle, product: str) -> None:
    with pytest.raises(ProductError) as caught:
        tiny_bundle.text_embeddings(product)
    assert_explains(caught.value, str(tiny_bundle.path), repr(product), "metal_nut, object")
    assert "products add" in caught.value.remedy


def test_a_product_of_the_bank_alone_is_unknown(edit_manifest) -> None:
    bundle = open_bundle(edit_manifest(lambda raw: raw["products"].pop("object")))
    with pytest.raises(ProductError, match=r"it has: metal_nut\)"):
        bundle.text_embeddings("object")


def test_the_paths_of_the_engines(tiny_bundle: Bundle) -> None:
    for engine in ENGINES:
        assert tiny_bundle.onnx_path(engine) == tiny_bundle.path / f"{engine}.onnx"


def test_a_missing_engine_is_told(edit_manifest) -> None:
    def without_text(raw: dict) -> None:
        raw["text"] = None
        del raw["engines"]["text_encoder"]

    bundle = open_bundle(edit_manifest(without_text))
    with pytest.raises(EngineError) as caught:
        bundle.onnx_path("text_encoder")
    assert_explains(caught.value, str(bundle.path), "text_encoder")
    assert "--text-encoder" in caught.value.remedy


def test_the_contract_has_the_sizes_of_the_bundle(tiny_bundle: Bundle) -> None:
    shapes = {
        spec.name: spec.shape
        for engine in ENGINES
        for spec in (*tiny_bundle.contract(engine).inputs, *tiny_bundle.contract(engine).outputs)
    }
    assert shapes["anomaly_map"] == (1, 224, 224)
    assert shapes["text_embeddings"] == (2, 32)
    assert shapes["features"] == (1, 32, 16, 16)
    assert shapes["point_coords"] == ("batch", 27, 2)
    assert shapes["low_res_logits"] == ("batch", 4, 64, 64)
    assert shapes["sentence_embeddings"] == ("sentences", 32)


def test_identity_is_of_the_engines_alone(tiny_bundle: Bundle, edit_manifest) -> None:
    def other_product(raw: dict) -> None:
        raw["products"]["bolt"] = raw["products"].pop("object")
        raw["created"] = "2000-01-01T00:00:00+00:00"
        raw["files"]["tokenizer.json"]["sha256"] = "0" * 64

    copy = open_bundle(edit_manifest(other_product), verify_digests=False)
    assert copy.identity == tiny_bundle.identity
    assert len(copy.identity) == 64


@pytest.mark.parametrize("name", [name for name in FILES if ".onnx" in name])
def test_identity_changes_with_each_engine(tiny_bundle: Bundle, edit_manifest, name: str) -> None:
    path = edit_manifest(lambda raw: raw["files"][name].update(sha256="0" * 64))
    assert open_bundle(path, verify_digests=False).identity != tiny_bundle.identity


def test_an_unreadable_file_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def deny(self: Path, *args, **kwargs):
        if self.name == "tokenizer.json":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(BundleDamagedError) as caught:
        open_bundle(copied)
    assert_explains(caught.value, str(copied / "tokenizer.json"), "Permission denied")


def test_a_bundle_that_was_moved_opens(copied: Path, tmp_path: Path) -> None:
    moved = shutil.move(copied, tmp_path / "elsewhere with spaces [1]")
    assert open_bundle(moved).path == Path(moved)


def test_each_target_takes_its_graph(fp16_bundle: Bundle) -> None:
    assert fp16_bundle.graph("sam_encoder", "onnxruntime").path == fp16_bundle.onnx_path(
        "sam_encoder"
    )
    half = fp16_bundle.graph("sam_encoder", "tensorrt")
    assert (half.precision, half.attention, half.engine) == (
        "fp16",
        "extended_padded",
        "sam_encoder",
    )
    assert half.recipe is not None
    assert half.path.is_file()
    assert half.weights_path is not None
    for path in (half.path, half.weights_path):
        assert half.sha256[path.name] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_target_without_a_graph_of_its_own(tiny_bundle: Bundle, caplog) -> None:
    reference = tiny_bundle.graph("sam_encoder", "onnxruntime")
    assert (reference.precision, reference.attention, reference.recipe) == (
        "fp32",
        "additive",
        None,
    )
    assert tiny_bundle.graph("clip_encoder", "onnxruntime").attention == "none"
    with caplog.at_level("INFO"):
        graph = tiny_bundle.graph("clip_encoder", "openvino")
    assert graph.path == tiny_bundle.onnx_path("clip_encoder")
    assert "clip_encoder" in caplog.text
    with pytest.raises(EngineError) as caught:
        tiny_bundle.graph("sam_decoder", "tensorrt")
    assert_explains(caught.value, "sam_decoder", "TensorRT")
    assert "zeroflaw export --precision fp16" in caught.value.remedy


@pytest.mark.parametrize("file", ["sam_encoder.fp16.onnx", "sam_decoder.fp16.onnx.data"])
def test_graphs_for_other_targets_are_verified_too(
    fp16_bundle: Bundle, tmp_path: Path, file: str
) -> None:
    copy = Path(shutil.copytree(fp16_bundle.path, tmp_path / "b"))
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)
    with pytest.raises(BundleDamagedError, match="altered"):
        open_bundle(copy)


def test_variants_leave_the_identity(fp16_bundle: Bundle, tiny_bundle: Bundle) -> None:
    assert fp16_bundle.identity == tiny_bundle.identity


def test_the_package_gives_what_users_import_and_loads_it_late() -> None:
    import zeroflaw_engines.bundle as package

    assert package.open_bundle is open_bundle
    assert all(getattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
    code = "import sys, zeroflaw_engines.bundle; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
