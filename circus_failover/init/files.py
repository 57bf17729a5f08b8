"""The text of failover.yaml and circus.ini, and the proof that it is read as it was meant.

Circus's own reader replaces variables, cuts comments and joins lines, and our settings expand `$NAME`, with
no way to quote; so what is written is read back by both before it is used, and a value that would come out
as another is refused.
"""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from circus.config import get_config

from circus_failover import agent_settings, settings
from circus_failover.fleet_file import ENROL
from circus_failover.init.plan import Agent, Wish
from circus_failover.problems import SettingsError, describe, printable
from circus_failover.state_dir import StateDir

YAML, INI = "failover.yaml", "circus.ini"
PLUGINS = (
    ("guard", "CrashLoopGuard", "Brings back agents that ended by themselves, as their restart policy says."),
    ("reaper", "IdleReaper", "Parks agents that are proven idle for longer than their failover.idle_secs."),
    ("canary", "Canary", "Sees how a tmux server dies, also while circusd is down, and writes it down."),
    ("states", "AgentStates", "Learns what each agent does: idle, working, waiting, limited."),
    ("heartbeat", "Heartbeat", "Looks whether agents with an assignment get on with it."),
    ("failover", "AccountFailover", "Moves or holds agents whose account is exhausted, and wakes the held."),
)


def render(wish: Wish) -> dict[str, str]:
    """Return the files of a fleet: their text by path, failover.yaml first."""
    return {str(wish.folder / YAML): _yaml(wish), str(wish.folder / INI): _ini(wish)}


def path_text(path: Path, folder: Path) -> str:
    """Return a path as failover.yaml names it: from the file's folder where only so it has no `$`."""
    text = str(path)
    if "$" in text and path.is_relative_to(folder):
        return os.path.join(".", path.relative_to(folder))
    return text


def _scalar(text: str) -> str:
    """Return a text as one line of YAML."""
    dumped: str = yaml.safe_dump(text, allow_unicode=True, width=2**30)
    return dumped.rstrip("\n").removesuffix("\n...")


def _yaml(wish: Wish) -> str:
    folder = wish.folder
    lines = [
        "# Written by failoverctl init; failover.yaml.example shows what else there is.",
        "# Relative paths are relative to this file.",
        "",
        "# The store, the logs, the tmux sockets.",
        f"state_dir: {_scalar(path_text(wish.state_dir, folder))}",
        "",
    ]
    if wish.root is not None:
        lines += [
            "# What all accounts share: each home links into it, so that any can resume any agent's work.",
            "shared:",
            f"  root: {_scalar(path_text(wish.root, folder))}",
        ]
    else:
        lines += [
            "# Nothing is shared: an agent's conversations stay with its account.",
            "shared:",
            "  root: shared",
            "  links: []",
        ]
    if wish.accounts:
        lines += ["", "# A named home directory with its own credentials each.", "accounts:"]
    for account in wish.accounts:
        lines += [
            f"  - name: {_scalar(account.name)}",
            f"    runtime: {account.runtime}",
            f"    home: {_scalar(path_text(account.home, folder))}",
        ]
    return "\n".join(lines) + "\n"


def _ini(wish: Wish) -> str:
    state = wish.state_dir
    lines = [
        "# Written by failoverctl init; circus.ini.example shows what else there is.",
        "",
        "[circus]",
        "# Both are in the state directory, which is readable by its owner alone.",
        f"endpoint = {_value(f'ipc://{state}/circusd.sock')}",
        f"pubsub_endpoint = {_value(f'ipc://{state}/events.sock')}",
        "# Seconds between Circus's own looks at its processes.",
        "check_delay = 1",
        "",
        "[env]",
        f"FAILOVER_CONFIG = {YAML}",
    ]
    for name, plugin, does in PLUGINS:
        lines += ["", f"# {does}", f"[plugin:{name}]", f"use = circus_failover.plugins.{plugin}"]
    for agent in wish.agents:
        lines += ["", *_watcher(agent, wish)]
    return "\n".join(lines) + "\n"


def _watcher(agent: Agent, wish: Wish) -> Iterator[str]:
    yield f"[watcher:{agent.identity}]"
    yield "cmd = failover-session"
    yield f"hooks.before_start = {ENROL}"
    if agent.account is not None:
        yield f"failover.runtime = {agent.account.runtime}"
        yield f"failover.account = {agent.account.name}"
    if wish.program is not None:
        yield f"failover.command = {_value(wish.program)}"
    yield f"working_dir = {_value(str(agent.working_dir))}"


def _value(text: str) -> str:
    """Return a value as Circus's reader takes it: further lines are indented, blanks at the end protected."""
    if text.startswith("/") and text[-1:].isspace():
        text += "/"
    return text.replace("\n", "\n ")


def problems(wish: Wish, texts: dict[str, str]) -> list[str]:
    """Return why these files would not be what was meant, a sentence each; empty when they are."""
    folder, found = wish.folder, []
    for name, path in _paths(wish):
        try:
            if settings.expand_path(path_text(path, folder), folder) != path:
                raise ValueError("a path without '$' before a letter: it begins a variable")
        except ValueError as error:
            found.append(f"{name} {describe(str(path))}: expected {error}")
    limit, longest = agent_settings.socket_path_limit(), f"{wish.state_dir}/circusd.sock"
    if len(os.fsencode(longest)) > limit:
        found.append(f"{describe(longest)}: expected at most {limit} bytes; --dir names a shorter folder")
    return found or list(_read_back(wish, texts))


def _paths(wish: Wish) -> Iterator[tuple[str, Path]]:
    yield "the state directory", wish.state_dir
    if wish.root is not None:
        yield "the shared root", wish.root
    for account in wish.accounts:
        yield f"account {account.name}: home", account.home


def _read_back(wish: Wish, texts: dict[str, str]) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="failover-init-") as scratch:
        for path, text in texts.items():
            Path(scratch, os.path.basename(path)).write_text(text, encoding="utf-8", errors="surrogateescape")
        try:
            config = get_config(str(Path(scratch, INI)))
            loaded = settings.load(Path(scratch, YAML))
        except SettingsError as error:
            yield from (str(problem).replace(scratch, str(wish.folder)) for problem in error.problems)
            return
        except Exception as error:  # Circus's reader meets wrong values with whatever comes about
            yield f"{INI}: {type(error).__name__}: {printable(str(error))}"
            return
        yield from _differences(wish, config)
        watchers = {str(watcher["name"]): watcher for watcher in config["watchers"]}
        for agent in wish.agents:
            try:
                agent_settings.parse(watchers.get(agent.identity, {}), loaded, str(wish.folder / INI))
            except SettingsError as error:
                yield from (str(problem).replace(scratch, str(wish.folder)) for problem in error.problems)


def _differences(wish: Wish, config: dict[str, Any]) -> Iterator[str]:
    expected = {"endpoint": f"ipc://{wish.state_dir}/circusd.sock"}
    expected["pubsub_endpoint"] = f"ipc://{wish.state_dir}/events.sock"
    for key, value in expected.items():
        if config[key] != value:
            yield f"{key} {describe(value)}: {INI} cannot say it: Circus reads {describe(config[key])}"
    names = [agent.identity for agent in wish.agents]  # Circus would make one watcher of two
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"agent {describe(name)}: expected a name that no other agent has"
    for watcher in config["watchers"]:
        meant = next((one for one in wish.agents if one.identity == watcher["name"]), None)
        if meant is None:
            yield f"agent {describe(watcher['name'])}: Circus reads it in place of another"
            continue
        agent = meant
        read = str(watcher["working_dir"])
        if os.path.abspath(read) != str(agent.working_dir):
            yield _unsayable(agent, "working directory", str(agent.working_dir), read)
        if wish.program is not None and watcher.get("failover.command") != wish.program:
            yield _unsayable(agent, "command", wish.program, str(watcher.get("failover.command")))


def _unsayable(agent: Agent, what: str, meant: str, read: str) -> str:
    return (
        f"agent {agent.identity}: {what} {describe(meant)}: {INI} cannot say it: Circus reads "
        f"{describe(read)}; give it another name, for example by a link"
    )


def state_dir_for(folder: Path, home: Path, identities: list[str]) -> Path:
    """Return where a fleet's state goes: beside its files, or below HOME where its sockets do not fit."""
    own = folder / "state"
    longest = max([*(str(StateDir(own).own_socket(one)) for one in identities)], key=len, default="")
    fits = len(os.fsencode(longest)) <= agent_settings.socket_path_limit()
    plain = all(unicodedata.category(one)[0] != "C" for one in str(own))
    return own if fits and plain else home / ".circus-failover" / "state"
