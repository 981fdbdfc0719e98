"""`zeroflaw doctor` on machines with GPUs: what serves each of them, and what to type."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from zeroflaw.cli.commands import app
from zeroflaw.cli.doctor import doctor
from zeroflaw.station import diagnosis
from zeroflaw_engines import machine
from zeroflaw_engines.machine import NvidiaGpu

GPUS = (
    NvidiaGpu("NVIDIA H100 80GB HBM3", "sm90", "580.1", 81559),
    NvidiaGpu("NVIDIA GB10", "sm121", "580.9", None),
)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvidia_gpus", lambda: GPUS)


def test_each_gpu_has_what_serves_it(gpus) -> None:
    hopper, spark = diagnosis.diagnose("mini").gpus
    assert [one.backend for one in hopper.services if one.serves] == [
        "tensorrt",
        "onnxruntime-cuda",
    ]
    assert "data-centre" in hopper.services[-1].reason
    assert spark.services[0].backend == "tensorrt-rtx"
    assert spark.services[0].commands[1:] == (
        "zeroflaw build mini --backend tensorrt-rtx --gpu sm121",
        "zeroflaw inspect mini photos/ --backend tensorrt-rtx --device 1",
    )


def test_the_doctor_prints_it_as_text_and_as_json(gpus) -> None:
    app.command()(doctor)
    text = CliRunner().invoke(app, ["doctor"]).stdout
    assert "GPU 0, NVIDIA H100 80GB HBM3 (sm90) -- Hopper for data centres" in text
    assert "tensorrt-rtx does not serve it: " in text
    assert "zeroflaw build my_bundle --backend tensorrt-rtx --gpu sm121" in text
    assert "the machine's memory, driver 580.9" in " ".join(text.split())
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert found["gpus"][0]["gpu"]["architecture"] == "sm90"
    assert found["gpus"][1]["services"][0]["commands"]


def test_numbers_of_several_gpus_are_those_that_cuda_must_use(gpus, monkeypatch) -> None:
    """CUDA puts the fastest first unless it is told otherwise, nvidia-smi does not."""
    app.command()(doctor)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    order = "export CUDA_DEVICE_ORDER=PCI_BUS_ID"
    assert order in CliRunner().invoke(app, ["doctor"]).stdout.replace("\n", " ")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert order not in CliRunner().invoke(app, ["doctor"]).stdout.replace("\n", " ")
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setattr(machine, "nvidia_gpus", lambda: GPUS[:1])
    assert order not in CliRunner().invoke(app, ["doctor"]).stdout.replace("\n", " ")
