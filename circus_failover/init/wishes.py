"""From the options of `init`, and what is on this machine where they say nothing, to what is wished.

It knows the defaults, and what the options look like. It only looks at whether folders are there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from circus_failover.agent_settings import IDENTITY
from circus_failover.client_processes import DEFAULT_HOMES
from circus_failover.failure import USAGE, Failed
from circus_failover.init import files
from circus_failover.init.plan import Agent, Wish
from circus_failover.init.survey import Survey, runtime_of_home
from circus_failover.problems import describe, nearest
from circus_failover.settings import ACCOUNT_NAME, RUNTIMES, Account


@dataclass(frozen=True)
class Options:
    """What was said on the command line, paths already absolute where they stand alone."""

    folder: Path
    base: Path
    """The operator's HOME."""
    here: Path
    """The current folder, where an agent works when nothing else is said."""
    accounts: Sequence[str] = ()
    second: Sequence[str] = ()
    agents: Sequence[str] = ()
    root: Path | None = None
    no_shared: bool = False
    program: str | None = None
    move_data: bool = False
    force: bool = False


def wish(options: Options, survey: Survey) -> Wish:
    """Return what is wished when nobody is asked.

    Raises:
        Failed: an option says what cannot be (exit 2).
    """
    accounts, new = chosen_accounts(options, survey)
    agents = chosen_agents(options, accounts)
    return assembled(options, survey, accounts, new, agents)


def assembled(
    options: Options,
    survey: Survey,
    accounts: Sequence[Account],
    new: frozenset[str],
    agents: Sequence[Agent],
) -> Wish:
    """Put what was chosen together with the defaults of the rest."""
    if options.program is None and any(one.account and one.account.runtime == "command" for one in agents):
        raise Failed("an agent of runtime command: expected --program, what it runs", USAGE)
    identities = [agent.identity for agent in agents]
    return Wish(
        folder=options.folder,
        state_dir=files.state_dir_for(options.folder, options.base, identities),
        root=None if options.no_shared or not accounts else options.root or _root(options, survey, accounts),
        accounts=tuple(accounts),
        agents=tuple(agents),
        program=options.program,
        new=new,
        move_data=options.move_data,
        force=options.force,
    )


def _root(options: Options, survey: Survey, accounts: Sequence[Account]) -> Path:
    """Return the folder that the homes already link into, or else the usual one."""
    homes = [account.home for account in accounts]
    for home in survey.homes:
        if home.root is not None and home.path in homes:
            return home.root
    return options.base / ".circus-failover" / "shared"


def chosen_accounts(
    options: Options, survey: Survey, every: bool = False
) -> tuple[list[Account], frozenset[str]]:
    """Return the accounts, and the names of those whose home may be made.

    Args:
        options: what was said.
        survey: what was found.
        every: also the homes that only some running process uses, since somebody is asked about each.
    """
    accounts = [account_of(text, survey) for text in options.accounts]
    new: set[str] = set()
    if not options.accounts:
        for home in (one for one in survey.homes if one.usual or every):
            accounts.append(Account(account_name(home.path, accounts), home.runtime, home.path))
    if not accounts:
        for client in survey.clients:  # never used here: its home comes to be now
            usual = options.base / DEFAULT_HOMES[client.runtime]
            accounts.append(Account(client.runtime, client.runtime, usual))
            new.add(client.runtime)
    for text in options.second:
        name, rest = _pair("--second-account", text)
        first = next((account.runtime for account in accounts), None)
        path, runtime = _runtime_at_end(rest)
        runtime = runtime or runtime_of_home(path) or first
        if runtime is None:
            raise Failed(f"--second-account {describe(text)}: expected a first account, by --account", USAGE)
        accounts.append(Account(name, runtime, path))
        new.add(name)
    return accounts, frozenset(new)


def account_of(text: str, survey: Survey) -> Account:
    """Read `NAME=HOME[:RUNTIME]`."""
    name, home = _pair("--account", text)
    path, runtime = _runtime_at_end(home)
    known = {found.path: found.runtime for found in survey.homes}
    if runtime is None:
        runtime = known.get(path) or runtime_of_home(path) or ("codex" if "codex" in path.name else "claude")
    return Account(name, runtime, path)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not (name and equals and rest):
        raise Failed(f"{option} {describe(text)}: expected NAME=FOLDER", USAGE)
    if option != "--agent" and not ACCOUNT_NAME.fullmatch(name):
        expected = "a name: 1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit"
        raise Failed(f"{option} {describe(text)}: expected {expected}", USAGE)
    if option == "--agent" and not IDENTITY.fullmatch(name):
        expected = "a name: 1 to 63 of a-z, 0-9 and '-', the first not '-'"
        raise Failed(f"{option} {describe(text)}: expected {expected}", USAGE)
    return name, rest


def _runtime_at_end(text: str) -> tuple[Path, str | None]:
    home, colon, runtime = text.rpartition(":")
    if colon and home and runtime in RUNTIMES:
        return absolute(home), runtime
    return absolute(text), None


def named_home(text: str) -> Path:
    """Return the home in `NAME=HOME[:RUNTIME]`, however wrong the rest."""
    return _runtime_at_end(text.partition("=")[2])[0]


def absolute(text: str) -> Path:
    """Return a path as an operator writes it: `~` expanded, from the current folder."""
    return Path(os.path.abspath(os.path.expanduser(text)))


def account_name(home: Path, taken: Sequence[Account]) -> str:
    """Return a name for the account of a home: `~/.claude-work` is `claude-work`."""
    return _free(re.sub(r"[^A-Za-z0-9_-]+", "-", home.name), "account", {one.name for one in taken})


def agent_name(working_dir: Path, taken: Sequence[Agent]) -> str:
    """Return an identity for an agent that works in a folder."""
    made = re.sub(r"[^a-z0-9]+", "-", working_dir.name.lower())
    return _free(made, "agent", {one.identity for one in taken})


def _free(made: str, otherwise: str, taken: set[str]) -> str:
    stem = made.strip("-_")[:50].strip("-_") or otherwise
    number, name = 1, stem
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name


def chosen_agents(options: Options, accounts: Sequence[Account]) -> list[Agent]:
    """Return the agents: those that were named, else one that works here."""
    agents = [agent_of(text, accounts) for text in options.agents]
    if not agents:
        first = accounts[0] if accounts else None
        agents.append(Agent(agent_name(options.here, agents), options.here, first))
    if not accounts and options.program is None:
        raise Failed(
            "no account home and no client was found: expected --account NAME=HOME, or --program", USAGE
        )
    return agents


def agent_of(text: str, accounts: Sequence[Account]) -> Agent:
    """Read `NAME=DIR[:ACCOUNT]`."""
    name, rest = _pair("--agent", text)
    return Agent(name, *place_of(rest, accounts))


def place_of(text: str, accounts: Sequence[Account]) -> tuple[Path, Account | None]:
    """Read `DIR[:ACCOUNT]`; without an account it is the first."""
    first = accounts[0] if accounts else None
    folder, colon, name = text.rpartition(":")
    if not (colon and folder) or absolute(text).is_dir():
        return absolute(text), first
    account = next((one for one in accounts if one.name == name), None)
    if account is None:
        names = [one.name for one in accounts]
        known = f"one of the accounts ({', '.join(names)}){nearest(name, names)}" if names else "no account"
        raise Failed(f"--agent: account {describe(name)}: expected {known}", USAGE)
    return absolute(folder), account
