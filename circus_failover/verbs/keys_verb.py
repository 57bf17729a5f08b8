"""The verb `keys`: keys pressed in the terminal of an agent that is up, as by somebody who sits there.

Unlike a task or a `tell` nothing is queued, cleared or checked: what is pressed is pressed now, or refused.
While it is pressed nobody else types: a typist holds the agent's lock, and so does this.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover import file_lock
from circus_failover.problems import describe, nearest, printable
from circus_failover.verbs.answers import answer, begin, refused
from circus_failover.verbs.lifecycle import Verdicts
from circus_failover.verbs.selection import one_agent, supervisor_of, who
from circus_failover.words import Phase, TaskState

if TYPE_CHECKING:
    from pathlib import Path

    from circus_failover import tmux
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor

MOST_CHARACTERS = 1000
MOST_WAITING = 20
"""How many may wait for their turn at one agent: somebody who types is faster than a server that hangs."""
TMUX_SECS = 1.0
LOG_SECS = 10.0
"""What one person presses within so many seconds after a line in lifecycle.log is one line more."""

_NAMED = {
    "Enter": "\r",
    "Escape": "\x1b",
    "Tab": "\t",
    "BTab": "\x1b[Z",
    "Space": " ",
    "BSpace": "\x7f",
    "Up": "\x1b[A",
    "Down": "\x1b[B",
    "Right": "\x1b[C",
    "Left": "\x1b[D",
    "Home": "\x1b[1~",
    "End": "\x1b[4~",
    "IC": "\x1b[2~",
    "Insert": "\x1b[2~",
    "DC": "\x1b[3~",
    "Delete": "\x1b[3~",
    "PPage": "\x1b[5~",
    "PageUp": "\x1b[5~",
    "PgUp": "\x1b[5~",
    "NPage": "\x1b[6~",
    "PageDown": "\x1b[6~",
    "PgDn": "\x1b[6~",
    "F1": "\x1bOP",
    "F2": "\x1bOQ",
    "F3": "\x1bOR",
    "F4": "\x1bOS",
    "F5": "\x1b[15~",
    "F6": "\x1b[17~",
    "F7": "\x1b[18~",
    "F8": "\x1b[19~",
    "F9": "\x1b[20~",
    "F10": "\x1b[21~",
    "F11": "\x1b[23~",
    "F12": "\x1b[24~",
}
"""Keys by tmux's names, as tmux sends them to a program (input-keys.c, tmux 3.3a)."""
_CURSOR_KEY = re.compile("\x1b[\\[O]([A-DHF])")
_HOME_AND_END = {"H": "\x1b[1~", "F": "\x1b[4~"}


class Keys(Verdicts, Command):  # type: ignore[misc]
    """\
    Press keys in the terminal of an agent that is up
    =================================================

    They are pressed now, as by somebody who sits there, or refused with the reason: while a task is being
    typed, while the agent is being ended, or when it is not up. Nothing is checked and no Enter is added. To
    say something to an agent and see that it arrives: `tell`.

    Command line
    ------------

    ::

        $ failoverctl keys NAME KEY...
        $ failoverctl keys NAME --text TEXT [KEY...]

    Options
    +++++++

    - <NAME>: the identity of one agent
    - <KEY>: a key by tmux's name (Enter, Escape, Tab, Up, PageUp, F5, C-c, M-x), or one character
    - <text>: a text that is typed first, as it is

    Exit status: 0 pressed, 2 usage, 3 refused, with the reason.
    """

    name = "keys"
    options = [("", "text", None, "a text that is typed first")]

    def message(self, *args: str, **opts: Any) -> Any:
        text = opts.get("text")
        if not args or (len(args) < 2 and text is None):
            raise ArgumentError("keys takes the name of one agent, and keys or --text TEXT")
        keys = str(text or "") + "".join(key_named(name) for name in args[1:])
        try:
            return self.make_message(name=args[0], keys=check(keys))
        except ValueError as error:
            raise ArgumentError(str(error)) from error

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held, name, generation = supervisor_of(arbiter), props.get("name"), props.get("generation")
        if not isinstance(name, str):
            raise MessageError(f"name: found {describe(name)}, expected the name of one agent")
        if generation is not None and type(generation) is not int:
            raise MessageError(f"generation: found {describe(generation)}, expected the number of a launch")
        agent = one_agent(arbiter, name)
        try:
            keys = check(props.get("keys"))
        except ValueError as error:
            raise MessageError(f"{error}; nothing was pressed") from error
        by = who(props)
        props["waiting"] = True

        async def press() -> dict[str, Any]:
            why = await _desk(held, agent).press(held, agent, generation, keys, by)
            if why is not None:
                return answer([refused(agent, why)])
            note = f"{len(keys)} character{'s' if len(keys) != 1 else ''} typed"
            return answer([{**refused(agent, ""), "ok": True, "reason": None, "tasks_note": note}])

        return begin(held, press())


def check(keys: object) -> str:
    """Return keys that can be pressed: any characters, control characters too.

    Raises:
        ValueError: they are none; the text says why.
    """
    if not isinstance(keys, str):
        raise ValueError(f"keys: found {describe(keys)}, expected a text")
    if not 0 < len(keys) <= MOST_CHARACTERS:
        raise ValueError(f"keys: found {len(keys)} characters, expected 1 to {MOST_CHARACTERS}")
    try:
        keys.encode()
    except UnicodeEncodeError as error:
        raise ValueError("keys: found half of a character (a surrogate), which is no text") from error
    return keys


def key_named(name: str) -> str:
    """Return what a key sends, by tmux's name or as the character itself.

    Raises:
        ArgumentError: there is no such key.
    """
    if name in _NAMED or len(name) == 1:
        return _NAMED.get(name, name)
    if name.startswith("M-") and len(name) > 2:
        return "\x1b" + key_named(name[2:])
    if name.startswith(("C-", "^")):
        rest = name[2:] if name.startswith("C-") else name[1:]
        if rest == "Space":
            return "\x00"
        if len(rest) == 1 and (rest.isalpha() or rest in "@[\\]^_") and rest.isascii():
            return chr(ord(rest.upper()) & 0x1F)
    hint = nearest(name, _NAMED)
    raise ArgumentError(f"no key {printable(name)[:40]}{hint}; a text is typed with --text")


def as_the_pane_wants(keys: str, application: bool) -> str:
    """Return keys with the cursor keys, Home and End as tmux would send them to this pane's program.

    A front end sends what its own terminal would, and knows nothing of the modes of the pane's.

    Args:
        keys: what is to be pressed.
        application: the program has asked for the other codes of the cursor keys (DECCKM).
    """
    begins = "\x1bO" if application else "\x1b["
    return _CURSOR_KEY.sub(lambda found: _HOME_AND_END.get(found[1], begins + found[1]), keys)


def impossible(held: Supervisor, agent: Agent, generation: int | None) -> str | None:
    """Return why no keys can be pressed now, or None.

    Args:
        held: the supervisor.
        agent: in whose terminal.
        generation: the only launch that they are for; None: whichever runs.
    """
    if generation is not None and agent.row.generation != generation:
        return f"launch {generation} has ended, and launch {agent.row.generation} is another one"
    if agent.observed:
        return "it is observed: watched and shown, never typed into"
    if agent.action is not None:
        return f"it is being ended ({agent.action.intent}, by {agent.action.who})"
    if agent.phase is not Phase.UP:
        return f"it is not up but {agent.phase}" + (f": {agent.reason}" if agent.reason else "")
    if held.state is None or agent.row.pid is None or agent.socket is None or agent.session is None:
        return "where its terminal is is not known"
    if agent.wedged:
        return "its tmux server does not answer"
    for task in held.deliveries.waiting(agent):
        if task.state == str(TaskState.TYPING):
            return f"task {task.id} is being typed right now"
    return None


@dataclass
class _Desk:
    """Whoever presses keys at one agent: one after another, in the order in which they asked."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    unlogged: dict[str, int] = field(default_factory=dict)
    """How many characters lifecycle.log has yet to hear of, by who pressed them; who is here was logged."""

    async def press(
        self, held: Supervisor, agent: Agent, generation: int | None, keys: str, by: str
    ) -> str | None:
        """Press keys, and return why they were not; None: they were."""
        if self.waiting >= MOST_WAITING:
            return f"not pressed: {self.waiting} others wait to press keys there"
        self.waiting += 1
        try:
            async with self.turn:
                why = await self._press(held, agent, generation, keys)
        finally:
            self.waiting -= 1
        if why is None:
            self._log(held, agent, by, len(keys))
        return why

    async def _press(self, held: Supervisor, agent: Agent, generation: int | None, keys: str) -> str | None:
        from circus_failover import tmux

        why = impossible(held, agent, generation)
        if why is not None:
            return f"not pressed: {why}"
        assert held.state is not None and agent.row.pid is not None
        assert agent.socket is not None and agent.session is not None
        # Whoever types into an agent or ends it holds this.
        lock = file_lock.take(held.state.agent_lock(agent.identity))
        if lock is None:
            return "not pressed: somebody types into it, or ends it, right now"
        owner = tmux.Owner(agent.row.pid, agent.row.server_pid)
        press = partial(_press_keys, agent.socket, agent.session, agent.row.pane, owner, keys, lock)
        try:
            why = await asyncio.to_thread(press)
        except tmux.TmuxTimeout as error:
            return f"perhaps not pressed: {error}"
        except tmux.TmuxError as error:
            why = str(error)
        return None if why is None else f"not pressed: {why}"

    def _log(self, held: Supervisor, agent: Agent, by: str, number: int) -> None:
        if by in self.unlogged:
            self.unlogged[by] += number
            return
        held.record(agent, "keys", {"who": by, "characters": number})
        self.unlogged[by] = 0
        asyncio.get_running_loop().call_later(LOG_SECS, self._log_rest, held, agent, by)

    def _log_rest(self, held: Supervisor, agent: Agent, by: str) -> None:
        number = self.unlogged.pop(by, 0)
        if number and held.log is not None:
            self._log(held, agent, by, number)


_desks: WeakKeyDictionary[Supervisor, dict[str, _Desk]] = WeakKeyDictionary()


def _desk(held: Supervisor, agent: Agent) -> _Desk:
    return _desks.setdefault(held, {}).setdefault(agent.identity, _Desk())


def _press_keys(
    socket: Path, session: str, pane: str | None, owner: tmux.Owner, keys: str, lock: int
) -> str | None:
    """Press keys, in a thread, and free the lock; return why they were not pressed, or None.

    Raises:
        TmuxError: tmux did not answer, or refused.
    """
    from circus_failover import process_table, tmux

    try:
        if pane is None:
            panes = tmux.panes(socket, session, TMUX_SECS)
            pane = next((one.pane for one in panes if one.pid == owner.pid), None)
        if pane is None:
            return f"no pane of session {session} runs it, pid {owner.pid}"
        if _CURSOR_KEY.search(keys):
            keys = as_the_pane_wants(keys, tmux.application_cursor_keys(socket, pane, TMUX_SECS))
        buffer = f"failover-keys-{owner.pid}-{time.monotonic_ns()}"
        if not tmux.put(socket, pane, owner, buffer, keys.encode(), TMUX_SECS):
            return f"pane {pane} does not run it any more, pid {owner.pid}"
        terminal = process_table.terminal(owner.pid)
        if terminal is not None:
            # A program may show nothing of what is pressed, and still somebody is there: when a terminal
            # last moved is what an agent's last activity is read from. Linux moves it for output only.
            with contextlib.suppress(OSError):
                os.utime(terminal)
        return None
    finally:
        os.close(lock)
