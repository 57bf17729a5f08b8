"""What the API answers to a GET: circusd is asked by its verbs, and the console for what only it knows.

Nothing is changed here. Whatever a URL names may not exist: that is `NotThere`, never an error of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints

from circus_failover.problems import describe, nearest, printable
from circus_failover.web.checking import Either, Query, Whole
from circus_failover.web.link import Refused, Unreachable
from circus_failover.words import AssignmentState, Role

if TYPE_CHECKING:
    from circus_failover.web.handler import Console
    from circus_failover.web.hosts import Host

ANSWER_SECS = 10.0
NAME_LENGTH = 255
HIDDEN = "(hidden: sign in as operator)"
"""Instead of a value of a watcher's environment, which may be a key of some service."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH)]


class NotThere(Exception):
    """What was asked about does not exist; the text is a sentence."""


class NotPossible(Exception):
    """It cannot be answered here; the text is a sentence that says where it can."""


class HistoryQuery(Query):
    """Parameters of an agent's history."""

    limit: Whole = Field(50, ge=1, le=10000, description="at most so many decisions, and so many launches")


class UsageQuery(Query):
    """Parameters of what all watchers used."""

    samples: Whole = Field(60, ge=1, le=720, description="how many of the newest samples")


class WorkQuery(Query):
    """Parameters of the assignments."""

    limit: Whole = Field(1000, ge=1, le=100000, description="at most so many; all are counted")
    id: Text = Field(default_factory=str, description="only this one, also when it is over")
    pool: Text = Field(default_factory=str, description="only those for this pool")
    agent: Text = Field(default_factory=str, description="only those that this agent has, or that are for it")
    state: AssignmentState = Field(
        default_factory=lambda: AssignmentState.QUEUED, strict=False, description="only those in this state"
    )
    all: Either = Field(False, description="also those that were over in the last 30 days")


class TasksQuery(Query):
    """Parameters of the tasks that wait."""

    name: Text = Field(default_factory=str, description="only those for this agent, or glob")


@dataclass(frozen=True)
class Asked:
    """One request."""

    console: Console
    role: Role
    at: Host | None
    """The host that the path names."""
    name: str
    """The last name in the path; empty where it has none."""
    query: Query

    @property
    def host(self) -> Host:
        """Return the host that the path names."""
        assert self.at is not None
        return self.at

    def given(self) -> dict[str, Any]:
        """Return the parameters that were given."""
        return self.query.model_dump(mode="json", exclude_unset=True)


def host_named(console: Console, name: str) -> Host:
    """Return a host of the console.

    Args:
        console: the console.
        name: from a URL.

    Raises:
        NotThere: there is none of that name.
    """
    try:
        return console.hosts.get(name)
    except KeyError:
        hint = nearest(name[:NAME_LENGTH], [host.name for host in console.hosts])
        raise NotThere(f"no host {describe(name)} is configured here{hint}") from None


def part(name: str) -> str:
    """Return a name from a URL.

    Raises:
        NotThere: nothing can have this name.
    """
    if not name.isprintable() or not 0 < len(name) <= NAME_LENGTH:
        raise NotThere(f"nothing is named {describe(name)}")
    return name


async def ask(host: Host, verb: str, properties: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a circusd's answer, as front ends get it.

    Raises:
        Refused: circusd said no.
        Unreachable: it did not answer.
    """
    return shown(await host.call(verb, properties, ANSWER_SECS))


def shown(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer of circusd without what is between it and its client."""
    return {key: value for key, value in answer.items() if key not in ("id", "tb")}


async def _about(asked: Asked, verb: str, known: Container[str], **properties: Any) -> dict[str, Any]:
    """Ask circusd about what the path names; what it refuses and nobody knows does not exist."""
    try:
        return await ask(asked.host, verb, {"name": asked.name, **properties})
    except Refused as error:
        if asked.name not in known:
            raise NotThere(printable(str(error))) from error
        raise


async def hosts(asked: Asked) -> dict[str, Any]:
    """The circusds that are shown."""
    return {"hosts": [host.summary() for host in asked.console.hosts]}


async def agents(asked: Asked) -> dict[str, Any]:
    """Every agent, and circusd itself; a plain Circus has none."""
    try:
        return await ask(asked.host, "fleet")
    except Refused as error:
        if "unknown command" in str(error):
            return {"agents": [], "circusd": asked.host.circusd}
        raise


async def agent(asked: Asked) -> dict[str, Any]:
    """What `explain` says, and how failoverctl prints it."""
    answer = await _about(asked, "explain", asked.host.agents)
    return {**answer, "lines": await asyncio.to_thread(_lines, answer)}


def _lines(answer: Mapping[str, Any]) -> list[str]:
    from circus_failover.verbs.fleet import Explain

    try:
        return str(Explain().console_msg({"status": "ok", **answer})).splitlines()
    except (LookupError, TypeError, ValueError, AttributeError):
        # Another circusd may be older or newer than this console; what it answered is true all the same.
        return []


async def history(asked: Asked) -> dict[str, Any]:
    """Decisions about an agent, and its launches."""
    return await _about(asked, "history", asked.host.agents, **asked.query.model_dump())


async def usage_of(asked: Asked) -> dict[str, Any]:
    """All samples of one agent or other watcher; none where nothing is known of it."""
    if asked.name not in asked.host.watchers and asked.name not in asked.host.agents:
        raise NotThere(f"{asked.host.name} has no watcher {describe(asked.name)}")
    return dict(asked.host.usage.history(asked.name))


async def usage(asked: Asked) -> dict[str, Any]:
    """The newest samples of all watchers."""
    assert isinstance(asked.query, UsageQuery)
    return dict(asked.host.usage.recent(asked.query.samples))


async def terminal(asked: Asked) -> dict[str, Any]:
    """One frame of what an agent's terminal shows."""
    from circus_failover.web.terminal import one_frame

    view = asked.host.agents.get(asked.name)
    if view is None:
        raise NotThere(f"{asked.host.name} has no agent {describe(asked.name)}")
    try:
        return {"frame": await one_frame(asked.host, view)}
    except LookupError as error:
        raise NotPossible(str(error.args[0]) if error.args else "it has no terminal") from error


async def processes(asked: Asked) -> dict[str, Any]:
    """What `stats` says of an agent's watcher."""
    return await _about(asked, "stats", asked.host.agents)


async def accounts(asked: Asked) -> dict[str, Any]:
    """What is known of the accounts."""
    return await ask(asked.host, "accounts")


async def work(asked: Asked) -> dict[str, Any]:
    """Assignments."""
    given = asked.given()
    if "id" in given:
        given["ids"] = [given.pop("id")]
    try:
        return await ask(asked.host, "work", given)
    except Refused as error:
        if error.answer.get("unknown"):
            raise NotThere(printable(str(error))) from error
        raise


async def tasks(asked: Asked) -> dict[str, Any]:
    """Tasks that wait."""
    given = asked.given()
    return await ask(asked.host, "tasks", {"names": [given["name"]]} if given else {})


async def watchers(asked: Asked) -> dict[str, Any]:
    """Every watcher, as the console knows them by circusd's events and its own re-reading."""
    if not asked.host.link.reachable:
        raise Unreachable(asked.host.link.why)
    return {"watchers": list(asked.host.watchers.values())}


async def watcher(asked: Asked) -> dict[str, Any]:
    """One watcher with its options and its processes."""
    known = asked.host.watchers
    status, options, stats = await asyncio.gather(
        *(_about(asked, verb, known) for verb in ("status", "options", "stats"))
    )
    view = known.get(asked.name, {})
    return {
        "name": asked.name,
        "status": status["status"],
        "options": _visible(options["options"], asked.role),
        "processes": stats["info"],
        "agent": bool(view.get("agent")),
    }


def _visible(options: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """Return a watcher's options as somebody may see them."""
    found = dict(options)
    if role is not Role.OPERATOR and isinstance(found.get("env"), Mapping):
        found["env"] = dict.fromkeys(found["env"], HIDDEN)
    return found


async def sockets(asked: Asked) -> dict[str, Any]:
    """The sockets that circusd holds."""
    return await ask(asked.host, "listsockets")


async def options(asked: Asked) -> dict[str, Any]:
    """circusd's own options."""
    return await ask(asked.host, "globaloptions")


async def circusd(asked: Asked) -> dict[str, Any]:
    """What circusd itself uses."""
    return await ask(asked.host, "dstats")
