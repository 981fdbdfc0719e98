"""libzeroflaw from outside: what is installed, and that it gives Python's own results."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from support.embedded_library import (
    LANGUAGES,
    ROOT,
    WAYS,
    EmbeddedLibrary,
    as_the_examples_print,
    of_the_frame_alone,
    write_pnm,
)
from support.golden_vectors import (
    FRAMES,
    GOLDEN,
    differences,
    frame_path,
    read_mask,
    read_vectors,
)
from zeroflaw.capi import abi
from zeroflaw.inspection import Inspection
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw_engines.backends import availability
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.writer import copy_bundle, replace_manifest
from zeroflaw_engines.version import __version__

PRODUCT = "object"
PHOTOS = (
    ROOT / "examples" / "frames" / "casting_dent.jpg",
    ROOT / "examples" / "frames" / "casting_good.jpg",
    ROOT / "examples" / "images" / "coffee.png",
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The photos as the examples read them."""
    return [write_pnm(photo, tmp_path_factory.mktemp("pnm")) for photo in PHOTOS]


@pytest.fixture(scope="module")
def in_python(frames: list[Path]) -> list[Inspection]:
    with Inspector.load() as inspector:
        return [inspector.inspect(read_image(path), product=PRODUCT) for path in frames]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_examples_print_what_python_finds(
    library: EmbeddedLibrary,
    frames: list[Path],
    in_python: list[Inspection],
    language: str,
    way: str,
) -> None:
    ended = library.run(library.examples[language, way], "mini", PRODUCT, *frames)
    expected = [as_the_examples_print(*pair) for pair in zip(frames, in_python, strict=True)]
    assert ended.stdout == "".join(expected)
    assert "mini" in ended.stderr or not ended.stderr, ended.stderr
    rejected = any(found.decision == "reject" for found in in_python)
    assert ended.returncode == (4 if rejected else 0)


def test_exit_codes(library: EmbeddedLibrary, frames: list[Path], tmp_path: Path) -> None:
    program = library.examples["c", "find_package"]
    bundle = copy_bundle(open_bundle("mini"), tmp_path / "bundle")
    products = dict(bundle.manifest.products)
    # A score reaches 0 always and 1 never.
    products["object"] = msgspec.structs.replace(products["object"], threshold=0.0)
    products["gravel"] = msgspec.structs.replace(products["gravel"], threshold=1.0)
    replace_manifest(bundle.path, msgspec.structs.replace(bundle.manifest, products=products))
    assert library.run(program, bundle.path, "object", frames[0]).returncode == 4
    assert library.run(program, bundle.path, "gravel", frames[0]).returncode == 0
    cut = tmp_path / "cut.ppm"
    cut.write_bytes(frames[0].read_bytes()[:-1])
    undecided = library.run(program, "mini", PRODUCT, cut, tmp_path / "missing.ppm")
    assert undecided.returncode == 3
    assert [line.split(".ppm ")[1] for line in undecided.stderr.splitlines()] == [
        "ends early",
        "cannot be opened",
    ]
    black = tmp_path / "black.pgm"
    black.write_bytes(b"P5 64 48 255\n" + bytes(64 * 48))
    for language in LANGUAGES:
        held = library.run(library.examples[language, "find_package"], "mini", PRODUCT, black)
        assert (held.returncode, held.stdout) == (3, "")
        assert "min_peak" in held.stderr
        assert held.stderr.endswith("hold the part, and see to the cause\n")
    assert library.run(program, "mini", "no such product", frames[0]).returncode == 3
    assert library.run(program, tmp_path, PRODUCT, frames[0]).returncode == 1
    assert library.run(program, "mini").returncode == 2


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_cpp_gives_python_s_results_bit_for_bit(
    library: EmbeddedLibrary, frames: list[Path], tmp_path: Path, backend: str
) -> None:
    assert not availability(backend).missing
    (tmp_path / "station.toml").write_text(f'bundle = "mini"\nbackend = "{backend}"\n')
    program = library.examples["cpp", "find_package"]
    ended = library.run(
        program, "--out", tmp_path, tmp_path / "station.toml", PRODUCT, *frames, timeout=240
    )
    assert ended.returncode in (0, 4), ended.stderr
    with Inspector.load(backend=backend) as inspector:
        for path in frames:
            expected = inspector.inspect(read_image(path), product=PRODUCT)
            mask = read_image(tmp_path / f"{path.name}.mask.pgm")
            assert np.array_equal(mask == 255, expected.mask)
            record = (tmp_path / f"{path.name}.json").read_bytes()
            assert json.loads(record)["frame_id"] == str(path)
            assert of_the_frame_alone(record) == of_the_frame_alone(expected.to_json())


def test_golden_vectors_hold_in_python() -> None:
    bundle, tolerances, vectors = read_vectors(GOLDEN)
    assert [(vector.name, vector.product) for vector in vectors] == list(FRAMES)
    with Inspector.load() as inspector:
        assert inspector.bundle.identity == bundle, (
            "the embedded model has changed: run PYTHONPATH=tests python -m support.golden_vectors"
        )
        for vector in vectors:
            found = inspector.inspect(read_image(frame_path(vector.name)), product=vector.product)
            golden = read_mask(GOLDEN, vector.name)
            assert differences(vector, golden, found, tolerances) == [], vector.name


def test_golden_vectors_hold_in_cpp(library: EmbeddedLibrary, tmp_path: Path) -> None:
    for name, _ in FRAMES:
        write_pnm(frame_path(name), tmp_path)
    ended = library.run(library.drivers / "golden", "mini", GOLDEN, tmp_path)
    assert ended.stdout.splitlines() == [f"{name} agrees" for name, _ in FRAMES], ended.stderr
    # A driver that cannot find a difference would agree with everything.
    other = tmp_path / "other"
    other.mkdir()
    for file in GOLDEN.iterdir():
        text = file.read_bytes()
        (other / file.name).write_bytes(text.replace(b" accept ", b" reject ", 1))
    ended = library.run(library.drivers / "golden", "mini", other, tmp_path)
    assert ended.returncode == 1
    assert "differs: decision" in ended.stdout


def test_structs_are_the_header_s(library: EmbeddedLibrary) -> None:
    lines = library.run(library.drivers / "layout").stdout.split("\n")
    printed = {name: int(size) for name, size in (line.split() for line in lines if line)}
    expected = {"zeroflaw_point": 8, "zeroflaw_point.x": 0, "zeroflaw_point.y": 4}
    for name, struct in abi.STRUCTS.items():
        expected[name] = ctypes.sizeof(struct)
        for field, *_ in struct._fields_:
            expected[f"{name}.{field}"] = getattr(struct, field).offset
    assert printed == expected


def test_numbers_are_the_header_s() -> None:
    header = (ROOT / "runtime/c/include/zeroflaw/zeroflaw.h").read_text(encoding="utf-8")
    numbers = {name: int(value) for name, value in re.findall(r"\bZEROFLAW_(\w+) = (\d+)", header)}
    ours = {
        **{status.name: status.value for status in abi.Status},
        **{decision.name: decision.value for decision in abi.DecisionCode},
        **{known.name: known.value for known in abi.PixelFormat},
        **{f"STATE_{state.name}": state.value for state in abi.State},
    }
    assert numbers == ours
    assert f"#define ZEROFLAW_ABI_VERSION {abi.ABI_VERSION}\n" in header


def test_library_shows_its_functions_and_nothing_else(library: EmbeddedLibrary) -> None:
    shared = library.prefix / "lib" / "libzeroflaw.so"
    header = (library.prefix / "include/zeroflaw/zeroflaw.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"ZEROFLAW_API [\w ]+?[ *](zeroflaw_\w+)\(", header))
    symbols = output("nm", "-D", "--defined-only", shared).splitlines()
    shown = {line.split()[-1].split("@")[0] for line in symbols} - {"ZEROFLAW_1"}
    assert shown == declared
    dynamic = output("readelf", "-d", shared)
    assert f"[libzeroflaw.so.{abi.ABI_VERSION}]" in dynamic
    # Python, CUDA and OpenCV are found at run time or not at all.
    needed = set(re.findall(r"NEEDED.*\[(lib\w+(?:\+\+)?)", dynamic))
    assert needed <= {"libstdc++", "libgcc_s", "libc", "libm", "libdl", "libpthread"}


def output(*words: object) -> str:
    return subprocess.run(
        [str(word) for word in words], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    ("compiler", "standard", "header"),
    [
        ("cc", "c99", "zeroflaw.h"),
        ("c++", "c++17", "zeroflaw.hpp"),
        ("c++", "c++20", "zeroflaw.hpp"),
    ],
)
def test_headers_stand_alone_without_warnings(
    library: EmbeddedLibrary, tmp_path: Path, compiler: str, standard: str, header: str
) -> None:
    source = tmp_path / f"alone.{'c' if compiler == 'cc' else 'cpp'}"
    source.write_text(f"#include <zeroflaw/{header}>\nint main(void) {{ return 0; }}\n")
    library.build_with_pkg_config(
        f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", source,
        "-o", tmp_path / "alone", compiler=compiler,
    )  # fmt: skip
    header_text = (library.prefix / "include" / "zeroflaw" / header).read_text(encoding="utf-8")
    includes = set(re.findall(r"#include <(\S+)>", header_text))
    assert not [name for name in includes if re.search("opencv|cuda|Nv|Python", name)]


def test_program_in_the_docs_compiles_and_runs(library: EmbeddedLibrary, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```cpp\n(.*?int main.*?)```", page, flags=re.DOTALL)
    source, program = tmp_path / "first.cpp", tmp_path / "first"
    source.write_text(code)
    library.build_with_pkg_config(
        "-std=c++17", "-Wall", "-Wextra", "-Werror", source, "-o", program, compiler="c++"
    )
    ended = library.run(program)
    assert ended.returncode == 0, ended.stderr
    assert re.match(r"(accept|reject) \d", ended.stdout)


def test_functions_of_the_header_are_in_the_docs() -> None:
    header = (ROOT / "runtime/c/include/zeroflaw/zeroflaw.h").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    for function in re.findall(r"ZEROFLAW_API [\w ]+?[ *](zeroflaw_\w+)\(", header):
        assert f"`{function}" in page, function


def test_library_loaded_into_a_python_process_uses_that_python(
    library: EmbeddedLibrary, frames: list[Path]
) -> None:
    code = f"""
import ctypes, hashlib, json, sys
import numpy as np
from zeroflaw import Inspector
from zeroflaw.capi.abi import FrameStruct, ViewStruct
from zeroflaw.pictures.images import read_image

library = ctypes.CDLL({str(library.prefix / "lib" / "libzeroflaw.so")!r})
library.zeroflaw_last_error.restype = ctypes.c_char_p
def call(name, *arguments):
    status = getattr(library, name)(*arguments)
    assert status == 0, library.zeroflaw_last_error()

inspector = ctypes.c_void_p()
assert library.zeroflaw_create_from_file(b"x", b"/usr", ctypes.byref(inspector)) == 4
print(library.zeroflaw_last_error().decode())
call("zeroflaw_create", None, ctypes.byref(inspector))
image = read_image(__import__("pathlib").Path({str(frames[0])!r}))
frame = FrameStruct(ctypes.sizeof(FrameStruct), image.ctypes.data, image.strides[0],
                    image.shape[1], image.shape[0], 2, 0, b"object", b"f-1", b"p-1", 0, b"c-1")
inspection = ctypes.c_void_p()
call("zeroflaw_inspect", inspector, ctypes.byref(frame), ctypes.byref(inspection))
view = ViewStruct(ctypes.sizeof(ViewStruct))
call("zeroflaw_view", inspection, ctypes.byref(view))
expected = Inspector.load().inspect(image, product="object")

def shown(address, like):
    size = like.nbytes
    return ctypes.string_at(address, size) == np.ascontiguousarray(like).tobytes()

assert view.score == expected.image_score and view.threshold == expected.threshold
assert shown(view.mask, expected.mask)
assert shown(view.anomaly_map, expected.anomaly_map)
assert shown(view.score_map, expected.score_map)
assert (view.frame_id, view.part_id, view.camera_id) == (b"f-1", b"p-1", b"c-1")
# The view says what the record says.
needed = ctypes.c_size_t()
text = ctypes.create_string_buffer(1 << 20)
call("zeroflaw_inspection_json", inspection, text, len(text), ctypes.byref(needed))
record = json.loads(text.value)
for name in ("id", "time", "monotonic_ns", "software", "bundle", "text_embeddings", "parameters"):
    value = getattr(view, name)
    assert record[name] == (value.decode() if isinstance(value, bytes) else value), name
    assert name in ("id", "time", "monotonic_ns") or getattr(expected, name) == record[name]
assert (record["calibration"] or "") == view.calibration.decode()
assert record["reason"] == {{"code": view.reason.decode(), "text": view.reason_text.decode()}}
digest = ctypes.c_char_p()
call("zeroflaw_frame_sha256", inspection, ctypes.byref(digest))
assert digest.value == hashlib.sha256(image.tobytes()).hexdigest().encode()
assert record["frame_sha256"] == digest.value.decode()
# What must be closed before Python ends is left open on purpose.
print("same")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[1] == "same"
    assert "this process already runs the Python environment" in lines[0]


def test_version_is_the_package_s(library: EmbeddedLibrary) -> None:
    pc = (library.prefix / "lib" / "pkgconfig" / "zeroflaw.pc").read_text(encoding="utf-8")
    assert f"Version: {__version__}\n" in pc
    assert str(library.prefix.parents[1]) not in pc  # it may be moved
