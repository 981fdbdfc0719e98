"""The builder against NVIDIA's own compiler, TensorRT-RTX, which needs no GPU.

TensorRT proper needs libnvinfer, which PyPI does not have. Its bindings can be imported without
(`tensorrt_bindings_alone`): what is set for TensorRT is checked on autospecs of its own classes,
with its own enumerations. That shows which calls are made, not that TensorRT takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock, create_autospec

import pytest
import tensorrt_rtx

from support import small_graphs
from support.gpu.tensorrt_bindings_alone import import_bindings_alone
from zeroflaw_engines.builder.compiler import CompiledPlan, compile_engine, refuse_options
from zeroflaw_engines.built_engines.options import BatchRange, BuildOptions
from zeroflaw_engines.contract import EngineContract, TensorSpec
from zeroflaw_engines.errors import BackendUnavailableError, BuildError, EngineContractError
from zeroflaw_engines.tensorrt_bindings import load_bindings

VERSION = tensorrt_rtx.__version__


def compiled(path: Path, contract: EngineContract, **options) -> CompiledPlan:
    chosen = BuildOptions(
        **{"backend": "tensorrt-rtx", "architectures": ("sm86",), "precision": "fp16", **options}
    )
    return compile_engine(tensorrt_rtx, path, contract, chosen, version=VERSION)


def test_a_strongly_typed_network_keeps_its_types(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    plan = compiled(path, small_graphs.transformer(path), architectures=("sm86", "sm89", "sm120"))
    assert bytes(memoryview(plan.plan)[:8]).startswith(b"vtrt")
    assert plan.attention_nodes == ("block_0_attention_node", "block_1_attention_node")
    report = plan.network_precision
    assert report.count("gemm") == report.count("gemm", "float16") == 2 * 6
    assert report.count("attention", "float16") == 2
    assert report.half_share == 1
    single = compiled(path, small_graphs.transformer(path, "float32"))
    assert single.network_precision.half_share == 0
    assert single.network_precision.count("gemm", "float32") == 12


def test_graphs_are_parsed_by_path_with_their_weights(tmp_path: Path) -> None:
    """As those beyond 2 GB must be; from memory, TensorRT would look for them elsewhere."""
    path = tmp_path / "small.onnx"
    contract = small_graphs.transformer(path)
    inside = bytes(memoryview(compiled(path, contract).plan))
    weights = small_graphs.with_external_weights(path)
    assert path.stat().st_size < weights.stat().st_size
    assert bytes(memoryview(compiled(path, contract).plan)) == inside


def test_contexts_may_be_given_their_memory_and_captured(tmp_path: Path) -> None:
    configs = []

    class Builder(tensorrt_rtx.Builder):
        def create_builder_config(self):
            configs.append(super().create_builder_config())
            return configs[-1]

    path = tmp_path / "small.onnx"
    contract = small_graphs.transformer(path, blocks=1)
    bindings = SimpleNamespace(**{**vars(tensorrt_rtx), "Builder": Builder})
    options = BuildOptions(backend="tensorrt-rtx", architectures=("sm86",), precision="fp16")
    assert compile_engine(bindings, path, contract, options, version=VERSION).plan is not None
    [config] = configs
    assert config.get_flag(tensorrt_rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)


def test_a_build_repeats_to_the_bit_and_options_change_it(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    contract = small_graphs.transformer(path, "float32", blocks=1)
    plans = [
        bytes(memoryview(compiled(path, contract, **options).plan))
        for options in ({}, {}, {"tf32": True}, {"architectures": ("sm89",)})
    ]
    assert plans[0] == plans[1]
    assert len(set(plans)) == 3


@pytest.mark.parametrize(
    ("make", "options", "words", "remedy"),
    [
        (
            lambda path: small_graphs.attention(path, value_width=16),
            {},
            ("operator Attention", "node the_attention", "V as wide as K"),
            "zeroflaw export --precision fp16",
        ),
        (
            lambda path: small_graphs.attention(path, "float32", masked=True),
            {},
            ("operator Attention", "node the_attention, float32", "no fused attention kernel"),
            "without `--precision fp32`",
        ),
        (
            small_graphs.mixed_types,
            {},
            ("operator MatMul", "node mixed", "may not mix the types", "Half"),
            "zeroflaw export --precision fp16",
        ),
        (
            small_graphs.unknown_operator,
            {},
            ("operator Frobnicate", "node strange", "does not have the operator"),
            "onnxruntime or openvino",
        ),
        (
            small_graphs.transformer,
            {"workspace_mib": 1},
            ("sam_encoder", "no kernel fits into the workspace"),
            "raise `--workspace`",
        ),
        (
            small_graphs.transformer,
            {"strip_weights": True},
            ("sam_encoder", "needs a GPU and its driver"),
            "--strip-weights",
        ),
    ],
)
def test_a_failure_names_the_operation_and_the_remedy(
    tmp_path: Path,
    make: Callable[[Path], EngineContract],
    options: dict[str, object],
    words: tuple[str, ...],
    remedy: str,
) -> None:
    path = tmp_path / "bad.onnx"
    contract = make(path)
    with pytest.raises(BuildError) as caught:
        compiled(path, contract, **options)
    for word in words:
        assert word in caught.value.cause
    assert remedy in caught.value.remedy


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    contract = small_graphs.transformer(path)
    small_graphs.with_external_weights(path).unlink()
    with pytest.raises(BuildError, match="file of weights is missing") as caught:
        compiled(path, contract)
    assert "zeroflaw bundle verify" in caught.value.remedy
    path.write_bytes(b"not an ONNX file")
    with pytest.raises(BuildError, match="not a readable ONNX file"):
        compiled(path, contract)
    with pytest.raises(BuildError, match=r"nowhere\.onnx"):
        compiled(tmp_path / "nowhere.onnx", contract)


def test_a_graph_that_is_not_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    contract = small_graphs.transformer(path)
    other = EngineContract("sam_encoder", contract.inputs, (TensorSpec("z", "float32", (1,)),))
    with pytest.raises(EngineContractError, match="has the outputs"):
        compiled(path, other)


@pytest.mark.parametrize(
    ("options", "cause", "remedy"),
    [
        ({"version_compatible": True}, "option version_compatible", "same version"),
        ({"hardware_compatibility": "ampere_plus"}, "option hardware_compatibility", "--gpu"),
        ({"timing_cache": Path("timings")}, "option timing_cache", "--timing-cache"),
        ({"architectures": ("sm90",)}, "does not build for sm90", "sm75, sm80, sm86"),
        (
            {"backend": "tensorrt", "architectures": ("sm86",)},
            "option architectures",
            "tensorrt-rtx",
        ),
    ],
)
def test_options_that_a_backend_lacks_are_refused(
    tmp_path: Path, options: dict[str, object], cause: str, remedy: str
) -> None:
    path = tmp_path / "small.onnx"
    contract = small_graphs.transformer(path, blocks=1)
    with pytest.raises(BuildError, match=cause) as caught:
        compiled(path, contract, **options)
    assert VERSION in caught.value.cause
    assert str(options.get("backend", "tensorrt-rtx")) in caught.value.cause
    assert remedy in caught.value.remedy


def test_options_that_a_version_lacks_are_refused() -> None:
    old = SimpleNamespace(BuilderFlag=SimpleNamespace())
    options = BuildOptions(backend="tensorrt", strip_weights=True)
    with pytest.raises(
        BuildError, match=r"tensorrt 8\.0 .*strip_weights.*no BuilderFlag\.STRIP_PLAN"
    ):
        refuse_options(old, options, "8.0")


@dataclass(frozen=True)
class Autospecs:
    """Objects of TensorRT's own classes that record what is asked of them."""

    builder: MagicMock
    network: MagicMock
    config: MagicMock
    bindings: SimpleNamespace


@pytest.fixture(scope="module")
def tensorrt(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The bindings of TensorRT itself, without the library."""
    return import_bindings_alone(tmp_path_factory.mktemp("bindings"))


@pytest.fixture
def autospecs(tensorrt: ModuleType) -> Autospecs:
    config = create_autospec(tensorrt.IBuilderConfig, instance=True)
    config.get_timing_cache.return_value.serialize.return_value = b"timings of this build"
    network = create_autospec(tensorrt.INetworkDefinition, instance=True)
    network.num_inputs = network.num_outputs = network.num_layers = 0
    parser = create_autospec(tensorrt.OnnxParser, instance=True)
    parser.parse_from_file.return_value = True
    builder = create_autospec(tensorrt.Builder, instance=True)
    builder.create_builder_config.return_value = config
    builder.create_network.return_value = network
    builder.build_serialized_network.return_value = b"plan"
    names = ("BuilderFlag", "HardwareCompatibilityLevel", "IBuilderConfig", "ILogger",
             "MemoryPoolType", "NetworkDefinitionCreationFlag", "ProfilingVerbosity")  # fmt: skip
    bindings = SimpleNamespace(
        **{name: getattr(tensorrt, name) for name in names},
        Builder=lambda logger: builder,
        OnnxParser=lambda network, logger: parser,
    )
    return Autospecs(builder, network, config, bindings)


NO_TENSORS = EngineContract("sam_encoder", (), ())


def test_what_is_set_for_tensorrt(
    tmp_path: Path, tensorrt: ModuleType, autospecs: Autospecs
) -> None:
    timings = tmp_path / "timings"
    timings.write_bytes(b"timings of earlier builds")
    options = BuildOptions(
        backend="tensorrt",
        workspace_mib=512,
        hardware_compatibility="ampere_plus",
        version_compatible=True,
        strip_weights=True,
        timing_cache=timings,
    )
    plan = compile_engine(
        autospecs.bindings, tmp_path / "g.onnx", NO_TENSORS, options, version=tensorrt.__version__
    )
    config, flags = autospecs.config, tensorrt.BuilderFlag
    assert plan.plan == b"plan"
    strongly_typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    autospecs.builder.create_network.assert_called_once_with(strongly_typed)
    autospecs.builder.build_serialized_network.assert_called_once_with(autospecs.network, config)
    config.clear_flag.assert_called_once_with(flags.TF32)
    assert {call.args[0] for call in config.set_flag.call_args_list} == {
        flags.VERSION_COMPATIBLE, flags.STRIP_PLAN, flags.REFIT_IDENTICAL
    }  # fmt: skip
    config.set_memory_pool_limit.assert_called_once_with(
        tensorrt.MemoryPoolType.WORKSPACE, 512 << 20
    )
    assert config.hardware_compatibility_level == tensorrt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.profiling_verbosity == tensorrt.ProfilingVerbosity.DETAILED
    config.create_timing_cache.assert_called_once_with(b"timings of earlier builds")
    assert timings.read_bytes() == b"timings of this build"


def test_a_timing_cache_of_another_version(tmp_path: Path, autospecs: Autospecs) -> None:
    autospecs.config.set_timing_cache.return_value = False
    options = BuildOptions(backend="tensorrt", timing_cache=tmp_path / "timings")
    with pytest.raises(BuildError, match="not a timing cache of this version and GPU") as caught:
        compile_engine(
            autospecs.bindings, tmp_path / "g.onnx", NO_TENSORS, options, version="11.4.0.106"
        )
    assert "delete it" in caught.value.remedy


def test_a_timing_cache_that_cannot_be_written(tmp_path: Path, autospecs: Autospecs) -> None:
    (tmp_path / "file").touch()
    options = BuildOptions(backend="tensorrt", timing_cache=tmp_path / "file" / "timings")
    with pytest.raises(BuildError, match=r"timing cache .* cannot be used"):
        compile_engine(
            autospecs.bindings, tmp_path / "g.onnx", NO_TENSORS, options, version="11.4.0.106"
        )


def test_every_name_of_a_network_is_one_of_tensorrt(tensorrt: ModuleType) -> None:
    """Precision reports and the contract check read TensorRT-RTX's names; TensorRT has them."""
    for enumeration in ("LayerType", "DataType"):
        ours = getattr(tensorrt_rtx, enumeration).__members__.keys()
        assert ours == getattr(tensorrt, enumeration).__members__.keys()
    for name in ("INetworkDefinition", "ILayer", "ITensor", "OnnxParser", "ParserError",
                 "IOptimizationProfile", "Runtime", "ICudaEngine", "EngineInspector"):  # fmt: skip
        ours = {one for one in dir(getattr(tensorrt_rtx, name)) if not one.startswith("_")}
        theirs = set(dir(getattr(tensorrt, name)))
        assert theirs.issuperset(ours & USED), ours & USED - theirs


# Members of these classes that the builder and the precision reports use.
USED = {
    "code", "create_engine_inspector", "desc", "deserialize_cuda_engine", "dtype", "get_error",
    "get_engine_information", "get_input", "get_layer", "get_output", "name", "node_name",
    "node_operator", "num_errors", "num_inputs", "num_layers", "num_outputs", "parse_from_file",
    "set_shape", "shape", "type",
}  # fmt: skip


def test_the_batch_of_the_decoder_is_a_profile() -> None:
    contract = EngineContract(
        "sam_decoder",
        (
            TensorSpec("features", "float32", (1, 8)),
            TensorSpec("point_coords", "float32", ("batch", 27, 2)),
        ),
        (),
    )
    options = BuildOptions(backend="tensorrt-rtx", batch=BatchRange(min=1, opt=2, max=5))
    assert options.profile(contract) == {"point_coords": ((1, 27, 2), (2, 27, 2), (5, 27, 2))}


def test_bindings_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailableError, match="no Python module tensorrt") as caught:
        load_bindings("tensorrt")
    assert "zeroflaw[tensorrt]" in caught.value.remedy

    def fail(name: str) -> None:
        raise ImportError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(BackendUnavailableError, match=r"libraries .* cannot be loaded: libnvinfer"):
        load_bindings("tensorrt")
