"""Checks of arguments: each names the argument, its value and what it may be."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from zeroflaw_engines.errors import ArgumentError, ZeroflawError

_Thing = TypeVar("_Thing")


def choice(
    name: str,
    value: object,
    choices: Iterable[str],
    *,
    error: type[ZeroflawError] = ArgumentError,
) -> str:
    """Check that a value is one of several texts.

    Args:
        error: What is raised, here and in the other checks.

    Raises:
        ZeroflawError: It is none of them.
    """
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise error(f"{name} is {_shown(value)}", f"choose one of: {', '.join(known)}")
    return value


def whole_number(
    name: str,
    value: Any,  # noqa: ANN401 - anything may be given
    *,
    minimum: int,
    maximum: int | None = None,
    error: type[ZeroflawError] = ArgumentError,
) -> int:
    """Check that a value is a whole number, Python's or NumPy's, but no truth value and no text.

    Raises:
        ZeroflawError: It is of another kind, or out of the range.
    """
    wanted = f"a whole number of at least {minimum}"
    if maximum is not None:
        wanted = f"a whole number from {minimum} to {maximum}"
    is_one = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_one or value < minimum or (maximum is not None and value > maximum):
        raise error(f"{name} is {_shown(value)}", f"give {wanted}")
    return int(value)


def number(
    name: str,
    value: Any,  # noqa: ANN401 - as above
    *,
    above: float | None = None,
    minimum: float | None = None,
    unit: str = "",
    error: type[ZeroflawError] = ArgumentError,
) -> float:
    """Check that a value is a finite number, Python's or NumPy's.

    Raises:
        ZeroflawError: It is of another kind, not finite, or out of the range.
    """
    is_one = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if (
        not is_one
        or not math.isfinite(value)
        or (above is not None and value <= above)
        or (minimum is not None and value < minimum)
    ):
        limit = "" if minimum is None else f" of at least {minimum:g}"
        limit = limit if above is None else f" above {above:g}"
        raise error(
            f"{name} is {_shown(value)}", f"give a finite number{limit}{unit and f', {unit}'}"
        )
    return float(value)


def flag(name: str, value: object, *, error: type[ZeroflawError] = ArgumentError) -> bool:
    """Check for a truth value: what merely counts as one, such as the text "no", is a mistake.

    Raises:
        ZeroflawError: It is neither True nor False.
    """
    # NumPy's is not a `bool`, and NumPy is not imported for that.
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise error(f"{name} is {_shown(value)}", "give True or False")
    return bool(value)


def text(name: str, value: object, *, error: type[ZeroflawError] = ArgumentError) -> str:
    """Check that a value is a text.

    Raises:
        ZeroflawError: It is none.
    """
    if not isinstance(value, str):
        raise error(f"{name} is {_shown(value)}, not a text", f"give {name} as a str")
    return value


def path(name: str, value: object, *, error: type[ZeroflawError] = ArgumentError) -> str | Path:
    """Check that a value is a path, as text or as a `Path`; bytes are not accepted.

    Raises:
        ZeroflawError: It is none, or empty.
    """
    if not isinstance(value, str | Path) or value == "":
        raise error(f"{name} is {_shown(value)}, not a path", f"give {name} as a str or a Path")
    return value


def frame_size(name: str, value: Any, *, max_pixels: int) -> None:  # noqa: ANN401 - as above
    """Check that a value is the height and width of a frame, px.

    Args:
        max_pixels: Largest frame that is accepted, height x width.

    Raises:
        ArgumentError: It is not two whole numbers, or larger than that.
    """
    if not isinstance(value, tuple) or len(value) != 2:
        raise ArgumentError(f"{name} is {_shown(value)}", "give (height, width)")
    height = whole_number(f"{name}[0]", value[0], minimum=1, maximum=max_pixels)
    whole_number(f"{name}[1]", value[1], minimum=1, maximum=max_pixels // height)


def instance(
    name: str,
    value: object,
    kind: type[_Thing],
    remedy: str,
    *,
    error: type[ZeroflawError] = ArgumentError,
) -> _Thing:
    """Check that a value is an object of a class.

    Raises:
        ZeroflawError: It is something else.
    """
    if not isinstance(value, kind):
        raise error(f"{name} is {_shown(value)}, not a {kind.__name__}", remedy)
    return value


def _shown(value: object) -> str:
    """Return a value as it is written, or its kind where that would be long."""
    if value is None or isinstance(value, str | bytes | bool | numbers.Number | Path):
        written = repr(value)
        return written if len(written) <= 80 else f"{written[:77]}..."
    return f"of the kind {type(value).__name__}"
