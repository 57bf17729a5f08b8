"""What a worker says before a tmux server may end through it: that this end is meant; and taking that back.

The canary records every end of a server that nobody meant. An agent that has its server for itself means all
of it while it is ended; anybody else closes one session, and means only that an orderly end may follow.
Ending what an operator wants ended never depends on this: what could not be said is told in the report.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import crashpoint, process_table, tmux
from circus_failover.canary import watched
from circus_failover.process_table import ProcessId
from circus_failover.words import IntentAction

if TYPE_CHECKING:
    from circus_failover.ending_work import Order

END_SECS = 2.0
"""How long a server may take to end after its last session; it does so within milliseconds (tmux 3.3a)."""
UNASKED_SECS = 0.25
"""For so long it is not asked whether it ends: a client keeps it from ending."""
POLL_SECS = 0.01
_DELIBERATE = frozenset(str(intent) for intent in IntentAction if intent is not IntentAction.CLEAR)


def covers(order: Order) -> str:
    """Return which ends of its server an order means: ANY where the agent has it for itself and is ended."""
    return watched.ANY if order.own_server and order.intent in _DELIBERATE else watched.ORDERLY


def announce(order: Order, server: ProcessId | None) -> str:
    """Say that a server's end is meant, once, as long as it lives; what has ended was not meant to.

    Returns:
        What could not be said, as a sentence; empty when all is well.
    """
    if order.state_dir is None or server is None or not process_table.may_run(server):
        return ""
    was, wanted = watched.intent(order.state_dir, server), covers(order)
    if was == wanted:
        return ""
    try:
        watched.intend(order.state_dir, server, wanted)
    except FileNotFoundError:
        return ""  # no such folder: nobody watches
    except OSError as error:
        return _unlisted(order, server, error)
    if not process_table.may_run(server) and was is None:
        # It ended by itself just before: somebody should hear of that.
        _withdraw(order, server)
    return ""


def _unlisted(order: Order, server: ProcessId, error: OSError) -> str:
    """Nothing can be written, on a full disk say; to take a server off the list needs no room."""
    assert order.state_dir is not None
    if order.own_server:
        try:
            watched.remove(order.state_dir, watched.server_name(server))
            return ""
        except OSError:
            pass
    return f"that its tmux server's end is meant could not be written ({error}): exits.log may record it"


def close(order: Order, server: ProcessId | None) -> str:
    """Close the session of an order, and say before that its server's end is meant.

    Returns:
        What could not be done or said, as a sentence; empty when all is well.
    """
    with _one_at_a_time(order):
        note, left, silent = announce(order, server), None, False
        crashpoint.reached("worker-before-close")
        try:
            left = tmux.close_session(order.socket, order.session)
        except tmux.TmuxError as error:
            silent = isinstance(error, tmux.TmuxTimeout)
            note = f"its session could not be closed: {error}"
        _settle(order, server, left, asked=True, silent=silent)
    return note


def await_end(order: Order, server: ProcessId | None) -> None:
    """A session that is gone may be so since its server ends: wait until that has, where it is about to.

    A server tells its clients first, and is there until the last of them has gone (tmux 3.3a).
    """
    begun = time.monotonic()
    while server is not None and process_table.may_run(server) and time.monotonic() - begun < END_SECS:
        # One that ends may fail in any way to say so.
        with contextlib.suppress(tmux.TmuxError):
            if _stays(order, server) is not False:
                return
        time.sleep(POLL_SECS)


def leave(order: Order, server: ProcessId | None, *, silent: bool) -> None:
    """Leave a session as it is: what was said before, also by a worker that died, is taken back.

    Args:
        order: whose session it is, or was.
        server: the server's process.
        silent: it did not answer in time.
    """
    with _one_at_a_time(order):
        _settle(order, server, None, asked=False, silent=silent)


@contextlib.contextmanager
def _one_at_a_time(order: Order) -> Iterator[None]:
    """Keep two workers from closing sessions of one server at once: the intent is the server's, not theirs.

    One that closes a session and sees others left takes the intent back, and must not take back that of the
    next one. Nobody else closes anything in a server of an agent's own.
    """
    handle = None
    if not order.own_server and order.state_dir is not None:
        name = f"{zlib.crc32(os.fsencode(order.socket)):08x}.server.lock"
        # A lock that cannot be opened (a full disk) keeps nobody from ending an agent.
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            handle = os.open(Path(order.state_dir, "locks", name), flags, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _settle(
    order: Order, server: ProcessId | None, left: list[str] | None, *, asked: bool, silent: bool
) -> None:
    """Take the intent back when the server lives on; return when it has ended, or is proven to be about to.

    Args:
        order: whose session was closed, or not.
        server: the server's process.
        left: the sessions it had after that; None: it did not say.
        asked: it was told to close the session, so that it may do so yet when it did not answer.
        silent: it did not answer in time.
    """
    if order.state_dir is None or server is None or watched.intent(order.state_dir, server) is None:
        return
    begun = time.monotonic()
    while process_table.may_run(server) and time.monotonic() - begun < END_SECS:
        if left != [] or time.monotonic() - begun >= UNASKED_SECS:
            stays = None if silent else bool(left) or _stays(order, server)
            # Where nobody knows: an end that was asked for may come yet, and is still meant.
            if stays or (stays is None and not asked):
                _withdraw(order, server)
            if stays is not False:
                return
        time.sleep(POLL_SECS)


def _stays(order: Order, server: ProcessId) -> bool | None:
    """Say whether a server is there to stay; None when that cannot be known."""
    listening = tmux.server_pid(order.socket)
    if listening != server.pid:
        # Nobody listens: it ends. Somebody else does: it cannot be reached any more.
        return False if listening is None else None
    try:
        return bool(tmux.sessions(order.socket)) or not tmux.ends_when_empty(order.socket)
    except tmux.TmuxTimeout:
        return None


def _withdraw(order: Order, server: ProcessId) -> None:
    assert order.state_dir is not None
    with contextlib.suppress(OSError):
        watched.withdraw(order.state_dir, server)
