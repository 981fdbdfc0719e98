"""One network definition and one configuration for TensorRT 10, 11 and TensorRT-RTX.

Their bindings mirror each other; names that one of them lacks belong to options, and an option
that cannot be had is refused. Graphs are parsed by path, since those beyond 2 GB cannot be
parsed from memory; networks are strongly typed, since weak typing is gone from TensorRT 11.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from zeroflaw_engines.builder.diagnosis import FailedOperation, build_failure, parse_failure
from zeroflaw_engines.builder.inspector_precision import inspector_precision
from zeroflaw_engines.builder.network_precision import attention_nodes, network_precision
from zeroflaw_engines.built_engines.options import BuildOptions, ProfileShapes
from zeroflaw_engines.built_engines.precision_report import PrecisionReport
from zeroflaw_engines.contract import EngineContract, TensorSpec
from zeroflaw_engines.errors import BuildError
from zeroflaw_engines.files import replacing
from zeroflaw_engines.process.collection import collection_postponed, release_locals
from zeroflaw_engines.sessions.session import check_graph
from zeroflaw_engines.tensorrt_bindings import BuildBackend

# The bindings have no stubs, and they are several modules with the same names.
Bindings = Any
Handle = Any  # an object of theirs

_MIB: Final = 1 << 20
_DTYPES: Final = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_LEVELS: Final = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
}
# Options that a backend takes and ignores, or cannot honour whatever its version.
_NOT_OFFERED: Final[dict[BuildBackend, dict[str, tuple[str, str]]]] = {
    "tensorrt-rtx": {
        "hardware_compatibility": (
            "its engines run on the architectures that they name",
            "name every architecture with --gpu",
        ),
        "version_compatible": (
            "its engines do not run on other versions of it",
            "install the same version on the station, or build again after an upgrade",
        ),
        "timing_cache": (
            "it measures no kernels while it builds",
            "leave --timing-cache out",
        ),
    },
    "tensorrt": {
        "architectures": (
            "it builds for the GPU of this machine alone",
            "leave --gpu out, or use --backend tensorrt-rtx",
        ),
    },
}


_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CompiledPlan:
    """What the compiler made.

    Attributes:
        plan: The serialized engine, a buffer of bytes.
        network_precision: Of the network, before compilation.
        inspector_precision: Of the engine itself, where it could be loaded.
        attention_nodes: ONNX nodes of its attention operators.
        warnings: What the compiler warned of, each once, oldest first.
    """

    plan: Handle
    network_precision: PrecisionReport
    inspector_precision: PrecisionReport | None
    attention_nodes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass
class BuildLog:
    """What the compiler says while it works.

    Attributes:
        errors: Oldest first.
        warnings: Each once, oldest first.
    """

    errors: list[str] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)

    def logger(self, trt: Bindings) -> Handle:
        """Make a logger of the bindings that writes into this log."""
        log = self

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Handle, message: str) -> None:
                log.add(severity.name, message)

        return Logger()

    def add(self, severity: str, message: str) -> None:
        """Take one message."""
        _logger.log(_LEVELS.get(severity, logging.DEBUG), message)
        if severity in {"INTERNAL_ERROR", "ERROR"}:
            self.errors.append(message)
        elif severity == "WARNING":
            self.warnings[message] = None


def compile_engine(
    trt: Bindings,
    graph: Path,
    contract: EngineContract,
    options: BuildOptions,
    *,
    version: str,
    inspect: bool = False,
) -> CompiledPlan:
    """Parse a graph and build an engine from it.

    Args:
        graph: The ONNX file; its weights lie beside it.
        version: Full version of the backend, for error messages.
        inspect: Whether to load the engine and ask the inspector; it takes a GPU.

    Raises:
        BuildError: The graph cannot be parsed or built; the error names the node, the operator
            and what helps. Or an option cannot be had from this backend.
        EngineContractError: The graph's tensors are not those of the contract.
    """
    refuse_options(trt, options, version)
    try:
        with collection_postponed():
            return _compiled(trt, graph, contract, options, version, inspect=inspect)
    except BaseException as error:
        # While this builder lived, TensorRT would ignore the logger of the next one.
        release_locals(error)
        raise


def _compiled(
    trt: Bindings,
    graph: Path,
    contract: EngineContract,
    options: BuildOptions,
    version: str,
    *,
    inspect: bool,
) -> CompiledPlan:
    log = BuildLog()
    logger = log.logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise BuildError(*parse_failure(str(graph), _parser_failures(parser)))
    check_graph(contract, _inputs(network), _outputs(network), str(graph))
    config = _configuration(trt, builder, options, version)
    _add_profile(builder, network, config, options.profile(contract))
    with _timing_cache(config, options.timing_cache):
        plan = builder.build_serialized_network(network, config)
    attention = attention_nodes(network)
    if plan is None:
        layers = [network.get_layer(index).name for index in range(network.num_layers)]
        described = [f"node {name}, {precision}" for name, precision in attention.items()]
        raise BuildError(
            *build_failure(contract.name, log.errors, attention=described, layers=layers)
        )
    return CompiledPlan(
        plan=plan,
        network_precision=network_precision(network),
        inspector_precision=inspector_precision(trt, logger, plan) if inspect else None,
        attention_nodes=tuple(attention),
        warnings=tuple(log.warnings),
    )


def refuse_options(trt: Bindings, options: BuildOptions, version: str) -> None:
    """Refuse options that the installed backend lacks; none is dropped silently.

    Raises:
        BuildError: One is; the error names the option, the backend, its version and the remedy.
    """
    asked = _options_asked_for(options)
    for name, (reason, remedy) in _NOT_OFFERED[options.backend].items():
        if name in asked:
            raise _not_offered(name, options, version, reason, remedy)
    for name, (holder, member) in asked.items():
        known = getattr(trt, holder, None)
        if known is None or not hasattr(known, member):
            raise _not_offered(
                name,
                options,
                version,
                f"its bindings have no {holder}.{member}",
                "install a version that has it, or leave the option out",
            )


def _options_asked_for(options: BuildOptions) -> dict[str, tuple[str, str]]:
    """Return what the bindings must have for the options that are not at their default."""
    needs = {
        "workspace_mib": ("MemoryPoolType", "WORKSPACE"),
        "hardware_compatibility": (
            "HardwareCompatibilityLevel",
            options.hardware_compatibility.upper(),
        ),
        "version_compatible": ("BuilderFlag", "VERSION_COMPATIBLE"),
        "strip_weights": ("BuilderFlag", "STRIP_PLAN"),
        "timing_cache": ("IBuilderConfig", "create_timing_cache"),
        "architectures": ("IBuilderConfig", "set_compute_capability"),
    }
    default = BuildOptions(backend=options.backend)
    return {
        name: need
        for name, need in needs.items()
        if getattr(options, name) != getattr(default, name)
    }


def _configuration(
    trt: Bindings,
    builder: Handle,
    options: BuildOptions,
    version: str,
) -> Handle:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # Sessions give contexts their memory and record CUDA graphs, in which none can be allocated.
    # TensorRT-RTX promises that with this flag; TensorRT has none, and needs none.
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    if options.hardware_compatibility != "none":
        config.hardware_compatibility_level = getattr(
            trt.HardwareCompatibilityLevel, options.hardware_compatibility.upper()
        )
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if options.architectures:
        config.num_compute_capabilities = len(options.architectures)
        for index, name in enumerate(options.architectures):
            _set_architecture(trt, config, name, index, options=options, version=version)
    return config


def _set_architecture(
    trt: Bindings,
    config: Handle,
    name: str,
    index: int,
    *,
    options: BuildOptions,
    version: str,
) -> None:
    capability = getattr(trt.ComputeCapability, name.upper(), None)
    if capability is None or not config.set_compute_capability(capability, index):
        known = [one.lower() for one in trt.ComputeCapability.__members__ if one.startswith("SM")]
        raise _not_offered(
            "architectures",
            options,
            version,
            f"it does not build for {name}",
            f"choose from: {', '.join(known)}",
        )


def _add_profile(
    builder: Handle,
    network: Handle,
    config: Handle,
    shapes: Mapping[str, ProfileShapes],
) -> None:
    if not shapes:
        return
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        if name in shapes:
            profile.set_shape(name, *shapes[name])
    config.add_optimization_profile(profile)


@contextlib.contextmanager
def _timing_cache(config: Handle, path: Path | None) -> Iterator[None]:
    """Give the builder the timings of earlier builds, and keep those of this one."""
    if path is None:
        yield
        return
    try:
        with FileLock(path.with_name(f".{path.name}.lock")):
            cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
            if cache is None or not config.set_timing_cache(cache, False):
                raise BuildError(
                    f"{path} is not a timing cache of this version and GPU",
                    "delete it, or name another file",
                )
            yield
            with replacing(path) as temporary:
                temporary.write_bytes(memoryview(config.get_timing_cache().serialize()))
    except OSError as error:
        raise BuildError(
            f"the timing cache {path} cannot be used: {error.strerror}", "name another file"
        ) from error


def _parser_failures(parser: Handle) -> list[FailedOperation]:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return [
        FailedOperation(
            node=error.node_name(),
            operator=error.node_operator(),
            message=f"{error.code().name}: {error.desc()}",
        )
        for error in errors
    ]


def _inputs(network: Handle) -> list[TensorSpec]:
    return [_spec(network.get_input(index)) for index in range(network.num_inputs)]


def _outputs(network: Handle) -> list[TensorSpec]:
    return [_spec(network.get_output(index)) for index in range(network.num_outputs)]


def _spec(tensor: Handle) -> TensorSpec:
    shape = tuple("dynamic" if size < 0 else size for size in tensor.shape)
    return TensorSpec(tensor.name, _DTYPES.get(tensor.dtype.name, tensor.dtype.name), shape)


def _not_offered(
    name: str, options: BuildOptions, version: str, reason: str, remedy: str
) -> BuildError:
    return BuildError(
        f"{options.backend} {version} does not offer the option {name}: {reason}", remedy
    )
