"""Kills a writer of bundles before each of its steps in turn, and looks at what is left.

    python -m support.killed_writer OPERATION DIRECTORY exchange|renames

Prints the number of steps; then, one a line, what was not as it should be.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from support.products.product_settings import FULL
from support.small_bundle import (
    CALIBRATION,
    ENTRY,
    learn,
    left_overs,
    rows,
    write_small_bundle,
)
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.directory import lock as bundle_lock
from zeroflaw_engines.bundle.directory.variants import added_variants
from zeroflaw_engines.bundle.graph_entries import GraphVariant
from zeroflaw_engines.bundle.products.writer import (
    add_products,
    forget_reference,
    set_calibration,
    set_settings,
)
from zeroflaw_engines.bundle.writer import copy_bundle, staged_bundle, write_manifest
from zeroflaw_engines.errors import ZeroflawError

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.copyfile"}


def add(bundle: Path, _: Path) -> None:
    add_products(open_bundle(bundle), {"new": rows(1)}, {"new": ENTRY})


def add_again(bundle: Path, _: Path) -> None:
    add_products(open_bundle(bundle), {"object": rows(1)}, {"object": ENTRY})


def calibrate(bundle: Path, _: Path) -> None:
    opened = open_bundle(bundle)
    embeddings = opened.text_embeddings("object")
    set_calibration(
        opened,
        "object",
        0.5,
        CALIBRATION,
        embeddings=embeddings,
        reference=opened.reference_digest("object"),
    )


def learn_again(bundle: Path, _: Path) -> None:
    learn(open_bundle(bundle), seed=1)


def forget(bundle: Path, _: Path) -> None:
    forget_reference(open_bundle(bundle), "object")


def edit(bundle: Path, _: Path) -> None:
    set_settings(open_bundle(bundle), "object", FULL, template=b"a reference photo")


def edit_again(bundle: Path, _: Path) -> None:
    opened = open_bundle(bundle)
    if opened.manifest.products["object"].settings is None:
        opened = set_settings(opened, "object", FULL, template=b"the photo before")
    set_settings(opened, "object", FULL, template=b"a reference photo")


def variants(bundle: Path, _: Path) -> None:
    with added_variants(open_bundle(bundle)) as added:
        for engine in ("sam_encoder", "sam_decoder"):
            for ending in ("onnx", "onnx.data"):
                (added.directory / f"{engine}.fp16.{ending}").write_text("half")
            added.variants[engine] = GraphVariant(
                target="tensorrt",
                onnx=f"{engine}.fp16.onnx",
                weights=f"{engine}.fp16.onnx.data",
                opset=23,
                precision="fp16",
                attention="none",
            )


def copy(bundle: Path, other: Path) -> None:
    copy_bundle(open_bundle(other), bundle, overwrite=True)


def export(bundle: Path, other: Path) -> None:
    source = open_bundle(other)
    with staged_bundle(bundle, overwrite=True) as staging:
        for name in source.manifest.files:
            shutil.copyfile(other / name, staging / name)
        write_manifest(staging, msgspec.structs.replace(source.manifest, created="now"))


def export_new(bundle: Path, other: Path) -> None:
    export(bundle, other)


OPERATIONS: dict[str, Callable[[Path, Path], None]] = {
    operation.__name__: operation
    for operation in (
        add,
        add_again,
        calibrate,
        learn_again,
        forget,
        edit,
        edit_again,
        variants,
        copy,
        export,
        export_new,
    )
}


def run_until_step(step: int, root: Path, operation: Callable[[], None]) -> bool:
    """Runs an operation in a child that is killed before one of its steps; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def before(event: str, arguments: tuple[object, ...]) -> None:
            if event not in STEPS and event != "exchange":
                return
            named = str(arguments[0]) if arguments else ""
            inside = named.startswith((str(root), ".lock", ".bundle")) or event == "exchange"
            if not inside:
                return
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(before)
        real = bundle_lock.exchange

        def exchange(one: Path, two: Path) -> bool:
            sys.audit("exchange", one)
            done = real(one, two)
            sys.audit("exchange", one)
            return done

        bundle_lock.exchange = exchange
        code = 1
        try:
            operation()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        sys.exit(f"step {step}: the operation failed")
    return False


def main(name: str, directory: str, way: str) -> None:
    operation, place = OPERATIONS[name], Path(directory)
    if way == "renames":
        bundle_lock.exchange = lambda *_: False
    learn(write_small_bundle(place / "first", mark="first"))
    write_small_bundle(place / "other" / "b", mark="other")
    problems, step = [], 0
    while True:
        step += 1
        root = place / "tried" / f"{step}"
        bundle = root / "b"
        root.mkdir(parents=True)
        if name != "export_new":
            shutil.copytree(place / "first", bundle)
        killed = run_until_step(step, root, lambda to=bundle: operation(to, place / "other" / "b"))
        try:
            if name != "export_new":
                opened = open_bundle(bundle)
                # With a bank goes its threshold, whichever of the two states this is.
                entry = opened.manifest.products["object"]
                if (opened.reference_bank("object") is None) != (entry.threshold is None):
                    problems.append(f"step {step}: bank and threshold do not go together")
            operation(bundle, place / "other" / "b") if name.startswith("export") else add(
                bundle, bundle
            )
            if left := left_overs(bundle):
                problems.append(f"step {step}: the next writer left {', '.join(left)}")
        except (ZeroflawError, OSError) as error:
            problems.append(f"step {step}: {error!r}")
        shutil.rmtree(root)
        if not killed:
            break
    print(step - 1)
    print("\n".join(problems))


if __name__ == "__main__":
    main(*sys.argv[1:])
