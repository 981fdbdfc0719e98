"""The command line, as a user types it: in processes of its own."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from support.command_line import ZEROFLAW, zeroflaw
from zeroflaw import Inspector
from zeroflaw.records.record import InspectionRecord
from zeroflaw_benchmarks.reference.reference_pipeline import ReferenceClip, reference_map
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import SCHEMA_VERSION
from zeroflaw_export.models.adapters import save_adapters
from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip, load_linear_adapters, load_sam


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "line").mkdir(parents=True)
    Image.fromarray(data.coffee()).save(folder / "part.png")
    Image.fromarray(data.coffee()[::2]).save(folder / "part.jpg")
    Image.fromarray(data.brick()).save(folder / "line" / "part.png")
    Image.fromarray(data.brick().astype(np.uint16) * 257).save(folder / "line" / "deep.tiff")
    return folder


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_inspect_writes_everything(tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = zeroflaw("inspect", tiny_bundle.path, photos, "-o", out, "-p", "object")
    assert done.returncode == 0, done.stderr
    assert "random weights (seed 7)" in done.stderr
    assert "4 of 4 inspected" in done.stdout
    summary = rows(out)
    assert len({row["output"] for row in summary}) == 4
    for row in summary:
        base = out / row["output"]
        with Image.open(row["file"]) as source:
            size = source.size
        for kind in ("mask", "overlay", "map"):
            with Image.open(f"{base}.{kind}.png") as picture:
                assert picture.size == size, kind
        mask = np.asarray(Image.open(f"{base}.mask.png"))
        assert set(np.unique(mask)) <= {0, 255}
        record = json.loads(Path(f"{base}.json").read_text())
        assert record["mask_area"] == (mask > 0).sum() == int(row["mask_area"])
        assert record["decision"] == row["decision"]
        assert record["reason"] == {"code": row["reason"], "text": row["reason_text"]}
        for name in ("id", "time", "frame_sha256", "software", "bundle", "parameters", "backend"):
            assert record[name] == row[name], name
        assert record["frame_id"] == row["frame_id"] == row["file"]
        assert (record["calibration"] or "") == row["calibration"]
        assert (record["frame_width"], record["frame_height"]) == size


def test_bad_files_are_reported_and_the_rest_go_on(
    tiny_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    whole = (photos / "part.png").read_bytes()
    (photos / "truncated.png").write_bytes(whole[: len(whole) // 2])
    jpeg = (photos / "part.jpg").read_bytes()
    (photos / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.png").write_text("this is no image")
    out = tmp_path / "out"
    done = zeroflaw("inspect", tiny_bundle.path, photos, "-o", out, "-p", "object")
    assert done.returncode == 3
    held = [row for row in rows(out) if row["decision"] == "hold"]
    failed = {Path(row["file"]).name: row["error"] for row in held}
    assert {(row["status"], row["reason"]) for row in held} == {("failed", "failed")}
    for row in held:
        record = InspectionRecord.from_json((out / f"{row['output']}.json").read_bytes())
        assert (record.decision, record.reason.code, record.status) == ("hold", "failed", None)
        assert " ".join(record.reason.text.split()) == row["reason_text"] == row["error"]
        assert (record.id, record.time, record.frame_id) == (row["id"], row["time"], row["file"])
        assert not list(out.glob(f"{row['output']}.*.png"))
    assert failed.keys() == {"truncated.png", "truncated.jpg", "empty.png", "text.png"}
    assert "is empty" in failed["empty.png"]
    assert "not an image" in failed["text.png"]
    for name in failed:
        assert name in done.stderr
    assert "4 of 8 inspected" in done.stdout


def test_exit_codes(tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    bundle, image, out = tiny_bundle.path, photos / "part.png", tmp_path / "out"
    common = (bundle, image, "-o", out, "-p", "object")
    assert zeroflaw("inspect").returncode == 2
    assert zeroflaw("inspect", *common, "--schedule", "sideways").returncode == 2
    rejecting = ("--exit-on-reject", "--set", "decision_threshold=0")
    assert zeroflaw("inspect", *common, *rejecting).returncode == 4
    assert zeroflaw("inspect", *common, "--set", "decision_threshold=0").returncode == 0
    for args, text in [
        ((tmp_path / "nowhere", image), "is not a bundle"),
        ((bundle, image, "-p", "screw"), "unknown product 'screw'"),
        ((bundle, tmp_path / "no.png", "-p", "object"), "does not exist"),
        ((bundle, tiny_bundle.path, "-p", "object"), "no image in"),
        ((bundle, image, "-p", "object", "--backend", "abacus"), "no backend 'abacus'"),
        ((bundle, image, "-p", "object", "--set", "k=3"), "unknown method parameter k"),
        ((bundle, image, "-p", "object", "--set", "positive_points=0"), "positive_points is 0"),
        ((bundle, image, "-p", "object", "--set", "nonsense"), "not NAME=VALUE"),
        ((bundle, image, "-p", "object", "-o", image), "cannot be written"),
    ]:
        done = zeroflaw("inspect", *args)
        assert done.returncode == 1, (args, done.stderr)
        assert text in done.stderr
        assert "remedy:" in done.stderr
        assert "Traceback" not in done.stderr


def test_parameters_file_and_settings(tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "method.toml"
    file.write_text("extreme_threshold = 0.2\npositive_points = 5\n")
    out = tmp_path / "out"
    done = zeroflaw(
        "inspect", tiny_bundle.path, photos / "part.png", "-o", out, "-p", "object",
        "--parameters", file, "--set", "positive_points=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "part.json").read_text())
    assert sum(point["positive"] for point in record["trace"]["points"]) == 2
    file.write_text("extreme_threshold = \n")
    done = zeroflaw("inspect", tiny_bundle.path, photos, "--parameters", file)
    assert done.returncode == 1
    assert "method.toml" in done.stderr


def test_bundle_and_products_commands(tiny_bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.path, copy)
    info = zeroflaw("bundle", "info", copy)
    assert info.returncode == 0
    for text in ("clip_encoder", "metal_nut", "low-res logits", "extreme_threshold"):
        assert text in info.stdout
    assert (
        json.loads(zeroflaw("bundle", "info", copy, "--json").stdout)["schema_version"]
        == SCHEMA_VERSION
    )
    assert zeroflaw("bundle", "verify", copy).returncode == 0
    added = zeroflaw("products", "add", copy, "pipe_fryum", "pcb1")
    assert added.returncode == 0, added.stderr
    assert "metal_nut, object, pcb1, pipe_fryum" in added.stdout
    assert "pcb1" in zeroflaw("products", "list", copy).stdout
    assert zeroflaw("bundle", "verify", copy).returncode == 0
    # The station's text engine and the workstation's text tower agree.
    again = zeroflaw("products", "add", copy, "metal_nut")
    assert again.returncode == 0
    np.testing.assert_allclose(
        open_bundle(copy).text_embeddings("metal_nut"),
        tiny_bundle.text_embeddings("metal_nut"),
        atol=1e-5,
    )
    assert zeroflaw("products", "add", copy, "a/b").returncode == 1
    engine = copy / "sam_encoder.onnx"
    engine.write_bytes(engine.read_bytes()[:-1] + b"\0")
    broken = zeroflaw("bundle", "verify", copy)
    assert broken.returncode == 1
    assert "sam_encoder.onnx" in broken.stderr


def test_products_are_added_without_torch(tiny_bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.path, copy)
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from zeroflaw.station.products.adding import add_products_by_name\n"
        "from zeroflaw_engines.bundle.bundle import open_bundle\n"
        f"add_products_by_name(open_bundle({str(copy)!r}), ['screw'])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "screw" in open_bundle(copy).manifest.products


@pytest.mark.long
def test_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "toy"
    command = [ZEROFLAW, "export", target, "--clip", "tiny", "--sam", "tiny",
               "--random-weights", "0"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "exporting sam_encoder" in line:
            break
    time.sleep(1)
    assert any(tmp_path.glob(".toy.partial-*")), "the export should be under way"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    process.stderr.close()
    assert not target.exists()
    assert not list(tmp_path.glob(".toy.partial-*"))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
def test_export_from_files_of_the_official_layouts(tmp_path: Path) -> None:
    """OpenAI's TorchScript in fp16, SAM's flat .pth and APRIL-GAN's .pth, at reduced size."""
    source = WeightsSource(name="random", path=None, seed=11)
    architecture = clip_architecture("tiny")
    clip = load_clip(architecture, architecture.native_image_size, source)
    adapters = load_linear_adapters(architecture, source)
    archive = torch.jit.trace_module(
        clip,
        {
            "encode_image": torch.zeros(1, 3, 112, 112),
            "encode_text": torch.zeros(1, 77, dtype=torch.long),
        },
        check_trace=False,
    )
    archive.half().save(str(tmp_path / "clip.pt"))
    torch.save(load_sam(sam_architecture("tiny"), source).state_dict(), tmp_path / "sam.pth")
    save_adapters(adapters, tmp_path / "adapters.pth")
    done = zeroflaw(
        "export", tmp_path / "b", "--clip", "tiny", "--sam", "tiny", "-p", "screw",
        "--clip-weights", tmp_path / "clip.pt", "--sam-weights", tmp_path / "sam.pth",
        "--adapters", tmp_path / "adapters.pth", "--no-text-encoder",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "random weights" not in done.stderr
    manifest = open_bundle(tmp_path / "b").manifest
    assert manifest.random_weights is None
    assert manifest.text is None
    for identity, name in (
        (manifest.clip.weights, "clip.pt"),
        (manifest.clip.adapters, "adapters.pth"),
        (manifest.sam.weights, "sam.pth"),
    ):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert (identity.name, identity.sha256) == (name, digest)
    # What the engine computes is what the files hold, in half precision for CLIP.
    clip = load_clip(architecture, 224, WeightsSource(name="clip.pt", path=tmp_path / "clip.pt"))
    frame = np.ascontiguousarray(data.coffee())
    embeddings = open_bundle(tmp_path / "b").text_embeddings("screw")
    reference = ReferenceClip(clip, adapters, architecture.tapped_blocks, 224)
    want, _ = reference_map(reference, frame, embeddings)
    with Inspector.load(tmp_path / "b") as inspector:
        got = inspector.inspect(frame)
    np.testing.assert_allclose(got.anomaly_map, want, atol=1e-4)
    assert not any("random weights" in warning for warning in got.warnings)
    refused = zeroflaw("products", "add", tmp_path / "b", "nut")
    assert refused.returncode == 1
    assert "no text engine" in refused.stderr


def test_export_needs_weights_or_a_seed_but_not_both(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pth"
    junk.write_text("not a checkpoint")
    done = zeroflaw("export", tmp_path / "b", "--sam-weights", junk, "--random-weights", 0)
    assert done.returncode == 1
    assert "both random weights and weights files" in done.stderr
    environment = {**os.environ, "ZEROFLAW_CACHE": str(tmp_path / "cache")}
    done = zeroflaw("export", tmp_path / "b", "--clip-weights", "nowhere.pt", env=environment)
    assert done.returncode == 1
    assert "no weights 'nowhere.pt'" in done.stderr
    assert not (tmp_path / "b").exists()


def test_help_teaches() -> None:
    text = zeroflaw("--help").stdout
    for word in ("export", "inspect", "bundle", "products", "Exit codes"):
        assert word in text
    text = zeroflaw("inspect", "--help").stdout
    for word in ("mask.png", "overlay.png", "summary.csv", "--product", "--set"):
        assert word in text
