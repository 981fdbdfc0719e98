"""Fetching photos: tiny packages made here, from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from zeroflaw_engines.errors import DatasetError, DownloadError
from zeroflaw_export.mini.photos.fetch import fetch
from zeroflaw_export.mini.photos.sources import PhotoSource, PhotoSources


def picture(seed: int, size: tuple[int, int] = (300, 280)) -> NDArray[np.uint8]:
    """Coarse noise, which survives JPEG and is like no other seed's."""
    coarse = np.random.default_rng(seed).integers(40, 220, (20, 20, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def encoded(image: NDArray[np.uint8], suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def zip_of(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def deb_of(files: dict[str, bytes], packing: str = "xz", link: str | None = None) -> bytes:
    """A Debian package: an `ar` archive of its version, its control files and its files."""
    tar_data = io.BytesIO()
    with tarfile.open(fileobj=tar_data, mode=f"w:{packing}") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        f"data.tar.{packing}": tar_data.getvalue(),
    }
    packed = b"!<arch>\n"
    for name, content in parts.items():
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    return packed


def source_of(site, data: bytes, name: str = "walls", **other: object) -> PhotoSource:
    """Serve an archive, and say of it what sources.toml would."""
    other.setdefault("kind", "deb")
    path = f"/pool/{name}.{'deb' if other['kind'] == 'deb' else 'whl'}"
    site.files[path] = data
    said = {
        "package": f"{name}-data",
        "version": "1.2-3",
        "url": site.url + path,
        "sha256": hashlib.sha256(data).hexdigest(),
        "licences": ("CC0-1.0",),
        "credit": "A. Painter",
        "include": r"\.(png|jpg)$",
    }
    return PhotoSource(name=name, **(said | other))


def only(*sources: PhotoSource, exclude: tuple[str, ...] = ()) -> PhotoSources:
    return PhotoSources(exclude, sources)


def stems(photos: list[Path]) -> list[str]:
    """The readable parts of the photos' names."""
    return [photo.stem.rpartition("-")[0] for photo in photos]


def test_photos_of_a_debian_package_and_of_a_wheel_arrive(site, tmp_path: Path) -> None:
    deb = source_of(site, deb_of({"./usr/a.png": encoded(picture(1)), "./usr/doc": b"text"}))
    wheel = source_of(site, zip_of({"p/b.png": encoded(picture(2))}), "floors", kind="pypi")
    counts = []
    photos = fetch(tmp_path, only(deb, wheel), report=lambda *count: counts.append(count))
    assert stems(photos) == ["usr_a", "p_b"]
    assert [photo.parent for photo in photos] == [
        tmp_path / "photos" / "walls",
        tmp_path / "photos" / "floors",
    ]
    assert counts == [("walls", 1), ("floors", 1)]
    for photo, seed in zip(photos, (1, 2), strict=True):
        error = cv2.absdiff(cv2.imread(str(photo)), picture(seed))
        assert error.mean() < 3


@pytest.mark.parametrize("packing", ["xz", "gz"])
def test_a_zip_archive_within_a_package_is_opened(site, tmp_path: Path, packing: str) -> None:
    inner = zip_of({"textures/a.png": encoded(picture(1)), "textures/b.png": encoded(picture(2))})
    deb = source_of(
        site,
        deb_of({"./usr/pak.pk3": inner, "./usr/c.png": encoded(picture(3))}, packing),
        include="^textures/",
    )
    assert stems(fetch(tmp_path, only(deb))) == ["textures_a", "textures_b"]


def test_licences_name_every_source(site, tmp_path: Path) -> None:
    one = source_of(site, deb_of({"a.png": encoded(picture(1))}))
    two = source_of(
        site, deb_of({"a.png": encoded(picture(1))}), "floors", licences=("CC-BY-4.0", "MIT")
    )
    fetch(tmp_path, only(one, two))
    text = (tmp_path / "photos" / "LICENCES.txt").read_text("utf-8")
    assert f"walls: walls-data 1.2-3 (deb)\n    {one.url}\n    licences: CC0-1.0\n" in text
    assert "licences: CC-BY-4.0, MIT\n    by: A. Painter" in text


def test_excluded_members_stay_out(site, tmp_path: Path) -> None:
    names = ["wall.png", "wall_n.png", "gravel2.png", "Gravel/wood.png", "floor.PNG"]
    files = {name: encoded(picture(i)) for i, name in enumerate(names)}
    deb = source_of(site, deb_of(files), exclude="_n[.]png$")
    photos = fetch(tmp_path, only(deb, exclude=("gravel",)))
    assert stems(photos) == ["floor", "wall"]


def test_what_is_no_photo_stays_out(site, tmp_path: Path) -> None:
    good = picture(1)
    black = good.copy()
    black[:, :140] = 0
    clear = np.dstack([good, np.full(good.shape[:2], 255, np.uint8)])
    clear[:100, :, 3] = 0
    images = {
        "good": good,
        "flat": np.full((300, 300, 3), 90, np.uint8),
        "small": picture(2, (255, 400)),
        "narrow": picture(3, (256, 1040)),
        "black": black,
        "clear": clear,
    }
    files = {f"{name}.png": encoded(image) for name, image in images.items()}
    files["damaged.png"] = files["good.png"][:2000]
    assert stems(fetch(tmp_path, only(source_of(site, deb_of(files))))) == ["good"]


def test_a_cut_out_object_is_laid_on_grey(site, tmp_path: Path) -> None:
    clear = np.dstack([picture(1), np.full((300, 280), 255, np.uint8)])
    clear[:100, :, 3] = 0
    source = source_of(site, deb_of({"a.png": encoded(clear)}), cut_out=True)
    [photo] = fetch(tmp_path, only(source))
    ground = cv2.imread(str(photo))[:90]
    assert np.abs(ground.astype(int) - 208).max() <= 3


def test_a_large_photo_is_scaled_down_and_a_copy_left_out(site, tmp_path: Path) -> None:
    large = picture(1, (1100, 1375))
    files = {"a.png": encoded(large), "copy.bmp": encoded(large, ".bmp")}
    [photo] = fetch(tmp_path, only(source_of(site, deb_of(files), include=".")))
    assert stems([photo]) == ["a"]
    assert cv2.imread(str(photo)).shape == (1024, 1280, 3)


def test_a_wrong_digest_is_refused_by_the_name_of_the_source(site, tmp_path: Path) -> None:
    source = source_of(site, deb_of({"a.png": encoded(picture(1))}), sha256="0" * 64)
    with pytest.raises(DownloadError) as caught:
        fetch(tmp_path, only(source))
    assert "photo source walls (walls-data 1.2-3)" in caught.value.cause
    assert "0" * 64 in caught.value.cause
    assert not (tmp_path / "photos" / "walls").exists()


def test_a_source_out_of_reach_says_where_its_archive_belongs(site, tmp_path: Path) -> None:
    data = deb_of({"a.png": encoded(picture(1))})
    source = source_of(site, data)
    site.files.clear()
    with pytest.raises(DownloadError) as caught:
        fetch(tmp_path, only(source))
    archive = tmp_path / "photo_archives" / "walls.deb"
    assert "photo source walls" in caught.value.cause
    assert str(archive) in caught.value.remedy
    archive.write_bytes(data)
    assert stems(fetch(tmp_path, only(source))) == ["a"]


@pytest.mark.parametrize("outside", ["../../evil.png", "/etc/evil.png", "a\\..\\..\\evil.png"])
@pytest.mark.parametrize("kind", ["deb", "pypi"])
def test_a_member_outside_the_archive_is_refused(
    site, tmp_path: Path, kind: str, outside: str
) -> None:
    files = {"a.png": encoded(picture(1)), outside: encoded(picture(2))}
    data = deb_of(files) if kind == "deb" else zip_of(files)
    with pytest.raises(DatasetError) as caught:
        fetch(tmp_path, only(source_of(site, data, kind=kind)))
    assert "evil.png" in caught.value.cause
    assert not list(tmp_path.rglob("*.jpg"))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == [".lock"]


def test_a_link_is_passed_over(site, tmp_path: Path) -> None:
    source = source_of(site, deb_of({"a.png": encoded(picture(1))}, link="b.png"))
    assert stems(fetch(tmp_path, only(source))) == ["a"]


def test_what_is_done_is_not_done_again(site, tmp_path: Path) -> None:
    one = source_of(site, deb_of({"a.png": encoded(picture(1))}))
    two = source_of(site, deb_of({"b.png": encoded(picture(2))}), "floors")
    served = site.files.pop("/pool/floors.deb")
    with pytest.raises(DownloadError):
        fetch(tmp_path, only(one, two))
    asked = len(site.ranges)
    [first] = (tmp_path / "photos" / "walls").glob("*.jpg")
    before = first.stat().st_mtime_ns
    site.files["/pool/floors.deb"] = served
    assert stems(fetch(tmp_path, only(one, two))) == ["a", "b"]
    assert len(site.ranges) == asked + 1
    assert first.stat().st_mtime_ns == before


def test_what_a_killed_run_left_is_removed(site, tmp_path: Path) -> None:
    left = tmp_path / "photos" / ".walls.0123abcd"
    left.mkdir(parents=True)
    (left / "a.jpg").write_bytes(b"half")
    assert stems(fetch(tmp_path, only(source_of(site, deb_of({"a.png": encoded(picture(1))})))))
    assert not left.exists()


def test_a_source_that_is_described_anew_is_made_anew(site, tmp_path: Path) -> None:
    data = deb_of({"a.png": encoded(picture(1)), "b.png": encoded(picture(2))})
    assert stems(fetch(tmp_path, only(source_of(site, data)))) == ["a", "b"]
    assert stems(fetch(tmp_path, only(source_of(site, data, exclude="a")))) == ["b"]
    assert stems(fetch(tmp_path, only(source_of(site, data), exclude=("b",)))) == ["a"]


def test_a_source_without_photos_is_an_error(site, tmp_path: Path) -> None:
    source = source_of(site, deb_of({"a.txt": b"text"}))
    with pytest.raises(DatasetError, match="walls gives no photo"):
        fetch(tmp_path, only(source))


@pytest.mark.parametrize("data", [b"no package", b"!<arch>\n", b"!<arch>\n" + b"x" * 60])
def test_what_is_no_package_is_an_error(site, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"walls\.deb"):
        fetch(tmp_path, only(source_of(site, data)))


@pytest.mark.parametrize("kind", ["deb", "pypi"])
def test_a_damaged_archive_is_an_error(site, tmp_path: Path, kind: str) -> None:
    files = {"a.png": encoded(picture(1))}
    data = deb_of(files) if kind == "deb" else zip_of(files)
    with pytest.raises(DatasetError, match="cannot be read"):
        fetch(tmp_path, only(source_of(site, data[: len(data) // 2], kind=kind)))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the mode does not bind root")
def test_a_folder_that_cannot_be_written_is_named(site, tmp_path: Path) -> None:
    source = source_of(site, deb_of({"a.png": encoded(picture(1))}))
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DatasetError, match="photos cannot be written"):
            fetch(tmp_path, only(source))
    finally:
        tmp_path.chmod(0o700)
