"""What a build of engines can be asked for, as data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import msgspec

from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    FRAME_RESIZER,
    IMAGES,
    SAM_ENCODER,
    EngineContract,
    TensorSpec,
)
from zeroflaw_engines.errors import BuildError
from zeroflaw_engines.tensorrt_bindings import BuildBackend

# Name of the target when the engine is for the GPU of the machine that builds it.
THIS_GPU: Final = "this-gpu"

_ENCODERS: Final = (CLIP_ENCODER, SAM_ENCODER)
_ARCHITECTURE = re.compile(r"sm[1-9][0-9]{1,2}")

# What the kernels of `frame_resizer` are chosen for, px by axis.
_RESIZER_OPTIMUM: Final = {"height": 2048, "width": 2048, "rows": 1024, "columns": 1024}

# Shapes of one input: smallest, those that the kernels are chosen for, largest.
ProfileShapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class BatchRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes that a dynamic axis may have: prompts of a decoder call, or images of an encoder's.

    Attributes:
        min: Fewest.
        opt: The number that kernels are chosen for: the cascade asks for one.
        max: Most; the session refuses more. The cascade asks for up to 16 prompts, with a box for
            each component.
    """

    min: int = 1
    opt: int = 1
    max: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise BuildError(
                f"the batch range {self.min}, {self.opt}, {self.max} is not one",
                "give 1 <= min <= opt <= max",
            )


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How engines are built. `None` and the empty tuple mean the backend's own default.

    Attributes:
        backend: Whose compiler.
        architectures: GPU architectures in one engine, such as `sm86`, in ascending order
            (`gpu_architectures` makes them so). Empty: the GPU of this machine.
        precision: Which of the bundle's graphs: `fp16` is strongly typed FP16 with FP32
            islands, `fp32` the reference graph.
        batch: Prompts of the decoder.
        images: Of the encoders of a bundle that was exported for batches; None takes up to as
            many as its graphs do, and chooses kernels for one. Without batches it is of no matter.
        workspace_mib: Most device memory that one kernel may take for itself, MiB.
        hardware_compatibility: GPUs beyond the one of this machine that may run the engine.
        version_compatible: Whether later versions of the backend may run the engine. Such a plan
            carries code of its own, so that a station must trust it.
        strip_weights: Whether weights stay out of the engine, to be refitted from the ONNX file.
        tf32: Whether FP32 products may be rounded to TF32. FP32 islands are there for their
            precision, so by default they may not.
        timing_cache: File of kernel timings to read and to extend; it changes how long a build
            takes, not what it is asked for, and so is no part of the key.
    """

    backend: BuildBackend
    architectures: tuple[str, ...] = ()
    precision: Literal["fp16", "fp32"] = "fp16"
    batch: BatchRange = BatchRange()
    images: BatchRange | None = None
    workspace_mib: int | None = None
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    version_compatible: bool = False
    strip_weights: bool = False
    tf32: bool = False
    timing_cache: Path | None = None

    @property
    def target(self) -> str:
        """Name of the directory for such engines: `sm86-sm89-sm120`, or `this-gpu`."""
        return "-".join(self.architectures) or THIS_GPU

    def profile(self, contract: EngineContract) -> dict[str, ProfileShapes]:
        """Return the shapes of inputs with a dynamic axis; empty where every shape is fixed.

        Raises:
            BuildError: More images are asked for than the bundle's graphs take.
        """
        if contract.name == FRAME_RESIZER:
            return {spec.name: _resizer_shapes(spec, contract) for spec in contract.inputs}
        images = self.images or BatchRange(max=contract.max_batch)
        if images.max > contract.max_batch and contract.name in _ENCODERS:
            raise BuildError(
                f"the {contract.name} takes {contract.max_batch} images in one call, not"
                f" {images.max}",
                f"ask for fewer, or export the bundle again with --max-batch {images.max}",
            )
        profile = {}
        for spec in contract.inputs:
            dynamic = [axis for axis in spec.shape if isinstance(axis, str)]
            if dynamic:
                chosen = images if dynamic == [IMAGES] else self.batch
                smallest, optimal, largest = (
                    tuple(count if isinstance(size, str) else size for size in spec.shape)
                    for count in (chosen.min, chosen.opt, chosen.max)
                )
                profile[spec.name] = (smallest, optimal, largest)
        return profile


def _resizer_shapes(spec: TensorSpec, contract: EngineContract) -> ProfileShapes:
    smallest, optimal, largest = (
        tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
        for sizes in (dict.fromkeys(contract.limits, 1), _RESIZER_OPTIMUM, contract.limits)
    )
    return smallest, optimal, largest


def gpu_architectures(names: Iterable[str]) -> tuple[str, ...]:
    """Sort GPU architectures in ascending order, each once.

    Args:
        names: As `sm86`, in any order and case.

    Raises:
        BuildError: A name is not one of an architecture.
    """
    found = {name.lower() for name in names}
    for name in sorted(found):
        if not _ARCHITECTURE.fullmatch(name):
            raise BuildError(
                f"{name!r} is not the name of a GPU architecture",
                "write the compute capability without its point: 8.6 is sm86, 12.0 is sm120",
            )
    return tuple(sorted(found, key=lambda name: int(name[2:])))
