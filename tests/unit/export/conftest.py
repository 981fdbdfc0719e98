"""A web server on this machine, and tiny models, for the tests of the export."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tenacity
import torch
from open_clip.model import CLIP
from segment_anything.modeling import Sam

from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.random_weights import randomise_weights
from zeroflaw_export.weights import download as download_module


@dataclass
class Site:
    """What the server serves, how it misbehaves, and what it was asked.

    Attributes:
        files: Content by path.
        honour_range: Whether it answers Range with 206.
        break_after: For each request in turn, after how many body bytes it hangs up (None: never).
        status: For each request in turn, a status to refuse with (None: serve).
        ranges: The Range header of each request.
        send_length: Whether it says how long the body is.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    honour_range: bool = True
    break_after: list[int | None] = field(default_factory=list)
    status: list[int | None] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    send_length: bool = True


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The server, with no pause between attempts and no proxy in between."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            turn = len(site.ranges)
            site.ranges.append(wanted)
            status = site.status[turn] if turn < len(site.status) else None
            data = site.files.get(self.path)
            if status or data is None:
                self.send_response(status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            if wanted and site.honour_range:
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            body = data[start:]
            if site.send_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            stop = site.break_after[turn] if turn < len(site.break_after) else None
            self.wfile.write(body[:stop])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(
        download_module, "wait_exponential", lambda **_: tenacity.wait_none(), raising=True
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models lose more in waiting for each other's threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_clip() -> CLIP:
    clip = clip_architecture("tiny").build(224)
    randomise_weights(clip, 11)
    return clip


@pytest.fixture(scope="session")
def tiny_sam() -> Sam:
    torch.manual_seed(3)
    sam = sam_architecture("tiny").build()
    randomise_weights(sam, 12)
    return sam
