"""Snapshots of deaths are taken by a child, one at a time: the canary goes on, and bounds how long it takes.

The records are on disk before. Nothing waits for a snapshot, and one that fails costs nothing but itself.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from circus_failover.canary.death import Death

BOUND_SECS = 10
NICE = 10


class Snapshots:
    """The child that takes them, and the deaths that wait for the next one."""

    def __init__(self, state_dir: str) -> None:
        self._state_dir = state_dir
        self._deaths: list[Death] = []
        self._armed: dict[str, dict[str, int]] = {}
        self._child: int | None = None
        self._taking = 0
        self.trouble: str | None = None

    @property
    def busy(self) -> bool:
        """Whether a child is at it."""
        return self._child is not None

    def add(self, death: Death, counters: dict[str, int]) -> None:
        """Put a death behind those that wait; `counters`: the OOM counters at arming."""
        self._deaths.append(death)
        self._armed[death.watched.name] = counters

    def start(self) -> None:
        """Start a child for all that wait, unless one is at it. Never raises OSError."""
        if not self._deaths or self._child is not None:
            return
        try:
            child = os.fork()
        except OSError as error:
            self.trouble = f"no process for snapshots: {error.strerror}"
            return
        if child == 0:
            try:
                self._take()
            finally:
                os._exit(1)
        self._child, self._taking = child, len(self._deaths)
        self._deaths, self._armed = [], {}

    def reaped(self, pid: int, status: int) -> None:
        """Take note that a child of this process has ended."""
        if pid != self._child:
            return
        self._child = None
        self.trouble = None
        if status != 0:
            how = os.waitstatus_to_exitcode(status)
            how_text = f"ended by signal {-how}" if how < 0 else f"ended with {how}"
            self.trouble = f"the process that took {self._taking} snapshots {how_text}"

    def _take(self) -> None:
        """Do it, as the child."""
        signal.alarm(BOUND_SECS)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        # Lock, sockets and pidfds are the canary's alone: it may end, and another begin, meanwhile.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.nice(NICE)
        from circus_failover.canary import forensics

        forensics.write_all(self._state_dir, self._deaths, self._armed)
        os._exit(0)
