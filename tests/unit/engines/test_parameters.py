import dataclasses
import hashlib

import msgspec
import pytest

from zeroflaw_engines.bundle.manifest import parameters_record
from zeroflaw_engines.errors import ParametersError, ZeroflawError
from zeroflaw_engines.parameters import PARAMETERS_OF_REFINER, MethodParameters

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
    *[("mmr_threshold", v) for v in (0.0, 1.0, -0.1, 1.1, NAN, INF, 0, 1)],
    *[("mmr_points", v) for v in (0, 21, -1)],
    *[("mmr_seed", v) for v in (-1, 2**32)],
    *[("mmr_weight", v) for v in (-0.1, 1.1, NAN, INF)],
    *[("proposal_score", v) for v in (-1e-9, 1.0000001, NAN)],
    *[("proposal_area", v) for v in (0, 0.0, 1.0000001, NAN)],
    *[("proposal_masks", v) for v in (0, 101)],
    *[("saliency_neighbours", v) for v in (0, -1)],
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
    *[("refiner", v) for v in ("cascade", "mmr", "box_proposals", "none")],
    *[("mmr_threshold", v) for v in (1e-9, 0.47, 0.999999)],
    *[("mmr_points", v) for v in (1, 5, 20)],
    *[("mmr_seed", v) for v in (0, 1, 2**32 - 1)],
    *[("mmr_mask", v) for v in ("best", "vote")],
    *[("mmr_weight", v) for v in (0, 1 / 3, 1.0)],
    *[("mmr_normalisation", v) for v in ("fixed", "per_image")],
    *[("proposal_score", v) for v in (0, 0.1, 1.0)],
    *[("proposal_area", v) for v in (1e-9, 0.5, 1)],
    *[("proposal_masks", v) for v in (1, 5, 100)],
    *[("proposal_saliency", v) for v in ("anomaly_map", "patch_tokens", "none")],
    *[("saliency_neighbours", v) for v in (1, 400, 10**6)],
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
    "refiner",
    "mmr_mask",
    "mmr_normalisation",
    "proposal_saliency",
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
    ("mmr_points", 2.5),
    ("mmr_seed", "0"),
    ("mmr_weight", "1"),
    ("proposal_area", "0.5"),
]


def with_its_refiner(name, value):
    """A parameter, and the refiner that alone reads it."""
    for refiner, names in PARAMETERS_OF_REFINER.items():
        if name in names:
            return {"refiner": refiner, name: value}
    return {name: value}


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
        "mmr_weight": 1.0,
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
        given = with_its_refiner(name, value)
        made = way(given)
        assert getattr(made, name) == value
        defaults = dataclasses.asdict(MethodParameters())
        others = {k: v for k, v in dataclasses.asdict(made).items() if k not in given}
        defaults = {k: v for k, v in defaults.items() if k not in given}
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
    distinct = {MethodParameters().replace(**with_its_refiner(*one)) for one in IN_RANGE}
    assert len({parameters.digest for parameters in distinct}) == len(distinct)


# Of the version before there was a choice of refiners: 26 parameters.
DIGEST = "f9b89fd227d426fea6c920c61641f38e086c43a91a90d62d9c260520a63f5a6d"
OTHER_DIGEST = "716fd1a079985a6bc7ce9b0e9a79a41297c7b16ac43ed02419c35f60c6ee1fc2"


def test_with_the_cascade_digest_and_record_are_as_before_there_were_refiners():
    assert MethodParameters().digest == DIGEST
    other = MethodParameters(extreme_threshold=0.4, box="per_component", decision_threshold=1)
    assert other.digest == OTHER_DIGEST
    # What manifests recorded: these, in this order.
    text = msgspec.json.encode(parameters_record(MethodParameters()))
    assert hashlib.sha256(text).hexdigest() == (
        "81d07da032a276d3e7ff96f9515af7320cb4fd86d3a9cfcc68ea8bea002e3e74"
    )
    assert list(MethodParameters().relevant)[-1] == "contradiction_area"
    assert len(MethodParameters().relevant) == 26


@pytest.mark.parametrize("refiner", ["cascade", "mmr", "box_proposals", "none"])
def test_what_one_refiner_reads_is_refused_with_another(refiner):
    own = PARAMETERS_OF_REFINER.get(refiner, ())
    given = {
        "mmr_threshold": 0.4,
        "mmr_points": 6,
        "mmr_seed": 1,
        "mmr_mask": "vote",
        "mmr_weight": 0.5,
        "mmr_normalisation": "per_image",
        "proposal_score": 0.2,
        "proposal_area": 0.1,
        "proposal_masks": 1,
        "proposal_saliency": "none",
        "saliency_neighbours": 3,
    }
    assert given.keys() == {name for names in PARAMETERS_OF_REFINER.values() for name in names}
    for name, value in given.items():
        if name in own:
            made = MethodParameters(refiner=refiner, **{name: value})
            assert made.relevant[name] == value
            assert made.relevant["refiner"] == refiner
            # Another refiner takes it no more, and the first one its default again.
            assert made.replace(refiner="none") == MethodParameters(refiner="none")
            continue
        with pytest.raises(ParametersError, match=name) as caught:
            MethodParameters(refiner=refiner, **{name: value})
        assert refiner in caught.value.cause
        assert f"set refiner to {with_its_refiner(name, value)['refiner']}" in caught.value.remedy
    assert set(MethodParameters(refiner=refiner).relevant) & given.keys() == set(own)
