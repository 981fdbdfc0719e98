"""Compiling in a process of its own: its memory can be measured, and its death survived.

A compiler that runs out of memory is killed by the system, and one that fails an inner check may
crash; either must not take the caller with it. The job goes in by standard input, the outcome
comes back in a file, and what the libraries print is kept for the log.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from zeroflaw_engines.builder.compiler import compile_engine
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.built_engines.precision_report import PrecisionReport
from zeroflaw_engines.contract import EngineContract
from zeroflaw_engines.errors import (
    BackendUnavailableError,
    BuildError,
    EngineContractError,
    EngineError,
)
from zeroflaw_engines.sessions.cuda import Cuda
from zeroflaw_engines.tensorrt_bindings import load_bindings

_ERRORS: Final[dict[str, type[EngineError]]] = {
    error.code: error for error in (BuildError, BackendUnavailableError, EngineContractError)
}

logger = logging.getLogger(__name__)


class CompileJob(msgspec.Struct, frozen=True, kw_only=True):
    """What to compile.

    Attributes:
        graph: The ONNX file.
        contract: What its tensors must be.
        options: How to build it.
        backend_version: Full version of the backend.
        plan: File to write the engine to.
        inspect: Whether a GPU is here that can load the engine.
        device: Number of that GPU, as CUDA counts; it is the one that TensorRT builds for.
    """

    graph: Path
    contract: EngineContract
    options: BuildOptions
    backend_version: str
    plan: Path
    inspect: bool
    device: int = 0


class CompileOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        seconds: Parsing, building and writing.
        peak_memory_bytes: Highest resident memory of the process; None if the system does not
            say.
        network_precision: Of the network.
        inspector_precision: Of the engine, by the inspector, where it could be loaded.
        attention_nodes: ONNX nodes of the attention operators.
        warnings: Of the compiler.
    """

    seconds: float
    peak_memory_bytes: int | None
    network_precision: PrecisionReport
    inspector_precision: PrecisionReport | None
    attention_nodes: tuple[str, ...]
    warnings: tuple[str, ...]


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error on its way to the calling process."""

    cause: str
    remedy: str
    code: str = BuildError.code
    errno: int | None = None


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    outcome: CompileOutcome | None = None
    failure: _Failure | None = None


def compile_in_process(job: CompileJob) -> CompileOutcome:
    """Compile in a process of its own; when this one is interrupted, that one is ended.

    Raises:
        BuildError: The graph cannot be built as asked, or the compiler died.
        EngineContractError: The graph's tensors are not those of the contract.
        BackendUnavailableError: The backend cannot be loaded.
        OSError: The plan cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="zeroflaw-build-") as directory:
        reply_file = Path(directory) / "reply.json"
        done = subprocess.run(  # noqa: S603 - this very program
            [sys.executable, "-m", __name__, str(reply_file)],
            input=msgspec.json.encode(job, enc_hook=str),  # paths are text in JSON
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
        output = done.stdout.decode("utf-8", "replace").strip()
        if output:
            logger.info("the compiler of %s says: %s", job.contract.name, output)
        if done.returncode != 0 or not reply_file.exists():
            raise _death(job, done.returncode, output)
        reply = msgspec.json.decode(reply_file.read_bytes(), type=_Reply)
    if reply.outcome is not None:
        return reply.outcome
    failure = reply.failure
    if failure is None:
        raise _death(job, done.returncode, output)
    if failure.errno is not None:
        raise OSError(failure.errno, os.strerror(failure.errno), str(job.plan))
    raise _ERRORS.get(failure.code, BuildError)(failure.cause, failure.remedy)


def _death(job: CompileJob, status: int, output: str) -> BuildError:
    if status == -signal.SIGKILL:
        return BuildError(
            f"{job.contract.name}: the compiler was killed, most likely because the memory of this"
            " machine was used up",
            "close other programs, or build on a machine with more memory",
        )
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    last = output.splitlines()[-1] if output else "it printed nothing"
    return BuildError(
        f"{job.contract.name}: the compiler of {job.options.backend} {job.backend_version} died"
        f" ({name}): {last}",
        "run `zeroflaw --verbose build` and report what it prints; another version may help",
    )


def _run(job: CompileJob) -> CompileOutcome:
    start = time.monotonic()
    if job.device:  # a process begins on GPU 0
        Cuda(job.device).use()
    trt = load_bindings(job.options.backend)
    compiled = compile_engine(
        trt,
        job.graph,
        job.contract,
        job.options,
        version=job.backend_version,
        inspect=job.inspect,
    )
    with job.plan.open("wb") as file:
        file.write(memoryview(compiled.plan))
    return CompileOutcome(
        seconds=time.monotonic() - start,
        peak_memory_bytes=_peak_memory(),
        network_precision=compiled.network_precision,
        inspector_precision=compiled.inspector_precision,
        attention_nodes=compiled.attention_nodes,
        warnings=compiled.warnings,
    )


def _peak_memory() -> int | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


def _main() -> None:
    job = msgspec.json.decode(
        sys.stdin.buffer.read(), type=CompileJob, dec_hook=lambda kind, text: kind(text)
    )
    try:
        reply = _Reply(outcome=_run(job))
    except EngineError as error:
        reply = _Reply(failure=_Failure(cause=error.cause, remedy=error.remedy, code=error.code))
    except OSError as error:
        reply = _Reply(failure=_Failure(cause=str(error), remedy="", errno=error.errno))
    Path(sys.argv[1]).write_bytes(msgspec.json.encode(reply))


if __name__ == "__main__":
    _main()
