"""A proposal graph that the user brings, taken into a bundle as its `box_proposer`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from zeroflaw_engines.bundle.graph_entries import EngineFile
from zeroflaw_engines.bundle.identities import ProposalsIdentity, WeightsIdentity
from zeroflaw_engines.contract import (
    BOX_PROPOSER,
    EngineContract,
    ProposalSizes,
    TensorSpec,
    box_proposer_contract,
)
from zeroflaw_engines.contract.proposals import box_proposals
from zeroflaw_engines.errors import EngineError, ExportError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_engines.parameters import Refiner
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_export.parity.checks import IMAGE_KINDS, parity_image

_WANTED: Final = (
    "image: uint8[1, P, P, 3] -> boxes: float32[1, N, 4], scores: float32[1, N], with fixed P and N"
)
_WRAP: Final = "docs/bundle.md shows how to wrap a detector to these tensors"


@dataclass(frozen=True)
class AdoptedProposer:
    """A box proposer that is in the bundle, as the manifest has it."""

    engine: EngineFile
    identity: ProposalsIdentity

    @property
    def sizes(self) -> ProposalSizes:
        """Its sizes, for the contract."""
        return ProposalSizes(self.identity.image_size, self.identity.boxes)


def require_proposals(source: Path | None, refiner: Refiner) -> None:
    """Refuse a proposal graph without its refiner, and the refiner without a graph.

    Args:
        source: The ONNX file that was given, if one was.
        refiner: That the bundle is exported for.

    Raises:
        ExportError: One is there without the other, or there is no such file.
    """
    if source is None and refiner == "box_proposals":
        raise ExportError(
            "the refiner box_proposals needs a proposal graph, and none was given",
            "name its ONNX file with --proposals, or choose another --refiner",
        )
    if source is not None and refiner != "box_proposals":
        raise ExportError(
            f"the proposal graph {source} was given, which the refiner {refiner} does not run",
            "choose --refiner box_proposals, or leave --proposals out",
        )
    if source is not None:
        _require_file(source)


def _require_file(source: Path) -> None:
    if not source.is_file():
        raise ExportError(
            f"{source} is not a file", "name the ONNX file of the proposal graph with --proposals"
        )


def adopt_box_proposer(source: Path, staging: Path) -> AdoptedProposer:
    """Copy a proposal graph into a bundle, and check that it does what the contract says.

    The graph is taken as it is; weights in files of their own come from beside it, into one file.
    It is run on a photograph and on noise.

    Args:
        source: The ONNX file.
        staging: Directory of the bundle.

    Raises:
        ExportError: It is not such a graph, its weights are missing, or it does not run, or gives
            what are no boxes and scores.
    """
    model = _read(source)
    sizes = _sizes(model, source)
    path = staging / f"{BOX_PROPOSER}.onnx"
    weights = _copy(model, source, path)
    _check(source, path, box_proposer_contract(sizes))
    engine = EngineFile(
        onnx=path.name,
        weights=weights,
        opset=next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")),
        attention="none",
    )
    identity = ProposalsIdentity(
        image_size=sizes.image_size,
        boxes=sizes.boxes,
        weights=WeightsIdentity(name=source.name, sha256=sha256_of_file(source)),
    )
    return AdoptedProposer(engine, identity)


def _read(source: Path) -> onnx.ModelProto:
    """Read a graph without its external data, and check that it is one."""
    _require_file(source)
    try:
        model = onnx.load(str(source), load_external_data=False)
        onnx.checker.check_model(str(source))
    except Exception as error:  # protobuf's and onnx's errors share no base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(
            f"{source} cannot be read as an ONNX graph: {reason}",
            "give the ONNX file of the proposal graph, with its external data beside it",
        ) from error
    return model


def _sizes(model: onnx.ModelProto, source: Path) -> ProposalSizes:
    """Return P and N of a graph, and refuse one whose tensors are others."""
    constants = {one.name for one in model.graph.initializer}
    inputs = [_spec(one) for one in model.graph.input if one.name not in constants]
    outputs = [_spec(one) for one in model.graph.output]
    side = next((one.shape[1] for one in inputs if len(one.shape) == 4), 0)
    count = next((one.shape[1] for one in outputs if len(one.shape) == 3), 0)
    if isinstance(side, int) and isinstance(count, int) and side > 0 and count > 0:
        sizes = ProposalSizes(side, count)
        contract = box_proposer_contract(sizes)
        by_name = sorted(outputs, key=lambda spec: spec.name)
        if (*inputs, *by_name) == (*contract.inputs, *contract.outputs):
            return sizes
    found = f"{', '.join(map(str, inputs))} -> {', '.join(map(str, outputs))}"
    raise ExportError(f"{source} has the tensors {found}, and wanted is {_WANTED}", _WRAP)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(
        axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?"
        for axis in tensor.shape.dim
    )
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except KeyError:
        dtype = "another kind of value"
    return TensorSpec(value.name, dtype, shape)


def _copy(model: onnx.ModelProto, source: Path, path: Path) -> str | None:
    """Copy a graph; return the name of its file of external weights, if it has one."""
    if not any(map(onnx.external_data_helper.uses_external_data, model.graph.initializer)):
        shutil.copyfile(source, path)
        return None
    weights = path.with_name(path.name + ".data")
    try:
        whole = onnx.load(str(source))
    except (OSError, onnx.checker.ValidationError, ValueError) as error:
        raise ExportError(
            f"the external data of {source} cannot be read: {error}",
            "put its files beside the graph, under the names that the graph gives them",
        ) from error
    onnx.save(
        whole, str(path), save_as_external_data=True, location=weights.name, size_threshold=1024
    )
    return weights.name if weights.exists() else None


def _check(source: Path, path: Path, contract: EngineContract) -> None:
    """Run a graph on a photograph and on noise, and look at what it gives."""
    side = int(contract.inputs[0].shape[1])
    kind = "loading"
    try:
        session = OnnxRuntimeSession(path, contract)
        try:
            for kind in IMAGE_KINDS:
                box_proposals(session.execute({"image": parity_image(kind, side, side)[None]}))
        finally:
            session.close()
    except EngineError as error:
        what = "on loading" if kind == "loading" else f"on the {kind} image"
        raise ExportError(f"{source} is no {BOX_PROPOSER}: {what}, {error.cause}", _WRAP) from error
