"""The variables that an agent gets: a base of circusd's, then its section's, its account's, its home's.

With `copy_env = True` Circus puts circusd's whole environment into a watcher's (Circus 0.19). What another
client, a terminal or another agent put there does not belong to an agent, and is left out here, unless a
section or an account says it itself. Nothing here is logged or shown: values may be secrets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from circus_failover import env_file, launch_file
from circus_failover.agent_settings import AgentSettings
from circus_failover.agents import RUNTIMES
from circus_failover.claims import SCRUBBED
from circus_failover.settings import Account

INHERITED: Mapping[str, str] = dict(os.environ)
"""What this process was started with, before `claims` takes out what is another agent's: circusd imports this
with the hook module, and Circus adds nothing to `os.environ` (0.19)."""
OWNED = ("FAILOVER_*", "TMUX*")
"""Names that the launch sets itself, so that no `env_file` may."""
_TERMINAL = ("TERM", "TERM_PROGRAM*", "TERMCAP", "TMUX*", "STY", "WINDOW")


def of_watcher(watcher: Any) -> dict[str, str]:
    """Return the variables of a watcher's agent, without its account's.

    Args:
        watcher: Circus's watcher.
    """
    from circus_failover.roster import own_environment

    return of_section(own_environment(watcher), copied=bool(watcher.copy_env))


def of_section(environment: Mapping[str, str], *, copied: bool) -> dict[str, str]:
    """Return the base and what a section says itself.

    Args:
        environment: what Circus made of the section.
        copied: Circus put circusd's own environment into it (`copy_env`). Then a variable that has the same
            value there is taken for a copy.
    """
    said = {
        name: value
        for name, value in environment.items()
        if not (copied and INHERITED.get(name) == value and _foreign(name))
    }
    return launch_file.agent_environment(os.environ, said, {})


def _foreign(name: str) -> bool:
    """Say whether a variable that was only inherited belongs to somebody else than this agent."""
    surrounding = (pattern for runtime in RUNTIMES.values() for pattern in runtime.surrounding)
    return name in SCRUBBED or any(fnmatchcase(name, pattern) for pattern in (*_TERMINAL, *surrounding))


def of_account(account: Account) -> Mapping[str, str]:
    """Return the variables of an account's `env_file`; none when it has no such file.

    Raises:
        EnvFileError: it cannot be used; the text holds no value.
    """
    if account.env_file is None:
        return {}
    return env_file.read(account.env_file, (*OWNED, *leading(account.runtime)))


def leading(runtime: str) -> tuple[str, ...]:
    """Return the names of the variables that lead a runtime's client to its home."""
    return tuple(RUNTIMES[runtime].environment(Path("/a/home/of/its/own"), {}))


def complete(agent: AgentSettings, own: Mapping[str, str], account: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an agent, but for those that name its launch.

    Args:
        agent: the agent as configured.
        own: its own variables (`of_watcher`).
        account: those of its account (`of_account`).
    """
    home = RUNTIMES[agent.runtime].home(agent, own)
    return leading_to(agent.runtime, home, {**own, **account}, named=agent.account is not None)


def leading_to(runtime: str, home: Path | None, given: Mapping[str, str], *, named: bool) -> dict[str, str]:
    """Return variables that lead a client to a home.

    Args:
        runtime: which client.
        home: the home; None: there is none, and nothing changes.
        given: the other variables.
        named: an account names the home, so that nothing else may.
    """
    if home is None:
        return dict(given)
    others = leading(runtime) if named else ()
    kept = {name: value for name, value in given.items() if name not in others}
    return {**kept, **RUNTIMES[runtime].environment(home, kept)}
