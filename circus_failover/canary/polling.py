"""Waiting for descriptors and processes without ever waking for nothing: epoll, or kqueue on macOS and BSD.

A key says what is ready: a descriptor, or minus the pid of a process that kqueue saw end.
"""

from __future__ import annotations

import errno
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Poller(Protocol):
        """What waits."""

        def add(self, handle: int) -> None:
            """Wait until this descriptor can be read."""

        def writing(self, handle: int, wanted: bool) -> None:
            """Wait, too, until this descriptor can be written, or no more."""

        def remove(self, handle: int) -> None:
            """Wait for this descriptor no more; before it is closed."""

        def wait(self, timeout: float | None) -> list[int]:
            """Return what is ready, at most AT_ONCE keys; wait for it so many seconds (None: for ever)."""


AT_ONCE = 1024
"""How many keys are returned at once: all, since the time at which they were ready is noted then."""


_select: Any = select
"""Linux has no kqueue, and its type stubs none either."""


class Epoll:
    """Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def add(self, handle: int) -> None:
        self._epoll.register(handle, select.EPOLLIN)

    def writing(self, handle: int, wanted: bool) -> None:
        self._epoll.modify(handle, select.EPOLLOUT if wanted else select.EPOLLIN)

    def remove(self, handle: int) -> None:
        self._epoll.unregister(handle)

    def wait(self, timeout: float | None) -> list[int]:
        return [handle for handle, _ in self._epoll.poll(timeout, AT_ONCE)]


class Kqueue:
    """macOS and the BSDs."""

    def __init__(self) -> None:
        self._queue = _select.kqueue()

    def _change(self, ident: int, kind: int, flags: int, what: int = 0) -> None:
        self._queue.control([_select.kevent(ident, kind, flags, what)], 0)

    def add(self, handle: int) -> None:
        self._change(handle, _select.KQ_FILTER_READ, _select.KQ_EV_ADD)

    def add_process(self, pid: int) -> None:
        """Wait until a process ends.

        Raises:
            ProcessLookupError: there is none with this pid.
        """
        self._change(
            pid, _select.KQ_FILTER_PROC, _select.KQ_EV_ADD | _select.KQ_EV_ONESHOT, _select.KQ_NOTE_EXIT
        )

    def remove_process(self, pid: int) -> None:
        """Wait for a process no more."""
        self._forget(pid, _select.KQ_FILTER_PROC)

    def writing(self, handle: int, wanted: bool) -> None:
        if wanted:
            self._change(handle, _select.KQ_FILTER_WRITE, _select.KQ_EV_ADD)
        else:
            self._forget(handle, _select.KQ_FILTER_WRITE)

    def remove(self, handle: int) -> None:
        self._forget(handle, _select.KQ_FILTER_READ)
        self._forget(handle, _select.KQ_FILTER_WRITE)

    def _forget(self, ident: int, kind: int) -> None:
        try:
            self._change(ident, kind, _select.KQ_EV_DELETE)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH):
                raise

    def wait(self, timeout: float | None) -> list[int]:
        found = self._queue.control(None, AT_ONCE, timeout)
        return [-event.ident if event.filter == _select.KQ_FILTER_PROC else event.ident for event in found]


def poller() -> Poller:
    """Return what waits on this system."""
    return Epoll() if hasattr(select, "epoll") else Kqueue()
