"""CLIP's text tower as an export module: token ids in, sentence embeddings out."""

from __future__ import annotations

import torch
from open_clip.model import CLIP
from torch import nn
from torch.nn import functional


class TextEncoder(nn.Module):
    """The text tower with its projection and L2 norm (open_clip model.py, encode_text)."""

    positional_embedding: torch.Tensor
    causal_mask: torch.Tensor

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.token_embedding = clip.token_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.register_buffer("positional_embedding", clip.positional_embedding.detach())
        self.register_buffer("causal_mask", clip.attn_mask.detach())

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Encode sentences.

        Args:
            token_ids: int32 [N, T], T up to the context of the tower: CLIP tokens, zero after
                the end-of-text token, which has the highest id and marks where the sentence
                is read out. Attention is causal, so what comes after it changes nothing and a
                batch need only be as long as its longest sentence.

        Returns:
            float32 [N, E], L2-normalised.
        """
        ids = token_ids.long()
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x, attn_mask=self.causal_mask[:length, :length]))
        end = (ids == ids.amax(dim=-1, keepdim=True)).float()
        # the first of equal ids, as argmax takes it: nothing precedes it
        first = end * (end.cumsum(dim=-1) == 1).float()
        sentence = (first[..., None] * x).sum(dim=1)
        return functional.normalize(sentence @ self.text_projection, dim=-1)
