"""What a verb about agents answers, what it waits for, and what it refuses."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circus.exc import ConflictError, MessageError

from circus_failover.store import StoreError
from circus_failover.words import IntentAction, ParkedBy, Phase

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor

PLAIN_WAIT_SECS = 4.0
"""circusctl gives up after 5 s; a start that is not settled by then answers with what is known."""
WAIT_SECS = 3600.0
_UNNAMED = "its end goes on; no section of circus.ini names it any more"


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
        if verdict.get("tasks_note"):
            what += f"; {verdict['tasks_note']}"
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
    unnamed = agent.forgotten and agent.phase is Phase.STOPPING
    return {
        "identity": agent.identity,
        "ok": True,
        "phase": str(agent.phase),
        "cause": agent.row.cause,
        "generation": agent.row.generation,
        "reason": _UNNAMED if unnamed else agent.row.reason,
    }


def iterating(watchers: list[Any]) -> Callable[..., list[Any]]:
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
        """Wait until this very end is carried out and Circus's watcher has followed, or a later start did.

        It goes on without an answer when no section names the agent any more.
        """
        agent = self.agent
        while agent.action is not None and agent.action.id == self.action and not agent.forgotten:
            await agent.next_change(0.5)
        while not agent.watcher.is_stopped() and agent.row.generation == self.generation:
            if agent.action is not None and agent.action.id != self.action:
                return
            await agent.next_change(0.5)

    async def succeeded(self, held: Supervisor, timeout: float) -> dict[str, Any]:
        """Wait until the launch that follows this end is settled, and return the verdict."""
        agent, until = self.agent, time.monotonic() + timeout
        while agent.action is not None and agent.action.id == self.action and not agent.forgotten:
            if time.monotonic() >= until:
                return held.bring_up.verdict(agent)
            await agent.next_change(0.5)
        if agent.removed:
            # failoverctl imports this module too, and starts often: what only circusd needs is imported here.
            from circus_failover.agent import BEING_REMOVED

            return refused(agent, BEING_REMOVED)
        if agent.forgotten:
            return refused(agent, f"{_UNNAMED}, and it is not brought back until one does")
        if agent.row.stay_stopped:
            return refused(agent, f"not brought back: {agent.row.reason}")
        # The launch follows in a task of its own: it has begun when the generation moves on.
        while agent.row.generation == self.generation and agent.phase in (Phase.STARTING, Phase.STOPPING):
            if time.monotonic() >= until:
                break
            await agent.next_change(0.5)
        await held.bring_up.settled(agent, until)
        return held.bring_up.verdict(agent)


def end_all(
    held: Supervisor,
    agents: Iterable[Agent],
    intent: IntentAction,
    asked_by: str,
    why: str,
    parked_by: ParkedBy | None = None,
) -> tuple[list[Ending], list[dict[str, Any]]]:
    """Write the intents now; return the ends that are under way and the verdicts of the refused."""
    ending, verdicts = [], []
    for agent in agents:
        if agent.observed:
            verdicts.append(refused(agent, "failover.mode = observe: it is watched and shown, never ended"))
            continue
        if intent in (IntentAction.RESTART, IntentAction.FRESH):
            held.roster.read_settings(agent)
            hindrance = held.bring_up.hindrance(agent)
            if hindrance is not None and (agent.phase is Phase.UP or intent is IntentAction.FRESH):
                # It could be ended, but not brought back.
                reason = f"it could not be brought back, and nothing was ended: {hindrance.reason}"
                verdicts.append(refused(agent, reason))
                continue
        try:
            held.endings.end(agent, intent, asked_by, why, parked_by)
            action = agent.action.id if agent.action is not None else None
            ending.append(Ending(agent, action, agent.row.generation))
        except StoreError as error:
            verdicts.append(
                refused(agent, f"nothing was ended, since the intent could not be stored: {error}")
            )
    return ending, verdicts
