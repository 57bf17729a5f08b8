"""The means by which a server's end is noticed: a pidfd, kqueue, or a `tmux wait-for` client.

Arming is by number: it succeeds only when what is held is proven to be the process on the list, by pid and
start time. What cannot be told is `Unknown`, and is tried again; only what is proven gone is `Gone`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from circus_failover import process_table
from circus_failover.canary import exit_status
from circus_failover.canary.polling import Kqueue
from circus_failover.process_table import ProbeFailed, ProcessId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from circus_failover.canary.exit_status import Ended
    from circus_failover.canary.polling import Poller
    from circus_failover.canary.watched import Watched


PIDFD = "pidfd"
KQUEUE = "kqueue"
CLIENT = "client"

_RESERVE = 32
"""Descriptors that no server may take: what records a death needs some."""


class Gone(Exception):
    """The server on the list has ended."""

    def __init__(self, ended: Ended | None = None) -> None:
        super().__init__("it has ended")
        self.ended = ended
        """How, where it is still a zombie."""


class Unknown(Exception):
    """It cannot be watched now, and nothing says that it has ended."""


def check(server: ProcessId) -> None:
    """Return when this very process runs.

    Raises:
        Gone: it has ended.
        Unknown: nobody can tell.
    """
    try:
        stat = process_table.read(server.pid)
    except ProbeFailed as error:
        raise Unknown(str(error)) from error
    if stat is None or stat.id != server:
        raise Gone
    if stat.run_state in "ZX":
        raise Gone(exit_status.of_zombie(server))


class Pidfd:
    """A descriptor of the process itself (Linux 5.3): readable when it has ended, whoever has its pid."""

    word = PIDFD

    def __init__(self, poller: Poller, descriptors: int) -> None:
        """Args:
        poller: what waits.
        descriptors: how many this process may have open.
        """
        self._poller = poller
        self._limit = descriptors - _RESERVE

    def arm(self, watched: Watched) -> int:
        """Begin to watch, and return the key that the poller will say.

        Raises:
            Gone: it has ended.
            Unknown: it cannot be watched now.
        """
        server = watched.server
        # Not by way of its socket (SO_PEERPIDFD): to connect wakes the server, and takes four times as long.
        try:
            handle = os.pidfd_open(server.pid)
        except OSError as error:
            check(server)
            raise Unknown(f"pidfd_open({server.pid}): {error.strerror}") from error
        try:
            if handle >= self._limit:
                raise Unknown(f"too many open files: {self._limit + _RESERVE} is the limit (ulimit -n)")
            # The pid cannot have been given away before the descriptor was opened and be this process now.
            check(server)
            self._poller.add(handle)
        except OSError as error:
            os.close(handle)
            raise Unknown(f"epoll: {error.strerror}") from error
        except BaseException:
            os.close(handle)
            raise
        return handle

    def quiet(self, key: int) -> None:
        """Say it no more; the exit status can still be asked for."""
        self._poller.remove(key)

    def handle(self, key: int) -> int | None:
        """Return the pidfd behind a key, for the exit status."""
        return key

    def release(self, key: int) -> None:
        """Let go of a key that is quiet."""
        os.close(key)

    def disarm(self, key: int) -> None:
        """Watch a server no more."""
        self.quiet(key)
        self.release(key)


class _NoHandle:
    """Means whose keys are minus a pid: they tell no exit status, and there is nothing to let go of."""

    def quiet(self, key: int) -> None:
        """As Pidfd.quiet."""

    def handle(self, key: int) -> int | None:
        """As Pidfd.handle: there is none."""
        return None

    def release(self, key: int) -> None:
        """As Pidfd.release."""


class KqueueProcess(_NoHandle):
    """kqueue's EVFILT_PROC (macOS, BSD)."""

    word = KQUEUE

    def __init__(self, poller: Kqueue) -> None:
        self._poller = poller

    def arm(self, watched: Watched) -> int:
        """As Pidfd.arm."""
        pid = watched.server.pid
        try:
            self._poller.add_process(pid)
        except OSError as error:
            check(watched.server)
            raise Unknown(f"kqueue({pid}): {error.strerror}") from error
        try:
            check(watched.server)
        except BaseException:
            self._poller.remove_process(pid)
            raise
        return -pid

    def disarm(self, key: int) -> None:
        """Watch it no more."""
        self._poller.remove_process(-key)


class Client(_NoHandle):
    """A `tmux wait-for` client a server, for systems with neither: its end is only a reason to look.

    It ends with the server, but also by a signal of its own (tmux 3.3a); the process table decides.
    """

    word = CLIENT

    def __init__(self) -> None:
        # In control mode a client ends with its input (tmux 3.3a): no client outlives the canary.
        self._input, self._held = os.pipe()

    def arm(self, watched: Watched) -> int:
        """As Pidfd.arm; the key is minus the client's pid."""
        check(watched.server)
        path = os.environ.get("PATH", os.defpath)
        command = ["tmux", "-C", "-S", watched.socket, "wait-for", f"failover-canary-{os.getpid()}"]
        files: list[Any] = [(os.POSIX_SPAWN_DUP2, self._input, 0)]
        files += [(os.POSIX_SPAWN_OPEN, handle, os.devnull, os.O_WRONLY, 0) for handle in (1, 2)]
        try:
            pid = os.posix_spawnp("tmux", command, {"PATH": path}, file_actions=files)
        except OSError as error:
            raise Unknown(f"tmux wait-for: {error.strerror}") from error
        return -pid

    def disarm(self, key: int) -> None:
        """End the client; whoever reaps it finds nobody's key."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-key, signal.SIGTERM)


if TYPE_CHECKING:
    Means = Pidfd | KqueueProcess | Client


def choose(poller: Poller, descriptors: int, wanted: str | None = None) -> Means:
    """Return the best means of this system, or the one that is wanted.

    Raises:
        ValueError: this system does not have it; the text says why.
    """
    if wanted == CLIENT:
        return Client()
    if wanted in (None, PIDFD) and hasattr(os, "pidfd_open"):
        try:
            os.close(os.pidfd_open(os.getpid()))
            return Pidfd(poller, descriptors)
        except OSError as error:
            # An old kernel, or a container whose system call filter does not know it.
            if wanted == PIDFD:
                raise ValueError(f"pidfd_open: {error.strerror}") from error
    if wanted in (None, KQUEUE) and isinstance(poller, Kqueue):
        return KqueueProcess(poller)
    if wanted is not None:
        raise ValueError(f"this system ({sys.platform}) has no {wanted}")
    return Client()
