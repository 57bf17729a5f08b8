"""The agents of a pool as circusd knows them, for `failoverctl pool`: who is there, who may leave, who left.

Everything is asked of circusd: an agent leaves by its verb `rm`, which looks once more whether anything would
be lost, at the moment of its intent. With circusd down nothing is ended, and the store is only read.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from circus.exc import CallError

from circus_failover import crashpoint
from circus_failover.agents import RUNTIMES
from circus_failover.circusd_site import Answer, ask, listens
from circus_failover.failure import Failed
from circus_failover.policy import pool as policy
from circus_failover.records import AgentRow, AssignmentRow
from circus_failover.state_dir import StateDir
from circus_failover.store import StoreError, open_reader
from circus_failover.words import AssignmentState, Phase, State

ANSWER_SECS = 30.0
CHANGE_SECS = 3600.0
"""An end may take as long as `failover.stop_secs` says, and a reload as long as all that it starts."""
LEAVE_AT_ONCE = 8
View = Mapping[str, Any]
GONE = (Phase.PARKED, Phase.DOWN, Phase.HELD, Phase.REFUSED, Phase.STOPPED)


def runs(endpoint: str) -> bool:
    """Say whether circusd answers."""
    try:
        return listens(endpoint) and ask(endpoint, "numwatchers", ANSWER_SECS).get("status") == "ok"
    except CallError:
        return False


def views(endpoint: str) -> dict[str, View]:
    """Return what circusd shows of each agent; empty where no agent of ours has ever been enrolled.

    Raises:
        CallError: it does not answer.
    """
    answer = ask(endpoint, "fleet", ANSWER_SECS)
    return {str(view["identity"]): view for view in answer.get("agents", [])}


def hindrances(found: Mapping[str, View], leaving: Iterable[str]) -> dict[str, str]:
    """Return who may not leave now, and why."""
    answer = {}
    for identity in leaving:
        view = found.get(identity)
        if view is None:
            continue
        runtime = view["runtime"]
        why = policy.hindrance(
            policy.Leaver(
                phase=Phase(view["phase"]),
                state=State(view["state"]) if view["state"] else None,
                tells=runtime not in RUNTIMES or RUNTIMES[runtime].tells,
                tasks=int(view.get("tasks") or 0),
                assignment=view["assignment"],
            )
        )
        if why:
            answer[identity] = why
    return answer


def live(found: Mapping[str, View], names: Iterable[str]) -> list[str]:
    """Return which of these agents run."""
    return [name for name in names if name in found and Phase(found[name]["phase"]) not in GONE]


def leave(
    endpoint: str, found: Mapping[str, View], leaving: Sequence[str], by: str, say: Callable[[str], None]
) -> None:
    """Have agents end and leave circusd, those that do not run first: else they would be started instead.

    Args:
        endpoint: where circusd listens.
        found: its agents.
        leaving: who leaves.
        by: who asks.
        say: shows what is waited for.

    Raises:
        Failed: some did not leave; circusd has the others back, as its files still say.
        CallError: it does not answer.
    """
    running = set(live(found, leaving))
    stayed: dict[str, str] = {}
    for several in ([n for n in leaving if n not in running], [n for n in leaving if n in running]):
        names = [name for name in reversed(several) if name in found]
        if stayed or not names:
            continue
        say(f"{len(names)} agents leave")
        with ThreadPoolExecutor(min(LEAVE_AT_ONCE, len(names))) as threads:
            answers = threads.map(lambda name: _remove(endpoint, name, by), names)
            stayed.update({name: why for name, why in zip(names, answers, strict=True) if why})
    if stayed:
        with contextlib.suppress(CallError):
            ask(endpoint, "reloadconfig", CHANGE_SECS, waiting=True, by=by)
        reasons = "; ".join(stayed.values())
        raise Failed(f"the pool is as it was, and those that had left begin anew: {reasons}")


def _remove(endpoint: str, name: str, by: str) -> str:
    """Have one agent removed; return why it was not, or an empty text."""
    answer = ask(endpoint, "rm", CHANGE_SECS, name=name, waiting=True, free=True, by=by)
    crashpoint.reached("pool-member-left")
    if answer.get("status") == "error" and "not found" not in str(answer.get("reason")):
        return str(answer.get("reason"))
    return ""


def reload(endpoint: str, by: str) -> Answer:
    """Have circusd re-read its files, and return its answer.

    Raises:
        CallError: it does not answer.
    """
    return ask(endpoint, "reloadconfig", CHANGE_SECS, waiting=True, by=by)


def counts(found: Mapping[str, View], names: Iterable[str]) -> dict[str, int]:
    """Return how many of these agents are in each phase; `unknown` are those that circusd does not have."""
    return dict(Counter(str(found[name]["phase"]) if name in found else "unknown" for name in names))


# -- the store ---------------------------------------------------------------------------------------


def remembered(state_dir: Path) -> tuple[dict[str, AgentRow], list[AssignmentRow], dict[str, int]]:
    """Return the agents, the open assignments and the numbers of waiting tasks that the store has.

    Raises:
        StoreError: it cannot be read.
    """
    path = StateDir(state_dir).store
    if not path.exists():
        return {}, [], {}
    reader = open_reader(path)
    try:
        return reader.agents(), reader.assignments(), reader.waiting()
    finally:
        reader.close()


def never_were(state_dir: Path | None, leaving: Iterable[str]) -> bool:
    """Say whether nothing is known of these agents, so that nothing has to be ended for them to leave."""
    if state_dir is None:
        return False
    try:
        rows, open_ones, waiting = remembered(state_dir)
    except StoreError:
        return False
    owners = {row.owner or row.wanted for row in open_ones}
    return not any(
        name in waiting or name in owners or (name in rows and rows[name].generation > rows[name].born)
        for name in leaving
    )


def queued(state_dir: Path | None, pool: str) -> int | None:
    """Return how many assignments of a pool wait for an owner; None: the store cannot be read."""
    if state_dir is None:
        return None
    try:
        _, open_ones, _ = remembered(state_dir)
    except StoreError:
        return None
    return sum(
        row.pool == pool and row.owner is None and row.state == str(AssignmentState.QUEUED)
        for row in open_ones
    )
