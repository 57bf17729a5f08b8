"""Deaths and what was found at them, read from the state directory of a host that is this machine.

Reads only, in threads: a disk that is slow holds up no page. No name from a URL becomes a path before it was
seen to be a snapshot's, and nothing is followed out of the folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import time
from typing import Any

from pydantic import Field

from circus_failover import deaths as found_deaths
from circus_failover.canary import watched
from circus_failover.failure import Failed
from circus_failover.problems import describe
from circus_failover.state_dir import StateDir
from circus_failover.store import StoreError
from circus_failover.web.checking import Query, Whole, Wrong
from circus_failover.web.reads import Asked, NotPossible, NotThere, Text

SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9]+\.json")
"""The names that the canary gives to snapshots (`canary.forensics`)."""
LARGEST = 5 * 1024 * 1024
SINCE = "24h"


class DeathsQuery(Query):
    """Parameters of the deaths."""

    since: Text = Field(
        SINCE,
        description=(
            "how long ago (2h, 30m, 1d12h), a date, a time of today or a date with a time, in the console's "
            "zone or with its own (2026-11-21T14:30:00Z), today or yesterday"
        ),
    )
    name: Text = Field(default_factory=str, description="only deaths of this agent, or glob")
    limit: Whole = Field(1000, ge=1, le=10000, description="at most so many, the newest")


def _state_of(asked: Asked) -> StateDir:
    """Return a host's state directory.

    Raises:
        NotPossible: it is on another machine, or nobody knows yet where it is.
    """
    host = asked.host
    if host.state is None:
        raise NotPossible(
            f"the state directory of {host.name} is on another machine, or its circusd has not said where it "
            "is: look on that machine, by the console there or with `failoverctl deaths`"
        )
    return host.state


async def deaths(asked: Asked) -> dict[str, Any]:
    """The deaths since a time, the oldest first, as `failoverctl --json deaths` prints them."""
    query = asked.query
    assert isinstance(query, DeathsQuery)
    state = _state_of(asked)
    try:
        since = found_deaths.since(query.since, time.time())
    except ValueError as error:
        raise Wrong(str(error).removeprefix("--")) from error
    return await asyncio.to_thread(_deaths, state, since, query)


def _deaths(state: StateDir, since: float, query: DeathsQuery) -> dict[str, Any]:
    try:
        read = found_deaths.read(state, since)
    except StoreError as error:
        raise NotPossible(f"{error}; {state.exits_log} has the deaths of servers and agents too") from error
    names = [query.name] if "name" in query.model_fields_set else []
    try:
        chosen = found_deaths.chosen(read.incidents, names, read.known)
    except Failed as error:
        raise NotThere(str(error)) from error
    return {
        "since": since,
        "deaths": [found_deaths.as_json(one) for one in chosen[-query.limit :]],
        "more": len(chosen[: -query.limit]),
        "notes": read.notes,
    }


async def forensics(asked: Asked) -> dict[str, Any]:
    """One snapshot of a death."""
    state = _state_of(asked)
    if not SNAPSHOT.fullmatch(asked.name):
        raise NotThere(f"no snapshot is named {describe(asked.name)}; `deaths` names them")
    return await asyncio.to_thread(_snapshot, state, asked.name)


def _snapshot(state: StateDir, name: str) -> dict[str, Any]:
    try:
        raw = _content(state, name)
    except FileNotFoundError:
        raise NotThere(f"there is no snapshot {name} (any more): only the newest are kept") from None
    except OSError as error:
        raise NotPossible(f"the snapshot {name} cannot be read: {error.strerror or error}") from error
    try:
        # What JSON does not know (NaN) would make our answer none.
        document = json.loads(raw, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise NotPossible(f"the snapshot {name} is no JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise NotPossible(f"the snapshot {name} is none: expected an object")
    return document


def _content(state: StateDir, name: str) -> bytes:
    """Return a regular file of the folder, by no link.

    Raises:
        OSError: it is not there, is something else, or is too large.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    folder = os.open(state.path / watched.FORENSICS, flags | os.O_DIRECTORY)
    try:
        # Whatever it is, to open it must not wait (a pipe would).
        handle = os.open(name, flags | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is no file")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(LARGEST + 1)
    finally:
        os.close(handle)
    if len(content) > LARGEST:
        raise OSError(f"it has {found.st_size} bytes, expected at most {LARGEST}")
    return content
