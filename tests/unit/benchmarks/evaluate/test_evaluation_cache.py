import json

import numpy as np
import pytest

from zeroflaw_benchmarks.evaluate import cache as evaluation_cache
from zeroflaw_benchmarks.evaluate.cache import (
    digest_of,
    open_cache,
    read_arrays,
    readable_bytes,
    require_space,
    write_arrays,
)
from zeroflaw_engines.errors import EvaluationError

IDENTITY = "a" * 64


def test_opening_twice_is_the_same_cache(tmp_path):
    root = tmp_path / "new" / "cache"
    first = open_cache(root, IDENTITY)
    assert open_cache(root, IDENTITY) == first
    assert [path.name for path in root.iterdir()] == ["cache.json"]


def test_directories_that_are_no_cache_of_this_bundle_are_refused(tmp_path):
    open_cache(tmp_path / "other", "b" * 64)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "part.png").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "cache.json").write_text("{")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "cache.json").write_text(json.dumps({"version": 9, "bundle": IDENTITY}))
    (tmp_path / "file").touch()
    for name, reason in {
        "other": "other weights",
        "photos": "not a cache",
        "damaged": "damaged",
        "newer": "version 9",
        "file": "cannot be written",
    }.items():
        with pytest.raises(EvaluationError, match=reason) as caught:
            open_cache(tmp_path / name, IDENTITY)
        assert "--cache" in caught.value.remedy
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["part.png"]


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "entry.npz"
    write_arrays(path, a=np.arange(3), b=np.eye(2, dtype=np.float32))
    b, a = read_arrays(path, "b", "a")
    assert a.tolist() == [0, 1, 2]
    assert b.dtype == np.float32

    def full(file, **_):
        file.write(b"some of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    for name in ("entry.npz", "other.npz"):
        with pytest.raises(EvaluationError, match="No space left"):
            write_arrays(path.with_name(name), a=np.zeros(9))
    assert [file.name for file in path.parent.iterdir()] == ["entry.npz"]
    assert read_arrays(path, "a")[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "empty", "other_arrays"])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "entry.npz"
    write_arrays(path, a=np.arange(1000))
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        write_arrays(path, b=np.arange(3))
    with pytest.raises(EvaluationError, match=r"entry\.npz cannot be read") as caught:
        read_arrays(path, "a")
    assert "delete it" in caught.value.remedy


def test_space(tmp_path, monkeypatch):
    usage = evaluation_cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        evaluation_cache.shutil, "disk_usage", lambda _: usage._replace(free=2_000_000_000)
    )
    assert require_space(tmp_path, 1_800_000_000) == 2_000_000_000
    with pytest.raises(EvaluationError, match=r"needs 1\.9 GB more and 100 MB to spare"):
        require_space(tmp_path, 1_940_000_000)
    monkeypatch.setattr(evaluation_cache.shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert require_space(tmp_path, 0) == 0  # all is cached already
    assert readable_bytes(3_400_000) == "3 MB"


def test_digests_keep_parts_apart():
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert digest_of("ab") == digest_of(b"ab")
