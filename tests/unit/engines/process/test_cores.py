"""CPU quotas of containers, from trees as Docker, systemd and Kubernetes make them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zeroflaw_engines.process import cores
from zeroflaw_engines.process.cores import cpu_quota, engine_threads, usable_cores

V2_MOUNT = "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "33 30 0:30 {} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"


def tree(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def second(root: Path, group: str, **quotas: str) -> Path:
    """Version 2; quotas by the group's path with `__` for `/`."""
    files = {
        f"sys/fs/cgroup/{name.strip('_').replace('__', '/')}/cpu.max": text + "\n"
        for name, text in quotas.items()
    }
    return tree(root, f"0::{group}\n", V2_MOUNT, files)


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)


@pytest.mark.parametrize(
    ("quota", "wanted"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),  # one thread would leave half a core unused
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("25000 50000", 1),
        ("3200000 100000", 16),  # more than the affinity allows
        ("max 100000", 16),
        ("0 100000", 16),
        ("100000 0", 16),
        ("nonsense", 16),
        ("", 16),
    ],
)
def test_a_quota_of_the_containers_own(tmp_path: Path, quota: str, wanted: int) -> None:
    """In a namespace of its own a container sees its group as the root of the tree."""
    assert usable_cores(second(tmp_path, "/", _=quota)) == wanted


def test_the_least_of_all_groups_above_counts(tmp_path: Path) -> None:
    group = "/kubepods/pod1/app"
    quotas = {
        "kubepods": "800000 100000", "kubepods__pod1": "300000 100000",
        "kubepods__pod1__app": "max 100000", "other": "100000 100000",
    }  # fmt: skip
    root = second(tmp_path, group, **quotas)
    assert cpu_quota(root) == 3
    assert usable_cores(root) == 3
    (root / "sys/fs/cgroup/kubepods/pod1/app/cpu.max").write_text("250000 100000")
    assert usable_cores(root) == 3
    assert cpu_quota(root) == 2.5


@pytest.mark.parametrize("mounted", ["/", "/docker/0123"], ids=["host", "container"])
def test_version_1(tmp_path: Path, mounted: str) -> None:
    below = "docker/0123/" if mounted == "/" else ""
    where = f"sys/fs/cgroup/cpu,cpuacct/{below}"
    files = {f"{where}cpu.cfs_quota_us": "400000\n", f"{where}cpu.cfs_period_us": "100000\n"}
    cgroup = "12:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n"
    root = tree(tmp_path, cgroup, V1_MOUNT.format(mounted), files)
    assert usable_cores(root) == 4
    (root / where / "cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cores(root) == 16


def test_a_path_of_the_host_that_the_container_does_not_see(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
             "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000"}  # fmt: skip
    root = tree(tmp_path, "4:cpu,cpuacct:/host/abc\n", V1_MOUNT.format("/docker/0123"), files)
    assert usable_cores(root) == 2


def test_without_a_mountinfo_the_usual_place_is_looked_at(tmp_path: Path) -> None:
    root = second(tmp_path, "/", _="200000 100000")
    (root / "proc/self/mountinfo").unlink()
    assert usable_cores(root) == 2
    (root / "proc/self/cgroup").write_text("not: as expected\n\n0:")
    assert usable_cores(root) == 16


def test_the_affinity_and_a_system_without_either(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert usable_cores(tmp_path) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores(tmp_path) == 16
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1


def test_threads_of_engines(tmp_path: Path, monkeypatch) -> None:
    """A backend that may use the whole machine knows best; else it would not know the limit."""
    assert engine_threads(0, tmp_path) == 0
    limited = second(tmp_path / "limited", "/", _="300000 100000")
    assert engine_threads(0, limited) == 3
    assert engine_threads(5, limited) == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert engine_threads(0, tmp_path) == 2


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_sessions_ask_for_what_the_container_may_use(backend: str, monkeypatch) -> None:
    from zeroflaw_engines.backends import load_session
    from zeroflaw_engines.bundle.bundle import open_bundle
    from zeroflaw_engines.sessions import onnxruntime_session, openvino_session

    assert cores.engine_threads is onnxruntime_session.engine_threads
    for module in (onnxruntime_session, openvino_session):
        monkeypatch.setattr(module, "engine_threads", lambda threads: threads or 1)
    session = load_session(open_bundle("mini"), "sam_decoder", backend=backend)
    if backend == "openvino":
        assert session._model.get_property("INFERENCE_NUM_THREADS") == 1
    else:
        assert session._session.get_session_options().intra_op_num_threads == 1
    session.close()
