"""Engines that cost nothing: they replay outputs of full size for a frame with one defect.

What an Inspector spends with them is host time and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from zeroflaw.inspector import Inspector
from zeroflaw.pipeline.geometry import geometry_of, resized_for_encoders
from zeroflaw.sessions import Sessions
from zeroflaw_benchmarks.bench.report.report import HostMask, HostPath
from zeroflaw_benchmarks.passive_session import PassiveSession
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import Manifest, parameters_record
from zeroflaw_engines.bundle.prompt_bank import encode_prompt_bank
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME
from zeroflaw_engines.contract import (
    FRAME_RESIZER,
    EngineContract,
    EngineName,
    EngineSizes,
    engine_contract,
)
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, HostTensor, Tensor
from zeroflaw_engines.sessions.session import Outputs, check_inputs

_DEFECT = (0.55, 0.45, 0.08)  # centre x and y, radius, as parts of the frame's longer side
_PROMPTS = "prompts.safetensors"


@dataclass(frozen=True, eq=False)
class ReplayedDeviceTensor(HostTensor):
    """A kept output as on a GPU: it has to be asked for, and only parts of it are, at no cost."""

    @property
    def is_on_host(self) -> bool:
        """False: on a GPU it would not be."""
        return False

    def view(self, index: tuple[int, ...], shape: tuple[int, ...]) -> ReplayedDeviceTensor:
        """Return the part at some leading indices."""
        return ReplayedDeviceTensor(super().view(index, shape).array)


class ReplayedSession(PassiveSession):
    """A session that checks its inputs and returns the same outputs every time.

    Args:
        outputs: All that the contract says.
        path: Whose sessions it stands for: on the GPU's, what is kept is no memory of the host.
    """

    def __init__(
        self, contract: EngineContract, outputs: dict[str, Tensor], path: HostPath = "cpu"
    ) -> None:
        super().__init__(contract, "replay")
        self._outputs = outputs
        self._kept = HostTensor if path == "cpu" else ReplayedDeviceTensor

    def execute(
        self, inputs: Mapping[str, Tensor | DeviceTensor], *, keep: Collection[str] = ()
    ) -> Outputs:
        """Return the recorded outputs."""
        check_inputs(self.contract, inputs, kept=HostTensor)
        return {
            name: self._kept(array) if name in keep else array
            for name, array in self._outputs.items()
        }


class ReplayedResizer(PassiveSession):
    """A frame_resizer that gives the images of its first frame at once, as the host makes them.

    A frame is uploaded by a copy to memory that is there already, as a GPU's driver reads it: what
    it takes to get from there to the device is no host time.
    """

    def __init__(self, sizes: EngineSizes) -> None:
        super().__init__(engine_contract(FRAME_RESIZER, sizes), "replay")
        self._sizes = sizes
        self._images: dict[tuple[int, int], Tensor] = {}
        self._pinned = np.empty(0, np.uint8)

    def upload(self, name: str, array: Tensor) -> Tensor | DeviceTensor:
        """Copy a frame; weights stay where they are, of which there are none to copy later."""
        if name != "frame":
            return HostTensor(array)
        if self._pinned.shape != array.shape:
            self._pinned = np.zeros_like(array)
            frame = (array.shape[0], array.shape[1])
            geometry = geometry_of(frame, self._sizes, MethodParameters())
            images = resized_for_encoders(array, geometry)
            self._images = {(len(image), len(image)): image[None] for image in images}
        np.copyto(self._pinned, array)
        return HostTensor(self._pinned)

    def execute(
        self, inputs: Mapping[str, Tensor | DeviceTensor], *, keep: Collection[str] = ()
    ) -> Outputs:
        """Return the image of the size that the weights say; of one halfway, a black one."""
        check_inputs(self.contract, inputs, kept=HostTensor)
        size = (inputs["row_weights"].shape[1], inputs["column_weights"].shape[1])
        if size not in self._images:
            self._images[size] = np.zeros((1, *size, 3), np.uint8)
        image = self._images[size]
        return {"image": HostTensor(image) if "image" in keep else image}


def replaying_inspector(
    frame: tuple[int, int], directory: Path, *, path: HostPath = "cpu", shows: HostMask = "defect"
) -> Inspector:
    """Make an Inspector without networks, of sizes as ViT-L/14 at 518 px and SAM at 1024 px.

    Args:
        frame: Height and width of the frames, px.
        directory: An empty directory for the prompt bank.
        path: `gpu` resizes by a `frame_resizer`, and keeps logits and features as a GPU does.
        shows: What the decoder's masks show: one `defect`, or the `specks` of random logits.
    """
    manifest = _full_size_manifest()
    embeddings = np.eye(2, manifest.clip.embedding_size, dtype=np.float32)
    (directory / _PROMPTS).write_bytes(encode_prompt_bank({"object": embeddings}))

    def session(name: EngineName, **outputs: Tensor) -> ReplayedSession:
        return ReplayedSession(engine_contract(name, manifest.sizes), outputs, path)

    rng = np.random.default_rng(0)
    sizes = manifest.sizes
    cells, channels = sizes.sam_feature_size, sizes.sam_feature_channels
    content = max(frame)
    side, low = sizes.clip_image_size, sizes.low_res_size
    squashed = _blob((side, side), (side * content / frame[0], side * content / frame[1]))
    logits = 20 * _blob((low, low), (low, low)) - 10
    if shows == "specks":
        logits = rng.standard_normal((low, low))
    sessions = Sessions(
        clip_encoder=session(
            "clip_encoder",
            anomaly_map=np.clip(squashed, 0, 1)[None].astype(np.float32),
            image_score=np.array([0.9], np.float32),
        ),
        sam_encoder=session(
            "sam_encoder",
            features=rng.standard_normal((1, channels, cells, cells), np.float32),
        ),
        sam_decoder=session(
            "sam_decoder",
            low_res_logits=np.tile(logits.astype(np.float32), (1, 4, 1, 1)),
            predicted_iou=np.array([[0.7, 0.8, 0.9, 0.6]], np.float32),
        ),
        frame_resizer=None if path == "cpu" else ReplayedResizer(manifest.sizes),
    )
    return Inspector(Bundle(path=directory, manifest=manifest), sessions)


def _blob(size: tuple[int, int], scale: tuple[float, float]) -> NDArray[np.float64]:
    """A smooth disc: 1 in its middle, 0.5 on its edge, 0 far away."""
    x, y, radius = _DEFECT
    rows = (np.arange(size[0]) + 0.5)[:, None] / scale[0]
    columns = (np.arange(size[1]) + 0.5)[None, :] / scale[1]
    distance = np.hypot(columns - x, rows - y * 0.75) / radius
    blob: NDArray[np.float64] = 1 / (1 + distance**8)
    return blob


def _full_size_manifest() -> Manifest:
    """The manifest of the shipped bundle with the sizes of the full models."""
    shipped = open_bundle(SHIPPED_NAME, verify_digests=False).manifest
    return replace(
        shipped,
        clip=replace(shipped.clip, image_size=518, embedding_size=768),
        sam=None
        if shipped.sam is None
        else replace(shipped.sam, image_size=1024, feature_size=64, feature_channels=256),
        engines={},
        prompts=_PROMPTS,
        products={"object": shipped.products["object"]},
        reference=None,
        parameters=parameters_record(MethodParameters()),
        files={},
    )
