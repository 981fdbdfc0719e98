"""Names of results: inside their folder, and never two pictures with one."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zeroflaw.station.result_names import result_stems
from zeroflaw.station.run_log import RESULT_SUFFIXES


def stems(folder: Path, *names: str, kept: tuple[str, ...] = ()) -> list[str]:
    return result_stems([PurePosixPath(name) for name in names], folder, kept)


def test_the_suffix_goes_unless_it_is_needed(tmp_path: Path) -> None:
    assert stems(tmp_path, "part.jpg", "part.png", "part.png", "line/part.png") == [
        "part", "part_png", "part_2", "line/part",
    ]  # fmt: skip
    assert stems(tmp_path, "part.png", kept=("part",)) == ["part_png"]


def test_names_that_a_disk_takes_for_the_same_are_two(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "ü.png")
    assert stems(tmp_path, "A.png", "a.png") == ["A", "a_png"]
    twins = stems(tmp_path, composed, unicodedata.normalize("NFD", composed))
    assert len({unicodedata.normalize("NFC", stem) for stem in twins}) == 2


@pytest.mark.parametrize("name", ["index.html/a.png", "summary.csv/a.png", ".zeroflaw-run/a.png",
                                  "a.json/b.png"])  # fmt: skip
def test_no_folder_takes_the_name_of_a_file_of_ours(tmp_path: Path, name: str) -> None:
    first, second = stems(tmp_path, "a.png", name)
    assert first == "a"
    assert PurePosixPath(second).parent == PurePosixPath(str(PurePosixPath(name).parent) + "_2")


def test_no_file_takes_the_name_of_a_folder_of_ours(tmp_path: Path) -> None:
    assert stems(tmp_path, "a.json/b.png", "a.png") == ["a.json/b", "a_png"]


def test_files_of_the_user_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "part.json").write_text("labels of the user")
    (tmp_path / "line").write_text("a file")
    assert stems(tmp_path, "part.png", "line/part.png") == ["part_png", "line_2/part"]


def test_links_are_passed_over(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "line").symlink_to(outside)
    (out / "part.json").symlink_to(outside / "victim")
    (out / "odd.mask.png").symlink_to(tmp_path / "nowhere")
    assert stems(out, "line/a.png", "part.png", "odd.png") == ["line_2/a", "part_png", "odd_png"]


@pytest.mark.parametrize("letter", ["l", "ü", "螺", "\udcff"])
def test_long_names_are_cut_with_a_digest(tmp_path: Path, letter: str) -> None:
    width = len(os.fsencode(letter))
    names = [letter * (250 // width) + f"{i}.png" for i in range(2)]
    found = stems(tmp_path, *names)
    assert len(set(found)) == 2
    for stem in found:
        for suffix in RESULT_SUFFIXES:
            (tmp_path / (stem + suffix)).write_bytes(b"")


NAMES = st.lists(
    st.lists(
        st.text(
            st.characters(exclude_characters="/\0", exclude_categories=()).filter(
                lambda c: not "\ud800" <= c < "\udc80" and not "\udcff" < c <= "\udfff"
            ),
            min_size=1, max_size=90,
        ).filter(lambda part: part not in (".", "..") and len(os.fsencode(part)) < 256)
        | st.sampled_from(["..png", "...png", "a.json", "a", "A", "index.html", "summary.csv"]),
        min_size=1, max_size=3,
    ).map("/".join),
    max_size=8,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(names=NAMES)
@example(names=["a.json/..png", "a.json"])
def test_any_names_give_files_that_are_distinct_and_inside(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("out")
    found = stems(folder, *names)
    for stem in found:
        for suffix in RESULT_SUFFIXES:
            path = folder / (stem + suffix)
            assert path.resolve().is_relative_to(folder.resolve())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
    assert not (folder / "index.html").exists()
    assert not (folder / "summary.csv").exists()
