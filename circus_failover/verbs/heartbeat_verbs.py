"""What the Heartbeat plugin tells and asks: heartbeats, a nudge, the end of an agent that is stuck."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover.plugin_input import LONGEST_INTERVAL_SECS
from circus_failover.problems import describe
from circus_failover.store import StoreError
from circus_failover.verbs.answers import answer, state_now
from circus_failover.verbs.selection import one_agent, supervisor_of, who
from circus_failover.words import Phase, State, TaskKind

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.policy.heartbeat import Work
    from circus_failover.stuck_agents import Finding

MOST_HEARTBEATS = 10_000
NUDGE_SECS = 60.0
"""After so long a nudge that could not be typed is not typed any more."""


class Beats(Command):  # type: ignore[misc]
    """\
    Take in agents' heartbeats
    ==========================

    For the Heartbeat plugin: what it found of agents with a heartbeat contract, and who has broken it. What
    is about another launch than the recorded one changes nothing. The answer names the agents whose tmux
    server does not answer.
    """

    name = "beats"

    def message(self, *args: str, **opts: Any) -> Any:
        raise ArgumentError("beats is what the Heartbeat plugin tells; `fleet` and `explain` show it")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        from circus_failover import heartbeats

        held, now = supervisor_of(arbiter), time.time()
        interval: Any = props.get("interval")
        said = props.get("agents")
        if type(interval) not in (int, float) or not 0 < interval <= LONGEST_INTERVAL_SECS:
            raise MessageError(f"beats: interval: found {describe(interval)}, expected seconds")
        if not isinstance(said, list) or len(said) > MOST_HEARTBEATS:
            expected = f"at most {MOST_HEARTBEATS} heartbeats"
            raise MessageError(f"beats: agents: found {describe(said)}, expected {expected}")
        found = [heartbeats.heard(one, now, float(interval)) for one in said]
        for index, heard in enumerate(found):
            if heard is None:
                raise MessageError(
                    f"beats: agents[{index}]: found {describe(said[index])}, expected identity, generation, "
                    "pid, pid_start, at, stuck and evidence; nothing was taken"
                )
            agent = held.roster.agents.get(heard.identity)
            if agent is not None and heard.of(agent.row.generation, agent.row.process):
                agent.heard = heard
                if agent.state() is not agent.said_state:
                    held.publish(agent)
        return {"wedged": [agent.identity for agent in held.roster.agents.values() if agent.wedged]}


class Nudge(Command):  # type: ignore[misc]
    """\
    Remind an agent of the assignment that it has
    =============================================

    It is told which one it is, and how it says that it is done, or that it is at it. Refused for an agent
    that has taken none, that waits for somebody, or that is not up. What cannot be typed within 60 s is not
    typed.

    Command line
    ------------

    ::

        $ failoverctl nudge NAME
    """

    name = "nudge"
    properties = ["name"]

    def message(self, *args: str, **opts: Any) -> Any:
        if len(args) != 1:
            raise ArgumentError("nudge takes the name of one agent")
        return self.make_message(name=args[0])

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        from circus_failover import stuck_agents

        held = supervisor_of(arbiter)
        agent = one_agent(arbiter, str(props["name"]))
        work = _work_to_nudge(held.assignments.of(agent), agent, props)
        if any(task.kind == str(TaskKind.NUDGE) for task in held.deliveries.waiting(agent)):
            raise MessageError(f"{agent.identity}: a nudge already waits to be typed")
        age = _number(props, "age")
        try:
            task = held.deliveries.queue(
                agent,
                stuck_agents.nudge_text(work, age),
                None,
                who(props),
                kind=TaskKind.NUDGE,
                assignment=work.id,
                expires_at=time.time() + NUDGE_SECS,
                generation=agent.row.generation,
            )
        except StoreError as error:
            raise MessageError(
                f"{agent.identity} was not nudged, since it could not be stored: {error}"
            ) from error
        why = str(props.get("evidence") or "asked for")
        held.supervise(agent, "nudged", age=age, outcome="queued", evidence=f"{why}; assignment {work.id}")
        return {**answer([state_now(agent)]), "task": task.id}


class EndStuck(Command):  # type: ignore[misc]
    """\
    End an agent that has broken its heartbeat contract, and bring it back
    ======================================================================

    For the Heartbeat plugin. circusd looks again, and refuses where anything has changed or cannot be told.
    The end counts as a death, which may hold the agent; otherwise it is launched anew at once.

    Command line
    ------------

    ::

        $ failoverctl end-stuck NAME
    """

    name = "end-stuck"
    properties = ["name"]

    def message(self, *args: str, **opts: Any) -> Any:
        if len(args) != 1:
            raise ArgumentError("end-stuck takes the name of one agent")
        return self.make_message(name=args[0])

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        from circus_failover import stuck_agents

        held = supervisor_of(arbiter)
        agent = one_agent(arbiter, str(props["name"]))
        held.roster.read_settings(agent)
        finding = _finding(agent, held.assignments.of(agent), props)
        verdict = stuck_agents.look_again(held, agent, finding)
        if isinstance(verdict, str):
            raise MessageError(f"{agent.identity} was not ended: {verdict}")
        try:
            stuck_agents.end(held, agent, finding, verdict, who(props))
        except StoreError as error:
            reason = f"{agent.identity} was not ended, since the intent could not be stored: {error}"
            raise MessageError(reason) from error
        return answer([state_now(agent)])


def _work_to_nudge(row: Any, agent: Agent, props: dict[str, Any]) -> Work:
    """Return the assignment that an agent is to be reminded of.

    Raises:
        MessageError: it has none, is not the launch that was looked at, or must not be typed into.
    """
    from circus_failover import heartbeats

    generation, wanted = props.get("generation"), props.get("assignment")
    work = heartbeats.work_of(row, agent.row.generation)
    why = ""
    if generation is not None and generation != agent.row.generation:
        why = f"it has generation {agent.row.generation} now, not {generation}: look again"
    elif agent.observed:
        why = "it is observed: watched and shown only"
    elif agent.phase is not Phase.UP or agent.action is not None:
        why = f"it is {agent.phase}"
    elif agent.wedged:
        why = "its tmux server does not answer"
    elif agent.health().state in (State.WAITING, State.LIMITED):
        why = f"it is {agent.health().state}"
    elif work is None:
        why = "it has no assignment that it has taken"
    elif wanted is not None and wanted != work.id:
        why = f"assignment {wanted} is not with it any more"
    if why or work is None:
        raise MessageError(f"{agent.identity} is not nudged: {why}")
    return work


def _finding(agent: Agent, row: Any, props: dict[str, Any]) -> Finding:
    """Return what is said of an agent that is stuck; what is left out is as circusd has it.

    Raises:
        MessageError: it makes no sense.
    """
    from circus_failover.process_table import ProcessId
    from circus_failover.stuck_agents import Finding

    generation = props.get("generation", agent.row.generation)
    pid, start, state = props.get("pid"), props.get("pid_start"), props.get("state")
    process = agent.row.process
    if pid is not None or start is not None:
        if type(pid) is not int or type(start) is not int:
            raise MessageError(
                f"end-stuck: pid: found {describe([pid, start])}, expected a pid and its start"
            )
        process = ProcessId(pid, start)
    if state is not None and state not in [str(word) for word in State]:
        raise MessageError(f"end-stuck: state: found {describe(state)}, expected a state")
    assignment = props.get("assignment", None if row is None else row.id)
    return Finding(
        generation=generation,
        process=process,
        beat=_number(props, "beat") if "beat" in props else time.time(),
        assignment=assignment,
        state=None if state is None else State(state),
        floor=_number(props, "floor"),
    )


def _number(props: dict[str, Any], name: str) -> float | None:
    """Return a number of a message, or None.

    Raises:
        MessageError: it is something else.
    """
    found = props.get(name)
    if found is not None and (type(found) not in (int, float) or not math.isfinite(found)):
        raise MessageError(f"{name}: found {describe(found)}, expected a number or nothing")
    return None if found is None else float(found)
