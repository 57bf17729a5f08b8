"""Everything that is wrong with a fleet's configuration, found offline and reported at once.

Puts together what `fleet_file`, `settings`, `agent_settings` and the gate each find, and adds what only shows
when all agents are seen together. It changes nothing and needs no circusd.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from circus_failover import agent_variables, patience, pool_file, shared_state
from circus_failover.agent_settings import (
    PREFIX,
    AgentSettings,
    check_defaults,
    no_place_for_socket,
    parse,
)
from circus_failover.env_file import EnvFileError
from circus_failover.fleet_file import CONFIG_OPTION, CONFIG_VARIABLE, FleetFile, Unreadable, read
from circus_failover.notify_settings import exposed, unreadable
from circus_failover.policy.gate import Failure, judge
from circus_failover.settings import Account, Problem, Settings, SettingsError, Shared, Unusable, load


@dataclass(frozen=True)
class Report:
    """What one circus.ini and its failover.yaml amount to.

    `accepted` and `refused` are the agents that could be launched and those that could not, by identity.
    `settings` are the failover.yaml files that could be read, for whoever wants to make what is missing.
    """

    problems: tuple[Problem, ...] = ()
    failures: tuple[Failure, ...] = ()
    accepted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settings: tuple[Settings, ...] = ()

    @property
    def ok(self) -> bool:
        """True when nothing at all was found. Notes do not count."""
        return not self.problems and not self.failures


def validate(ini: Path) -> Report:
    """Check a fleet: circus.ini, each failover.yaml it names, every agent, and the gate of every account."""
    unread: tuple[Problem, ...] = ()
    try:
        fleet = read(ini)
    except Unreadable as error:
        unread, fleet = error.problems, error.right
    except SettingsError as error:
        return Report(error.problems, notes=tuple(_tmux()))
    configs = {path: _loaded(path) for path in fleet.config_paths()}
    loaded = {path: found for path, found in configs.items() if isinstance(found, Settings)}
    problems = [*unread, *fleet.problems]
    for config in configs.values():
        problems.extend(() if isinstance(config, Settings) else config.problems)
        if (right := _right(config)) is not None:
            problems.extend(check_defaults(right))
    agents: dict[str, AgentSettings] = {}
    wrong: dict[str, list[Problem]] = {}
    for watcher in fleet.agents:
        result = _agent(fleet, watcher, configs)
        if isinstance(result, AgentSettings):
            agents[result.identity] = result
        else:
            wrong[str(watcher["name"])] = result
    for section, problem in (
        *_clashes(fleet, agents),
        *_sockets(fleet, agents),
        *patience.problems(fleet, agents),
    ):
        wrong.setdefault(section, []).append(problem)
    pools = pool_file.pools_of(fleet)
    problems.extend(problem for error in pools.values() for problem in _problems_of(error))
    problems.extend(_pool_sizes(fleet, agents))
    problems.extend(problem for found in wrong.values() for problem in found)
    problems.extend(_state_dirs(loaded))
    problems.extend(_same_accounts(loaded))
    for path, settings in loaded.items():
        problems.extend(unreadable(path, settings.notify))
    keyless: set[Account] = set()
    for account in (account for settings in loaded.values() for account in settings.accounts):
        if found := tuple(_env_file(account)):
            problems.extend(found)
            keyless.add(account)
    failures: list[Failure] = []
    for config in configs.values():
        right = _right(config)
        if right is not None and right.shared.root is not None:
            failures.extend(judge(shared_state.inspect(right, right.accounts), True, None).failures)
    accepted = [
        name
        for name, agent in agents.items()
        if not unread  # circusd would not even start
        and name not in wrong
        and agent.account not in keyless
        and shared_state.check(agent.settings, agent.account).ok
    ]
    return Report(
        problems=tuple({str(problem): problem for problem in problems}.values()),
        failures=tuple(dict.fromkeys(failures)),
        accepted=tuple(accepted),
        refused=tuple(str(watcher["name"]) for watcher in fleet.agents if watcher["name"] not in accepted),
        notes=(
            *fleet.notes,
            *(note for path, settings in loaded.items() for note in exposed(path, settings.notify)),
            *_tmux(),
            *_hand_written(fleet, pools),
            *(() if fleet.agents else ("no watcher names the enrol hook: no agents",)),
        ),
        settings=tuple(loaded.values()),
    )


def _loaded(path: Path) -> Settings | SettingsError:
    try:
        return load(path)
    except SettingsError as error:
        return error


def _right(found: Settings | SettingsError) -> Settings | None:
    """What is right of a failover.yaml, where it could be read at all: the rest hides no other mistake."""
    if isinstance(found, Settings):
        return found
    return found.right if isinstance(found, Unusable) else None


def _agent(
    fleet: FleetFile, watcher: Mapping[str, object], configs: Mapping[Path, Settings | SettingsError]
) -> AgentSettings | list[Problem]:
    section = f"watcher:{watcher['name']}"
    path = fleet.config_path(watcher)
    if path is None:
        expected = f"the path of a failover.yaml, here or as {CONFIG_VARIABLE} in [env]"
        return [Problem(fleet.source(section), CONFIG_OPTION, None, expected, section=section)]
    settings = configs[path]
    if isinstance(settings, Settings):
        return _parsed(watcher, settings, fleet.source(section))
    # What is wrong with failover.yaml is said of that file. The watcher's own mistakes are told all the same,
    # as far as they do not depend on it: not what an account or a default could have set right.
    dependent = ("account", "socket")
    alone = {key: value for key, value in watcher.items() if key.removeprefix(PREFIX) not in dependent}
    right = _right(settings)
    defaults = (
        {} if right is None else {key: value for key, value in right.defaults.items() if key not in dependent}
    )
    found = _parsed(alone, Settings(path, Path("/"), Shared(), (), defaults), fleet.source(section))
    return (
        []
        if isinstance(found, AgentSettings)
        else [problem for problem in found if problem.value is not None]
    )


def _parsed(watcher: Mapping[str, object], settings: Settings, file: str) -> AgentSettings | list[Problem]:
    try:
        return parse(watcher, settings, file)
    except SettingsError as error:
        return list(error.problems)


def _clashes(fleet: FleetFile, agents: Mapping[str, AgentSettings]) -> Iterator[tuple[str, Problem]]:
    """Agents that would be the same tmux session."""
    taken: dict[tuple[str, str], str] = {}
    for identity, agent in agents.items():
        folder, name = os.path.split(agent.socket)
        socket = os.path.join(os.path.realpath(folder), name)
        first = taken.setdefault((socket, agent.session), identity)
        if first != identity:
            section = f"watcher:{identity}"
            expected = f"a session of its own on {agent.socket}; agent {first} has this one"
            yield (
                identity,
                Problem(fleet.source(section), PREFIX + "session", agent.session, expected, section),
            )


def _sockets(fleet: FleetFile, agents: Mapping[str, AgentSettings]) -> Iterator[tuple[str, Problem]]:
    """Agents whose tmux server cannot have its socket where it should."""
    for identity, agent in agents.items():
        if expected := no_place_for_socket(agent):
            section = f"watcher:{identity}"
            found = str(agent.socket)
            yield identity, Problem(fleet.source(section), PREFIX + "socket", found, expected, section)


def _pool_sizes(fleet: FleetFile, agents: Mapping[str, AgentSettings]) -> Iterator[Problem]:
    """Members of one pool that say different things of how many of them are always up."""
    said: dict[str, tuple[int, str]] = {}
    for watcher in fleet.agents:
        agent = agents.get(str(watcher["name"]))
        if agent is None or agent.pool is None or PREFIX + "pool_min" not in watcher:
            continue  # one that says nothing gets the pool's work, and is not counted
        least, first = said.setdefault(agent.pool, (agent.pool_min, agent.identity))
        if agent.pool_min != least:
            section = f"watcher:{agent.identity}"
            there = fleet.source(f"watcher:{first}")
            expected = f"{least}, as [watcher:{first}] says ({there}): all of pool {agent.pool} agree"
            key, found = PREFIX + "pool_min", str(agent.pool_min)
            yield Problem(fleet.source(section), key, found, expected, section)


def _problems_of(found: object) -> tuple[Problem, ...]:
    return found.problems if isinstance(found, SettingsError) else ()


def _hand_written(fleet: FleetFile, pools: Mapping[str, object]) -> Iterator[str]:
    """Files of pools that are not as `failoverctl pool` would write them."""
    for name, pool in pools.items():
        path = pool_file.file_of(fleet, name)
        if isinstance(pool, pool_file.Pool) and path.read_text(errors="replace") != pool.text():
            yield f"{path} is not as `failoverctl pool` wrote it: the next `pool resize {name}` undoes that"


def _env_file(account: Account) -> Iterator[Problem]:
    """What is wrong with an account's `env_file`."""
    try:
        agent_variables.of_account(account)
    except EnvFileError as error:
        for one in error.mistakes:
            expected = f"{one.expected}: {one.remedy}"
            yield Problem(str(error.path), "", one.found, expected, line=one.line)


def _state_dirs(loaded: Mapping[Path, Settings]) -> Iterator[Problem]:
    first: Settings | None = None
    for settings in loaded.values():
        path = os.path.realpath(settings.state_dir)
        if first is None:
            first = settings
        elif path != os.path.realpath(first.state_dir):
            expected = f"{first.state_dir}, as in {first.path}: one circusd holds one state directory"
            yield Problem(str(settings.path), "state_dir", str(settings.state_dir), expected)
        expected = _state_dir(path)
        if expected:
            yield Problem(str(settings.path), "state_dir", str(settings.state_dir), expected)


def _same_accounts(loaded: Mapping[Path, Settings]) -> Iterator[Problem]:
    """Yield accounts of several failover.yaml that one circusd would take for one another.

    What is known of an account is kept by its name, whichever file names it.
    """
    names: dict[str, tuple[Account, Path]] = {}
    homes: dict[str, tuple[Account, Path]] = {}
    for path, settings in loaded.items():
        for index, account in enumerate(settings.accounts):
            where, home = f"accounts[{index}]", os.path.realpath(account.home)
            same, file = names.setdefault(account.name, (account, path))
            if (os.path.realpath(same.home), same.runtime) != (home, account.runtime):
                expected = f"a name of its own; in {file} it is {same.runtime} in {same.home}"
                yield Problem(str(path), f"{where}.name", account.name, expected)
            other, file = homes.setdefault(home, (account, path))
            if other.name != account.name:
                expected = f"a folder of its own, or the name {other.name}, as in {file}"
                yield Problem(str(path), f"{where}.home", str(account.home), expected)


def _state_dir(path: str) -> str:
    """What is expected of a state directory that is not so; empty when it can be used."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        usable = os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)
        return (
            ""
            if usable
            else f"a folder that can be made: {parent} is not a folder that this user may write to"
        )
    except OSError as error:
        return f"a folder that can be used: {error.strerror}"
    mode = stat.S_IMODE(found.st_mode) & 0o777
    if not stat.S_ISDIR(found.st_mode):
        return "a folder: something else is there"
    if found.st_uid != os.geteuid():
        return f"a folder of the user that runs circusd, uid {os.geteuid()}: it belongs to uid {found.st_uid}"
    if mode != 0o700:
        return f"a folder with mode 0700, not {mode:04o}: chmod 700 it"
    return "" if os.access(path, os.W_OK | os.X_OK) else "a folder that can be written to"


def _tmux() -> Iterator[str]:
    if shutil.which("tmux") is None:
        yield "tmux is not on PATH: every agent will be refused until it is installed"
