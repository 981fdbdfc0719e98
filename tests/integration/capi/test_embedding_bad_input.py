"""What libzeroflaw must refuse: a status and a text that helps, and never a crash."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from support.embedded_library import ROOT, EmbeddedLibrary, make_station, packages
from zeroflaw.capi.abi import Status
from zeroflaw.records.record import inspection_json_schema
from zeroflaw_engines.bundle.bundle import Bundle

# Every case of runtime/c/tests/bad_input.c: name, status, and what its text must name.
CASES = [
    ("before create destroy", Status.INVALID_HANDLE, "call zeroflaw_create first"),
    ("before create environment", Status.ENVIRONMENT, "/nowhere does not exist"),
    ("create", Status.OK, ""),
    ("good", Status.OK, ""),
    ("null create", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null create_from_file", Status.INVALID_ARGUMENT, "config_file is a null pointer"),
    ("null clone", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null clone target", Status.INVALID_ARGUMENT, "clone is a null pointer"),
    ("null destroy", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null warm_up", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null reload", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null inspect", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null inspect frame", Status.INVALID_ARGUMENT, "frame is a null pointer"),
    ("null inspect target", Status.INVALID_ARGUMENT, "inspection is a null pointer"),
    ("null submit", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null submit frame", Status.INVALID_ARGUMENT, "frame is a null pointer"),
    ("null poll", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null poll target", Status.INVALID_ARGUMENT, "inspection is a null pointer"),
    ("null view", Status.INVALID_ARGUMENT, "inspection is a null pointer"),
    ("null release", Status.INVALID_ARGUMENT, "inspection is a null pointer"),
    ("null json", Status.INVALID_ARGUMENT, "inspection is a null pointer"),
    ("null digest", Status.INVALID_ARGUMENT, "inspection is a null pointer"),
    ("null digest target", Status.INVALID_ARGUMENT, "digest is a null pointer"),
    ("null describe", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null describe size", Status.INVALID_ARGUMENT, "needed is a null pointer"),
    ("null health", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("null health report", Status.INVALID_ARGUMENT, "report is a null pointer"),
    ("null pixels", Status.INVALID_ARGUMENT, "frame->pixels is a null pointer"),
    ("size config", Status.STRUCT_SIZE, "config->struct_size is 0, and this library knows"),
    ("size config newer", Status.STRUCT_SIZE, "compile against this library's header"),
    ("size frame", Status.STRUCT_SIZE, "frame->struct_size is 3"),
    ("size health", Status.STRUCT_SIZE, "report->struct_size is 1"),
    ("size view", Status.STRUCT_SIZE, "view->struct_size is"),
    ("first config", Status.BUNDLE, "/nowhere is not a bundle"),
    ("first frame", Status.OK, ""),
    ("first view", Status.OK, ""),
    ("first health", Status.OK, ""),
    ("first header", Status.OK, "filled, nothing behind it touched"),
    ("second view", Status.OK, ""),
    ("second header", Status.OK, "filled, nothing behind it touched"),
    ("third view", Status.OK, ""),
    ("third header", Status.OK, "filled, nothing behind it touched"),
    ("held call", Status.OK, ""),
    ("held names", Status.OK, "dark f p c 32 64"),
    ("held json", Status.OK, '"decision":"hold","reason":{"code":"dark"'),
    ("held", Status.HELD, "hold the part"),
    ("frame stride", Status.FRAME, "a stride of 191 bytes is less than a row of 64 px, 192"),
    ("frame huge stride", Status.FRAME, "does not fit in memory"),
    ("frame format", Status.FRAME, "unknown pixel format 99"),
    ("frame no format", Status.FRAME, "unknown pixel format 0"),
    ("frame empty", Status.FRAME, "a frame of 0x48 px is empty"),
    ("frame odd stride", Status.FRAME, "not aligned"),
    ("frame white level", Status.FRAME, "white_level is -1"),
    ("frame deadline", Status.INVALID_ARGUMENT, "deadline_ms is nan"),
    ("frame product bytes", Status.INVALID_ARGUMENT, "frame->product is not UTF-8"),
    ("frame product", Status.PRODUCT, "unknown product 'no such thing'"),
    ("late call", Status.OK, ""),
    ("late json", Status.OK, '"decision":"hold","reason":{"code":"late"'),
    ("late", Status.DEADLINE_MISSED, "hold the part"),
    ("handle garbage", Status.INVALID_HANDLE, "not of an inspector"),
    ("handle clone", Status.OK, ""),
    ("handle destroy", Status.OK, ""),
    ("handle destroyed twice", Status.INVALID_HANDLE, "it was destroyed"),
    ("handle destroyed inspect", Status.INVALID_HANDLE, "it was destroyed"),
    ("handle destroyed reload", Status.INVALID_HANDLE, "it was destroyed"),
    ("handle destroyed poll", Status.INVALID_HANDLE, "it was destroyed"),
    ("handle destroyed describe", Status.INVALID_HANDLE, "it was destroyed"),
    ("handle of other kind", Status.INVALID_HANDLE, "not of an inspector"),
    ("handle release", Status.OK, ""),
    ("handle released twice", Status.INVALID_HANDLE, "it was released"),
    ("handle released digest", Status.INVALID_HANDLE, "it was released"),
    ("handle released view", Status.INVALID_HANDLE, "it was released"),
    ("config bundle missing", Status.BUNDLE, "/nowhere is not a bundle"),
    ("config bundle damaged", Status.BUNDLE, "was altered: its SHA-256 is not the manifest's"),
    ("config backend", Status.BACKEND, "there is no backend 'abacus'"),
    ("config threads", Status.CONFIGURATION, "threads"),
    ("config device", Status.BACKEND, "runs on the processor, which is device 0 alone, not 1"),
    ("config when_full", Status.CONFIGURATION, "'panic'"),
    ("config file missing", Status.CONFIGURATION, "/nowhere.toml cannot be read"),
    ("config other python", Status.ENVIRONMENT, "this process already runs"),
    ("reload", Status.OK, ""),
    ("warm up", Status.INVALID_ARGUMENT, "give 1 or more"),
    ("poll nothing", Status.TIMEOUT, "no result within 1 ms"),
    ("poll negative", Status.INVALID_ARGUMENT, "timeout_ms is -1"),
    ("buffer small", Status.BUFFER_TOO_SMALL, "and the buffer 8"),
    ("queue full", Status.QUEUE_FULL, "frames wait already"),
    ("queue bad stride", Status.FRAME, "a stride of 1 bytes"),
    ("queue product json", Status.OK, '"decision":"hold","reason":{"code":"failed"'),
    ("queue product", Status.PRODUCT, "unknown product"),
    ("queue late", Status.DEADLINE_MISSED, "hold the part"),
    ("thread main", Status.INVALID_ARGUMENT, "inspector is a null pointer"),
    ("thread good", Status.OK, ""),
    ("thread bad", Status.FRAME, "a stride of 1 bytes"),
    ("thread main after", Status.OK, "inspector is a null pointer"),
    ("good at the end", Status.OK, ""),
    ("process", Status.OK, "locale C, SIGINT unchanged"),
]

RECORDS = ("held json", "late json", "queue product json")


@pytest.fixture(scope="module")
def refusals(
    library: EmbeddedLibrary, tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, int, str]]:
    """What the driver printed: status, decision and text by name."""
    damaged = tmp_path_factory.mktemp("damaged") / "bundle"
    shutil.copytree(tiny_bundle.path, damaged)
    victim = max(damaged.rglob("*.onnx"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(content)
    ended = library.run(library.drivers / "bad_input", tiny_bundle.path, "object", damaged)
    assert ended.returncode == 0, ended.stderr
    found = {}
    for line in ended.stdout.splitlines():
        name, status, decision, text = line.split("\t")
        found[name] = int(status), int(decision), text
    return found


@pytest.mark.parametrize(("name", "status", "text"), CASES, ids=[case[0] for case in CASES])
def test_refused_with_a_status_and_a_text(
    refusals: dict[str, tuple[int, int, str]], name: str, status: Status, text: str
) -> None:
    found_status, decision, found_text = refusals[name]
    assert Status(found_status) is status, found_text
    assert text in found_text
    assert decision == 0  # no case is an accept
    refused = status is not Status.OK
    told = name == "thread main after" or name in RECORDS
    assert (" -- " in found_text) == refused or told


def test_every_case_is_looked_at(refusals: dict[str, tuple[int, int, str]]) -> None:
    assert list(refusals) == [name for name, _, _ in CASES]
    assert {status for _, status, _ in CASES} >= set(Status) - {
        Status.DROPPED,  # tests/unit/runtime/capi/test_embedding.py
        Status.ENGINE,  # the same
        Status.SHUTTING_DOWN,  # test_embedding_threads.py
        Status.INTERNAL,  # a defect, by definition
    }


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_fits_the_schema_and_is_no_acceptance(
    refusals: dict[str, tuple[int, int, str]], name: str
) -> None:
    record = json.loads(refusals[name][2])
    jsonschema.validate(record, inspection_json_schema())
    assert (record["schema_version"], record["decision"]) == (4, "hold")
    assert (record["image_score"] is None) == (name == "queue product json")


def no_zeroflaw(directory: Path) -> Path:
    return make_station(directory, packages().parent / "nothing")


def broken_zeroflaw(directory: Path) -> Path:
    package = directory / "broken" / "zeroflaw" / "capi"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("raise ImportError('half an upgrade')\n")
    return make_station(directory / "venv", directory / "broken")


def old_zeroflaw(directory: Path) -> Path:
    (directory / "old" / "zeroflaw").mkdir(parents=True)
    (directory / "old" / "zeroflaw" / "__init__.py").touch()
    return make_station(directory / "venv", directory / "old")


def no_numpy(directory: Path) -> Path:
    return make_station(directory, ROOT / "engines", ROOT / "runtime")


def pretended_python(answers: str) -> Callable[[Path], Path]:
    def make(directory: Path) -> Path:
        python = directory / "bin" / "python3"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{answers}\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        return directory

    return make


def not_executable(directory: Path) -> Path:
    made = pretended_python("exit 0")(directory)
    (made / "bin" / "python3").chmod(0o644)
    return made


def empty(directory: Path) -> Path:
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda directory: directory / "missing", "does not exist"),
        (empty, "it has no bin/python3"),
        (no_zeroflaw, "has no zeroflaw -- install it with"),
        (old_zeroflaw, "older than this library"),
        (broken_zeroflaw, "half an upgrade"),
        (no_numpy, "No module named"),
        (pretended_python("echo version=3.10"), "has Python 3.10, and zeroflaw needs 3.11"),
        (pretended_python("echo no such file >&2; exit 127"), "(exit code 127): no such file"),
        (pretended_python("kill -9 $$"), "does not work"),
        (
            pretended_python(
                "printf 'version=3.99\\nlibrary=libpython3.99.so.1.0\\nzeroflaw=yes\\n"
                "embedding=yes\\nend=\\n'"
            ),
            "the library of Python 3.99 cannot be loaded: libpython3.99.so.1.0",
        ),
        (
            pretended_python(
                "printf 'version=3.12\\nlibrary=libpython3.12.a\\nzeroflaw=yes\\nembedding=yes\\n"
                "end=\\n'"
            ),
            "built without a shared library",
        ),
        (not_executable, "cannot be started"),
    ],
    ids=[
        "missing", "empty", "no-zeroflaw", "old-zeroflaw", "broken-zeroflaw", "no-numpy",
        "old-python", "python-fails", "python-killed", "no-libpython", "static", "not-executable",
    ],
)  # fmt: skip
def test_unsuitable_environment_is_told(
    library: EmbeddedLibrary, tmp_path: Path, make: Callable[[Path], Path], text: str
) -> None:
    station = make(tmp_path / "station")
    program = library.examples["c", "find_package"]
    ended = library.run(program, "mini", "object", "frame.ppm", station=station)
    assert ended.returncode == 1
    assert ended.stderr.startswith("unsuitable Python environment: ")
    assert text in ended.stderr
    assert " -- " in ended.stderr


def test_no_environment_at_all_is_told(library: EmbeddedLibrary) -> None:
    program = library.examples["c", "find_package"]
    environment = library.environment()
    environment["ZEROFLAW_PYTHON_HOME"] = ""
    ended = subprocess.run(
        [program, "mini", "object", "frame.ppm"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "no Python environment was named -- set python_home, or" in ended.stderr
