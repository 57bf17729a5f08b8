"""Agents' terminals as the console shows them: frames of what a pane shows, for whoever looks.

Only looks: nothing is typed here, and no client is attached, which would count as somebody being there. tmux
is asked in threads of its own, each call for a second at most: a server that hangs costs its own frames, and
says nothing about its agents.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from circus_failover import tmux
from circus_failover.agent import LIVE_PHASES
from circus_failover.web.frames import MOST_HISTORY, Follower, NotEnough, Shown
from circus_failover.words import Phase

if TYPE_CHECKING:
    from circus_failover.web.hosts import Host

Listener = Callable[[dict[str, Any]], None]
T = TypeVar("T")

TMUX_SECS = 1.0
FRAME_SECS = 1 / 12
"""Between two captures of one pane, however fast it prints."""
COSTLY_PAUSE = 4
"""After a frame that was long in the making (a colour for each character) so many times that is waited."""
LOOK_SECS = 0.06
"""How often its log is looked at: has it grown, the pane shows something new."""
QUIET_SECS = 1.0
"""After so long a pane is captured in any case: a change of its size prints nothing."""
UNLOGGED_SECS = 0.25
"""The same where there is no log: of an agent that was started by hand, or is only observed."""
GONE_SECS = 0.25
"""How often it is looked whether an agent that is down came back; no process is asked for that."""
RETRY_SECS = (1.0, 2.0, 5.0)
"""Between two tries to ask a tmux server that does not answer."""

_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="terminal")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Place:
    """Where an agent's terminal is, as circusd says."""

    socket: Path
    session: str
    pid: int | None
    """The agent's process; None while a launch has not told it."""
    server_pid: int | None
    generation: int | None


class Terminals:
    """One capture loop for each pane that somebody looks at, however many pages look."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, str], _Watch] = {}

    def watch(self, host: Host, name: str, listener: Listener) -> Callable[[], None]:
        """Send a pane's frames to a listener, the first of them complete; on the running loop.

        An agent that is down, or whose terminal cannot be seen, is `terminal-gone` with the reason, and its
        next frame, whenever that comes, is complete again.

        Args:
            host: the agent's host; of one that is not `local` nothing is seen.
            name: the agent's identity.
            listener: called on the loop with `terminal` and `terminal-gone` messages, which it must not
                change: all listeners get the same one.

        Returns:
            What ends it; to call it again is no error.
        """
        key = (host.name, name)
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = _Watch(host, name)
        watch.join(listener)

        here = [listener]

        def leave() -> None:
            if here:
                watch.leave(here.pop())
            if not watch.looked_at and self._watches.get(key) is watch:
                del self._watches[key]
                watch.end()

        return leave

    def __len__(self) -> int:
        return len(self._watches)

    async def close(self) -> None:
        """End all loops, and wait until they have."""
        watches = list(self._watches.values())
        self._watches.clear()
        for watch in watches:
            watch.end()
        await asyncio.gather(*(watch.ended() for watch in watches))


class _Watch:
    """The loop of one agent's terminal."""

    def __init__(self, host: Host, name: str) -> None:
        self._host, self._name = host, name
        self._listeners: list[Listener] = []
        self._new: list[Listener] = []
        """Listeners that have no frame yet."""
        self._gone: dict[str, Any] | None = None
        """What was said last, when that was that there is nothing to be seen."""
        self._place: _Place | None = None
        self._pane: str | None = None
        self._follower = Follower()
        self._log: tuple[int, int] | None = None
        """The pane log as it was before the last capture: inode and size."""
        self._captured = 0.0
        """When that was, in monotonic seconds."""
        self._pause = FRAME_SECS
        """The least time to the next one."""
        self._failures = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def looked_at(self) -> bool:
        """Whether anybody looks."""
        return bool(self._listeners)

    def join(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners.append(listener)
        self._new.append(listener)
        if self._gone is not None:
            asyncio.get_running_loop().call_soon(self._send, self._gone, [listener])

    def leave(self, listener: Listener) -> None:
        """Take a listener away; one that is not there is no error."""
        for listeners in (self._listeners, self._new):
            if listener in listeners:
                listeners.remove(listener)

    def end(self) -> None:
        """End the loop."""
        self._task.cancel()

    async def ended(self) -> None:
        """Wait until the loop has ended."""
        await asyncio.wait([self._task])

    # -- the loop ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.sleep(await self._turn())
            except Exception:
                # Whatever it was, the next turn begins with a capture of everything.
                _logger.exception("the terminal of %s could not be shown", self._name)
                self._forget("it could not be shown; the console's log says why")
                await asyncio.sleep(RETRY_SECS[-1])

    async def _turn(self) -> float:
        """Do what is due, and return after how many seconds to look again."""
        try:
            place = _place(self._host, self._host.agents.get(self._name), self._name)
        except LookupError as why:
            self._forget(str(why))
            return GONE_SECS
        if place != self._place:
            self._place, self._pane, self._follower, self._captured = place, None, Follower(), 0.0
        log, now = self._log_now(), time.monotonic()
        quiet = UNLOGGED_SECS if log is None else QUIET_SECS
        if not self._new and log == self._log and now - self._captured < quiet:
            return LOOK_SECS
        if now - self._captured < self._pause:
            return self._pause - (now - self._captured)
        self._log, self._captured = log, now
        try:
            seen = await self._look(place)
        except tmux.TmuxError as error:
            self._forget(str(error))
            self._failures += 1
            return RETRY_SECS[min(self._failures, len(RETRY_SECS)) - 1]
        self._failures = 0
        if not seen:
            # Its end is on its way through circusd, which knows why; until then nothing is said.
            found_before, self._pane = self._pane is not None, None
            if not found_before:
                self._forget(f"no pane of session {place.session} runs it")
            return GONE_SECS
        return LOOK_SECS

    async def _look(self, place: _Place) -> bool:
        """Capture the pane and send what is new; False when it is not there, or not the agent's any more."""
        if self._pane is None:
            self._pane = await _threaded(_find, place)
            if self._pane is None:
                return False
        joining = list(self._new)
        made = None
        for wanted in (MOST_HISTORY if joining else self._follower.wants, MOST_HISTORY):
            at = time.time()
            captured = await _threaded(tmux.frame, place.socket, self._pane, wanted, TMUX_SECS)
            if captured is None or not _of(place, captured):
                return False
            begun = time.monotonic()
            made = await _threaded(_step, self._follower, captured, at)
            self._pause = max(FRAME_SECS, COSTLY_PAUSE * (time.monotonic() - begun))
            if made is not None:
                break
        assert made is not None
        shown, frame = made
        self._gone = None
        if frame is not None:
            # Also nobody who has come meanwhile: what is new means nothing without a complete frame before.
            self._send(self._message(frame), [one for one in self._listeners if one not in self._new])
        joined = [one for one in joining if one in self._new]
        if joined:
            self._new = [one for one in self._new if one not in joined]
            complete = frame if frame is not None and frame["reset"] else shown.complete(at)
            self._send(self._message(complete), joined)
        return True

    def _log_now(self) -> tuple[int, int] | None:
        if self._host.state is None:
            return None
        try:
            found = os.stat(self._host.state.pane_log(self._name))
        except OSError:
            return None
        return found.st_ino, found.st_size

    # -- what is said --------------------------------------------------------------------------------

    def _message(self, frame: dict[str, Any]) -> dict[str, Any]:
        return {"type": "terminal", "host": self._host.name, "name": self._name, "frame": frame}

    def _forget(self, why: str) -> None:
        """Say that there is nothing to be seen, once; whatever is seen next begins anew."""
        self._place = self._pane = None
        self._new = list(self._listeners)
        if self._gone is not None and self._gone["reason"] == why:
            return
        self._gone = {"type": "terminal-gone", "host": self._host.name, "name": self._name, "reason": why}
        self._send(self._gone, self._listeners)

    def _send(self, message: dict[str, Any], listeners: list[Listener]) -> None:
        for listener in list(listeners):
            if listener not in self._listeners:
                continue
            try:
                listener(message)
            except Exception:
                _logger.exception("a page could not be sent the terminal of %s", self._name)
                self.leave(listener)


async def one_frame(host: Host, view: Mapping[str, Any]) -> dict[str, Any]:
    """Return one complete frame of an agent's pane.

    Args:
        host: the agent's host.
        view: the agent, as `fleet` gives it.

    Raises:
        LookupError: there is none to be seen; the text is a sentence.
    """
    place = _place(host, view, str(view["identity"]))
    at = time.time()

    def look() -> dict[str, Any] | None:
        pane = _find(place)
        captured = tmux.frame(place.socket, pane, MOST_HISTORY, TMUX_SECS) if pane is not None else None
        return Shown(captured).complete(at) if captured is not None and _of(place, captured) else None

    try:
        frame = await _threaded(look)
    except tmux.TmuxError as error:
        raise LookupError(str(error)) from error
    if frame is None:
        raise LookupError(f"no pane of session {place.session} runs it")
    return frame


def _place(host: Host, view: Mapping[str, Any] | None, name: str) -> _Place:
    """Return where an agent's terminal is.

    Raises:
        LookupError: there is none that could be looked at; the text says why.
    """
    if not host.local:
        raise LookupError(f"terminals of {host.name} are shown only by a console on its own machine")
    if view is None:
        raise LookupError(f"there is no agent {name} on {host.name}")
    phase, socket, session = view.get("phase"), view.get("socket"), view.get("session")
    if phase not in LIVE_PHASES | {Phase.OBSERVED}:
        raise LookupError(f"it is {phase}" + (f": {view['reason']}" if view.get("reason") else ""))
    if socket is None or session is None:
        raise LookupError(f"it is {phase}, and where its terminal is is not known")
    return _Place(Path(socket), session, view.get("pid"), view.get("server_pid"), view.get("generation"))


def _find(place: _Place) -> str | None:
    """Return the pane that runs the agent; of a launch that has not told its process, the session's first."""
    panes = tmux.panes(place.socket, place.session, TMUX_SECS)
    return next((pane.pane for pane in panes if place.pid in (None, pane.pid)), None)


def _of(place: _Place, captured: tmux.Captured) -> bool:
    """Say whether a capture is of the very process that circusd knows."""
    return place.pid in (None, captured.pid) and place.server_pid in (None, captured.server_pid)


def _step(
    follower: Follower, captured: tmux.Captured, at: float
) -> tuple[Shown, dict[str, Any] | None] | None:
    """Return what `Follower.step` does; None: more of the history has to be captured."""
    try:
        return follower.step(captured, at)
    except NotEnough:
        return None


async def _threaded(work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, work, *arguments)
