"""An encoder's runs on the images that it is checked with: each alone, and all in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from zeroflaw_engines.sessions.batches import stacked, taken_apart
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.session import Outputs, Session

_Kind = TypeVar("_Kind")


def encoder_runs(
    session: Session, images: Mapping[_Kind, Mapping[str, Tensor | DeviceTensor]]
) -> dict[_Kind, list[Outputs]]:
    """Run an encoder on each image alone, and on all in one call where it takes several.

    Args:
        images: The inputs of each, in the form of one image.

    Returns:
        The outputs of each, of every run, in the same form.
    """
    contract, kinds = session.contract, list(images)
    calls = [[kind] for kind in kinds]
    if contract.max_batch >= len(kinds) > 1:
        # Backwards, so that no image has the place that it has where each is taken for the first.
        calls.append(kinds[::-1])
    runs: dict[_Kind, list[Outputs]] = {kind: [] for kind in kinds}
    for call in calls:
        outputs = session.execute(stacked(contract, [images[kind] for kind in call]))
        for kind, part in zip(call, taken_apart(contract, outputs, len(call)), strict=True):
            runs[kind].append(part)
    return runs
