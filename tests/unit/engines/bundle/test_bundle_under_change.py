"""Readers and writers of one bundle at the same time, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from support.manifests import as_version_1, as_version_2, as_version_4, written
from support.small_bundle import (
    ENTRY,
    learn,
    left_overs,
    reference_bank,
    rows,
    threshold_of,
    write_small_bundle,
)
from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle import bundle as bundle_module
from zeroflaw_engines.bundle import writer as bundle_writer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, read_manifest
from zeroflaw_engines.bundle.directory import lock as bundle_lock
from zeroflaw_engines.bundle.directory.lock import locked_bundle, publish
from zeroflaw_engines.bundle.manifest import SCHEMA_VERSION, Calibration
from zeroflaw_engines.bundle.products.writer import add_products, set_calibration
from zeroflaw_engines.bundle.shipped import bundle_path
from zeroflaw_engines.bundle.writer import copy_bundle
from zeroflaw_engines.errors import BundleChangedError, BundleError, ProductError

TESTS = Path(__file__).parents[3]
ADDER = """
import sys
from support.small_bundle import ENTRY, rows
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.writer import add_products
path, name, count = sys.argv[1:]
for i in range(int(count)):
    add_products(open_bundle(path), {f"{name}{i % 20}": rows(i)}, {f"{name}{i % 20}": ENTRY})
"""
LEARNER = """
import sys
from support.small_bundle import learn
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.writer import forget_reference
path, product, count = sys.argv[1:]
for i in range(int(count)):
    bundle = learn(open_bundle(path), product, seed=i)
    if i % 4 == 3 and int(count) > 100:
        forget_reference(bundle, product)
"""
COPIER = """
import itertools, sys
from zeroflaw_engines.bundle.directory import lock as bundle_lock
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.writer import copy_bundle
target, one, other, way = sys.argv[1:]
if way == "renames":
    bundle_lock.exchange = lambda *_: False
for source in itertools.islice(itertools.cycle([one, other]), 10_000):
    copy_bundle(open_bundle(source), target, overwrite=True)
"""


def start(program: str, *arguments: object, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    paths = [str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=cwd,
        stderr=subprocess.PIPE,
    )


@contextmanager
def running(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
        for process in processes:
            assert process.poll() is None, process.communicate()[1].decode()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def seconds(duration: float) -> Iterator[None]:
    end = time.monotonic() + duration
    while time.monotonic() < end:
        yield


def wait_for_change(path: Path) -> None:
    before, end = (path / "bundle.json").read_bytes(), time.monotonic() + 120
    while (path / "bundle.json").read_bytes() == before:
        assert time.monotonic() < end, "the other process changes nothing"
        time.sleep(0.005)


def test_readers_while_products_are_added(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "b").path
    with running(start(ADDER, path, "x", 10**6), start(ADDER, path, "y", 10**6)):
        wait_for_change(path)
        for _ in seconds(3):
            bundle = open_bundle(path)
            assert bundle.manifest.products.keys() == bundle.bank.keys()
            assert bundle.text_embeddings("object").shape == (2, 96)
            read_manifest(path)
    open_bundle(path)


def test_copies_while_products_are_added(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "b").path
    with running(start(ADDER, path, "x", 10**6)):
        wait_for_change(path)
        for _ in seconds(2):
            copied = copy_bundle(open_bundle(path), tmp_path / "copy", overwrite=True)
            assert copied.manifest.products.keys() == open_bundle(copied.path).bank.keys()


def seen_of(bundle: Bundle, product: str) -> str:
    """What a reader finds of a product: its bank must be that of its threshold."""
    threshold = bundle.manifest.products[product].threshold
    try:
        bank = bundle.reference_bank(product)
    except BundleChangedError:
        return "changed"
    if bank is None or threshold is None:
        assert bank is threshold is None
        return "forgotten"
    seed = round(100 * threshold) - 1
    wanted = (reference_bank(bundle, one).tokens for one in range(seed, 100_000, 50))
    assert any(np.array_equal(bank.tokens, one) for one in wanted)
    return "learned"


def test_readers_while_products_are_learned_and_forgotten(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "b").path
    learners = [start(LEARNER, path, product, 10**6) for product in ("object", "glass")]
    found = set()
    with running(*learners):
        wait_for_change(path)
        for _ in seconds(4):
            bundle = open_bundle(path)
            found |= {seen_of(bundle, product) for product in ("object", "glass")}
            assert bundle.manifest.products.keys() == bundle.bank.keys()
    assert found >= {"learned", "forgotten"}
    open_bundle(path)


@pytest.mark.parametrize(("call", "tries"), [(1, 2), (2, 1)], ids=["bank gone", "bank verified"])
def test_a_learner_that_comes_between_costs_no_more_than_the_banks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, tries: int
) -> None:
    """Banks are verified first: graphs of gigabytes are not read again for a product."""
    path = learn(write_small_bundle(tmp_path / "b")).path
    real, calls = bundle_module.verify_files, []

    def verify(root: Path, files: dict, *rest: object, **more: object) -> None:
        calls.append(set(files))
        if len(calls) == call:
            learn(Bundle(path, read_manifest(path)), seed=1)
            del calls[call:]  # the learner's own
        real(root, files, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(bundle_module, "verify_files", verify)
        opened = open_bundle(path)
    assert sum("clip_encoder.onnx" in files for files in calls) == 1
    assert sum(any("reference-" in name for name in files) for files in calls) == tries
    assert seen_of(opened, "object") == ("learned" if call == 1 else "changed")


def test_copies_while_products_are_learned_and_forgotten(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "b").path
    found = set()
    with running(start(LEARNER, path, "object", 10**6)):
        wait_for_change(path)
        for _ in seconds(4):
            copied = copy_bundle(open_bundle(path), tmp_path / "copy", overwrite=True)
            found.add(seen_of(open_bundle(copied.path), "object"))
    assert found == {"learned", "forgotten"}


def test_products_learned_by_processes_at_once_all_land(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "b").path
    products = sorted(open_bundle(path).manifest.products)[:4]
    learners = [start(LEARNER, path, product, 6) for product in products]
    for learner in learners:
        _, errors = learner.communicate(timeout=120)
        assert learner.returncode == 0, errors.decode()
    opened = open_bundle(path)
    for product in products:
        assert opened.manifest.products[product].threshold == threshold_of(5)
        want = reference_bank(opened, 5).tokens
        np.testing.assert_array_equal(opened.reference_bank(product).tokens, want)
    assert left_overs(path) == []


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_readers_while_the_bundle_is_replaced(tmp_path: Path, way: str) -> None:
    for mark in ("one", "other", "b"):
        write_small_bundle(tmp_path / mark, mark=mark)
    path = tmp_path / "b"
    seen = set()
    with running(start(COPIER, path, tmp_path / "one", tmp_path / "other", way)):
        wait_for_change_of_engines(path)
        for _ in seconds(3):
            seen.add(open_bundle(path).identity)
    assert seen >= {open_bundle(tmp_path / mark).identity for mark in ("one", "other")}


def wait_for_change_of_engines(path: Path) -> None:
    before = open_bundle(path).identity
    while open_bundle(path).identity == before:
        time.sleep(0.005)


def test_products_added_by_all_names_of_a_bundle(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "real" / "b").path
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "linked_parent").symlink_to(tmp_path / "real")
    names = [path, tmp_path / "link", tmp_path / "linked_parent" / "b", "real/b", "."]
    adders = [
        start(ADDER, name, f"p{i}-", 12, cwd=path if name == "." else tmp_path)
        for i, name in enumerate(names)
    ]
    for adder in adders:
        _, errors = adder.communicate(timeout=120)
        assert adder.returncode == 0, errors.decode()
    opened = open_bundle(path)
    wanted = {f"p{i}-{j}" for i in range(len(names)) for j in range(12)}
    assert wanted <= opened.manifest.products.keys() == opened.bank.keys()
    assert left_overs(path) == []


def test_a_bundle_in_a_parent_that_may_not_be_written(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "parent" / "b")
    program = (
        "import os, sys\n"
        "parent = sys.argv[1].rpartition('/')[0]\n"
        "def read_only(event, arguments):\n"
        "    for path in arguments if event in changes else ():\n"
        "        if str(path).rpartition('/')[0] == parent:\n"
        "            raise PermissionError(13, 'Permission denied', path)\n"
        "    if event == 'open' and str(arguments[0]).rpartition('/')[0] == parent:\n"
        "        if arguments[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):\n"
        "            raise PermissionError(13, 'Permission denied', arguments[0])\n"
        "changes = {'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir'}\n"
        "sys.addaudithook(read_only)\n" + ADDER
    )
    adder = start(program, bundle.path, "new", 3)
    _, errors = adder.communicate(timeout=60)
    assert adder.returncode == 0, errors.decode()
    assert {"new0", "new1", "new2"} <= open_bundle(bundle.path).manifest.products.keys()


def test_a_writer_that_waited_for_a_bundle_that_was_replaced(tmp_path: Path) -> None:
    """The lock it waited for is in a directory that is no longer at the path."""
    bundle = write_small_bundle(tmp_path / "b")
    staging = write_small_bundle(tmp_path / "staging").path
    done = []

    def add() -> None:
        add_products(bundle, {"new": rows(1)}, {"new": ENTRY})
        done.append(True)

    with locked_bundle(bundle.path):
        adder = threading.Thread(target=add)
        adder.start()
        time.sleep(0.1)
        assert not done
        bundle.path.rename(tmp_path / "old")
        staging.rename(bundle.path)
    adder.join(30)
    assert "new" in open_bundle(bundle.path).manifest.products
    assert "new" not in open_bundle(tmp_path / "old").manifest.products


def test_what_was_computed_with_other_models_is_not_stored(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "b", mark="one")
    copy_bundle(write_small_bundle(tmp_path / "c", mark="two"), bundle.path, overwrite=True)
    calibration = Calibration(
        false_reject_rate=0.1, images=10, rank=10, interval=(0.0, 0.3), observed_rate=0.0,
        image_scoring="cls", data_digest="0" * 64, created="",
    )  # fmt: skip
    embeddings = bundle.text_embeddings("object")
    before = (bundle.path / "bundle.json").read_bytes()
    with pytest.raises(BundleChangedError, match="replaced by another"):
        set_calibration(bundle, "object", 0.5, calibration, embeddings=embeddings)
    with pytest.raises(BundleChangedError):
        add_products(bundle, {"new": rows(1)}, {"new": ENTRY})
    assert (bundle.path / "bundle.json").read_bytes() == before


def test_an_engine_of_a_bundle_that_was_replaced_is_not_loaded(tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundle_path("mini"), tmp_path / "b"))
    bundle = open_bundle(path)
    load_session(bundle, "clip_encoder").close()
    publish(write_small_bundle(tmp_path / "staging").path, path)
    with pytest.raises(BundleChangedError, match="replaced by another"):
        load_session(bundle, "clip_encoder")


def test_a_bundle_of_one_that_is_held_keeps_its_products(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "b")
    want = bundle.text_embeddings("glass")
    shutil.rmtree(bundle.path)
    np.testing.assert_array_equal(bundle.text_embeddings("glass"), want)


def test_a_bundle_that_is_locked_for_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_small_bundle(tmp_path / "b")
    monkeypatch.setattr(bundle_lock, "_LOCK_SECONDS", 0.1)
    with locked_bundle(bundle.path), pytest.raises(BundleError, match="another process") as caught:
        add_products(bundle, {"new": rows(1)}, {"new": ENTRY})
    assert str(bundle.path / ".lock") in caught.value.cause


def test_twins_of_a_product(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "b")
    add_products(bundle, {"caf\u00e9": rows(1)}, {"caf\u00e9": ENTRY})
    add_products(bundle, {"cafe\u0301": rows(2)}, {"cafe\u0301": ENTRY})
    opened = open_bundle(bundle.path)
    assert sum(name.startswith("caf") for name in opened.manifest.products) == 1
    for spelling in ("caf\u00e9", "cafe\u0301"):
        np.testing.assert_array_equal(opened.text_embeddings(spelling), rows(2))
    with pytest.raises(ProductError, match="looks like"):
        add_products(bundle, {"\uff47lass": rows(3)}, {"\uff47lass": ENTRY})


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_upgrading_changes_the_manifest_alone(tmp_path: Path, version: int) -> None:
    bundle = write_small_bundle(tmp_path / "b")
    raw = json.loads(manifest_of(bundle))
    older = {1: as_version_1, 2: as_version_2}.get(version)
    text = written(as_version_4(raw, version) if older is None else older(raw))
    (bundle.path / "bundle.json").write_bytes(text)
    old = open_bundle(bundle.path)
    assert (old.manifest.schema_version, b'"digest"' in text) == (version, version == 4)
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    upgraded = bundle_writer.upgrade_bundle(old)
    opened = open_bundle(bundle.path)
    assert opened.manifest == upgraded.manifest
    assert opened.manifest.schema_version == SCHEMA_VERSION
    assert (opened.manifest.reference, opened.identity) == (None, old.identity)
    assert opened.manifest.products == bundle.manifest.products
    assert opened.manifest.parameters == bundle.manifest.parameters
    assert {name: (bundle.path / name).read_bytes() for name in files} == files
    assert left_overs(bundle.path) == []


def manifest_of(bundle: Bundle) -> bytes:
    return (bundle.path / "bundle.json").read_bytes()
