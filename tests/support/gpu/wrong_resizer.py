"""A frame_resizer whose kernels are wrong."""

from __future__ import annotations

from typing import Any

from zeroflaw_engines.sessions.device_tensor import on_host
from zeroflaw_engines.sessions.session import Outputs, Session


class WrongResizer:
    """A session of `frame_resizer` that changes one value of every image of one side.

    Attributes:
        wrong: Whether it does so now.
    """

    def __init__(self, session: Session, side: int) -> None:
        self._session, self._side = session, side
        self.wrong = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def execute(self, inputs: Any, *, keep: Any = ()) -> Outputs:
        out = self._session.execute(inputs, keep=keep)
        if not self.wrong or out["image"].shape[1] != self._side:
            return out
        image = on_host(out["image"]).copy()
        image[0, 7, 5, 1] ^= 1
        return {"image": image}
