"""The export as a whole: everything in the manifest, and nothing published that is not right.

Where the ONNX export is not the point, the graphs are stand-ins and the sessions run PyTorch.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from support.exported_bundle import tiny_job
from support.small_graphs import write_proposal_graph
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.graph_entries import GraphVariant
from zeroflaw_engines.contract import ProposalSizes
from zeroflaw_engines.errors import (
    BundleError,
    ExportError,
    ParityError,
    ProductError,
    WeightsError,
    ZeroflawError,
)
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_export import engine_writer
from zeroflaw_export.export import ExportJob, export_bundle
from zeroflaw_export.graphs.onnx_writer import onnx_from_module
from zeroflaw_export.models.adapters import LinearAdapters, save_adapters
from zeroflaw_export.models.load import WeightsSource
from zeroflaw_export.parity import checks as parity

JOB = tiny_job("bolt")
BY_BOXES = MethodParameters(refiner="box_proposals", proposal_masks=7)
FEW = 'normal = ["{}", "fine {}"]\nabnormal = ["bad {}"]\ntemplates = ["a {}.", "one {}"]\n'
ENGINES = {"clip_encoder", "sam_encoder", "sam_decoder", "text_encoder", "reference_matcher"}


class TorchSession:
    """A session that runs the export module itself."""

    modules: dict[Path, torch.nn.Module] = {}  # noqa: RUF012 - emptied for each test
    backend = "torch"
    spoil = ""

    def __init__(self, path: Path, contract, **_: object) -> None:
        self.contract = contract
        self.module = self.modules[path]

    @torch.inference_mode()
    def execute(self, inputs):
        values = [torch.from_numpy(np.array(inputs[spec.name])) for spec in self.contract.inputs]
        outputs = self.module(*values)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        names = [spec.name for spec in self.contract.outputs]
        result = {name: out.numpy().copy() for name, out in zip(names, outputs, strict=True)}
        if TorchSession.spoil in result:
            result[TorchSession.spoil].flat[-1] += np.float32(0.05)
        return result

    def close(self) -> None:
        pass


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No ONNX: each graph is a file with its engine's name. Gives the engines as they come."""
    exported: list[str] = []

    def write(module, contract, path: Path) -> None:
        path.write_text(contract.name)
        path.with_name(path.name + ".data").write_bytes(contract.name.encode() * 100)
        TorchSession.modules[path] = module
        exported.append(contract.name)

    monkeypatch.setattr(TorchSession, "modules", {})
    monkeypatch.setattr(TorchSession, "spoil", "")
    monkeypatch.setattr(engine_writer, "onnx_from_module", write)
    monkeypatch.setattr(engine_writer, "OnnxRuntimeSession", TorchSession)
    return exported


@pytest.fixture
def quick(stand_ins, tmp_path_factory: pytest.TempPathFactory) -> ExportJob:
    """The job with six sentences for each product instead of 420."""
    path = tmp_path_factory.mktemp("ensembles") / "few.toml"
    path.write_text(FEW)
    return dataclasses.replace(JOB, ensembles=path)


def left_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if not path.name.endswith(".lock")]


def test_a_whole_export(stand_ins, tmp_path: Path) -> None:
    steps: list[str] = []
    returned = export_bundle(JOB, tmp_path / "b", report=steps.append)
    opened = open_bundle(tmp_path / "b")
    manifest = opened.manifest
    assert opened.manifest == returned.manifest
    assert set(stand_ins) == set(manifest.engines) == ENGINES
    assert manifest.random_weights == 7
    assert manifest.clip.activation == "gelu"
    assert (manifest.clip.image_size, manifest.clip.tapped_blocks) == (224, (1, 2, 3, 4))
    assert (manifest.sam.image_size, manifest.sam.max_prompts) == (256, 27)
    assert manifest.method_parameters == MethodParameters()
    assert manifest.products["bolt"].sentences == (245, 175)
    assert left_in(tmp_path) == ["b"]
    for name in ENGINES:
        assert any(name in step for step in steps)
    assert {figure.engine for figure in manifest.parity} == ENGINES
    assert all(0 <= figure.value <= figure.tolerance for figure in manifest.parity)
    both = {(figure.engine, figure.image) for figure in manifest.parity}
    assert {(e, i) for e in ENGINES - {"text_encoder"} for i in ("real", "noise")} <= both


def test_an_export_without_the_text_engine(quick: ExportJob, tmp_path: Path) -> None:
    job = dataclasses.replace(quick, text_encoder=False, products=("bolt", "nut"))
    bundle = export_bundle(job, tmp_path / "b")
    assert bundle.manifest.text is None
    assert set(bundle.manifest.engines) == ENGINES - {"text_encoder"}
    assert set(left_in(tmp_path / "b")) == {
        "bundle.json",
        "prompts.safetensors",
        *(f"{e}.onnx{end}" for e in ENGINES - {"text_encoder"} for end in ("", ".data")),
    }
    assert set(load_file(tmp_path / "b" / "prompts.safetensors")) == {"bolt", "nut"}
    open_bundle(tmp_path / "b")


def test_an_export_without_texts(stand_ins, tmp_path: Path) -> None:
    job = dataclasses.replace(
        JOB, localizer="visualad", localizer_parameters={"sigma": "2", "mapping": "affine"}
    )
    manifest = export_bundle(job, tmp_path / "b").manifest
    assert set(manifest.engines) == ENGINES - {"text_encoder"}
    assert (manifest.schema_version, manifest.text) == (9, None)
    assert (manifest.clip.embedding_size, manifest.clip.activation) == (0, "quick_gelu")
    assert manifest.localizer.name == "visualad"
    assert manifest.localizer.parameters == {
        "sigma": 2.0, "top_share": 0.01, "mapping": "affine", "logistic_scale": 1.0,
        "ln_post": "clip",
    }  # fmt: skip
    assert manifest.products["bolt"].sentences == (0, 0)
    assert open_bundle(tmp_path / "b").text_embeddings("bolt").shape == (2, 0)
    files = set(left_in(tmp_path / "b"))
    assert not files & {"tokenizer.json", "prompt_ensembles.toml"}
    assert all(0 <= figure.value <= figure.tolerance for figure in manifest.parity)


def test_the_job_is_recorded(stand_ins, tmp_path: Path) -> None:
    adapters = LinearAdapters(4, 64, 32)
    save_adapters(adapters, tmp_path / "own.pth")
    ensembles = tmp_path / "own.toml"
    ensembles.write_text(FEW)
    parameters = MethodParameters(extreme_threshold=0.3, cascade_stages=2)
    job = dataclasses.replace(
        JOB,
        localizer_weights=WeightsSource(name="own.pth", path=tmp_path / "own.pth"),
        ensembles=ensembles,
        clip_image_size=112,
        parameters=parameters,
    )
    manifest = export_bundle(job, tmp_path / "b").manifest
    assert manifest.clip.adapters.name == "own.pth"
    assert len(manifest.clip.adapters.sha256) == 64
    assert manifest.clip.image_size == 112
    assert manifest.clip.activation == "quick_gelu"
    assert manifest.products["bolt"].sentences == (4, 2)
    assert manifest.method_parameters == parameters
    assert (tmp_path / "b" / "prompt_ensembles.toml").read_bytes() == ensembles.read_bytes()
    assert manifest.random_weights == 7


@pytest.mark.parametrize(
    "output",
    ["features", "low_res_logits", "predicted_iou", "anomaly_map", "image_score",
     "sentence_embeddings"],
)  # fmt: skip
def test_an_engine_that_differs_is_not_published(
    quick: ExportJob, stand_ins: list[str], tmp_path: Path, output: str
) -> None:
    TorchSession.spoil = output
    with pytest.raises(ParityError) as caught:
        export_bundle(quick, tmp_path / "b")
    assert "differs from the original" in caught.value.cause
    assert stand_ins[-1] in caught.value.cause
    assert "nothing was published" in caught.value.remedy
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    "tolerance", ["MAP_TOLERANCE", "SENTENCE_TOLERANCE", "RELATIVE_TOLERANCE", "DISTANCE_TOLERANCE"]
)
@pytest.mark.parametrize("old", [False, True], ids=["new target", "old bundle"])
def test_a_tolerance_of_nothing_publishes_nothing(
    quick: ExportJob, tiny_bundle: Bundle, tmp_path: Path, monkeypatch, tolerance: str, old: bool
) -> None:
    target = tmp_path / "b"
    if old:
        shutil.copytree(tiny_bundle.path, target)
    monkeypatch.setattr(parity, tolerance, -1.0)
    with pytest.raises(ParityError):
        export_bundle(quick, target, overwrite=old)
    assert left_in(tmp_path) == (["b"] if old else [])
    if old:
        assert open_bundle(target).manifest == tiny_bundle.manifest


def test_not_a_number_is_no_parity(quick: ExportJob, tmp_path: Path, monkeypatch) -> None:
    real = TorchSession.execute

    def nan(self, inputs):
        return {name: value * np.float32("nan") for name, value in real(self, inputs).items()}

    monkeypatch.setattr(TorchSession, "execute", nan)
    with pytest.raises(ParityError, match="nan"):
        export_bundle(quick, tmp_path / "b")
    assert left_in(tmp_path) == []


def test_graphs_of_other_weights_are_not_published(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch
) -> None:
    """True ONNX Runtime sessions, but on the graphs of another seed."""

    def copy(_module, _contract, path: Path) -> None:
        for name in (path.name, path.name + ".data"):
            shutil.copyfile(tiny_bundle.path / name, path.with_name(name))

    monkeypatch.setattr(engine_writer, "onnx_from_module", copy)
    other = WeightsSource(name="random", path=None, seed=8)
    with pytest.raises(ParityError, match="sam_encoder of onnxruntime differs"):
        export_bundle(dataclasses.replace(JOB, sam_weights=other), tmp_path / "b")
    assert left_in(tmp_path) == []


def test_an_interrupt_in_any_step_leaves_nothing(quick: ExportJob, tmp_path: Path) -> None:
    steps: list[str] = []
    export_bundle(quick, tmp_path / "b", report=steps.append)
    shutil.rmtree(tmp_path / "b")
    assert len(steps) > 8
    for stop in range(len(steps)):
        count = iter(range(len(steps)))

        def interrupt(_: str, stop: int = stop, count=count) -> None:
            if next(count) == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export_bundle(quick, tmp_path / "b", report=interrupt)
        assert left_in(tmp_path) == [], steps[stop]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"clip_image_size": 225}, ExportError, "225"),
        ({"clip_image_size": -14}, ExportError, "-14"),
        ({"clip_image_size": 0}, ExportError, "0 px"),
        ({"clip_architecture": "vit_x"}, ExportError, "'vit_x'"),
        ({"sam_architecture": "vit_x"}, ExportError, "'vit_x'"),
        ({"products": ()}, ExportError, "no product"),
        ({"products": ("good", "../up")}, ProductError, "'../up'"),
        ({"products": ("",)}, ProductError, "''"),
        ({"ensembles": Path("/nowhere.toml")}, ZeroflawError, "/nowhere.toml"),
        ({"clip_weights": WeightsSource("x", Path("/nowhere.pt"))}, WeightsError, "/nowhere.pt"),
        ({"sam_weights": WeightsSource("x", Path("/nowhere.pt"))}, WeightsError, "/nowhere.pt"),
        (
            {"localizer_weights": WeightsSource("x", Path("/nowhere.pt"))},
            WeightsError,
            "/nowhere.pt",
        ),
        ({"localizer_weights": WeightsSource("x", None)}, WeightsError, "neither"),
        ({"localizer": "visualad"}, ExportError, "few.toml were given to visualad"),
        ({"parameters": BY_BOXES}, ExportError, "needs a proposal graph"),
        ({"proposals": Path("/detector.onnx")}, ExportError, "the refiner cascade does not run"),
        (
            {"parameters": BY_BOXES, "proposals": Path("/nowhere.onnx")},
            ExportError,
            "/nowhere.onnx",
        ),
    ],
    ids=lambda value: "-".join(f"{k}" for k in value) if isinstance(value, dict) else "",
)
def test_a_job_that_cannot_be_carried_out(
    quick: ExportJob, tmp_path: Path, change: dict, error: type[ZeroflawError], text: str
) -> None:
    with pytest.raises(error) as caught:
        export_bundle(dataclasses.replace(quick, **change), tmp_path / "b")
    assert text in caught.value.cause
    assert caught.value.remedy
    assert left_in(tmp_path) == []


def test_an_export_with_a_proposal_graph(quick: ExportJob, tmp_path: Path) -> None:
    graph = write_proposal_graph(tmp_path / "detector.onnx")
    job = dataclasses.replace(quick, parameters=BY_BOXES, proposals=graph)
    bundle = export_bundle(job, tmp_path / "b")
    manifest = open_bundle(bundle.path).manifest
    assert set(manifest.engines) == {*ENGINES, "box_proposer"}
    assert manifest.proposals is not None
    assert manifest.sizes.proposals == ProposalSizes(image_size=32, boxes=16)
    assert manifest.method_parameters == BY_BOXES
    assert manifest.random_weights == 7
    without = export_bundle(quick, tmp_path / "w")
    assert without.identity != bundle.identity
    graph.write_bytes(graph.read_bytes()[:-40])
    with pytest.raises(ExportError, match=r"detector\.onnx"):
        export_bundle(job, tmp_path / "c")
    assert "c" not in left_in(tmp_path)


def test_an_existing_target_is_refused_before_any_work(stand_ins, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(BundleError):
        export_bundle(JOB, tmp_path / "b")
    assert stand_ins == []


def test_what_onnx_cannot_express_is_an_export_error(tiny_bundle: Bundle, tmp_path: Path) -> None:
    class DataDependent(torch.nn.Module):
        def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
            if token_ids.sum() > 0:
                return torch.zeros(token_ids.shape[0], 32)
            return torch.ones(token_ids.shape[0], 32)

    with pytest.raises(ExportError) as caught:
        onnx_from_module(DataDependent(), tiny_bundle.contract("text_encoder"), tmp_path / "x.onnx")
    assert "text_encoder" in caught.value.cause
    assert "torch" in caught.value.remedy


def test_the_onnx_files_are_valid_and_name_the_contract(tiny_bundle: Bundle) -> None:
    import onnx

    for name in sorted(ENGINES):
        path = tiny_bundle.onnx_path(name)
        onnx.checker.check_model(str(path))
        graph = onnx.load(path, load_external_data=False)
        contract = tiny_bundle.contract(name)
        inputs = [value.name for value in graph.graph.input]
        assert inputs == [spec.name for spec in contract.inputs]
        outputs = [value.name for value in graph.graph.output]
        assert outputs == [spec.name for spec in contract.outputs]
        assert {o.version for o in graph.opset_import if o.domain == ""} == {23}
        assert {node.domain for node in graph.graph.node} <= {""}
        places = {
            entry.value
            for tensor in graph.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        assert places <= {f"{name}.onnx.data"}


def test_one_seed_gives_one_prompt_bank(stand_ins, tiny_bundle: Bundle, tmp_path: Path) -> None:
    job = dataclasses.replace(JOB, products=("object", "metal_nut"))
    export_bundle(job, tmp_path / "b")
    got = (tmp_path / "b" / "prompts.safetensors").read_bytes()
    assert got == (tiny_bundle.path / "prompts.safetensors").read_bytes()


def test_fp16_graphs_join_the_manifest_and_are_checked(
    quick: ExportJob, tmp_path: Path, monkeypatch
) -> None:
    made = []

    def write(directory: Path, engine: str, reference, target: Path) -> GraphVariant:
        path = target / f"{engine}.fp16.onnx"
        path.write_text("half")
        TorchSession.modules[path] = TorchSession.modules[directory / reference.onnx]
        made.append(engine)
        return GraphVariant(
            target="tensorrt", onnx=path.name, weights=None, opset=23, precision="fp16",
            attention="none", recipe="r",
        )  # fmt: skip

    monkeypatch.setattr(engine_writer, "write_fp16_variant", write)
    bundle = export_bundle(dataclasses.replace(quick, precision="fp16"), tmp_path / "b")
    assert sorted(made) == sorted(ENGINES - {"text_encoder"})
    for engine in made:
        assert bundle.graph(engine, "tensorrt").path.read_text() == "half"
        figures = [
            f for f in bundle.manifest.parity if (f.engine, f.target) == (engine, "tensorrt")
        ]
        assert {figure.image for figure in figures} == {"real", "noise"}
        assert {figure.tolerance for figure in figures} <= {
            parity.FP16_TOLERANCES.maps,
            parity.FP16_TOLERANCES.relative,
            parity.FP16_TOLERANCES.distances,
        }
    assert not bundle.manifest.engines["text_encoder"].variants
