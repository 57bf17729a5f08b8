"""How a process that is nobody's child here ended, as the kernel tells it: the real status, or none at all.

Two sources, neither complete. Field 52 of `/proc/PID/stat` is the exit status for as long as the process is a
zombie; its parent may reap it within microseconds. `PIDFD_GET_INFO` tells it from a pidfd once it is reaped,
from Linux 6.15 on (include/uapi/linux/pidfd.h, PIDFD_INFO_EXIT). Nothing here guesses, and nothing waits
longer than `PATIENCE_SECS`.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections import namedtuple

from circus_failover import process_table
from circus_failover.process_table import LINUX, ProcessId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE_SECS = 0.03
PIDFD_INFO = "pidfd-info"
PROC_STAT = "proc-stat"
NONE = "none"

_GET_INFO = 0xC040FF0B
"""_IOWR(0xFF, 11, struct pidfd_info), with the structure's first size, 64 bytes (Linux 6.13)."""
_INFO_EXIT = 1 << 3
_INFO = struct.Struct("=QQ11Ii")
"""mask, cgroupid; pid, tgid, ppid and eight ids; exit_code."""


class Ended(namedtuple("Ended", ("number", "status", "core", "how"))):
    """How a process ended; number and status both None: the kernel did not tell."""

    __slots__ = ()
    number: int | None
    """The signal that ended it."""
    status: int | None
    """Its exit status, where it exited."""
    core: bool
    """The kernel wrote a core dump, or gave it to a program that takes them."""
    how: str
    """PIDFD_INFO, PROC_STAT or NONE."""


UNKNOWN = Ended(None, None, False, NONE)


_PROBE = 77
"""The exit status of the child that `capability` asks about."""

_GONE = "gone"
_RUNS = "runs"
_ZOMBIE = "zombie"
_UNREADABLE = "unreadable"


def once(handle: int | None, process: ProcessId) -> Ended | None:
    """Ask both sources once how a process ended.

    Args:
        handle: a pidfd of it, where there is one.
        process: who it is.

    Returns:
        How it ended; UNKNOWN: it is gone, and nobody will tell any more. None: it runs, or nobody has told so
        far.
    """
    state, raw = _of_stat(process)
    if raw is not None:
        return _decode(raw, PROC_STAT)
    # A pidfd of one that runs would be another's.
    never = handle is None
    if handle is not None and state != _RUNS:
        try:
            raw = _of_pidfd(handle)
        except OSError:
            # ENOTTY before Linux 6.13, ESRCH before 6.15 once it is reaped.
            never = True
        if raw is not None:
            return _decode(raw, PIDFD_INFO)
    return UNKNOWN if never and state == _GONE else None


def learn(processes: Sequence[tuple[int | None, ProcessId]]) -> list[Ended | None]:
    """Return, in their order, how each of these processes ended, of which `once` told nothing.

    Waits only for those of which something may still be told, for PATIENCE_SECS together.

    Args:
        processes: a pidfd, where there is one, and who it is.

    Returns:
        UNKNOWN: it has ended, and nobody told how. None: nothing proves that it has ended.
    """
    found: dict[int, Ended] = {}
    waiting = list(range(len(processes)))
    until = time.monotonic() + PATIENCE_SECS
    while waiting:
        for index in waiting:
            ended = once(*processes[index])
            if ended is not None:
                found[index] = ended
        waiting = [index for index in waiting if index not in found]
        if not waiting or time.monotonic() >= until:
            break
        time.sleep(0.001)
    for index in waiting:
        if _of_stat(processes[index][1])[0] in (_GONE, _ZOMBIE):
            found[index] = UNKNOWN
    return [found.get(index) for index in range(len(processes))]


def of_zombie(process: ProcessId) -> Ended | None:
    """Return how this very process ended, where it is a zombie and we may know; None otherwise."""
    raw = _of_stat(process)[1]
    return None if raw is None else _decode(raw, PROC_STAT)


def _of_stat(process: ProcessId) -> tuple[str, int | None]:
    """Return what /proc says of a process, and its wait status where that is told."""
    if not LINUX:
        return _portable(process), None
    try:
        with open(f"/proc/{process.pid}/stat", "rb", buffering=0) as file:
            raw = file.read(4096)
        fields = raw[raw.rindex(b")") + 2 :].split()
        start, state, status = int(fields[19]), fields[0], int(fields[49])
    except (FileNotFoundError, ProcessLookupError):
        return _GONE, None
    except (OSError, ValueError, IndexError):
        return _UNREADABLE, None
    if start != process.start:
        return _GONE, None
    # A process that was stopped has the signal that stopped it in field 52 (fs/proc/array.c, 6.18).
    if state not in (b"Z", b"X"):
        return _RUNS, None
    try:
        # Who may not look is shown 0 there; this link asks for the same permission (fs/proc/namespaces.c).
        os.readlink(f"/proc/{process.pid}/ns/user")
    except OSError:
        return _ZOMBIE, None
    return _ZOMBIE, status


def _portable(process: ProcessId) -> str:
    try:
        return _RUNS if process_table.alive(process) else _GONE
    except process_table.ProbeFailed:
        return _UNREADABLE


def _of_pidfd(handle: int) -> int | None:
    """Return what the kernel says of a reaped process; None: it is not reaped yet.

    Raises:
        OSError: this kernel does not tell.
    """
    if not LINUX:
        raise OSError("no pidfd on this system")
    answer = bytearray(_INFO.pack(_INFO_EXIT, *(0,) * 13))
    fcntl.ioctl(handle, _GET_INFO, answer)
    fields = _INFO.unpack(answer)
    return int(fields[13]) if fields[0] & _INFO_EXIT else None


def _decode(raw: int, how: str) -> Ended:
    """Return what a wait status means (wait(2))."""
    if os.WIFSIGNALED(raw):
        return Ended(os.WTERMSIG(raw), None, os.WCOREDUMP(raw), how)
    if os.WIFEXITED(raw):
        return Ended(None, os.WEXITSTATUS(raw), False, how)
    return UNKNOWN


def capability() -> tuple[str, str | None]:
    """Return which source this host has at its best (PIDFD_INFO, PROC_STAT or NONE), and why not the best.

    Found out with a child that ends and is reaped. PROC_STAT alone knows nothing of a server that was reaped
    before it could be looked at.
    """
    if not LINUX:
        return NONE, "only Linux tells how a process that is not a child ended: status=unknown"
    child = os.fork()
    if child == 0:
        os._exit(_PROBE)
    handle = None
    lacking = "it answers without an exit status"
    try:
        try:
            handle = os.pidfd_open(child)
        except (OSError, AttributeError) as error:
            lacking = f"pidfd_open: {error}"
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        zombie = _of_child(child)
    finally:
        os.waitpid(child, 0)
    told = None
    if handle is not None:
        try:
            told = _of_pidfd(handle)
        except OSError as error:
            lacking = f"PIDFD_GET_INFO: {error}"
        finally:
            os.close(handle)
    if told is not None and _decode(told, PIDFD_INFO).status == _PROBE:
        return PIDFD_INFO, None
    why = f"Linux {os.uname().release} does not tell of reaped processes ({lacking}), 6.15 or newer does"
    if zombie is not None and zombie.status == _PROBE:
        return PROC_STAT, f"status=unknown for a server that is reaped at once: {why}"
    return NONE, (
        f"status=unknown for every server: {why}, and /proc does not tell of zombies (is it mounted, without "
        "hidepid?)"
    )


def _of_child(pid: int) -> Ended | None:
    try:
        process = process_table.identify(pid)
    except process_table.ProbeFailed:
        return None
    return None if process is None else of_zombie(process)
