"""MMR on exported engines beside segment_anything's own SamPredictor, with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from zeroflaw import Inspector
from zeroflaw_benchmarks.reference.reference_models import reference_sam
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.parameters import MethodParameters


@pytest.mark.parametrize(("frame_size", "choice"), [((150, 200), "best"), ((210, 90), "vote")])
def test_mask_and_scores_are_those_of_the_predictor(
    tiny_bundle: Bundle, frame_size: tuple[int, int], choice: str
) -> None:
    frame = np.random.default_rng(5).integers(0, 256, (*frame_size, 3), np.uint8)
    with Inspector.load(tiny_bundle.path, parameters=MethodParameters(refiner="none")) as alone:
        anomaly_map = alone.inspect(frame, product="object").anomaly_map
    threshold = float(np.quantile(anomaly_map, 0.97))
    parameters = MethodParameters(refiner="mmr", mmr_threshold=threshold, mmr_mask=choice)
    with Inspector.load(tiny_bundle.path, parameters=parameters) as inspector:
        found = inspector.inspect(frame, product="object", trace=True)
    np.testing.assert_allclose(found.anomaly_map, anomaly_map, atol=1e-6)
    (stage,) = found.trace.stages
    points = found.trace.points
    assert len(stage.boxes) > 1
    assert len(points.coords) == 5
    assert (points.labels == 1).all()

    predictor = SamPredictor(reference_sam(tiny_bundle))
    predictor.set_image(frame)
    boxes = torch.tensor(stage.boxes, dtype=torch.float32)
    coords = torch.from_numpy(predictor.transform.apply_coords(points.coords, frame_size))
    logits, scores, low_res = predictor.predict_torch(
        point_coords=coords.float().expand(len(boxes), -1, -1),
        point_labels=torch.ones(len(boxes), 5, dtype=torch.int),
        boxes=predictor.transform.apply_boxes_torch(boxes, frame_size),
        multimask_output=True,
        return_logits=True,
    )
    np.testing.assert_allclose(stage.predicted_iou[:, 1:], scores.numpy(), atol=1e-4)
    best = scores.argmax(dim=1)
    assert stage.chosen == tuple((1 + best).tolist())

    # Where a logit is as good as zero, rounding decides.
    masks = logits > 0
    near = (logits.abs() < 1e-4).flatten(0, 1).any(dim=0)
    weights = scores.clamp(0, 1)
    if choice == "best":
        mask = masks[torch.arange(len(boxes)), best].any(dim=0)
    else:
        votes = (weights[..., None, None] * masks).sum(dim=1)
        mask = (votes > weights.sum(dim=1)[:, None, None] / 2).any(dim=0)
    assert near.float().mean() < 0.05
    np.testing.assert_array_equal(found.mask[~near.numpy()], mask[~near].numpy())
    assert found.mask.any()
    assert not found.mask.all()

    # Eq. 9, on the grid of the map.
    sam = predictor.model
    on_map = sam.postprocess_masks(low_res, predictor.input_size, anomaly_map.shape)
    total = (weights[..., None, None] * (on_map > 0)).sum(dim=(0, 1)).numpy() + anomaly_map
    sure = ~(on_map.abs() < 1e-4).flatten(0, 1).any(dim=0).numpy()
    assert sure.mean() > 0.9
    np.testing.assert_allclose(found.score_map[sure], np.minimum(total / 4, 1)[sure], atol=1e-4)
    assert len(np.unique(found.score_map)) > 100
