"""The verb `switch`: agents go on in the same conversation on another account."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover.problems import describe
from circus_failover.store import StoreError
from circus_failover.verbs.answers import PLAIN_WAIT_SECS, WAIT_SECS, answer, begin, refused, verdict_lines
from circus_failover.verbs.selection import agents_named, supervisor_of, who

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor


class Switch(Command):  # type: ignore[misc]
    """\
    Let agents go on in the same conversation on another account
    ============================================================

    Everything is checked first; where something is in the way, nothing is ended. The agent is ended, and
    when its whole process tree is gone, it is launched on the other account and resumes its conversation;
    a turn that was cut off goes on, once. A step that fails leaves it parked on its old account, with the
    reason. One that is not up is only entered for that account: its next launch is there.

    Command line
    ------------

    ::

        $ failoverctl switch NAME... --to ACCOUNT [--force] [--dry-run] [--waiting]

    Options
    +++++++

    - <NAME>: names or globs of agents
    - <to>: the account
    - <force>: also when the account is limited, not logged in, or has its number of agents
    - <dry-run>: say what is in the way, and do nothing
    - <waiting>: answer when it is over
    """

    name = "switch"
    options: list[tuple[str, str, Any, str]] = [
        ("", "to", None, "the account"),
        ("", "force", False, "also when nothing can be done on the account, or it is full"),
        ("", "dry-run", False, "say what is in the way, and do nothing"),
        ("", "waiting", False, "answer when it is over"),
    ]

    def message(self, *args: str, **opts: Any) -> Any:
        if not args:
            raise ArgumentError("switch takes the names of agents")
        if not opts.get("to"):
            raise ArgumentError("switch needs --to ACCOUNT")
        return self.make_message(
            names=list(args),
            to=str(opts["to"]),
            force=bool(opts.get("force")),
            dry_run=bool(opts.get("dry-run")),
            waiting=bool(opts.get("waiting")),
        )

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held, agents, to = supervisor_of(arbiter), agents_named(arbiter, props), props.get("to")
        if to is not None and (not isinstance(to, str) or not to):
            raise MessageError(f"to: found {describe(to)}, expected the name of an account")
        force, by, why = bool(props.get("force")), who(props), str(props.get("why") or "switch")
        begun = []
        for agent in agents:
            target, considered = _target(held, agent, to)
            if target is None:
                verdict = refused(agent, considered.pop()["why"])
            elif props.get("dry_run"):
                verdict = _dry(held, agent, target, force)
            else:
                verdict = _switch(held, agent, target, by, why, force)
            begun.append((agent, {**verdict, "considered": considered}))
        moving = not props.get("dry_run") and any(verdict.get("under_way") for _, verdict in begun)
        if not moving:
            return answer([verdict for _, verdict in begun])
        timeout = WAIT_SECS if props.get("waiting") else PLAIN_WAIT_SECS
        props["waiting"] = True

        async def one(agent: Agent, verdict: dict[str, Any]) -> dict[str, Any]:
            if not verdict.get("under_way"):
                return verdict
            return {**verdict, **await held.switches.outcome(agent, str(verdict["to"]), timeout)}

        async def switched() -> dict[str, Any]:
            return answer(list(await asyncio.gather(*(one(*each) for each in begun))))

        return begin(held, switched())

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") == "ok" and "agents" in msg:
            return verdict_lines(msg["agents"])
        return str(super().console_msg(msg))


def _target(held: Supervisor, agent: Agent, to: str | None) -> tuple[str | None, list[dict[str, str]]]:
    """Return the account that an agent is to go to, and what was found of each where one is chosen.

    Without one the last entry says why.
    """
    from circus_failover import limits
    from circus_failover.switch_checks import account_now

    if to is not None:
        return to, []
    choice, current = limits.choose(held, agent, failing=True), account_now(agent)
    others = [one for one in choice.considered if one.name != current]
    considered = [{"account": one.name, "place": str(one.place), "why": one.why} for one in others]
    if choice.account is None:
        why = choice.others(current) or "there is none of its runtime"
        considered.append({"account": "", "place": "", "why": f"no other account can be used: {why}"})
    return choice.account, considered


def _switch(held: Supervisor, agent: Agent, to: str, by: str, why: str, force: bool) -> dict[str, Any]:
    try:
        return held.switches.switch(agent, to, by, why, force=force)
    except MessageError as error:
        return {**refused(agent, str(error)), "to": to}
    except StoreError as error:
        reason = f"nothing was ended, since the intent could not be stored: {error}"
        return {**refused(agent, reason), "to": to}


def _dry(held: Supervisor, agent: Agent, to: str, force: bool) -> dict[str, Any]:
    """Return what would come of a switch: `hindrances` are what is in the way."""
    there = held.switches.is_there(agent, to)
    found = [] if there else held.switches.check(agent, to, force=force)
    verdict = {**held.switches.verdict(agent, to, already=there), "hindrances": found, "ok": not found}
    if found:
        verdict["reason"] = "; ".join(found)
    return verdict
