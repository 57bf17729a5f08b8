"""The verb `tasks`, and what a task is on a command line and on a screen."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover import task_text
from circus_failover.problems import describe, printable
from circus_failover.store import StoreError
from circus_failover.verbs.selection import agents_named, names_given, one_agent, supervisor_of, who
from circus_failover.words import TaskKind

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor


CANCEL = re.compile(r"all|[0-9]{1,15}")


class Tasks(Command):  # type: ignore[misc]
    """\
    List the tasks that wait for agents, or cancel some
    ===================================================

    A task leaves the queue when its agent was seen to have taken it. One that is being typed right now
    cannot be cancelled.

    Command line
    ------------

    ::

        $ failoverctl tasks [NAME...]
        $ failoverctl tasks NAME --cancel ID
        $ failoverctl tasks NAME --cancel all

    Options
    +++++++

    - <NAME>: only these agents
    - <cancel>: the number of one task of this agent, or `all`
    """

    name = "tasks"
    options = [("", "cancel", "", "the number of one task, or all")]

    def message(self, *args: str, **opts: Any) -> Any:
        cancel = str(opts.get("cancel") or "")
        if cancel and not CANCEL.fullmatch(cancel):
            raise ArgumentError(f"--cancel {printable(cancel)}: the number of a task, or all")
        if cancel and len(args) != 1:
            raise ArgumentError("--cancel takes the name of the one agent whose task it is")
        message = self.make_message(names=list(args)) if args else self.make_message()
        if cancel:
            message["properties"]["cancel"] = cancel
        return message

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        names, cancel = names_given(props), props.get("cancel")
        if cancel is not None:
            if not isinstance(cancel, str) or not CANCEL.fullmatch(cancel):
                raise MessageError(f"cancel: found {describe(cancel)}, expected the number of a task, or all")
            if len(names) != 1:
                raise MessageError("cancel: expected the name of the one agent whose task it is")
            return self._cancel(held, one_agent(arbiter, names[0]), cancel, props)
        agents = agents_named(arbiter, props) if names else held.roster.agents.values()
        try:
            held.known()
        except StoreError as error:
            raise MessageError(f"it is not known what waits: {error}") from error
        return {"tasks": [shown_task(task) for agent in agents for task in held.deliveries.waiting(agent)]}

    def _cancel(self, held: Supervisor, agent: Agent, wanted: str, props: dict[str, Any]) -> dict[str, Any]:
        tasks = held.deliveries.waiting(agent)
        chosen = tasks if wanted == "all" else [task for task in tasks if task.id == int(wanted)]
        if not chosen and wanted != "all":
            raise MessageError(f"{agent.identity} has no task {wanted}; `tasks {agent.identity}` lists them")
        theirs = [task for task in chosen if task.kind == str(TaskKind.ASSIGNMENT)]
        chosen = [task for task in chosen if task not in theirs]
        try:
            cancelled = held.deliveries.cancel(agent, chosen, f"cancelled by {who(props)}", who(props))
        except StoreError as error:
            raise MessageError(f"nothing was cancelled: {error}") from error
        if theirs:
            also = ", and the others were cancelled" if cancelled else ""
            numbers = ", ".join(str(task.id) for task in theirs)
            ids = " ".join(str(task.assignment) for task in theirs)
            raise MessageError(
                f"not cancelled: {numbers} tells {agent.identity} its assignment, of which nobody would be "
                f"told then; `failoverctl cancel {ids}` cancels that{also}"
            )
        left = [task for task in chosen if task.id not in {one.id for one in cancelled}]
        if left:
            numbers = ", ".join(str(task.id) for task in left)
            raise MessageError(f"being typed right now, and not cancelled: {numbers}")
        return {"cancelled": [shown_task(task) for task in cancelled]}

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") != "ok":
            return str(self.console_error(msg))
        from circus_failover import screen

        tasks = msg.get("cancelled", msg.get("tasks", []))
        if not tasks:
            return "no task was cancelled" if "cancelled" in msg else "no task waits"
        rows = [
            (
                *(task["id"], task["agent"], task["kind"], task["state"], screen.ago(task["queued_at"])),
                *(task["attempts"], task["topic"] or "-", task["who"], task["note"] or "", task["begins"]),
            )
            for task in tasks
        ]
        columns = ("TASK", "AGENT", "KIND", "STATE", "WAITS", "TRIES", "TOPIC", "BY", "NOTE", "BEGINS")
        text = screen.table(columns, rows)
        return f"cancelled:\n{text}" if "cancelled" in msg else str(text)


def shown_task(task: Any) -> dict[str, Any]:
    """Return what front ends show of a task: not the text, which may be large, but its beginning."""
    return {
        "id": task.id,
        "agent": task.identity,
        "state": task.state,
        "kind": task.kind,
        "assignment": task.assignment,
        "queued_at": task.queued_at,
        "attempts": task.attempts,
        "topic": task.topic,
        "who": task.who,
        "note": task.note,
        "characters": len(task.text),
        "begins": task.text[:60].replace("\n", " "),
    }


def task_given(text: str | None, file: str | None) -> str | None:
    """Return the text of --task or --task-file, checked; None when neither is given.

    Raises:
        ArgumentError: both are given, the file cannot be read, or the text is none that can be typed.
    """
    if text is not None and file is not None:
        raise ArgumentError("--task and --task-file exclude each other")
    if text is None and file is None:
        return None
    return text_to_type(text, file, "--task", "--task-file")


def text_to_type(text: str | None, file: str | None, given: str, by_file: str) -> str:
    """Return a text that came on a command line or in a file, checked.

    Args:
        text: the text itself, where `file` is None.
        file: the path of a file that holds it; `-` is standard input.
        given: what the first is called on the command line.
        by_file: what the second is called there.

    Raises:
        ArgumentError: the file cannot be read, or the text is none that can be typed.
    """
    try:
        if file is None:
            return task_text.check(str(text))
        limit = task_text.MAX_BYTES + 1
        if file == "-":
            return task_text.check(sys.stdin.buffer.read(limit))
        with Path(file).open("rb") as opened:
            return task_text.check(opened.read(limit))
    except OSError as error:
        raise ArgumentError(f"{by_file} {printable(str(file))}: {error.strerror}") from error
    except ValueError as error:
        raise ArgumentError(f"{given if file is None else by_file}: {error}") from error
