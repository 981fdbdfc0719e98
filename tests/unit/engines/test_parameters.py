import dataclasses

import pytest

from zeroflaw_engines.errors import ParametersError, ZeroflawError
from zeroflaw_engines.parameters import MethodParameters

NAN = float("nan")
INF = float("inf")

WAYS = {
    "direct": lambda values: MethodParameters(**values),
    "from_mapping": MethodParameters.from_mapping,
    "replace": lambda values: MethodParameters().replace(**values),
}

OUT_OF_RANGE = [
    *[("extreme_threshold", v) for v in (0.0, 1.0, -0.1, 1.1, NAN, INF, 0, 1)],
    *[("positive_points", v) for v in (0, 11, -1, 10**6)],
    *[("negative_points", v) for v in (-1, 11)],
    *[("spacing_pixels", v) for v in (0, -1, -400)],
    *[("dilation_size", v) for v in (0, -1, 256)],
    *[("cascade_stages", v) for v in (0, 4, -1)],
    *[("fusion_weight", v) for v in (-1e-9, 1.0000001, NAN, INF)],
    *[("decision_threshold", v) for v in (-1e-9, 1.0000001, NAN, -INF)],
    *[("min_contrast", v) for v in (-1e-9, 1.0000001, NAN, INF)],
    *[("max_clipped", v) for v in (-1e-9, 1.0000001, NAN, INF)],
    *[("min_peak", v) for v in (-1e-9, 1.0000001, NAN, INF)],
    *[("contradiction_area", v) for v in (-1e-9, 1, NAN, INF)],
]

IN_RANGE = [
    *[("extreme_threshold", v) for v in (1e-9, 0.5, 0.999999)],
    *[("positive_points", v) for v in range(1, 11)],
    *[("negative_points", v) for v in range(11)],
    *[("spacing_pixels", v) for v in (1, 400, 10**6)],
    *[("dilation_size", v) for v in (1, 20, 25, 255)],
    *[("cascade_stages", v) for v in (1, 2, 3)],
    *[("fusion_weight", v) for v in (0, 0.0, 0.5, 1.0, 1)],
    *[("decision_threshold", v) for v in (0, 0.0, 0.5, 1.0, 1)],
    *[("min_contrast", v) for v in (0, 0.05, 1.0)],
    *[("max_clipped", v) for v in (0, 0.9, 1.0)],
    *[("min_peak", v) for v in (0, 0.0625, 1.0)],
    *[("contradiction_area", v) for v in (0, 0.001, 0.999)],
    *[("contradiction", v) for v in ("warn", "hold", "ignore")],
    *[("point_spacing", v) for v in ("cell", "euclidean", "rank_stride")],
    *[("prompt_grid", v) for v in ("map", "sam")],
    *[("dilation_kernel", v) for v in ("ellipse", "rectangle", "cross")],
    *[("sam_input", v) for v in ("original", "squashed")],
    *[("similarity", v) for v in ("prototype", "max_pair")],
    *[("stage1_mask", v) for v in ("multi", "single")],
    *[("box", v) for v in ("union", "per_component")],
    *[("no_region", v) for v in ("skip", "always_run")],
    *[("scoring", v) for v in ("fused", "map", "mask", "sam_probability")],
    *[("image_scoring", v) for v in ("cls", "map_max")],
    *[("reference_distance", v) for v in ("cosine", "half_cosine")],
    *[("reference_fusion", v) for v in ("sum", "mean", "max", "reference", "zero_shot")],
    *[("reference_image_scoring", v) for v in ("mean", "reference", "zero_shot")],
]

CHOICES = [
    "point_spacing",
    "prompt_grid",
    "dilation_kernel",
    "sam_input",
    "similarity",
    "stage1_mask",
    "box",
    "no_region",
    "scoring",
    "image_scoring",
    "reference_distance",
    "reference_fusion",
    "reference_image_scoring",
    "contradiction",
]

WRONG_KIND = [
    *[(name, "nonsense") for name in CHOICES],
    *[(name, 1) for name in CHOICES],
    *[(name, None) for name in CHOICES],
    ("extreme_threshold", "0.5"),
    ("fusion_weight", None),
    ("decision_threshold", [0.5]),
    ("positive_points", 2.5),
    ("positive_points", True),
    ("negative_points", "3"),
    ("spacing_pixels", 400.5),
    ("dilation_size", None),
    ("cascade_stages", "3"),
]


def test_defaults_are_those_of_the_method():
    assert dataclasses.asdict(MethodParameters()) == {
        "extreme_threshold": 0.5,
        "positive_points": 3,
        "negative_points": 3,
        "point_spacing": "cell",
        "spacing_pixels": 400,
        "prompt_grid": "map",
        "dilation_kernel": "ellipse",
        "dilation_size": 25,
        "sam_input": "original",
        "similarity": "prototype",
        "stage1_mask": "multi",
        "box": "union",
        "cascade_stages": 3,
        "no_region": "skip",
        "scoring": "fused",
        "fusion_weight": 0.5,
        "image_scoring": "cls",
        "reference_distance": "cosine",
        "reference_fusion": "sum",
        "reference_image_scoring": "mean",
        "decision_threshold": 0.5,
        "min_contrast": 0.04,
        "max_clipped": 0.9,
        "min_peak": 0.0625,
        "contradiction": "warn",
        "contradiction_area": 0.0,
        "refiner": "cascade",
        "mmr_threshold": 0.47,
        "mmr_points": 5,
        "mmr_seed": 0,
        "mmr_mask": "best",
        "mmr_normalisation": "fixed",
        "proposal_score": 0.1,
        "proposal_area": 0.5,
        "proposal_masks": 5,
        "proposal_saliency": "patch_tokens",
        "saliency_neighbours": 400,
    }


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
@pytest.mark.parametrize("make", ["direct", "from_mapping", "replace"])
def test_out_of_range(name, value, make):
    with pytest.raises(ParametersError) as caught:
        WAYS[make]({name: value})
    assert name in caught.value.cause
    assert name in caught.value.remedy
    assert caught.value.code == "parameters"
    assert isinstance(caught.value, ZeroflawError)


@pytest.mark.parametrize(("name", "value"), IN_RANGE)
def test_in_range(name, value):
    for way in WAYS.values():
        made = way({name: value})
        assert getattr(made, name) == value
        others = {k: v for k, v in dataclasses.asdict(made).items() if k != name}
        defaults = {k: v for k, v in dataclasses.asdict(MethodParameters()).items() if k != name}
        assert others == defaults


@pytest.mark.parametrize(("name", "value"), WRONG_KIND)
@pytest.mark.parametrize("make", ["from_mapping", "replace"])
def test_wrong_kind(name, value, make):
    with pytest.raises(ParametersError) as caught:
        WAYS[make]({name: value})
    assert name in str(caught.value)


def test_unknown_choices_are_refused_by_the_constructor_too():
    accepted = []
    for name in CHOICES:
        try:
            MethodParameters(**{name: "nonsense"})
        except ParametersError as error:
            assert name in str(error)  # noqa: PT017 - all of them are tried
        else:
            accepted.append(name)
    assert accepted == []


def test_every_field_is_covered_here():
    names = {field.name for field in dataclasses.fields(MethodParameters)}
    assert {name for name, _ in OUT_OF_RANGE} | set(CHOICES) == names
    assert {name for name, _ in IN_RANGE} == names


def test_unknown_names_are_all_named():
    with pytest.raises(ParametersError) as caught:
        MethodParameters.from_mapping({"zeta": 1, "alpha": 2, "box": "union"})
    assert "alpha, zeta" in caught.value.cause
    assert "box" not in caught.value.cause
    assert "extreme_threshold" in caught.value.remedy
    with pytest.raises(ParametersError, match="treshold"):
        MethodParameters().replace(treshold=0.3)
    with pytest.raises(TypeError):
        MethodParameters(treshold=0.3)


def test_replace_keeps_the_rest_and_the_original():
    first = MethodParameters(positive_points=7, box="per_component")
    second = first.replace(box="union", fusion_weight=0.25)
    assert first == MethodParameters(positive_points=7, box="per_component")
    assert second == MethodParameters(positive_points=7, box="union", fusion_weight=0.25)


def test_from_mapping_round_trip():
    parameters = MethodParameters(extreme_threshold=0.3, point_spacing="euclidean")
    assert MethodParameters.from_mapping(dataclasses.asdict(parameters)) == parameters
    assert MethodParameters.from_mapping({}) == MethodParameters()


def test_parameters_are_frozen_keyword_only_and_hashable():
    parameters = MethodParameters()
    with pytest.raises(dataclasses.FrozenInstanceError):
        parameters.positive_points = 5
    with pytest.raises(TypeError):
        MethodParameters(0.5)
    assert len({parameters, MethodParameters(), parameters.replace(box="per_component")}) == 2


def test_the_digest_names_the_values_and_not_their_spelling():
    digest = MethodParameters().digest
    assert len(digest) == 64
    assert MethodParameters.from_mapping({"min_contrast": 0.04}).digest == digest
    assert (
        MethodParameters(decision_threshold=1).digest
        == MethodParameters(decision_threshold=1.0).digest
    )
    changed = {MethodParameters().replace(**{name: value}).digest for name, value in IN_RANGE}
    distinct = {MethodParameters().replace(**{name: value}) for name, value in IN_RANGE}
    assert len(changed) == len(distinct)
