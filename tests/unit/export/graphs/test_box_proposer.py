"""A proposal graph that the user brings: taken as it is, or refused with what is wanted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.small_graphs import cell_boxes, write_proposal_graph
from zeroflaw_engines.contract import ProposalSizes, box_proposer_contract
from zeroflaw_engines.errors import ExportError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
from zeroflaw_export.graphs.box_proposer import adopt_box_proposer

MANY = cell_boxes(16)  # more than a kilobyte, so that they lie in a file of their own


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    (tmp_path / "staging").mkdir()
    return tmp_path / "staging"


def test_a_graph_is_taken_as_it_is(tmp_path: Path, staging: Path) -> None:
    graph = write_proposal_graph(tmp_path / "detector.onnx")
    adopted = adopt_box_proposer(graph, staging)
    assert adopted.sizes == ProposalSizes(image_size=32, boxes=16)
    assert (staging / adopted.engine.onnx).read_bytes() == graph.read_bytes()
    assert adopted.engine.weights is None
    assert adopted.engine.opset == 17
    assert adopted.identity.weights.name == "detector.onnx"
    assert adopted.identity.weights.sha256 == sha256_of_file(graph)
    assert [path.name for path in staging.iterdir()] == ["box_proposer.onnx"]


def test_its_weights_come_from_beside_it(tmp_path: Path, staging: Path) -> None:
    graph = write_proposal_graph(tmp_path / "detector.onnx", boxes=MANY, external=True)
    assert (tmp_path / "detector.bin").stat().st_size > MANY.nbytes
    adopted = adopt_box_proposer(graph, staging)
    assert adopted.engine.weights == "box_proposer.onnx.data"
    for path in tmp_path.glob("detector.*"):
        path.unlink()
    session = OnnxRuntimeSession(
        staging / adopted.engine.onnx, box_proposer_contract(adopted.sizes)
    )
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 2:4, 4:6] = 255
    got = session.execute({"image": image})
    session.close()
    np.testing.assert_array_equal(got["boxes"][0], MANY)
    assert got["boxes"][0, got["scores"][0].argmax()].tolist() == [2 / 16, 1 / 16, 3 / 16, 2 / 16]


def with_shape(graph: Path, name: str, shape: list[int | str]) -> Path:
    """Give a tensor of the graph another shape."""
    model = onnx.load(graph)
    for value in (*model.graph.input, *model.graph.output):
        if value.name == name:
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(name, kind, shape))
    onnx.save(model, graph)
    return graph


@pytest.mark.parametrize("renamed", [{"image": "frames"}, {"boxes": "b"}, {"scores": "logits"}])
def test_other_tensors_are_refused_with_what_is_wanted(
    renamed: dict[str, str], tmp_path: Path, staging: Path
) -> None:
    graph = write_proposal_graph(tmp_path / "detector.onnx", renamed=renamed)
    refusal = refused(graph, staging)
    (name,) = renamed.values()
    assert f"{name}: " in refusal.cause
    assert "wanted is image: uint8[1, P, P, 3] -> boxes: float32[1, N, 4]" in refusal.cause
    assert "docs/bundle.md" in refusal.remedy


def test_sizes_must_be_fixed(tmp_path: Path, staging: Path) -> None:
    graph = write_proposal_graph(tmp_path / "detector.onnx")
    assert (
        "image: uint8[1, side, side, 3]"
        in refused(with_shape(graph, "image", [1, "side", "side", 3]), staging).cause
    )
    assert (
        "image: uint8[batch, 32, 32, 3]"
        in refused(with_shape(graph, "image", ["batch", 32, 32, 3]), staging).cause
    )


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"scale": 0.1}, "outside [0, 1]"),
        ({"scale": float("nan")}, "not finite"),
        ({"boxes": cell_boxes() * 640}, "boxes from 0 to 640"),
        ({"boxes": cell_boxes()[:, [2, 3, 0, 1]]}, "x1 < x0"),
        ({"boxes": np.zeros((16, 4))}, "0 everywhere"),
    ],
)
def test_what_gives_no_boxes_is_refused(
    given: dict[str, object], fault: str, tmp_path: Path, staging: Path
) -> None:
    graph = write_proposal_graph(tmp_path / "detector.onnx", **given)  # type: ignore[arg-type]
    refusal = refused(graph, staging)
    assert fault in refusal.cause
    assert "on the real image" in refusal.cause


def test_what_cannot_be_read_is_refused(tmp_path: Path, staging: Path) -> None:
    assert "not a file" in refused(tmp_path / "none.onnx", staging).cause
    (tmp_path / "text.onnx").write_text("no graph")
    assert "cannot be read" in refused(tmp_path / "text.onnx", staging).cause
    graph = write_proposal_graph(tmp_path / "detector.onnx", boxes=MANY, external=True)
    (tmp_path / "detector.bin").unlink()
    assert "detector.bin" in refused(graph, staging).cause


def test_what_does_not_run_is_refused(tmp_path: Path, staging: Path) -> None:
    graph = write_proposal_graph(tmp_path / "detector.onnx")
    model = onnx.load(graph)
    model.graph.node[0].domain = "acme"
    model.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    onnx.save(model, graph)
    assert "on loading" in refused(graph, staging).cause


def refused(graph: Path, staging: Path) -> ExportError:
    with pytest.raises(ExportError) as caught:
        adopt_box_proposer(graph, staging)
    assert graph.name in caught.value.cause
    return caught.value


def test_the_manual_wraps_a_detector(
    tmp_path: Path, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/bundle.md, run on a detector of one convolution."""
    manual = Path(__file__).parents[4] / "docs" / "bundle.md"
    section = manual.read_text("utf-8").split("## A proposal graph")[1]
    (example,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    rng = np.random.default_rng(3)
    side, rows, classes = 16, 16, 3
    constants = {
        "kernel": rng.normal(size=(classes, 3, 4, 4)).astype(np.float32) / 8,
        "by_row": np.array([1, rows, classes]),
        "given": rng.uniform(0.1, 0.9, (1, rows, 4)).astype(np.float32),
    }
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "kernel"], ["cells"], strides=[4, 4]),
            onnx.helper.make_node("Transpose", ["cells"], ["last"], perm=[0, 2, 3, 1]),
            onnx.helper.make_node("Reshape", ["last", "by_row"], ["pred_logits"]),
            onnx.helper.make_node("Identity", ["given"], ["pred_boxes"]),
        ],
        "detector",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, side, side])],
        [
            onnx.helper.make_tensor_value_info(
                "pred_logits", onnx.TensorProto.FLOAT, [1, rows, classes]
            ),
            onnx.helper.make_tensor_value_info("pred_boxes", onnx.TensorProto.FLOAT, [1, rows, 4]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8),
        tmp_path / "detector.onnx",
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(manual), "exec"), {})  # noqa: S102 - it is our own
    adopted = adopt_box_proposer(tmp_path / "proposals.onnx", staging)
    assert adopted.sizes == ProposalSizes(image_size=side, boxes=rows)
    session = OnnxRuntimeSession(
        staging / adopted.engine.onnx, box_proposer_contract(adopted.sizes)
    )
    image = rng.integers(0, 256, (1, side, side, 3), np.uint8)
    got = session.execute({"image": image})
    session.close()
    normalised = (image[0] - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    cells = normalised.reshape(4, 4, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(rows, 4, 4, 3)
    logits = np.einsum("nhwc,kchw->nk", cells, constants["kernel"])
    np.testing.assert_allclose(got["scores"][0], (1 / (1 + np.exp(-logits))).max(1), atol=1e-5)
    cx, cy, w, h = constants["given"][0].T
    corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1).clip(0, 1)
    np.testing.assert_allclose(got["boxes"][0], corners, atol=1e-6)
