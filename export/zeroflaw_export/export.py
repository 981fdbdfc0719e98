"""The export: weights in, bundle out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
from segment_anything.modeling import Sam
from torch import nn

from zeroflaw_engines import arguments
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.graph_entries import AttentionForm, Precision
from zeroflaw_engines.bundle.identities import (
    ClipIdentity,
    LocalizerIdentity,
    ReferenceIdentity,
    SamIdentity,
    WeightsIdentity,
)
from zeroflaw_engines.bundle.manifest import Manifest, Product, parameters_record, schema_version
from zeroflaw_engines.bundle.products.names import check_product_name, normal_name, require_distinct
from zeroflaw_engines.bundle.prompt_ensembles import (
    read_prompt_ensembles,
)
from zeroflaw_engines.bundle.writer import staged_bundle, write_manifest
from zeroflaw_engines.contract import (
    BOX_PROPOSER,
    CLIP_ENCODER,
    ENGINES_OF_REFINER,
    MAX_BATCH,
    REFERENCE_MATCHER,
    SAM_DECODER,
    SAM_ENCODER,
    EngineSizes,
)
from zeroflaw_engines.errors import ExportError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.version import __version__
from zeroflaw_export.engine_writer import EngineGraphs, EngineWriter, ReportStep
from zeroflaw_export.graphs.box_proposer import adopt_box_proposer, require_proposals
from zeroflaw_export.models.architectures import (
    CLIP_MEAN,
    CLIP_STD,
    SAM_MEAN,
    SAM_STD,
    clip_architecture,
    sam_architecture,
)
from zeroflaw_export.models.load import WeightsSource, load_sam
from zeroflaw_export.models.localizers.localizer import Localizer
from zeroflaw_export.models.localizers.registry import DEFAULT_LOCALIZER, localizer
from zeroflaw_export.models.pyramid import PyramidImageEncoder
from zeroflaw_export.models.sam_attention import ATTENTION_OF_TARGET
from zeroflaw_export.models.sam_decoder import SamDecoder
from zeroflaw_export.models.sam_encoder import PyramidSamEncoder, SamEncoder
from zeroflaw_export.parity import checks as parity
from zeroflaw_export.parity import references
from zeroflaw_export.parity.references import keep_freed_memory
from zeroflaw_export.texts import PROMPTS, export_texts, no_texts

# 10 positive and 10 negative points and a box, in rows that make 32 tokens with SAM's own five.
MAX_PROMPTS: Final = 27
# What a product's reference bank may take.
BANK_BYTES: Final = 16_000_000


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """What to export.

    Attributes:
        clip_architecture: Name in the registry.
        sam_architecture: Name in the registry; None exports no SAM, for refiners that run without.
        clip_weights: Of both CLIP towers.
        localizer_weights: Of what the localizer adds to CLIP's towers, as APRIL-GAN's adapters;
            of one that adds nothing, they are not looked at.
        sam_weights: Of SAM; None with none.
        localizer: Name in the registry.
        localizer_parameters: Its parameters, by name; others take their defaults.
        clip_image_size: Side of CLIP's input, px; default: the architecture's.
        products: Names to put into the prompt bank.
        ensembles: A file of prompt ensembles; default: those of the localizer.
        text_encoder: Whether the text tower becomes a fourth engine.
        parameters: Method parameters to record; those of a localizer's source are its
            `recorded_parameters`.
        demonstration: A sentence that says what the model is, if it is one to try zeroflaw with.
        precision: `fp16` adds strongly typed graphs for TensorRT; the FP32 graphs are always there.
        bank_bytes: What a product's reference bank may take, in FP16.
        max_batch: Most images that one call of the encoders takes, 1 to 8: above 1 their graphs
            have a dynamic first axis, for re-inspecting what was recorded.
        proposals: The ONNX file of a proposal graph, for the refiner `box_proposals` alone.
    """

    clip_architecture: str
    sam_architecture: str | None
    clip_weights: WeightsSource
    localizer_weights: WeightsSource
    sam_weights: WeightsSource | None
    localizer: str = DEFAULT_LOCALIZER
    localizer_parameters: Mapping[str, Any] = field(default_factory=dict)
    clip_image_size: int | None = None
    products: tuple[str, ...] = ("object",)
    ensembles: Path | None = None
    text_encoder: bool = True
    parameters: MethodParameters = field(default_factory=MethodParameters)
    demonstration: str | None = None
    precision: Precision = "fp32"
    bank_bytes: int = BANK_BYTES
    max_batch: int = 1
    proposals: Path | None = None

    @property
    def random_weights(self) -> int | None:
        """The seed, if any part is random."""
        for source in self.sources:
            if source.path is None:
                return source.seed
        return None

    @property
    def sources(self) -> tuple[WeightsSource, ...]:
        """All weights that go into the bundle."""
        own = (self.localizer_weights,) if localizer(self.localizer).takes_weights else ()
        of_sam = () if self.sam_weights is None else (self.sam_weights,)
        return (self.clip_weights, *own, *of_sam)


def export_bundle(
    job: ExportJob,
    target: Path,
    *,
    overwrite: bool = False,
    report: ReportStep = lambda _: None,
) -> Bundle:
    """Export every engine, check each against PyTorch, and publish the bundle.

    Args:
        overwrite: Whether an existing bundle may be replaced; otherwise it is a BundleError.
        report: Called with each step as it begins.

    Returns:
        The published bundle.

    Raises:
        WeightsError: Weights do not fit.
        ParityError: An engine differs from PyTorch; nothing was published.
        ExportError: Something else failed; nothing was published.
        BundleError: The target cannot be written.
    """
    arguments.whole_number(
        "max_batch", job.max_batch, minimum=1, maximum=MAX_BATCH, error=ExportError
    )
    if not job.products:
        raise ExportError("the export has no product", "name at least one")
    _require_sam(job)
    job = replace(job, products=tuple(map(normal_name, job.products)))
    for name in job.products:
        check_product_name(name)
    require_distinct(job.products, ())
    for source in job.sources:
        source.require_file()
    if job.ensembles is not None:
        if not localizer(job.localizer).takes_text:
            raise ExportError(
                f"the sentences of {job.ensembles} were given to {job.localizer}, which takes none",
                "leave --ensembles out",
            )
        read_prompt_ensembles(job.ensembles)
    require_proposals(job.proposals, job.parameters.refiner)
    keep_freed_memory()
    with staged_bundle(target, overwrite=overwrite) as staging:
        manifest = _export_into(staging, job, report)
        report("writing the manifest")
        manifest = write_manifest(staging, manifest)
    return Bundle(path=Path(target), manifest=manifest)


def _export_into(staging: Path, job: ExportJob, report: ReportStep) -> Manifest:
    architecture = clip_architecture(job.clip_architecture)
    image_size = architecture.image_size if job.clip_image_size is None else job.clip_image_size
    architecture.check_image_size(image_size)
    method = localizer(job.localizer)
    method_parameters = method.parameters_from(job.localizer_parameters)
    method.check(architecture, image_size, method_parameters)
    proposer = None
    if job.proposals is not None:
        report("checking the proposal graph")
        proposer = adopt_box_proposer(job.proposals, staging)
    sam_identity, sam = _load_sam(job, report)
    sizes = EngineSizes(
        clip_image_size=image_size,
        embedding_size=architecture.embedding_size if method.takes_text else 0,
        sam_image_size=0 if sam_identity is None else sam_identity.image_size,
        sam_feature_size=0 if sam_identity is None else sam_identity.feature_size,
        sam_feature_channels=0 if sam_identity is None else sam_identity.feature_channels,
        max_prompts=0 if sam_identity is None else sam_identity.max_prompts,
        reference=method.reference_sizes(architecture, image_size, job.bank_bytes),
        max_batch=job.max_batch,
        proposals=None if proposer is None else proposer.sizes,
    )
    writer = EngineWriter(staging, sizes, job.precision, report)
    sam_part = EngineGraphs({}, []) if sam is None else _export_sam(writer, sam)
    del sam

    report("loading CLIP's weights")
    tower = method.load_tower(
        architecture,
        image_size,
        clip_weights=job.clip_weights,
        weights=job.localizer_weights,
        batched=sizes.max_batch > 1,
    )
    quick_gelu = method.runs_quick_gelu(architecture, image_size)
    clip_identity = ClipIdentity(
        architecture=architecture.name,
        activation="quick_gelu" if quick_gelu else "gelu",
        image_size=image_size,
        embedding_size=sizes.embedding_size,
        tapped_blocks=method.tapped_blocks(architecture, method_parameters),
        mean=CLIP_MEAN,
        std=CLIP_STD,
        weights=job.clip_weights.identity(),
        adapters=job.localizer_weights.identity()
        if method.takes_weights
        else WeightsIdentity(name="none"),
    )
    texts = (
        export_texts(
            writer,
            tower.clip,
            job.products,
            ensembles_file=job.ensembles,
            text_encoder=job.text_encoder,
            packaged_ensembles=method.ensembles,
        )
        if method.takes_text
        else no_texts(staging, job.products)
    )
    built = method.build(tower, method_parameters)
    clip_part = writer.write(
        CLIP_ENCODER,
        built.encoder.eval(),
        lambda session, accepted: parity.check_clip_encoder(
            session, built.reference, texts.bank[job.products[0]], accepted
        ),
    )
    matcher_part = writer.write(
        REFERENCE_MATCHER,
        method.matcher(sizes, method_parameters),
        lambda session, accepted: parity.check_reference_matcher(
            session,
            lambda inputs, side: method.plain_reference_map(inputs, side, method_parameters),
            accepted,
        ),
    )

    identity = localizer_identity(method, method_parameters)
    return Manifest(
        schema_version=schema_version(
            sizes.max_batch, localizer=identity, parameters=job.parameters
        ),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        zeroflaw_version=__version__,
        random_weights=job.random_weights,
        clip=clip_identity,
        sam=sam_identity,
        text=texts.identity,
        engines={
            **clip_part.engines,
            **sam_part.engines,
            **texts.graphs.engines,
            **matcher_part.engines,
            **({} if proposer is None else {BOX_PROPOSER: proposer.engine}),
        },
        prompts=PROMPTS,
        products={name: Product(sentences=texts.sentences) for name in job.products},
        parameters=parameters_record(job.parameters),
        demonstration=job.demonstration,
        parity=(*clip_part.parity, *sam_part.parity, *texts.graphs.parity, *matcher_part.parity),
        files={},
        reference=_reference_identity(sizes),
        localizer=identity,
        proposals=None if proposer is None else proposer.identity,
    )


def _require_sam(job: ExportJob) -> None:
    refiner = job.parameters.refiner
    if job.sam_architecture is None and SAM_ENCODER in ENGINES_OF_REFINER[refiner]:
        raise ExportError(
            f"the refiner {refiner} runs SAM, and none is exported",
            "name one with --sam, or export for --refiner none",
        )
    if (job.sam_architecture is None) != (job.sam_weights is None):
        raise ExportError(
            "of SAM's architecture and its weights, one alone is given", "give both, or neither"
        )


def _load_sam(job: ExportJob, report: ReportStep) -> tuple[SamIdentity | None, Sam | None]:
    if job.sam_architecture is None or job.sam_weights is None:
        return None, None
    architecture = sam_architecture(job.sam_architecture)
    report("loading SAM's weights")
    sam = load_sam(architecture, job.sam_weights)
    identity = SamIdentity(
        architecture=architecture.name,
        image_size=sam.image_encoder.img_size,
        feature_size=sam.prompt_encoder.image_embedding_size[0],
        feature_channels=sam.prompt_encoder.embed_dim,
        max_prompts=MAX_PROMPTS,
        mean=SAM_MEAN,
        std=SAM_STD,
        weights=job.sam_weights.identity(),
    )
    return identity, sam


def localizer_identity(
    method: Localizer,
    parameters: Any,  # noqa: ANN401 - a dataclass of its own
) -> LocalizerIdentity | None:
    """Return what the manifest records of a localizer; None: it is APRIL-GAN's."""
    if method.name == DEFAULT_LOCALIZER:
        return None
    # Not the dataclass itself: msgspec leaves out what it was not given. As JSON has it, so that
    # what is returned equals what is read.
    recorded = msgspec.json.decode(msgspec.json.encode(asdict(parameters)))
    return LocalizerIdentity(name=method.name, parameters=recorded)


def _reference_identity(sizes: EngineSizes) -> ReferenceIdentity | None:
    found = sizes.reference
    if found is None:
        return None
    return ReferenceIdentity(
        blocks=found.blocks, tokens=found.tokens, width=found.width, rows=found.rows
    )


def _export_sam(writer: EngineWriter, sam: Sam) -> EngineGraphs:
    features = parity.sam_features(
        references.reference_sam_encoder(sam), sam.image_encoder.img_size
    )
    module: nn.Module
    attention: AttentionForm = "none"
    if isinstance(sam.image_encoder, PyramidImageEncoder):
        module = PyramidSamEncoder(sam)
    else:
        form = ATTENTION_OF_TARGET["onnxruntime"]
        module, attention = SamEncoder(sam, form), form
    encoder = writer.write(
        SAM_ENCODER,
        module.eval(),
        lambda session, accepted: parity.check_sam_encoder(session, features, accepted),
        attention,
    )
    reference = references.reference_sam_decoder(sam)
    decoder = writer.write(
        SAM_DECODER,
        SamDecoder(sam).eval(),
        lambda session, accepted: parity.check_sam_decoder(session, reference, features, accepted),
    )
    return EngineGraphs({**encoder.engines, **decoder.engines}, [*encoder.parity, *decoder.parity])
