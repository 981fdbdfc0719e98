"""What `zeroflaw doctor` finds: the machine, the backends, and the engines of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from zeroflaw_engines.backends import AUTO, RANKING, Availability, availability, choose_backend
from zeroflaw_engines.built_engines.lookup import engine_statuses
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import ZeroflawError
from zeroflaw_engines.machine import Machine, NvidiaGpu, this_machine
from zeroflaw_engines.sessions.gpu_support import GpuService, family, gpu_services
from zeroflaw_engines.version import __version__

# Distributions whose versions say most about a machine where something fails.
_DISTRIBUTIONS: Final = (
    "numpy", "opencv-python-headless", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino",
    "tensorrt", "tensorrt-rtx", "tensorrt-rtx-cu12", "cuda-bindings", "torch", "open_clip_torch",
    "segment-anything",
)  # fmt: skip


@dataclass(frozen=True)
class BackendDiagnosis:
    """One backend on this machine.

    Attributes:
        found: Whether it can run, and what is missing.
        why: What it is good for.
        verified: Whether zeroflaw's own tests run it, or it passed the acceptance on a GPU as it
            is now.
        default_precision: What it computes in if nothing is said.
    """

    found: Availability
    why: str
    verified: bool
    default_precision: str


@dataclass(frozen=True)
class GpuDiagnosis:
    """One GPU of this machine, and which backends serve it.

    Attributes:
        number: As `nvidia-smi` counts, which is CUDA's order if CUDA_DEVICE_ORDER is PCI_BUS_ID.
        gpu: What it is.
        family: Of cards; empty if it is not known.
        services: What each backend for GPUs is to it, the one to be tried first first.
    """

    number: int
    gpu: NvidiaGpu
    family: str
    services: tuple[GpuService, ...]


@dataclass(frozen=True)
class EngineDiagnosis:
    """One built engine of the bundle.

    Attributes:
        status: `up to date`, `stale`, `damaged` or `no graph`.
        reason: In words; empty if up to date.
    """

    path: str
    status: str
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """What a machine can run.

    Attributes:
        zeroflaw: Version.
        machine: What it is made of.
        versions: Of the distributions that are installed, by name.
        backends: From the fastest to the slowest.
        gpus: What serves each of the machine's GPUs.
        auto: What `auto` would choose and why, or why it cannot.
        bundle: The bundle that was looked at; None if none was named.
        bundle_error: Why it cannot be used; None if it can.
        engines: Its built engines.
    """

    zeroflaw: str
    machine: Machine
    versions: dict[str, str]
    backends: tuple[BackendDiagnosis, ...]
    gpus: tuple[GpuDiagnosis, ...]
    auto: str
    bundle: str | None = None
    bundle_error: str | None = None
    engines: tuple[EngineDiagnosis, ...] = ()


def diagnose(bundle: str | Path | None = None) -> Diagnosis:
    """Look at this machine, and at a bundle's engines for it; raise nothing for what it finds.

    Args:
        bundle: As for `open_bundle`; files are checked by size, not by digest.
    """
    opened: Bundle | None = None
    problem = None
    if bundle is not None:
        try:
            opened = open_bundle(bundle, verify_digests=False)
        except ZeroflawError as error:
            problem = str(error)
    try:
        auto = str(choose_backend(AUTO, bundle=opened))
    except ZeroflawError as error:
        auto = str(error)
    machine = this_machine()
    return Diagnosis(
        zeroflaw=__version__,
        machine=machine,
        versions=installed_versions(),
        backends=tuple(
            BackendDiagnosis(
                found=availability(backend.name),
                why=backend.why,
                verified=backend.verified,
                default_precision=backend.precisions[0],
            )
            for backend in RANKING
        ),
        gpus=gpu_diagnoses(machine.gpus, "my_bundle" if bundle is None else str(bundle)),
        auto=auto,
        bundle=None if bundle is None else str(bundle),
        bundle_error=problem,
        engines=() if opened is None else _engines(opened),
    )


def gpu_diagnoses(gpus: Sequence[NvidiaGpu], bundle: str) -> tuple[GpuDiagnosis, ...]:
    """Say what serves each GPU.

    Args:
        gpus: In the order of their numbers.
        bundle: For the commands.
    """
    return tuple(
        GpuDiagnosis(number, gpu, family(gpu), gpu_services(gpu, bundle, device=number))
        for number, gpu in enumerate(gpus)
    )


def installed_versions() -> dict[str, str]:
    """Return the versions, by name, of installed distributions that say most about a machine."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _engines(bundle: Bundle) -> tuple[EngineDiagnosis, ...]:
    return tuple(
        EngineDiagnosis(str(status.paths.plan), status.status, status.reason)
        for status in engine_statuses(bundle)
    )
