"""PyInstaller's hook: what a frozen program needs that no import statement names."""

from importlib.util import find_spec

from PyInstaller.utils.hooks import (
    collect_data_files,
    collect_dynamic_libs,
    collect_submodules,
    copy_metadata,
)

# Public names, backends and commands are imported where they are used.
hiddenimports = [
    *collect_submodules("zeroflaw", filter=lambda name: not name.startswith("zeroflaw.packaging")),
    *collect_submodules("zeroflaw_engines"),
]
# The bundles that ship, and the style of the page of results.
datas = [*collect_data_files("zeroflaw"), *collect_data_files("zeroflaw_engines")]
# Decoders of image files are imported when a file needs them, and imagecodecs loads its own so.
hiddenimports += ["simplejpeg", "tifffile", *collect_submodules("imagecodecs")]
# Versions, for records and `zeroflaw doctor`.
for distribution in ("zeroflaw", "numpy", "pillow", "msgspec", "opencv-python-headless"):
    datas += copy_metadata(distribution)
# Libraries that are loaded by name at run time.
binaries = collect_dynamic_libs("onnxruntime")
datas += copy_metadata("onnxruntime")
if find_spec("openvino") is not None:
    hiddenimports.append("openvino")
    # Its plugins and readers, which have a version after their suffix.
    binaries += collect_dynamic_libs("openvino", search_patterns=["*.so*", "*.dll", "*.dylib"])
    datas += collect_data_files("openvino", includes=["libs/*"])
    datas += copy_metadata("openvino")
# A station has no PyTorch, and its commands that need it say so.
excludedimports = ["torch", "zeroflaw_export", "zeroflaw_benchmarks"]
