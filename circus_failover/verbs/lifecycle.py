"""The verbs of an agent's lifecycle: `wake`, `park`, `fresh`, `reset`, `purge`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover import task_text
from circus_failover.problems import describe
from circus_failover.store import StoreError
from circus_failover.verbs.answers import (
    PLAIN_WAIT_SECS,
    WAIT_SECS,
    answer,
    begin,
    end_all,
    refused,
    state_now,
    verdict_lines,
)
from circus_failover.verbs.selection import UnknownAgents, agents_named, supervisor_of, who
from circus_failover.verbs.tasks import task_given
from circus_failover.words import IntentAction, ParkedBy, Phase, State, WakeAsked, Word

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor

W = TypeVar("W", bound=Word)


class Verdicts:
    """How a verb prints the verdicts of its agents; mixed into commands."""

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") == "ok" and "agents" in msg:
            return verdict_lines(msg["agents"])
        return str(super().console_msg(msg))  # type: ignore[misc]


class Wake(Verdicts, Command):  # type: ignore[misc]
    """\
    Bring agents up that are down, by resume or fresh
    =================================================

    How each one's last launch ended decides whether its conversation goes on: a parked or stopped agent
    is resumed, one that ended by itself begins fresh. The cause is stored and logged before the launch,
    and the answer is the verdict: up, or refused and why. An agent that was stopped is refused: `start` it.

    A task is put into the agent's durable queue first, and typed into its terminal when it is ready. When
    the wake is refused later than that, the task stays queued.

    Command line
    ------------

    ::

        $ failoverctl wake NAME... [--fresh | --resume] [--topic T] [--task TEXT | --task-file F] [--waiting]

    Options
    +++++++

    - <NAME>: names or globs of agents
    - <fresh>: begin a new conversation, whatever it was
    - <resume>: continue the last conversation, or fail
    - <topic>: what the work is about: a topic that the conversation has not had yet begins a new one
    - <task>: a text that the agent is given when it is ready
    - <task-file>: the same from a file; `-` for standard input
    - <waiting>: also wait until the task was taken

    Exit status: 0 up (and, with --waiting, the task was taken), 3 refused or failed, with the reason.
    """

    name = "wake"
    options = [
        ("", "fresh", False, "begin a new conversation"),
        ("", "resume", False, "continue the last conversation, or fail"),
        ("", "topic", "", "what the work is about"),
        ("", "task", None, "a text that the agent is given when it is ready"),
        ("", "task-file", None, "a file with that text; - for standard input"),
        ("", "waiting", False, "also wait until the task was taken"),
    ]

    def message(self, *args: str, **opts: Any) -> Any:
        if not args:
            raise ArgumentError("wake takes the names of agents")
        fresh, resume = bool(opts.get("fresh")), bool(opts.get("resume"))
        if fresh and resume:
            raise ArgumentError("--fresh and --resume exclude each other")
        message = self.make_message(names=list(args))
        properties = message["properties"]
        properties["mode"] = str(
            WakeAsked.FRESH if fresh else WakeAsked.RESUME if resume else WakeAsked.NOTHING
        )
        try:
            topic = task_text.topic_of(opts.get("topic"))
        except ValueError as error:
            raise ArgumentError(f"--topic: {error}") from error
        if topic is not None:
            properties["topic"] = topic
        task = task_given(opts.get("task"), opts.get("task-file"))
        if task is not None:
            properties["task"] = task
        properties["delivered"] = bool(opts.get("waiting"))
        return message

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        try:
            agents = agents_named(arbiter, props)
        except UnknownAgents as error:
            for name, reason in error.reasons.items():
                held.waking.unknown(name, reason)
            note = "; the task was not queued" if props.get("task") is not None else ""
            raise MessageError(f"{error}{note}") from error
        asked = _word(props, "mode", WakeAsked, WakeAsked.NOTHING)
        topic, task = _text(props, "topic"), _text(props, "task")
        try:
            topic = task_text.topic_of(topic)
            task = task_text.check(task) if task is not None else None
        except ValueError as error:
            raise MessageError(f"{error}; nothing was queued") from error
        delivered = bool(props.get("delivered"))
        timeout = WAIT_SECS if props.get("waiting") or delivered else PLAIN_WAIT_SECS
        props["waiting"] = True
        by = who(props)

        async def wake() -> dict[str, Any]:
            verdicts = await asyncio.gather(
                *(held.waking.wake(agent, by, asked, topic, task, timeout, delivered) for agent in agents)
            )
            return answer(list(verdicts))

        return begin(held, wake())


class Park(Verdicts, Command):  # type: ignore[misc]
    """\
    End agents cleanly, so that their next wake is a resume
    =======================================================

    Each has `failover.stop_secs` to end, then SIGKILL. No restart policy brings a parked agent back; `wake`
    and `start` do. One that does not run stays down: nothing is there to resume.

    Command line
    ------------

    ::

        $ failoverctl park NAME... [--waiting]

    Options
    +++++++

    - <NAME>: names or globs of agents
    - <waiting>: answer when they have ended
    """

    name = "park"
    options = [("", "waiting", False, "answer when they have ended")]

    def message(self, *args: str, **opts: Any) -> Any:
        if not args:
            raise ArgumentError("park takes the names of agents")
        return self.make_message(names=list(args), waiting=bool(opts.get("waiting")))

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        agents = agents_named(arbiter, props)
        by = _word(props, "parked_by", ParkedBy, ParkedBy.PARK)
        since = props.get("idle_since", 0.0)
        if isinstance(since, bool) or not isinstance(since, (int, float)):
            raise MessageError(f"idle_since: found {describe(since)}, expected epoch seconds")
        verdicts = []
        if by is ParkedBy.IDLE_REAPER:
            generation = props.get("generation")
            changed = {
                agent.identity: _no_longer_idle(held, agent, generation, float(since)) for agent in agents
            }
            verdicts = [refused(agent, why) for agent in agents if (why := changed[agent.identity])]
            agents = [agent for agent in agents if not changed[agent.identity]]
        why = str(props.get("evidence") or "park")
        ending, others = end_all(held, agents, IntentAction.PARK, who(props), why, by)
        verdicts += others
        if by is ParkedBy.IDLE_REAPER:
            for end in ending:
                resumable = end.agent.settings is not None and end.agent.settings.resumable
                held.supervise(
                    end.agent,
                    "reaped-idle",
                    age=props.get("age"),
                    outcome="resume-eligible" if resumable else "fresh-next-wake",
                    evidence=why,
                )
        if not props.get("waiting"):
            return answer([*verdicts, *(state_now(end.agent) for end in ending)])

        async def park() -> dict[str, Any]:
            await asyncio.gather(*(end.gone() for end in ending))
            return answer([*verdicts, *(state_now(end.agent) for end in ending)])

        return begin(held, park())


def _word(props: dict[str, Any], name: str, kind: type[W], default: W) -> W:
    """Return a word of a message.

    Raises:
        MessageError: it is none of the words there are.
    """
    found = props.get(name, default)
    words = [str(word) for word in kind]
    if found not in words:
        raise MessageError(f"{name}: found {describe(found)}, expected one of {', '.join(words)}")
    return kind(found)


def _text(props: dict[str, Any], name: str) -> str | None:
    """Return a text of a message.

    Raises:
        MessageError: it is something else.
    """
    found = props.get(name)
    if found is not None and not isinstance(found, str):
        raise MessageError(f"{name}: found {describe(found)}, expected a text; nothing was queued")
    return found


def _no_longer_idle(held: Supervisor, agent: Agent, generation: object, since: float) -> str | None:
    """Return why the idle reaper's finding does not hold any more, or None."""
    if agent.phase is not Phase.UP or agent.row.generation != generation:
        return f"it is {agent.phase}, generation {agent.row.generation}: not the launch that was idle"
    if held.deliveries.waiting(agent):
        return "a task waits for it"
    if held.assignments.of(agent) is not None:
        return "it has an assignment"
    activity = held.last_activity(agent)
    if activity is not None and activity > since + 0.001:
        return "its terminal has moved since"
    health = agent.health()
    if health.state in (State.WORKING, State.WAITING, State.LIMITED):
        return f"it is {health.state}"
    return None


class Fresh(Verdicts, Command):  # type: ignore[misc]
    """\
    End agents and begin anew at once, in a new conversation
    ========================================================

    The intent is durable: it is carried out once, also when circusd dies in between. The new launch is told
    `failover.initial_prompt`, if set, before anything else.

    Command line
    ------------

    ::

        $ failoverctl fresh NAME...
    """

    name = "fresh"

    def message(self, *args: str, **opts: Any) -> Any:
        if not args:
            raise ArgumentError("fresh takes the names of agents")
        return self.make_message(names=list(args))

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        agents = agents_named(arbiter, props)
        stopped = [agent for agent in agents if agent.row.stay_stopped]
        verdicts = [
            refused(agent, f"it was stopped: `start {agent.identity}` brings it back") for agent in stopped
        ]
        wanted = [agent for agent in agents if not agent.row.stay_stopped]
        ending, others = end_all(held, wanted, IntentAction.FRESH, who(props), "fresh")
        timeout = WAIT_SECS if props.get("waiting") else PLAIN_WAIT_SECS
        props["waiting"] = True

        async def fresh() -> dict[str, Any]:
            begun = await asyncio.gather(*(end.succeeded(held, timeout) for end in ending))
            return answer([*verdicts, *others, *begun])

        return begin(held, fresh())


class Reset(Verdicts, Command):  # type: ignore[misc]
    """\
    Forget agents' crash loops
    ==========================

    The deaths that were counted are forgiven, and an agent that was held may be started or woken at once. It
    launches nothing itself.

    Command line
    ------------

    ::

        $ failoverctl reset NAME...
    """

    name = "reset"

    def message(self, *args: str, **opts: Any) -> Any:
        if not args:
            raise ArgumentError("reset takes the names of agents")
        return self.make_message(names=list(args))

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        verdicts = []
        for agent in agents_named(arbiter, props):
            try:
                held.known()
                there = held.crash_loops.forgive(agent, who(props))
            except StoreError as error:
                verdicts.append(refused(agent, f"nothing was reset, since it could not be stored: {error}"))
                continue
            verdict = state_now(agent)
            if not there:
                verdict["reason"] = "there was no crash loop"
            verdicts.append(verdict)
        return answer(verdicts)


class Purge(Command):  # type: ignore[misc]
    """\
    Delete everything of an agent that is gone
    ==========================================

    Its launches, history, intents, tasks and pane logs. Only for an agent that no section of circus.ini names
    any more and that does not run. The answer says what was deleted.

    Command line
    ------------

    ::

        $ failoverctl purge NAME
    """

    name = "purge"
    properties = ["name"]

    def message(self, *args: str, **opts: Any) -> Any:
        if len(args) != 1:
            raise ArgumentError("purge takes the name of one agent that is gone")
        return self.make_message(name=args[0])

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held, name = supervisor_of(arbiter), str(props["name"])
        try:
            return {"identity": name, "deleted": held.roster.purge(name)}
        except StoreError as error:
            raise MessageError(f"nothing was purged: {error}") from error

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") != "ok":
            return str(self.console_error(msg))
        parts = [f"{what} {number}" for what, number in msg["deleted"].items() if number]
        return f"{msg['identity']}: deleted {', '.join(parts)}"
