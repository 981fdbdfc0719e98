"""Several images in one call of an encoder.

Every caller speaks of images one by one, in the form of an encoder that takes one: `image`
[1, S, S, 3], `image_size` [2]; `features` [1, C, G, G], `patch_tokens` [blocks, tokens, width].
Here they are joined to what a session takes, and its outputs taken apart again. Where the contract
is that of one image, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from zeroflaw_engines.contract import (
    IMAGES,
    PATCH_TOKENS,
    TEXT_EMBEDDINGS,
    EngineContract,
    TensorSpec,
)
from zeroflaw_engines.errors import EngineContractError
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor, on_host
from zeroflaw_engines.sessions.session import Outputs


def stacked(
    contract: EngineContract, images: Sequence[Mapping[str, Tensor | DeviceTensor]]
) -> dict[str, Tensor | DeviceTensor]:
    """Join the inputs of several images to those of one call.

    Args:
        contract: Of an encoder.
        images: The inputs of each image, at least one; those that the contract has once, as
            `text_embeddings`, are taken from the first.

    Raises:
        EngineContractError: There are several, and the encoder takes one; or there is none.
    """
    if not images or len(images) > contract.max_batch:
        raise EngineContractError(
            f"{contract.name} takes 1 to {contract.max_batch} images in one call, not"
            f" {len(images)}",
            "give fewer at once, or export and build the bundle with a larger --max-batch",
        )
    batched = {spec.name for spec in contract.inputs if IMAGES in spec.shape}
    return {
        name: _joined(name, [image[name] for image in images]) if name in batched else value
        for name, value in images[0].items()
    }


def taken_apart(contract: EngineContract, outputs: Mapping[str, Any], count: int) -> list[Outputs]:
    """Take the outputs of one call apart: those of each image.

    Args:
        contract: Of an encoder.
        outputs: Arrays and kept tensors, as its session returned them; the parts share their
            memory.
        count: Images of the call.
    """
    if not any(IMAGES in spec.shape for spec in contract.outputs):
        return [dict(outputs)]
    return [
        {spec.name: _part(spec, outputs[spec.name], index) for spec in contract.outputs}
        for index in range(count)
    ]


def _joined(name: str, values: Sequence[Tensor | DeviceTensor]) -> Tensor | DeviceTensor:
    if name == "image_size":
        return np.stack([on_host(value) for value in values])
    # That of one image stays where it is, which may be a device.
    return values[0] if len(values) == 1 else np.concatenate([on_host(v) for v in values])


def _part(spec: TensorSpec, whole: Any, index: int) -> Any:  # noqa: ANN401 - an array or a kept tensor
    one = () if spec.name == PATCH_TOKENS else (1,)
    shape = (*one, *whole.shape[1:])
    if isinstance(whole, np.ndarray):
        return whole[index].reshape(shape)
    return whole.view((index,), shape)


@overload
def clip_encoder_inputs(
    contract: EngineContract, image: Tensor, text_embeddings: Tensor
) -> dict[str, Tensor]: ...


@overload
def clip_encoder_inputs(
    contract: EngineContract, image: Tensor | DeviceTensor, text_embeddings: Tensor
) -> dict[str, Tensor | DeviceTensor]: ...


def clip_encoder_inputs(
    contract: EngineContract, image: Any, text_embeddings: Tensor
) -> dict[str, Any]:
    """Return what the CLIP encoder takes, by name: texts only where its localizer reads them.

    Args:
        contract: Of the encoder.
        image: uint8 [1, S, S, 3].
        text_embeddings: float32 [2, embedding_size].
    """
    takes_texts = any(spec.name == TEXT_EMBEDDINGS for spec in contract.inputs)
    texts = {TEXT_EMBEDDINGS: text_embeddings} if takes_texts else {}
    return {"image": image, **texts}
