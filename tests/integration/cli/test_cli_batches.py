"""Batches on the command line: a folder re-inspected, engines built with NVIDIA's compiler."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from support.command_line import zeroflaw
from zeroflaw.records.record import InspectionRecord
from zeroflaw_engines.built_engines.lookup import find_engine
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photos of sizes of their own, and in the middle of them one that cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(data.coffee()[: 240 + 20 * number, :300]).save(folder / f"{number}.png")
    whole = (folder / "1.png").read_bytes()
    (folder / "1_torn.png").write_bytes(whole[: len(whole) // 2])
    return folder


def records(out: Path) -> dict[str, InspectionRecord]:
    return {path.stem: InspectionRecord.from_json(path.read_bytes()) for path in out.glob("*.json")}


def test_a_folder_in_batches_gives_what_it_gives_one_by_one(
    batch_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    results = {}
    for batch in (1, 4):
        out = tmp_path / f"out_{batch}"
        done = zeroflaw("inspect", batch_bundle.path, photos, "-o", out, "--batch", batch)
        assert done.returncode == 3, done.stderr
        assert "5 of 6 inspected" in done.stdout
        assert "1_torn.png" in done.stderr
        results[batch] = records(out)
    assert results[1].keys() == results[4].keys()
    assert len(results[4]) == 6
    for name, one in results[1].items():
        other = results[4][name]
        assert (one.decision, one.status) == (other.decision, other.status)
        assert one.reason.code == other.reason.code
        assert one.frame_sha256 == other.frame_sha256
        assert Path(other.frame_id or "").stem == name
        if name == "1_torn":
            assert (other.decision, other.image_score) == ("hold", None)
            continue
        assert one.image_score == pytest.approx(other.image_score, abs=1e-5)
        masks = [
            np.asarray(Image.open(tmp_path / f"out_{batch}" / f"{name}.mask.png")) > 0
            for batch in (1, 4)
        ]
        assert np.count_nonzero(masks[0] ^ masks[1]) <= 1e-3 * masks[0].size


def test_a_bundle_without_batches_is_refused(
    batch_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    for bundle, batch, most in (("mini", 2, 1), (batch_bundle.path, 5, 4)):
        out = tmp_path / "out"
        done = zeroflaw("inspect", bundle, photos, "-o", out, "-p", "object", "--batch", batch)
        assert done.returncode == 1
        assert f"--batch is {batch}" in done.stderr
        assert f"takes {most}" in done.stderr
        assert f"--max-batch {batch}" in done.stderr
        assert not out.exists()


def test_encoders_are_built_for_batches(batch_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(batch_bundle.path, path)
    built = zeroflaw(
        "build", path, "--gpu", "sm86", "--engine", "clip_encoder", "--engine", "sam_encoder",
        "--max-batch", 3, "--opt-batch", 2,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    for engine, attentions in (("clip_encoder", 4), ("sam_encoder", 2)):
        found = find_engine(open_bundle(path, verify_digests=False), engine, backend="tensorrt-rtx")
        images = [shape[0] for shape in found.sidecar.parts.profile["image"]]
        assert images == [1, 2, 3]
        assert found.limited(batch_bundle.contract(engine)).max_batch == 3
        # One fused attention in FP16 for each block, as for single images.
        assert found.sidecar.census.count("attention", "float16") == attentions
        assert found.sidecar.census.unfused_attention == 0
    for options, text in (
        (("--max-batch", 8), "takes 4 images in one call, not 8"),
        (("--opt-batch", 2), "--opt-batch was given without --max-batch"),
        (("--max-batch", 2, "--opt-batch", 3), "1 <= min <= opt <= max"),
    ):
        done = zeroflaw("build", path, "--gpu", "sm86", "--engine", "sam_encoder", *options)
        assert done.returncode == 1, done.stdout
        assert text in done.stderr
        assert "Traceback" not in done.stderr
