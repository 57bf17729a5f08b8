"""What is known of accounts, as the store keeps it (`AccountRow`) and as values (`policy.accounts.Known`).

Read strictly, row by row: what is not what this module writes is left out, and never guessed at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from circus_failover.policy.accounts import Known, ModelLimit, Usage
from circus_failover.records import AccountRow
from circus_failover.words import AccountState

T = TypeVar("T")


def known(row: AccountRow) -> Known:
    """Return what a row says; a state that nobody knows is `unknown`."""
    try:
        state = AccountState(row.state)
    except ValueError:
        state = AccountState.UNKNOWN
    return Known(
        name=row.name,
        runtime=row.runtime,
        state=state,
        limit_name=row.limit_name,
        until=row.until,
        text=row.text,
        since=row.since,
        seen_at=row.seen_at,
        seen_by=row.seen_by,
        source=row.source,
        answered_at=row.answered_at,
        used_at=row.used_at,
        models=_each(row.models, model_limit),
        usage=_each(row.usage, usage),
    )


def row(known: Known) -> AccountRow:
    """Return the row that says what is known."""
    return AccountRow(
        name=known.name,
        runtime=known.runtime,
        state=str(known.state),
        limit_name=known.limit_name,
        until=known.until,
        text=known.text,
        since=known.since,
        seen_at=known.seen_at,
        seen_by=known.seen_by,
        source=known.source,
        answered_at=known.answered_at,
        used_at=known.used_at,
        models=json.dumps([asdict(one) for one in known.models]),
        usage=json.dumps([asdict(one) for one in known.usage]),
    )


def usage(said: Any) -> Usage:
    """Return how much of a window is used, as `dataclasses.asdict` gave it.

    Raises:
        TypeError, ValueError, KeyError: it is anything else.
    """
    used = _number(said["used"])
    return Usage(_name(said["window"]), used, _number_or_none(said["resets_at"]), _number(said["at"]))


def model_limit(said: Any) -> ModelLimit:
    """Return a limit of one model, as `dataclasses.asdict` gave it.

    Raises:
        TypeError, ValueError, KeyError: it is anything else.
    """
    return ModelLimit(_name(said["name"]), _number_or_none(said["until"]), _number(said["seen_at"]))


def _each(text: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    found = []
    for one in said if isinstance(said, list) else ():
        try:
            found.append(read(one))
        except (TypeError, ValueError, KeyError, OverflowError):
            continue
    return tuple(found)


def _name(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 100:
        raise TypeError("expected a name")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("expected a number")
    if not math.isfinite(value) or value < 0:
        raise ValueError("expected a number from 0 on")
    return float(value)


def _number_or_none(value: object) -> float | None:
    return None if value is None else _number(value)
