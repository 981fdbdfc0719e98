"""Building: skipped when up to date, and published only when it is what was asked for.

The compiler is replaced by one that writes any bytes, but for `test_cli_build.py`, where
TensorRT-RTX builds for real. The GPU is always a pretended one.
"""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import numpy as np
import pytest

from support.gpu.built_engines import VERSION
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.builder import build as engine_build
from zeroflaw_engines.builder import compiler_process
from zeroflaw_engines.builder.build import build_engine
from zeroflaw_engines.builder.compiler_process import CompileJob, CompileOutcome, compile_in_process
from zeroflaw_engines.builder.parity import check_parity, fixed_inputs
from zeroflaw_engines.built_engines.cache import engine_paths
from zeroflaw_engines.built_engines.lookup import find_engine
from zeroflaw_engines.built_engines.options import BatchRange, BuildOptions
from zeroflaw_engines.built_engines.precision_report import PrecisionReport, precision_report
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import BackendUnavailableError, BuildError, BundleError
from zeroflaw_engines.machine import Gpu

OPTIONS = BuildOptions(backend="tensorrt-rtx", architectures=("sm86", "sm89"), precision="fp32")
GPU = Gpu("NVIDIA L4", "sm89")


class Compiler:
    """Stands in for the process that compiles."""

    def __init__(self) -> None:
        self.jobs: list[CompileJob] = []
        self.network: PrecisionReport = precision_report("network", [("gemm", "float32")] * 4)
        self.inspector: PrecisionReport | None = None
        self.plan = b"a plan"

    def __call__(self, job: CompileJob) -> CompileOutcome:
        self.jobs.append(job)
        job.plan.write_bytes(self.plan)
        return CompileOutcome(
            seconds=2.5,
            peak_memory_bytes=1_000_000_000,
            network_precision=self.network,
            inspector_precision=self.inspector,
            attention_nodes=(),
            warnings=("mind the gap",),
        )


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    stand_in = Compiler()
    monkeypatch.setattr(engine_build, "compile_in_process", stand_in)
    monkeypatch.setattr(engine_build, "installed_version", lambda backend: VERSION)
    monkeypatch.setattr(engine_build, "this_gpu", lambda device: None)
    return stand_in


@pytest.fixture
def half_graph(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    """The bundle's reference graphs, passed off as the FP16 graphs for TensorRT."""
    import dataclasses

    reference = type(bundle).graph

    def graph(self: Bundle, engine, target):
        found = reference(self, engine, "onnxruntime")
        return dataclasses.replace(found, precision="fp16") if target == "tensorrt" else found

    monkeypatch.setattr(Bundle, "graph", graph)


def test_a_build_is_published_with_its_sidecar(bundle: Bundle, compiler: Compiler) -> None:
    result = build_engine(bundle, "sam_decoder", OPTIONS)
    assert (result.built, result.reason) == (True, "not built yet")
    assert result.engine == find_engine(
        bundle, "sam_decoder", backend="tensorrt-rtx", backend_version=VERSION
    )
    sidecar = result.engine.sidecar
    assert result.engine.path.read_bytes() == compiler.plan
    assert (sidecar.build_seconds, sidecar.peak_memory_bytes) == (2.5, 1_000_000_000)
    assert sidecar.warnings == ("mind the gap",)
    assert sidecar.census.source == "network", "the plan holds no program"
    assert sidecar.parity.status == "not run"
    assert "no GPU" in sidecar.parity.reason
    [job] = compiler.jobs
    assert job.graph == bundle.graph("sam_decoder", "onnxruntime").path
    assert job.contract == bundle.contract("sam_decoder")
    assert not job.inspect


def test_an_engine_that_is_up_to_date_is_not_built_again(
    bundle: Bundle, compiler: Compiler
) -> None:
    first = build_engine(bundle, "sam_decoder", OPTIONS)
    again = build_engine(bundle, "sam_decoder", OPTIONS)
    assert not again.built
    assert again.engine == first.engine
    assert len(compiler.jobs) == 1
    assert build_engine(bundle, "sam_decoder", OPTIONS, force=True).reason == "as asked"


def test_what_has_changed_is_said(
    bundle: Bundle, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_engine(bundle, "sam_decoder", OPTIONS)
    import msgspec

    changed = msgspec.structs.replace(OPTIONS, batch=BatchRange(max=4), tf32=True)
    reason = build_engine(bundle, "sam_decoder", changed).reason
    assert "flags.tf32: False -> True" in reason
    assert "profile.point_coords" in reason
    monkeypatch.setattr(engine_build, "installed_version", lambda backend: "1.8.0.0")
    assert f"backend_version: {VERSION} -> 1.8.0.0" in build_engine(
        bundle, "sam_decoder", changed
    ).reason  # fmt: skip
    paths = engine_paths(bundle, "sam_decoder", "tensorrt-rtx", "sm86-sm89")
    paths.plan.write_bytes(b"x")
    assert "bytes where its sidecar says" in build_engine(bundle, "sam_decoder", changed).reason
    assert len(compiler.jobs) == 4


def test_a_failed_build_leaves_the_old_engine(bundle: Bundle, compiler: Compiler) -> None:
    build_engine(bundle, "sam_decoder", OPTIONS)

    def fail(job: CompileJob) -> CompileOutcome:
        job.plan.write_bytes(b"half a plan")
        raise BuildError("it broke", "mend it")

    engine_build.compile_in_process = fail  # undone by the fixture
    with pytest.raises(BuildError, match="it broke"):
        build_engine(bundle, "sam_decoder", OPTIONS, force=True)
    directory = engine_paths(bundle, "sam_decoder", "tensorrt-rtx", "sm86-sm89").directory
    assert {path.name for path in directory.iterdir()} <= {
        "sam_decoder.engine", "sam_decoder.json", ".sam_decoder.lock"
    }  # fmt: skip
    assert find_engine(bundle, "sam_decoder", backend="tensorrt-rtx", backend_version=VERSION)


def test_a_disk_that_fills_up_while_the_plan_is_written(bundle: Bundle, compiler: Compiler) -> None:
    def fill(job: CompileJob) -> CompileOutcome:
        raise OSError(errno.ENOSPC, "No space left on device", str(job.plan))

    engine_build.compile_in_process = fill  # undone by the fixture
    with pytest.raises(BuildError, match="no space left on the disk") as caught:
        build_engine(bundle, "sam_decoder", OPTIONS)
    assert "free space" in caught.value.remedy


def test_the_shipped_bundle_is_refused(compiler: Compiler) -> None:
    from zeroflaw_engines.bundle.bundle import open_bundle

    with pytest.raises(BundleError, match="part of the installation") as caught:
        build_engine(open_bundle("mini", verify_digests=False), "sam_decoder", OPTIONS)
    assert "zeroflaw bundle copy mini" in caught.value.remedy
    assert not compiler.jobs


@pytest.mark.parametrize(
    ("backend", "remedy"), [("tensorrt-rtx", "--gpu sm86"), ("tensorrt", "needs no GPU")]
)
def test_for_this_gpu_without_one(
    bundle: Bundle, compiler: Compiler, backend: str, remedy: str
) -> None:
    with pytest.raises(BuildError, match="no GPU whose driver answers") as caught:
        build_engine(bundle, "sam_decoder", BuildOptions(backend=backend, precision="fp32"))
    assert remedy in caught.value.remedy


def test_a_backend_that_is_not_installed(bundle: Bundle) -> None:
    with pytest.raises(BackendUnavailableError, match="tensorrt is not installed"):
        build_engine(bundle, "sam_decoder", BuildOptions(backend="tensorrt", precision="fp32"))


def test_a_graph_that_is_fp16_by_name_alone(
    bundle: Bundle, compiler: Compiler, half_graph: None
) -> None:
    half = BuildOptions(backend="tensorrt-rtx", architectures=("sm86",))
    with pytest.raises(BuildError, match="is called fp16, but its operations are: 4 gemm float32"):
        build_engine(bundle, "sam_decoder", half)
    assert not engine_paths(bundle, "sam_decoder", "tensorrt-rtx", "sm86").plan.exists()


@pytest.mark.parametrize("wide", [("gemm", "float32"), ("attention", "float32")])
def test_an_engine_that_silently_became_fp32(
    bundle: Bundle, compiler: Compiler, half_graph: None, wide: tuple[str, str]
) -> None:
    """As TensorRT builders have done when a flag was dropped (rf-detr #1453)."""
    compiler.network = precision_report(
        "network", [("gemm", "float16")] * 9 + [("gemm", "float32")]
    )
    compiler.inspector = precision_report("inspector", [("gemm", "float16")] * 3 + [wide] * 2)
    half = BuildOptions(backend="tensorrt-rtx", architectures=("sm86",))
    with pytest.raises(BuildError, match="the engine 2, as its inspector says") as caught:
        build_engine(bundle, "sam_decoder", half)
    assert "not published" in caught.value.cause
    assert not engine_paths(bundle, "sam_decoder", "tensorrt-rtx", "sm86").plan.exists()
    compiler.inspector = precision_report("inspector", [("gemm", "float16")] * 3 + [wide])
    assert build_engine(bundle, "sam_decoder", half).engine.sidecar.census.source == "inspector"


@pytest.mark.parametrize("doubtful", ["mixed", "none", "float32"])
def test_a_gpu_machine_publishes_what_is_published_elsewhere(
    bundle: Bundle,
    compiler: Compiler,
    half_graph: None,
    monkeypatch: pytest.MonkeyPatch,
    doubtful: str,
) -> None:
    """The plan decides where it can be read; the inspector's account is told beside it."""
    compiler.network = precision_report("network", [("gemm", "float16")] * 9)
    compiler.inspector = precision_report("inspector", [("gemm", doubtful)] * 9)
    half = BuildOptions(backend="tensorrt-rtx", architectures=("sm86",))
    if doubtful != "float32":
        sidecar = build_engine(bundle, "sam_decoder", half).engine.sidecar
        assert sidecar.census.source == "inspector"
    plan = precision_report("plan", [("gemm", "float16")] * 9)
    monkeypatch.setattr(engine_build, "plan_precision", lambda *_: plan)
    sidecar = build_engine(bundle, "sam_decoder", half, force=True).engine.sidecar
    assert sidecar.census == plan
    said = [text for text in sidecar.warnings if "the plan, which decides" in text]
    assert len(said) == (doubtful == "float32")
    plan = precision_report("plan", [("gemm", "mixed")] * 9)
    with pytest.raises(BuildError, match="the engine 9, as its plan says"):
        build_engine(bundle, "sam_decoder", half, force=True)


def test_attention_that_was_not_fused_is_warned_of(bundle: Bundle, compiler: Compiler) -> None:
    compiler.inspector = precision_report(
        "inspector", [("gemm", "float32")] * 4, unfused_attention=3
    )
    sidecar = build_engine(bundle, "sam_decoder", OPTIONS).engine.sidecar
    assert any("3 attention operators are not one kernel" in text for text in sidecar.warnings)


class Skewed:
    """ONNX Runtime on the reference graph, with one output changed."""

    def __init__(self, bundle: Bundle, change=lambda outputs: outputs) -> None:
        self._inner = load_session(bundle, "sam_decoder", backend="onnxruntime")
        self._change = change
        self.contract = self._inner.contract

    def execute(self, inputs, *, keep=()):
        return self._change(dict(self._inner.execute(inputs)))

    def close(self) -> None:
        self._inner.close()


def noisy(outputs):
    logits = outputs["low_res_logits"]
    noise = np.random.default_rng(1).normal(0, logits.std(), logits.shape)
    return outputs | {"low_res_logits": logits + np.float32(0.1 * noise)}


def filled(value: float):
    def change(outputs):
        return {name: np.full_like(output, value) for name, output in outputs.items()}

    return change


def one_not_finite(outputs):
    outputs["predicted_iou"][0, 0] = np.nan
    return outputs


def twice_as_large(outputs):
    return outputs | {"low_res_logits": 2 * outputs["low_res_logits"]}


def one_row(outputs):
    return outputs | {"low_res_logits": outputs["low_res_logits"][:, :1]}


def test_parity_on_a_gpu(
    bundle: Bundle, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a GPU can run the engine, it is compared before it is published."""
    monkeypatch.setattr(engine_build, "this_gpu", lambda device: GPU)
    opened = []

    def session(one: Bundle, trial):
        opened.append(trial.path.name)
        assert trial.path.read_bytes() == compiler.plan
        return Skewed(one)

    parity = build_engine(
        bundle, "sam_decoder", OPTIONS, open_session=session
    ).engine.sidecar.parity  # fmt: skip
    assert parity.status == "passed"
    assert parity.cosine == pytest.approx({"low_res_logits": 1, "predicted_iou": 1})
    assert opened[0].startswith(".sam_decoder"), "it is not published yet"
    assert compiler.jobs[0].inspect

    other = BuildOptions(backend="tensorrt-rtx", architectures=("sm120",), precision="fp32")
    assert build_engine(bundle, "sam_decoder", other).engine.sidecar.parity.status == "not run"
    own = BuildOptions(backend="tensorrt-rtx", precision="fp32")
    built = build_engine(bundle, "sam_decoder", own, open_session=session).engine
    assert built.path.parent.name == "this-gpu"
    assert built.sidecar.parts.gpu == "NVIDIA L4 (sm89)"


@pytest.mark.parametrize(
    "change",
    [
        noisy, one_not_finite, twice_as_large, one_row,
        filled(np.nan), filled(np.inf), filled(0), filled(0.5),
    ],
)  # fmt: skip
def test_an_engine_without_parity_is_not_published(
    bundle: Bundle, compiler: Compiler, monkeypatch: pytest.MonkeyPatch, change
) -> None:
    monkeypatch.setattr(engine_build, "this_gpu", lambda device: GPU)
    with pytest.raises(BuildError, match="differs from the FP32 reference"):
        build_engine(
            bundle, "sam_decoder", OPTIONS, open_session=lambda one, trial: Skewed(one, change)
        )
    assert not engine_paths(bundle, "sam_decoder", "tensorrt-rtx", "sm86-sm89").plan.exists()


@pytest.mark.parametrize("engine", ["clip_encoder", "sam_encoder", "sam_decoder"])
def test_fixed_inputs_are_of_the_contract_and_exercise_it(bundle: Bundle, engine) -> None:
    contract = bundle.contract(engine)
    inputs = fixed_inputs(contract)
    again = fixed_inputs(contract)
    for spec in contract.inputs:
        assert spec.accepts(inputs[spec.name].dtype.name, inputs[spec.name].shape)
        np.testing.assert_array_equal(inputs[spec.name], again[spec.name])
    session = load_session(bundle, engine, backend="onnxruntime")
    for output in session.execute(inputs).values():
        assert np.isfinite(output).all()
        if output.size > 1:
            assert output.std() > 0
    assert check_parity(session, session).status == "passed"
    session.close()


def job(tmp_path: Path, bundle: Bundle) -> CompileJob:
    return CompileJob(
        graph=bundle.path / "sam_decoder.onnx",
        contract=bundle.contract("sam_decoder"),
        options=OPTIONS,
        backend_version=VERSION,
        plan=tmp_path / "plan",
        inspect=False,
    )


@pytest.mark.parametrize(
    ("status", "cause", "remedy"),
    [
        (-9, "the compiler was killed, most likely because the memory", "more memory"),
        (-11, r"died \(SIGSEGV\): last words", "--verbose"),
        (3, r"died \(status 3\): last words", "--verbose"),
        (0, r"died \(status 0\): last words", "--verbose"),
    ],
)
def test_a_compiler_that_dies(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, cause: str, remedy
) -> None:
    done = subprocess.CompletedProcess([], status, stdout=b"first\nlast words\n")
    monkeypatch.setattr(compiler_process.subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(BuildError, match=cause) as caught:
        compile_in_process(job(tmp_path, bundle))
    assert remedy in caught.value.remedy


def test_errors_come_back_from_the_process_as_they_were_raised(
    bundle: Bundle, tmp_path: Path
) -> None:
    import msgspec

    asked = job(tmp_path, bundle)
    gone = msgspec.structs.replace(asked, graph=tmp_path / "nowhere.onnx")
    with pytest.raises(BuildError, match="not a readable ONNX file"):
        compile_in_process(gone)
    other = msgspec.structs.replace(
        asked, options=msgspec.structs.replace(OPTIONS, backend="tensorrt")
    )
    with pytest.raises(BackendUnavailableError, match="tensorrt is not installed"):
        compile_in_process(other)
    unwritable = msgspec.structs.replace(asked, plan=Path("/dev/full"))
    with pytest.raises(OSError, match="No space left") as caught:
        compile_in_process(unwritable)
    assert caught.value.errno == errno.ENOSPC
