"""What is seen of one running Claude Code: its files put together, and its screen where they do not tell.

Evidence, the most trusted first: the status file, the hooks, the transcript, the screen. A screen costs a
call of tmux, so it is asked for only to learn which dialog is open, why a turn takes long, and what goes on
when there is no status file. What has another form than expected says nothing. It decides nothing:
`policy.health` weighs what is seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from circus_failover.agents import claude_files, claude_screen, claude_transcript, claude_usage
from circus_failover.agents.claude_files import UUID, Status, past, seconds, text
from circus_failover.agents.claude_screen import Shown
from circus_failover.agents.claude_transcript import Tail
from circus_failover.agents.runtime import Observation, Place, Screen
from circus_failover.policy import usage_limits
from circus_failover.policy.health import Fault, Sign
from circus_failover.words import FaultKind, Source, State

QUIET_SECS = 2.0
"""When a turn has shown nothing for so long, the screen may say why: the client tries again by itself."""
STATES = {"idle": State.IDLE, "busy": State.WORKING, "shell": State.IDLE, "waiting": State.WAITING}
"""What the words of a status file say. `shell`: it takes a prompt, and a tool runs in the background."""
_BACKGROUND = "background shell"
_ASKS = {
    "sandbox request": "permission: network",
    "worker request": "permission: sub-agent",
    "goal proposal": "permission: goal",
    "input needed": "question",
}
"""What it waits for, by `waitingFor`; `permission prompt` and `dialog open` are told more exactly."""
_QUESTION = "AskUserQuestion"


class Look:
    """One look at one agent."""

    def __init__(self, place: Place, tail: Callable[[Path], Tail]) -> None:
        self.place = place
        self.now = time.time()
        self.status: Status | None = claude_files.status(place.home, place.process)
        self.conversation = self._conversation()
        self.path: Path | None = None
        if self.conversation is not None:
            self.path = claude_files.transcript(place.home, place.working_dir, self.conversation)
        self.tail = tail(self.path) if self.path is not None else Tail()
        self._asked = False
        self._screen: Screen | None = None

    def observation(self) -> Observation:
        """Return what was seen."""
        signs = [*self._faults()]
        told = self._told_by_status()
        if told is not None:
            signs.append(told)
            signs.extend(self._why_so_long(told))
        else:
            signs.extend(self._told_otherwise())
        usage = claude_usage.of_event(self._own_event(claude_usage.EVENT))
        return Observation(tuple(signs), self.conversation, self._activity(signs), usage)

    def _conversation(self) -> str | None:
        """Return the conversation it is in now; /clear and /resume change it."""
        if self.status is not None and self.status.conversation is not None:
            return self.status.conversation
        started = reported(self.place, "SessionStart")
        session = session_of(started) if started is not None else None
        return session or self.place.conversation

    def screen(self) -> Screen | None:
        """Return what the terminal shows, asked for once."""
        if not self._asked:
            self._asked, self._screen = True, self.place.screen()
        return self._screen

    def shown(self) -> Shown:
        """Return what the screen says."""
        screen = self.screen()
        return claude_screen.read(screen.rows) if screen is not None else Shown()

    # -- states ----------------------------------------------------------------------------------------

    def _told_by_status(self) -> Sign | None:
        if self.status is None or self.status.word not in STATES:
            return None
        state = STATES[self.status.word]
        what = ""
        if state is State.WAITING:
            what = self._waits_for(self.status.waiting_for)
        elif self.status.word == "shell":
            what = _BACKGROUND
        elif state is State.WORKING and self.tail.state is State.WORKING and self.tail.tools:
            what = f"tool: {' '.join(self.tail.tools)}"
        # It is certainly this process's own: a clock that was set back does not make it another launch's.
        at = None if self.status.at is None else max(self.status.at, self.place.launched_at)
        if at is not None and state is State.IDLE and self.tail.state is State.IDLE:
            # A turn may be over before the file has said `busy`: the conversation shows that it was.
            at = max(at, self.tail.state_at or at)
        return Sign(Source.STATUS_FILE, at, state, what)

    def _waits_for(self, waiting_for: str) -> str:
        if waiting_for == "permission prompt":
            return self._permission()
        if waiting_for in _ASKS:
            return _ASKS[waiting_for]
        if waiting_for in ("", "dialog open"):
            shown = self.shown()
            if shown.dialog is not None:
                return f"dialog: {shown.dialog}"
            return f"permission: {shown.tool}" if shown.tool else "dialog"
        return " ".join(waiting_for.split())[:60]

    def _permission(self) -> str:
        tools = self.tail.tools if self.tail.state is State.WORKING else ()
        if not tools:
            tools = tuple(tool for tool in (self.shown().tool,) if tool)
        if tools == (_QUESTION,):
            return "question"
        return f"permission: {' or '.join(tools)}" if tools else "permission"

    def _told_otherwise(self) -> Iterator[Sign]:
        """Yield what hooks, transcript and screen say when there is no status file.

        Hooks and transcripts say nothing of some ends (Esc before an answer, a lost report), and a transcript
        nothing of a long answer: where the screen says otherwise, it is right.
        """
        shown = self.shown()
        seen: State | None = None
        if shown.menu:
            seen = State.WAITING
        elif shown.working:
            seen = State.WORKING
        elif shown.box:
            seen = State.IDLE
        for sign in (self._told_by_hooks(), self._told_by_transcript()):
            if sign is not None and (seen is None or sign.state is seen):
                yield sign
        if seen is not None:
            what = self._waits_for("") if seen is State.WAITING else ""
            yield Sign(Source.SCREEN, None, seen, what)

    def _told_by_transcript(self) -> Sign | None:
        if self.tail.state is None or self.tail.state_at is None:
            return None
        working = self.tail.state is State.WORKING
        what = f"tool: {' '.join(self.tail.tools)}" if working and self.tail.tools else ""
        return Sign(Source.TRANSCRIPT, self.tail.state_at, self.tail.state, what)

    def _told_by_hooks(self) -> Sign | None:
        found: list[Sign] = []
        for name in ("UserPromptSubmit", "Stop", "StopFailure", "Notification"):
            event = self._own_event(name)
            at = _at(event) if event is not None else None
            if event is None or at is None:
                continue
            state, what = _hooked(name, event)
            if state is not None:
                found.append(Sign(Source.HOOK, at, state, what))
        return max(found, key=lambda sign: sign.at or 0.0) if found else None

    def _own_event(self, name: str) -> Mapping[str, Any] | None:
        """Return a report of a hook, unless it is of another conversation than the one it is in."""
        event = reported(self.place, name)
        if event is None:
            return None
        session = session_of(event)
        return event if session is None or session == self.conversation else None

    # -- faults ----------------------------------------------------------------------------------------

    def _faults(self) -> Iterator[Sign]:
        tail = self.tail
        if tail.answered or tail.fault is not None:
            yield Sign(Source.TRANSCRIPT, tail.verdict_at, fault=tail.fault, answered=tail.answered)
        failed = self._own_event("StopFailure")
        at = _at(failed) if failed is not None else None
        if failed is not None and at is not None and not self._recorded(at):
            code, words = text(failed.get("error")), text(failed.get("last_assistant_message"))
            said = usage_limits.read(words, at) if words else None
            kind = claude_transcript.of_code(code)
            fault = said or Fault(kind or FaultKind.OTHER, code)
            yield Sign(Source.HOOK, at, fault=fault if kind is None else replace(fault, kind=kind))
        working = self.status is not None and STATES.get(self.status.word) is State.WORKING
        if self.path is None and not working:
            # Nothing is saved of it, so nothing was resumed: what its screen says, it has just said.
            said = self._said_on_screen()
            if said is not None:
                yield Sign(Source.SCREEN, None, fault=said)

    def _recorded(self, at: float) -> bool:
        """Say whether the transcript says by itself how the turn ended that a hook has reported."""
        return self.tail.verdict_at is not None and self.tail.verdict_at >= at - QUIET_SECS

    def _why_so_long(self, told: Sign) -> Iterator[Sign]:
        """Yield what the client is trying again, when a turn has shown nothing for some seconds."""
        # Not its newest record: each further try leaves one (`api-request`, 2.1.329), and shows nothing.
        since = max(told.at or 0.0, self.tail.state_at or 0.0)
        if told.state is not State.WORKING or self.now - since <= QUIET_SECS:
            return
        said = self._said_on_screen()
        if said is not None and said.retrying:
            yield Sign(Source.SCREEN, None, fault=said)

    def _said_on_screen(self) -> Fault | None:
        screen = self.screen()
        return usage_limits.read("\n".join(screen.rows), self.now) if screen is not None else None

    # -- activity --------------------------------------------------------------------------------------

    def _activity(self, signs: Sequence[Sign]) -> float | None:
        """Return when something last went on: now, while a turn or a tool is on."""
        word = self.status.word if self.status is not None else ""
        if word in ("busy", "shell") or any(
            sign.state is State.WORKING and sign.source is Source.SCREEN for sign in signs
        ):
            return self.now
        times = [self.tail.newest, self.status.at if self.status is not None else None]
        newest = max((at for at in times if at is not None), default=None)
        if self.path is not None:
            inner = claude_files.sub_agents_time(self.path, newest or 0.0)
            newest = max(newest or 0.0, inner) if inner is not None else newest
        return newest


def _hooked(name: str, event: Mapping[str, Any]) -> tuple[State | None, str]:
    """Return what a report of a hook says about the state from then on."""
    if name == "UserPromptSubmit":
        return State.WORKING, ""
    if name == "StopFailure":
        return State.IDLE, ""
    if name == "Stop":
        # It is reported also while sub-agents go on, after which there is another turn.
        tasks = event.get("background_tasks")
        count = len(tasks) if isinstance(tasks, list) else tasks
        return (State.IDLE, "") if count in (0, None) else (None, "")
    kind = text(event.get("notification_type"))
    if kind == "permission_prompt":
        return State.WAITING, "permission"
    return (State.IDLE, "") if kind == "idle_prompt" else (None, "")


def reported(place: Place, name: str) -> Mapping[str, Any] | None:
    """Return the newest report of a hook, if it is of this launch."""
    event = place.events.get(name)
    if not isinstance(event, Mapping):
        return None
    at = _at(event)
    return event if at is not None and at >= place.launched_at else None


def _at(event: Mapping[str, Any]) -> float | None:
    return past(seconds(event.get("at")))


def session_of(event: Mapping[str, Any]) -> str | None:
    """Return the conversation that a report of a hook is about; None: it does not say."""
    session = text(event.get("session_id"))
    return session if UUID.fullmatch(session) else None
