"""What a manifest must satisfy beyond the kinds of its fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, Final

import msgspec

from zeroflaw_engines.bundle.graph_entries import EngineFile, GraphVariant
from zeroflaw_engines.bundle.manifest import (
    BATCHES_SINCE,
    LOCALIZERS_SINCE,
    SETTINGS_SINCE,
    Manifest,
    Product,
)
from zeroflaw_engines.bundle.products.names import check_product_name
from zeroflaw_engines.bundle.products.settings_checks import check_settings
from zeroflaw_engines.contract import (
    BOX_PROPOSER,
    CLIP_ENCODER,
    ENGINES_OF_REFINER,
    REFERENCE_MATCHER,
    SAM_DECODER,
    SAM_ENCODER,
    EngineName,
)
from zeroflaw_engines.errors import BundleDamagedError, BundleSchemaError, ProductError
from zeroflaw_engines.parameters import PARAMETERS_OF_REFINER

_SHA256 = re.compile(r"[0-9a-f]{64}")

# The method parameters that a manifest records since a version of the schema; what a version does
# not know takes the default.
_PARAMETERS_SINCE: Final[dict[int, tuple[str, ...]]] = {
    1: (
        "extreme_threshold", "positive_points", "negative_points", "point_spacing",
        "spacing_pixels", "prompt_grid", "dilation_kernel", "dilation_size", "sam_input",
        "similarity", "stage1_mask", "box", "cascade_stages", "no_region", "scoring",
        "fusion_weight", "image_scoring", "decision_threshold",
    ),
    4: ("min_contrast", "max_clipped", "min_peak", "contradiction", "contradiction_area"),
    5: ("reference_distance", "reference_fusion", "reference_image_scoring"),
}  # fmt: skip

# The fields of the manifest and of its products that are always written since a version.
_FIELDS_SINCE: Final[dict[int, frozenset[str]]] = {
    2: frozenset({"demonstration", "calibration"}),
    5: frozenset({"reference"}),
    6: frozenset({"blocks"}),
    SETTINGS_SINCE: frozenset({"settings"}),
    LOCALIZERS_SINCE: frozenset({"localizer", "proposals"}),
}


def unknown_fields(version: int) -> frozenset[str]:
    """Return the names of fields of the manifest and its products that a version does not know."""
    return frozenset().union(*(names for since, names in _FIELDS_SINCE.items() if version < since))


def check_manifest(manifest: Manifest, document: Mapping[str, Any], where: str) -> None:
    """Refuse a manifest that contradicts itself or its version.

    Args:
        manifest: As decoded; each field has a value of its kind.
        document: The JSON that it was decoded from, without the digest.
        where: Path for error messages.

    Raises:
        BundleDamagedError: A path or digest in it is not acceptable.
        BundleSchemaError: Its version lacks fields or does not know them, or values contradict
            one another.
    """
    _check_version(manifest, where)
    _check_complete(manifest, document, where)
    _check_references(manifest, where)


def check_relative_path(name: str, where: str) -> None:
    """Refuse paths that could lead out of the bundle.

    Raises:
        BundleDamagedError: The path is absolute, has `..`, or is not in plain POSIX form.
    """
    path = PurePosixPath(name)
    plain = bool(name) and "\\" not in name and ":" not in name and "\0" not in name
    if not plain or not path.parts or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise BundleDamagedError(
            f"{where} names the file {name!r}, which is not a plain path inside the bundle",
            "do not use this bundle; export it again or copy it anew from a trusted place",
        )


def _check_version(manifest: Manifest, where: str) -> None:
    """Refuse fields that the manifest's own version does not have."""
    calibrations = [p.calibration for p in manifest.products.values() if p.calibration]
    since = 1
    if calibrations or manifest.demonstration is not None:
        since = 2
    if any(
        engine.variants or engine.attention is not None for engine in manifest.engines.values()
    ) or any(figure.target != "onnxruntime" for figure in manifest.parity):
        since = 3
    if any(calibration.backend is not None for calibration in calibrations):
        since = 4
    if (
        manifest.reference is not None
        or REFERENCE_MATCHER in manifest.engines
        or manifest.reference_banks
        or any(figure.engine == REFERENCE_MATCHER for figure in manifest.parity)
        or any(
            one.interval is None or one.scheme != "split" or one.reference is not None
            for one in calibrations
        )
    ):
        since = 5
    if manifest.reference is not None and manifest.reference.blocks is not None:
        since = 6
    if any(engine.max_batch > 1 for engine in manifest.engines.values()):
        since = BATCHES_SINCE
    if any(
        product.settings
        or (product.reference and product.reference.tiles)
        or (product.calibration and product.calibration.statistic != "image_score")
        for product in manifest.products.values()
    ):
        since = SETTINGS_SINCE
    if (
        manifest.localizer is not None
        or manifest.sam is None
        or not manifest.takes_texts
        or manifest.method_parameters.refiner != "cascade"
        or manifest.proposals is not None
        or BOX_PROPOSER in manifest.engines
    ):
        since = LOCALIZERS_SINCE
    if manifest.schema_version < since:
        raise BundleSchemaError(
            f"{where} has fields that schema version {manifest.schema_version} does not know",
            "export the bundle again",
        )


def _check_complete(manifest: Manifest, document: Mapping[str, Any], where: str) -> None:
    """Refuse a manifest without a field that its version always writes."""
    version = manifest.schema_version
    unknown = unknown_fields(version)
    missing = [n for n in _missing(msgspec.to_builtins(manifest), document) if n not in unknown]
    for since, names in _PARAMETERS_SINCE.items():
        if since <= version:
            missing += [name for name in names if name not in manifest.parameters]
    # Those of a refiner are recorded with it alone, and with it all of them. Without another
    # localizer, it is the refiner that the version is for.
    refiner = manifest.method_parameters.refiner
    own = PARAMETERS_OF_REFINER.get(refiner, ())
    if version >= LOCALIZERS_SINCE and manifest.localizer is None:
        own = ("refiner", *own)
    missing += [name for name in own if name not in manifest.parameters]
    of_refiners = {name for names in PARAMETERS_OF_REFINER.values() for name in names}
    strange = sorted(of_refiners.difference(own) & manifest.parameters.keys())
    if strange:
        raise BundleSchemaError(
            f"{where} names the refiner {refiner}, and has parameters of another:"
            f" {', '.join(strange)}",
            "export the bundle again",
        )
    if missing:
        raise BundleSchemaError(
            f"{where} does not fit schema version {version}: it lacks {', '.join(missing)}",
            "copy the bundle anew, or export it again",
        )


def _missing(whole: object, part: object) -> list[str]:
    """Return the names of fields, at any depth, that one document has and the other lacks."""
    if isinstance(whole, dict) and isinstance(part, Mapping):
        found = [name for name in whole if name not in part]
        for name in whole.keys() & part.keys():
            found += _missing(whole[name], part[name])
        return sorted(found)
    if isinstance(whole, list | tuple) and isinstance(part, list):
        return [
            name for one, other in zip(whole, part, strict=True) for name in _missing(one, other)
        ]
    return []


def _check_references(manifest: Manifest, where: str) -> None:
    for name, entry in manifest.files.items():
        check_relative_path(name, where)
        if not _SHA256.fullmatch(entry.sha256) or entry.bytes < 0:
            raise BundleDamagedError(
                f"{where} has no valid digest and size for {name}", "export the bundle again"
            )
    references = [manifest.prompts]
    for engine in manifest.engines.values():
        graphs: tuple[EngineFile | GraphVariant, ...] = (engine, *engine.variants)
        for graph in graphs:
            references += [graph.onnx] + ([graph.weights] if graph.weights else [])
    if manifest.text:
        references += [manifest.text.tokenizer, manifest.text.ensembles]
    banks = [one.reference.bank for one in manifest.products.values() if one.reference]
    banks += [
        one.settings.alignment.template
        for one in manifest.products.values()
        if one.settings and one.settings.alignment
    ]
    for name in (*references, *banks):
        check_relative_path(name, where)
        if name not in manifest.files:
            raise BundleDamagedError(
                f"{where} uses the file {name} but has no digest for it", "export the bundle again"
            )
    # These are removed with their product's entry, so that nothing else may need such a file.
    if len({*references, *banks}) < len({*references}) + len(banks):
        raise BundleSchemaError(f"{where} uses a product's file twice", "export the bundle again")
    _check_engines(manifest, where)
    for name, product in manifest.products.items():
        _check_product(manifest, name, product, where)


def _check_product(manifest: Manifest, name: str, product: Product, where: str) -> None:
    reference, calibration = product.reference, product.calibration
    if reference and (
        manifest.reference is None
        or reference.rows > manifest.reference.rows
        or not reference.photos
        or not _are_tiles_of(reference.tiles, product)
        or not all(map(_SHA256.fullmatch, (reference.tower, *(p.sha256 for p in reference.photos))))
    ):
        raise BundleSchemaError(
            f"{where}: the reference bank of product {name!r} contradicts itself or the bundle",
            "learn the product again in a whole copy of the bundle",
        )
    digest = manifest.files[reference.bank].sha256 if reference else None
    if calibration and (
        product.threshold is None
        or calibration.rank > calibration.images
        or not _SHA256.fullmatch(calibration.data_digest)
        or not _SHA256.fullmatch(calibration.parameters_digest or calibration.data_digest)
        or (calibration.interval is None and calibration.scheme == "split")
        or calibration.reference not in (None, digest)
        or (calibration.statistic == "decision_score") != _has_rules(product)
    ):
        raise BundleSchemaError(
            f"{where}: the calibration of product {name!r} contradicts itself, its bank, or"
            " its rules",
            "calibrate the product again in a whole copy of the bundle",
        )
    try:
        check_product_name(name)
        if product.settings is not None:
            check_settings(product.settings)
    except ProductError as error:
        raise BundleSchemaError(f"{where}: {error.cause}", "export the bundle again") from error


def _are_tiles_of(numbers: tuple[int, ...], product: Product) -> bool:
    """Return whether such tiles may have a bank each in a product."""
    tiles = None if product.settings is None else product.settings.tiles
    if tiles is None or tiles.banks != "per_tile" or tiles.rows * tiles.columns == 1:
        return not numbers
    ascending = all(one < other for one, other in pairwise(numbers))
    return bool(numbers) and ascending and numbers[-1] < tiles.rows * tiles.columns


def _has_rules(product: Product) -> bool:
    return product.settings is not None and bool(product.settings.rules)


def _check_sam(manifest: Manifest, where: str) -> None:
    """Refuse engines of SAM that contradict what is said of SAM, or of the refiner."""
    has_sam = manifest.sam is not None
    of_sam: tuple[EngineName, ...] = (SAM_ENCODER, SAM_DECODER)
    for name in of_sam:
        if (name in manifest.engines) != has_sam:
            text = f"no engine {name}" if has_sam else f"an engine {name} but nothing on SAM"
            raise BundleSchemaError(f"{where} has {text}", "export the bundle again")
    refiner = manifest.method_parameters.refiner
    if not has_sam and SAM_ENCODER in ENGINES_OF_REFINER[refiner]:
        raise BundleSchemaError(
            f"{where} names the refiner {refiner}, which runs SAM, and has no SAM",
            f"export the bundle again with `zeroflaw export --refiner {refiner}`",
        )


def _check_engines(manifest: Manifest, where: str) -> None:
    for engine_name, engine in manifest.engines.items():
        targets = [graph.target for graph in engine.variants]
        if len(set(targets)) < len(targets):
            raise BundleSchemaError(
                f"{where} has two graphs of {engine_name} for one target", "export the bundle again"
            )
        if engine.max_batch > 1 and engine_name not in (CLIP_ENCODER, SAM_ENCODER):
            raise BundleSchemaError(
                f"{where} has batches of images for {engine_name}, which takes none",
                "export the bundle again",
            )
    required: list[EngineName] = [CLIP_ENCODER]
    _check_sam(manifest, where)
    if manifest.text:
        if not manifest.takes_texts:
            raise BundleSchemaError(
                f"{where} has a text engine, and a localizer that takes no texts",
                "export the bundle again",
            )
        required.append("text_encoder")
    if manifest.reference:
        required.append(REFERENCE_MATCHER)
    elif REFERENCE_MATCHER in manifest.engines:
        raise BundleSchemaError(
            f"{where} has an engine {REFERENCE_MATCHER} but no sizes of reference banks",
            "export the bundle again",
        )
    refiner = manifest.method_parameters.refiner
    of_proposals = BOX_PROPOSER in ENGINES_OF_REFINER[refiner]
    if {of_proposals} != {manifest.proposals is not None, BOX_PROPOSER in manifest.engines}:
        raise BundleSchemaError(
            f"{where} names the refiner {refiner}, and contradicts it in its engine {BOX_PROPOSER}"
            " or the sizes of it",
            "export the bundle again",
        )
    for engine_name in required:
        if engine_name not in manifest.engines:
            raise BundleSchemaError(
                f"{where} has no engine {engine_name}", "export the bundle again"
            )
    both: tuple[EngineName, ...] = (CLIP_ENCODER, SAM_ENCODER)
    batches = {manifest.engines[name].max_batch for name in both if name in manifest.engines}
    if len(batches) > 1:
        raise BundleSchemaError(
            f"{where} has encoders for batches of {' and '.join(map(str, sorted(batches)))} images",
            "export the bundle again: both take the same",
        )
