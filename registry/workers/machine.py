"""The machine a worker runs on: memory, cores, what the processor can.

A container's limits count, not those of the machine around it. `root` is for tests: the folder in
which `/proc` and `/sys` lie.

Source: proc(5); Linux, Documentation/admin-guide/cgroup-v2.rst; spec inference-and-gguf 1.1, 2.1.
"""

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from registry.core import processor

_ROOT = Path("/")
_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that processes here may have in all, and that nobody uses now or could give up."""

    total: int
    free: int


def memory(root: Path = _ROOT) -> Memory:
    """What there is, within the limits of the control group."""
    facts = _table(root / "proc/meminfo")
    if not facts:
        return _memory_of_system()
    total = facts.get("MemTotal", 0) * 1024
    free = facts.get("MemAvailable", facts.get("MemFree", 0)) * 1024
    for limit, used in _limits(root):
        total, free = min(total, limit), min(free, max(0, limit - used))
    return Memory(total, free)


def memory_kills(root: Path = _ROOT) -> int:
    """How many processes of this machine the kernel has ended so far because memory ran out."""
    return _table(root / "proc/vmstat").get("oom_kill", 0)


def cores(root: Path = _ROOT) -> int:
    """Processor cores a runner should use: real ones, as far as they are ours."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(allowed or 1, _physical_cores(root) or allowed or 1)
    for folder in _groups(root):
        quota = _quota(folder)
        if quota is not None:
            count = min(count, quota)
    return max(1, count)


def missing_features(root: Path = _ROOT, machine: str | None = None) -> tuple[str, ...]:
    """What the built-in engine needs of the processor and does not find."""
    if (machine or platform.machine()) not in {"x86_64", "AMD64"}:
        return ()
    return tuple(processor.missing_features(_text(root / "proc/cpuinfo")))


def _memory_of_system() -> Memory:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return Memory(0, 0)
    return Memory(total, total)


def _physical_cores(root: Path) -> int:
    """Threads of one core share its arithmetic: a second one only waits. 0 if nobody tells."""
    found: set[tuple[str, str]] = set()
    package = ""
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "physical id":
            package = value.strip()
        elif name.strip() == "core id":
            found.add((package, value.strip()))
    return len(found)


def _limits(root: Path) -> list[tuple[int, int]]:
    """Limit and use of every control group above us; what files hold there can be given up."""
    found = []
    for folder in _groups(root):
        for limit_name, used_name, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = _number(folder / limit_name)
            if limit is None or limit >= _UNLIMITED:
                continue
            used = _number(folder / used_name) or 0
            held = _table(folder / "memory.stat").get(cached, 0)
            found.append((limit, max(0, used - held)))
    return found


def _groups(root: Path) -> list[Path]:
    """Folders of our control groups, from our own up to the root, of both versions."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        for kind in kinds.split(",") if kinds else [""]:
            if kind not in {"", "memory", "cpu"}:
                continue
            base = root / "sys/fs/cgroup" / kind
            folder = base / path.strip("/")
            while True:
                if folder.is_dir():
                    found.append(folder)
                if folder == base:
                    break
                folder = folder.parent
    return found


def _quota(folder: Path) -> int | None:
    text = _text(folder / "cpu.max").split()
    if len(text) == 2 and text[0].isdigit() and text[1].isdigit():
        return max(1, math.ceil(int(text[0]) / max(1, int(text[1]))))
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota and period and quota > 0:
        return max(1, math.ceil(quota / period))
    return None


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    found = {}
    for line in _text(path).splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def _number(path: Path) -> int | None:
    try:
        return int(_text(path).strip())
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
