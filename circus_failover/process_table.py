"""Who is a process, and is it still there: everything about other processes that is not tmux.

A process is (pid, start time), never a name. On Linux the start time is field 22 of
`/proc/PID/stat` (clock ticks since boot, proc(5)); elsewhere psutil's creation time in microseconds.
A probe that cannot tell raises `ProbeFailed`; it never answers "gone".
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LINUX = sys.platform.startswith("linux")


class ProbeFailed(Exception):
    """The process table could not be read, so nothing is known."""


# Not dataclasses, whose import takes a megabyte: the canary, which stays small, imports this module.
class ProcessId(namedtuple("ProcessId", ("pid", "start"))):
    """A process by number: its pid and its start time (see the module's head for the unit)."""

    __slots__ = ()
    pid: int
    start: int


class ProcessStat(namedtuple("ProcessStat", ("id", "parent", "group", "run_state"))):
    """What one read of the process table says of a process."""

    __slots__ = ()
    id: ProcessId
    parent: int
    group: int
    run_state: str
    """One letter as in proc(5): R running, S sleeping, D disk wait, T stopped, Z zombie."""


def _parse_stat(pid: int, raw: bytes) -> ProcessStat:
    # The command name is in parentheses and may hold anything, so the fields start after the last one.
    fields = raw[raw.rindex(b")") + 2 :].split()
    return ProcessStat(
        id=ProcessId(pid, int(fields[19])),
        parent=int(fields[1]),
        group=int(fields[2]),
        run_state=fields[0].decode(),
    )


def read(pid: int) -> ProcessStat | None:
    """Return what the process table says of `pid`, or None when there is no such process.

    Raises:
        ProbeFailed: the table could not be read.
    """
    if LINUX:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
                return _parse_stat(pid, stat.read(4096))
        except (FileNotFoundError, ProcessLookupError):
            return None
        except (OSError, ValueError, IndexError) as error:
            raise ProbeFailed(f"/proc/{pid}/stat: {error}") from error
    return _read_portable(pid)


def _read_portable(pid: int) -> ProcessStat | None:
    import psutil

    letters = {psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_STOPPED: "T", psutil.STATUS_DEAD: "Z"}
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return ProcessStat(
                id=ProcessId(pid, int(process.create_time() * 1_000_000)),
                parent=process.ppid(),
                group=os.getpgid(pid),
                run_state=letters.get(process.status(), "S"),
            )
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
    except (psutil.Error, OSError) as error:
        raise ProbeFailed(f"process {pid}: {error}") from error


def identify(pid: int) -> ProcessId | None:
    """Return the identity of `pid` as it is now, or None when there is no such process."""
    stat = read(pid)
    return stat.id if stat else None


def alive(process: ProcessId) -> bool:
    """Say whether this very process still runs; a zombie has ended.

    Raises:
        ProbeFailed: the table could not be read; that is not "gone".
    """
    stat = read(process.pid)
    return stat is not None and stat.id == process and stat.run_state not in "ZX"


def may_run(process: ProcessId) -> bool:
    """Say whether this very process runs, or may: a probe that failed is no proof that it is gone."""
    try:
        return alive(process)
    except ProbeFailed:
        return True


@functools.cache
def boot_id() -> str:
    """Return a name of this boot of the host; start times of two boots must not be compared."""
    if LINUX:
        try:
            with open("/proc/sys/kernel/random/boot_id") as file:
                return file.read().strip()
        except OSError:
            pass
    import psutil

    return f"boot-{int(psutil.boot_time())}"


def now() -> int:
    """Return this moment as a start time: what has a larger one was started later.

    Linux counts start times in clock ticks of CLOCK_BOOTTIME (proc(5), field 22; fs/proc/array.c).
    """
    if LINUX:
        return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    return int(time.time() * 1_000_000)


def seconds_since(start: int) -> float:
    """Return how long ago a start time was, in seconds."""
    unit = os.sysconf("SC_CLK_TCK") if LINUX else 1_000_000
    return (now() - start) / unit


def pids() -> list[int]:
    """Return the pids of all processes."""
    if LINUX:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    import psutil

    return list(psutil.pids())


def table() -> dict[int, ProcessStat]:
    """Return one snapshot of all processes that can be read, by pid."""
    found: dict[int, ProcessStat] = {}
    for pid in pids():
        try:
            stat = read(pid)
        except ProbeFailed:
            continue
        if stat is not None:
            found[pid] = stat
    return found


class ProcessUsage(namedtuple("ProcessUsage", ("start", "parent", "own", "children", "rss"))):
    """What a process has used of the machine so far, and whose it is; its pid is what it is found by."""

    __slots__ = ()
    start: int
    """Its start time, as in `ProcessId`."""
    parent: int
    own: int
    """The cpu time that it has used itself, in ticks (`TICKS_PER_SEC`)."""
    children: int
    """The same of all its children that have ended and that it has waited for, and of theirs."""
    rss: int
    """The memory it holds, in bytes; of one that has ended and was not waited for, none."""


TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def usages() -> dict[int, ProcessUsage]:
    """Return what all processes that can be read have used, by pid: one small file each (proc(5), stat)."""
    if not LINUX:
        return _usages_portable()
    found: dict[int, ProcessUsage] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        # Not open(), which takes twice the time: there may be thousands, every few seconds.
        try:
            handle = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            raw = os.read(handle, 4096)
        except OSError:
            continue
        finally:
            os.close(handle)
        words = raw[raw.rfind(b")") + 2 :].split(None, 22)
        if len(words) < 22:
            continue
        own, children = int(words[11]) + int(words[12]), int(words[13]) + int(words[14])
        found[int(name)] = ProcessUsage(int(words[19]), int(words[1]), own, children, int(words[21]) * _PAGE)
    return found


def _usages_portable() -> dict[int, ProcessUsage]:
    import psutil

    found: dict[int, ProcessUsage] = {}
    for process in psutil.process_iter(["ppid", "create_time", "cpu_times", "memory_info"]):
        said = process.info
        if None in (said["create_time"], said["cpu_times"], said["memory_info"]):
            continue
        times = said["cpu_times"]
        own = int((times.user + times.system) * TICKS_PER_SEC)
        # 0 where the system does not tell (macOS): what ended between two looks is not counted then.
        children = int((times.children_user + times.children_system) * TICKS_PER_SEC)
        start, rss = int(said["create_time"] * 1_000_000), int(said["memory_info"].rss)
        found[process.pid] = ProcessUsage(start, said["ppid"] or 0, own, children, rss)
    return found


class Origin(namedtuple("Origin", ("id", "parent", "name", "node", "settled"))):
    """Where a process came from, as first seen."""

    __slots__ = ()
    id: ProcessId
    parent: int
    """The parent it had then: when that has ended, it has another one now."""
    name: str
    node: int
    """The inode of its folder in /proc, by which it is recognised; 0: it is not."""
    settled: bool
    """It was not young then: its name will hardly change any more."""


SETTLED_SECS = 10.0


def origins(before: Mapping[int, Origin]) -> dict[int, Origin]:
    """Return the origin of every process there is, by pid, reading only those that are not known yet.

    The kernel makes a new inode for a folder in /proc with a number of its own for each process that it looks
    up (proc_pid_make_inode, fs/proc/base.c, Linux 6.18), and forgets it no later than the process: listing
    1,500 processes takes 1 ms, reading the stat file of each takes 18.

    One that has ended is there until its parent has waited for it.

    Args:
        before: what this returned the last time.
    """
    if not LINUX:
        return _origins_portable()
    found: dict[int, Origin] = {}
    young = now() - int(SETTLED_SECS * os.sysconf("SC_CLK_TCK"))
    with os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            pid, node = int(entry.name), entry.inode()
            known = before.get(pid)
            # 1: the kernel could not say (proc_fill_cache).
            if known is not None and known.settled and known.node == node > 1:
                found[pid] = known
                continue
            try:
                with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                    raw = file.read(4096)
                stat = _parse_stat(pid, raw)
            except (OSError, ValueError, IndexError):
                continue
            parent = stat.parent
            if known is not None and known.id == stat.id:
                parent = known.parent
            name = raw[raw.index(b"(") + 1 : raw.rindex(b")")].decode(errors="replace")
            found[pid] = Origin(stat.id, parent, name, node, stat.id.start < young)
    return found


def _origins_portable() -> dict[int, Origin]:
    import psutil

    found: dict[int, Origin] = {}
    for process in psutil.process_iter(["ppid", "name", "create_time"]):
        said = process.info
        if said["create_time"] is not None:
            identity = ProcessId(process.pid, int(said["create_time"] * 1_000_000))
            found[process.pid] = Origin(identity, said["ppid"] or 0, said["name"] or "", 0, False)
    return found


def descendants(root: ProcessId) -> list[ProcessId]:
    """Return `root`, when it still runs, and every process below it, parents first."""
    snapshot = table()
    if root.pid not in snapshot or snapshot[root.pid].id != root:
        return []
    children: dict[int, list[ProcessStat]] = {}
    for stat in snapshot.values():
        children.setdefault(stat.parent, []).append(stat)
    found, queue = [], [root]
    while queue:
        process = queue.pop(0)
        found.append(process)
        queue.extend(stat.id for stat in children.get(process.pid, []))
    return found


def children(process: ProcessId) -> list[ProcessId]:
    """Return the running children of a process; none where that cannot be told."""
    started: list[int] = []
    if not _lists_children():
        started = [stat.id.pid for stat in table().values() if stat.parent == process.pid]
    else:
        try:
            # By thread (proc(5)): a child may have been started by any of them.
            threads = os.listdir(f"/proc/{process.pid}/task")
        except OSError:
            threads = []
        for thread in threads:
            try:
                with open(f"/proc/{process.pid}/task/{thread}/children", "rb", buffering=0) as file:
                    started += map(int, file.read().split())
            except OSError:
                continue
    found = []
    for pid in started:
        try:
            stat = read(pid)
        except ProbeFailed:
            continue
        if stat is not None and stat.parent == process.pid and stat.run_state not in "ZX":
            found.append(stat.id)
    return found


@functools.cache
def _lists_children() -> bool:
    """Say whether the kernel lists children (CONFIG_PROC_CHILDREN); else the whole table is read."""
    return LINUX and os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


def carrying(launch: str) -> list[ProcessId]:
    """Return the running processes whose environment says that they belong to this launch.

    Args:
        launch: the launch's own name, unique on the host (`FAILOVER_LAUNCH`). Identity and generation are
            not: two fleets may each have a first launch of a `coder-1`.

    Finds what left the tree (a daemon, an orphan of a killed parent). Linux only: elsewhere another
    process's environment cannot be read reliably, and the answer is empty.
    """
    if not LINUX:
        return []
    wanted = f"FAILOVER_LAUNCH={launch}".encode()
    found = []
    for pid, stat in table().items():
        if stat.run_state in "ZX":
            continue
        environment = environ(pid)
        if environment is not None and wanted in environment:
            found.append(stat.id)
    return found


def command_line(pid: int) -> list[str] | None:
    """Return the words a process was started with, as it shows them; None when they cannot be read."""
    if LINUX:
        try:
            with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
                return file.read(65536).decode(errors="replace").split("\0")
        except OSError:
            return None
    import psutil

    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return None


def environ(pid: int) -> frozenset[bytes] | None:
    """Return the `NAME=value` entries a process was started with; None when they cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as environment:
            return frozenset(environment.read().split(b"\0"))
    except OSError:
        return None


def terminal(pid: int) -> str | None:
    """Return the path of the terminal a process reads from, or None when it has none."""
    if LINUX:
        try:
            path = os.readlink(f"/proc/{pid}/fd/0")
        except OSError:
            return None
        return path if path.startswith("/dev/") and path != "/dev/null" else None
    import psutil

    try:
        return psutil.Process(pid).terminal()
    except psutil.Error:
        return None


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Send a signal to this very process; False when it is no longer there.

    On Linux the signal goes through a pidfd, so that a pid given away in between is never hit.
    """
    if not hasattr(os, "pidfd_open"):
        return _send_by_pid(process, number)
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:
        return _send_by_pid(process, number)
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def _send_by_pid(process: ProcessId, number: signal.Signals) -> bool:
    if not alive(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True
