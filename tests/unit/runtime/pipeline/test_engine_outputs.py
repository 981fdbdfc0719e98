"""Outputs of engines, where they enter the runtime."""

import numpy as np
import pytest

from zeroflaw.pipeline.engine_outputs import clip_outputs, require_alive, require_finite, run_engine
from zeroflaw_engines.contract import EngineContract, TensorSpec
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.device_tensor import HostTensor

BAD = [np.nan, np.inf, -np.inf]


def clip(anomaly_map=None, score=0.3):
    if anomaly_map is None:
        anomaly_map = np.linspace(0, 1, 36, dtype=np.float32).reshape(1, 6, 6)
    return clip_outputs({"anomaly_map": anomaly_map, "image_score": np.array([score], np.float32)})


def with_one(value):
    anomaly_map = np.linspace(0, 1, 36, dtype=np.float32).reshape(1, 6, 6)
    anomaly_map[0, 2, 3] = value
    return anomaly_map


def test_probabilities_pass_as_they_are():
    anomaly_map = with_one(0.5)
    found, score = clip(anomaly_map)
    assert np.shares_memory(found, anomaly_map)
    assert score == np.float32(0.3)


@pytest.mark.parametrize("value", [*BAD, -0.1, 1.1, -1e30, 1e30])
def test_what_is_not_a_probability_is_refused(value):
    with pytest.raises(EngineError, match=r"clip_encoder returned .*anomaly_map") as error:
        clip(with_one(value))
    assert "bundle verify" in error.value.remedy
    with pytest.raises(EngineError, match="image_score"):
        clip(score=value)


@pytest.mark.parametrize(("value", "wanted"), [(-1e-4, 0.0), (1.0001, 1.0), (1 + 1e-7, 1.0)])
def test_what_rounding_carried_past_the_ends_is_set_to_them(value, wanted):
    found, score = clip(with_one(value), score=value if wanted else 0.3)
    assert found[2, 3] == wanted
    assert 0 <= found.min() <= found.max() <= 1
    assert 0 < score <= 1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_memory_that_no_kernel_wrote_is_refused(value):
    with pytest.raises(EngineError, match="everywhere"):
        clip(np.full((1, 6, 6), value, np.float32))
    with pytest.raises(EngineError, match="exactly 0"):
        clip(score=0.0)
    nearly = np.full((1, 6, 6), value, np.float32)
    nearly[0, 1, 1] = 0.25
    assert clip(nearly)[0][1, 1] == 0.25


@pytest.mark.parametrize("order", ["C", "strided"])
@pytest.mark.parametrize("value", BAD)
def test_one_value_that_is_not_finite_is_found_anywhere(value, order):
    values = np.random.default_rng(0).normal(size=(3, 40, 50)).astype(np.float32)
    values = values if order == "C" else values[:, ::2, 1:]
    require_finite("sam_encoder", "features", values)
    for place in (0, values.size // 2, values.size - 1):
        tampered = values.copy() if order == "C" else np.array(values)[:, ::1]
        tampered.flat[place] = value
        with pytest.raises(EngineError, match=f"1 of {values.size} values of features"):
            require_finite("sam_encoder", "features", tampered)


def test_large_values_are_finite():
    require_finite("sam_decoder", "low_res_logits", np.full((4, 9), 3e38, np.float32))


def test_equal_corners_do_not_make_a_dead_output():
    values = np.ones((5, 5), np.float32)
    values[0, 1] = 2
    require_alive("sam_encoder", "features", values)
    with pytest.raises(EngineError, match="1 everywhere"):
        require_alive("sam_encoder", "features", np.ones((5, 5), np.float32))


class Engine:
    contract = EngineContract(
        "clip_encoder",
        (TensorSpec("image", "uint8", ("batch", 2)),),
        (TensorSpec("anomaly_map", "float32", ("batch", 3)),),
    )

    def __init__(self, output):
        self.output = output

    def execute(self, inputs, *, keep=()):
        return self.output


INPUTS = {"image": np.zeros((2, 2), np.uint8)}


@pytest.mark.parametrize("wrap", [lambda array: array, HostTensor])
def test_outputs_of_the_contract_pass(wrap):
    values = wrap(np.zeros((2, 3), np.float32))
    assert run_engine(Engine({"anomaly_map": values}), INPUTS)["anomaly_map"] is values


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ({}, "nothing"),
        ({"anomaly_map": np.zeros((1, 3), np.float32)}, r"float32\[1, 3\]"),
        ({"anomaly_map": np.zeros((2, 3, 1), np.float32)}, r"float32\[2, 3, 1\]"),
        ({"anomaly_map": np.zeros((2, 3))}, r"float64\[2, 3\]"),
        ({"anomaly_map": np.zeros((2, 3), ">f4")}, r">f4\[2, 3\]"),
        ({"anomaly_map": HostTensor(np.zeros((2, 3), np.float16))}, r"float16\[2, 3\]"),
    ],
)
def test_outputs_of_another_contract_are_refused(output, found):
    with pytest.raises(EngineError, match=f"returned {found} for anomaly_map: float32"):
        run_engine(Engine(output), INPUTS)
