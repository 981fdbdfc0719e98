"""Downloads that can be broken off: resumed, checked, and published only when they are whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import requests
import urllib3
from filelock import FileLock
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from zeroflaw_engines.errors import DownloadError

_CHUNK: Final = 1 << 20
_TIMEOUT_SECONDS: Final = 30
_ATTEMPTS: Final = 5
_TRANSIENT: Final = (
    requests.ConnectionError,
    requests.Timeout,
    urllib3.exceptions.HTTPError,
)

# Bytes that are there, bytes that will be (or None).
ReportBytes = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Digest:
    """What a file must hash to.

    Attributes:
        kind: `sha256`; `sha256_prefix` for files of which only the first digits are published,
            which shows damage and mix-ups and no forgery; or `git_blob` for files whose only
            published digest is their git object (SHA-1 over a header and the content).
        value: Hexadecimal.
    """

    kind: Literal["sha256", "sha256_prefix", "git_blob"]
    value: str

    def of(self, path: Path) -> str:
        """Compute this kind of digest of a file."""
        if self.kind != "git_blob":
            hasher = hashlib.sha256()
        else:
            hasher = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
        found = hasher.hexdigest()
        return found[: len(self.value)] if self.kind == "sha256_prefix" else found


def download(url: str, target: Path, digest: Digest, report: ReportBytes | None = None) -> Path:
    """Download a file unless it is there already.

    What arrived before an interruption is kept as `<target>.part` and continued. The file gets
    its name only after its digest was checked.

    Args:
        report: Called with the bytes that are there and the bytes in all, None if unknown.

    Returns:
        `target`.

    Raises:
        DownloadError: The server cannot be reached, refuses, or sends something else.
    """
    try:
        return _download(url, target, digest, report)
    except OSError as error:  # requests' own errors are OSErrors too, but were named before
        raise DownloadError(
            f"{target} cannot be written: {error}", "check the path and the space on its disk"
        ) from error


def _download(url: str, target: Path, digest: Digest, report: ReportBytes | None) -> Path:
    if target.exists():
        if digest.of(target) == digest.value:
            return target
        raise DownloadError(
            f"{target} is not what {url} should be: its {digest.kind} is not {digest.value}",
            "delete the file and try again",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists():
            return target
        try:
            for attempt in Retrying(
                stop=stop_after_attempt(_ATTEMPTS),
                wait=wait_exponential(multiplier=0.2, max=10),
                retry=retry_if_exception_type(_TRANSIENT),
                reraise=True,
            ):
                with attempt:
                    _continue(url, part, report)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise DownloadError(
                f"{url} cannot be downloaded: {error}",
                f"check the connection and try again (what arrived is kept in {part}), "
                "or fetch the file by other means and give its path",
            ) from error
        found = digest.of(part)
        if found != digest.value:
            part.unlink()
            raise DownloadError(
                f"{url} sent a file with {digest.kind} {found}, not {digest.value}; it was deleted",
                "try again; if it happens again, do not trust the source",
            )
        part.replace(target)
    return target


def _continue(url: str, part: Path, report: ReportBytes | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # all of it is there; the digest decides
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            # read1 gives what has arrived; a longer read would lose it when the line breaks
            while chunk := response.raw.read1(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if report:
                    report(have, total)
        if total is not None and have < total:
            raise requests.ConnectionError(f"the connection ended after {have} of {total} bytes")
