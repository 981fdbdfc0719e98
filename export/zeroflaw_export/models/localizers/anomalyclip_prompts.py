"""The learned prompts of AnomalyCLIP, and what CLIP's text tower makes of them.

They name no product, so that the two embeddings are constants of the exported graph.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional

from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.models.load import WeightsSource
from zeroflaw_export.weights.checkpoints import StateDict, read_state_dict

_KEY: Final = "prompt_learner"
# The words behind the learned context of each state (prompt_ensemble.py:85-116): normal, abnormal.
STATES: Final = ("object.", "damaged object.")
# What the public class stores beside its prompts and no result depends on: layers that it never
# runs, and what follows from CLIP's vocabulary.
_UNUSED: Final = re.compile(
    r"compound_prompt_projections\.\d+\.(weight|bias)"
    r"|token_(prefix|suffix)_(pos|neg)|tokenized_prompts_(pos|neg)"
)
_REMEDY: Final = "give a checkpoint of AnomalyCLIP, as its train.py writes them"


@dataclass(frozen=True, kw_only=True)
class PromptShape:
    """How many tokens are learned.

    Attributes:
        context: Tokens before the words.
        depth: Text blocks that read learned tokens; the first reads the context.
        deep_tokens: Tokens of each further block, in place of the first of the context.
        width: Of the text tower.
    """

    context: int
    depth: int
    deep_tokens: int
    width: int

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each learned tensor, by its name in the checkpoint."""
        context = (1, 1, self.context, self.width)
        deep = {
            f"compound_prompts_text.{block}": (self.deep_tokens, self.width)
            for block in range(self.depth - 1)
        }
        return {"ctx_pos": context, "ctx_neg": context, **deep}


def load_prompts(source: WeightsSource, shape: PromptShape) -> StateDict:
    """Load learned prompts, or draw them.

    Returns:
        float32, by the names of `PromptShape.tensors`.

    Raises:
        WeightsError: The file holds other prompts, or none.
    """
    if source.path is None:
        generator = torch.Generator().manual_seed((source.seed or 0) + 1)
        return {
            name: 0.2 * torch.randn(size, generator=generator)
            for name, size in shape.tensors.items()
        }
    state = read_state_dict(source.path, unwrap=_KEY)
    _check_names(state, shape, source.path)
    for name, size in shape.tensors.items():
        if tuple(state[name].shape) != size:
            raise WeightsError(
                f"{source.path} has {name} of shape {list(state[name].shape)}, not {list(size)}",
                "give prompts for this CLIP, or their sizes as the parameters n_ctx, depth and"
                " t_n_ctx of the localizer",
            )
        if not torch.isfinite(state[name]).all():
            raise WeightsError(f"{source.path} has values in {name} that are not finite", _REMEDY)
    return {name: state[name].float() for name in shape.tensors}


def _check_names(state: StateDict, shape: PromptShape, path: Path) -> None:
    missing = sorted(set(shape.tensors) - set(state))
    if missing:
        raise WeightsError(
            f"{path} has no prompt tensor {', '.join(missing[:5])}",
            f"{_REMEDY}; it has the tensors {', '.join(shape.tensors)}",
        )
    unknown = sorted(
        name for name in state if name not in shape.tensors and not _UNUSED.fullmatch(name)
    )
    if unknown:
        raise WeightsError(
            f"{path} has tensors that are not AnomalyCLIP's prompts: {', '.join(unknown[:5])}",
            _REMEDY,
        )


@torch.no_grad()
def prompt_embeddings(clip: CLIP, prompts: StateDict) -> torch.Tensor:
    """Encode both states (AnomalyCLIP.py, encode_text_learn).

    The learned context stands between the start mark and the words. Each text block from the
    second on reads learned tokens in place of the first ones of the context, rounded to FP16 as
    the public code rounds them.

    Args:
        prompts: From `load_prompts`.

    Returns:
        float32 [2, E], L2-normalised: row 0 normal, row 1 abnormal.
    """
    tokenizer = SimpleTokenizer()
    deep = [tokens for name, tokens in prompts.items() if name.startswith("compound")]
    rows = []
    for words, context in zip(STATES, (prompts["ctx_pos"], prompts["ctx_neg"]), strict=True):
        start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
        ids = torch.tensor([start, *tokenizer.encode(words), end])
        embedded = clip.token_embedding(ids)
        x = torch.cat([embedded[:1], context[0, 0], embedded[1:]])
        # Attention is causal: what would follow the end mark changes nothing.
        length = len(x)
        x = (x + clip.positional_embedding[:length])[None]
        mask = clip.attn_mask[:length, :length]
        for number, block in enumerate(clip.transformer.resblocks):
            if 0 < number <= len(deep):
                learned = deep[number - 1].half().float()[None]
                x = torch.cat([x[:, :1], learned, x[:, 1 + learned.shape[1] :]], dim=1)
            x = block(x, attn_mask=mask)
        rows.append(clip.ln_final(x)[0, -1] @ clip.text_projection)
    return functional.normalize(torch.stack(rows), dim=-1)
