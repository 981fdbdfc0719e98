"""The engines of a bundle with FP16 storage, as sessions that note what they see."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from zeroflaw_benchmarks.passive_session import PassiveSession
from zeroflaw_benchmarks.verify.fp16.provocation import scale_what_islands_read
from zeroflaw_benchmarks.verify.fp16.storage import StoredTensor, scan_report, store_in_fp16
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import EngineName
from zeroflaw_engines.errors import EvaluationError
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, HostTensor, Tensor, on_host
from zeroflaw_engines.sessions.quiet_onnxruntime import ort, quiet_settings
from zeroflaw_engines.sessions.session import Outputs, check_inputs
from zeroflaw_export.graphs.precision_recipe import FP16_RECIPE, PrecisionRecipe
from zeroflaw_export.graphs.variants import fp16_model


class StoredSession(PassiveSession):
    """One FP16 graph with true FP16 storage on ONNX Runtime's CPU provider.

    It fulfils `zeroflaw_engines.sessions.session.Session`, so that an Inspector can run on it.

    Args:
        bundle: Whose engine; its FP32 graph is taken, and the recipe applied.
        directory: Where the graph is written; the caller removes it.
        scale: Factor of the provocation; 1 for the weights as they are.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: EngineName,
        directory: Path,
        *,
        recipe: PrecisionRecipe = FP16_RECIPE,
        scale: float = 1.0,
    ) -> None:
        model = ir.load(bundle.onnx_path(engine))
        if scale != 1:
            scale_what_islands_read(model, scale)
        fp16_model(model, engine, recipe)
        self._watched = store_in_fp16(model)
        self._session = _written_and_loaded(model, directory / f"{engine}.stored.onnx")
        super().__init__(bundle.contract(engine), f"FP16 storage on onnxruntime {ort.__version__}")
        self._wanted = [spec.name for spec in self.contract.outputs]
        self._scans = [out.name for out in self._session.get_outputs() if "/" in out.name]
        self._worst: dict[str, float] = {}

    def execute(
        self, inputs: Mapping[str, Tensor | DeviceTensor], *, keep: Collection[str] = ()
    ) -> Outputs:
        """Run the graph once; see `Session.execute`."""
        check_inputs(self.contract, inputs, kept=HostTensor)
        given = {name: on_host(tensor) for name, tensor in inputs.items()}
        values = self._session.run([*self._wanted, *self._scans], given)
        for name, value in zip(self._scans, values[len(self._wanted) :], strict=True):
            # fmax would hide a NaN of the magnitude; its own output tells of it.
            self._worst[name] = float(np.fmax(self._worst.get(name, 0.0), value))
        return {
            name: HostTensor(value) if name in keep else value
            for name, value in zip(self._wanted, values, strict=False)
        }

    def scan(self) -> list[StoredTensor]:
        """Return the largest magnitude of every stored tensor over all runs.

        Raises:
            EvaluationError: There was no run.
        """
        if not self._worst:
            raise EvaluationError(
                f"no frame made {self.contract.name} run, so nothing is known of its values",
                "give photos in which the bundle finds something",
            )
        return scan_report(self._watched, self._worst)

    def close(self) -> None:
        """Release the graph."""
        del self._session


class ScaledSession:
    """The FP32 graph with the weights of the provocation: the reference for that of FP16."""

    def __init__(self, bundle: Bundle, engine: EngineName, directory: Path, scale: float) -> None:
        model = ir.load(bundle.onnx_path(engine))
        self.scaled_products = scale_what_islands_read(model, scale)
        self._session = _written_and_loaded(model, directory / f"{engine}.scaled.onnx")
        self._wanted = [spec.name for spec in bundle.contract(engine).outputs]

    def execute(self, inputs: Mapping[str, Tensor | DeviceTensor]) -> dict[str, Tensor]:
        """Run the graph once; see `Session.execute`."""
        given = {name: on_host(tensor) for name, tensor in inputs.items()}
        values = self._session.run(self._wanted, given)
        return dict(zip(self._wanted, values, strict=True))


def _written_and_loaded(model: ir.Model, path: Path) -> ort.InferenceSession:
    ir.save(model, path, external_data=path.name + ".data")
    options = quiet_settings()
    # By default every scan runs after the last layer, and all that it reads is kept until then:
    # more than 22 GB for ViT-H.
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
