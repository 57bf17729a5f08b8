"""The file of a pool: one ini file in circus.ini's include_dir, with a section for each of its agents.

What the pool is stands in a section of its own, `[failover-pool:NAME]`, so that the file can be written anew
for another size. Only `failoverctl pool` writes it, whole; nothing here talks to circusd.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from circus_failover import agent_settings, fleet_file, private_file
from circus_failover.agent_settings import IDENTITY, KEEPER, POOL_MAX, PREFIX
from circus_failover.failure import Failed
from circus_failover.fleet_file import ENROL, POOL_SECTION, FleetFile
from circus_failover.problems import Problem, SettingsError, describe, printable
from circus_failover.settings import Settings
from circus_failover.words import Restart

INDEX_MAX = 1_000_000
HEADER = "# Written by `failoverctl pool`"
_NUMBERS = ("start_index", "min", "max")
OWN_OPTIONS = (
    *("cmd", "args", "hooks.before_start", "autostart", "numprocesses", "prefix", *_NUMBERS),
    *("failover.pool", "failover.pool_min", "failover.restart"),
)
"""Options that a pool decides itself."""
_OURS = frozenset(PREFIX + option for option in agent_settings.OPTIONS)
_OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


class PoolError(ValueError):
    """A pool that cannot be; the text is a sentence that says why."""


@dataclass(frozen=True)
class Pool:
    """One pool as its file says."""

    name: str
    prefix: str
    start: int
    """The index of its first agent."""
    least: int
    """How many are always up."""
    most: int
    """How many there are."""
    options: Mapping[str, str]
    """What every section says; `{name}` and `{index}` stand for the agent's."""

    @property
    def members(self) -> tuple[str, ...]:
        """The identities of its agents, in the order of their index."""
        return tuple(f"{self.prefix}{index}" for index in range(self.start, self.start + self.most))

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"failover-pool-{self.name}.ini"

    def resized(self, least: int | None, most: int | None) -> Pool:
        """Return it with other numbers; None leaves one as it is.

        Raises:
            PoolError: there can be no such pool.
        """
        resized = make(
            self.prefix,
            self.start,
            self.least if least is None else least,
            self.most if most is None else most,
            self.options,
        )
        return replace(resized, name=self.name)

    def sections(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Give identity and options of each of its agents."""
        for number, identity in enumerate(self.members):
            index = str(self.start + number)
            options = {"cmd": KEEPER, "hooks.before_start": ENROL}
            for key, text in self.options.items():
                # No str.format: `{conversation}` and whatever else has braces stays as it is.
                options[key] = text.replace("{name}", identity).replace("{index}", index)
            options["failover.pool"], options["failover.pool_min"] = self.name, str(self.least)
            if number < self.least:
                options.update({"failover.restart": str(Restart.ALWAYS), "failover.idle_secs": "0"})
            else:
                options.update({"failover.restart": str(Restart.ON_WORK), "autostart": "False"})
            yield identity, options

    def text(self) -> str:
        """Return its file."""
        agents = "1 agent, " if self.most == 1 else f"{self.most} agents, "
        up = "of which none is" if not self.least else f"of which {self.least} {_are(self.least)}"
        lines = [
            f"{HEADER}: the pool {self.name}, {agents}{up} always up.",
            "# What is changed here by hand is lost: the file is written anew by `failoverctl pool resize`.",
            "",
            f"[{POOL_SECTION}{self.name}]",
            f"prefix = {self.prefix}",
            f"start_index = {self.start}",
            f"min = {self.least}",
            f"max = {self.most}",
            *(f"{key} = {text}" for key, text in self.options.items()),
        ]
        for identity, options in self.sections():
            lines += ["", f"[watcher:{identity}]", *(f"{key} = {text}" for key, text in options.items())]
        return "\n".join(lines) + "\n"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def make(prefix: str, start: int, least: int, most: int, options: Mapping[str, str]) -> Pool:
    """Return a pool, whose name is its prefix without the dashes at its end.

    Args:
        prefix: what the identities begin with.
        start: the first index.
        least: how many agents are always up.
        most: how many there are.
        options: of every section.

    Raises:
        PoolError: there can be no such pool.
    """
    if not IDENTITY.fullmatch(prefix):
        raise PoolError(
            f"prefix {describe(prefix)}: expected the beginning of identities: a-z, 0-9 and '-', "
            "the first not '-'"
        )
    if not 0 <= start <= INDEX_MAX:
        raise PoolError(f"--start-index {start}: expected 0 to {INDEX_MAX}")
    if not 1 <= most <= POOL_MAX:
        raise PoolError(f"--max {most}: expected 1 to {POOL_MAX} agents")
    if not 0 <= least <= POOL_MAX:
        raise PoolError(f"--min {least}: expected 0 to {POOL_MAX} agents")
    if least > most:
        raise PoolError(f"--min {least} is more than --max {most}: so many agents cannot be up")
    pool = Pool(prefix.rstrip("-"), prefix, start, least, most, dict(options))
    last = pool.members[-1]
    if not IDENTITY.fullmatch(last):
        raise PoolError(
            f"prefix {describe(prefix)}: {last} has {len(last)} characters, an identity at most 63"
        )
    for key, text in options.items():
        _check_option(key, text)
    return pool


def _check_option(key: str, text: str) -> None:
    if not _OPTION.fullmatch(key):
        raise PoolError(f"option {describe(key)}: expected a name as in circus.ini, like failover.idle_secs")
    if PREFIX + key in _OURS:
        raise PoolError(f"option {key}: did you mean {PREFIX}{key}?")
    if key in OWN_OPTIONS:
        raise PoolError(f"option {key}: the pool decides it, so it cannot be given")
    if not text.isprintable():
        raise PoolError(f"option {key}: {describe(text)} has characters that an ini file cannot hold")


def number(option: str, text: str) -> int:
    """Return the value of an option that is a whole number.

    Raises:
        PoolError: it is none.
    """
    if not re.fullmatch(r"-?[0-9]{1,30}", text.strip()):
        raise PoolError(f"{option} {describe(text)}: expected a whole number")
    return int(text)


# -- files -------------------------------------------------------------------------------------------


def parse(name: str, items: Mapping[str, str], file: str) -> Pool:
    """Return the pool that a section says.

    Args:
        name: the section's, without its kind.
        items: what it says.
        file: where it stands, for the message.

    Raises:
        SettingsError: it says no pool.
    """
    section = POOL_SECTION + name
    values: dict[str, int] = {}
    problems = []
    for key in _NUMBERS:
        try:
            values[key] = number(key, items.get(key, ""))
        except PoolError:
            problems.append(Problem(file, key, items.get(key), "a whole number", section=section))
    if problems:
        raise SettingsError(problems)
    options = {key: text for key, text in items.items() if key not in ("prefix", *_NUMBERS)}
    try:
        pool = make(items.get("prefix", ""), values["start_index"], values["min"], values["max"], options)
    except PoolError as error:
        raise SettingsError([Problem(file, "", str(error), "a pool that can be", section=section)]) from error
    if pool.name != name:
        expected = f"the beginning of the identities of pool {name}: {name}-"
        raise SettingsError([Problem(file, "prefix", pool.prefix, expected, section=section)])
    return pool


def pools_of(fleet: FleetFile) -> dict[str, Pool | SettingsError]:
    """Return the pools of a circus.ini by name, or what is wrong with one."""
    found: dict[str, Pool | SettingsError] = {}
    for name, items in fleet.pools.items():
        try:
            found[name] = parse(name, items, fleet.source(POOL_SECTION + name))
        except SettingsError as error:
            found[name] = error
    return found


def file_of(fleet: FleetFile, name: str) -> Path:
    """Return the file that a pool is in."""
    return Path(os.path.realpath(fleet.source(POOL_SECTION + name)))


def folder(fleet: FleetFile) -> Path:
    """Return the folder that the files of new pools go into.

    Raises:
        Failed: circus.ini has no include_dir, or it names no folder.
    """
    ini = fleet.path.absolute()
    folders = [ini.parent / entry for entry in fleet.include_dir.split()]
    if not folders:
        raise Failed(
            f"{ini} has no include_dir, and a pool is a file of its own: add the line "
            f"`include_dir = fleet.d` below [circus], and make that folder: mkdir {ini.parent / 'fleet.d'}"
        )
    there = next((path for path in folders if path.is_dir()), None)
    if there is None:
        raise Failed(f"{ini}: include_dir = {fleet.include_dir}: there is no such folder: mkdir {folders[0]}")
    return there


def strangers(path: Path, pool: Pool) -> list[str]:
    """Return the sections of a pool's file that are not the pool's: the file is not written over them."""
    own = {POOL_SECTION + pool.name}
    known = re.compile(rf"watcher:{re.escape(pool.prefix)}[0-9]+")
    with open(path, encoding="utf-8", errors="replace") as lines:
        sections = [match[1] for line in lines if (match := re.match(r"\[(.+)\]", line))]
    return [section for section in sections if section not in own and not known.fullmatch(section)]


def taken(pool: Pool, path: Path, fleet: FleetFile) -> list[tuple[str, str]]:
    """Return the identities of a pool that other files have a watcher for, each with its file."""
    ours = set(pool.members)
    found = []
    for section, file in fleet.sources.items():
        kind, _, name = section.partition(":")
        # Circus 0.19 takes `BOB` and `bob` for one watcher (arbiter.py, _watchers_names).
        if kind == "watcher" and name.lower() in ours and os.path.realpath(file) != str(path):
            found.append((name, file))
    return found


def problems(pool: Pool, path: Path, fleet: FleetFile, settings: Settings | None) -> list[Problem]:
    """Return what is wrong with the agents of a pool, as if its file were there; nothing is written there.

    A folder that is missing is not among it: see `missing_folders`.

    Args:
        pool: which.
        path: its file.
        fleet: the circus.ini it belongs to.
        settings: the failover.yaml that its agents use; None: no other agent says which, so that only the
            file itself is looked at.
    """
    with tempfile.TemporaryDirectory(prefix="failover-pool-") as made:
        candidate = Path(made) / "pool.ini"
        main = Path(made) / "circus.ini"
        private_file.write(candidate, pool.text())
        environment = [f"{key} = {text}" for key, text in fleet.env.items()]
        private_file.write(
            main, "\n".join(["[circus]", f"include = {candidate}", "[env]", *environment]) + "\n"
        )
        try:
            read = fleet_file.read(main)
        except SettingsError as error:
            return [replace(problem, file=str(path)) for problem in error.problems]
    return [*_lost(pool, path, read), *_wrong(path, read, settings)]


def _lost(pool: Pool, path: Path, read: FleetFile) -> Iterator[Problem]:
    """What Circus reads otherwise than it was meant: a `;` begins a comment, for one."""
    back = read.pools.get(pool.name, {})
    for key, text in pool.options.items():
        if back.get(key) != text.strip():
            expected = f"a value that an ini file can hold (Circus reads {describe(back.get(key))})"
            yield Problem(str(path), key, text, expected, section=POOL_SECTION + pool.name)


def _wrong(path: Path, read: FleetFile, settings: Settings | None) -> Iterator[Problem]:
    said: set[tuple[str, str]] = set()
    for watcher in read.agents if settings is not None else ():
        assert settings is not None
        try:
            agent_settings.parse(watcher, settings, str(path), working_dir_is_there=False)
        except SettingsError as error:
            for problem in error.problems:
                # What is wrong with all of them is said once.
                if (problem.key, problem.expected) not in said:
                    said.add((problem.key, problem.expected))
                    yield problem


def missing_folders(pool: Pool, environment: Mapping[str, str], known: Container[str] = ()) -> list[str]:
    """Return the folders that agents of a pool would start in and that are not there.

    Args:
        pool: which.
        environment: circus.ini's [env].
        known: agents that are there already, and are not looked at.
    """
    from circus.util import replace_gnu_args

    sections = [options for identity, options in pool.sections() if identity not in known]
    folders = dict.fromkeys(options.get("working_dir", "") for options in sections)
    variables = {**os.environ, **environment}
    paths = [str(replace_gnu_args(folder, env=variables)) for folder in folders if folder]
    return [printable(path) for path in paths if not os.path.isdir(path)]
