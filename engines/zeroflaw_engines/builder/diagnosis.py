"""What a parser's or compiler's message means: the operation, the reason and the likely remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_EXPORT_FP16: Final = "export the bundle again with `zeroflaw export --precision fp16`"


@dataclass(frozen=True)
class Sign:
    """What a message says, for those who do not know the compiler.

    Attributes:
        pattern: Found in the message, whatever its case.
        reason: What it means.
        remedy: What helps.
        about_attention: Whether the attention operators are meant, which it does not name.
    """

    pattern: str
    reason: str
    remedy: str
    about_attention: bool = False


# The first that fits is taken. That of a missing driver is last: without a GPU, the parser of
# TensorRT-RTX adds it to every other error.
SIGNS: Final = (
    Sign(
        r"key and value must have the same shape",
        "this backend's attention wants V as wide as K",
        f"{_EXPORT_FP16}, whose attention pads V",
    ),
    Sign(
        r"not supported by a dedicated kernel",
        "there is no fused attention kernel for these types and sizes (FP32 has none)",
        f"{_EXPORT_FP16} and build it without `--precision fp32`",
        about_attention=True,
    ),
    Sign(
        r"must have (the )?same (input )?types?",
        "a strongly typed graph may not mix the types of one operation",
        _EXPORT_FP16,
    ),
    Sign(
        r"failed to open file|failed to import initializer",
        "the graph's file of weights is missing or is not its own",
        "verify the bundle with `zeroflaw bundle verify`, and copy it anew",
    ),
    Sign(
        r"plugin not found|plugin creator version|unsupported[ _]node|no importer registered",
        "this backend does not have the operator",
        "install a later version of the backend, or run this engine with onnxruntime or openvino",
    ),
    Sign(
        r"cannot compile operation .* for \w+",
        "one of the architectures lacks the operation in this type (sm75 has no FP32 products)",
        "leave that architecture out",
    ),
    Sign(
        r"no tactics to implement the operation within workspace limit|insufficient workspace",
        "no kernel fits into the workspace limit",
        "raise `--workspace`, or leave it out",
    ),
    Sign(
        r"no space left on device",
        "the disk is full",
        "free space there, and in the directory for temporary files",
    ),
    Sign(
        r"out ?of ?memory|bad_alloc|could not allocate|cannot allocate memory",
        "there is not enough memory",
        "close other programs, or build on a machine with more memory",
    ),
    Sign(
        r"failed to parse the onnx model|input file cannot be found",
        "it is not a readable ONNX file",
        "verify the bundle with `zeroflaw bundle verify`, and copy it anew",
    ),
    Sign(
        r"status == CUDA_SUCCESS|driver version is insufficient|no CUDA-capable device",
        "this option needs a GPU and its driver while it builds",
        "build on a machine with a GPU, or leave out what needs one (`--strip-weights`)",
    ),
)
_UNKNOWN: Final = Sign(
    "",
    "the compiler gives no reason that is known here",
    "read the compiler's messages (`zeroflaw --verbose build`); another version may help",
)


@dataclass(frozen=True)
class FailedOperation:
    """What a parser says of one operation that it refuses.

    Attributes:
        node: Name of the ONNX node; empty if it has none.
        operator: ONNX operator; empty if none is meant.
        message: The parser's own words.
    """

    node: str
    operator: str
    message: str


def parse_failure(graph: str, failures: Sequence[FailedOperation]) -> tuple[str, str]:
    """Find cause and remedy of a graph that was not parsed.

    Args:
        failures: What the parser says; the error is of the first operation that it names.
    """
    first = next((one for one in failures if one.operator), failures[0] if failures else None)
    if first is None:
        return f"{graph} was not parsed, and the parser does not say why", _UNKNOWN.remedy
    sign = _sign_of(first.message)
    where = (
        f"{graph}: the operator {first.operator} (node {first.node or 'without a name'})"
        if first.operator
        else graph
    )
    more = f" ({len(failures) - 1} more)" if len(failures) > 1 else ""
    return f"{where} cannot be built: {sign.reason}{more}: {_short(first.message)}", sign.remedy


def build_failure(
    engine: str, messages: Sequence[str], *, attention: Sequence[str], layers: Sequence[str]
) -> tuple[str, str]:
    """Find cause and remedy of a network that was parsed and not built.

    Args:
        messages: The compiler's errors, oldest first.
        attention: Nodes of the attention operators with their types, to name where the compiler
            means them and names none.
        layers: Names of all layers; the longest in the message is where it failed.
    """
    text = "\n".join(messages)
    sign = _sign_of(text)
    named = max((name for name in layers if name and name in text), key=len, default="")
    where = f"{engine}: the operation {named}" if named else engine
    if sign.about_attention and not named and attention:
        where = f"{engine}: the operator Attention ({attention[0]}"
        where += f" and {len(attention) - 1} more)" if len(attention) > 1 else ")"
    own = _short(messages[0]) if messages else "it logged no error"
    return f"{where} cannot be built: {sign.reason}: {own}", sign.remedy


def _sign_of(text: str) -> Sign:
    return next((sign for sign in SIGNS if re.search(sign.pattern, text, re.IGNORECASE)), _UNKNOWN)


def _short(message: str) -> str:
    """Shorten a message to one line, without the trace of a missing GPU."""
    lines = [line for line in message.splitlines() if line and "catchCudaError" not in line]
    text = " ".join(lines)
    return text if len(text) <= 400 else text[:400] + " ..."
