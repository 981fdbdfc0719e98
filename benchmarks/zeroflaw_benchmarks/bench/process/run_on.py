"""What runs the engines of a measurement, and how each of its processes loads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from zeroflaw.inspector import EncoderSchedule, Inspector
from zeroflaw_engines.backends import BACKENDS, DEFAULT_BACKEND, load_session
from zeroflaw_engines.bundle.bundle import Bundle, read_manifest
from zeroflaw_engines.contract import EngineName
from zeroflaw_engines.sessions.session import Session

if TYPE_CHECKING:
    from zeroflaw_engines.sessions.quiet_onnxruntime import ort

TORCH: Final = "torch"
# How PyTorch runs a network; `torch_modes.prepared` says what each is.
TorchMode = Literal["eager", "compile", "reduce-overhead", "cuda-graph"]
_OPENVINO: Final = "openvino"
_OPENVINO_HINTS: Final = {"bf16": "bf16", "fp16": "f16"}


@dataclass(frozen=True)
class RunOn:
    """A backend, what it computes in, and its threads.

    Attributes:
        backend: Its name; `torch` for the reference models.
        precision: None takes that of the backend.
        threads: CPU threads of each engine; 0 takes every core.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.
    """

    backend: str = DEFAULT_BACKEND
    precision: str | None = None
    threads: int = 0
    device: int = 0

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU; of `auto` and `torch` nothing is known."""
        return self.backend in BACKENDS and BACKENDS[self.backend].on_gpu

    def session(self, bundle: Bundle, engine: EngineName) -> Session:
        """Load one engine of a bundle."""
        return load_session(
            bundle,
            engine,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
            device=self.device,
        )

    def inspector(
        self,
        bundle: str | Path,
        *,
        encoder_schedule: EncoderSchedule = "side_by_side",
        **parameters: float,
    ) -> Inspector:
        """Load an Inspector that runs the whole cascade, whatever the weights say of the frame.

        Args:
            encoder_schedule: As `Inspector.load` takes it.
            parameters: Method parameters that differ from those that the bundle records.
        """
        recorded = read_manifest(bundle).method_parameters
        return Inspector.load(
            bundle,
            self.backend,
            precision=self.precision,
            threads=self.threads,
            device=self.device,
            encoder_schedule=encoder_schedule,
            parameters=recorded.replace(no_region="always_run", **parameters),
        )

    def import_library(self) -> None:
        """Import what runs the engines, so that it does not count as loading them."""
        if self.backend == _OPENVINO:
            from zeroflaw_engines.sessions.openvino_session import load_openvino

            load_openvino()
        else:
            import zeroflaw_engines.sessions.quiet_onnxruntime  # noqa: F401

    def plain_session(self, graph: Path) -> Callable[[dict[str, Any]], Any]:
        """Load a graph with the library's defaults, as a researcher would.

        Backends other than OpenVINO are ONNX Runtime's CPU provider.

        Returns:
            Runs it: inputs by name to outputs by number.
        """
        if self.backend != _OPENVINO:
            session = plain_onnxruntime(graph, self.threads)
            return lambda inputs: session.run(None, inputs)
        from zeroflaw_engines.sessions.openvino_session import load_openvino

        hint = _OPENVINO_HINTS.get(self.precision or "", "f32")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint}
        if self.threads:
            settings["INFERENCE_NUM_THREADS"] = self.threads
        compiled = load_openvino().Core().compile_model(str(graph), "CPU", settings)
        return lambda inputs: [np.array(value) for value in compiled(inputs).values()]


def warm_up_on_gpu(inspector: Inspector) -> None:
    """Warm an Inspector up where it runs on a GPU, as a station does before its first frame.

    That records CUDA graphs. On a CPU there are none, and nothing is done.

    Raises:
        EngineError: An engine failed.
    """
    if inspector.choice is not None and BACKENDS[inspector.choice.backend].on_gpu:
        inspector.warm_up()


def plain_onnxruntime(graph: Path | str, threads: int = 0) -> ort.InferenceSession:
    """Load a graph in ONNX Runtime with its defaults; 0 threads are as many as there are cores."""
    from zeroflaw_engines.sessions.quiet_onnxruntime import ort, quiet_settings

    options = quiet_settings()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
