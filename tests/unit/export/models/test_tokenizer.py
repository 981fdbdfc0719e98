"""The tokenizer file, against open_clip's own tokenizer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from zeroflaw_engines.bundle.prompt_ensembles import (
    load_tokenizer,
    product_embeddings,
    read_prompt_ensembles,
)
from zeroflaw_engines.errors import MissingExtraError, ProductError
from zeroflaw_export.models.text_encoder import TextEncoder
from zeroflaw_export.models.tokenizer import write_tokenizer

PRODUCTS = [
    "metal_nut",
    "pipe_fryum",
    "pcb1",
    "Schraube groß",
    "M8x20 bolt (A2)",
    "O'Ring 12",
    "the worker's glove",
    "they're 5'd bolts we'll've",
    "'s",
    "ÄÖÜ ÉCROU",
    "ISO-4762 / 100%",
    "R&amp;D part",
    "a&lt;b",
    "螺丝 ネジ 나사",
    "Гайка Ж8",
    "½ m² Ⅷ",
    "🔩 nut",
    "café cafe\u0301",
    "naïve—dash … ellipsis",
    "  two   spaces ",
    "tab\tand\nline",
    "x" * 64,
    "1234567890",
    "snake_case__double",
    "!!!???",
    "ΓΡΑΝΑΖΙ ΑΞΟΝΑΣ",
    "İstanbul",
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(path, 49408)
    return path


@pytest.fixture(scope="module")
def tokenize(path: Path) -> Callable[[list[str]], np.ndarray]:
    return load_tokenizer(path, 77)


@pytest.fixture(scope="module")
def ensembles():
    return read_prompt_ensembles(Path(str(files("zeroflaw_export") / "prompt_ensembles.toml")))


@pytest.fixture(scope="module")
def original() -> open_clip.tokenizer.SimpleTokenizer:
    return open_clip.get_tokenizer("ViT-L-14-336")


def assert_same(mine: np.ndarray, theirs: torch.Tensor) -> None:
    assert mine.dtype == np.int32
    padded = np.zeros(theirs.shape, np.int64)
    padded[:, : mine.shape[1]] = mine
    np.testing.assert_array_equal(padded, theirs.numpy())
    # as long as the longest sentence, no longer
    # ("!" is token 0, as padding is)
    assert mine.shape[1] == int(theirs.argmax(dim=1).max()) + 1


@pytest.mark.parametrize("product", PRODUCTS)
def test_all_sentences_of_a_product(tokenize, ensembles, original, product: str) -> None:
    normal, abnormal = ensembles.sentences(product)
    sentences = normal + abnormal
    assert len(sentences) == 420
    assert_same(tokenize(sentences), original(sentences))


HARD = [
    "M\u00c3\u00bcnze",  # UTF-8 read as Latin-1
    "Schraube gro\u00c3\u0178",  # and as Windows-1252
    "\u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d",
    "\u00c3\u0192\u00c2\u00bcber",  # twice
    "cafe\u0301 no\u0308tig",  # NFD
    "\ufb01lter \ufb02ange o\ufb03ce",  # ligatures
    "\uff2d\uff18\u3000\uff22\uff2f\uff2c\uff34",  # full width
    "\uff76\uff9e\uff72\uff84\uff9e",  # half-width katakana with marks
    "nut\u200bbolt \u200dx\ufeff",  # zero width
    "soft\u00adhyphen",
    "R&amp;D &lt;nut&gt; &amp;amp; &eacute;crou &#x301;",
    "e&#x301;",  # composed by nobody after the entity has been read
    "&AMP; &Eacute; &nbsp;x",
    "ISO&nbsp;4762",
    "\u201cquotes\u201d \u2018single\u2019 \u201elow\u201c",
    "UPPER \u0130I\u0131 \u1e9e STRASSE",
    "\U0001f529\ufe0f \U0001f468\u200d\U0001f527 \U0001f1e9\U0001f1ea",
    "a\u0315\u0300\u05ae\u0316b",  # marks to be put in order
    "\u87ba\u4e1d \u30cd\u30b8 \ub098\uc0ac \u1112\u1161\u11ab",
    "\u05d1\u05e8\u05d2 \u0645\u0633\u0645\u0627\u0631 \u200fx\u202b",
    "\x1b[31mred\x1b[0m",
    "line\r\nbreak\u2028next\u0085last",
    "\x00nul \x0bvertical \x1cseparated",
    "\u2126 \u212b \u212a \u00b5m \u2460 \u00bd",
    "\ud83d\ude00",  # surrogates of a sign
    "no break\u00a0space\u2009thin",
    "''quoted'' it\u2019s 'S",
    "____--..__",
]


@pytest.mark.parametrize("text", HARD, ids=ascii)
def test_texts_that_are_mended_are_mended_as_by_open_clip(tokenize, original, text: str) -> None:
    sentences = [text, f"a photo of a flawless {text} for inspection.", f"{text}{text}"]
    assert_same(tokenize(sentences), original(sentences))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.one_of(
            # Names have no signs that are unassigned in Python's Unicode.
            st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=20),
            st.text("abcM8 .&;#x\u00c3\u00bc\u00e2\u20ac\ufb01\uff21\u0301\u200b'", max_size=20),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_text_is_tokenised_as_by_open_clip(tokenize, original, texts: list[str]) -> None:
    assert_same(tokenize(texts), original(texts))


@pytest.mark.parametrize("text", ["a <end_of_text> b", "&lt;START_OF_TEXT&gt;"])
def test_a_text_that_spells_a_mark_of_clip_is_refused(path: Path, text: str) -> None:
    with pytest.raises(ProductError, match="mark"):
        load_tokenizer(path, 77)([text])


def test_a_station_without_ftfy_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(MissingExtraError, match="ftfy") as caught:
        load_tokenizer(path, 77)
    assert "zeroflaw[text]" in caught.value.remedy


@pytest.mark.parametrize("words", [70, 74, 75, 76, 77, 78, 200, 2000])
@pytest.mark.parametrize("context", [77, 16, 3])
def test_a_long_text_loses_its_end(path: Path, original, words: int, context: int) -> None:
    text = " ".join(["bolt"] * words)
    got = load_tokenizer(path, context)([text, "short"])
    want = original([text, "short"], context_length=context)
    assert_same(got, want)
    assert got[0, min(words, context - 2) + 1] == 49407


@pytest.mark.parametrize("text", ["", " ", "\n", "a", "A", ".", "'", "&", "\u00a0", "\u3000x"])
def test_short_texts(path: Path, original, text: str) -> None:
    assert_same(load_tokenizer(path, 77)([text]), original([text]))


def test_every_printable_ascii_pair(path: Path, original) -> None:
    """No sign of a type label is split otherwise."""
    signs = [chr(code) for code in range(32, 127)]
    texts = [f"M8{first}{second}x" for first in signs for second in signs]
    assert_same(load_tokenizer(path, 77)(texts), original(texts))


def test_the_bundle_has_this_tokenizer(path: Path, tiny_bundle) -> None:
    assert (tiny_bundle.path / "tokenizer.json").read_bytes() == path.read_bytes()
    assert tiny_bundle.manifest.text.context == 77


@pytest.mark.parametrize("product", ["metal_nut", "Schraube groß", "O'Ring 12"])
def test_product_embeddings_are_open_clips(
    path: Path, ensembles, original, tiny_clip, product: str
) -> None:
    """algorithm.md 1.3: encode, normalise each, mean, normalise the mean."""
    encoder = TextEncoder(tiny_clip).eval()

    def encode(tokens: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return encoder(torch.from_numpy(tokens)).numpy()

    got = product_embeddings(product, ensembles, load_tokenizer(path, 77), encode)
    rows = []
    with torch.inference_mode():
        for sentences in ensembles.sentences(product):
            each = functional.normalize(tiny_clip.encode_text(original(sentences)), dim=-1)
            rows.append(functional.normalize(each.mean(dim=0), dim=0))
    np.testing.assert_allclose(got, torch.stack(rows).numpy(), atol=1e-5)
    assert np.abs(got[0] - got[1]).max() > 1e-3
