"""Prompt ensembles: the sentences, the file, and the mean of the sentences."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from zeroflaw_engines.bundle.prompt_ensembles import (
    PromptEnsembles,
    product_embeddings,
    read_prompt_ensembles,
)
from zeroflaw_engines.errors import ProductError

GOOD = {"normal": ["{}", "good {}"], "abnormal": ["bad {}"], "templates": ["a {}.", "the {}."]}


def toml(**lists: object) -> str:
    return "\n".join(f"{name} = {value!r}" for name, value in lists.items())


@pytest.fixture
def shipped() -> PromptEnsembles:
    return read_prompt_ensembles(Path(str(files("zeroflaw_export") / "prompt_ensembles.toml")))


def test_the_shipped_ensembles_have_april_gans_counts(shipped: PromptEnsembles) -> None:
    assert (len(shipped.normal), len(shipped.abnormal), len(shipped.templates)) == (7, 5, 35)
    for texts in (shipped.normal, shipped.abnormal, shipped.templates):
        assert len(set(texts)) == len(texts)
    assert all(template.endswith(".") for template in shipped.templates)


@pytest.mark.parametrize("product", ["metal_nut", "Schraube groß", "{}", "a {} b", "\\1", "%s"])
def test_the_name_goes_in_verbatim(shipped: PromptEnsembles, product: str) -> None:
    normal, abnormal = shipped.sentences(product)
    assert (len(normal), len(abnormal)) == (245, 175)
    assert normal[0] == f"a bad photo of a {product}."
    assert f"a photo of a flawless {product}." in normal
    assert f"this is one {product} without damage in the scene." in normal
    assert f"a photo of a damaged {product}." in abnormal
    assert f"there is the {product} with flaw in the scene." in abnormal
    assert all(product in sentence for sentence in normal + abnormal)


def test_the_bundle_carries_the_ensembles_it_was_made_with(
    tiny_bundle, shipped: PromptEnsembles
) -> None:
    assert read_prompt_ensembles(tiny_bundle.path / "prompt_ensembles.toml") == shipped
    assert tiny_bundle.manifest.products["object"].sentences == (245, 175)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(toml(**GOOD), "utf-8")
    ensembles = read_prompt_ensembles(tmp_path / "e.toml")
    assert ensembles.sentences("nut") == (
        ["a nut.", "the nut.", "a good nut.", "the good nut."],
        ["a bad nut.", "the bad nut."],
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "normal = [",
        "not toml at all",
        toml(normal=["{}"], abnormal=["{}"]),
        toml(**{**GOOD, "normal": []}),
        toml(**{**GOOD, "abnormal": []}),
        toml(**{**GOOD, "templates": []}),
        toml(**{**GOOD, "templates": ["no place"]}),
        toml(**{**GOOD, "templates": ["{}", "two {} places {}"]}),
        toml(**{**GOOD, "normal": ["{name}"]}),
        toml(**{**GOOD, "normal": "{}"}),
        toml(**{**GOOD, "abnormal": [1]}),
        toml(**{**GOOD, "abnormal": [["{}"]]}),
        "[normal]\nx = 1",
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "e.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ProductError) as caught:
        read_prompt_ensembles(path)
    assert str(path) in caught.value.cause
    assert "templates" in caught.value.remedy


@pytest.mark.parametrize("kind", ["missing", "directory", "latin-1", "binary"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "e.toml"
    if kind == "directory":
        path.mkdir()
    elif kind == "latin-1":
        path.write_bytes(toml(**{**GOOD, "normal": ["größe {}"]}).encode("latin-1"))
    elif kind == "binary":
        path.write_bytes(bytes(range(256)))
    with pytest.raises(ProductError) as caught:
        read_prompt_ensembles(path)
    assert str(path) in caught.value.cause


def test_the_mean_of_the_sentences_by_hand() -> None:
    """Two normal sentences at right angles and one abnormal one."""
    ensembles = PromptEnsembles(("{}", "good {}"), ("bad {}",), ("{}",))
    table = {"nut": [1.0, 0, 0], "good nut": [0, 1.0, 0], "bad nut": [0, 0.6, 0.8]}
    order = list(table)

    def tokenize(sentences: list[str]) -> np.ndarray:
        return np.array([[order.index(sentence)] for sentence in sentences], np.int32)

    def encode(tokens: np.ndarray) -> np.ndarray:
        return np.array([table[order[i]] for i in tokens[:, 0]], np.float32)

    got = product_embeddings("nut", ensembles, tokenize, encode)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[0.5**0.5, 0.5**0.5, 0], [0, 0.6, 0.8]], atol=1e-7)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_every_sentence_counts_once_however_many(rng: np.random.Generator, count: int) -> None:
    ensembles = PromptEnsembles(("{}",), ("bad {}",), tuple(f"{i} {{}}" for i in range(count)))
    table = rng.normal(size=(count, 8)).astype(np.float32)
    sizes = []

    def tokenize(sentences: list[str]) -> np.ndarray:
        return np.array([[int(sentence.split()[0])] for sentence in sentences], np.int32)

    def encode(tokens: np.ndarray) -> np.ndarray:
        sizes.append(len(tokens))
        return table[tokens[:, 0]]

    got = product_embeddings("nut", ensembles, tokenize, encode)
    want = table.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(got, np.stack([want / np.linalg.norm(want)] * 2), atol=1e-6)
    assert sum(sizes) == 2 * count
