"""Reading the compiled program inside a TensorRT-RTX plan, for its precision report.

TensorRT's own account of an engine, the engine inspector, needs a GPU to load the engine. The
plan itself has the program of its compiler, Myelin, as text: a header, the tensors with their
types, and one line an operation. Operations that are compiled on the station have a program of
their own behind it. The format is not documented: what is not understood is counted as `other`,
and a plan without a program gives none.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_engines.built_engines.precision_report import (
    HEAVY,
    OperationKind,
    PrecisionReport,
    precision_report,
)

_MAGIC: Final = b"NLYM"
_HEADER: Final = struct.Struct("<4sIQ")  # magic, version, bytes of text
_TYPES: Final = {"half": "float16", "float": "float32", "bf16": "bfloat16", "bfloat": "bfloat16"}
_BOOKKEEPING: Final = {"copy", "memset", "wait", "signal", "assert", "label", "shape_call"}

# What Myelin calls operations, and what the names of its kernels tell: those of generated ones are
# the operations in them, as __myl_CastMeanSubMulMeanAddSqrtDivMulCastMulAdd.
_OPERATIONS: Final[dict[str, OperationKind]] = {
    "fully_connected": "gemm",
    "corrltn": "convolution",
    "convolution": "convolution",
    "cast": "cast",
}
_KERNELS: Final[tuple[tuple[OperationKind, re.Pattern[str]], ...]] = (
    ("attention", re.compile("mha")),
    ("gemm", re.compile("^_gemm")),
    ("norm", re.compile("Mean.*Sqrt")),
    ("softmax", re.compile("Maxr?SubExp")),
    ("cast", re.compile("^__myl_(Move|Resh|Tran)*Cast(Cast|Move|Resh|Tran)*$")),
)

_TENSOR = re.compile(r'^\s*(?:sub_)?tensor=\{.*?name="([^"]*)".*?\btype=(\w+)', re.MULTILINE)
_OPERATION = re.compile(r"^  (\w+)=\{ name=\"?([^\s\"]+)\"?(.*)$", re.MULTILINE)
_OPERANDS = re.compile(r"\b(?:input|input_args)=\{([^}]*)\}")
_BINARY = re.compile(r"\bbinary ?= ?(\d+)")
_BACKBONE = re.compile(r"\bbackbone=(\w+)")
_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class _Operation:
    kind: str
    name: str
    rest: str

    @property
    def operands(self) -> list[str]:
        found = _OPERANDS.search(self.rest)
        return re.findall(r'"([^"]*)"', found[1]) if found else []

    @property
    def onnx_nodes(self) -> set[str]:
        return set(_LAYER.findall(self.rest))


@dataclass(frozen=True)
class _Program:
    types: Mapping[str, str]
    operations: tuple[_Operation, ...]
    is_main: bool


def plan_precision(plan: Path, attention_nodes: frozenset[str]) -> PrecisionReport | None:
    """Report the precision of a plan.

    Args:
        attention_nodes: Names of the ONNX nodes that are attention operators; those that no
            fused kernel computes are counted as unfused.

    Returns:
        None if the plan holds no program that can be read.
    """
    programs = list(_programs(plan))
    counted: list[tuple[OperationKind, str]] = []
    fused: set[str] = set()
    for index, program in enumerate(programs):
        if not program.is_main:
            continue
        parts = _parts_of(programs, index)
        for operation in program.operations:
            kind, precision = _classify(operation, program, parts)
            counted.append((kind, precision))
            if kind == "attention":
                fused |= operation.onnx_nodes
    if not counted:
        return None
    return precision_report("plan", counted, unfused_attention=len(attention_nodes - fused))


def _parts_of(programs: list[_Program], main: int) -> list[_Program]:
    """Return the programs of the operations that a main program leaves to the station, in order."""
    parts = []
    for program in programs[main + 1 :]:
        if program.is_main:
            break
        parts.append(program)
    return parts


def _programs(plan: Path) -> Iterator[_Program]:
    with (
        plan.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        at = data.find(_MAGIC)
        while at >= 0:
            start = at + _HEADER.size
            size = _HEADER.unpack(data[at:start])[2] if start <= len(data) else 0
            text = data[start : start + size] if size <= len(data) - start else b""
            if text.startswith(b"header {"):
                yield _program(text.decode("utf-8", "replace"))
                at = start + size - 1
            at = data.find(_MAGIC, at + 1)


def _program(text: str) -> _Program:
    body = text.partition("\nmain {")[2].partition("\n}")[0]
    return _Program(
        types={name: _TYPES.get(kind, kind) for name, kind in _TENSOR.findall(text)},
        operations=tuple(
            _Operation(kind, name, rest)
            for kind, name, rest in _OPERATION.findall(body)
            if kind not in _BOOKKEEPING
        ),
        is_main="accelerators={*}" not in text.partition("\ndescriptors")[0],
    )


def _classify(
    operation: _Operation, program: _Program, parts: list[_Program]
) -> tuple[OperationKind, str]:
    if operation.kind == "runtime_fusion":
        return _classify_fusion(operation, program, parts)
    kind = _OPERATIONS.get(operation.kind, "other")
    if operation.kind == "function":
        for kernel, pattern in _KERNELS:
            found = pattern.search(operation.name)
            if found:
                if kernel in {"norm", "softmax"} and "Cast" in operation.name[: found.start()]:
                    return kernel, "float32"  # widened on the way in
                kind = kernel
                break
    # Behind the two operands of a product come its scales and bias.
    operands = operation.operands[:2] if kind in HEAVY else operation.operands
    return kind, _precision(operands, program)


def _classify_fusion(
    operation: _Operation, program: _Program, parts: list[_Program]
) -> tuple[OperationKind, str]:
    """Classify an operation that the station compiles by its own program's heavy operation."""
    found = _BINARY.search(operation.rest)
    index = int(found[1]) if found else -1
    if 0 <= index < len(parts):
        part = parts[index]
        inner = [_classify(one, part, []) for one in part.operations]
        for kind in HEAVY:
            heavy = {precision for one, precision in inner if one == kind}
            if heavy:
                return kind, heavy.pop() if len(heavy) == 1 else "mixed"
    backbone = _BACKBONE.search(operation.rest)
    is_gemm = backbone is not None and backbone[1] == "gemm"
    return ("gemm" if is_gemm else "other"), _precision(operation.operands, program)


def _precision(operands: list[str], program: _Program) -> str:
    found = {program.types[name] for name in operands if program.types.get(name) in _TYPES.values()}
    if not found:
        return "none"
    return found.pop() if len(found) == 1 else "mixed"
