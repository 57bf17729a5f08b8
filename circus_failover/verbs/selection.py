"""Which watchers a verb is about, and who sent it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from circus.exc import MessageError

from circus_failover.problems import describe, nearest, printable

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor

PLAIN_CLIENT = "circusctl"
NAME_SHOWN = 120
"""How much of a name is repeated in an answer; an identity has at most 63 characters."""


class UnknownAgents(MessageError):  # type: ignore[misc]
    """Names that are no agent's; `reasons` says of each what is wrong with it."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


def supervisor_of(arbiter: Any) -> Supervisor:
    """Return the arbiter's supervisor; hook modules import the verbs, so it is looked up late."""
    from circus_failover import hooks

    return hooks.supervisor(arbiter)


def who(props: Mapping[str, Any]) -> str:
    """Return who asked: what `failoverctl` or a plugin says of itself, else a plain client."""
    return str(props.get("by") or PLAIN_CLIENT)


def names_given(props: Mapping[str, Any]) -> list[str]:
    """Return the names in a message, given as `names` or as `name`; empty when it has neither.

    Raises:
        MessageError: they are no list of names.
    """
    names = props.get("names")
    if names is None:
        names = [props["name"]] if "name" in props else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MessageError(f"names: found {describe(names)}, expected a list of names")
    return names


def selected(arbiter: Any, props: Mapping[str, Any]) -> tuple[list[Agent], list[Any]]:
    """Return the agents and the other watchers that a message names, as Circus matches names.

    Raises:
        MessageError: nothing matches, or the match method is unknown.
    """
    held = supervisor_of(arbiter)
    watchers = list(arbiter.iter_watchers())
    names = names_given(props)
    if names:
        match = str(props.get("match", "glob"))
        named = [watcher for name in names for watcher in _matching(watchers, name, match)]
        watchers = [watcher for watcher in watchers if watcher in named]
    agents = [held.roster.agents[watcher.name] for watcher in watchers if watcher.name in held.roster.agents]
    others = [watcher for watcher in watchers if watcher.name not in held.roster.agents]
    return agents, others


def _matching(watchers: list[Any], name: str, match: str) -> list[Any]:
    if match == "simple":
        found = [watcher for watcher in watchers if watcher.name.lower() == name.lower()]
    elif match in ("glob", "regex"):
        try:
            pattern = re.compile(fnmatch.translate(name.lower()) if match == "glob" else name.lower())
        except re.error as error:
            raise MessageError(f"{describe(name)} is no regular expression: {error}") from error
        found = [watcher for watcher in watchers if pattern.match(watcher.name.lower())]
    else:
        raise MessageError(f"unknown match method {match!r}: simple, glob or regex")
    if not found:
        hint = nearest(name, [str(watcher.name) for watcher in watchers])
        raise MessageError(f"program {printable(name)[:NAME_SHOWN]} not found{hint}")
    return found


def agents_named(arbiter: Any, props: Mapping[str, Any]) -> list[Agent]:
    """Return the agents that a message names, exactly or by glob.

    Raises:
        UnknownAgents: some match no agent, or a watcher that is none.
    """
    names = names_given(props)
    if not names:
        raise MessageError("names: expected the names of agents, found none")
    agents: dict[str, Agent] = {}
    unknown: dict[str, str] = {}
    for name in names:
        try:
            if any(mark in name for mark in "*?["):
                found, _ = selected(arbiter, {"names": [name]})
                if not found:
                    raise MessageError(f"{describe(name)} matches no agent; `fleet` lists them")
            else:
                found = [one_agent(arbiter, name)]
        except MessageError as error:
            unknown[name] = str(error)
        else:
            agents.update((agent.identity, agent) for agent in found)
    if unknown:
        raise UnknownAgents(unknown)
    return list(agents.values())


def one_agent(arbiter: Any, name: str) -> Agent:
    """Return the agent of this exact identity.

    Raises:
        MessageError: there is none, or the watcher is no agent.
    """
    held = supervisor_of(arbiter)
    agent = held.roster.agents.get(name)
    if agent is not None:
        return agent
    if any(watcher.name == name for watcher in arbiter.watchers):
        raise MessageError(
            f"{printable(name)} is a watcher but no agent: its section needs "
            "hooks.before_start = circus_failover.hooks.enrol"
        )
    hint = nearest(name[:NAME_SHOWN], held.roster.agents)
    raise MessageError(f"no agent {describe(name)}{hint}; `fleet` lists them")
