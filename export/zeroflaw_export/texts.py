"""The texts of a bundle: prompt bank, tokenizer, ensembles and the text engine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP

from zeroflaw_engines.bundle.identities import TextIdentity
from zeroflaw_engines.bundle.prompt_bank import (
    TextEmbeddings,
    encode_prompt_bank,
    no_text_embeddings,
)
from zeroflaw_engines.bundle.prompt_ensembles import (
    PromptEnsembles,
    load_tokenizer,
    product_embeddings,
    read_prompt_ensembles,
)
from zeroflaw_engines.contract import TEXT_ENCODER
from zeroflaw_export.engine_writer import EngineGraphs, EngineWriter
from zeroflaw_export.models.text_encoder import TextEncoder
from zeroflaw_export.models.tokenizer import write_tokenizer
from zeroflaw_export.parity import checks as parity
from zeroflaw_export.parity import references

PROMPTS: Final = "prompts.safetensors"
_TOKENIZER: Final = "tokenizer.json"
_ENSEMBLES: Final = "prompt_ensembles.toml"


@dataclass(frozen=True)
class Texts:
    """What is made of the products' sentences.

    Attributes:
        bank: float32 [2, E] by product; E is 0 where the localizer takes no texts.
        sentences: Number of normal and abnormal sentences of each.
        identity: None without a text engine.
        graphs: Of the text engine, if there is one.
    """

    bank: dict[str, TextEmbeddings]
    sentences: tuple[int, int]
    identity: TextIdentity | None
    graphs: EngineGraphs


def no_texts(staging: Path, products: Sequence[str]) -> Texts:
    """Write the prompt bank of a localizer that takes no texts."""
    bank = {name: no_text_embeddings() for name in products}
    (staging / PROMPTS).write_bytes(encode_prompt_bank(bank))
    return Texts(bank, (0, 0), None, EngineGraphs({}, []))


def export_texts(
    writer: EngineWriter,
    clip: CLIP,
    products: Sequence[str],
    *,
    ensembles_file: Path | None,
    text_encoder: bool,
    packaged_ensembles: str = _ENSEMBLES,
) -> Texts:
    """Encode the products' sentences into the prompt bank, and export the text engine.

    Args:
        ensembles_file: Default: the packaged ones.
        text_encoder: Whether the bundle gets a text engine.
        packaged_ensembles: Name of the packaged file that the localizer's source uses.

    Raises:
        ParityError: The engine differs from the reference.
    """
    staging = writer.staging
    ensembles = _copy_ensembles(ensembles_file, packaged_ensembles, staging)
    write_tokenizer(staging / _TOKENIZER, clip.vocab_size)
    tokenize = load_tokenizer(staging / _TOKENIZER, clip.context_length)
    encoder = TextEncoder(clip).eval()

    def encode(tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            embeddings: NDArray[np.float32] = encoder(torch.from_numpy(tokens)).numpy()
        return embeddings

    bank = {}
    for name in products:
        writer.report(f"encoding the sentences of {name}")
        bank[name] = product_embeddings(name, ensembles, tokenize, encode)
    (staging / PROMPTS).write_bytes(encode_prompt_bank(bank))
    normal, abnormal = ensembles.sentences("")
    counts = (len(normal), len(abnormal))
    if not text_encoder:
        (staging / _TOKENIZER).unlink()
        (staging / _ENSEMBLES).unlink()
        return Texts(bank, counts, None, EngineGraphs({}, []))
    normal, abnormal = ensembles.sentences(products[0])
    tokens = tokenize([*normal[:4], *abnormal[:4]])
    wanted = references.reference_text(clip, tokens)
    graphs = writer.write(
        TEXT_ENCODER,
        encoder,
        lambda session, _: parity.check_text_encoder(session, tokens, wanted),
    )
    identity = TextIdentity(context=clip.context_length, tokenizer=_TOKENIZER, ensembles=_ENSEMBLES)
    return Texts(bank, counts, identity, graphs)


def _copy_ensembles(source: Path | None, packaged: str, staging: Path) -> PromptEnsembles:
    target = staging / _ENSEMBLES
    if source is None:
        target.write_bytes(files("zeroflaw_export").joinpath(packaged).read_bytes())
    else:
        shutil.copyfile(source, target)
    return read_prompt_ensembles(target)
