"""The verbs that give and list assignments: `assign`, `work`.

They check what comes in and say what became of it. Who gets an assignment is decided by `assignments`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from circus.commands.base import Command
from circus.exc import ArgumentError, CallError, MessageError

from circus_failover import task_text
from circus_failover.assignment_text import ID, ID_EXPECTED
from circus_failover.failure import UNREACHABLE, Failed
from circus_failover.problems import describe, nearest
from circus_failover.store import StoreError
from circus_failover.verbs.selection import one_agent, supervisor_of, who
from circus_failover.verbs.tasks import task_given
from circus_failover.verbs.work_messages import (
    checked_ids,
    ids_given,
    known_pool,
    line,
    shown,
    text_given,
    unknown,
    whom,
    whom_given,
    whose,
)
from circus_failover.words import AssignmentState

ASK_AGAIN_SECS = 0.5
OVER_SHOWN_SECS = 30 * 86400.0
"""`work --all` shows what was over since then."""
NOTE_WIDTH = 40
LIMIT, LIMIT_MAX = 1000, 100000
"""circusd does nothing else while it puts an answer together, so that it is not as long as the queue."""
STATES = [str(state) for state in AssignmentState]
OVER = frozenset(str(state) for state in AssignmentState if state.over)
SETTLED = OVER | {str(AssignmentState.ORPHANED)}
"""In these nothing happens by itself any more."""


class Assign(Command):  # type: ignore[misc]
    """\
    Give work to an agent, or to whoever of a pool is free
    ======================================================

    The assignment is stored before the answer comes, and has one owner at a time. For a pool a free agent
    gets it, else one is started, else it waits for its turn. The same ID with the same text again is not a
    second assignment: the answer says what became of the first; with another text it is refused.

    Command line
    ------------

    ::

        $ failoverctl assign NAME [--id ID] (--task TEXT | --task-file F) [--topic T] [--wait]
        $ failoverctl assign --pool P [--id ID] (--task TEXT | --task-file F) [--topic T] [--wait]

    Options
    +++++++

    - <NAME>: the agent it is for
    - <pool>: the pool it is for
    - <id>: its id: 1 to 100 letters, digits, `.`, `_`, `:` or `-`; else one is made
    - <task>: what the agent is told
    - <task-file>: the same from a file; `-` for standard input
    - <topic>: what the work is about
    - <wait>: also wait until it is over, also while circusd is down; --timeout bounds that

    Exit status: 0 it is stored (with --wait: done), 1 not reachable, or not over within --timeout, 2 usage,
    3 refused (with --wait: failed, orphaned or cancelled, with its note).
    """

    name = "assign"
    options = [
        ("", "pool", None, "the pool it is for"),
        ("", "id", None, "its id"),
        ("", "task", None, "what the agent is told"),
        ("", "task-file", None, "a file with that text; - for standard input"),
        ("", "topic", "", "what the work is about"),
        ("", "wait", False, "also wait until it is over"),
    ]

    def message(self, *args: str, **opts: Any) -> Any:
        given: dict[str, Any] = whom_given("assign", args, opts.get("pool"))
        try:
            topic = task_text.topic_of(opts.get("topic"))
        except ValueError as error:
            raise ArgumentError(f"--topic: {error}") from error
        name = opts.get("id")
        if name is not None:
            checked_ids([name])
        task = task_given(opts.get("task"), opts.get("task-file"))
        if task is None:
            raise ArgumentError("assign takes what the agent is told: --task or --task-file")
        given.update(task=task, id=name, topic=topic, wait=bool(opts.get("wait")) or None)
        return self.make_message(**{key: value for key, value in given.items() if value is not None})

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        name, task, topic = (text_given(props, key) for key in ("id", "task", "topic"))
        if task is None:
            raise MessageError("task: expected what the agent is told, found nothing")
        if name is not None and not ID.fullmatch(name):
            raise MessageError(f"id: found {describe(name)}, expected {ID_EXPECTED}")
        try:
            task, topic = task_text.check(task), task_text.topic_of(topic)
        except ValueError as error:
            raise MessageError(f"{error}; nothing was assigned") from error
        agent, pool = whom(arbiter, props)
        from circus_failover.assignments import NotPossible

        try:
            row, already = held.assignments.assign(
                agent=agent, pool=pool, text=task, name=name, topic=topic, who=who(props)
            )
        except NotPossible as error:
            raise MessageError(str(error)) from error
        except StoreError as error:
            raise MessageError(f"nothing was assigned, since it could not be stored: {error}") from error
        return {"assignment": shown(held, [row])[0], "already": already}

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") != "ok":
            return str(self.console_error(msg))
        return line(msg["assignment"], already=bool(msg.get("already")))

    def settled(self, answer: dict[str, Any]) -> bool:
        """Say whether what was assigned is over, or waits for a person."""
        return answer["assignment"]["state"] in SETTLED

    def verdict(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the answer for who has waited: an error, unless it is done."""
        item = answer["assignment"]
        if item["state"] == str(AssignmentState.DONE):
            return answer
        return {**answer, "status": "error", "reason": line(item)}

    def follow(
        self,
        ask: Callable[[dict[str, Any]], dict[str, Any]],
        answer: dict[str, Any],
        seconds: float | None,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> dict[str, Any]:
        """Wait until what was assigned is settled, and return the last answer.

        Args:
            ask: sends a message to circusd and returns its answer.
            answer: circusd's, to this verb.
            seconds: how long to wait at most; None: for as long as it takes.
            say: shows what is being waited for.
            warn: says a line.
            pause: waits for so many seconds.

        Raises:
            Failed: it was not over in that time, or there is no such assignment any more.
        """
        from circus_failover.verb_progress import assignment_progress

        item, begun, lost = answer["assignment"], time.monotonic(), False
        while not self.settled({"assignment": item}):
            waited = time.monotonic() - begun
            if seconds is not None and waited >= seconds:
                raise Failed(f"not over within {seconds:g} s (--timeout): {line(item)}", UNREACHABLE)
            say(assignment_progress(item, waited, lost=lost))
            pause(ASK_AGAIN_SECS)
            try:
                found = ask({"command": "work", "properties": {"ids": [item["id"]]}})
                trouble = "" if found.get("status") == "ok" else str(found.get("reason"))
            except CallError as error:
                found, trouble = {}, str(error)
            if item["id"] in found.get("unknown", ()):
                raise Failed(f"{item['id']}: circusd does not know it any more")
            if bool(trouble) != lost:
                lost = bool(trouble)
                gone = f"is stored, but circusd does not answer ({trouble}): it is asked again"
                warn(f"{item['id']} {gone if lost else 'is waited for: circusd answers again'}")
            if not lost:
                item = found["assignments"][0]
        return {**answer, "assignment": item}


class Work(Command):  # type: ignore[misc]
    """\
    List assignments, in the order of their turn
    ============================================

    Each with its state, whom it is for, who has it, how long ago it was given, how many launches have died
    with it, who gave it, what was last said of it or why nobody has it, and how it begins. The last line
    counts them.

    Command line
    ------------

    ::

        $ failoverctl work [ID...] [--pool P] [--agent NAME] [--state S] [--all] [--limit N]
        $ failoverctl --json work

    Options
    +++++++

    - <ID>: only these, also when they are over
    - <pool>: only those for this pool
    - <agent>: only those that this agent has, or that are for it
    - <state>: only those in this state
    - <all>: also those that were over in the last 30 days
    - <limit>: show at most so many (1000); all are counted
    """

    name = "work"
    options = [
        ("", "pool", None, "only those for this pool"),
        ("", "agent", None, "only those that this agent has, or that are for it"),
        ("", "state", None, "only those in this state"),
        ("", "all", False, "also those that were over in the last 30 days"),
        ("", "limit", str(LIMIT), "show at most so many"),
    ]

    def message(self, *args: str, **opts: Any) -> Any:
        checked_ids(args)
        state = opts.get("state")
        if state is not None and state not in STATES:
            raise ArgumentError(
                f"--state {describe(state)}: expected one of {', '.join(STATES)}{nearest(state, STATES)}"
            )
        limit = str(opts.get("limit", LIMIT))
        if not limit.isdecimal() or not 0 < int(limit[:9]) <= LIMIT_MAX:
            raise ArgumentError(f"--limit {describe(limit)}: a number from 1 to {LIMIT_MAX}")
        given: dict[str, Any] = {"ids": list(args) or None, "state": state, "limit": int(limit)}
        given["all"] = bool(opts.get("all")) or None
        given.update(pool=opts.get("pool"), agent=opts.get("agent"))
        return self.make_message(**{key: value for key, value in given.items() if value is not None})

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        pool, agent, state = (text_given(props, key) for key in ("pool", "agent", "state"))
        if state is not None and state not in STATES:
            raise MessageError(f"state: found {describe(state)}, expected one of {', '.join(STATES)}")
        limit = props.get("limit", LIMIT)
        if type(limit) is not int or not 0 < limit <= LIMIT_MAX:
            raise MessageError(f"limit: found {describe(limit)}, expected a number from 1 to {LIMIT_MAX}")
        try:
            if "ids" in props:
                found = [(name, held.assignments.get(name)) for name in ids_given(props)]
                missing = [name for name, row in found if row is None]
                if missing:
                    reason = "; ".join(unknown(held, name) for name in missing)
                    return {"status": "error", "reason": reason, "errno": 5, "unknown": missing}
                rows = [row for _, row in found if row is not None]
            else:
                finished = bool(props.get("all")) or state in OVER
                rows = held.assignments.all(time.time() - OVER_SHOWN_SECS if finished else None)
        except StoreError as error:
            raise MessageError(f"the assignments cannot be read: {error}") from error
        if pool is not None:
            rows = [row for row in rows if row.pool == pool]
            if not rows:
                known_pool(arbiter, pool)
        if agent is not None:
            rows = [row for row in rows if agent in (row.owner, row.wanted)]
            if not rows:
                one_agent(arbiter, agent)
        rows = [row for row in rows if state in (None, row.state)]
        states = [row.state for row in rows]
        return {
            "assignments": shown(held, rows[:limit]),
            "counts": {word: states.count(word) for word in STATES if word in states},
            "more": len(rows[limit:]),
        }

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") != "ok":
            return str(self.console_error(msg))
        from circus_failover import screen

        if not msg["assignments"]:
            return "no assignment"
        rows = [
            (
                item["id"],
                screen.assignment_state(item["state"]),
                whose(item),
                item["owner"] or "-",
                screen.ago(item["queued_at"]),
                item["retries"],
                item["who"],
                screen.shortened(item["note"] or item.get("waits_for") or "", NOTE_WIDTH),
                item["begins"],
            )
            for item in msg["assignments"]
        ]
        columns = ("ID", "STATE", "FOR", "OWNER", "AGE", "RETRIES", "BY", "NOTE", "BEGINS")
        counts = ", ".join(f"{word} {number}" for word, number in msg["counts"].items())
        counts += f" ({msg['more']} more are not shown: --limit)" if msg.get("more") else ""
        return f"{screen.table(columns, rows)}\n\n{counts}"
