"""What `explain` says of an agent's account: what is known of it, and where the agent would go on, and why.

It runs inside circusd's only loop: it changes nothing, reads small files of account homes at most, and asks
tmux once for at most 0.25 s, where an agent would be moved to have more headroom.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from circus_failover import limit_verdicts, limits
from circus_failover.policy.failover import LimitAction
from circus_failover.switch_checks import account_now
from circus_failover.words import AccountState, OnLimit

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor

FAILOVER = "AccountFailover"


def outlook(held: Supervisor, agent: Agent, plugin: dict[str, Any]) -> dict[str, Any] | None:
    """Return what there is to say of an agent's account; None where it has none.

    Args:
        held: the supervisor.
        agent: whose.
        plugin: whether AccountFailover runs, when it last ticked, and whether it is a dry run.
    """
    settings, name = agent.settings, account_now(agent)
    if settings is None or name is None:
        return None
    seen = limits.census(held)
    verdict = limit_verdicts.verdict(held, agent, seen)
    choice = verdict.choice or limits.choose(held, agent, seen=seen)
    known, account = held.accounts.known(name), settings.settings.account(name)
    configured = settings.configured_account
    return {
        "name": name,
        "configured": configured.name if configured is not None else None,
        "state": str(known.state),
        "limit": known.limit_name,
        "until": known.until,
        "text": known.text,
        "seen_at": known.seen_at,
        "seen_by": known.seen_by,
        "headroom": held.accounts.headroom(name),
        "agents": seen.counts[name],
        "max_agents": account.max_agents if account is not None else None,
        "models": [asdict(limit) for limit in known.models],
        "on_limit": str(settings.on_limit),
        "switch_at": settings.switch_at,
        "action": str(verdict.action),
        "to": verdict.to,
        "held_until": verdict.until,
        "reason": verdict.reason,
        "considered": [
            {"account": one.name, "place": str(one.place), "why": one.why, "until": one.until}
            for one in choice.considered
        ],
        "earliest": choice.earliest,
        "failover": plugin,
    }


def facts(found: dict[str, Any] | None, shown: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield what there is to say of it, as a name and a sentence.

    Args:
        found: what `outlook` returned.
        shown: the account that `fleet` shows.
    """
    if found is None:
        yield "account", shown
        return
    yield "account", _account(found)
    yield "failover", _failover(found)
    others = [one for one in found["considered"] if one["account"] != found["name"]]
    if others:
        yield "accounts", "; ".join(f"{one['account']}: {one['why']}" for one in others)


def _account(found: dict[str, Any]) -> str:
    from circus_failover import screen

    line = f"{found['name']} ({found['state']}"
    line += f": {found['limit']}" if found["limit"] else ""
    line += f" until {screen.local_time(found['until'])}" if found["until"] is not None else ""
    if found["headroom"] is not None:
        line += f", {found['headroom'] * 100:.0f} % left"
    cap = f" of {found['max_agents']}" if found["max_agents"] is not None else ""
    line += f", agents on it: {found['agents']}{cap})"
    if found["configured"] not in (None, found["name"]):
        line += f"; switched: its section names {found['configured']}"
    if found["state"] in (AccountState.LIMITED, AccountState.CREDENTIALS) and found["text"]:
        line += f"; {found['text']}"
    models = [f"{one['name']} until {screen.local_time(one['until'])}" for one in found["models"]]
    return line + (f"; limits of single models: {', '.join(models)}" if models else "")


def _failover(found: dict[str, Any]) -> str:
    from circus_failover import screen

    action, plugin, reason = found["action"], found["failover"], found["reason"]
    if action == LimitAction.LEAVE:
        return f"leaves it alone ({reason}); on_limit is {found['on_limit']}"
    does = {
        LimitAction.SWITCH: f"switches it to {found['to']}",
        LimitAction.HOLD: f"holds it until {screen.local_time(found['held_until'])}",
        LimitAction.PARK: "parks it",
        LimitAction.WAKE: f"wakes it on {found['to']}",
        LimitAction.TELL: "only tells it",
    }[LimitAction(action)]
    if not plugin["runs"]:
        return f"{FAILOVER} does not run, else it {does} next: {reason}"
    if plugin["dry_run"] and found["on_limit"] != OnLimit.NOTIFY:
        return f"{does} next, but for dry_run: {reason}"
    return f"{does} next: {reason}"
