"""Where the core dump of a process that has ended may be, as the kernel is told to keep them (core(5))."""

from __future__ import annotations

import glob
import os
import re
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PATTERN = "/proc/sys/kernel/core_pattern"
USES_PID = "/proc/sys/kernel/core_uses_pid"
SYSTEMD = "/var/lib/systemd/coredump"
EARLIER_SECS = 60.0
"""How much older than the end a core dump may be: a large one takes its time, and the end comes after it."""

# signal(7), the action "Core".
DUMPING = frozenset(
    (
        *(signal.SIGQUIT, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE),
        *(signal.SIGSEGV, signal.SIGSYS, signal.SIGXCPU, signal.SIGXFSZ),
    )
)


def find(
    pid: int,
    at: float,
    *,
    number: int | None,
    status: int | None,
    pattern: str,
    uses_pid: bool,
    systemd: str = SYSTEMD,
) -> dict[str, Any]:
    """Return the core dumps that may be of a process: `found`, None when that cannot be known, and `why`.

    Args:
        pid: which process.
        at: epoch seconds at which its end was noticed.
        number: the signal that ended it, where one did.
        status: its exit status; both None: nobody knows.
        pattern: what PATTERN holds.
        uses_pid: what USES_PID holds.
        systemd: where systemd-coredump keeps them.
    """
    if number is not None and number not in DUMPING:
        return {"found": [], "why": f"signal {number} leaves none"}
    if number is None and status is not None:
        return {"found": [], "why": "it exited"}
    if pattern.startswith("|"):
        handler = (pattern[1:].split() or [""])[0]
        if os.path.basename(handler) != "systemd-coredump":
            return {"found": None, "why": f"the kernel hands core dumps to {handler}"}
        paths = _of_systemd(systemd, pid)
        return {"found": _since(paths, at), "why": f"systemd-coredump keeps them in {systemd}"}
    if not pattern.startswith("/"):
        return {
            "found": None,
            "why": f"core_pattern {pattern!r} is relative to the folder the process ran in",
        }
    return {
        "found": _since(glob.glob(_globbed(pattern, uses_pid, pid)), at),
        "why": f"core_pattern {pattern!r}",
    }


def _globbed(pattern: str, uses_pid: bool, pid: int) -> str:
    parts = []
    named = False
    for text, specifier in re.findall(r"([^%]+)|%(.?)", pattern):
        if text or specifier in ("", "%"):
            parts.append(glob.escape(text or specifier))
        elif specifier in "pP":
            parts.append(str(pid))
            named = True
        else:
            parts.append("*")
    if uses_pid and not named:
        parts.append(f".{pid}")
    return "".join(parts)


def _of_systemd(folder: str, pid: int) -> list[str]:
    """Return the files whose names hold this pid where systemd-coredump puts it (coredump.c, systemd 252)."""
    wanted = re.compile(rf"core\..*\.\d+\.[0-9a-f]{{32}}\.{pid}\.\d+(\.\w+)?")
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder) if wanted.fullmatch(name)]
    except FileNotFoundError:
        return []


def _since(paths: Iterable[str], at: float) -> list[dict[str, Any]]:
    found = []
    for path in sorted(paths):
        try:
            known = os.stat(path)
        except OSError:
            continue
        if known.st_mtime >= at - EARLIER_SECS:
            found.append({"path": path, "bytes": known.st_size, "written_at": known.st_mtime})
    return found
