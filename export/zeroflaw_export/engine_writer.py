"""An export module as an engine of a bundle: its graphs, written and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs
from torch import nn

from zeroflaw_engines.bundle.graph_entries import AttentionForm, EngineFile, Precision
from zeroflaw_engines.bundle.manifest import ParityFigure
from zeroflaw_engines.contract import EngineName, EngineSizes, engine_contract
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_export.graphs.onnx_writer import OPSET, onnx_from_module
from zeroflaw_export.graphs.variants import FP16_ENGINES, write_fp16_variant
from zeroflaw_export.parity import checks as parity

# What is being done.
ReportStep = Callable[[str], None]


@dataclass(frozen=True)
class EngineGraphs:
    """What some engines add to the manifest: their graphs, and the figures of their checks."""

    engines: dict[EngineName, EngineFile]
    parity: list[ParityFigure]


# Compares a session with its reference, by what is accepted.
_Check = Callable[[OnnxRuntimeSession, parity.Tolerances], list[ParityFigure]]


@dataclass(frozen=True)
class EngineWriter:
    """Writes engines, each with the graphs that are asked for, and checks them.

    Attributes:
        staging: Directory that it writes into.
        precision: `fp16` adds the graphs for TensorRT.
        report: Called with each step as it begins.
    """

    staging: Path
    sizes: EngineSizes
    precision: Precision
    report: ReportStep

    def write(
        self,
        name: EngineName,
        module: nn.Module,
        check: _Check,
        attention: AttentionForm = "none",
    ) -> EngineGraphs:
        """Export and check the graph of an engine, with its FP16 graph where one is asked for.

        Args:
            module: An export module in eval mode.
            check: Compares a session of it with its reference.
            attention: How SAM's relative position is written in it; `none` for other engines.

        Raises:
            ExportError: The module cannot be exported, or FP16 cannot take its graph.
            ParityError: A graph differs from the reference.
        """
        contract = engine_contract(name, self.sizes)
        self.report(f"exporting {name}")
        path = self.staging / f"{name}.onnx"
        onnx_from_module(module, contract, path)
        figures = self._checked(name, path, check, parity.fp32_tolerances())
        weights = path.with_name(path.name + ".data")
        engine = EngineFile(
            onnx=path.name,
            weights=weights.name if weights.exists() else None,
            opset=OPSET,
            attention=attention,
            max_batch=contract.max_batch,
        )
        if self.precision == "fp16" and name in FP16_ENGINES:
            self.report(f"writing {name} in FP16")
            half = write_fp16_variant(self.staging, name, engine, self.staging)
            figures += self._checked(name, self.staging / half.onnx, check, parity.FP16_TOLERANCES)
            engine = structs.replace(engine, variants=(half,))
        return EngineGraphs({name: engine}, figures)

    def _checked(
        self, name: EngineName, path: Path, check: _Check, accepted: parity.Tolerances
    ) -> list[ParityFigure]:
        self.report(f"checking {name} for {accepted.target}")
        session = OnnxRuntimeSession(
            path,
            engine_contract(name, self.sizes),
            precision="fp16" if accepted is parity.FP16_TOLERANCES else "fp32",
        )
        figures = check(session, accepted)
        session.close()
        return figures
