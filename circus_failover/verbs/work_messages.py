"""What the verbs about assignments share: what a message may say, and an assignment as a line."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover.assignment_text import ID, ID_EXPECTED
from circus_failover.problems import describe, nearest, printable
from circus_failover.verbs.selection import NAME_SHOWN, one_agent, supervisor_of
from circus_failover.words import AssignmentState

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.records import AssignmentRow
    from circus_failover.supervisor import Supervisor

NEAREST_OF = 200


def shown(held: Supervisor, rows: Iterable[AssignmentRow]) -> list[dict[str, Any]]:
    """Return what front ends show of assignments.

    `position` is the turn of one that waits for an owner, among those for the same agent or pool, from 1.
    """
    rows = list(rows)
    positions = _positions(held, {row.number for row in rows if _waits(row)})
    return [{**held.assignments.shown(row), "position": positions.get(row.number)} for row in rows]


def _waits(row: AssignmentRow) -> bool:
    return row.state == str(AssignmentState.QUEUED) and row.owner is None


def _positions(held: Supervisor, wanted: set[int]) -> dict[int, int]:
    """Return the positions of these; many wait and are asked about often, so that no more is looked at."""
    turns: Counter[tuple[str | None, str | None]] = Counter()
    positions: dict[int, int] = {}
    for job in held.assignments.records.book.jobs() if wanted else ():
        turns[job.wanted, job.pool] += 1
        if job.number in wanted:
            positions[job.number] = turns[job.wanted, job.pool]
            if len(positions) == len(wanted):
                break
    return positions


# -- for people --------------------------------------------------------------------------------------


def line(item: dict[str, Any], already: bool = False) -> str:
    """Return an assignment as a line: its id, what has become of it, and what was said of it.

    Args:
        item: what front ends show of it.
        already: it was there before.
    """
    state, owner, note = item["state"], item["owner"], item["note"]
    text = state
    if state == str(AssignmentState.QUEUED) and owner is None:
        text = f"queued for {whose(item)}"
        text += f" (position {item['position']})" if item.get("position") else ""
    elif state == str(AssignmentState.QUEUED):
        text = f"queued for {owner}, which has yet to take it"
    elif state == str(AssignmentState.CANCELLED):
        # Its note says by whom.
        text, note = printable(note or state), None
        text += f" ({owner} had it)" if owner is not None else ""
    elif owner is not None:
        word = {str(AssignmentState.DELIVERED): "to", str(AssignmentState.DONE): "by"}.get(state, "in")
        text = f"{state} {word} {owner}"
    known = "already there, " if already else ""
    more = note or item.get("waits_for")
    return f"{item['id']}: {known}{text}" + (f": {printable(more)}" if more else "")


def whose(item: dict[str, Any]) -> str:
    """Return whom an assignment is for."""
    return item["wanted"] or f"pool {item['pool']}"


# -- what a message says -----------------------------------------------------------------------------


def checked_ids(names: Iterable[str]) -> None:
    """Check ids of a command line.

    Raises:
        ArgumentError: one cannot be an id.
    """
    for name in names:
        if not ID.fullmatch(name):
            raise ArgumentError(f"the id {describe(name)}: expected {ID_EXPECTED}")


def message_of(command: Command, args: tuple[str, ...]) -> Any:
    """Return the message of a verb that takes nothing but ids.

    Raises:
        ArgumentError: there is none, or one cannot be an id.
    """
    if not args:
        raise ArgumentError(f"{command.name} takes the ids of assignments; `work` lists them")
    checked_ids(args)
    return command.make_message(ids=list(args))


def whom_given(verb: str, names: tuple[str, ...], pool: str | None) -> dict[str, str]:
    """Return what a message says of whom an assignment is for.

    Raises:
        ArgumentError: a command line names neither an agent nor a pool, or both.
    """
    if len(names) + (pool is not None) != 1:
        raise ArgumentError(f"{verb} takes the name of one agent or --pool, and not both")
    return {"name": names[0]} if pool is None else {"pool": pool}


def text_given(props: dict[str, Any], key: str) -> str | None:
    """Return a text of a message, or None.

    Raises:
        MessageError: it is something else.
    """
    found = props.get(key)
    if found is not None and not isinstance(found, str):
        raise MessageError(f"{key}: found {describe(found)}, expected a text")
    return found


def ids_given(props: dict[str, Any]) -> list[str]:
    """Return the ids in a message, each once.

    Raises:
        MessageError: they are none.
    """
    names = props.get("ids")
    if not isinstance(names, list) or not names:
        raise MessageError(f"ids: found {describe(names)}, expected a list of ids of assignments")
    for name in names:
        if not isinstance(name, str) or not ID.fullmatch(name):
            raise MessageError(f"ids: found {describe(name)}, expected {ID_EXPECTED}")
    return list(dict.fromkeys(names))


def whom(arbiter: Any, props: dict[str, Any]) -> tuple[Agent | None, str | None]:
    """Return the agent or the pool that a message names.

    Raises:
        MessageError: it names neither, both, or one that there is not.
    """
    name, pool = text_given(props, "name"), text_given(props, "pool")
    if name is not None and pool is None:
        return one_agent(arbiter, name), None
    if pool is None or name is not None:
        raise MessageError("expected the name of one agent, or a pool, and not both")
    known_pool(arbiter, pool)
    return None, pool


def known_pool(arbiter: Any, pool: str) -> None:
    """Check that some agent is in a pool.

    Raises:
        MessageError: none is.
    """
    agents = supervisor_of(arbiter).roster.agents.values()
    pools = {agent.settings.pool for agent in agents if agent.settings and agent.settings.pool}
    if pool not in pools:
        hint = nearest(pool[:NAME_SHOWN], pools)
        raise MessageError(f"no agent is in a pool {describe(pool)}{hint}; failover.pool puts one in it")


def unknown(held: Supervisor, name: str) -> str:
    """Return the sentence about an id that no assignment has."""
    # Ten thousand ids would be compared for most of a second, in circusd's only loop.
    alike = (row.id for row in held.assignments.all() if abs(len(row.id) - len(name)) <= 2)
    hint = nearest(name, itertools.islice(alike, NEAREST_OF))
    return f"no assignment {name}{hint}; `work` lists them"
