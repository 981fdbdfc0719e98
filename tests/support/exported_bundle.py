"""Bundles of random weights: what to export, and what an export by the command line cost."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from support.command_line import ZEROFLAW, Cost, run_measured
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import parameters_record, schema_version
from zeroflaw_engines.bundle.writer import write_manifest
from zeroflaw_engines.contract import BOX_PROPOSER
from zeroflaw_engines.parameters import MethodParameters

if TYPE_CHECKING:
    from zeroflaw_export.export import ExportJob

# Of the random weights of every bundle that the command line exports here.
SEED = 3
# Of those of the fixture `tiny_bundle`.
TINY_SEED = 7


@dataclass(frozen=True)
class Exported:
    """A bundle, and what its export cost."""

    path: Path
    cost: Cost


def export(path: Path, clip: str, sam: str, *options: str) -> Exported:
    cost = run_measured(
        ZEROFLAW, "export", path, "--clip", clip, "--sam", sam, "--random-weights", SEED, *options
    )
    return Exported(path, cost)


def tiny_job(*products: str) -> ExportJob:
    """Tiny CLIP and SAM of random weights; torch is imported here and not with the module."""
    from zeroflaw_export.export import ExportJob, WeightsSource

    source = WeightsSource(name="random", path=None, seed=TINY_SEED)
    return ExportJob(
        clip_architecture="tiny",
        sam_architecture="tiny",
        clip_weights=source,
        localizer_weights=source,
        sam_weights=source,
        products=products,
        bank_bytes=2**20,
    )


def language_free(tiny: Bundle, target: Path) -> Bundle:
    """Write VisualAD of random weights on the tower of `tiny_bundle`, with the product `object`."""
    from zeroflaw_engines.bundle.manifest import LOCALIZERS_SINCE, Product
    from zeroflaw_engines.bundle.writer import staged_bundle, write_manifest
    from zeroflaw_engines.contract import CLIP_ENCODER, TEXT_ENCODER
    from zeroflaw_export.engine_writer import EngineWriter
    from zeroflaw_export.export import localizer_identity
    from zeroflaw_export.models.architectures import clip_architecture
    from zeroflaw_export.models.load import WeightsSource
    from zeroflaw_export.models.localizers.registry import localizer
    from zeroflaw_export.parity import checks
    from zeroflaw_export.texts import PROMPTS, no_texts

    method, source = localizer("visualad"), WeightsSource("random", None, TINY_SEED)
    architecture = clip_architecture("tiny")
    size, parameters = tiny.manifest.clip.image_size, method.parameters()
    tower = method.load_tower(architecture, size, clip_weights=source, weights=source)
    built = method.build(tower, parameters)
    manifest = msgspec.structs.replace(
        tiny.manifest,
        schema_version=LOCALIZERS_SINCE,
        clip=msgspec.structs.replace(tiny.manifest.clip, embedding_size=0, activation="quick_gelu"),
        text=None,
        prompts=PROMPTS,
        products={"object": Product(sentences=(0, 0))},
        localizer=localizer_identity(method, parameters),
    )
    with staged_bundle(target, overwrite=False) as staging:
        texts = no_texts(staging, ["object"])
        part = EngineWriter(staging, manifest.sizes, "fp32", lambda _: None).write(
            CLIP_ENCODER,
            built.encoder,
            lambda session, accepted: checks.check_clip_encoder(
                session, built.reference, texts.bank["object"], accepted
            ),
        )
        kept = {
            name: engine
            for name, engine in tiny.manifest.engines.items()
            if name not in (CLIP_ENCODER, TEXT_ENCODER)
        }
        for engine in kept.values():
            for file in (engine.onnx, engine.weights):
                if file is not None:
                    shutil.copyfile(tiny.path / file, staging / file)
        engines = {**part.engines, **kept}
        write_manifest(staging, msgspec.structs.replace(manifest, engines=engines))
    return open_bundle(target)


def add_proposer(bundle: Path, graph: Path, **parameters: object) -> None:
    """Makes a bundle one that was exported with a proposal graph, which takes long.

    The export package is imported here and not with the module.
    """
    from zeroflaw_export.graphs.box_proposer import adopt_box_proposer

    opened = open_bundle(bundle)
    adopted = adopt_box_proposer(graph, bundle)
    manifest = opened.manifest
    recorded = MethodParameters(refiner="box_proposals", **parameters)
    write_manifest(
        bundle,
        msgspec.structs.replace(
            manifest,
            schema_version=schema_version(manifest.max_batch, parameters=recorded),
            engines={**manifest.engines, BOX_PROPOSER: adopted.engine},
            proposals=adopted.identity,
            parameters=parameters_record(recorded),
        ),
    )


def with_proposer(bundle: Bundle, folder: Path) -> Path:
    """Copies a bundle, with the graph of brightness as its proposer."""
    from support.small_graphs import write_proposal_graph

    copied = folder / bundle.path.name
    shutil.copytree(bundle.path, copied)
    add_proposer(copied, write_proposal_graph(folder / "detector.onnx"))
    return copied
