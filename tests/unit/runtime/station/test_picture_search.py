"""The search for pictures: each once, and everything that is left out named."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroflaw.station.picture_search import PictureSearch, find_pictures
from zeroflaw.station.run_log import Entry, first_line, log_line
from zeroflaw_engines.errors import ImageFileError

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path, format="PNG")
    return path


def found(search: PictureSearch) -> list[str]:
    return [one.name.as_posix() for one in search.pictures]


def missed(search: PictureSearch) -> set[str]:
    return {one.path.name for one in search.missed}


def harmless(search: PictureSearch) -> set[str]:
    return {one.path.name for one in search.left_out if not one.may_be_picture}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    picture(tmp_path / "photos" / "part.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("noext", b"\x89PNG\r\n\x1a\n"),
        ("frame.raw", bytes(range(256))),
        ("dim.raw", b"@ABCD" * 1000),  # printable bytes, as a dim raw picture may have them
        ("grey.bin", b"P2\n2 2\n255\n0 1\n2 3\n"),
        ("part.jxl", b"\0\0\0\x0cjP  \r\n"),
        ("part.png.tmp", b"\x89PNG\r\n\x1a\n"),
        (".hidden.png", b"\x89PNG\r\n\x1a\n"),
        ("._part.png", b"\x89PNG\r\n\x1a\n"),
        ("archive.zip", b"PK\x03\x04\0\0"),
        ("README.txt.jpeg_", b"\xff\xd8\xff\xe0"),
    ],
)
def test_what_may_be_a_picture_is_missed(photos: Path, name: str, content: bytes) -> None:
    (photos / name).write_bytes(content)
    search = find_pictures([photos])
    assert (found(search), missed(search), harmless(search)) == (["part.png"], {name}, set())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.txt", b"One line a part.\n"),
        ("LIESMICH.txt", "Grüße".encode("latin-1")),
        ("notes", b"first\nsecond\n"),
        ("done", b""),
        ("part.json", b'{"a": ' + b"1" * 9000),
        ("umlaut.md", ("ü" * 5000).encode()),
        (".DS_Store", b"\0\0\0\1Bud1"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0"),
        ("desktop.ini", b"[.ShellClassInfo]"),
        ("._part.png", b"\0\5\x16\7"),
        (".gitignore", b"out/\n"),
    ],
)
def test_what_is_plainly_something_else_is_named_alone(
    photos: Path, name: str, content: bytes
) -> None:
    (photos / name).write_bytes(content)
    search = find_pictures([photos])
    assert (found(search), missed(search), harmless(search)) == (["part.png"], set(), {name})


def test_links_are_followed_once_and_loops_end(photos: Path, tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "far.png")
    (photos / "a_loop").symlink_to(photos)
    (photos / "b_folder").symlink_to(tmp_path / "elsewhere")
    (photos / "c_same").symlink_to(tmp_path / "elsewhere")
    (photos / "a_twin.png").symlink_to(photos / "part.png")
    (photos / "dangling.png").symlink_to(tmp_path / "nowhere")
    (photos / "itself.png").symlink_to(photos / "itself.png")
    search = find_pictures([photos])
    assert found(search) == ["part.png", "b_folder/far.png"]
    assert missed(search) == {"dangling.png", "itself.png"}
    assert harmless(search) == {"a_loop", "c_same", "a_twin.png"}


def test_what_is_named_twice_is_taken_once(photos: Path) -> None:
    search = find_pictures([photos / "part.png", photos, photos / "part.png", photos])
    assert found(search) == ["part.png"]
    assert len(search.left_out) == 3
    assert search.missed == ()


def test_hidden_folders_are_named_and_missed_if_pictures_are_in_them(photos: Path) -> None:
    (photos / ".cache").mkdir()
    picture(photos / ".trash" / "deep" / "old.png")
    search = find_pictures([photos])
    assert (missed(search), harmless(search)) == ({".trash"}, {".cache"})


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_what_may_not_be_read_is_missed_or_fails_later(mode: int) -> None:
    """With a user of no rights, for root may read everything; in a folder that he may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        picture(folder / "part.png")
        (folder / "unreadable.png").write_bytes(b"\x89PNG")
        (folder / "unreadable").write_bytes(b"text\n")
        picture(folder / "locked" / "inside.png")
        for path in (folder / "unreadable.png", folder / "unreadable"):
            path.chmod(0o000)
        (folder / "locked").chmod(mode)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            search = find_pictures([folder])
        finally:
            os.seteuid(user)
            (folder / "locked").chmod(0o755)
    names = {"part.png", "unreadable.png"}
    if mode == 0o444:  # names can be read there, and nothing else
        assert set(found(search)) == names | {"locked/inside.png"}
        assert missed(search) == {"unreadable"}
    else:
        assert set(found(search)) == names
        assert missed(search) == {"unreadable", "locked"}


def test_what_is_no_file_is_not_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(photos)
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
        search = find_pictures([photos, photos / "pipe.png"])
    assert found(search) == ["part.png"]
    assert missed(search) == {"pipe.png"}
    assert harmless(search) == {"socket"}


def test_a_file_that_is_named_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    search = find_pictures([picture(tmp_path / "noext"), picture(tmp_path / ".hidden.png")])
    assert found(search) == ["noext", ".hidden.png"]


def results(folder: Path, *stems: str) -> Path:
    """A folder of results as a run leaves it."""
    (folder / ".zeroflaw-run").mkdir(parents=True)
    entries = [Entry(f"/in/{stem}.png", f"{stem}.png", stem, "accept") for stem in stems]
    log = first_line() + b"".join(map(log_line, entries))
    (folder / ".zeroflaw-run" / "log.jsonl").write_bytes(log)
    for stem in stems:
        for suffix in (".mask.png", ".overlay.png", ".map.png"):
            picture(folder / (stem + suffix))
    return folder


def test_results_of_runs_are_never_input(photos: Path, tmp_path: Path) -> None:
    results(photos / "earlier", "part")
    picture(photos / "earlier" / "stranger.png")
    picture(photos / "now" / "mine.png")
    search = find_pictures([photos], results=photos / "now")
    assert found(search) == ["part.png"]
    assert harmless(search) == {"earlier", "now"}
    assert missed(search) == {"stranger.png", "mine.png"}  # lies there, but no run wrote it
    # The same behind a link, and named one by one, as `*` in a shell does.
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(photos / "earlier")
    with pytest.raises(ImageFileError, match="no image"):
        find_pictures([tmp_path / "in"])
    with pytest.raises(ImageFileError, match="no image"):
        find_pictures([photos / "earlier" / "part.mask.png"])


def test_results_beside_the_pictures_are_told_from_them(photos: Path) -> None:
    results(photos, "part")
    picture(photos / "new.mask.png")
    search = find_pictures([photos], results=photos)
    assert found(search) == ["new.mask.png", "part.png"]
    assert [one.why for one in search.left_out] == ["holds 3 results of earlier runs"]


def test_results_of_a_run_before_there_was_a_log_are_known_by_its_summary(photos: Path) -> None:
    out = results(photos / "out", "part")
    shutil.rmtree(out / ".zeroflaw-run")
    (out / "summary.csv").write_text(
        "file,status,decision,image_score,threshold,output\nin/part.png,ok,accept,0.1,0.5,part\n"
    )
    search = find_pictures([photos])
    assert (found(search), missed(search)) == (["part.png"], set())


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_names_are_found_in_either_normal_form(tmp_path: Path, typed: str) -> None:
    stored = "NFD" if typed == "NFC" else "NFC"
    picture(tmp_path / unicodedata.normalize(stored, "Prüflos") / "größe.png")
    given = tmp_path / unicodedata.normalize(typed, "Prüflos") / "größe.png"
    assert len(find_pictures([given]).pictures) == 1
    assert len(find_pictures([given.parent]).pictures) == 1


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ImageFileError, match="does not exist"):
        find_pictures([tmp_path / "no.png"])
    with pytest.raises(ImageFileError, match="leads nowhere"):
        find_pictures([tmp_path / "link.png"])
    (tmp_path / "frame.raw").write_bytes(bytes(1000))
    with pytest.raises(ImageFileError, match=r"no image.*2 files were left out"):
        find_pictures([tmp_path])
