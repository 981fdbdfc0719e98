"""Makes a kit: zeroflaw, the packages that a GPU machine lacks, and what runs there, in pieces."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import tarfile
import tempfile
import zipapp
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_benchmarks.verify.gpu_kit import packages
from zeroflaw_benchmarks.verify.gpu_kit.installation import PACKAGES
from zeroflaw_benchmarks.verify.gpu_kit.pieces import Contents, cut, write_contents
from zeroflaw_engines.errors import BenchmarkError

PARTS: Final = ("tree", "site", "ort", "rtx")
PROGRAM: Final = "gpu_kit.pyz"
_MIB: Final = 2**20
_OF_THE_TREE: Final = (*PACKAGES, "examples", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
# Beside a piece's chunks: the program and the list of what the kit holds.
_RESERVED: Final = 256 * 1024
_MODULES: Final = (
    "benchmarks/zeroflaw_benchmarks/__init__.py",
    "benchmarks/zeroflaw_benchmarks/verify/__init__.py",
    "engines/zeroflaw_engines/__init__.py",
    "engines/zeroflaw_engines/errors.py",
)
_KIT: Final = "benchmarks/zeroflaw_benchmarks/verify/gpu_kit"
# What the program imports; it needs nothing but Python's own library.
_OF_THE_PROGRAM: Final = (
    "__init__", "installation", "pieces", "process", "run", "runner", "steps", "summary",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What a kit holds.

    Attributes:
        parts: Of `PARTS`; `tree` may be left out where a checkout is on the machine.
        piece_size: Most bytes of a piece.
        python: Version of the machine's Python, as `3.12`.
        architecture: Compute capability of its GPU without the point, as 90.
        preset: Of xz, 0 to 9.
    """

    parts: tuple[str, ...] = PARTS
    piece_size: int = 48 * _MIB
    python: str = "3.12"
    architecture: int = 90
    preset: int = 6


def pack(
    folder: Path, options: PackOptions, *, say: Callable[[str], None] = lambda _text: None
) -> Contents:
    """Make the pieces `folder/piece_1`, `folder/piece_2` and so on.

    Args:
        folder: Must not exist, or be empty.
        say: Is told what is being done.

    Raises:
        BenchmarkError: This is no checkout, the folder is not empty, or pip failed.
    """
    root = checkout()
    if folder.exists() and any(folder.iterdir()):
        raise BenchmarkError(f"{folder} is not empty", "name another folder, or empty it")
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Path], None]] = {
        "tree": lambda target: copy_tree(root, target),
        "site": lambda target: packages.install(packages.BASE, target, options.python),
        "ort": lambda target: packages.install_onnxruntime(
            target, options.python, options.architecture
        ),
        "rtx": lambda target: packages.install_tensorrt_rtx(target, options.python),
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix="work_") as work:
        archives = []
        for part in PARTS:
            if part in options.parts:
                say(f"making the part {part}")
                target, archive = Path(work) / part, Path(work) / f"{part}.tar.xz"
                target.mkdir()
                makers[part](target)
                say(f"compressing the part {part}")
                compress(target, archive, options.preset)
                shutil.rmtree(target)
                archives.append((part, archive))
        parts = cut(archives, folder, options.piece_size, reserved=_RESERVED)
    pieces = max((chunk.piece for part in parts for chunk in part.chunks), default=1)
    contents = Contents(
        made=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        commit=_commit(root),
        python=options.python,
        pieces=pieces,
        parts=parts,
    )
    for number in range(1, pieces + 1):
        piece = folder / f"piece_{number}"
        piece.mkdir(exist_ok=True)
        write_contents(contents, piece)
        write_program(root, piece / PROGRAM)
    return contents


def checkout() -> Path:
    """Return the checkout that this module is in.

    Raises:
        BenchmarkError: It was installed without one.
    """
    root = Path(__file__).resolve().parents[4]
    if not (root / "pyproject.toml").is_file():
        raise BenchmarkError(
            "a kit is packed from a checkout of zeroflaw", "clone it, and run the command there"
        )
    return root


def copy_tree(root: Path, target: Path) -> None:
    """Copy the packages and examples of a checkout as they are now, without what git ignores.

    Raises:
        BenchmarkError: git fails.
    """
    listed = _git(root, "ls-files", "-z", "-co", "--exclude-standard", "--", *_OF_THE_TREE)
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)


def compress(source: Path, archive: Path, preset: int) -> None:
    """Pack what is in a folder; the same files give the same bytes."""
    with tarfile.open(archive, "w:xz", preset=preset) as packed:
        for path in sorted(source.rglob("*")):
            packed.add(path, str(path.relative_to(source)), recursive=False, filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def write_program(root: Path, target: Path) -> None:
    """Write the program that runs on the GPU machine."""
    with tempfile.TemporaryDirectory() as work:
        for name in (*_MODULES, *(f"{_KIT}/{module}.py" for module in _OF_THE_PROGRAM)):
            copied = Path(work, *Path(name).parts[1:])
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, copied)
        # No `main` of zipapp: it would drop the exit code.
        start = "import sys\nfrom zeroflaw_benchmarks.verify.gpu_kit.run import main\n"
        Path(work, "__main__.py").write_text(start + "sys.exit(main())\n")
        zipapp.create_archive(work, target, compressed=True)


def _commit(root: Path) -> str:
    commit = _git(root, "rev-parse", "--short=12", "HEAD").strip()
    changed = _git(root, "status", "--porcelain", "--", *_OF_THE_TREE).strip()
    return f"{commit} with changes" if changed else commit


def _git(root: Path, *words: str) -> str:
    command = shutil.which("git")
    if command is None:
        raise BenchmarkError("there is no git", "install it: it says what is in the checkout")
    done = subprocess.run(  # noqa: S603 - git of this machine
        [command, "-C", str(root), *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(
            f"git {words[0]} failed: {done.stderr.strip()}", "run it in a checkout of zeroflaw"
        )
    return done.stdout


def sizes(contents: Contents) -> Sequence[int]:
    """Return the bytes of each piece's chunks."""
    found = [0] * contents.pieces
    for part in contents.parts:
        for chunk in part.chunks:
            found[chunk.piece - 1] += chunk.size
    return found
