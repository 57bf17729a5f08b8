"""The canary at work: the loop that sees servers end, and has each end put on disk.

It observes: it starts and ends nothing, and nothing waits for it. Deaths come before everything else. Nothing
wakes it while nothing happens.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time

from circus_failover import crashpoint, process_table
from circus_failover.canary import arming, autopsy, exit_status, exits_log, host, polling
from circus_failover.canary import watched as lists
from circus_failover.canary.control import Control
from circus_failover.canary.record import Entry, Recorder
from circus_failover.canary.snapshots import Snapshots
from circus_failover.canary.watch_list import Server, WatchList
from circus_failover.policy import server_exit
from circus_failover.words import Detected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from circus_failover.canary.exit_status import Ended
    from circus_failover.canary.polling import Poller

    End = tuple[Server, float, Ended | None]
    """A server, when its end was noticed, and how it ended; None: not told, or not proven."""

LINGER_SECS = 5.0
"""How long the canary stays with nothing to watch."""
TOGETHER_SECS = 0.1
"""For so long, deaths that go on and on are gathered before they are written."""
LOT = 16
"""How many exit statuses are asked for until it is noted who has died meanwhile."""
DEAF_SECS = 1.0
"""How often it looks at the list while nobody can tell it anything."""


class Canary:
    """The loop."""

    def __init__(self, state_dir: str, lock: int, descriptors: int, means: str | None = None) -> None:
        """Args:
        state_dir: the state directory.
        lock: the descriptor that holds its canary lock.
        descriptors: how many this process may have open.
        means: the word of the means to use; None: the best one.

        Raises:
            ValueError: this system does not have these means.
        """
        self._state_dir = state_dir
        self._lock = lock
        self._poller = polling.poller()
        chosen = arming.choose(self._poller, descriptors, means)
        self._learns, self._why = exit_status.capability()
        if chosen.word != arming.PIDFD and self._learns == exit_status.PIDFD_INFO:
            self._learns, self._why = exit_status.PROC_STAT, f"pidfds are not in use, but {chosen.word}"
        self._list = WatchList(state_dir, chosen)
        self._recorder = Recorder(state_dir)
        self._snapshots = Snapshots(state_dir)
        self._control = Control(state_dir, self._poller, self._answer)
        self._me = process_table.identify(os.getpid())
        self._since = time.time()
        self._look_at: float | None = None
        self._leave_at: float | None = None
        self._over = False
        self._signals = _signals(self._poller)

    def begin(self) -> None:
        """Listen: from here on it can be told of servers."""
        _tell_of_removals(os.path.dirname(os.path.join(self._state_dir, lists.LOCK)))
        self._listen()

    def run(self) -> None:
        """Watch until nothing is left to watch, somebody says TERM, or the state directory is gone.

        HUP makes it look at the list, and listen anew where its socket is gone.
        """
        self._look()
        self._turn([])
        while not self._over:
            self._turn(self._poller.wait(self._timeout()))
        if not self._homeless():
            self._control.close()
            self._recorder.write()
        for server in list(self._list.servers.values()):
            self._list.forget(server)

    # -- the loop

    def _turn(self, keys: list[int]) -> None:
        """Handle what is ready, deaths first, and then what is due."""
        others: dict[int, None] = {}
        noticed: list[tuple[Server, float]] = []
        ends: list[End] = []
        until = time.monotonic() + TOGETHER_SECS
        while True:
            for key in keys:
                # Before anything else: each has its own time.
                at = time.time()
                server = self._list.keys.get(key)
                if server is not None:
                    self._list.quiet(server)
                    noticed.append((server, at))
                elif key == self._signals:
                    ends += [(server, at, None) for server in self._heed()]
                else:
                    others[key] = None
            if not noticed:
                break
            # Before anything slow: their parent may be about to reap them.
            for server, noted in noticed[:LOT]:
                ended = exit_status.once(self._list.handle(server), server.watched.server)
                ends.append((server, noted, ended))
            del noticed[:LOT]
            keys = self._poller.wait(0) if time.monotonic() < until else []
        self._settle(ends)
        for key in others:
            self._control.ready(key)
        self._attend()
        self._snapshots.start()

    def _timeout(self) -> float | None:
        """Return the seconds until something is due; None: nothing will be."""
        due = [server.due for server in self._list.servers.values()]
        first = min(
            (at for at in (*due, self._recorder.due, self._look_at, self._leave_at) if at is not None),
            default=None,
        )
        return None if first is None else max(0.0, first - time.monotonic())

    def _attend(self) -> None:
        """Do what is due."""
        if self._homeless():
            self._over = True
            return
        now = time.monotonic()
        if self._recorder.due is not None and self._recorder.due <= now:
            self._recorder.write()
        self._gone(self._list.arm(self._list.due(now)))
        if self._look_at is None:
            # Not at once: whoever removes the state directory may be at it.
            self._look_at = now + DEAF_SECS if self._control.missing else None
        elif self._look_at <= now:
            self._look_at = None
            if self._control.missing:
                self._listen()
            self._look()
        if self._list.servers or self._recorder.due is not None or self._snapshots.busy:
            self._leave_at = None
        elif self._leave_at is None:
            self._leave_at = now + LINGER_SECS
        elif self._leave_at <= now:
            self._leave()

    def _leave(self) -> None:
        """End, unless the list is longer than it seemed."""
        # Who puts a server on the list from here on finds no socket, and knows that nobody watches it.
        self._control.close()
        self._look()
        self._over = not self._list.servers and self._recorder.due is None
        self._leave_at = None
        if not self._over:
            self._listen()

    def _listen(self) -> None:
        self._control.open()
        self._look_at = None if self._control.trouble is None else time.monotonic() + DEAF_SECS

    def _heed(self) -> list[Server]:
        """Take in the signals that came, and return the servers whose client ended."""
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            numbers = os.read(self._signals, 4096)
        if signal.SIGTERM in numbers:
            self._over = True
        if signal.SIGHUP in numbers:
            self._look_at = time.monotonic()
        return self._reap() if signal.SIGCHLD in numbers else []

    def _reap(self) -> list[Server]:
        found: list[Server] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            self._snapshots.reaped(pid, status)
            server = self._list.keys.get(-pid)
            if server is not None:
                self._list.quiet(server)
                found.append(server)

    def _homeless(self) -> bool:
        """Whether the state directory is gone, or another has taken its place."""
        try:
            held = os.stat(os.path.join(self._state_dir, lists.LOCK))
            return not os.path.samestat(held, os.fstat(self._lock))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False

    # -- deaths

    def _look(self, only: str | None = None) -> None:
        self._gone(self._list.look(only, self._recorder))

    def _gone(self, gone: list[tuple[Server, Ended]]) -> None:
        """Record servers that were found gone."""
        now = time.time()
        for detected in Detected:
            self._record(
                [
                    (server, now, ended)
                    for server, ended in gone
                    if (server.key is None) == (detected == Detected.POST_FACTUM)
                ],
                detected,
            )

    def _settle(self, ends: list[End]) -> None:
        """Record those that are proven gone; arm the others anew."""
        if not ends:
            return
        untold = [
            (self._list.handle(server), server.watched.server) for server, _, ended in ends if ended is None
        ]
        told = iter(exit_status.learn(untold))
        died = []
        for server, at, ended in ends:
            how = next(told) if ended is None else ended
            self._list.release(server)
            if how is None:
                self._list.put_off(server, f"its {self._list.means.word} ended, and it lives on")
            else:
                died.append((server, at, how))
        self._record(died, Detected.LIVE)

    def _record(self, died: list[tuple[Server, float, Ended]], detected: Detected) -> None:
        """Have these deaths written, as far as they are to be recorded."""
        if not died:
            return
        late = detected == Detected.POST_FACTUM
        known = {}
        if late:
            # Whichever is earlier: circusd may have put a server on the list again that had just died.
            lived = [
                (server.watched, min(server.watched.asked_at, autopsy.began(server.watched)))
                for server, _, _ in died
            ]
            known = exits_log.recorded(self._state_dir, lived)
        counters = host.counters_of({key: 0 for server, _, _ in died for key in server.counters})
        entries = []
        for server, at, ended in died:
            name = server.watched.name
            self._list.forget(server)
            # The intent first: circusd takes the file off the list before the intent.
            intent = lists.intent(self._state_dir, server.watched.server)
            watched = autopsy.listed(self._state_dir, server.watched)
            if watched is None:
                continue
            if not server_exit.recorded(intent, ended.number, ended.status):
                entries.append(Entry(name, None))
                continue
            death = known.get(name) or autopsy.death(
                self._state_dir,
                watched,
                ended,
                at=at,
                counted=(server.counters, counters),
                detected=detected,
                seen=self._last_seen(server) if late else None,
            )
            entries.append(Entry(name, death, logged=name in known))
            if death.forensics is None or not os.path.exists(death.forensics):
                self._snapshots.add(death, server.counters)
        crashpoint.reached("canary-before-line")
        self._recorder.write(entries)

    def _last_seen(self, server: Server) -> float:
        seen = [server.watched.asked_at, server.seen, lists.last_seen(self._state_dir)]
        return min(time.time(), max(at for at in seen if at is not None))

    # -- what others ask

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        asked, name = request.get("ask"), request.get("server")
        if asked == "status":
            return self._status()
        if asked != "look":
            return {"status": "error", "reason": f"ask: {asked!r}, expected 'look' or 'status'"}
        if name is not None and (not isinstance(name, str) or "/" in name or "\0" in name):
            return {"status": "error", "reason": f"server: {name!r}, expected its name or null"}
        self._look(name)
        return {"status": "ok"}

    def _status(self) -> dict[str, Any]:
        troubles = (self._recorder, self._list, self._control, self._snapshots)
        return {
            "status": "ok",
            "pid": os.getpid(),
            "start": self._me.start if self._me else None,
            "since": self._since,
            "means": self._list.means.word,
            "learns": self._learns,
            "why": self._why,
            "servers": [
                {
                    "socket": server.watched.socket,
                    "pid": server.watched.server.pid,
                    "start": server.watched.server.start,
                    "since": None if server.key is None else server.since,
                    "means": None if server.key is None else self._list.means.word,
                    "agents": [agent.identity for agent in server.watched.agents],
                    "drill": server.watched.drill,
                }
                for server in self._list.servers.values()
            ],
            "deaths": self._recorder.recorded,
            "waiting": self._recorder.waiting,
            "trouble": "; ".join(part.trouble for part in troubles if part.trouble) or None,
        }


def _signals(poller: Poller) -> int:
    """Let signals wake the poller, and return the descriptor from which their numbers are read."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGIO):
        signal.signal(number, lambda number, frame: None)
    poller.add(reader)
    return reader


def _tell_of_removals(folder: str) -> None:
    """Have the kernel send SIGIO when a file is removed from a folder, where that is rare: that of the locks.

    So the end of the state directory is noticed without looking for it. Linux without CONFIG_DNOTIFY, and
    other systems, have no such signal: there it is noticed at the next request or death.
    """
    if hasattr(fcntl, "F_NOTIFY"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.fcntl(handle, fcntl.F_NOTIFY, fcntl.DN_DELETE | fcntl.DN_MULTISHOT)
