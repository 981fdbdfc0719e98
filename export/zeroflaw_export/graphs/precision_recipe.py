"""The FP16 recipe: what of an engine stays in FP32, as data.

Everything that no island claims is FP16. One recipe serves TensorRT 10, TensorRT 11 and
TensorRT-RTX: a strongly typed network does what the graph says and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final, Literal

# How far an island reaches from the nodes that it is named by:
#   node:        these nodes alone
#   sums:        also the additions that feed them, across operators that only move data
#   stream:      the sums that they read, to their end, the convolutions that are added to them, and
#                the products that read either
#   ancestors:   everything that they are computed from
#   descendants: everything that is computed from them
#   readers:     not these nodes but the matrix products that read them
#   trunk:       also the products before and after them, and the sums of these
#   entry:       what is computed from the engine's inputs before the first weighted operator
#   exit:        what the engine's outputs are computed by, back to the last product or sum of two
Reach = Literal[
    "node", "sums", "stream", "ancestors", "descendants", "readers", "trunk", "entry", "exit"
]


@dataclass(frozen=True)
class Island:
    """Nodes that stay in FP32.

    Attributes:
        name: What it is.
        operators: ONNX operators that it starts from; none for `entry` and `exit`.
        reach: How far it goes from there.
        reason: What FP16 would do to it.
        rounded: Whether what it reads is rounded to FP16 first. TensorRT takes that for an FP16
            product whose sums are FP32, as tensor cores do it.
    """

    name: str
    operators: tuple[str, ...]
    reach: Reach
    reason: str
    rounded: bool = False


@dataclass(frozen=True)
class PrecisionRecipe:
    """Which nodes of an engine are FP32; all others are FP16.

    Attributes:
        name: Short name.
        islands: What stays in FP32.
        head_multiple: Heads of `Attention` are padded with zeros to a multiple of this, and
            values to the width of queries and keys: what TensorRT's fused attention takes.
    """

    name: str
    islands: tuple[Island, ...]
    head_multiple: int = 8

    @property
    def id(self) -> str:
        """Name and digest of the content: equal for equal recipes."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return f"{self.name}-{hashlib.sha256(content).hexdigest()[:8]}"


FP16_RECIPE: Final = PrecisionRecipe(
    name="fp16",
    islands=(
        Island(
            "norms and the residual stream",
            ("LayerNormalization",),
            "sums",
            "squares of deviations pass 65504 where a deviation passes 256, and the stream sums "
            "the outputs of every block: it alone grows with depth, and rounding adds up in it",
        ),
        Island(
            "what reads the stream without a norm",
            ("LayerNormalization",),
            "stream",
            "the neck and the adapters take the stream as it is, however large",
        ),
        Island(
            "fused attention",
            ("Attention",),
            "node",
            "left to itself the kernel sums scores and values in FP16, which 4096 keys overflow",
            rounded=True,
        ),
        Island(
            "softmax",
            ("Softmax",),
            "sums",
            "the sum of many small exponentials loses them; scores may carry a mask of -1e4",
        ),
        Island(
            "what a softmax weighs",
            ("Softmax",),
            "readers",
            "as in fused attention, of which this is the second half",
            rounded=True,
        ),
        Island(
            "convolutions between clipped activations",
            ("Clip",),
            "trunk",
            "a convolutional trunk has neither norms nor a stream: what one layer rounds, the next "
            "fifty carry on, until boundaries move",
        ),
        Island(
            "pooling",
            ("AveragePool", "ReduceMean"),
            "node",
            "a mean of thousands of places is a sum that FP16 rounds at every step",
        ),
        Island(
            "L2 norms, logits and maps",
            ("ReduceL2",),
            "descendants",
            "squares overflow; 100 times a cosine has steps of 0.06 in FP16, which a sigmoid of "
            "the difference of two would show",
        ),
        Island(
            "phases of the prompt positions",
            ("Sin", "Cos"),
            "ancestors",
            "a phase of hundreds of radians has steps of 0.1 and more in FP16",
        ),
        Island(
            "image normalisation and prompt labels",
            (),
            "entry",
            "pixels are exact integers until they are scaled; tables of prompts cost nothing",
        ),
        Island(
            "masks and scores",
            (),
            "exit",
            "what the caller thresholds, and the features that three passes of the decoder read, "
            "come from a product in FP32 and are never rounded to FP16",
        ),
    ),
)
