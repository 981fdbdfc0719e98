"""Train the text tower of `mini`, before and apart from the image tower.

Trained together from nothing, the two towers agree at once that good and bad mean the same, and
stay there. So the sentences learn first: all that say "good" meet near one point, all that say
"damaged" near another, whatever product they name, and those that name a surface of the training
frames lean towards a direction of its own. The image tower then learns to meet them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from open_clip.model import CLIP
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_ensembles import PromptEnsembles, Tokenize
from zeroflaw_export.drawn_frames.noise import Rng
from zeroflaw_export.mini.checkpointed import train_steps
from zeroflaw_export.models.text_encoder import TextEncoder

_SENTENCES: Final = 6
_SYLLABLES: Final = (
    "ba", "ce", "do", "fi", "gu", "lan", "mer", "nit", "por", "sta", "tur", "vex", "kol", "zin",
)  # fmt: skip
_COMMON_NAMES: Final = ("object", "part", "surface", "product", "metal", "plate")
# Half the angle between good and bad. Wider, and the fixed logit scale of 100 makes every step of
# a small tower too large.
_HALF_ANGLE: Final = 0.1
_SURFACE_WEIGHT: Final = 0.4


class Sentences:
    """Sentences drawn from the ensembles and encoded by the text tower.

    Args:
        surfaces: Names of the surfaces of the training frames.
    """

    def __init__(
        self, clip: CLIP, ensembles: PromptEnsembles, tokenize: Tokenize, surfaces: list[str]
    ) -> None:
        self.surfaces = surfaces
        self._encode = TextEncoder(clip)
        self._ensembles = ensembles
        self._tokenize = tokenize

    def states(self, rng: Rng) -> torch.Tensor:
        """Encode a product of any name: normal and abnormal mean, float32 [2, E], normalised."""
        embeddings = self.of_product(self.any_name(rng), rng)
        return functional.normalize(embeddings.mean(dim=1), dim=-1)

    def of_product(self, name: str, rng: Rng) -> torch.Tensor:
        """Encode some normal and abnormal sentences of a product: float32 [2, sentences, E]."""
        drawn = [
            str(sentence)
            for group in self._ensembles.sentences(name)
            for sentence in rng.choice(group, _SENTENCES, replace=False)
        ]
        embeddings: torch.Tensor = self._encode(torch.from_numpy(self._tokenize(drawn)))
        return embeddings.reshape(2, _SENTENCES, -1)

    def any_name(self, rng: Rng) -> str:
        """Draw the name of a surface, a common word, or a made-up one."""
        kind = rng.random()
        if kind < 0.4:
            return str(rng.choice(self.surfaces))
        if kind < 0.6:
            return str(rng.choice(_COMMON_NAMES))
        word = "".join(rng.choice(_SYLLABLES, rng.integers(1, 4)))
        return word + str(rng.choice(["", "_1", " 2"]))


def train_text(
    clip: CLIP,
    sentences: Sentences,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    checkpoint: Path,
    report: Callable[[int, float], None],
) -> None:
    """Train the text tower in place and freeze it.

    Args:
        steps: Steps; each sees the sentences of one product.
        learning_rate: Peak of the schedule.
        checkpoint: File of the state; where it exists, the training goes on from it.
        report: Called with the step, from 1, and its loss.
    """
    width = clip.text_projection.shape[1]
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    common, good_to_bad = axes[0] * np.cos(_HALF_ANGLE), axes[1] * np.sin(_HALF_ANGLE)
    anchors = torch.stack([common - good_to_bad, common + good_to_bad])
    leanings = {name: axes[2 + i] for i, name in enumerate(sentences.surfaces)}

    def loss(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        name = sentences.any_name(rng)
        goal = anchors
        if name in leanings:
            goal = functional.normalize(anchors + _SURFACE_WEIGHT * leanings[name], dim=-1)
        return 10 * (sentences.of_product(name, rng) - goal[:, None]).square().sum(dim=-1).mean()

    tower = torch.nn.ModuleDict(
        {
            "token_embedding": clip.token_embedding,
            "transformer": clip.transformer,
            "ln_final": clip.ln_final,
            "projection": torch.nn.ParameterList([clip.text_projection]),
        }
    )
    train_steps(
        tower, loss, steps=steps, learning_rate=learning_rate, checkpoint=checkpoint, report=report
    )
    for parameter in tower.parameters():
        parameter.requires_grad_(False)
