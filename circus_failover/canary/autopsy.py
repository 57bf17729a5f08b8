"""From how a server ended, and what the host and the list say of it: the death as it is recorded, or none.

`policy.server_exit` decides; this module collects what it decides on, and puts it in words. It writes
nothing.
"""

from __future__ import annotations

import os
import signal
import time

from circus_failover import process_table
from circus_failover.canary import forensics, host
from circus_failover.canary import watched as lists
from circus_failover.canary.death import Death
from circus_failover.policy import server_exit
from circus_failover.words import Detected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from circus_failover.canary.exit_status import Ended
    from circus_failover.canary.watched import Watched

_TICKS = os.sysconf("SC_CLK_TCK") if process_table.LINUX else 1_000_000


def listed(state_dir: str, known: Watched) -> Watched | None:
    """Return what the list says of a server now; None: it was taken off, so that its end is nobody's death.

    A file that cannot be read says nothing: then what is known stands.
    """
    found = lists.read(state_dir, known.name)
    if found is not None:
        return found
    try:
        os.stat(lists.path(state_dir, known.name))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass
    return known


def death(
    state_dir: str,
    watched: Watched,
    ended: Ended,
    *,
    at: float,
    counted: tuple[Mapping[str, int], Mapping[str, int]],
    detected: Detected,
    seen: float | None = None,
) -> Death:
    """Return a server's death as it is recorded.

    Args:
        state_dir: the state directory.
        watched: the server.
        ended: how it ended.
        at: epoch seconds at which its end was noticed.
        counted: the OOM counters at arming and now; empty where it was never armed.
        detected: whether it was noticed as it happened.
        seen: epoch seconds at which it was last seen alive, where nobody watched.
    """
    unknown = ended.number is None and ended.status is None
    moved = host.moved(*counted)
    named = None
    if unknown or (ended.number == signal.SIGKILL and _somebody_was_killed(*counted)):
        named = host.kernel_line(watched.server.pid, _since_boot(watched))
    cause = server_exit.cause(
        ended.number, ended.status, counter_moved=moved is not None, named_by_kernel=named is not None
    )
    return Death(
        watched=watched,
        at=at,
        up=max(0.0, (at if seen is None else seen) - began(watched)),
        number=ended.number,
        status=ended.status,
        how=ended.how,
        cause=str(cause),
        detected=str(detected),
        seen=seen,
        evidence=_evidence(ended, moved, named, watched, detected),
        forensics=forensics.path_for(state_dir, at, watched.server.pid),
    )


def _somebody_was_killed(before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    """Say whether the kernel log may name it: also a server that was moved to another cgroup since arming."""
    if host.VMSTAT not in now:
        return True
    return any(count > before.get(name, 0) for name, count in now.items())


def _since_boot(watched: Watched) -> float | None:
    """Return when it was started, in seconds of CLOCK_BOOTTIME."""
    return watched.server.start / _TICKS if process_table.LINUX else None


def began(watched: Watched) -> float:
    """Return when a server was started, in epoch seconds of the clock as it is now."""
    return time.time() - (process_table.now() - watched.server.start) / _TICKS


def _evidence(
    ended: Ended, moved: str | None, named: str | None, watched: Watched, detected: Detected
) -> str:
    """Say what the cause rests on."""
    parts = []
    if ended.number is not None:
        parts.append(_name(ended.number) + (", core dumped" if ended.core else ""))
        if ended.number == signal.SIGKILL and not moved:
            parts.append("no OOM counter moved since it was armed" if detected == Detected.LIVE else "")
    elif ended.status is not None:
        parts.append(f"exit status {ended.status}")
        if ended.status == 0:
            parts.append("nobody meant it to close")
    elif detected == Detected.LIVE:
        parts.append("the kernel did not tell how it ended")
    else:
        parts.append("found gone: nobody watched it end")
    parts.append(moved or "")
    parts.append(f"kernel log: {named}" if named else "")
    return "; ".join(part for part in parts if part)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
