"""The method's parameters: every point that the papers leave open, as one frozen object."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from zeroflaw_engines.errors import ParametersError

MAX_POINTS_PER_SIGN: Final = 10

Refiner = Literal["cascade", "mmr", "box_proposals", "none"]

# The parameters that one refiner alone reads; all others are read by several, or by all. Those of
# the cascade are always recorded and always digested, as they were before there was a choice.
PARAMETERS_OF_REFINER: Final[dict[str, tuple[str, ...]]] = {
    "mmr": (
        "mmr_threshold",
        "mmr_points",
        "mmr_seed",
        "mmr_mask",
        "mmr_weight",
        "mmr_normalisation",
    ),
    "box_proposals": (
        "proposal_score",
        "proposal_area",
        "proposal_masks",
        "proposal_saliency",
        "saliency_neighbours",
    ),
}


@dataclass(frozen=True, kw_only=True)
class MethodParameters:
    """Parameters of PPG, cascade and scoring (Hou et al., sections 3.1 and 3.2).

    The paper leaves each of these open or gives one value; the defaults and the reasons for
    them are in `docs/method.md`. The manifest of a bundle records the ones it was made with.

    Attributes:
        extreme_threshold: Anomaly above which a pixel of the map belongs to the extreme region
            S_a, in (0, 1).
        positive_points: k of Eq. 2, 1 to 10. A small region may yield fewer, never none.
        negative_points: k of Eq. 7, 0 to 10. An empty ring yields none.
        point_spacing: How "spaced by 400 pixels" is read: `cell` keeps points at least
            sqrt(spacing_pixels) apart (one point for each 20 x 20 = 400-px cell), `euclidean`
            at least spacing_pixels apart, `rank_stride` takes every spacing_pixels-th pixel of
            the ranking.
        spacing_pixels: The paper's 400.
        prompt_grid: Grid on which PPG runs: that of the anomaly `map`, or `sam`'s image.
        dilation_kernel: Shape of the structuring element of Eq. 3.
        dilation_size: Side of that element, 1 to 255 px of the prompt grid.
        sam_input: What SAM sees: the `original` frame with its aspect kept, or the frame
            `squashed` to the CLIP encoder's square.
        similarity: Map_s of Eq. 6: cosine to the mean feature of S_a (`prototype`), or the
            highest cosine to any cell of S_a (`max_pair`).
        stage1_mask: Whether stage 1 takes the best of the three `multi` masks or the `single`
            one; stages 2 and 3 always take the best of three.
        box: F_location of Eq. 11: one box over all of M_2 (`union`), or one for each connected
            component, whose masks are united (`per_component`).
        cascade_stages: Stages to run, 1 to 3 (Table 3).
        no_region: What happens when S_a is empty: `skip` leaves SAM's decoder out and the mask
            empty, `always_run` seeds S_a at the map's peak.
        scoring: The score map: `fused` = (1 - w) * map + w * predicted IoU * mask, or one of
            `map`, `mask`, `sam_probability` alone.
        fusion_weight: w of `fused`, in [0, 1].
        image_scoring: The image score: softmax of the `cls` token, or `map_max`.
        reference_distance: Distance of a patch to a product's reference bank: 1 - the highest
            `cosine` (APRIL-GAN), or half of that (`half_cosine`, WinCLIP+).
        reference_fusion: The anomaly map of a product with a bank: the zero-shot map plus the
            reference map, at most 1 (`sum`, APRIL-GAN); their `mean` (WinCLIP+) or `max`; or one
            of them alone, `reference` or `zero_shot`. Prompt points and cascade take it.
        reference_image_scoring: The image score of a product with a bank: the `mean` of that of
            `image_scoring` and the highest value of the reference map, at most 1 (WinCLIP+); or
            one of the two alone, `reference` or `zero_shot`.
        decision_threshold: Image score at and above which a frame is rejected, unless the
            product has a threshold of its own.
        min_contrast: Least difference between the darkest and the brightest part of a frame, as
            a share of white, in [0, 1]. A frame with less is held: it shows nothing.
        max_clipped: Largest share of pixels that are black or white in every channel, in [0, 1].
            A frame with more is held.
        min_peak: Share of white that the brightest pixel must pass, in [0, 1]; a frame whose
            pixels never do is held. 12-bit values in 16 bits end at 1/16.
        contradiction: What happens if the image score accepts a frame whose mask or map says
            "defect": `warn` in the result, `hold` the frame, or `ignore` it.
        contradiction_area: Share of what is judged of the frame that mask or map must call
            defective for it to be a contradiction, in [0, 1); 0 counts a single pixel.
        refiner: What turns the anomaly map and SAM's features into mask and score map: the
            `cascade` of Hou et al., ClipSAM's `mmr`, SAA's `box_proposals`, or `none`, the map
            alone.
        mmr_threshold: Anomaly above which a pixel is foreground (ClipSAM, Eq. 7), in (0, 1).
        mmr_points: m, random points in the foreground, 1 to 20; fewer if it has fewer pixels.
        mmr_seed: Seed of those points: equal maps give equal masks.
        mmr_mask: Mask of a component: its `best` of three by predicted IoU, or the `vote` of all
            three by predicted IoU.
        mmr_weight: Of the masks of Eq. 9 beside the map, in [0, 1]; the paper's is 1.
        mmr_normalisation: Norm of Eq. 9: `fixed` divides by the largest value of one component,
            1 + 3 * mmr_weight, at most 1, and is the same for every frame; `per_image` stretches
            each frame to [0, 1], as the paper may have, and is no basis of decisions.
        proposal_score: Score that a box must pass, in [0, 1] (SAA's box threshold).
        proposal_area: Share of the frame that a box must stay below, in (0, 1].
        proposal_masks: Masks of highest score that are averaged, 1 to 100 (SAA's k_mask).
        proposal_saliency: What rescales the score of a box by exp(3 * mean over its mask): the
            `anomaly_map`, how unlike the others its `patch_tokens` are (SAA+), or `none` (SAA).
        saliency_neighbours: N of the least similar patches that make up a patch's saliency, at
            least 1 (SAA+: 400).
    """

    extreme_threshold: float = 0.5
    positive_points: int = 3
    negative_points: int = 3
    point_spacing: Literal["cell", "euclidean", "rank_stride"] = "cell"
    spacing_pixels: int = 400
    prompt_grid: Literal["map", "sam"] = "map"
    dilation_kernel: Literal["ellipse", "rectangle", "cross"] = "ellipse"
    dilation_size: int = 25
    sam_input: Literal["original", "squashed"] = "original"
    similarity: Literal["prototype", "max_pair"] = "prototype"
    stage1_mask: Literal["multi", "single"] = "multi"
    box: Literal["union", "per_component"] = "union"
    cascade_stages: int = 3
    no_region: Literal["skip", "always_run"] = "skip"
    scoring: Literal["fused", "map", "mask", "sam_probability"] = "fused"
    fusion_weight: float = 0.5
    image_scoring: Literal["cls", "map_max"] = "cls"
    reference_distance: Literal["cosine", "half_cosine"] = "cosine"
    reference_fusion: Literal["sum", "mean", "max", "reference", "zero_shot"] = "sum"
    reference_image_scoring: Literal["mean", "reference", "zero_shot"] = "mean"
    decision_threshold: float = 0.5
    min_contrast: float = 0.04
    max_clipped: float = 0.9
    min_peak: float = 0.0625
    contradiction: Literal["warn", "hold", "ignore"] = "warn"
    contradiction_area: float = 0.0
    refiner: Refiner = "cascade"
    mmr_threshold: float = 0.47
    mmr_points: int = 5
    mmr_seed: int = 0
    mmr_mask: Literal["best", "vote"] = "best"
    mmr_weight: float = 1.0
    mmr_normalisation: Literal["fixed", "per_image"] = "fixed"
    proposal_score: float = 0.1
    proposal_area: float = 0.5
    proposal_masks: int = 5
    proposal_saliency: Literal["anomaly_map", "patch_tokens", "none"] = "patch_tokens"
    saliency_neighbours: int = 400

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(MethodParameters).items():
            _require_kind(name, getattr(self, name), hint)
        _require(
            "extreme_threshold",
            self.extreme_threshold,
            0 < self.extreme_threshold < 1,
            "inside (0, 1)",
        )
        _require(
            "positive_points",
            self.positive_points,
            1 <= self.positive_points <= MAX_POINTS_PER_SIGN,
            "1 to 10",
        )
        _require(
            "negative_points",
            self.negative_points,
            0 <= self.negative_points <= MAX_POINTS_PER_SIGN,
            "0 to 10",
        )
        _require("spacing_pixels", self.spacing_pixels, self.spacing_pixels >= 1, "at least 1")
        _require("dilation_size", self.dilation_size, 1 <= self.dilation_size <= 255, "1 to 255")
        _require("cascade_stages", self.cascade_stages, 1 <= self.cascade_stages <= 3, "1 to 3")
        for name in (
            "fusion_weight",
            "decision_threshold",
            "min_contrast",
            "max_clipped",
            "min_peak",
        ):
            value = getattr(self, name)
            _require(name, value, 0 <= value <= 1, "in [0, 1]")
        _require(
            "contradiction_area",
            self.contradiction_area,
            0 <= self.contradiction_area < 1,
            "in [0, 1)",
        )
        _require("mmr_threshold", self.mmr_threshold, 0 < self.mmr_threshold < 1, "inside (0, 1)")
        _require("mmr_points", self.mmr_points, 1 <= self.mmr_points <= 20, "1 to 20")
        _require("mmr_seed", self.mmr_seed, 0 <= self.mmr_seed < 2**32, "0 to 2^32 - 1")
        _require("mmr_weight", self.mmr_weight, 0 <= self.mmr_weight <= 1, "in [0, 1]")
        _require("proposal_score", self.proposal_score, 0 <= self.proposal_score <= 1, "in [0, 1]")
        _require("proposal_area", self.proposal_area, 0 < self.proposal_area <= 1, "in (0, 1]")
        _require("proposal_masks", self.proposal_masks, 1 <= self.proposal_masks <= 100, "1 to 100")
        _require(
            "saliency_neighbours",
            self.saliency_neighbours,
            self.saliency_neighbours >= 1,
            "at least 1",
        )
        self._require_own()

    def _require_own(self) -> None:
        """Refuse a parameter of another refiner that is not its default: it would do nothing."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for refiner, names in PARAMETERS_OF_REFINER.items():
            if refiner == self.refiner:
                continue
            given = [name for name in names if getattr(self, name) != defaults[name]]
            if given:
                raise ParametersError(
                    f"method parameter {', '.join(given)} is of the refiner {refiner}, and the"
                    f" refiner is {self.refiner}",
                    f"leave it out, or set refiner to {refiner}",
                )

    @property
    def relevant(self) -> dict[str, Any]:
        """The values by name, without those of refiners that are not in use.

        With the cascade, `refiner` is left out too: manifests and digests are then the same as
        before there was a choice.
        """
        values = dataclasses.asdict(self)
        for refiner, names in PARAMETERS_OF_REFINER.items():
            if refiner != self.refiner:
                for name in names:
                    del values[name]
        if self.refiner == "cascade":
            del values["refiner"]
        return values

    @property
    def digest(self) -> str:
        """SHA-256 of what is `relevant`, as JSON with sorted names: equal for equal parameters."""
        hints = get_type_hints(MethodParameters)
        values = {
            name: float(value) if hints[name] is float else value
            for name, value in self.relevant.items()
        }
        return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> MethodParameters:
        """Build parameters from plain values, such as those of a manifest or of a TOML file.

        Raises:
            ParametersError: A name is unknown, or a value is of the wrong kind or range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ParametersError(
                f"unknown method parameter {', '.join(unknown)}",
                f"the parameters are {', '.join(sorted(known))}",
            )
        try:
            return msgspec.convert(dict(values), cls)
        except msgspec.ValidationError as error:
            raise ParametersError(
                f"method parameter of the wrong kind: {error}",
                "see docs/method.md for the values of each parameter",
            ) from error

    def replace(self, **values: Any) -> MethodParameters:  # noqa: ANN401 - any field's type
        """Return these parameters with some values replaced.

        With another refiner, what the old one alone reads takes its defaults again.

        Raises:
            ParametersError: A name is unknown, or a value is not acceptable.
        """
        kept = dataclasses.asdict(self)
        if values.get("refiner", self.refiner) != self.refiner:
            for name in PARAMETERS_OF_REFINER.get(self.refiner, ()):
                del kept[name]
        return self.from_mapping({**kept, **values})


def named_values(settings: Iterable[str]) -> dict[str, Any]:
    """Read settings of the form NAME=VALUE, the last one of a name winning; numbers become such.

    Raises:
        ParametersError: A setting has no `=`.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ParametersError(f"{setting!r} is not NAME=VALUE", "write --set NAME=VALUE")
        values[name.strip()] = _number_or_text(text.strip())
    return values


def _number_or_text(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _require_kind(name: str, value: object, hint: object) -> None:
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices:
            raise ParametersError(
                f"method parameter {name} is {value!r}", f"choose one of: {', '.join(choices)}"
            )
        return
    kinds = (int,) if hint is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        kind = "a whole number" if hint is int else "a number"
        raise ParametersError(f"method parameter {name} is {value!r}", f"give {kind}")


def _require(name: str, value: float, holds: bool, want: str) -> None:
    if not holds:
        raise ParametersError(
            f"method parameter {name} is {value}, but must be {want}",
            f"set {name} to a value {want}",
        )
