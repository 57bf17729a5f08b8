"""Circus's own verbs, for agents: record who asked, wait one's turn, never end an agent by accident.

For watchers that are not agents each does what Circus does. The classes have Circus's names and
therefore replace its commands in circusd, also for plain circusctl.
"""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

from circus.commands.decrproc import DecrProc
from circus.commands.get import Get
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
from circus.exc import MessageError
from circus.util import to_signum

from circus_failover.problems import describe
from circus_failover.verbs.answers import (
    PLAIN_WAIT_SECS,
    WAIT_SECS,
    Ending,
    answer,
    begin,
    described,
    end_all,
    iterating,
    named,
    several,
    state_now,
    verdict_lines,
)
from circus_failover.verbs.selection import selected, supervisor_of, who
from circus_failover.verbs.tasks import shown_task
from circus_failover.words import IntentAction

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor


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
                await held.turns.run(lambda: arbiter.start_watchers(watcher_iter_func=iterating(others)))
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
        ending, verdicts = end_all(held, agents, IntentAction.STOP, who(props), "stop")
        if verdicts:
            props["waiting"] = True

        async def stop() -> dict[str, Any]:
            if others:
                await held.turns.run(lambda: arbiter.stop_watchers(watcher_iter_func=iterating(others)))
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
            # circusd restarts itself: agents are detached and adopted again. No answer could be sent
            # afterwards, since the endpoint is closed in between.
            props["waiting"] = False
            return begin(held, held.turns.run(partial(arbiter.restart, inside_circusd=True)))
        agents, others = selected(arbiter, props)
        if not agents and "names" not in props:
            return super().execute(arbiter, props)
        ending, verdicts = end_all(held, agents, IntentAction.RESTART, who(props), "restart")
        timeout = WAIT_SECS if props.get("waiting") else PLAIN_WAIT_SECS
        props["waiting"] = True

        async def restart() -> dict[str, Any]:
            if others:
                await held.turns.run(lambda: arbiter.restart(watcher_iter_func=iterating(others)))
            begun = await asyncio.gather(*(self._back(held, end, who(props), timeout) for end in ending))
            return answer([*verdicts, *begun])

        return begin(held, restart())

    async def _back(self, held: Supervisor, end: Ending, by: str, timeout: float) -> dict[str, Any]:
        """Start an agent when its end is carried out, unless a stronger wish came in between."""
        if end.action is not None:
            return await end.succeeded(held, timeout)
        return await held.bring_up.start(end.agent, by, timeout)

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
        if props.get("free") and (busy := held.pools.why_not_leave(agent)):
            # `pool` asks so: nothing comes between this look and the intent.
            raise MessageError(f"{agent.identity} stays: {busy}")
        if held.deliveries.waiting(agent):
            # The answer lists the tasks that are cancelled, so it comes when they are.
            props["waiting"] = True
        if props.get("nostop") or agent.observed:
            return begin(held, self._detach(held, agent))
        runs_before = agent.phase
        tasks = [shown_task(task) for task in held.deliveries.waiting(agent)]
        _, verdicts = end_all(held, [agent], IntentAction.REMOVE, who(props), "rm")
        if verdicts:
            return answer(verdicts)

        async def remove() -> dict[str, Any]:
            if agent.action is None:
                await held.aftermath.remove(agent)
            while held.roster.agents.get(agent.identity) is agent:
                await agent.next_change(0.5)
            verdict = {**state_now(agent), "was": str(runs_before)}
            if tasks:
                numbers = ", ".join(f"{task['id']} ({task['begins']})" for task in tasks)
                verdict.update(cancelled_tasks=tasks, tasks_note=f"cancelled tasks: {numbers}")
            return answer([verdict])

        return begin(held, remove())

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") == "ok" and "agents" in msg:
            return verdict_lines(msg["agents"])
        return str(super().console_msg(msg))

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
        from circus_failover import reconfigure

        # The answer tells which agents were detached, or why nothing was reloaded.
        props["waiting"] = True
        return begin(held, reconfigure.reload(held))

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") == "ok" and msg.get("detached"):
            names = ", ".join(msg["detached"])
            return f"ok; no section names these agents any more, those that run live on unsupervised: {names}"
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


class FailoverGet(Get):  # type: ignore[misc]
    __doc__ = described(Get, """knows the `failover.` options too.""")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        # Circus (0.19) lists the options that it does not know itself, and fails when one is asked for.
        further = self._get_watcher(arbiter, props["name"])._options
        keys = props["keys"]
        known = super().execute(arbiter, {**props, "keys": [key for key in keys if key not in further]})
        return {"options": {**known["options"], **{key: further[key] for key in keys if key in further}}}


class FailoverSet(Set):  # type: ignore[misc]
    __doc__ = described(Set, """refuses another number of processes or user for agents.""")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        options = props.get("options", {})
        if any(key == "hooks" or key.startswith("hooks.") for key in options):
            self._keep_hooks(arbiter, str(props["name"]), options)
        changed = {"numprocesses", "uid"} & set(options)
        if changed and (props["options"].get("numprocesses", 1) != 1 or "uid" in changed):
            _one_process(arbiter, props["name"])
        return super().execute(arbiter, props)

    def _keep_hooks(self, arbiter: Any, name: str, options: dict[str, Any]) -> None:
        """Circus loads a hook's module again when one is set (0.19): ours would lose what it holds."""
        agents, _ = selected(arbiter, {"name": name, "match": "simple"})
        if agents:
            raise MessageError(
                f"{name} is an agent and its hooks are its gate: "
                "change its section of circus.ini, then reloadconfig"
            )
        if "circus_failover" in str(options):
            raise MessageError(
                f"a hook of circus_failover is named in circus.ini, not set: add it to [watcher:{name}], "
                "then reloadconfig"
            )


def _to_keeper(arbiter: Any, props: dict[str, Any], verb: str) -> None:
    """Note a signal that was sent to an agent's watcher: it reaches the keeper, never the agent."""
    agents, _ = selected(arbiter, {"name": props["name"], "match": "simple"})
    held = supervisor_of(arbiter)
    for agent in agents:
        held.record(
            agent, verb, {"who": who(props), "signal": props.get("signum"), "to": "keeper"}, durable=False
        )


def _known_signal(props: dict[str, Any]) -> None:
    """Refuse a signal that there is not; Circus (0.19) fails for most of them with a message of its insides.

    Raises:
        MessageError: it is none.
    """
    given = props.get("signum")
    try:
        number = to_signum(given)
    except (ValueError, TypeError, AttributeError):
        number = None
    if number not in signal.valid_signals():
        raise MessageError(f"signal {describe(given)}: expected a name such as TERM, or a number")


class FailoverSignal(Signal):  # type: ignore[misc]
    __doc__ = described(Signal, """reaches an agent's keeper only, never the agent.""")

    def validate(self, props: dict[str, Any]) -> None:
        if "signum" in props:
            _known_signal(props)
        super().validate(props)

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        _to_keeper(arbiter, props, "signal")
        return super().execute(arbiter, props)


class FailoverKill(Kill):  # type: ignore[misc]
    __doc__ = described(Kill, """reaches an agent's keeper only, never the agent: `stop` ends one.""")

    def validate(self, props: dict[str, Any]) -> None:
        if "signum" in props:
            _known_signal(props)
        super().validate(props)

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        _to_keeper(arbiter, props, "kill")
        return super().execute(arbiter, props)
