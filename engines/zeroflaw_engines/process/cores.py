"""How many cores this process may use: by its affinity, and by the quota of its container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

# Where the tree of each version is on most systems, should the system not tell.
_USUAL: Final = {
    1: [(PurePosixPath("/"), PurePosixPath("/sys/fs/cgroup/cpu"))],
    2: [(PurePosixPath("/"), PurePosixPath("/sys/fs/cgroup"))],
}


def engine_threads(threads: int, root: Path = Path("/")) -> int:
    """Return the number of threads to ask a backend for.

    Backends count the cores of the machine and know nothing of quotas. Where this process may use
    all of them it is left to them, since they leave out the second threads of each core.

    Args:
        threads: As asked for; 0 takes every core that this process may use.
        root: Where the system's files are, other than in tests.

    Returns:
        0 where the backend is to choose.
    """
    cores = usable_cores(root)
    return threads or (cores if cores < (os.cpu_count() or 1) else 0)


def usable_cores(root: Path = Path("/")) -> int:
    """Count the cores that this process may use at once, at least 1.

    That is what its affinity allows and, in a container, what the CPU quota of its cgroup and of
    all above pays for. A quota of 1.5 cores counts as 2: one thread would leave half a core
    unused in every period, two are slowed down only for what they use beyond it.

    Args:
        root: Where the system's files are, other than in tests.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    quota = cpu_quota(root)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU time that this process's cgroup and those above it grant, in cores.

    Args:
        root: Where the system's files are, other than in tests.

    Returns:
        The least of them; None where there is no quota, or none that can be read.
    """
    quotas = [quota for group in _groups(root) if (quota := _quota_of(group)) is not None]
    return min(quotas, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """List the directories of this process's cgroup, version 1 and 2, and of all above it."""
    cgroup = _read(root / "proc/self/cgroup")
    mounts = _read(root / "proc/self/mountinfo")
    for line in cgroup.splitlines():
        # 0::/path in version 2, 4:cpu,cpuacct:/path in version 1
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        for mounted_path, mount in list(_mounts(mounts, version=version)) or _USUAL[version]:
            group = PurePosixPath(path)
            # In a container the mount may show a part of the tree only, or the path be the host's.
            below = (
                group.relative_to(mounted_path)
                if group.is_relative_to(mounted_path)
                else PurePosixPath()
            )
            here = root / mount.relative_to("/")
            yield here
            for part in below.parts:
                here /= part
                yield here


def _mounts(mounts: str, *, version: int) -> Iterator[tuple[PurePosixPath, PurePosixPath]]:
    """Find which part of the cgroup tree is mounted where; see proc(5) on mountinfo."""
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 5 or not kind:
            continue
        is_wanted = (
            kind[0] == "cgroup2"
            if version == 2
            else kind[0] == "cgroup" and "cpu" in kind[-1].split(",")
        )
        if is_wanted:
            yield PurePosixPath(fields[3]), PurePosixPath(fields[4])


def _quota_of(group: Path) -> float | None:
    second = _read(group / "cpu.max").split()
    if len(second) == 2:
        return _ratio(*second)
    quota, period = (_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    """Divide quota by period; None for `max`, -1, and what is no number."""
    if not (quota.isdigit() and period.isdigit()) or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
