"""Moving several agents to another account from outside: whom, one after another, and what came of it.

Each agent is one message `switch` to circusd, which moves it wholly or leaves it on its account. So this may
be interrupted at any moment and done again: who is there already stays there. It asks circusd only, and
neither chooses an account nor ends an agent.
"""

from __future__ import annotations

import fnmatch
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circus_failover.failure import Failed
from circus_failover.problems import nearest, printable
from circus_failover.words import Phase, Word

PACE_SECS = 5.0
JITTER = 0.2
"""By which part of the pace it may be sooner or later, so that relaunches fall into no step with others."""
FAILURES = 3
"""After so many in a row that were ended and did not come up on the other account, no other one is ended."""


class How(Word):
    """What came of one agent; with `dry_run` what would."""

    SWITCHED = "switched"
    """It is up on the other account."""
    NEXT_LAUNCH = "next-launch"
    """It is not up: its next launch is on the other account."""
    ALREADY = "already"
    UNDER_WAY = "under-way"
    """It takes longer than was waited for."""
    FAILED = "failed"
    """It was ended, and is parked on its old account."""
    REFUSED = "refused"
    """Nothing was changed."""


View = Mapping[str, Any]
Verdict = dict[str, Any]
Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""Sends a message to circusd, and returns its answer."""


@dataclass(frozen=True)
class Wishes:
    """What is to be done with each agent."""

    to: str | None
    """The account; None: whichever circusd chooses for it."""
    by: str
    """Who asks."""
    pace: float = PACE_SECS
    """Seconds from one relaunch to the next."""
    force: bool = False
    """Also to an account of which it is known that nothing can be done on it, or that is full."""
    dry_run: bool = False
    """Only say what would be done."""


def chosen(
    agents: Sequence[View],
    names: Sequence[str],
    pool: str | None = None,
    account: str | None = None,
    accounts: Callable[[], Collection[str]] = tuple,
) -> list[View]:
    """Return the agents that are meant, by identity.

    Args:
        agents: what `fleet` says.
        names: identities or globs.
        pool: all agents of this pool.
        account: all agents that are on this account; none when they have all been moved.
        accounts: says which accounts there are; asked only where no agent is on that one.

    Raises:
        Failed: a name, a pool or an account is no agent's.
    """
    found: dict[str, View] = {}
    for name in names:
        matching = [agent for agent in agents if fnmatch.fnmatchcase(agent["identity"], name.lower())]
        if not matching:
            hint = nearest(name, [str(agent["identity"]) for agent in agents])
            raise Failed(f"no agent {printable(name)!r}{hint}; nothing was switched")
        found.update((agent["identity"], agent) for agent in matching)
    for key, wanted in (("pool", pool), ("account", account)):
        if wanted is None:
            continue
        matching = [agent for agent in agents if agent[key] == wanted]
        if not matching and (key == "pool" or wanted not in accounts()):
            hint = nearest(wanted, sorted({str(agent[key]) for agent in agents if agent[key]}))
            raise Failed(f"no agent with {key} {printable(wanted)!r}{hint}; nothing was switched")
        found.update((agent["identity"], agent) for agent in matching)
    return [found[identity] for identity in sorted(found)]


def verdicts(
    agents: Sequence[View],
    wishes: Wishes,
    ask: Ask,
    pause: Callable[[View, float], None],
) -> Iterator[Verdict]:
    """Have agents switched, one after another, and yield what came of each.

    Args:
        agents: who, in this order.
        wishes: to where, and how.
        ask: sends one message; what it raises ends all of this.
        pause: waits before an agent is switched, for so many seconds.
    """
    relaunched: float | None = None
    failures = 0
    for agent in agents:
        if failures >= FAILURES:
            reason = f"not touched, since {failures} in a row failed; the same command again goes on"
            yield {**_of(agent, wishes), "ok": False, "how": str(How.REFUSED), "reason": reason}
            continue
        if relaunched is not None and not wishes.dry_run and _runs(agent) and agent["account"] != wishes.to:
            wait = wishes.pace * random.uniform(1 - JITTER, 1 + JITTER)
            pause(agent, max(0.0, relaunched + wait - time.monotonic()))
        begun = time.monotonic()
        verdict = _verdict(agent, wishes, ask(_message(agent, wishes)))
        if verdict["how"] in (How.SWITCHED, How.FAILED, How.UNDER_WAY):
            relaunched = begun
        failures = failures + 1 if verdict["how"] == How.FAILED else 0
        yield verdict


def _message(agent: View, wishes: Wishes) -> dict[str, Any]:
    properties: dict[str, Any] = {"name": agent["identity"], "by": wishes.by, "waiting": True}
    if wishes.to is not None:
        properties["to"] = wishes.to
    return {
        "command": "switch",
        "properties": {**properties, "force": wishes.force, "dry_run": wishes.dry_run},
    }


def _of(agent: View, wishes: Wishes) -> Verdict:
    """Return what is known of an agent before anything was asked."""
    known = {key: agent.get(key) for key in ("identity", "phase", "cause", "generation", "state")}
    return {**known, "from": agent["account"], "to": wishes.to, "considered": []}


def _verdict(agent: View, wishes: Wishes, answer: Mapping[str, Any]) -> Verdict:
    """Return circusd's verdict; where it has refused the message itself, that as one."""
    verdict: Verdict = {**_of(agent, wishes), "ok": answer.get("status") == "ok"}
    verdict["reason"] = answer.get("reason")
    verdict.update((answer.get("agents") or [{}])[0])
    return {**verdict, "how": str(_how(verdict, wishes))}


def _how(verdict: Verdict, wishes: Wishes) -> How:
    if not verdict["ok"]:
        # What is refused at once was never under way.
        return How.FAILED if "under_way" in verdict and not wishes.dry_run else How.REFUSED
    if verdict.get("already"):
        return How.ALREADY
    if verdict.get("under_way") and not wishes.dry_run:
        return How.UNDER_WAY
    return How.SWITCHED if _runs(verdict) else How.NEXT_LAUNCH


def _runs(agent: View) -> bool:
    return agent["phase"] in (Phase.UP, Phase.STARTING)


# -- for people --------------------------------------------------------------------------------------


def line(verdict: Verdict) -> str:
    """Return what came of one agent, in one line."""
    how, phase, to = verdict["how"], verdict["phase"], verdict["to"]
    why = f": {verdict['reason']}" if verdict["reason"] else ""
    if how == How.ALREADY:
        what = f"already on {to} ({phase})"
    elif how == How.NEXT_LAUNCH:
        what, why = f"{phase}; its next launch is on {to}", ""
    elif how == How.SWITCHED:
        what = f"{phase} on {to} (generation {verdict['generation']})"
    elif how == How.UNDER_WAY:
        what = f"{phase}, on its way to {to}"
    else:
        what = f"{how}, {phase} on {verdict['from'] or 'no account'}"
    return f"{verdict['identity']}: {what}{why}"


def summary(done: Sequence[Verdict], total: int) -> str:
    """Return how many were switched, in one line.

    Args:
        done: the verdicts so far.
        total: how many agents were meant.
    """
    counts: dict[str, int] = {}
    for verdict in done:
        counts[verdict["how"]] = counts.get(verdict["how"], 0) + 1
    parts = [f"{number} {how}" for how, number in counts.items()]
    parts += [f"{total - len(done)} not begun"] if total > len(done) else []
    return f"{total} agent{'s' if total != 1 else ''}: {', '.join(parts)}"


def progress(done: int, total: int, agent: str, doing: str) -> str:
    """Return one line about how far it is.

    Args:
        done: how many agents there is a verdict of.
        total: how many were meant.
        agent: which one is next.
        doing: what is done with that one.
    """
    width = 30
    filled = width * done // total if total else 0
    return f"switch [{'━' * filled}{'·' * (width - filled)}] {done} of {total}; {agent}: {doing}"
