"""`zeroflaw doctor`: what this machine can run, and what it lacks for the rest."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from zeroflaw.cli.json_lines import json_option, print_json
from zeroflaw.station.diagnosis import BackendDiagnosis, Diagnosis, GpuDiagnosis, diagnose
from zeroflaw_engines.process.terminal import out, printable


def doctor(
    bundle: Annotated[
        str | None, typer.Argument(help="A bundle whose built engines are to be looked at, too.")
    ] = None,
    *,
    as_json: Annotated[bool, json_option("Print it as JSON.")] = False,
) -> None:
    """Say what this machine can run, what the other backends lack, and what `auto` would choose.

    For each GPU it names the backends that serve it, and what to type to install, build and run.

    A backend called *unverified* has not passed the acceptance on any GPU as it is now;
    `python -m zeroflaw_benchmarks.verify.gpu_acceptance` is what verifies it on yours.

        zeroflaw doctor

        zeroflaw doctor my_bundle
    """
    found = diagnose(bundle)
    if as_json:
        print_json(found)
        return
    _print_machine(found)
    table = Table("backend", "", "precisions", "version, or what is missing", box=None)
    for backend in found.backends:
        table.add_row(*map(Text, _row(backend)))
    out.print(table)
    out.print(f"auto: {found.auto}", markup=False)
    if len(found.gpus) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        out.print(
            "\nGPUs are numbered as nvidia-smi does: export CUDA_DEVICE_ORDER=PCI_BUS_ID, so that"
            " --device counts them in that order",
            markup=False,
        )
    for gpu in found.gpus:
        _print_gpu(gpu)
    if found.bundle is not None:
        _print_bundle(found)


def _print_machine(found: Diagnosis) -> None:
    machine = found.machine
    main_memory = machine.memory_bytes
    features = "unknown here" if machine.features is None else " ".join(machine.features)
    rows = [
        ("zeroflaw", f"{found.zeroflaw}, Python {machine.python}, {machine.system}"),
        ("processor", f"{machine.processor}, {machine.cores} cores"),
        ("instructions", features or "none of those that backends ask for"),
        ("memory", "unknown here" if main_memory is None else f"{main_memory / 2**30:.1f} GiB"),
    ]
    for gpu in machine.gpus:
        memory = "the machine's memory" if gpu.memory_mib is None else f"{gpu.memory_mib} MiB"
        described = f"{gpu}, {memory}, driver {gpu.driver}"
        rows.append(("GPU", described))
    if not machine.gpus:
        rows.append(("GPU", "none: nvidia-smi is missing or shows none"))
    rows.append(("versions", ", ".join(f"{k} {v}" for k, v in found.versions.items())))
    table = Table(show_header=False, box=None)
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(table)


def _print_gpu(found: GpuDiagnosis) -> None:
    described = f" -- {found.family}" if found.family else ""
    out.print(f"\nGPU {found.number}, {found.gpu}{described}", markup=False)
    says = {True: "serves it", None: "perhaps", False: "does not serve it"}
    for service in found.services:
        out.print(f"  {service.backend} {says[service.serves]}: {service.reason}", markup=False)
        for command in service.commands:
            out.print(f"    {command}", markup=False)


def _row(backend: BackendDiagnosis) -> tuple[str, str, str, str]:
    found = backend.found
    if not found.available:
        return found.backend, "missing", "", f"{found.missing} -- {found.remedy}"
    version = found.version if backend.verified else f"{found.version}, unverified"
    return found.backend, "available", " ".join(found.precisions), version


def _print_bundle(found: Diagnosis) -> None:
    if found.bundle_error is not None:
        out.print(printable(f"bundle {found.bundle}: {found.bundle_error}"), markup=False)
        return
    if not found.engines:
        out.print(
            f"bundle {printable(found.bundle)}: no built engines (`zeroflaw build` makes them for"
            " GPUs; CPU backends need none)",
            markup=False,
        )
        return
    table = Table("engine", "", "why", box=None)
    for engine in found.engines:
        table.add_row(*map(Text, (engine.path, engine.status, engine.reason)))
    out.print(table)
