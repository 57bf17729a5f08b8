"""Put deaths on disk: the line in exits.log, the report to circusd, and the server off the list.

A death goes through these steps in this order, and each is remembered: with a full disk it stays in memory
and is tried again, and no step is taken twice. Whether a death is recorded is decided before.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import json
import os
import time

from circus_failover import crashpoint
from circus_failover.canary import watched as lists
from circus_failover.canary.exits_log import EXITS_LOG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from circus_failover.canary.death import Death

SPOOL = "spool"
WAKE = f"{SPOOL}/wake.sock"
KIND = "server-exits"
PATIENCE_SECS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""How long until what could not be written is tried again."""


class Entry:
    """One server's way off the list."""

    __slots__ = ("name", "death", "logged", "reported", "removed")

    def __init__(self, name: str, death: Death | None, *, logged: bool = False) -> None:
        """Args:
        name: the server's name on the list.
        death: its death; None: its end is nobody's death, and it is only taken off the list.
        logged: the line is there already.
        """
        self.name = name
        self.death = death
        self.logged = logged or death is None
        self.reported = death is None or death.watched.drill
        self.removed = False


class Recorder:
    """What is still to be written."""

    def __init__(self, state_dir: str) -> None:
        self._state_dir = state_dir
        self._queue: list[Entry] = []
        self._failures = 0
        self.due: float | None = None
        """When what could not be written is tried again (time.monotonic); None: there is nothing."""
        self.trouble: str | None = None
        """Why something could not be written."""
        self.recorded = 0
        """Deaths whose line was written since the start."""

    def __contains__(self, name: object) -> bool:
        return any(entry.name == name for entry in self._queue)

    @property
    def waiting(self) -> int:
        """Deaths of which the line is not written yet."""
        return sum(not entry.logged for entry in self._queue)

    def write(self, entries: Iterable[Entry] = ()) -> None:
        """Write these deaths, with all that still waits, one batch; what cannot be written waits.

        Raises nothing: `trouble` says why something waits, and `due` until when.
        """
        self._queue.extend(entries)
        if not self._queue:
            return
        trouble = []
        for path, drill in ((EXITS_LOG, False), (lists.DRILL_LOG, True)):
            batch = [
                (entry, entry.death)
                for entry in self._queue
                if not entry.logged and entry.death and entry.death.watched.drill == drill
            ]
            trouble += self._step(path, self._log, batch)
        crashpoint.reached("canary-after-line")
        batch = [
            (entry, entry.death)
            for entry in self._queue
            if entry.logged and not entry.reported and entry.death
        ]
        trouble += self._step(SPOOL, self._report, batch)
        crashpoint.reached("canary-after-report")
        done = [(entry, entry.death) for entry in self._queue if entry.logged and entry.reported]
        trouble += self._step(lists.SERVERS, self._remove, done)
        if batch:
            self._wake()
        self._queue = [entry for entry in self._queue if not entry.removed]
        self.trouble = "; ".join(trouble) or None
        self.due = None
        if self._queue:
            self.due = time.monotonic() + PATIENCE_SECS[min(self._failures, len(PATIENCE_SECS) - 1)]
        self._failures = self._failures + 1 if self._queue else 0

    def _step(
        self, path: str, step: Callable[..., None], batch: Sequence[tuple[Entry, Death | None]]
    ) -> list[str]:
        """Take one step for a batch; return what is in the way."""
        if not batch:
            return []
        path = os.path.join(self._state_dir, path)
        try:
            step(path, batch)
        except OSError as error:
            return [f"{path}: {error.strerror}"]
        return []

    def _log(self, path: str, batch: list[tuple[Entry, Death]]) -> None:
        """Append the lines of a batch: one write, one sync."""
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            made = False
        except FileNotFoundError:
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            made = True
        try:
            lines = [f"{death.line()}\n".encode(errors="backslashreplace") for _, death in batch]
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                # Somebody's line was cut off, by a full disk or a kill: it must not swallow ours.
                lines[0] = b"\n" + lines[0]
            data = b"".join(lines)
            written = 0
            try:
                while written < len(data):
                    written += os.write(handle, data[written:])
            finally:
                for (entry, _), text in zip(batch, lines, strict=True):
                    written -= len(text)
                    if written >= 0:
                        entry.logged = True
                        self.recorded += 1
                os.fsync(handle)
        finally:
            os.close(handle)
        if made:
            _sync_folder(os.path.dirname(path))

    def _report(self, folder: str, batch: list[tuple[Entry, Death]]) -> None:
        """Tell circusd of a batch: one file, as spool.send writes it."""
        # Death by death, so that 500 at once do not leave this process larger than it was.
        deaths = b",".join(json.dumps(death.report()).encode() for _, death in batch)
        data = b'{"kind":"%b","deaths":[%b]}' % (KIND.encode(), deaths)
        name = f"{time.time_ns():020d}-{os.getpid()}-{KIND}.json"
        temporary = os.path.join(folder, f".{name}.tmp")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                written = 0
                while written < len(data):
                    written += os.write(handle, data[written:])
                os.fsync(handle)
            finally:
                os.close(handle)
            os.rename(temporary, os.path.join(folder, name))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        for entry, _ in batch:
            entry.reported = True
        _sync_folder(folder)

    def _remove(self, folder: str, batch: Sequence[tuple[Entry, Death | None]]) -> None:
        for entry, _ in batch:
            lists.remove(self._state_dir, entry.name)
            entry.removed = True

    def _wake(self) -> None:
        """Wake circusd, if it listens."""
        with contextlib.suppress(OSError):
            client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            try:
                client.setblocking(False)
                client.sendto(b"1", os.path.join(self._state_dir, WAKE))
            finally:
                client.close()


def _sync_folder(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems cannot sync folders (fsync(2), EINVAL).
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)
