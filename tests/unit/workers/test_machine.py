"""What a machine has, read from files of one."""

import os
from pathlib import Path

import pytest

from registry.workers import machine
from registry.workers.machine import Memory

MEMINFO = "MemTotal:       8000 kB\nMemFree:        1000 kB\nMemAvailable:   5000 kB\n"
K = 1024


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {
    "proc/self/cgroup": "0::/slice/unit\n",
    "sys/fs/cgroup/slice/unit/memory.max": "max\n",
    "sys/fs/cgroup/slice/memory.max": f"{4000 * K}\n",
    "sys/fs/cgroup/slice/memory.current": f"{3000 * K}\n",
    "sys/fs/cgroup/slice/memory.stat": f"anon 1\ninactive_file {500 * K}\n",
    "sys/fs/cgroup/slice/unit/cpu.max": "150000 100000\n",
}
V1 = {
    "proc/self/cgroup": "5:memory:/box\n4:cpu,cpuacct:/box\n3:cpuset:/\n",
    "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{4000 * K}\n",
    "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{3000 * K}\n",
    "sys/fs/cgroup/memory/box/memory.stat": f"total_inactive_file {500 * K}\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "100000\n",
    "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
}


def test_what_the_kernel_ended_for_want_of_memory_is_counted(tmp_path: Path) -> None:
    assert machine.memory_kills(tmp_path) == 0
    root = files(tmp_path, {"proc/vmstat": "nr_free_pages 5\noom_kill 3\n"})
    assert machine.memory_kills(root) == 3


def test_memory_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    root = files(tmp_path, {"proc/meminfo": MEMINFO})
    assert machine.memory(root) == Memory(8000 * K, 5000 * K)


@pytest.mark.parametrize("groups", [V2, V1])
def test_a_containers_memory_is_its_limit_and_cached_files_can_be_given_up(
    tmp_path: Path, groups: dict[str, str]
) -> None:
    root = files(tmp_path, {"proc/meminfo": MEMINFO, **groups})
    assert machine.memory(root) == Memory(4000 * K, 1500 * K)


def test_without_proc_the_system_is_asked(tmp_path: Path) -> None:
    found = machine.memory(tmp_path)
    assert found.total > 1 << 20


def test_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    lines = [f"physical id : {n % 2}\ncore id : {n // 4}\n\n" for n in range(8)]
    assert machine.cores(files(tmp_path, {"proc/cpuinfo": "".join(lines)})) == 4


@pytest.mark.parametrize(("groups", "count"), [(V2, 2), (V1, 1), ({}, 8)])
def test_a_containers_quota_is_rounded_up_to_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: dict[str, str], count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.cores(files(tmp_path, groups)) == count


def test_what_the_processor_lacks_is_named(tmp_path: Path) -> None:
    root = files(tmp_path, {"proc/cpuinfo": "processor : 0\nflags : fpu avx bmi2 fma\n"})
    assert machine.missing_features(root, "x86_64") == ("avx2", "f16c")
    assert machine.missing_features(root, "aarch64") == ()
    assert machine.missing_features(tmp_path / "nowhere", "x86_64") == ()
