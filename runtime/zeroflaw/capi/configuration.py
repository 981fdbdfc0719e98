"""What an embedded inspector is made of: one schema for the C struct and the TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from zeroflaw.capi.abi import Config, Status, has_field
from zeroflaw.capi.errors import EmbeddingError
from zeroflaw_engines.backends import DEFAULT_BACKEND
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME, SHIPPED_NAMES
from zeroflaw_engines.image_files.frame import MAX_FRAME_PIXELS
from zeroflaw_engines.machine import MAX_THREADS


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of `zeroflaw_config`, but for the Python environment; see `Inspector.load`.

    Attributes:
        bundle: Directory, or a bundle that ships, as `mini`.
        backend: Name of the backend.
        precision: What it computes in; None: its own default.
        model_cache: Directory for what backends compile at load; None: nowhere.
        encoder_schedule: `side_by_side` or `clip_first`.
        max_frame_pixels: Larger frames are refused.
        threads: CPU threads of each engine; 0: every core.
        queue_size: Submitted frames that may wait.
        when_full: What becomes of a frame that finds as many waiting.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.
    """

    bundle: str = SHIPPED_NAME
    backend: str = DEFAULT_BACKEND
    precision: str | None = None
    model_cache: str | None = None
    encoder_schedule: Literal["side_by_side", "clip_first"] = "side_by_side"
    max_frame_pixels: Annotated[int, msgspec.Meta(ge=1)] = MAX_FRAME_PIXELS
    threads: Annotated[int, msgspec.Meta(ge=0, le=MAX_THREADS)] = 0
    queue_size: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 8
    when_full: Literal["refuse", "drop_oldest"] = "refuse"
    device: Annotated[int, msgspec.Meta(ge=0)] = 0


def configuration_of(config: Config) -> Configuration:
    """Return the configuration that a C struct asks for; null and zero mean the default.

    Raises:
        EmbeddingError: A value is out of its range or not UTF-8.
    """
    given: dict[str, object] = {}
    for name in Configuration.__struct_fields__:
        value = getattr(config, name) if has_field(config, name) else None
        if value:
            given[name] = decoded(value, name) if isinstance(value, bytes) else value
    return _converted(given, "zeroflaw_config")


def read_configuration(path: Path) -> Configuration:
    """Read a TOML file with the fields of `Configuration`.

    Relative paths in it are relative to the file's directory, so that it can be moved with what
    it names.

    Raises:
        EmbeddingError: The file cannot be read, is not TOML, or has an unknown field or a value
            that is out of its range.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EmbeddingError(
            f"the configuration {path} cannot be read: {error.strerror or error}",
            "check the path",
            Status.CONFIGURATION,
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EmbeddingError(
            f"the configuration {path} is not TOML: {error}", "correct it", Status.CONFIGURATION
        ) from error
    for name in ("bundle", "model_cache"):
        value = fields.get(name)
        if isinstance(value, str) and value not in SHIPPED_NAMES:
            fields[name] = str(path.absolute().parent / value)
    return _converted(fields, f"the configuration {path}")


def decoded(text: bytes | None, name: str) -> str:
    """Decode a text of the C side; null is empty.

    Raises:
        EmbeddingError: It is not UTF-8.
    """
    try:
        return "" if text is None else text.decode()
    except UnicodeDecodeError as error:
        raise EmbeddingError(f"{name} is not UTF-8: {text!r}", "encode it as UTF-8") from error


def _converted(fields: dict[str, object], where: str) -> Configuration:
    try:
        return msgspec.convert(fields, Configuration)
    except msgspec.ValidationError as error:
        raise EmbeddingError(
            f"{where} cannot be used: {error}",
            f"the fields are: {', '.join(Configuration.__struct_fields__)}",
            Status.CONFIGURATION,
        ) from error
