"""Which backends serve which card: real cards, by their published compute capabilities."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

from support.gpu.simulated_tensorrt import SimulatedTensorRt
from zeroflaw.cli.commands import all_commands
from zeroflaw_engines.backends import BACKENDS, availability, choose_backend, load_session
from zeroflaw_engines.builder.build import build_engine
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.machine import Gpu
from zeroflaw_engines.sessions.gpu_support import family, gpu_services, require_served

DOCS = Path(__file__).parents[4] / "docs" / "building.md"
RTX, TRT, ORT = "tensorrt-rtx", "tensorrt", "onnxruntime-cuda"
# Name, compute capability, and what serves it, the first first.
CARDS = [
    ("Tesla T4", "sm75", (TRT, ORT)),
    ("NVIDIA GeForce RTX 2080 Ti", "sm75", (TRT, ORT)),
    ("NVIDIA A100-SXM4-80GB", "sm80", (TRT, ORT)),
    ("NVIDIA A30", "sm80", (TRT, ORT)),
    ("NVIDIA GeForce RTX 3090", "sm86", (RTX, TRT, ORT)),
    ("NVIDIA RTX A2000", "sm86", (RTX, TRT, ORT)),
    ("NVIDIA A10", "sm86", (RTX, TRT, ORT)),
    ("Orin (nvgpu)", "sm87", (TRT,)),
    ("NVIDIA GeForce RTX 4090", "sm89", (RTX, TRT, ORT)),
    ("NVIDIA L4", "sm89", (RTX, TRT, ORT)),
    ("NVIDIA RTX 6000 Ada Generation", "sm89", (RTX, TRT, ORT)),
    ("NVIDIA H100 80GB HBM3", "sm90", (TRT, ORT)),
    ("NVIDIA H200", "sm90", (TRT, ORT)),
    ("NVIDIA GH200 480GB", "sm90", (TRT, ORT)),
    ("NVIDIA B200", "sm100", (TRT,)),
    ("NVIDIA B300", "sm103", (TRT,)),
    ("NVIDIA Thor", "sm110", (TRT,)),
    ("NVIDIA GeForce RTX 5090", "sm120", (RTX, TRT, ORT)),
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "sm120", (RTX, TRT, ORT)),
    ("NVIDIA GB10", "sm121", (RTX, TRT, ORT)),
]


@pytest.mark.parametrize(("name", "architecture", "serve"), CARDS)
def test_what_serves_a_card(name: str, architecture: str, serve: tuple[str, ...]) -> None:
    gpu = Gpu(name, architecture)
    services = gpu_services(gpu)
    assert tuple(one.backend for one in services if one.serves) == serve
    assert {one.backend for one in services} == {RTX, TRT, ORT}
    assert all(one.reason for one in services)
    assert all(bool(one.commands) == bool(one.serves) for one in services)
    assert family(gpu)


def test_a_card_that_is_not_known_is_not_refused() -> None:
    gpu = Gpu("NVIDIA Next", "sm150")
    assert family(gpu) == ""
    assert [one.serves for one in gpu_services(gpu)] == [None, None, None]
    for backend in BACKENDS:
        require_served(backend, gpu)


def options_of(command: str) -> dict[str, set[str]]:
    group = typer.main.get_command(all_commands())
    return {
        name: {option for parameter in one.params for option in parameter.opts}
        for name, one in group.commands.items()  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("device", [0, 2])
@pytest.mark.parametrize(("name", "architecture", "serve"), CARDS)
def test_the_commands_are_ones_that_there_are(name, architecture, serve, device: int) -> None:
    known = options_of("zeroflaw")
    for service in gpu_services(Gpu(name, architecture), "bundles/b", device=device):
        for command in service.commands:
            words = shlex.split(command)
            if words[0] != "zeroflaw":
                assert "pip" in command
                continue
            assert {word for word in words if word.startswith("--")} <= known[words[1]]
            assert words[2] == "bundles/b"
            assert words[words.index("--backend") + 1] == service.backend
            # tensorrt-rtx builds for an architecture; what runs or builds on a GPU names it
            on_gpu = words[1] == "inspect" or service.backend == TRT
            assert ("--device" in words) == (device > 0 and on_gpu)


@pytest.mark.parametrize("architecture", ["sm90", "sm80", "sm75", "sm87"])
def test_a_backend_that_does_not_serve_the_gpu_says_what_does(
    bundle: Bundle, gpu: SimulatedTensorRt, architecture: str
) -> None:
    assert availability(RTX).available
    gpu.cuda.architecture = (int(architecture[2]), int(architecture[3]))
    with pytest.raises(BackendUnavailableError, match="does not serve Simulated GPU") as caught:
        load_session(bundle, "sam_decoder", backend=RTX)
    assert "use tensorrt: " in caught.value.remedy
    assert "does not serve" in availability(RTX).missing
    choice = choose_backend("auto", bundle=bundle)
    assert choice.backend != RTX
    assert f"tensorrt-rtx does not serve Simulated GPU ({architecture})" in choice.reason


def test_nothing_is_built_here_for_a_gpu_that_is_not_served(
    bundle: Bundle, gpu: SimulatedTensorRt
) -> None:
    gpu.cuda.architecture = (9, 0)
    with pytest.raises(BackendUnavailableError, match=r"does not serve Simulated GPU \(sm90\)"):
        build_engine(bundle, "sam_decoder", BuildOptions(backend=RTX))


def test_the_manual_has_the_same_table() -> None:
    rows = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[2].startswith("`sm"):
            rows[cells[2].strip("`")] = cells
    words = {True: "yes", None: "depends", False: "no"}
    assert set(rows) == {architecture for _, architecture, _ in CARDS}
    for architecture, (cards, capability, _, *cells) in rows.items():
        one = Gpu("a card", architecture)
        serves = {service.backend: service.serves for service in gpu_services(one)}
        assert cells == [words[serves[backend]] for backend in (RTX, TRT, ORT)]
        assert cards == family(one)
        assert f"sm{capability.replace('.', '')}" == architecture
