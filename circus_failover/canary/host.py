"""What the host says of memory, and of processes that were killed for want of it.

The canary imports this module, so it stays light and quick. It reads counters, the kernel log and figures,
and says whether a counter moved; what follows from that is policy. It never blocks, and a file that is
missing or may not be read is an answer (nothing, or None) and no error.
"""

from __future__ import annotations

import os
import re
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VMSTAT = "/proc/vmstat:oom_kill"
"""The counter of the whole host (Linux 4.13, mm/vmstat.c)."""
KMSG = "/dev/kmsg"
BURST_SECS = 0.02
KMSG_RECORDS = 100_000
"""How many records one look at the kernel log reads at most: a log that never ends must not hold it up."""
KILLS_KEPT = 1000
LINE_CHARS = 400

# What limits a cgroup and what it used, v2 and v1 (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/).
CGROUP_FILES = (
    *("memory.current", "memory.high", "memory.max", "memory.peak", "memory.events", "memory.pressure"),
    *("memory.swap.current", "memory.swap.max", "memory.oom.group", "pids.current", "pids.max"),
    *("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.failcnt"),
    *("memory.memsw.usage_in_bytes", "memory.memsw.limit_in_bytes", "memory.memsw.failcnt"),
    "memory.oom_control",
)
MEMORY_FIELDS = (
    *("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Active", "Inactive", "Dirty", "Writeback"),
    *("AnonPages", "Shmem", "Slab", "SReclaimable", "SUnreclaim", "KernelStack", "PageTables"),
    *("CommitLimit", "Committed_AS"),
)
SWAP_FIELDS = ("SwapTotal", "SwapFree", "SwapCached")

# mm/oom_kill.c: "Killed process" since 3.0, with what it was killed for before it since 5.1. Its older "Kill
# process N (name) score S or sacrifice child" is left out: it may be a child that dies.
_KILL = re.compile(
    r"(?:(?:Memory cgroup out of memory|Out of memory)(?: \([^)]*\))?: )?Killed process (\d+)\b"
    r"|oom_reaper: reaped process (\d+)\b"
)
# How kernel lines name a process: "name[PID]:", "[  PID]" (the list of an OOM kill), "pid=PID", "PID: PID",
# "process PID", "task name:PID blocked".
_NAMED = re.compile(r"(?:\bprocess |\bpid[:= ] ?|\bPID: ?|\[ *|\btask .{1,64}:)(\d+)\b")
# The initial pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
_INITIAL_PIDS = "pid:[4026531836]"


def read(path: str, limit: int = 256 * 1024) -> bytes | None:
    """Return what a file holds, at most `limit` bytes of it; None when it cannot be read. Never waits."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = b""
        while len(found) < limit:
            part = os.read(handle, limit - len(found))
            if not part:
                break
            found += part
        return found
    except OSError:
        return None
    finally:
        os.close(handle)


# ---- counters of OOM kills


class _Burst:
    """What was read a moment ago: 500 servers are armed at once, and most of them share what is read."""

    def __init__(self) -> None:
        self.until = 0.0
        self.keys: dict[bytes, str | None] = {}
        self.counters: dict[str, int | None] = {}


_burst = _Burst()
_mounts: dict[str, tuple[str, str]] = {}


def counters(pid: int) -> dict[str, int]:
    """Return the OOM counters that concern a process, by `FILE:FIELD`.

    That of its cgroup, unless that is the root, and that of the host. A counter may be as old as BURST_SECS:
    a kill within that time before a process was armed counts as one after it.
    """
    now = time.monotonic()
    if now >= _burst.until:
        _burst.keys.clear()
        _burst.counters.clear()
        _burst.until = now + BURST_SECS
    found = {}
    for key in (_cgroup_counter(pid), VMSTAT):
        if key is None:
            continue
        if key not in _burst.counters:
            _burst.counters[key] = _counter(key)
        number = _burst.counters[key]
        if number is not None:
            found[key] = number
    return found


def counters_of(before: Mapping[str, int]) -> dict[str, int]:
    """Return the same counters as they are now; one that is gone, with its cgroup, is left out."""
    return {key: number for key in before if (number := _counter(key)) is not None}


def moved(before: Mapping[str, int], now: Mapping[str, int]) -> str | None:
    """Say which counter moved, for people, or None: none did.

    The counter of the cgroup decides; that of the host only where there is none, or no longer. One that went
    back belongs to another cgroup of the same name.

    Args:
        before: what `counters` returned when the process was armed.
        now: what `counters_of` returned for that after its end.
    """
    own = [key for key in before if key != VMSTAT and now.get(key, -1) >= before[key]]
    for key in own or [VMSTAT]:
        if key in before and now.get(key, 0) > before[key]:
            path, _, field = key.rpartition(":")
            return f"{field} in {path} went from {before[key]} to {now[key]} since it was armed"
    return None


def _counter(key: str) -> int | None:
    path, _, field = key.rpartition(":")
    found = re.search(rb"^%b (\d+)$" % field.encode(), read(path) or b"", re.MULTILINE)
    return int(found[1]) if found else None


def _cgroup_counter(pid: int) -> str | None:
    raw = read(f"/proc/{pid}/cgroup")
    if raw is None:
        return None
    if raw not in _burst.keys:
        _burst.keys[raw] = _find_counter(os.fsdecode(raw), _mount_points())
    return _burst.keys[raw]


def _find_counter(text: str, mounts: Mapping[str, tuple[str, str]]) -> str | None:
    """Return the counter of the cgroup that /proc/PID/cgroup names; cgroups(7) says how.

    The root has none: v2 has no such file there, and v1 has `release_agent` there alone. What a container
    takes for the root is another cgroup.
    """
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        kind = "cgroup2" if not controllers else "cgroup" if "memory" in controllers.split(",") else ""
        if kind not in mounts or ".." in path.split("/"):
            continue
        mount, root = mounts[kind]
        if root != "/" and (path + "/").startswith(root + "/"):
            path = path[len(root) :]
        name = "memory.events" if kind == "cgroup2" else "memory.oom_control"
        path = path.rstrip("/")
        while True:
            file = f"{mount}{path}/{name}"
            if os.path.exists(file) and (path or not os.path.exists(f"{mount}/release_agent")):
                return f"{file}:oom_kill"
            # v1 counts a kill in its own cgroup only. v2 counts it above too (mm/memcontrol.c), and a cgroup
            # without the controller belongs to the nearest one above that has it.
            if kind == "cgroup" or not path:
                break
            path = path.rpartition("/")[0]
    return None


def _mount_points() -> dict[str, tuple[str, str]]:
    """Return where v1's memory controller (`cgroup`) and v2 (`cgroup2`) are mounted, and what they show."""
    if not _mounts:
        _mounts.update(_parse_mounts(os.fsdecode(read("/proc/self/mountinfo", 4 * 1024 * 1024) or b"")))
    return _mounts


def _parse_mounts(text: str) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if len(fields) < 5 or not (
            kind == "cgroup2" or (kind == "cgroup" and rest and "memory" in rest[-1].split(","))
        ):
            continue
        # mountinfo writes blanks and the like as \040 (proc_pid_mountinfo(5)).
        mount, root = (
            re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[at]) for at in (4, 3)
        )
        found.setdefault(kind, (mount, root))
    return found


# ---- the kernel log


class _KernelLog:
    """The kernel log as this process has read it so far: which processes were killed for memory.

    It is read on from where the last look ended, so that 500 deaths at once cost one reading. A child that
    was forked would share that place with its parent, so it opens the log anew.
    """

    def __init__(self) -> None:
        self.handle: int | None = None
        self.opener = 0
        self.kills: dict[int, list[tuple[float, str]]] = {}

    def look(self) -> bool:
        """Read what is new; False when the log cannot be read here."""
        if self.opener != os.getpid():
            self.opener, self.handle, self.kills = os.getpid(), None, {}
        if self.handle is None:
            self.handle = _open_log()
        if self.handle is None:
            return False
        for at, _, text in _records(self.handle):
            found = _KILL.match(text)
            if found is None:
                continue
            pid = int(found[1] or found[2])
            self.kills[pid] = [*self.kills.pop(pid, [])[-7:], (at, text)]
            if len(self.kills) > KILLS_KEPT:
                del self.kills[next(iter(self.kills))]
        return True

    def find(self, pid: int, since_boot_secs: float | None) -> str | None:
        """Return the first line that says that this process was killed, of those read so far."""
        earliest = _log_time(since_boot_secs)
        return next((text[:LINE_CHARS] for at, text in self.kills.get(pid, ()) if at >= earliest), None)


_log = _KernelLog()


def kernel_line(pid: int, since_boot_secs: float | None = None) -> str | None:
    """Return the line of the kernel log that says that this process was killed for memory, or None.

    None where there is no such line, but also where the log cannot be read, or where its pids are not those
    of this pid namespace. Only root can write into that log.

    Args:
        pid: which process.
        since_boot_secs: only lines since then, in seconds of CLOCK_BOOTTIME, as the start time of a process
            counts: earlier ones are of a process that had this pid before.
    """
    return _log.find(pid, since_boot_secs) if _log.look() else None


def kernel_lines(since: Mapping[int, float | None], keep: int = 64) -> dict[int, list[str]] | None:
    """Return the last lines of the kernel log that name these processes, by pid; None: it cannot be read.

    Audit records and what programs wrote are left out, since they may hold command lines.

    Args:
        since: pids, each with the time as in `kernel_line` since when it is that process.
        keep: how many lines a process at most.
    """
    handle = _open_log()
    if handle is None:
        return None
    earliest = {pid: _log_time(secs) for pid, secs in since.items()}
    found: dict[int, list[str]] = {pid: [] for pid in since}
    try:
        for at, of_kernel, text in _records(handle):
            if text.startswith("audit") or not (of_kernel or _KILL.match(text)):
                continue
            for pid in {int(number) for number in _NAMED.findall(text)} & earliest.keys():
                if at >= earliest[pid]:
                    found[pid].append(f"[{at:.6f}] {text[:LINE_CHARS]}")
                    del found[pid][:-keep]
    finally:
        os.close(handle)
    return found


def _open_log() -> int | None:
    try:
        if os.readlink("/proc/self/ns/pid") != _INITIAL_PIDS:
            return None
        return os.open(KMSG, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None


def _log_time(since_boot_secs: float | None) -> float:
    """Return the earliest stamp that a line written since then can bear.

    Stamps are of `local_clock` (kernel/printk/printk.c), which neither counts suspended time nor is kept in
    step with the other clocks: it may be off by some 100 ppm.
    """
    if since_boot_secs is None:
        return 0.0
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    suspended = up - time.clock_gettime(time.CLOCK_MONOTONIC)
    return since_boot_secs - suspended - 1.0 - up / 5000


def _records(handle: int) -> Iterator[tuple[float, bool, str]]:
    for _ in range(KMSG_RECORDS):
        try:
            raw = os.read(handle, 8192)
        except BrokenPipeError:
            # The kernel overwrote what came next; the following read goes on with the oldest record it has.
            continue
        except OSError:
            return
        if not raw:
            return
        record = _parse_record(raw)
        if record is not None:
            yield record


def _parse_record(raw: bytes) -> tuple[float, bool, str] | None:
    """Return stamp in seconds, whether the kernel itself wrote it, and text.

    Their form: Documentation/ABI/testing/dev-kmsg. The kernel's own facility is 0, and no program can write
    under it (devkmsg_write, kernel/printk/printk.c).
    """
    head, _, rest = raw.partition(b";")
    try:
        priority, _, stamp = (int(field) for field in head.split(b",")[:3])
    except ValueError:
        return None
    return stamp / 1e6, priority < 8, rest.partition(b"\n")[0].decode("utf-8", "replace")


# ---- figures


def memory() -> dict[str, int]:
    """Return the host's memory in kB, named as in /proc/meminfo."""
    return _meminfo(MEMORY_FIELDS)


def swap() -> dict[str, int]:
    """Return the host's swap space in kB, named as in /proc/meminfo."""
    return _meminfo(SWAP_FIELDS)


def _meminfo(fields: tuple[str, ...]) -> dict[str, int]:
    rows = re.findall(rb"^(\w+): +(\d+)", read("/proc/meminfo") or b"", re.MULTILINE)
    found = {name.decode(): int(number) for name, number in rows}
    return {name: found[name] for name in fields if name in found}


def pressure() -> dict[str, list[str]]:
    """Return the lines of /proc/pressure by resource; empty where the kernel has none (Linux before 4.20)."""
    found = {name: read(f"/proc/pressure/{name}") for name in ("cpu", "io", "memory")}
    return {name: raw.decode("ascii", "replace").splitlines() for name, raw in found.items() if raw}


def load() -> dict[str, object]:
    """Return the load averages of 1, 5 and 15 minutes, the processors, and running/all threads where told."""
    running = (read("/proc/loadavg") or b"").split()
    return {
        "averages": [round(average, 2) for average in os.getloadavg()],
        "processors": os.cpu_count(),
        "running": running[3].decode("ascii", "replace") if len(running) > 3 else None,
    }


def cgroup_of(before: Mapping[str, int]) -> str | None:
    """Return the folder of the cgroup whose counter is among these; None when none is."""
    return next((os.path.dirname(key.rpartition(":")[0]) for key in before if key != VMSTAT), None)


def cgroup_values(folder: str) -> dict[str, list[str]]:
    """Return limits, use and events of a cgroup: the lines of each file that is there."""
    found = {name: read(os.path.join(folder, name)) for name in CGROUP_FILES}
    return {name: raw.decode("ascii", "replace").splitlines() for name, raw in found.items() if raw}
