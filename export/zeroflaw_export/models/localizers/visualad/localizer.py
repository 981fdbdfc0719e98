"""VisualAD as a localizer."""

from __future__ import annotations

from functools import partial

from zeroflaw_engines.errors import ExportError, WeightsError
from zeroflaw_export.models.architectures import ClipArchitecture
from zeroflaw_export.models.localizers.localizer import BuiltLocalizer, Localizer, Tower
from zeroflaw_export.models.localizers.visualad.checkpoint import load_parts
from zeroflaw_export.models.localizers.visualad.encoder import VisualAdEncoder
from zeroflaw_export.models.localizers.visualad.parameters import VisualAdParameters
from zeroflaw_export.models.localizers.visualad.parts import POSITIONS, random_parts
from zeroflaw_export.models.localizers.visualad.reference import reference_visualad


def check(architecture: ClipArchitecture, image_size: int, parameters: VisualAdParameters) -> None:
    """Refuse a tower without tokens, and more patches than SCA has places for.

    Raises:
        ExportError: It is one of these, or the parameters contradict one another.
    """
    parameters.check()
    if architecture.has_pyramid:
        raise ExportError(
            f"VisualAD puts two tokens into a ViT, and {architecture.name} has none",
            "choose --clip vit_l_14_336, or another localizer",
        )
    patches = (image_size // architecture.patch_size) ** 2
    if patches > POSITIONS:
        raise ExportError(
            f"{image_size} px give {patches} patches, and VisualAD has places for {POSITIONS}",
            f"choose a --clip-image-size of at most {architecture.patch_size * 39} px",
        )


def build(tower: Tower, parameters: VisualAdParameters) -> BuiltLocalizer:
    """Build VisualAD's localizer.

    Raises:
        WeightsError: The weights are not a checkpoint of VisualAD for the architecture and size.
    """
    architecture, source = tower.architecture, tower.weights
    if source.path is not None:
        parts = load_parts(source.path, architecture, tower.image_size)
    elif source.seed is None:
        raise WeightsError(f"{source.name} has neither a file nor a seed", "give one of them")
    else:
        parts = random_parts(
            len(architecture.tapped_blocks), architecture.token_width, source.seed + 1
        )
    if parameters.ln_post == "clip":
        parts.ln_post.load_state_dict(tower.clip.visual.ln_post.state_dict())
    blocks = architecture.tapped_blocks
    encoder = VisualAdEncoder(
        tower.clip, parts, blocks, tower.image_size, parameters, batched=tower.batched
    )
    reference = partial(reference_visualad, tower.clip, parts, blocks, parameters=parameters)
    return BuiltLocalizer(encoder.eval(), reference)


VISUALAD = Localizer(
    name="visualad",
    summary="two learned tokens in the image tower, and no texts",
    parameters=VisualAdParameters,
    takes_text=False,
    takes_weights=True,
    default_weights="visualad_visa",
    build=build,
    check=check,
    quick_gelu=True,
    positions="bilinear",
)
