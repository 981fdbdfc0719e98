"""Prompt ensembles: from a product's name to its text embeddings (APRIL-GAN, section 2.1)."""

from __future__ import annotations

import html
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.errors import MissingExtraError, ProductError

# int32 [N, T] token ids in, float32 [N, E] L2-normalised sentence embeddings out.
EncodeSentences = Callable[[NDArray[np.int32]], NDArray[np.float32]]

_BATCH: Final = 64
_MARKS: Final = ("<start_of_text>", "<end_of_text>")


class Tokenize(Protocol):
    """Turns sentences into CLIP token ids."""

    def __call__(self, sentences: list[str]) -> NDArray[np.int32]:
        """Return int32 [N, T], zero after each sentence's end, T that of the longest sentence."""


@dataclass(frozen=True)
class PromptEnsembles:
    """States and templates; `{}` stands for what is put in.

    Attributes:
        normal: States of a good product.
        abnormal: States of a defective one.
        templates: Sentences around a state.
        representative: What stands for the sentences of a side; `mean` of all, or of the largest
            cluster that `dbscan` finds (CLIP-AD, arXiv 2311.00453).
        dbscan_eps: Distance of neighbours of a cluster, between unit vectors.
        dbscan_min_samples: Neighbours that make a sentence part of a cluster's core, itself among
            them.
    """

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...]
    representative: Literal["mean", "dbscan"] = "mean"
    dbscan_eps: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    dbscan_min_samples: Annotated[int, msgspec.Meta(ge=1)] = 15

    def sentences(self, product: str) -> tuple[list[str], list[str]]:
        """Return the normal and abnormal sentences of a product, its name verbatim."""
        return self._fill(self.normal, product), self._fill(self.abnormal, product)

    def _fill(self, states: tuple[str, ...], product: str) -> list[str]:
        filled = [state.replace("{}", product) for state in states]
        return [template.replace("{}", state) for state in filled for template in self.templates]


def read_prompt_ensembles(path: Path) -> PromptEnsembles:
    """Read ensembles from a TOML file with `normal`, `abnormal` and `templates`.

    It may have the other fields of `PromptEnsembles` as well.

    Raises:
        ProductError: The file is missing or is not such a file.
    """
    remedy = "write three lists of texts: normal, abnormal and templates, each text with one {}"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        ensembles = msgspec.convert(raw, PromptEnsembles)
    except OSError as error:
        raise ProductError(
            f"the prompt ensembles {path} cannot be read: {error}", remedy
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ProductError(f"the prompt ensembles {path} are not valid: {error}", remedy) from error
    for name in ("normal", "abnormal", "templates"):
        texts: tuple[str, ...] = getattr(ensembles, name)
        if not texts or any(text.count("{}") != 1 for text in texts):
            raise ProductError(f"{path}: not every text of {name} has exactly one {{}}", remedy)
    return ensembles


def load_tokenizer(path: Path, context: int) -> Tokenize:
    """Load a CLIP tokenizer that `zeroflaw export` wrote.

    It gives the token ids of open_clip's SimpleTokenizer for every text: sentences are cleaned as
    there, ftfy included, which mends what was decoded wrongly (`MÃ¼nze`) and gives full-width
    signs and ligatures their plain form.

    Args:
        context: Most tokens of one sentence; longer ones lose their end, as in CLIP.

    Raises:
        MissingExtraError: The `tokenizers` or the `ftfy` library is not installed.
        ProductError: The file is not a tokenizer. The function that is returned raises it for a
            sentence that spells one of CLIP's marks, as `<end_of_text>`.
    """
    try:
        from ftfy import fix_text
        from tokenizers import Tokenizer, normalizers
    except ImportError as error:
        raise MissingExtraError(
            f"computing text embeddings needs the library {error.name}, which is not installed",
            "install zeroflaw[text]; `zeroflaw products learn --texts-of object` does without it",
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ProductError(
            f"the tokenizer {path} cannot be read ({error})", "copy the bundle anew"
        ) from error
    tokenizer.enable_truncation(context)
    tokenizer.enable_padding(pad_id=0)
    # Sentences are normalised below. The file's own normaliser would compose accents once more
    # after HTML entities have been read, which open_clip does not.
    tokenizer.normalizer = normalizers.Sequence([])

    def clean(sentence: str) -> str:
        text = html.unescape(html.unescape(fix_text(sentence)))
        return " ".join(text.split()).lower()

    def tokenize(sentences: list[str]) -> NDArray[np.int32]:
        cleaned = [clean(sentence) for sentence in sentences]
        for sentence, text in zip(sentences, cleaned, strict=True):
            if any(mark in text for mark in _MARKS):
                raise ProductError(
                    f"the sentence {sentence!r} spells a mark by which CLIP ends or begins a"
                    f" sentence: {' or '.join(_MARKS)}",
                    "choose another product name, or other sentences",
                )
        return np.array([line.ids for line in tokenizer.encode_batch(cleaned)], np.int32)

    return tokenize


def product_embeddings(
    product: str, ensembles: PromptEnsembles, tokenize: Tokenize, encode: EncodeSentences
) -> TextEmbeddings:
    """Compute the text embeddings of one product: each side's representative, normalised again.

    Args:
        product: The name, put into the sentences verbatim.

    Returns:
        float32 [2, E], row 0 normal, row 1 abnormal, L2-normalised.
    """
    rows = []
    for sentences in ensembles.sentences(product):
        tokens = tokenize(sentences)
        parts = [encode(tokens[i : i + _BATCH]) for i in range(0, len(tokens), _BATCH)]
        mean = _representatives(np.concatenate(parts), ensembles).mean(axis=0, dtype=np.float64)
        rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows).astype(np.float32)


def _representatives(
    embeddings: NDArray[np.float32], ensembles: PromptEnsembles
) -> NDArray[np.float32]:
    """Return the sentences that the mean is of: all, where DBSCAN finds no cluster."""
    if ensembles.representative == "mean":
        return embeddings
    labels = dbscan_labels(embeddings, ensembles.dbscan_eps, ensembles.dbscan_min_samples)
    if labels.max() < 0:
        return embeddings
    chosen: NDArray[np.float32] = embeddings[labels == np.bincount(labels[labels >= 0]).argmax()]
    return chosen


def dbscan_labels(points: NDArray[np.float32], eps: float, min_samples: int) -> NDArray[np.int64]:
    """Find clusters of dense points: DBSCAN (Ester et al., KDD 1996), on a few hundred.

    A point with at least `min_samples` points within `eps`, itself among them, is a core point;
    core points within `eps` of each other are of one cluster, and so is what lies within `eps` of
    one. Clusters are numbered in the order of their first core point, and a border point of two
    goes to the first of them, as in scikit-learn.

    Args:
        points: float [N, D].
        eps: Euclidean distance.

    Returns:
        int64 [N]: the cluster of each point, -1 for noise.
    """
    exact = points.astype(np.float64)
    squares = (exact**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * exact @ exact.T, 0)
    near = distances <= eps**2
    np.fill_diagonal(near, val=True)
    core = near.sum(axis=1) >= min_samples
    labels = np.full(len(points), -1, np.int64)
    cluster = 0
    for first in np.flatnonzero(core):
        if labels[first] >= 0:
            continue
        frontier = np.zeros(len(points), bool)
        frontier[first] = True
        while frontier.any():
            labels[frontier] = cluster
            frontier = near[frontier & core].any(axis=0) & (labels < 0)
        cluster += 1
    return labels
