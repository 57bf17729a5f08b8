"""Why a tmux server ended, from how the kernel says it ended: the tables, and nothing else.

In each table the first match wins. Whether an end is recorded at all:

| intent for this very server | how it ended | recorded |
|---|---|---|
| none | any | yes |
| any | any | no |
| orderly | by a signal, or with a status other than 0 | yes |
| orderly | with status 0, or nobody knows | no |

What its cause is:

| how it ended | evidence | cause |
|---|---|---|
| nobody knows | a kernel log line says that this process was killed for memory | oom-likely |
| nobody knows | any | unknown |
| by SIGKILL | an OOM counter moved since arming, or such a kernel log line | oom-likely |
| by SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV or SIGSYS | any | crashed |
| by another signal | any | killed |
| with status 0 | any | orderly-unintended |
| with another status | any | crashed |

tmux 3.3a leaves with status 0 on SIGTERM, on kill-server and when its last session closes, and with 1 when
it gives up by itself (`fatal`, log.c). Where nobody knows how a server ended and only a counter moved, it is
`unknown`: that may have been another process, long ago.
"""

from __future__ import annotations

import signal

from circus_failover.words import ServerCause

ORDERLY = "orderly"
"""An intent that covers an orderly end, or one of which nothing is known: the last session is closed."""
ANY = "any"
"""An intent that covers every end: an agent that has the server for itself is being ended."""
_CRASHES = frozenset(
    (
        *(signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS),
        *(signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS),
    )
)


def recorded(intent: str | None, number: int | None, status: int | None) -> bool:
    """Say whether an end is recorded.

    Args:
        intent: which ends of this server are meant: ORDERLY, ANY or None.
        number: the signal that ended it, where one did.
        status: its exit status, where it exited; both None: nobody knows.
    """
    if intent == ORDERLY:
        return number is not None or bool(status)
    return intent != ANY


def cause(
    number: int | None, status: int | None, *, counter_moved: bool, named_by_kernel: bool
) -> ServerCause:
    """Return why a server ended.

    Args:
        number: the signal that ended it, where one did.
        status: its exit status, where it exited; both None: nobody knows.
        counter_moved: an OOM counter of its cgroup or host is higher than when it was armed.
        named_by_kernel: a line of the kernel log says that this very process was killed for memory.
    """
    if number is None and status is None:
        return ServerCause.OOM_LIKELY if named_by_kernel else ServerCause.UNKNOWN
    if number == signal.SIGKILL and (counter_moved or named_by_kernel):
        return ServerCause.OOM_LIKELY
    if number is not None:
        return ServerCause.CRASHED if number in _CRASHES else ServerCause.KILLED
    return ServerCause.CRASHED if status else ServerCause.ORDERLY_UNINTENDED
