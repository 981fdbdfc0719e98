"""What may come between while a product is learned: a kill, Ctrl-C, a full disk, another."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.small_bundle import left_overs
from zeroflaw.station.learning import learn_product
from zeroflaw.station.reference.photos import directory_of, learning_directory
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.writer import copy_bundle
from zeroflaw_engines.errors import BundleError, ReferenceBankError
from zeroflaw_engines.image_files.frame import Frame


def in_a_process(work: Callable[[], object]) -> int:
    """Run in a fork that loads engines of its own; its exit code, negative for a signal."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def test_a_killed_learning_goes_on_where_it_ended(
    mini_copy: Bundle, good_photos: list[Path], tmp_path: Path, encoded: list[Frame]
) -> None:
    other = copy_bundle(mini_copy, tmp_path / "other")
    manifest = (mini_copy.path / "bundle.json").read_bytes()

    def killed() -> None:
        done = []

        def progress(path: Path, _: object) -> None:
            done.append(path)
            if len(done) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        learn_product(open_bundle(mini_copy.path), "object", good_photos[:5], progress=progress)

    assert in_a_process(killed) == -signal.SIGKILL
    assert (mini_copy.path / "bundle.json").read_bytes() == manifest
    assert len(list(directory_of(mini_copy, "object").glob("*.photo"))) == 3
    assert open_bundle(mini_copy.path).reference_digest("object") is None
    reported = []
    learned = learn_product(
        mini_copy, "object", good_photos[:5], progress=lambda path, _: reported.append(path)
    )
    assert len(encoded) == 2
    assert reported == good_photos[:5]
    assert left_overs(mini_copy.path) == []
    # ... and with a photo less, or under other settings, what serves is taken and no more.
    whole = learn_product(other, "object", good_photos[:5])
    assert whole.digest == learned.digest
    assert whole.fit.threshold == learned.fit.threshold


def test_an_interrupted_learning_serves_one_with_a_photo_less(
    mini_copy: Bundle, good_photos: list[Path], encoded: list[Frame]
) -> None:
    def interrupt(path: Path, _: object) -> None:
        if path == good_photos[4]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_product(mini_copy, "object", good_photos[:5], progress=interrupt)
    assert len(encoded) == 5
    learn_product(mini_copy, "object", good_photos[:4])
    assert len(encoded) == 5
    with pytest.raises(KeyboardInterrupt):
        learn_product(open_bundle(mini_copy.path), "object", good_photos[:5], progress=interrupt)
    learn_product(
        open_bundle(mini_copy.path), "object", good_photos[:4], augmentations=["flip_vertical"]
    )
    assert len(encoded) == 10 + 8


def test_a_full_disk_leaves_the_bundle_as_it_was(
    mini_copy: Bundle,
    good_photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    encoded: list[Frame],
) -> None:
    manifest = (mini_copy.path / "bundle.json").read_bytes()
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1 << 20))
    with pytest.raises(BundleError, match="MB free"):
        learn_product(mini_copy, "object", good_photos[:3])
    assert (encoded, left_overs(mini_copy.path)) == ([], [])
    monkeypatch.undo()
    assert (mini_copy.path / "bundle.json").read_bytes() == manifest
    assert learn_product(mini_copy, "object", good_photos[:3]).bank_photos == 3


def test_two_processes_learn_two_products_at_once(
    mini_copy: Bundle, good_photos: list[Path]
) -> None:
    context = multiprocessing.get_context("fork")
    learners = [
        context.Process(
            target=learn_product,
            args=(open_bundle(mini_copy.path), name, good_photos[start : start + 3]),
        )
        for name, start in (("object", 0), ("casting", 3), ("a new one", 6))
    ]
    for learner in learners:
        learner.start()
    for learner in learners:
        learner.join()
    assert [learner.exitcode for learner in learners] == [0, 0, 0]
    opened = open_bundle(mini_copy.path)
    for name, start in (("object", 0), ("casting", 3), ("a new one", 6)):
        names = [photo.name for photo in opened.manifest.products[name].reference.photos]
        assert names == [path.name for path in good_photos[start : start + 3]]
        assert opened.reference_bank(name) is not None
    assert left_overs(mini_copy.path) == []


def test_two_learners_of_one_product_are_told_apart(
    mini_copy: Bundle, good_photos: list[Path]
) -> None:
    with (
        learning_directory(mini_copy, "object"),
        pytest.raises(ReferenceBankError, match="another process is learning 'object'"),
    ):
        learn_product(mini_copy, "object", good_photos[:3])
    # One that opened the bundle before the other learned begins with what is there now.
    first = learn_product(mini_copy, "object", good_photos[:3])
    second = learn_product(mini_copy, "object", good_photos[3:6])
    assert open_bundle(mini_copy.path).reference_digest("object") == second.digest != first.digest
