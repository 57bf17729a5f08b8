"""What the clients of agents report by their hooks: taken in from the spool as evidence, and nothing more.

A report counts only for the recorded launch that it names, and only from that launch's own client. It ends,
starts and types nothing, so a lost, late or forged one does no harm; it is dropped without a word. Of what it
says only a few short words are kept, never what was asked or answered. Of each hook the newest one is kept,
so taking a report in twice, or late, changes nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import process_table
from circus_failover.agent import Agent
from circus_failover.agents import claude_usage
from circus_failover.problems import describe
from circus_failover.process_table import ProcessId
from circus_failover.records import AgentRow
from circus_failover.store import StoreError

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

LONGEST_WORD = 200
LEFT_SECS = 60.0
"""A file that a reporter has not finished for so long will never be: its client has killed it."""
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNFINISHED = re.compile(r"\.[0-9-]+\.client-event\..*\.tmp")


def _word(value: object) -> str | None:
    """Return a short text on one line."""
    if not isinstance(value, str):
        return None
    return "".join(char if char.isprintable() else " " for char in value[:LONGEST_WORD])


def _count(value: object) -> int | None:
    return len(value) if isinstance(value, list) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


Kept = Mapping[str, Callable[[object], object]]
FIELDS: Mapping[str, Kept] = {
    "SessionStart": {"source": _word},
    "UserPromptSubmit": {},
    "Stop": {"background_tasks": _count, "stop_hook_active": _flag},
    "StopFailure": {"error": _word},
    "Notification": {"notification_type": _word, "message": _word},
    "Interrupt": {},
    "SessionEnd": {"reason": _word},
    claude_usage.EVENT: {"rate_limits": claude_usage.kept},
}
"""What is kept of each hook beside `at`, `client` and `session_id`; of a list, how long it is."""


class ClientEvents:
    """Takes in what the clients of one supervisor's agents report."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def taken_in(self, agent: Agent | None, name: str, report: Mapping[str, Any]) -> None:
        """Keep one report as the newest of its hook, unless it is not this launch's, or an older one.

        Args:
            agent: whom it names; None: nobody of this fleet.
            name: its file in the spool, whose time is when it was written.
            report: what the file says.
        """
        why_not = "no section names it"
        if agent is not None:
            pushed, why_not = merged(agent.row, report, self._written(name))
            if pushed is not None:
                self._keep(agent, pushed)
                return
        logger.debug("circus-failover: hook of %s dropped: %s", describe(report.get("identity")), why_not)

    def sweep(self) -> None:
        """Remove what reporters left unfinished."""
        state = self._supervisor.state
        if state is None:
            return
        for name in os.listdir(state.spool):
            if _UNFINISHED.fullmatch(name):
                path = state.spool / name
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > LEFT_SECS:
                        path.unlink()

    def _written(self, name: str) -> float:
        """Return when a report was written: the reporter's own `date` may know whole seconds only."""
        state, now = self._supervisor.state, time.time()
        try:
            return now if state is None else min(now, (state.spool / name).stat().st_mtime)
        except OSError:
            return now

    def _keep(self, agent: Agent, pushed: str) -> None:
        agent.row = replace(agent.row, pushed=pushed)
        store = self._supervisor.store
        try:
            if store is not None:
                with store.decision(durable=False):
                    store.put_agent(agent.row)
        except StoreError as error:
            # It is known here, and stored with what comes next: nothing waits for it.
            self._supervisor.store_trouble = str(error)
            self._supervisor.changed_rows.add(agent.identity)
        self._supervisor.publish(agent)


def known(row: AgentRow) -> dict[str, dict[str, Any]]:
    """Return what is kept of an agent's hooks, by the hook's name; nothing when that cannot be read."""
    try:
        found = json.loads(row.pushed or "{}")
        events = {hook: dict(found[hook]) for hook in FIELDS if hook in found}
        return {hook: {**event, "at": float(event["at"])} for hook, event in events.items()}
    except (ValueError, LookupError, TypeError):
        return {}


def merged(row: AgentRow, report: Mapping[str, Any], at: float) -> tuple[str | None, str]:
    """Return what is kept of an agent's hooks once a report is, or None and why it is not.

    Args:
        row: what is recorded of the agent.
        report: what the spool's file says.
        at: when it was written, in epoch seconds.
    """
    hook, client = report.get("hook"), report.get("client")
    if (report.get("generation"), report.get("launch")) != (row.generation, row.launch) or row.launch is None:
        return None, "not of the recorded launch"
    if not isinstance(hook, str) or hook not in FIELDS:
        return None, "no hook that is known"
    kept = known(row)
    if not _own(row, client, kept):
        return None, f"process {client} is not the client of this launch"
    before = kept.get(hook)
    if before is not None and at <= before["at"]:
        return None, f"there is a newer {hook}"
    event: dict[str, object] = {"at": at, "client": _identified(client)}
    payload = _payload(report.get("payload"))
    # What was cut off, or names another hook, says when it happened and nothing else.
    if payload.get("hook_event_name") == hook:
        session = payload.get("session_id")
        if isinstance(session, str) and _SESSION.fullmatch(session):
            event["session_id"] = session
        for field, short in FIELDS[hook].items():
            if (value := short(payload.get(field))) is not None:
                event[field] = value
    return json.dumps({**kept, hook: event}, separators=(",", ":")), ""


def _own(row: AgentRow, client: object, kept: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether a report is of the launch's own client: an agent may run others of the same account.

    Where that is not the agent's own process (a script may stand between), it is the one that reported last,
    while it lives: who reports first is taken for it.
    """
    if not _pid(client) or client == row.pid:
        return True
    newest = max(kept.values(), key=lambda event: float(event["at"]), default={})
    last = newest.get("client")
    if not isinstance(last, list) or len(last) != 2 or last[0] == client:
        return True
    return not process_table.may_run(ProcessId(int(last[0]), int(last[1])))


def _identified(client: object) -> list[int] | None:
    """Return who reported, so that it is known again; None when it is gone already."""
    try:
        found = process_table.identify(int(str(client))) if _pid(client) else None
    except process_table.ProbeFailed:
        return None
    return None if found is None else [found.pid, found.start]


def _pid(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _payload(encoded: object) -> Mapping[str, Any]:
    """Return what the client said; nothing when that cannot be read."""
    try:
        found = json.loads(base64.b64decode(str(encoded or ""), validate=True))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
