"""What a GPU acceptance accepts, and how."""

from __future__ import annotations

from dataclasses import dataclass

from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.image_files.frame import Frame


@dataclass(frozen=True, kw_only=True)
class AcceptanceOptions:
    """What is accepted and how.

    Attributes:
        bundle: Whose engines run.
        backend: What runs them.
        precision: What they compute in; None takes the backend's default.
        product: What the frames show.
        frames: uint8 [H, W, 3] each.
        soak_runs: Inspections of the soak.
        threads: CPU threads; 0 takes every core.
        device: Number of the GPU, as CUDA counts.
    """

    bundle: Bundle
    backend: str
    precision: str | None
    product: str
    frames: tuple[Frame, ...]
    soak_runs: int
    threads: int = 0
    device: int = 0
