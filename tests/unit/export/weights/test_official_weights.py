"""The published weights: names, the cache, and the way to the download."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from zeroflaw_engines.errors import DownloadError, WeightsError
from zeroflaw_export.weights import official as official_weights
from zeroflaw_export.weights.download import Digest
from zeroflaw_export.weights.official import (
    OFFICIAL_WEIGHTS,
    OfficialWeights,
    default_cache,
    weights_file,
)

DATA = b"weights" * 1000


@pytest.fixture
def entry(site, monkeypatch: pytest.MonkeyPatch) -> str:
    site.files["/pub/model_x.pth"] = DATA
    official = OfficialWeights(
        site.url + "/pub/model_x.pth", Digest("sha256", hashlib.sha256(DATA).hexdigest()), "MIT"
    )
    monkeypatch.setitem(official_weights.OFFICIAL_WEIGHTS, "model_x", official)
    return "model_x"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing may land in the real cache."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZEROFLAW_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path / "home"


def test_the_published_digests_are_well_formed_and_agree_with_their_urls() -> None:
    """OpenAI puts the digest into the path, open_clip its first digits into the file's name."""
    for name, official in OFFICIAL_WEIGHTS.items():
        assert official.url.startswith("https://")
        assert official.licence
        length = {"sha256": 64, "sha256_prefix": 8, "git_blob": 40}[official.digest.kind]
        assert len(official.digest.value) == length
        int(official.digest.value, 16)
        if official.digest.kind == "sha256_prefix":
            assert official.filename.endswith(f"-{official.digest.value}.pt")
        elif name.startswith("clip_"):
            assert f"/{official.digest.value}/" in official.url
    assert len({official.filename for official in OFFICIAL_WEIGHTS.values()}) == len(
        OFFICIAL_WEIGHTS
    )


def test_git_objects_are_those_of_the_pinned_commits() -> None:
    """As `git ls-tree -r COMMIT` lists them; the commit is in the URL."""
    listed = {
        "checkpoints/9_12_4_multiscale/epoch_15.pth": "c90f1d9d92d158b436a8fc193f984d4cec8b1fc8",
        "checkpoints/9_12_4_multiscale_visa/epoch_15.pth": (
            "72adc786e031b49ea288ba5f815f0d38cf158708"
        ),
    }
    found = {
        path: official.digest.value
        for official in OFFICIAL_WEIGHTS.values()
        for path in listed
        if official.url.endswith("/" + path)
    }
    assert found == listed


def test_a_local_file_is_taken_as_it_is(tmp_path: Path, site) -> None:
    (tmp_path / "mine.pth").write_bytes(b"x")
    assert weights_file(str(tmp_path / "mine.pth")) == tmp_path / "mine.pth"
    assert site.ranges == []


@pytest.mark.parametrize("name", ["sam_vit_x", "SAM_VIT_H", "", "missing/file.pth", "."])
def test_an_unknown_name_is_told_with_the_known_ones(name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        weights_file(name)
    assert repr(name) in caught.value.cause
    for known in ("sam_vit_h", "clip_vit_l_14_336", "april_gan_visa"):
        assert known in caught.value.remedy


def test_an_official_name_is_fetched_once(entry: str, site, tmp_path: Path) -> None:
    seen = []
    cache = tmp_path / "cache"
    first = weights_file(entry, cache, lambda *step: seen.append(step))
    assert first == cache / "weights" / "model_x.pth"
    assert first.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert weights_file(entry, cache) == first
    assert site.ranges == [None]


def test_an_official_name_wins_over_a_file_of_that_name(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(entry).write_bytes(b"mine")
    assert weights_file(entry, tmp_path / "cache").read_bytes() == DATA


def test_what_is_not_the_published_file_is_refused(entry: str, site, tmp_path: Path) -> None:
    site.files["/pub/model_x.pth"] = DATA[:-1] + b"X"
    with pytest.raises(DownloadError):
        weights_file(entry, tmp_path / "cache")
    assert not (tmp_path / "cache" / "weights" / "model_x.pth").exists()


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({}, "home/.cache/zeroflaw"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/zeroflaw"),
        ({"ZEROFLAW_CACHE": "own"}, "own"),
        ({"ZEROFLAW_CACHE": "own", "XDG_CACHE_HOME": "xdg"}, "own"),
        ({"ZEROFLAW_CACHE": "", "XDG_CACHE_HOME": ""}, "home/.cache/zeroflaw"),
    ],
)
def test_where_downloads_go(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: str,
    environment: dict[str, str],
    want: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(tmp_path / value) if value else "")
    assert default_cache() == tmp_path / want
    assert weights_file(entry) == tmp_path / want / "weights" / "model_x.pth"
    assert (tmp_path / want / "weights" / "model_x.pth").read_bytes() == DATA
