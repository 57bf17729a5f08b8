"""`failoverctl adopt`: sections for sessions that run already, so that circusd takes them in as they are.

Nothing is started, ended or typed: a watcher is written, circusd re-reads its files, and what lives is
adopted by number. A session that cannot be taken in is named, with the reason.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circus.config import read_config
from circus.exc import CallError

from circus_failover import agent_settings, fleet_file, private_file, process_table
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import Runtime
from circus_failover.circusd_site import Site, ask, listens
from circus_failover.client_processes import home_of
from circus_failover.client_sessions import ClientSession
from circus_failover.failure import Failed
from circus_failover.problems import Problem, SettingsError
from circus_failover.settings import Account, Settings

ADOPT_SECS = 30.0


@dataclass(frozen=True)
class Adoption:
    """One session that becomes an agent."""

    identity: str
    found: ClientSession
    account: str | None
    options: Mapping[str, str]
    """Of its section."""
    left_out: tuple[str, ...]
    """What of its command line the next launch will not have."""

    def section(self) -> str:
        """Return the section as Circus reads it."""
        lines = [f"{name} = {value}" for name, value in self.options.items()]
        return "\n".join([f"[watcher:{self.identity}]", *lines, ""])


@dataclass(frozen=True)
class LeftAlone:
    """One session that is not taken in."""

    found: ClientSession
    reason: str


def fleet_of(ini: Path) -> tuple[fleet_file.FleetFile, Path]:
    """Return a circus.ini and the failover.yaml that new agents of it will use.

    Raises:
        SettingsError: one cannot be read, or the file names none.
    """
    fleet = fleet_file.read(ini)
    path = fleet.config_path({}) or next(iter(fleet.config_paths()), None)
    if path is None:
        expected = "FAILOVER_CONFIG, the path of a failover.yaml (failoverctl init makes both files)"
        raise SettingsError([Problem(str(ini), "FAILOVER_CONFIG", None, expected, section="env")])
    return fleet, path


def taken(fleet: fleet_file.FleetFile, settings: Settings) -> tuple[list[str], list[tuple[Path, str]]]:
    """Return the names that watchers have, and socket and session of the agents that are there."""
    names = [*fleet.other_watchers, *(str(agent["name"]) for agent in fleet.agents)]
    places = []
    for agent in fleet.agents:
        with contextlib.suppress(SettingsError):
            parsed = agent_settings.parse(agent, settings, str(fleet.path), working_dir_is_there=False)
            places.append((parsed.socket, parsed.session))
    return names, places


def runs(site: Site) -> bool:
    """Say whether the fleet's circusd answers."""
    try:
        return (
            ask(site.endpoint, "numwatchers", ADOPT_SECS).get("status") == "ok"
            if listens(site.endpoint)
            else False
        )
    except CallError:
        return False


def plan(
    sessions: Iterable[ClientSession],
    settings: Settings,
    taken: Iterable[str],
    agents: Iterable[tuple[Path, str]],
    name: str | None = None,
) -> list[Adoption | LeftAlone]:
    """Return what becomes of each session.

    Args:
        sessions: as found.
        settings: the fleet's, with its accounts.
        taken: the names of watchers that are there.
        agents: socket and session of the agents that are there.
        name: the identity of the only one; None: made from the session's name.
    """
    used, ours = set(taken), set(agents)
    answer: list[Adoption | LeftAlone] = []
    for found in sessions:
        reason, account = _hindrance(found, settings, ours)
        if reason is not None:
            answer.append(LeftAlone(found, reason))
            continue
        identity = name or _identity(found.session, used)
        if identity is None or identity in used:
            wanted = name or found.session
            answer.append(LeftAlone(found, f"no identity is free for {wanted!r}: name one with --name"))
            continue
        used.add(identity)
        kept, left_out = kept_arguments(found.argv[1:], RUNTIMES[found.runtime])
        options = _options(found, account, kept)
        answer.append(Adoption(identity, found, account.name if account else None, options, left_out))
    return answer


def _hindrance(
    found: ClientSession, settings: Settings, ours: set[tuple[Path, str]]
) -> tuple[str | None, Account | None]:
    if found.launch or (found.socket, found.session) in ours:
        return "it is an agent already", None
    if found.panes != 1:
        return f"it has {found.panes} panes; an agent's session has one", None
    if not agent_settings.SESSION.fullmatch(found.session):
        return "its name has other characters than letters, digits, '_' and '-': tmux rename-session", None
    if found.home is None or found.working_dir is None:
        return f"where pid {found.process.pid} keeps its state cannot be read", None
    texts = (*found.argv, str(found.socket), str(found.working_dir))
    if any(not text.isprintable() or "$(" in text or "((" in text for text in texts):
        return "its command line has characters that an ini file cannot hold", None
    home = os.path.realpath(found.home)
    known = [account for account in settings.accounts if account.runtime == found.runtime]
    account = next((known for known in known if os.path.realpath(known.home) == home), None)
    if account is None and home != os.path.realpath(_default_home(found.runtime)):
        text = f"its home {found.home} is no account of {settings.path}: add it there, with runtime"
        return f"{text} {found.runtime}", None
    return None, account


def _default_home(runtime: str) -> Path:
    return home_of({"HOME": os.path.expanduser("~")}, runtime) or Path("/")


def _identity(session: str, used: set[str]) -> str | None:
    """Return an identity made from a session's name, with a number where that is taken."""
    base = re.sub(r"[^a-z0-9-]+", "-", session.lower()).strip("-")[:56] or "agent"
    names = (base, *(f"{base}-{number}" for number in range(2, 100)))
    return next((name for name in names if name not in used), None)


def _options(found: ClientSession, account: Account | None, args: Sequence[str]) -> dict[str, str]:
    program = RUNTIMES[found.runtime].program
    options = {
        "cmd": agent_settings.KEEPER,
        "hooks.before_start": fleet_file.ENROL,
        "failover.runtime": found.runtime,
    }
    if found.argv[0] != program:
        options["failover.command"] = shlex.quote(found.argv[0])
    if args:
        options["failover.args"] = shlex.join(args)
    if account is not None:
        options["failover.account"] = account.name
    options["failover.socket"] = str(found.socket)
    options["failover.session"] = found.session
    options["working_dir"] = str(found.working_dir)
    return options


def kept_arguments(argv: Sequence[str], runtime: Runtime) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the options a client was started with that the next launch is to have, and what is left out.

    Left out are those that the supervisor decides, prompts, and an option that nobody here knows when a word
    follows it: whether that is its value or a prompt cannot be told.
    """
    kept: list[str] = []
    left: list[str] = []
    words = list(argv)
    while words:
        part = [words.pop(0)]
        name, _, given = part[0].partition("=")
        if not name.startswith("-"):
            left += part
            continue
        if not given and words and not words[0].startswith("-") and name not in runtime.switches:
            part.append(words.pop(0))
        known = len(part) == 1 or name in runtime.valued_arguments
        (kept if known and name not in runtime.owned_arguments else left).extend(part)
    return tuple(kept), tuple(left)


def place(ini: Path, identity: str) -> Path:
    """Return the file that a new section goes into: one of its own in include_dir, else circus.ini.

    Raises:
        Failed: include_dir names no folder.
    """
    parser, _ = read_config(str(ini))
    text = parser.get("circus", "include_dir") if parser.has_option("circus", "include_dir") else ""
    for entry in text.split():
        folder = ini.parent / os.path.expanduser(entry)
        if folder.is_dir():
            return folder / f"adopted-{identity}.ini"
    if text.split():
        raise Failed(f"{ini}: include_dir = {text}: no such folder; make it, or take the option out")
    return ini


def write(ini: Path, adoptions: Sequence[Adoption]) -> dict[str, Path]:
    """Write the sections, and return which file each is in.

    Raises:
        Failed: a file of that name is there, or one cannot be written; nothing was changed.
    """
    files = {adoption.identity: place(ini, adoption.identity) for adoption in adoptions}
    taken = [path for path in files.values() if path != ini and path.exists()]
    if taken:
        raise Failed(f"{taken[0]}: it is there already; look at it, and remove it or choose --name")
    try:
        added = [adoption.section() for adoption in adoptions if files[adoption.identity] == ini]
        for adoption in adoptions:
            if files[adoption.identity] != ini:
                private_file.write(files[adoption.identity], adoption.section())
        if added:
            # What a link leads to is changed, and the link stays.
            target = Path(os.path.realpath(ini))
            before = target.read_text(encoding="utf-8")
            mode = target.stat().st_mode & 0o777
            private_file.replace(target, "\n".join([before.rstrip("\n"), "", *added]))
            target.chmod(mode)
    except (OSError, configparser.Error) as error:
        raise Failed(f"the sections could not be written: {error}") from error
    return files


def take_in(site: Site, adoptions: Sequence[Adoption], say: Callable[[str], None]) -> dict[str, str]:
    """Let circusd re-read its files, and return, for each that it did not take in as it was, why not.

    Args:
        site: whose circusd.
        adoptions: what was written.
        say: shows what is waited for.

    Raises:
        CallError: circusd does not answer.
    """
    say("circusd re-reads its files")
    answer = ask(site.endpoint, "reloadconfig", ADOPT_SECS, waiting=True)
    if answer.get("status") != "ok":
        raise CallError(f"circusd did not re-read its files: {answer.get('reason')}")
    wanted = {adoption.identity: adoption for adoption in adoptions}
    until = time.monotonic() + ADOPT_SECS
    views: dict[str, dict[str, object]] = {}
    while True:
        agents = ask(site.endpoint, "fleet", ADOPT_SECS)["agents"]
        views = {view["identity"]: view for view in agents if view["identity"] in wanted}
        waiting = [
            name for name in wanted if views.get(name, {}).get("phase") not in ("up", "refused", "held")
        ]
        if not waiting or time.monotonic() > until:
            break
        say(f"taken in: {len(wanted) - len(waiting)} of {len(wanted)}")
        time.sleep(0.1)
    return {
        name: reason for name, adoption in wanted.items() if (reason := _missed(adoption, views.get(name)))
    }


def _missed(adoption: Adoption, view: Mapping[str, object] | None) -> str:
    if view is None:
        return "circusd does not know it"
    if view["phase"] != "up" or view["pid"] != adoption.found.pane_process.pid:
        return f"it is {view['phase']}: {view['reason'] or 'pid ' + str(view['pid'])}"
    if not process_table.may_run(adoption.found.process):
        return "its client has ended meanwhile"
    return ""
