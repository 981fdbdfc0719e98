"""A bundle of WinCLIP from the export to learned products, beside anomalib on the same photos."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib_winclip import anomalib_winclip, pixels
from PIL import Image
from skimage import data
from torch.nn import functional

from support.command_line import zeroflaw
from support.exported_bundle import TINY_SEED, tiny_job
from zeroflaw import Inspector
from zeroflaw.pipeline.geometry import squash
from zeroflaw.station.learning import learn_product
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import CLIP_ENCODER, PATCH_TOKENS, REFERENCE_MATCHER
from zeroflaw_engines.sessions.batches import clip_encoder_inputs, stacked, taken_apart
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_export.export import export_bundle
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.models.localizers.winclip import WINCLIP
from zeroflaw_export.parity.checks import parity_image

pytestmark = pytest.mark.long

SIZE = 126
PHOTOS = 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Tiny CLIP at 126 px, which is 9 x 9 patches, with FP16 graphs and batches."""
    job = dataclasses.replace(
        tiny_job("object"),
        localizer="winclip",
        localizer_parameters={"mid_window": 4},
        clip_image_size=SIZE,
        text_encoder=False,
        precision="fp16",
        max_batch=4,
        parameters=WINCLIP.recorded_parameters({}),
    )
    target = tmp_path_factory.mktemp("winclip") / "b"
    export_bundle(job, target)
    return open_bundle(target)


@pytest.fixture(scope="module")
def model(bundle: Bundle):
    """anomalib's, with the bundle's weights and the texts of its product."""
    source = WeightsSource(name="random", path=None, seed=TINY_SEED)
    # The activation that its weights are said to be trained with, at every size.
    clip = load_clip(clip_architecture("tiny"), SIZE, source, quick_gelu=True)
    return anomalib_winclip(clip, np.array(bundle.text_embeddings("object")), scales=(2, 4))


def photo(row: int, column: int = 40) -> np.ndarray:
    gravel = np.stack([data.gravel()] * 3, axis=-1)
    return np.ascontiguousarray(gravel[row : row + 200, column : column + 200])


def seen(image: np.ndarray) -> torch.Tensor:
    return pixels(squash(image, SIZE))


@pytest.fixture(scope="module")
def learned(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("photos")
    paths = []
    for number in range(PHOTOS):
        paths.append(directory / f"{number}.png")
        Image.fromarray(photo(60 * number)).save(paths[-1])
    product = learn_product(bundle, "object", paths, calibration="leave_one_out", threads=1)
    return product, [photo(60 * number) for number in range(PHOTOS)]


def test_the_manifest_names_the_method_and_what_its_windows_are(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.localizer.name == "winclip"
    assert manifest.localizer.parameters == {
        "small_window": 2,
        "mid_window": 4,
        "temperature": 0.07,
    }
    assert manifest.clip.tapped_blocks == (4,)
    assert manifest.clip.activation == "quick_gelu"
    assert manifest.clip.adapters.name == "none"
    parameters = manifest.method_parameters
    assert (parameters.reference_distance, parameters.reference_fusion) == ("half_cosine", "mean")
    sizes = manifest.sizes.reference
    assert (sizes.blocks, sizes.tokens, sizes.width) == (3, 81, 64)


def test_an_inspection_without_photos_is_anomalib_s_zero_shot(bundle: Bundle, model) -> None:
    with Inspector.load(bundle.path, threads=1) as inspector:
        for image in (photo(30), parity_image("real", 180, 240)):
            got = inspector.inspect(image, product="object", trace=True)
            want = model(seen(image))
            wanted = want.anomaly_map[0].numpy()
            assert np.ptp(wanted) > 0.03
            assert np.abs(got.trace.zero_shot_map - wanted).max() <= 1e-5
            assert got.image_score == pytest.approx(float(want.pred_score), abs=1e-5)


def few_shot(model, images: list[np.ndarray], image: np.ndarray):
    """anomalib's fused map, and its map of association alone, upsampled as the fused one is."""
    model.setup(reference_images=torch.cat([seen(one) for one in images]))
    want = model(seen(image))
    _, windows, patches = model.encode_image(seen(image))
    grid = model._compute_few_shot_scores(patches, windows)
    alone = functional.interpolate(grid[None], size=SIZE, mode="bilinear")[0, 0]
    model.k_shot, model.reference_images = 0, None
    return want, alone.detach().numpy()


def test_an_inspection_with_learned_photos_is_anomalib_s_few_shot(model, learned) -> None:
    product, images = learned
    bank = product.bundle.reference_bank("object")
    # All tokens of all photos: nothing is thinned away that anomalib keeps.
    assert bank.rows == PHOTOS * 81
    with Inspector.load(product.bundle.path, threads=1) as inspector:
        for image in (photo(90), parity_image("real", 180, 240)):
            got = inspector.inspect(image, product="object", trace=True)
            want, alone = few_shot(model, images, image)
            assert np.ptp(alone) > 0.02
            # The bank is FP16; `test_window_matcher` has the same in FP32.
            assert np.abs(got.trace.reference_map - alone).max() <= 1e-4
            assert np.abs(got.anomaly_map - want.anomaly_map[0].numpy()).max() <= 1e-4
            zero_shot = float(model(seen(image)).pred_score)
            assert got.image_score == pytest.approx((zero_shot + alone.max()) / 2, abs=5e-5)
            # anomalib takes the peak of the patches, before they are upsampled.
            assert 0 <= float(want.pred_score) - got.image_score < 0.01


def test_leave_one_out_scores_each_photo_by_the_others(model, learned) -> None:
    product, images = learned
    scores = []
    for image in images:
        others = [one for one in images if one is not image]
        _, alone = few_shot(model, others, image)
        scores.append((float(model(seen(image)).pred_score) + alone.max()) / 2)
    assert product.fit.threshold == pytest.approx(max(scores), abs=5e-5)
    assert len(set(scores)) == PHOTOS


def test_a_thinned_bank_never_has_a_row_that_is_no_patch_or_window(learned) -> None:
    """Thinning of windows, of which those at the border are there more than once."""
    product, _ = learned
    whole = product.bundle.reference_bank("object").tokens
    norms = np.linalg.norm(whole.astype(np.float32), axis=-1)
    np.testing.assert_allclose(norms, 1, atol=2e-3)
    # 64 windows of 2 x 2 and 36 of 4 x 4 on 9 x 9 patches, of each photo.
    distinct = [len(np.unique(block, axis=0)) for block in whole]
    assert distinct == [PHOTOS * 81, PHOTOS * 64, PHOTOS * 36]
    for block, rows in zip(whole, distinct, strict=True):
        # The first of each photo, of which a smaller bank is made, are all different.
        for first in range(0, PHOTOS * 81, 81):
            kept = block[first : first + rows // PHOTOS]
            assert len(np.unique(kept, axis=0)) == len(kept)


def test_tensorrt_rtx_builds_encoder_and_matcher_as_fp16(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "b"
    shutil.copytree(bundle.path, copy)
    engines = ("--engine", CLIP_ENCODER, "--engine", REFERENCE_MATCHER)
    # A graph that is called FP16 and is not, the builder refuses.
    built = zeroflaw("build", copy, "--gpu", "sm86", *engines)
    assert built.returncode == 0, built.stderr
    # Four blocks, on the image and on windows of two scales.
    assert f"{CLIP_ENCODER}: 12 attention float16" in built.stdout + built.stderr
    assert f"{REFERENCE_MATCHER}: 3 gemm float16, 2 gemm float32" in built.stdout + built.stderr


def test_images_of_a_batch_are_as_each_alone(bundle: Bundle) -> None:
    contract, texts = bundle.contract(CLIP_ENCODER), bundle.text_embeddings("object")
    session = OnnxRuntimeSession(bundle.onnx_path(CLIP_ENCODER), contract)
    images = [squash(photo(50 * number), SIZE)[None] for number in range(3)]
    inputs = [clip_encoder_inputs(contract, image, texts) for image in images]

    def run(*chosen: int) -> list:
        outputs = session.execute(stacked(contract, [inputs[number] for number in chosen]))
        return taken_apart(contract, outputs, len(chosen))

    alone = [run(number)[0] for number in range(3)]
    for number, got in zip((2, 0, 1), run(2, 0, 1), strict=True):
        for name in ("anomaly_map", "image_score", PATCH_TOKENS):
            np.testing.assert_allclose(got[name], alone[number][name], rtol=0, atol=1e-5)
    assert np.abs(alone[0][PATCH_TOKENS] - alone[1][PATCH_TOKENS]).max() > 0.1
