"""What a few clean photos as reference give, on photos without a dataset's layout.

    python -m zeroflaw_benchmarks.evaluate.photos_as_reference BUNDLE DEFECT MASKS CLEAN

Of the clean photos, some are drawn as reference; the others and the defective ones are inspected.
Each mask bears the stem of its defective photo.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import cv2
import numpy as np
import typer

from zeroflaw.pipeline.encoding.frame import Encoding, encode
from zeroflaw.pipeline.geometry import BoolArray, FloatArray, geometry_of
from zeroflaw.pipeline.reference import (
    LoadedBank,
    fused_map,
    load_bank,
    match,
    reference_distances,
)
from zeroflaw.pipeline.refining.decoding import decode
from zeroflaw.pipeline.scoring import image_score, score_map
from zeroflaw.station.thinning import bank_of_photos, rows_of_a_photo, thinned
from zeroflaw_benchmarks.evaluate.metrics.metrics import (
    PixelScores,
    image_metrics,
    within_image_auroc,
)
from zeroflaw_benchmarks.evaluate.passes.decoding_pass import Decoder, load_decoder
from zeroflaw_benchmarks.evaluate.passes.encoding_pass import Encoders, load_encoders
from zeroflaw_benchmarks.evaluate.passes.reference_pass import Matcher, TokenTap, load_matcher
from zeroflaw_benchmarks.evaluate.products import refuse_settings
from zeroflaw_benchmarks.evaluate.shots.drawing import drawn_photos, reference_sizes
from zeroflaw_benchmarks.evaluate.within_image import SIZE, masked_photos, photos_in
from zeroflaw_engines.backends import DEFAULT_BACKEND
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import EvaluationError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_engines.sessions.device_tensor import on_host
from zeroflaw_export.datasets import Sample, mask_at_size, read_sample_image, read_sample_mask

_LEVELS: Final = (
    *["within-image pixel AUROC"] * 4,
    *["image AUROC"] * 3,
    *["pixel F1-max"] * 3,
)
_NAMES: Final = (
    "zero-shot map",
    "reference map",
    "fused map",
    "fused after the cascade",
    "zero-shot score",
    "highest of the reference map",
    "fused score",
    "fused map",
    "mask of the cascade",
    "fused after the cascade",
)


@dataclass(frozen=True)
class DrawFigures:
    """Figures of one draw of reference photos, each in [0, 1].

    Attributes:
        zero_shot_map: Mean within-image AUROC of the defective photos; so are `reference_map`,
            `fused_map`, and `cascade`, which is the fused score map after the cascade.
        zero_shot_score: Image AUROC of the defective photos against the clean ones that were not
            drawn; so are `reference_score`, of the highest of the reference map, and
            `fused_score`.
        map_f1: Highest F1 over the pixels of the defective photos and of those clean ones, of the
            fused map; so are `mask_f1`, of the mask, and `cascade_f1`.
    """

    zero_shot_map: float
    reference_map: float
    fused_map: float
    cascade: float
    zero_shot_score: float
    reference_score: float
    fused_score: float
    map_f1: float
    mask_f1: float
    cascade_f1: float


@dataclass(frozen=True, eq=False)
class EncodedPhoto:
    """A photo that is inspected with several banks.

    Attributes:
        tokens: float32 [blocks, tokens, width].
        truth: bool [518, 518]; None for a clean one.
    """

    encoding: Encoding
    tokens: FloatArray
    truth: BoolArray | None


@dataclass(frozen=True)
class Engines:
    """What encodes, matches and decodes."""

    encoders: Encoders
    matcher: Matcher
    decoder: Decoder
    parameters: MethodParameters


def load_engines(bundle_name: str, product: str, *, backend: str = DEFAULT_BACKEND) -> Engines:
    """Load the engines of a bundle; a bank of the product's own is left aside.

    Raises:
        BundleError: The bundle is missing or damaged.
        EvaluationError: It takes no reference photos, its refiner is not the cascade, or the
            product has settings.
        EngineError: An engine cannot be loaded.
    """
    bundle = open_bundle(bundle_name)
    reference_sizes(bundle)
    refuse_settings(bundle, product)
    parameters = bundle.manifest.method_parameters
    if parameters.refiner != "cascade":
        raise EvaluationError(
            f"this measures the cascade, and the refiner of the bundle {bundle.path} is"
            f" {parameters.refiner}",
            "lay the photos out as a data set, and measure with `zeroflaw evaluate --shots`",
        )
    return Engines(
        load_encoders(bundle, [product], parameters, backend=backend, threads=0),
        load_matcher(bundle, backend=backend, threads=0),
        load_decoder(bundle, "cascade", backend=backend, threads=0),
        parameters,
    )


def figures_of_draws(
    engines: Engines,
    defective: Sequence[Sample],
    clean: Sequence[Sample],
    *,
    product: str,
    shots: int,
    seeds: int,
) -> Iterator[DrawFigures]:
    """Measure draw after draw; each photo is encoded once.

    Args:
        clean: Sorted by path; `drawn_photos` draws from them, by the name of their directory.

    Raises:
        EvaluationError: No clean photo is left to inspect.
        DatasetError: A photo or a mask is not what it should be.
    """
    if not 1 <= shots < len(clean):
        raise EvaluationError(
            f"--shots {shots} of {len(clean)} clean photos leaves none to inspect"
            if shots >= 1
            else f"--shots {shots} asks for no reference photo",
            f"ask for 1 to {len(clean) - 1}, or give more clean photos",
        )
    bad = [encoded_photo(engines, sample, product) for sample in defective]
    good = [encoded_photo(engines, sample, product) for sample in clean]
    sizes = reference_sizes(engines.matcher.bundle)
    rows = rows_of_a_photo(shots, sizes.rows)
    folder = clean[0].image.parent.name
    for seed in range(seeds):
        drawn = drawn_photos(len(good), shots, seed, folder)
        bank = bank_of_photos(
            [thinned(good[place].tokens, rows) for place in drawn], engines.matcher.bundle.tower
        )
        loaded = load_bank(bank, f"draw {seed}", engines.matcher.session)
        rest = [photo for place, photo in enumerate(good) if place not in drawn]
        yield _figures(engines, loaded, [*bad, *rest])


def encoded_photo(engines: Engines, sample: Sample, product: str) -> EncodedPhoto:
    """Run both encoders on a photo."""
    encoders = engines.encoders
    frame = read_sample_image(sample)
    size = frame.shape[0], frame.shape[1]
    tap = TokenTap(encoders.clip_encoder)
    encoding = encode(
        frame,
        geometry_of(size, encoders.sizes, engines.parameters),
        encoders.embeddings[product],
        clip_encoder=tap,
        sam_encoder=encoders.sam_encoder,
    )
    assert tap.tokens is not None  # noqa: S101 - the engine has just run
    truth = mask_at_size(read_sample_mask(sample, size), SIZE) if sample.anomalous else None
    return EncodedPhoto(encoding, on_host(tap.tokens), truth)


def _figures(engines: Engines, bank: LoadedBank, photos: Sequence[EncodedPhoto]) -> DrawFigures:
    parameters = engines.parameters
    maps: list[list[float]] = []
    scores: list[list[float]] = []
    pixels = [PixelScores() for _ in range(3)]
    for photo in photos:
        seen = photo.encoding
        reference = reference_distances(
            match(photo.tokens, bank, engines.matcher.session), parameters
        )
        texts = image_score(seen.cls_score, seen.zero_shot_map, parameters)
        both = image_score(seen.cls_score, seen.zero_shot_map, parameters, reference)
        scores.append([texts, float(reference.max()), both])
        fused = fused_map(seen.zero_shot_map, reference, parameters)
        encoding = dataclasses.replace(seen, anomaly_map=fused, reference_map=reference)
        decoder = engines.decoder
        assert decoder.sam_decoder is not None  # noqa: S101 - loaded for the cascade
        cascade = decode(
            encoding,
            parameters,
            sam_decoder=decoder.sam_decoder,
            sizes=decoder.sizes,
            workspace=decoder.workspace,
        ).cascade
        mask = _at_size(score_map(fused, cascade, parameters.replace(scoring="mask")))
        after = _at_size(score_map(fused, cascade, parameters.replace(scoring="fused")))
        both_maps = _at_size(fused)
        truth = np.zeros((SIZE, SIZE), np.bool_) if photo.truth is None else photo.truth
        for of_kind, found in zip(pixels, (both_maps, mask, after), strict=True):
            of_kind.add(found, truth)
        if photo.truth is not None:
            maps.append(
                [
                    within_image_auroc(found, photo.truth)
                    for found in (
                        _at_size(seen.zero_shot_map),
                        _at_size(reference),
                        both_maps,
                        after,
                    )
                ]
            )
    anomalous = np.array([photo.truth is not None for photo in photos])
    columns = np.array(scores, np.float32).T
    return DrawFigures(
        *map(float, np.nanmean(maps, axis=0)),
        *(image_metrics(np.ascontiguousarray(column), anomalous).auroc for column in columns),
        *(of_kind.metrics().f1_max for of_kind in pixels),
    )


def _at_size(values: FloatArray) -> FloatArray:
    return np.asarray(cv2.resize(values, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), np.float32)


def main(
    bundle: Annotated[str, typer.Argument(help="A bundle's directory, or mini.")],
    defective: Annotated[Path, typer.Argument(help="Directory of defective photos.")],
    masks: Annotated[Path, typer.Argument(help="Directory of masks of the same stems.")],
    clean: Annotated[Path, typer.Argument(help="Directory of clean photos.")],
    *,
    shots: Annotated[int, typer.Option(help="Clean photos that are reference.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of them.")] = 5,
    product: Annotated[str, typer.Option(help="What the photos show.")] = "object",
) -> None:
    """Print what clean photos as reference give: means and deviations over the draws."""
    bad = masked_photos(defective, masks)
    good = [Sample(path, None, anomalous=False, defect="good") for path in photos_in(clean)]
    engines = load_engines(bundle, product)
    draws = figures_of_draws(engines, bad, good, product=product, shots=shots, seeds=seeds)
    values = np.array([dataclasses.astuple(figures) for figures in draws])
    typer.echo(
        f"{len(bad)} defective and {len(good)} clean photos, {shots} of which are reference;"
        f" mean (standard deviation) of {seeds} draws"
    )
    spread = values.std(axis=0, ddof=1) if seeds > 1 else np.zeros(values.shape[1])
    for name, level, mean, deviation in zip(
        _NAMES, _LEVELS, values.mean(axis=0), spread, strict=True
    ):
        typer.echo(f"{level:24} {name:32} {mean:.3f} ({deviation:.3f})")


if __name__ == "__main__":
    run_module(main)
