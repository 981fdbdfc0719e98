"""TensorRT's Python bindings without TensorRT, for autospecs of the real classes.

The bindings' wheel is on PyPI, the library `libnvinfer` behind it is not. Its extension module
names three libraries that the loader must find, and takes a dozen functions from them. A copy that
no longer names the libraries, and to which the functions are optional, can be imported: classes,
enumerations and signatures are there, and nothing can be created.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import struct
import sys
from pathlib import Path
from types import ModuleType

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_SYMTAB = 1, 5, 6
_WEAK = 2
_FUNCTIONS = (b"createInfer", b"createNvOnnx", b"getBuilderPlugin", b"getNvOnnx", b"getPlugin",
              b"initLibNv")  # fmt: skip
_IGNORED = 0x6000_0FFF  # a tag that no loader knows
_ENTRY = struct.Struct("<qQ")
_SYMBOL = struct.Struct("<IBBHQQ")


def import_bindings_alone(directory: Path) -> ModuleType:
    """Copies the installed bindings, cuts them loose from their libraries, and imports the copy.

    A process has one copy: the first call's.
    """
    if "tensorrt_bindings" in sys.modules:  # an extension module is loaded once a process
        return sys.modules["tensorrt_bindings"]
    spec = importlib.util.find_spec("tensorrt_bindings")
    assert spec is not None
    assert spec.origin is not None, "the dev extra brings tensorrt-cu12-bindings"
    copy = shutil.copytree(Path(spec.origin).parent, directory / "tensorrt_bindings")
    for library in copy.glob("tensorrt*.so"):
        library.write_bytes(without_libraries(library.read_bytes(), b"libnv"))
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module("tensorrt_bindings")
    finally:
        sys.path.remove(str(directory))


def without_libraries(elf: bytes, prefix: bytes) -> bytes:
    """A 64-bit ELF file that no longer names the libraries that begin with a prefix."""
    headers, count = struct.unpack_from("<Q", elf, 32)[0], struct.unpack_from("<H", elf, 56)[0]
    segments = [struct.unpack_from("<IIQQQQQQ", elf, headers + 56 * n) for n in range(count)]

    def offset(address: int) -> int:
        return next(
            at + address - start
            for kind, _, at, start, _, size, *_ in segments
            if kind == _PT_LOAD and start <= address < start + size
        )

    [(at, size)] = [(one[2], one[5]) for one in segments if one[0] == _PT_DYNAMIC]
    entries = {where: _ENTRY.unpack_from(elf, where) for where in range(at, at + size, 16)}
    tables = {tag: value for tag, value in entries.values() if tag in {_DT_STRTAB, _DT_SYMTAB}}
    names, symbols = offset(tables[_DT_STRTAB]), offset(tables[_DT_SYMTAB])
    changed = bytearray(elf)
    for where, (tag, value) in entries.items():
        if tag == _DT_NEEDED and elf[names + value :].startswith(prefix):
            _ENTRY.pack_into(changed, where, _IGNORED, value)
    for where in range(symbols, names, _SYMBOL.size):
        name, info, *rest = _SYMBOL.unpack_from(elf, where)
        if rest[1] == 0 and elf[names + name : names + name + 32].startswith(_FUNCTIONS):
            _SYMBOL.pack_into(changed, where, name, _WEAK << 4 | info & 15, *rest)
    return bytes(changed)
