"""The servers that are watched: what the list on disk says, and by what each of them is held.

The list on disk is the truth. What is held here can be lost at any moment; the next canary goes on from the
list. Nothing is recorded here: who calls is told which servers are gone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from circus_failover import process_table
from circus_failover.canary import arming, exit_status, host
from circus_failover.canary import watched as lists
from circus_failover.canary.arming import Gone, Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from circus_failover.canary.arming import Means
    from circus_failover.canary.exit_status import Ended
    from circus_failover.canary.watched import Watched

RETRY_SECS = (0.002, 0.01, 0.05, 0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
"""When a server that could not be armed is tried again."""
PROOF_SECS = 1.0
"""So long after its start a client is connected: a server that lives then was not replaced before it was."""


class Server:
    """A server on the list."""

    __slots__ = ("watched", "stamp", "key", "since", "counters", "seen", "why", "tries", "due")

    def __init__(self, watched: Watched, stamp: tuple[int, int]) -> None:
        self.watched = watched
        self.stamp = stamp
        """By what a change of its file is seen."""
        self.key: int | None = None
        """What the poller says when it ends; None: it is not armed."""
        self.since = 0.0
        """Epoch seconds since when it is armed."""
        self.counters: dict[str, int] = {}
        """The OOM counters then."""
        self.seen: float | None = None
        """Epoch seconds at which it was last seen alive, while it could not be armed."""
        self.why: str | None = None
        """Why it could not be armed."""
        self.tries = 0
        self.due: float | None = None
        """When it is tried or looked at again (time.monotonic)."""


class WatchList:
    """All of them."""

    def __init__(self, state_dir: str, means: Means) -> None:
        self._state_dir = state_dir
        self.means = means
        self.servers: dict[str, Server] = {}
        """By name."""
        self.keys: dict[int, Server] = {}
        """Those that are armed, by what the poller says when they end."""
        self.nonsense: set[str] = set()
        """Names of files that cannot be used."""

    def look(self, only: str | None, leave: Container[str]) -> list[tuple[Server, Ended]]:
        """Read what has changed on disk, and arm what is new.

        Args:
            only: the name to look at; None: all.
            leave: names that are not looked at: their deaths are on their way to the disk.

        Returns:
            What is gone, unrecorded, and how it ended as far as can be told.
        """
        new = []
        for name in list(lists.names(self._state_dir)) if only is None else [only]:
            if name not in leave:
                server = self._read(name)
                if server is not None:
                    new.append(server)
        known = {*self.servers, *self.nonsense}
        for name in known if only is None else known & {only}:
            if not _there(lists.path(self._state_dir, name)):
                self.nonsense.discard(name)
                if name in self.servers:
                    self.forget(self.servers[name])
        return self.arm(new)

    def _read(self, name: str) -> Server | None:
        """Take in one file; return the server when it is a new one."""
        try:
            found = os.stat(lists.path(self._state_dir, name))
        except OSError:
            return None
        stamp = (found.st_ino, found.st_mtime_ns)
        known = self.servers.get(name)
        if known is not None and known.stamp == stamp:
            return None
        watched = lists.read(self._state_dir, name)
        if watched is None or not _sensible(name, watched):
            self.nonsense.add(name)
            return None
        self.nonsense.discard(name)
        if watched.boot != process_table.boot_id():
            # It went with its boot, and that is circusd's to tell.
            with contextlib.suppress(OSError):
                lists.remove(self._state_dir, name)
            return None
        if known is not None:
            known.watched, known.stamp = watched, stamp
            return None
        self.servers[name] = Server(watched, stamp)
        return self.servers[name]

    def arm(self, servers: Iterable[Server]) -> list[tuple[Server, Ended]]:
        """Arm these, or prove that those that are armed live; return what is gone, as `look` does."""
        gone = []
        for server in servers:
            try:
                if server.key is None:
                    self._hold(server)
                else:
                    arming.check(server.watched.server)
                    server.due, server.tries = None, 0
            except Gone as error:
                gone.append((server, error.ended or exit_status.UNKNOWN))
            except Unknown as error:
                self.put_off(server, str(error))
        return gone

    def _hold(self, server: Server) -> None:
        server.key = self.means.arm(server.watched)
        self.keys[server.key] = server
        server.since = time.time()
        # The names are the same for all servers of a cgroup: kept once.
        counters = host.counters(server.watched.server.pid)
        server.counters = {sys.intern(key): count for key, count in counters.items()}
        server.why = server.seen = None
        if self.means.word == arming.CLIENT:
            server.due = time.monotonic() + PROOF_SECS
        else:
            server.due, server.tries = None, 0

    def due(self, now: float) -> list[Server]:
        """Return those that are to be tried or looked at."""
        return [server for server in self.servers.values() if server.due is not None and server.due <= now]

    def put_off(self, server: Server, why: str) -> None:
        """Try again later to arm a server, or to prove that it lives."""
        server.why = why
        server.due = time.monotonic() + RETRY_SECS[min(server.tries, len(RETRY_SECS) - 1)]
        server.tries += 1
        with contextlib.suppress(process_table.ProbeFailed):
            if process_table.alive(server.watched.server):
                server.seen = time.time()

    def quiet(self, server: Server) -> None:
        """The poller has said its key: it is not to say it again."""
        if server.key is not None:
            self.keys.pop(server.key, None)
            self.means.quiet(server.key)

    def handle(self, server: Server) -> int | None:
        """Return the pidfd by which a server's exit status can be asked for, where there is one."""
        return None if server.key is None else self.means.handle(server.key)

    def release(self, server: Server) -> None:
        """Let go of what held a server that is quiet."""
        if server.key is not None:
            self.means.release(server.key)
            server.key = None

    def forget(self, server: Server) -> None:
        """Watch a server no more."""
        self.servers.pop(server.watched.name, None)
        if server.key is not None:
            self.keys.pop(server.key, None)
            self.means.disarm(server.key)
            server.key = None

    @property
    def trouble(self) -> str | None:
        """Why servers are not watched, or None."""
        parts = []
        unarmed = [server for server in self.servers.values() if server.key is None]
        if unarmed:
            parts.append(
                f"not watched so far: {len(unarmed)} ({unarmed[0].watched.socket}: {unarmed[0].why})"
            )
        if self.nonsense:
            parts.append(f"not to be used: {lists.path(self._state_dir, min(self.nonsense))}")
        return "; ".join(parts) or None


def _sensible(name: str, watched: Watched) -> bool:
    return (
        watched.name == name
        and 0 < watched.server.pid < 2**31
        and 0 <= watched.asked_at < 2**35
        and "\0" not in watched.socket
    )


def _there(path: str) -> bool:
    """Whether a file is there; where that cannot be told, it is."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True
