"""Circus's own verbs, for agents: record who asked, wait one's turn, never end an agent by accident.

For watchers that are not agents each does what Circus does. The classes have Circus's names and
therefore replace its commands in circusd, also for plain circusctl.
"""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from circus.commands.decrproc import DecrProc
from circus.commands.incrproc import IncrProc
from circus.commands.kill import Kill
from circus.commands.quit import Quit
from circus.commands.reload import Reload
from circus.commands.reloadconfig import ReloadConfig
from circus.commands.restart import Restart
from circus.commands.rmwatcher import RmWatcher
from circus.commands.sendsignal import Signal
from circus.commands.set import Set
from circus.commands.start import Start
from circus.commands.stop import Stop
from circus.exc import ConflictError, MessageError

from circus_failover import reconfigure
from circus_failover.agent import Agent
from circus_failover.store import StoreError
from circus_failover.supervisor import Supervisor
from circus_failover.verbs.selection import selected, supervisor_of, who
from circus_failover.words import IntentAction

PLAIN_WAIT_SECS = 4.0
"""circusctl gives up after 5 s; a start that is not settled by then answers with what is known."""
WAIT_SECS = 3600.0


def verdict_lines(verdicts: Iterable[dict[str, Any]]) -> str:
    """Return one line a verdict, for a person."""
    lines = []
    for verdict in verdicts:
        what = f"{verdict['identity']}: {verdict['phase']}"
        if verdict.get("already"):
            what = f"{verdict['identity']}: already {verdict['phase']}"
        if verdict.get("generation"):
            what += f" (generation {verdict['generation']})"
        if verdict.get("reason"):
            what += f": {verdict['reason']}"
        lines.append(what)
    return "\n".join(lines)


def answer(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mapping a client gets: an error when any verdict is one, with every reason."""
    failed = [verdict for verdict in verdicts if not verdict["ok"]]
    reply: dict[str, Any] = {"agents": verdicts}
    if failed:
        reply.update(status="error", reason=verdict_lines(failed), errno=5)
    return reply


async def guarded(work: Coroutine[Any, Any, dict[str, Any] | None]) -> dict[str, Any] | None:
    """Turn a failure into an error mapping: an exception inside a Future becomes Circus's "server error"."""
    try:
        return await work
    except (MessageError, ConflictError, StoreError, OSError) as error:
        return {"status": "error", "reason": str(error), "errno": 5}


def begin(held: Supervisor, work: Coroutine[Any, Any, dict[str, Any] | None]) -> asyncio.Future[Any]:
    """Run a verb's slow part on the loop and return the future Circus waits for."""
    return held.spawn(guarded(work))


def described(command: type[Any], note: str) -> str:
    """Return Circus's help text of a verb with what it means for agents at its end."""
    text = " ".join(note.split())
    wrapped = textwrap.fill(f"This verb {text}", 100)
    return f"{textwrap.dedent(command.__doc__ or '').rstrip()}\n\nAgents\n++++++\n\n{wrapped}\n"


def several(command: Any, message: Callable[..., Any], args: tuple[str, ...], opts: dict[str, Any]) -> Any:
    """Return the message for one name as Circus makes it, and for several, which Circus does not know."""
    if len(args) < 2:
        return message(*args, **opts)
    return command.make_message(names=list(args), **opts)


def named(props: dict[str, Any]) -> bool:
    """Say whether a message names watchers; without a name it is about all of them."""
    return "name" in props or bool(props.get("names"))


def refused(agent: Agent, reason: str) -> dict[str, Any]:
    """Return the verdict of a verb that was refused and changed nothing."""
    return {
        "identity": agent.identity,
        "ok": False,
        "phase": str(agent.phase),
        "cause": agent.row.cause,
        "generation": agent.row.generation,
        "reason": reason,
    }


def state_now(agent: Agent) -> dict[str, Any]:
    """Return the verdict of an end: what the agent is now."""
    return {
        "identity": agent.identity,
        "ok": True,
        "phase": str(agent.phase),
        "cause": agent.row.cause,
        "generation": agent.row.generation,
        "reason": agent.row.reason,
    }


def _iterating(watchers: list[Any]) -> Callable[..., list[Any]]:
    def iterate(reverse: bool = True) -> list[Any]:
        return sorted(watchers, key=lambda watcher: watcher.priority, reverse=reverse)

    return iterate


@dataclass(frozen=True)
class Ending:
    """An agent that is being ended: which end, and of which launch."""

    agent: Agent
    action: int | None
    """None when it did not run, so that nothing had to be ended."""
    generation: int

    async def gone(self) -> None:
        """Wait until this very end is carried out and Circus's watcher has followed, or a later start did."""
        agent = self.agent
        while agent.action is not None and agent.action.id == self.action:
            await agent.next_change(0.5)
        while not agent.watcher.is_stopped() and agent.row.generation == self.generation:
            if agent.action is not None and agent.action.id != self.action:
                return
            await agent.next_change(0.5)


def _end_all(
    held: Supervisor, agents: Iterable[Agent], intent: IntentAction, asked_by: str, why: str
) -> tuple[list[Ending], list[dict[str, Any]]]:
    """Write the intents now; return the ends that are under way and the verdicts of the refused."""
    ending, verdicts = [], []
    for agent in agents:
        if agent.observed:
            verdicts.append(refused(agent, "failover.mode = observe: it is watched and shown, never ended"))
            continue
        try:
            held.endings.end(agent, intent, asked_by, why)
            action = agent.action.id if agent.action is not None else None
            ending.append(Ending(agent, action, agent.row.generation))
        except StoreError as error:
            verdicts.append(
                refused(agent, f"nothing was ended, since the intent could not be stored: {error}")
            )
    return ending, verdicts


class FailoverStart(Start):  # type: ignore[misc]
    __doc__ = described(
        Start,
        """starts agents through the gate, clears `stopped`, and answers with the verdict: up, or
        refused and why. Several names may be given.""",
    )

    def message(self, *args: str, **opts: Any) -> Any:
        return several(self, super().message, args, opts)

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        agents, others = selected(arbiter, props)
        if not named(props):
            agents = [agent for agent in agents if agent.watcher.autostart]
        if not agents and "names" not in props:
            return super().execute(arbiter, props)
        timeout = WAIT_SECS if props.get("waiting") else PLAIN_WAIT_SECS
        # The reply is the verdict, so circusd answers when it is known, not at once.
        props["waiting"] = True

        async def start() -> dict[str, Any]:
            if others:
                await held.turns.run(lambda: arbiter.start_watchers(watcher_iter_func=_iterating(others)))
            verdicts = await asyncio.gather(
                *(self._start(held, agent, who(props), timeout) for agent in agents)
            )
            return answer(list(verdicts))

        return begin(held, start())

    async def _start(self, held: Supervisor, agent: Agent, by: str, timeout: float) -> dict[str, Any]:
        return await held.bring_up.start(agent, by, timeout)

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") == "ok" and "agents" in msg:
            return verdict_lines(msg["agents"])
        return str(super().console_msg(msg))


class FailoverStop(Stop):  # type: ignore[misc]
    __doc__ = described(
        Stop,
        """ends agents: they have `failover.stop_secs` to end, then SIGKILL, and stay stopped until
        `start`. Several names may be given. An observed session is never ended.""",
    )

    def message(self, *args: str, **opts: Any) -> Any:
        return several(self, super().message, args, opts)

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        agents, others = selected(arbiter, props)
        if not agents and "names" not in props:
            return super().execute(arbiter, props)
        ending, verdicts = _end_all(held, agents, IntentAction.STOP, who(props), "stop")
        if verdicts:
            props["waiting"] = True

        async def stop() -> dict[str, Any]:
            if others:
                await held.turns.run(lambda: arbiter.stop_watchers(watcher_iter_func=_iterating(others)))
            await asyncio.gather(*(end.gone() for end in ending))
            return answer([*verdicts, *(state_now(end.agent) for end in ending)])

        return begin(held, stop())

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") == "ok" and "agents" in msg:
            return verdict_lines(msg["agents"])
        return str(super().console_msg(msg))


class FailoverRestart(Restart):  # type: ignore[misc]
    __doc__ = described(
        Restart,
        """ends agents and brings them back. Without a name circusd restarts itself, and agents live on.""",
    )

    def message(self, *args: str, **opts: Any) -> Any:
        return several(self, super().message, args, opts)

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        if not named(props):
            # circusd restarts itself: agents are detached and adopted again.
            return begin(held, held.turns.run(partial(arbiter.restart, inside_circusd=True)))
        agents, others = selected(arbiter, props)
        if not agents and "names" not in props:
            return super().execute(arbiter, props)
        ending, verdicts = _end_all(held, agents, IntentAction.RESTART, who(props), "restart")
        timeout = WAIT_SECS if props.get("waiting") else PLAIN_WAIT_SECS
        props["waiting"] = True

        async def restart() -> dict[str, Any]:
            if others:
                await held.turns.run(lambda: arbiter.restart(watcher_iter_func=_iterating(others)))
            begun = await asyncio.gather(*(self._back(held, end, who(props), timeout) for end in ending))
            return answer([*verdicts, *begun])

        return begin(held, restart())

    async def _back(self, held: Supervisor, end: Ending, by: str, timeout: float) -> dict[str, Any]:
        """Start an agent when its end is carried out, unless a stronger wish came in between."""
        agent = end.agent
        while agent.action is not None and agent.action.id == end.action:
            await agent.next_change(0.5)
        if end.action is not None and agent.row.stay_stopped:
            return refused(agent, f"not brought back: {agent.row.reason}")
        return await held.bring_up.start(agent, by, timeout)

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") == "ok" and "agents" in msg:
            return verdict_lines(msg["agents"])
        return str(super().console_msg(msg))


class FailoverRm(RmWatcher):  # type: ignore[misc]
    __doc__ = described(
        RmWatcher, """ends an agent and removes it; with --nostop it is only let go of, and lives on."""
    )

    def message(self, *args: str, **opts: Any) -> Any:
        # circusctl drops --nostop and --waiting (0.19), so its `rm --nostop` ends what it promised to keep.
        message = super().message(*args)
        message["properties"].update(
            nostop=bool(opts.get("nostop", False)), waiting=bool(opts.get("waiting", False))
        )
        return message

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        agents, _ = selected(arbiter, {"name": props["name"], "match": "simple"})
        if not agents:
            return super().execute(arbiter, props)
        agent = agents[0]
        if props.get("nostop") or agent.observed:
            return begin(held, self._detach(held, agent))
        runs_before = agent.phase
        _, verdicts = _end_all(held, [agent], IntentAction.REMOVE, who(props), "rm")
        if verdicts:
            return answer(verdicts)

        async def remove() -> dict[str, Any]:
            if agent.action is None:
                await held.endings.remove(agent)
            while held.roster.agents.get(agent.identity) is agent:
                await agent.next_change(0.5)
            return answer([{**state_now(agent), "was": str(runs_before)}])

        return begin(held, remove())

    async def _detach(self, held: Supervisor, agent: Agent) -> dict[str, Any]:
        await held.turns.run(lambda: held.arbiter.rm_watcher(agent.watcher.name))
        held.record(agent, "detached", {"who": "rm --nostop"}, durable=True, declared=False)
        held.roster.forget(agent.identity)
        return answer([state_now(agent)])


class FailoverReload(Reload):  # type: ignore[misc]
    __doc__ = described(
        Reload, """does not touch agents: their keepers are replaced, and nothing that is down is started."""
    )

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        # A reload starts every stopped watcher; an agent's gate lets it adopt only.
        held = supervisor_of(arbiter)
        return begin(held, held.turns.run(lambda: super(FailoverReload, self).execute(arbiter, props)))


class FailoverReloadConfig(ReloadConfig):  # type: ignore[misc]
    __doc__ = described(
        ReloadConfig,
        """applies changed `failover.*` values in place, detaches and adopts agents for other
        changes, and ends none: an agent whose section is gone lives on.""",
    )

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        # The answer tells which agents were detached, or why nothing was reloaded.
        props["waiting"] = True
        return begin(held, reconfigure.reload(held))

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") == "ok" and msg.get("detached"):
            names = ", ".join(msg["detached"])
            return f"ok; no section names these agents any more, they live on unsupervised: {names}"
        return str(super().console_msg(msg))


class FailoverQuit(Quit):  # type: ignore[misc]
    __doc__ = described(Quit, """leaves every agent running; the next circusd adopts them.""")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        return begin(held, held.turns.run(arbiter.stop))


def _one_process(arbiter: Any, name: str) -> None:
    agents, _ = selected(arbiter, {"name": name, "match": "simple"})
    if agents:
        raise MessageError(
            f"{name} is an agent and has exactly one process: add a section to circus.ini for another agent"
        )


class FailoverIncr(IncrProc):  # type: ignore[misc]
    __doc__ = described(IncrProc, """is refused for agents, which have one process each.""")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        _one_process(arbiter, props["name"])
        return super().execute(arbiter, props)


class FailoverDecr(DecrProc):  # type: ignore[misc]
    __doc__ = described(DecrProc, """is refused for agents, which have one process each.""")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        _one_process(arbiter, props["name"])
        return super().execute(arbiter, props)


class FailoverSet(Set):  # type: ignore[misc]
    __doc__ = described(Set, """refuses another number of processes or user for agents.""")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        changed = {"numprocesses", "uid"} & set(props.get("options", {}))
        if changed and (props["options"].get("numprocesses", 1) != 1 or "uid" in changed):
            _one_process(arbiter, props["name"])
        return super().execute(arbiter, props)


def _to_keeper(arbiter: Any, props: dict[str, Any], verb: str) -> None:
    """Note a signal that was sent to an agent's watcher: it reaches the keeper, never the agent."""
    agents, _ = selected(arbiter, {"name": props["name"], "match": "simple"})
    held = supervisor_of(arbiter)
    for agent in agents:
        held.record(
            agent, verb, {"who": who(props), "signal": props.get("signum"), "to": "keeper"}, durable=False
        )


class FailoverSignal(Signal):  # type: ignore[misc]
    __doc__ = described(Signal, """reaches an agent's keeper only, never the agent.""")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        _to_keeper(arbiter, props, "signal")
        return super().execute(arbiter, props)


class FailoverKill(Kill):  # type: ignore[misc]
    __doc__ = described(Kill, """reaches an agent's keeper only, never the agent: `stop` ends one.""")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        _to_keeper(arbiter, props, "kill")
        return super().execute(arbiter, props)
