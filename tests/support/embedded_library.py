"""libzeroflaw built and installed, an environment for it, and programs that use it."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from zeroflaw.inspection import Inspection
from zeroflaw.pictures.images import read_image

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "embedding"
LANGUAGES = ("c", "cpp")
WAYS = ("find_package", "pkg-config")


@dataclass(frozen=True)
class EmbeddedLibrary:
    """What an integrator has after `cmake --install`, moved elsewhere to see that it can be.

    Attributes:
        prefix: Where it is installed.
        drivers: Programs of runtime/c/tests.
        examples: The built examples, by language and way.
        station: The Python environment with zeroflaw.
    """

    prefix: Path
    drivers: Path
    examples: Mapping[tuple[str, str], Path]
    station: Path

    def run(
        self, program: object, *words: object, station: Path | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end, in the environment of this station or of another one."""
        return subprocess.run(
            [str(program), *map(str, words)],
            env=self.environment(station),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def environment(self, station: Path | None = None) -> dict[str, str]:
        """The variables that a program is started with."""
        # Misleading on purpose: an embedded Python must not listen to them.
        misleading = {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
        home = {"ZEROFLAW_PYTHON_HOME": str(station or self.station)}
        return {**os.environ, **misleading, **home}

    def build_with_pkg_config(self, *words: object, compiler: str) -> None:
        """Compiles a program with what pkg-config says."""
        flags = _output("pkg-config", "--cflags", "--libs", "zeroflaw", prefix=self.prefix)
        rpath = f"-Wl,-rpath,{self.prefix / 'lib'}"
        _run(compiler, *words, *flags.split(), rpath, prefix=self.prefix)


def build_library(directory: Path) -> EmbeddedLibrary:
    """Builds, installs and moves the library, and builds the examples out of tree, both ways."""
    require_tools()
    build, first, prefix = directory / "build", directory / "first", directory / "opt" / "zeroflaw"
    _run(
        "cmake", "-S", ROOT / "runtime" / "c", "-B", build, "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_INSTALL_LIBDIR=lib", "-DZEROFLAW_DRIVERS=ON", "-DCMAKE_CXX_FLAGS=-Werror",
        "-DCMAKE_C_FLAGS=-Werror",
    )  # fmt: skip
    _run("cmake", "--build", build, "--parallel", 2)
    _run("cmake", "--install", build, "--prefix", first)
    prefix.parent.mkdir()
    shutil.move(first, prefix)
    examples = {}
    for language in LANGUAGES:
        found = directory / f"{language}-cmake"
        # A copy: nothing of the repository may be within reach.
        source = shutil.copytree(EXAMPLES / language, directory / f"{language}-source")
        _run("cmake", "-S", source, "-B", found, f"-DCMAKE_PREFIX_PATH={prefix}")
        _run("cmake", "--build", found)
        _run("make", "-C", source, prefix=prefix)
        examples[language, "find_package"] = found / "inspect"
        examples[language, "pkg-config"] = source / "inspect"
    return EmbeddedLibrary(
        prefix=prefix,
        drivers=build / "tests",
        examples=examples,
        station=make_station(directory / "station", ROOT / "engines", ROOT / "runtime", packages()),
    )


def make_station(directory: Path, *paths: Path) -> Path:
    """A virtual environment whose site-packages are these directories."""
    venv.create(directory, symlinks=True)
    names = {"base": str(directory), "platbase": str(directory)}
    site = Path(sysconfig.get_path("purelib", "venv", names))
    (site / "under_test.pth").write_text("".join(f"{path}\n" for path in paths))
    return directory


def packages() -> Path:
    """Where this Python's packages are; editable installs in it are not followed."""
    return Path(sysconfig.get_path("purelib"))


def require_tools() -> None:
    """Skips the test where the library cannot be built or run; in CI that is a failure."""
    missing = [
        tool for tool in ("cmake", "make", "cc", "c++", "pkg-config") if not shutil.which(tool)
    ]
    try:
        ctypes.CDLL(_python_library())
    except OSError:
        missing.append(f"{_python_library()}, Python's shared library")
    if missing:
        reason = f"libzeroflaw is not tested: {', '.join(missing)} not found"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(f"{reason} (Debian: apt install cmake g++ make pkg-config libpython3-dev)")


def _python_library() -> str:
    name = str(sysconfig.get_config_var("INSTSONAME"))
    path = Path(str(sysconfig.get_config_var("LIBDIR"))) / name
    return str(path) if path.exists() else name


def _run(*words: object, prefix: Path | None = None) -> None:
    _output(*words, prefix=prefix)


def _output(*words: object, prefix: Path | None = None) -> str:
    environment = dict(os.environ)
    if prefix is not None:
        environment["PKG_CONFIG_PATH"] = str(prefix / "lib" / "pkgconfig")
    ended = subprocess.run(
        [str(word) for word in words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{words}\n{ended.stdout}"
    return ended.stdout


def write_pnm(photo: Path, directory: Path) -> Path:
    """The photo as a file that the examples read."""
    pixels = read_image(photo)
    path = directory / f"{photo.stem}{'.pgm' if pixels.ndim == 2 else '.ppm'}"
    Image.fromarray(pixels).save(path)
    return path


def as_the_examples_print(path: Path, inspection: Inspection) -> str:
    """What the examples print of an inspection."""

    def outline(name: str, polygon: tuple[tuple[int, int], ...]) -> str:
        return f"    {name} " + " ".join(f"{x},{y}" for x, y in polygon)

    scores = f"score {inspection.decision_score:.6f} threshold {inspection.threshold:.6f}"
    lines = [f"{path} {inspection.decision} {scores}"]
    for region in inspection.regions:
        lines.append(
            f"  region {region.x},{region.y} {region.width}x{region.height}"
            f" area {region.area} peak {region.peak_score:.3f}"
        )
        lines.append(outline("outline", region.polygon))
        lines += [outline("hole", hole) for hole in region.holes]
    return "".join(f"{line}\n" for line in lines)


def of_the_frame_alone(record: bytes) -> dict[str, object]:
    """What two inspections of the same frame must have in common."""
    found: dict[str, object] = json.loads(record)
    for own in ("timings_ms", "id", "time", "monotonic_ns", "frame_id"):
        assert found.pop(own, None) or own == "frame_id"
    return found
