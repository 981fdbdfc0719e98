"""The sources of the photos: the file as it ships, and files that are none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zeroflaw_engines.errors import DatasetError
from zeroflaw_export.mini.photos.sources import OUR_SOURCES, PhotoSource, read_photo_sources

SOURCES = read_photo_sources()
PAGE = Path(__file__).resolve().parents[5] / "docs" / "mini_photos.md"


def source(name: str) -> PhotoSource:
    return next(source for source in SOURCES.sources if source.name == name)


@pytest.mark.parametrize("one", SOURCES.sources, ids=lambda one: one.name)
def test_a_source_is_free_and_checked(one: PhotoSource) -> None:
    free = re.compile(
        r"(CC0|CC-BY|CC-BY-SA|GPL|LGPL|Apache)-\d\.\d(-only|-or-later)?|MIT|public domain"
    )
    assert one.licences
    assert [licence for licence in one.licences if not free.fullmatch(licence)] == []
    assert re.fullmatch("[0-9a-f]{64}", one.sha256)
    host = {"deb": "https://deb.debian.org/debian/pool/main/", "pypi": "https://files.pythonhosted"}
    assert one.url.startswith(host[one.kind])
    assert f"{one.version}" in one.url.replace("_", "-").replace("%2B", "+")


@pytest.mark.parametrize("one", SOURCES.sources, ids=lambda one: one.name)
def test_the_manual_names_every_source(one: PhotoSource) -> None:
    row = next(line for line in PAGE.read_text("utf-8").splitlines() if f"`{one.package}`" in line)
    assert all(licence in row for licence in one.licences), row
    assert one.version in row


@pytest.mark.parametrize(
    "member",
    [
        "textures/tex_nature/gravel001.jpg",
        "textures/base/Pebbles.png",
        "textures/tex_x/broken_glass.jpg",
        "textures/tex_x/window3.jpg",
        "textures/tex_x/circuit_board.png",
        "textures/tex_x/cast_iron_plate.jpg",
        "textures/tex_x/wall_cracked.jpg",
        "textures/tex_x/metal_dented.jpg",
        "textures/tex_x/wall_dent2.jpg",
        "textures/tex_x/coin.png",
        "textures/tex_x/wall001_nm.png",
        "textures/tex_x/wall001_norm.tga",
        "textures/tex_x/wall001-gloss.jpg",
        "textures/tex_x/notes.txt",
    ],
)
def test_no_source_gives_the_test_split_or_maps(member: str) -> None:
    assert [one.name for one in SOURCES.sources if SOURCES.wants(one, member)] == []


def test_of_scikit_image_nothing_of_the_test_split_is_taken() -> None:
    wanted = [
        name
        for name in ("astronaut", "brick", "chelsea", "coffee", "coins", "grass", "gravel", "text")
        if SOURCES.wants(source("scikit-image"), f"skimage/data/{name}.png")
    ]
    assert wanted == ["astronaut", "brick", "chelsea", "grass"]


@pytest.mark.parametrize(
    "member",
    [
        "textures/tex_ctp1/wood_b_1.jpg",
        "textures/tex_mattn/metal_rust.jpg",
        "textures/tex_buildings/carpet001.png",
        "base/textures/tex_misc/accident.jpg",
    ],
)
def test_surfaces_are_taken(member: str) -> None:
    assert SOURCES.wants(source("ufoai"), member)


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = OUR_SOURCES.read_text("utf-8")
    assert old in text
    path = tmp_path / "sources.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "deb"', 'kind = "rpm"', "not valid"),
        ("include = 'backgrounds/budgie/'", "include = '('", "not valid"),
        ("[[sources]]", "[sources", "not valid"),
        ('name = "mate"', 'name = "gnome"', "two photo sources gnome"),
        ('name = "mate"', 'name = "../mate"', "cannot be the folder"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(DatasetError, match=message) as caught:
        read_photo_sources(path)
    assert str(path) in caught.value.cause


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.toml cannot be read"):
        read_photo_sources(tmp_path / "none.toml")
