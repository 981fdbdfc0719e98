"""Downloads against a server on this machine that breaks off, refuses and lies."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from zeroflaw_engines.errors import DownloadError, ZeroflawError
from zeroflaw_export.weights.download import Digest, download

DATA = random.Random(0).randbytes(3_000_000)  # noqa: S311 - not for secrets
SHA256 = Digest("sha256", hashlib.sha256(DATA).hexdigest())
PATH = "/weights/model.pth"


@pytest.fixture
def target(tmp_path: Path, site) -> Path:
    site.files[PATH] = DATA
    return tmp_path / "cache" / "weights" / "model.pth"


def files_beside(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir() if not path.name.endswith(".lock")}


def test_a_file_arrives_whole(site, target: Path) -> None:
    seen = []
    got = download(site.url + PATH, target, SHA256, lambda *step: seen.append(step))
    assert got == target
    assert target.read_bytes() == DATA
    assert files_beside(target) == {"model.pth"}
    assert site.ranges == [None]
    assert seen[-1] == (len(DATA), len(DATA))
    assert [have for have, _ in seen] == sorted({have for have, _ in seen})


def test_what_is_there_already_is_not_asked_for(site, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(DATA)
    assert download(site.url + PATH, target, SHA256) == target
    assert site.ranges == []


def test_another_file_of_the_same_name_is_refused_and_kept(site, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")
    with pytest.raises(DownloadError) as caught:
        download(site.url + PATH, target, SHA256)
    assert str(target) in caught.value.cause
    assert SHA256.value in caught.value.cause
    assert "delete" in caught.value.remedy
    assert target.read_bytes() == b"mine"
    assert site.ranges == []


def start_of(wanted: str | None) -> int:
    return int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0


@pytest.mark.parametrize(
    "breaks", [[1_500_000], [0], [1], [2_999_999], [1_500_000, 1_200_000], [1_100_000, 0, 0]]
)
def test_a_broken_download_is_continued(site, target: Path, breaks: list[int]) -> None:
    """A client may drop the last piece that did not come whole, but not all of it."""
    site.break_after = list(breaks)
    seen = []
    download(site.url + PATH, target, SHA256, lambda *step: seen.append(step))
    assert target.read_bytes() == DATA
    starts = [start_of(wanted) for wanted in site.ranges]
    assert len(starts) == len(breaks) + 1
    for i, sent in enumerate(breaks):
        assert starts[i] <= starts[i + 1] <= starts[i] + sent
        if sent > 1 << 20:
            assert starts[i + 1] > starts[i]
    assert seen[-1] == (len(DATA), len(DATA))


@pytest.mark.parametrize("sent", [1000, 400_000, 1_000_000])
def test_what_arrived_before_a_break_is_kept(site, target: Path, sent: int) -> None:
    """A line that breaks every few hundred kilobytes still gets there in the end."""
    site.break_after = [sent]
    download(site.url + PATH, target, SHA256)
    assert site.ranges == [None, f"bytes={sent}-"]


def test_a_download_is_continued_by_the_next_run(site, target: Path) -> None:
    site.break_after = [1_500_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError) as caught:
        download(site.url + PATH, target, SHA256)
    part = target.with_name("model.pth.part")
    assert str(part) in caught.value.remedy
    assert site.url in caught.value.cause
    kept = part.stat().st_size
    assert 0 < kept <= 1_500_000
    assert part.read_bytes() == DATA[:kept]
    assert not target.exists()
    site.ranges.clear()
    site.break_after.clear()
    download(site.url + PATH, target, SHA256)
    assert site.ranges == [f"bytes={kept}-"]
    assert target.read_bytes() == DATA
    assert files_beside(target) == {"model.pth"}


def test_a_server_without_range_starts_over(site, target: Path) -> None:
    site.honour_range = False
    site.break_after = [1_200_000]
    download(site.url + PATH, target, SHA256)
    assert site.ranges[0] is None
    assert 0 < start_of(site.ranges[1]) <= 1_200_000
    assert target.read_bytes() == DATA


def test_a_server_that_does_not_say_how_much(site, target: Path) -> None:
    site.send_length = False
    seen = []
    download(site.url + PATH, target, SHA256, lambda *step: seen.append(step))
    assert target.read_bytes() == DATA
    assert {total for _, total in seen} == {None}


def test_a_part_that_is_whole_only_needs_its_name(site, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.with_name("model.pth.part").write_bytes(DATA)
    download(site.url + PATH, target, SHA256)
    assert site.ranges == [f"bytes={len(DATA)}-"]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    "part", [b"x" * 1000, b"x" * (len(DATA) + 5)], ids=["another file's", "too long"]
)
def test_a_part_of_something_else_is_deleted(site, target: Path, part: bytes) -> None:
    target.parent.mkdir(parents=True)
    target.with_name("model.pth.part").write_bytes(part)
    with pytest.raises(DownloadError):
        download(site.url + PATH, target, SHA256)
    assert files_beside(target) == set()
    download(site.url + PATH, target, SHA256)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("length", [len(DATA), 10, 0])
def test_a_wrong_file_is_deleted_and_never_named(site, target: Path, length: int) -> None:
    site.files[PATH] = b"\0" * length
    with pytest.raises(DownloadError) as caught:
        download(site.url + PATH, target, SHA256)
    assert site.url + PATH in caught.value.cause
    assert SHA256.value in caught.value.cause
    assert hashlib.sha256(b"\0" * length).hexdigest() in caught.value.cause
    assert "do not trust" in caught.value.remedy
    assert files_beside(target) == set()


@pytest.mark.parametrize("status", [401, 403, 404, 410, 500])
def test_a_refusal_is_told_at_once(site, target: Path, status: int) -> None:
    site.status = [status]
    with pytest.raises(DownloadError) as caught:
        download(site.url + PATH, target, SHA256)
    assert str(status) in caught.value.cause
    assert site.url + PATH in caught.value.cause
    assert len(site.ranges) == 1
    assert files_beside(target) == set()


def test_a_refusal_while_continuing_keeps_the_part(site, target: Path) -> None:
    site.break_after = [1_500_000]
    site.status = [None, 403]
    with pytest.raises(DownloadError, match="403"):
        download(site.url + PATH, target, SHA256)
    part = target.with_name("model.pth.part").read_bytes()
    assert len(part) >= 1 << 20
    assert part == DATA[: len(part)]


def test_a_server_that_is_not_there_is_told(site, target: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        download("http://127.0.0.1:9/model.pth", target, SHA256)
    assert "http://127.0.0.1:9/model.pth" in caught.value.cause
    assert "connection" in caught.value.remedy


def test_an_interrupt_keeps_what_arrived(site, target: Path) -> None:
    def interrupt(have: int, _: int | None) -> None:
        if have >= 1 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(site.url + PATH, target, SHA256, interrupt)
    part = target.with_name("model.pth.part").read_bytes()
    assert part == DATA[: len(part)]
    assert len(part) >= 1 << 20
    download(site.url + PATH, target, SHA256)
    assert site.ranges == [None, f"bytes={len(part)}-"]
    assert target.read_bytes() == DATA


def test_two_downloads_at_once_fetch_once(site, target: Path) -> None:
    threads = [
        threading.Thread(target=download, args=(site.url + PATH, target, SHA256)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == DATA
    assert site.ranges == [None]


def test_a_full_disk_is_an_error_of_ours(
    site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def full(self: Path, mode: str = "r", *args, **kwargs):
        if self.suffix == ".part" and mode != "rb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ZeroflawError) as caught:
        download(site.url + PATH, target, SHA256)
    assert str(target) in caught.value.cause


def test_a_cache_that_is_a_file_is_an_error_of_ours(site, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("x")
    with pytest.raises(ZeroflawError) as caught:
        download(site.url + PATH, tmp_path / "cache" / "weights" / "x.pth", SHA256)
    assert str(tmp_path / "cache") in caught.value.cause


@pytest.mark.parametrize("data", [b"", b"hello\n", DATA], ids=["empty", "text", "3 MB"])
def test_digests_are_those_of_git_and_coreutils(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    command = [git, "hash-object", "--no-filters", str(path)]
    want = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert Digest("git_blob", "").of(path) == want.stdout.strip()
    assert Digest("sha256", "").of(path) == hashlib.sha256(data).hexdigest()


def test_a_git_blob_is_checked(site, target: Path) -> None:
    header = f"blob {len(DATA)}\0".encode()
    good = Digest("git_blob", hashlib.sha1(header + DATA, usedforsecurity=False).hexdigest())
    download(site.url + PATH, target, good)
    assert target.read_bytes() == DATA
    other = target.with_name("other.pth")
    plain = Digest("git_blob", hashlib.sha1(DATA, usedforsecurity=False).hexdigest())
    with pytest.raises(DownloadError, match="git_blob"):
        download(site.url + PATH, other, plain)
    assert not other.exists()


def test_the_first_digits_of_a_digest_are_checked_where_no_more_are_published(
    site, target: Path
) -> None:
    first = Digest("sha256_prefix", SHA256.value[:8])
    assert download(site.url + PATH, target, first) == target
    assert download(site.url + PATH, target, first) == target  # it is there, and checked again
    target.unlink()
    other = Digest("sha256_prefix", "00000000")
    with pytest.raises(DownloadError, match="sha256_prefix"):
        download(site.url + PATH, target, other)
    assert not target.exists()
