"""The verb `tell`: somebody's word to the launch that runs now, which arrives soon or not at all.

It goes through the agent's one queue (`deliveries`), in its turn, and is typed as a task is. What was not
seen to have arrived in time is cancelled, and the answer says why: nobody finds it in a later launch.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover import task_text
from circus_failover.problems import describe
from circus_failover.store import StoreError
from circus_failover.verbs.answers import PLAIN_WAIT_SECS, answer, begin, refused
from circus_failover.verbs.lifecycle import Verdicts
from circus_failover.verbs.selection import one_agent, supervisor_of, who
from circus_failover.verbs.tasks import text_to_type
from circus_failover.words import Phase, State, TaskKind, TaskState

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.records import TaskRow
    from circus_failover.supervisor import Supervisor

LONGEST_SECS = 86400.0
SHORTEST_SECS = 1.0
AHEAD_SECS = 4.0
"""How long before the client gives up nothing is typed any more, so that the client learns what became of it:
a typist that is at it when its time is over needs up to a few tmux calls of 2 s to say so."""


class Tell(Verdicts, Command):  # type: ignore[misc]
    """\
    Say something to an agent that is up, and see that it arrives
    =============================================================

    The text is typed into the agent's terminal as a task is: in its turn, when the agent takes input, and
    only into the launch that runs now. What was not seen to have arrived in time is cancelled and never
    typed; the answer says why. A task that may wait, also for the agent's next launch, is `wake --task`.

    Command line
    ------------

    ::

        $ failoverctl tell NAME TEXT [--timeout SECS]
        $ failoverctl tell NAME --file F [--timeout SECS]

    Options
    +++++++

    - <NAME>: the identity of one agent
    - <TEXT>: what it is told, as one argument: put quotes around it
    - <file>: a file with the text; `-` for standard input
    - <timeout>: seconds in which it has to arrive (60)

    Exit status: 0 it arrived, 2 usage, 3 it did not and never will, with the reason.
    """

    name = "tell"
    options = [("", "file", None, "a file with the text; - for standard input")]

    def message(self, *args: str, **opts: Any) -> Any:
        file = opts.get("file")
        if not args or len(args) > 2 or (file is None) != (len(args) == 2):
            raise ArgumentError("tell takes the name of one agent, and one text (in quotes) or --file F")
        return self.make_message(
            name=args[0], text=text_to_type(args[1] if file is None else None, file, "TEXT", "--file")
        )

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held, name = supervisor_of(arbiter), props.get("name")
        if not isinstance(name, str):
            raise MessageError(f"name: found {describe(name)}, expected the name of one agent")
        agent, text = one_agent(arbiter, name), props.get("text")
        if not isinstance(text, str):
            raise MessageError(f"text: found {describe(text)}, expected a text")
        try:
            text = task_text.check(text)
        except ValueError as error:
            raise MessageError(f"{error}; nothing was typed") from error
        secs: Any = props.get("secs", PLAIN_WAIT_SECS)
        if type(secs) not in (int, float) or not 0 < secs <= LONGEST_SECS:
            raise MessageError(f"--timeout: found {describe(secs)}, expected seconds up to {LONGEST_SECS:g}")
        if "secs" in props and secs <= AHEAD_SECS:
            raise MessageError(f"--timeout {secs:g}: expected more than {AHEAD_SECS:g} seconds")
        by = who(props)
        props["waiting"] = True

        async def tell() -> dict[str, Any]:
            return answer([await told(held, agent, text, by, float(secs))])

        return begin(held, tell())


async def told(held: Supervisor, agent: Agent, text: str, by: str, secs: float) -> dict[str, Any]:
    """Have a text typed into the launch that runs now, and return the verdict.

    Args:
        held: the supervisor.
        agent: whom it is for.
        text: what it is told, checked.
        by: who tells it.
        secs: seconds after which whoever asked does not listen any more.

    Raises:
        StoreError: it could not be stored, so it is not typed.
    """
    before = impossible(agent, agent.row.generation)
    if before is not None:
        return refused(agent, f"not told: {before}")
    until = time.monotonic() + max(SHORTEST_SECS, secs - AHEAD_SECS)
    generation = agent.row.generation
    task = held.deliveries.queue(
        agent,
        text,
        None,
        by,
        kind=TaskKind.TELL,
        generation=generation,
        expires_at=time.time() + until - time.monotonic(),
    )
    last = time.monotonic() + max(SHORTEST_SECS, secs - 1)
    why = ""
    while True:
        found = held.store.task(task.id) if held.store is not None else None
        if found is None:
            raise StoreError("the store was closed: whether it arrived is not known")
        if found.state == str(TaskState.DELIVERED):
            return {**refused(agent, ""), "ok": True, "reason": None, "task": task.id, "tasks_note": "told"}
        now, typing = time.monotonic(), found.state == str(TaskState.TYPING)
        over = impossible(agent, generation)
        why = over or hindrance(agent, found, held.deliveries.waiting(agent)) or why
        if found.state == str(TaskState.CANCELLED):
            return _not_told(agent, task, why or found.note or "it was cancelled")
        if typing and now >= last:
            # What may have been entered already cannot be taken back.
            return _not_told(agent, task, "it is being typed right now: its screen shows whether it arrives")
        if not typing and (over is not None or now >= until):
            held.deliveries.cancel(agent, [found], f"not told: {why or 'no time left'}", by)
            return _not_told(agent, task, why or "no time left")
        await agent.next_change(0.2 if typing else max(0.05, min(until - now, 0.5)))


def impossible(agent: Agent, generation: int) -> str | None:
    """Return why this launch cannot be told anything any more, however long one waits, or None."""
    if agent.row.generation != generation:
        return "its launch has ended, and another one has begun"
    if agent.observed:
        return "it is observed: watched and shown, never typed into"
    if agent.action is not None:
        return f"it is being ended ({agent.action.intent}, by {agent.action.who})"
    if agent.phase is not Phase.UP:
        about = f": {agent.reason}" if agent.reason else ""
        return f"it is not up but {agent.phase}{about}"
    health = agent.health()
    if health.state is State.LIMITED:
        return f"it is limited{_about(health.what)}"
    return None


def hindrance(agent: Agent, task: TaskRow, queue: list[TaskRow]) -> str | None:
    """Return what keeps a text from being typed now, or kept it the last time; None: nothing does."""
    health = agent.health()
    if agent.wedged:
        return "its tmux server does not answer"
    if health.state is State.WAITING:
        return f"it is waiting{_about(health.what)}"
    if queue and queue[0].id != task.id:
        return f"task {queue[0].id} is ahead of it" + (f" ({queue[0].note})" if queue[0].note else "")
    return task.note


def _about(what: str) -> str:
    return f": {what}" if what else ""


def _not_told(agent: Agent, task: TaskRow, why: str) -> dict[str, Any]:
    return {**refused(agent, f"not told: {why}"), "task": task.id}
