"""CLIP's byte-pair tokenizer as a file of the `tokenizers` library, for stations without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Replace, Sequence
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreSequence
from tokenizers.processors import TemplateProcessing

# Every byte, inside a word and at its end, comes before the merges.
_BYTES = 512
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def write_tokenizer(path: Path, vocabulary_size: int) -> None:
    """Write the tokenizer of open_clip's own vocabulary, or of the first part of it.

    It gives open_clip's token ids for every text that was cleaned as `load_tokenizer` of
    `zeroflaw_engines.bundle.prompt_ensembles` does.

    Args:
        path: The JSON file to write.
        vocabulary_size: Tokens of the text tower. A tower smaller than CLIP's has the bytes, the
            most frequent merges and the two marks, which come last there as well.
    """
    source: Any = SimpleTokenizer()
    start, end = "<start_of_text>", "<end_of_text>"
    words = sorted(source.encoder, key=source.encoder.__getitem__)[: vocabulary_size - 2]
    vocabulary = {word: place for place, word in enumerate([*words, start, end])}
    merges = sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)
    merges = merges[: vocabulary_size - 2 - _BYTES]
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = Sequence([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
    tokenizer.pre_tokenizer = PreSequence(
        [
            Split(Regex(_WORDS), behavior="removed", invert=True),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $0 {end}",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    tokenizer.save(str(path), pretty=False)
