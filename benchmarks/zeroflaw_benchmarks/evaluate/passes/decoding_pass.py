"""Pass 2 of an evaluation: refiners on cached encodings, the cascade for many parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw.pipeline.refining.decoding import decode
from zeroflaw.pipeline.refining.refinement import RefinerEngines
from zeroflaw.pipeline.trace import Status
from zeroflaw_benchmarks.evaluate.cache import digest_of, read_arrays, write_arrays
from zeroflaw_benchmarks.evaluate.passes.encoding_pass import read_encoding
from zeroflaw_benchmarks.evaluate.passes.refining_pass import (
    read_refined_status,
    refined_bytes,
    write_refined,
)
from zeroflaw_benchmarks.evaluate.passes.remembering_session import RememberingSession
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import ENGINES_OF_REFINER, SAM_DECODER, EngineSizes
from zeroflaw_engines.parameters import MethodParameters, Refiner
from zeroflaw_engines.sessions.session import Session

# Fields that only matter after decoding, or (cascade_stages, scoring) are decoded side by side.
_AFTERWARDS = (
    "cascade_stages",
    "scoring",
    "image_scoring",
    "reference_image_scoring",
    "decision_threshold",
)
# The cascade's masks are kept, and fused afterwards; of other refiners the score maps are.
_AFTER_CASCADE = "fusion_weight"


@dataclass(frozen=True)
class StageMask:
    """The mask that a cascade of some stages keeps.

    Attributes:
        status: As `Inspection.status`.
        predicted_iou: Of the kept mask; 0 if there is none.
        low_res_logits: float32 [L, L] of the kept mask, or None.
    """

    status: Status
    predicted_iou: float
    low_res_logits: FloatArray | None


@dataclass(frozen=True)
class DecodingOptions:
    """Parameters that are decoded together.

    Attributes:
        parameters: The method's parameters; those that only matter afterwards have defaults.
        stages: Lengths of the cascade that are wanted, ascending; of other refiners that of the
            parameters, which means nothing.
        size: Side at which scores are measured, px: those of other refiners are kept as maps.
        scorings: Whose maps are kept, from `kept_scorings`; none of the cascade.
    """

    parameters: MethodParameters
    stages: tuple[int, ...]
    size: int
    scorings: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the name of the files in the cache."""
        of_maps = () if self.parameters.refiner == "cascade" else (self.size, self.scorings)
        return digest_of(msgspec.json.encode([asdict(self.parameters), self.stages, *of_maps]))


@dataclass(frozen=True)
class DecodingTarget:
    """What an encoding is decoded for.

    Attributes:
        reference: File of the image's reference map; None without a bank.
        file: For what comes of it.
    """

    options: DecodingOptions
    reference: Path | None
    file: Path


@dataclass(frozen=True)
class DecodingJob:
    """One encoding to decode."""

    encoding: Path
    targets: tuple[DecodingTarget, ...]


@dataclass(frozen=True)
class Decoder:
    """What a process needs to decode; no decoder where the refiner runs without SAM."""

    sam_decoder: Session | None
    sizes: EngineSizes
    workspace: Workspace


def decoded_parameters(parameters: MethodParameters) -> MethodParameters:
    """Set all parameters that only matter afterwards to their defaults."""
    defaults = asdict(MethodParameters())
    names = [*_AFTERWARDS, _AFTER_CASCADE] if parameters.refiner == "cascade" else _AFTERWARDS
    return parameters.replace(**{name: defaults[name] for name in names})


def load_decoder(
    bundle: Bundle, refiner: Refiner, *, backend: str, threads: int, device: int = 0
) -> Decoder:
    """Load the engine of this pass, if the refiner runs it."""
    session = None
    if SAM_DECODER in ENGINES_OF_REFINER[refiner]:
        session = load_session(bundle, SAM_DECODER, backend=backend, threads=threads, device=device)
    return Decoder(session, bundle.manifest.sizes, Workspace())


def decode_encoding(decoder: Decoder, job: DecodingJob) -> None:
    """Decode one encoding into its files.

    Raises:
        EngineError: The decoder failed.
        EvaluationError: A file cannot be read or written.
    """
    for target in job.targets:
        parameters = target.options.parameters
        encoding = read_encoding(job.encoding, target.reference, decoder.sizes, parameters)
        if parameters.refiner == "cascade":
            write_stage_masks(target.file, decode_stages(decoder, encoding, target.options))
        else:
            engines = RefinerEngines(decoder.sam_decoder, decoder.sizes, decoder.workspace)
            write_refined(
                target.file,
                encoding,
                parameters,
                engines,
                scorings=target.options.scorings,
                size=target.options.size,
            )


def decode_stages(
    decoder: Decoder, encoding: Encoding, options: DecodingOptions
) -> dict[int, StageMask]:
    """Return the masks of cascades of several lengths, each as the Inspector would give it.

    A shorter cascade is the beginning of a longer one, so the decoder runs for the longest only.

    Raises:
        EngineError: The decoder failed.
    """
    assert decoder.sam_decoder is not None  # noqa: S101 - loaded for the cascade
    session = RememberingSession(decoder.sam_decoder)
    masks: dict[int, StageMask] = {}
    for stages in options.stages:
        session.rewind()
        cascade = decode(
            encoding,
            options.parameters.replace(cascade_stages=stages),
            sam_decoder=session,
            sizes=decoder.sizes,
            workspace=decoder.workspace,
        ).cascade
        if cascade is None:
            masks[stages] = StageMask("no_region", 0.0, None)
        elif not cascade.kept_stage:
            masks[stages] = StageMask(cascade.status, 0.0, None)
        else:
            kept = cascade.stages[cascade.kept_stage - 1]
            masks[stages] = StageMask(
                cascade.status, cascade.predicted_iou, kept.low_res_logits.copy()
            )
    return masks


def write_stage_masks(path: Path, masks: Mapping[int, StageMask]) -> None:
    """Write the masks of one encoding; masks that several lengths share are written once.

    Raises:
        EvaluationError: The file cannot be written.
    """
    logits: list[FloatArray] = []
    places: list[int] = []
    for mask in masks.values():
        if mask.low_res_logits is None:
            places.append(-1)
            continue
        same = [i for i, known in enumerate(logits) if np.array_equal(known, mask.low_res_logits)]
        if not same:
            logits.append(mask.low_res_logits)
        places.append(same[0] if same else len(logits) - 1)
    write_arrays(
        path,
        stages=np.array(list(masks), np.int64),
        places=np.array(places, np.int64),
        statuses=np.array([mask.status for mask in masks.values()]),
        predicted_iou=np.array([mask.predicted_iou for mask in masks.values()], np.float64),
        logits=np.array(logits, np.float32),
    )


def read_stage_mask(path: Path, stages: int) -> StageMask:
    """Return the mask that a cascade of a length keeps.

    Raises:
        EvaluationError: The file is missing or damaged.
    """
    lengths, places, statuses, scores, logits = read_arrays(
        path, "stages", "places", "statuses", "predicted_iou", "logits"
    )
    at = lengths.tolist().index(stages)
    low_res = None if places[at] < 0 else logits[places[at]]
    return StageMask(str(statuses[at]), float(scores[at]), low_res)  # type: ignore[arg-type]


def read_status(path: Path, parameters: MethodParameters) -> str:
    """Return the status of a decoded image, as `Inspection.status`.

    Raises:
        EvaluationError: The file is missing or damaged.
    """
    if parameters.refiner == "cascade":
        return read_stage_mask(path, parameters.cascade_stages).status
    return read_refined_status(path)


def decoding_bytes(sizes: EngineSizes, options: DecodingOptions) -> int:
    """Return the most bytes that one decoding takes on disk."""
    if options.parameters.refiner != "cascade":
        return refined_bytes(options.scorings, options.size)
    return 4 * sizes.low_res_size**2 * len(options.stages) + 4096
