"""Whether a file that is not named as an image may be one all the same."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Final

# Files that operating systems leave beside pictures.
_SYSTEM_FILES: Final = frozenset(
    {".ds_store", ".directory", "desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db"}
)
_HEAD_BYTES: Final = 4096
_SHORT_BYTES: Final = 64
_TEXT_SUFFIXES: Final = frozenset(
    {".cfg", ".csv", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".rst", ".toml",
     ".tsv", ".txt", ".xml", ".yaml", ".yml"}
)  # fmt: skip
_BEGINNING: Final = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|II[*+]\0|MM\0[*+]|RIFF....WEBP|P[1-6]\s+[#\d]", re.DOTALL
)


def may_be_picture(path: Path) -> bool:
    """Return whether a file may hold a picture, judged by its content.

    One rule: everything may, except what is plainly something else: a file that an operating
    system leaves in folders (`.DS_Store`, `Thumbs.db`, `._*`), an empty file, and text. What
    begins as an image file does may be a picture in any case, and so may what cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return True
    if _BEGINNING.match(head):
        return True
    name = path.name.lower()
    if name in _SYSTEM_FILES or name.startswith("._"):
        return False
    return not _is_text(head, path.suffix.lower())


def _is_text(head: bytes, suffix: str) -> bool:
    """Return whether the beginning of a file is text.

    Bytes of a dim raw picture may all be printable, so that a file which is not named as text
    is text only if it is short or has lines.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return suffix in _TEXT_SUFFIXES
    if any(byte < 0x20 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return False
    if suffix in _TEXT_SUFFIXES:
        return True
    # A character may be cut at the end of the head.
    decoded = codecs.getincrementaldecoder("utf-8")()
    try:
        decoded.decode(head)
    except UnicodeDecodeError:
        return False
    return b"\n" in head or len(head) < _SHORT_BYTES
