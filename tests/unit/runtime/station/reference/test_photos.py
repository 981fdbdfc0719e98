"""Photos: which can be learned from, and what is kept of them on the disk."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.small_bundle import disk_full, left_overs, write_small_bundle
from zeroflaw.station.reference.photos import (
    Photo,
    PhotoReader,
    PhotoStore,
    directory_of,
    learning_directory,
    require_disk_space,
    survey_photos,
)
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import BundleError, FrameError, ImageFileError, ReferenceBankError
from zeroflaw_engines.parameters import MethodParameters

PHOTO = Photo(Path("a.png"), "a" * 64, (10, 10))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_small_bundle(tmp_path / "parent" / "b")


@pytest.fixture
def files(tmp_path: Path, rng) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, size in zip(paths, ((40, 60), (40, 60), (60, 40), (40, 60)), strict=True):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return paths


def test_each_content_is_taken_once_and_the_rest_is_named(files, tmp_path: Path) -> None:
    copy, blind, cut = (tmp_path / f"{name}.png" for name in ("copy", "blind", "cut"))
    shutil.copyfile(files[1], copy)
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(blind)
    cut.write_bytes(files[0].read_bytes()[:200])
    left_out = {}
    survey = survey_photos(
        [*files[:2], copy, blind, cut, *files[2:]],
        PhotoReader(),
        MethodParameters(),
        left_out.__setitem__,
    )
    assert [photo.path for photo in survey.photos] == files
    assert survey.copies == (copy,)
    assert survey.failed == (blind, cut)
    assert list(left_out) == [copy, blind, cut]
    assert left_out[copy] is None
    assert isinstance(left_out[cut], ImageFileError)
    assert isinstance(left_out[blind], FrameError)
    assert str(blind) in left_out[blind].cause
    assert "contrast" in left_out[blind].cause
    (text,) = survey.warnings
    assert f"1 photos are of another size than {files[0]} (60 x 40): {files[2]} (40 x 60)" in text


def test_a_file_that_changes_meanwhile_is_refused(files) -> None:
    (photo,) = survey_photos(files[:1], PhotoReader(), MethodParameters()).photos
    assert PhotoReader().frame(photo).shape == (40, 60, 3)
    shutil.copyfile(files[1], files[0])
    with pytest.raises(ReferenceBankError, match=f"{files[0]} was changed"):
        PhotoReader().frame(photo)


def test_what_is_kept_is_read_again_and_for_these_settings_alone(bundle, rng) -> None:
    with learning_directory(bundle, "nut") as directory:
        store = PhotoStore(directory, bundle.path, "1" * 64)
        assert store.read(PHOTO) is None
        arrays = {"tokens": rng.random((2, 3, 4), np.float32), "zero_shot": np.array([0.3])}
        store.write(PHOTO, arrays)
        assert store.has(PHOTO)
        for name, value in store.read(PHOTO).items():
            np.testing.assert_array_equal(value, arrays[name])
            assert value.dtype == arrays[name].dtype
        assert PhotoStore(directory, bundle.path, "2" * 64).read(PHOTO) is None
        (file,) = directory.glob("*.photo")
        data = file.read_bytes()
        for damaged in (data[:50], data[:-1], b"", data[:-40] + bytes(40)):
            file.write_bytes(damaged)
            assert store.read(PHOTO) is None


def test_a_learning_that_ends_well_leaves_nothing(bundle) -> None:
    with learning_directory(bundle, "nut") as directory:
        (directory / "something").write_text("x")
    assert left_overs(bundle.path) == []


def test_a_learning_that_fails_keeps_what_it_computed(bundle) -> None:
    with pytest.raises(ZeroDivisionError), learning_directory(bundle, "nut"):
        raise ZeroDivisionError
    assert left_overs(bundle.path) == []  # it had computed nothing
    with pytest.raises(KeyboardInterrupt), learning_directory(bundle, "nut") as directory:  # noqa: PT012
        PhotoStore(directory, bundle.path, "1" * 64).write(PHOTO, {"a": np.ones(3)})
        raise KeyboardInterrupt
    with learning_directory(bundle, "nut") as directory:
        assert PhotoStore(directory, bundle.path, "1" * 64).has(PHOTO)
    assert left_overs(bundle.path) == []


def test_one_process_at_a_time_learns_a_product(bundle) -> None:
    with learning_directory(bundle, "nut"):
        with (
            pytest.raises(ReferenceBankError, match="another process is learning 'nut'"),
            learning_directory(bundle, "nut"),
        ):
            pass
        with learning_directory(bundle, "bolt"):
            assert directory_of(bundle, "nut") != directory_of(bundle, "bolt")
    with learning_directory(bundle, "nut"):
        pass
    assert left_overs(bundle.path) == []


def test_a_full_disk_is_named_and_leaves_no_half_file(
    bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError) as caught, learning_directory(bundle, "nut") as directory:  # noqa: PT012
        store = PhotoStore(directory, bundle.path, "1" * 64)
        store.write(PHOTO, {"a": np.ones(3)})
        monkeypatch.setattr(Path, "write_bytes", disk_full)
        store.write(Photo(Path("b.png"), "b" * 64, (1, 1)), {"a": np.ones(3)})
    assert "no space left on the disk" in caught.value.cause
    assert "the bundle is as it was" in caught.value.cause
    assert "goes on where it ended" in caught.value.remedy
    assert caught.value.__cause__.errno == errno.ENOSPC
    kept = sorted(path.name for path in directory_of(bundle, "nut").glob("*.photo"))
    assert kept == [f"{'a' * 32}-{'1' * 16}.photo"]


def test_too_little_space_is_told_beforehand(bundle) -> None:
    require_disk_space(bundle.path, 1)
    with pytest.raises(BundleError, match=r"learning keeps \d+ MB in .* MB free"):
        require_disk_space(bundle.path, 1 << 60)
