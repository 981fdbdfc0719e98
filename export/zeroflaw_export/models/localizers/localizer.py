"""What a localizer is: a method that fulfils the contract of `clip_encoder`.

Each method is a module of its own and a row of `registry.LOCALIZERS`. It is built on a CLIP whose
weights are loaded, with parameters that the manifest records, and it brings its own reference for
the parity check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_origin, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch import nn

from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import EngineSizes, ReferenceSizes
from zeroflaw_engines.errors import ExportError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_export.models.architectures import ClipArchitecture
from zeroflaw_export.models.load import PositionInterpolation, WeightsSource, load_clip
from zeroflaw_export.models.reference_matcher import (
    matcher_of,
    plain_reference_map,
    reference_sizes,
)

# Image uint8 [S, S, 3] and float32 [2, E] -> map float32 [S, S], score, and patch tokens float32
# [blocks, tokens, width]. It computes them another way than the module that is exported.
ClipReference = Callable[
    [NDArray[np.uint8], TextEmbeddings], tuple[NDArray[np.float32], float, NDArray[np.float32]]
]


@dataclass(frozen=True, kw_only=True)
class Tower:
    """What a localizer is built on.

    Attributes:
        clip: With its weights, in eval mode.
        image_size: Side of the square input, px.
        weights: Of what the method adds to the towers.
        batched: Whether the encoder takes several images, as `ClipEncoder` does then.
    """

    clip: CLIP
    architecture: ClipArchitecture
    image_size: int
    weights: WeightsSource
    batched: bool = False


@dataclass(frozen=True)
class BuiltLocalizer:
    """A localizer ready to be exported.

    Attributes:
        encoder: Takes `image` and, if the method takes texts, `text_embeddings`; gives
            `anomaly_map`, `image_score` and `patch_tokens`, as `engine_contract` has them.
        reference: What the exported graph is checked against.
    """

    encoder: nn.Module
    reference: ClipReference


def _matcher(sizes: EngineSizes, parameters: object) -> nn.Module:  # noqa: ARG001 - it has none
    """Build the matcher that a method has unless it brings its own."""
    return matcher_of(sizes)


def _plain_reference_map(
    inputs: dict[str, Tensor],
    size: int,
    parameters: object,  # noqa: ARG001 - it has none
) -> NDArray[np.float64]:
    """Compute what that matcher gives."""
    return plain_reference_map(inputs, size)


def _tapped_blocks(architecture: ClipArchitecture, parameters: object) -> tuple[int, ...]:  # noqa: ARG001 - it has none
    """Return the blocks that APRIL-GAN reads."""
    return architecture.tapped_blocks


def _takes_any(architecture: ClipArchitecture, image_size: int, parameters: object) -> None:
    """Accept every architecture, size and parameters."""


@dataclass(frozen=True, kw_only=True)
class Localizer:
    """A row of the registry.

    Attributes:
        name: As the manifest and the command line have it.
        summary: One line for the help of the command line and error messages.
        parameters: A frozen dataclass of the method's open points; its defaults are the published
            values, or those that docs/method.md gives a reason for.
        takes_text: Whether products differ by their sentences; without, the graph takes no
            `text_embeddings`, and every product has the same.
        takes_weights: Whether the method adds trained weights to the towers.
        default_weights: Official name of those weights; None: they must be given.
        build: Makes it, with the parameters.
        check: Refuses an architecture, size or parameters that the method cannot take, before
            any weights are read.
        quick_gelu: Which activation the method's source runs at every size; `native`: the one
            that the weights were trained with; None: APRIL-GAN's rule,
            `ClipArchitecture.uses_quick_gelu`.
        positions: How the method's source resizes the position embedding.
        ensembles: Packaged file of the sentences that the method's source uses.
        tapped_blocks: The blocks, 1-based, whose tokens the method reads, as the manifest has them.
        reference_sizes: Sizes of reference banks for an architecture, a size and bytes.
        matcher: Module of the `reference_matcher` for the sizes of a bundle and the parameters.
        plain_reference_map: What its graph is checked against: the matcher's inputs, the side of
            the map and the parameters in; float64 [S, S] out.
        method_parameters: Method parameters that the method's source has otherwise than
            APRIL-GAN's: an export records them unless it is told others.
    """

    name: str
    summary: str
    parameters: type[Any]
    takes_text: bool
    takes_weights: bool
    default_weights: str | None = None
    build: Callable[[Tower, Any], BuiltLocalizer]
    check: Callable[[ClipArchitecture, int, Any], None] = _takes_any
    quick_gelu: bool | Literal["native"] | None = None
    positions: PositionInterpolation = "bicubic_antialias"
    ensembles: str = "prompt_ensembles.toml"
    tapped_blocks: Callable[[ClipArchitecture, Any], tuple[int, ...]] = _tapped_blocks
    reference_sizes: Callable[[ClipArchitecture, int, int], ReferenceSizes] = reference_sizes
    matcher: Callable[[EngineSizes, Any], nn.Module] = _matcher
    plain_reference_map: Callable[[dict[str, Tensor], int, Any], NDArray[np.float64]] = (
        _plain_reference_map
    )
    method_parameters: Mapping[str, Any] = field(default_factory=dict)

    def runs_quick_gelu(self, architecture: ClipArchitecture, image_size: int) -> bool:
        """Return whether the towers run QuickGELU at a size."""
        if self.quick_gelu is None:
            return architecture.uses_quick_gelu(image_size)
        return architecture.native_quick_gelu if self.quick_gelu == "native" else self.quick_gelu

    def load_tower(
        self,
        architecture: ClipArchitecture,
        image_size: int,
        *,
        clip_weights: WeightsSource,
        weights: WeightsSource,
        batched: bool = False,
    ) -> Tower:
        """Load CLIP as the method's source runs it, for `build`.

        Args:
            image_size: Side of the square input, px.
            weights: Of what the method adds to the towers.
            batched: Whether the encoder takes several images.

        Raises:
            ExportError: The size does not fit the architecture.
            WeightsError: CLIP's checkpoint is not that of the architecture.
        """
        clip = load_clip(
            architecture,
            image_size,
            clip_weights,
            quick_gelu=self.runs_quick_gelu(architecture, image_size),
            positions=self.positions,
        )
        return Tower(
            clip=clip,
            architecture=architecture,
            image_size=image_size,
            weights=weights,
            batched=batched,
        )

    def recorded_parameters(self, given: Mapping[str, Any]) -> MethodParameters:
        """Return the method parameters of a bundle: those given, then the localizer's own.

        Raises:
            ParametersError: A name is unknown, or a value is of the wrong kind or range.
        """
        return MethodParameters.from_mapping({**self.method_parameters, **given})

    def parameters_from(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - its own class
        """Build the method's parameters from plain values, such as those of a command line.

        Raises:
            ExportError: A name is not a parameter of this method, or a value is not acceptable.
        """
        known = [field.name for field in fields(self.parameters)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ExportError(
                f"{self.name} has no parameter {', '.join(unknown)}",
                f"its parameters are {', '.join(known)}" if known else "it has none",
            )
        hints = get_type_hints(self.parameters)
        given = {
            name: _listed(value) if get_origin(hints[name]) is tuple else value
            for name, value in values.items()
        }
        try:
            return msgspec.convert(given, self.parameters, strict=False)
        except msgspec.ValidationError as error:
            raise ExportError(
                f"a parameter of {self.name} is not acceptable: {error}",
                "see docs/method.md for the parameters of each localizer",
            ) from error


def _listed(value: Any) -> Any:  # noqa: ANN401 - whatever the command line gave
    """Read several values of one parameter, as `6,12,18,24` of a command line."""
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return [value] if isinstance(value, (int, float)) else value


@dataclass(frozen=True)
class NoParameters:
    """The parameters of a method without open points."""
