"""`failoverctl doctor` on accounts: could the agents of each work with its home, its login, its client.

Files are looked at in every run; the client itself is asked (`asked_client`) only about an account that was
named, with the variables its agents get. Nothing is changed here; a client that is asked may keep house in
its home (Claude Code 2.1.329 makes a backup of its `.claude.json`).
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circus_failover import account_homes, agent_variables, asked_client, shared_state
from circus_failover.account_homes import Finding
from circus_failover.agent_settings import AgentSettings, parse
from circus_failover.agents import RUNTIMES
from circus_failover.asked_client import Answer
from circus_failover.doctor_checks import Check, Level, fail, ok, warn
from circus_failover.env_file import EnvFileError
from circus_failover.fleet_file import FleetFile
from circus_failover.logfmt import timestamp
from circus_failover.policy.accounts import Known, current
from circus_failover.policy.gate import judge
from circus_failover.problems import nearest
from circus_failover.settings import Account, Settings, SettingsError
from circus_failover.words import AccountState, Credentials

DAEMON = "daemon"
RETENTION_DAYS = 30
"""After so many days without a change Claude Code deletes a transcript, unless its settings say otherwise."""
_RETENTION_FILES = ("settings.json", "settings.local.json")
_SETTINGS_BYTES = 1024 * 1024


@dataclass(frozen=True)
class User:
    """An agent that uses an account."""

    agent: AgentSettings
    own: Mapping[str, str] = field(repr=False)
    """Its variables without the account's."""


@dataclass(frozen=True)
class Subject:
    """One account, and who uses it."""

    account: Account
    settings: Settings
    users: tuple[User, ...]
    common: Mapping[str, str] = field(repr=False)
    """The variables of an agent whose section says nothing."""

    @property
    def check(self) -> str:
        """What its lines begin with."""
        return f"account {self.account.name}"


def subjects(file: FleetFile, settings: Mapping[Path, Settings]) -> list[Subject]:
    """Return every account of a fleet.

    Args:
        file: the circus.ini.
        settings: each failover.yaml that could be read, by its path.
    """
    users: dict[tuple[Path, str], list[User]] = {}
    for watcher in file.agents:
        path = file.config_path(watcher)
        if path is None or path not in settings:
            continue
        try:
            agent = parse(watcher, settings[path], file.source(f"watcher:{watcher['name']}"))
        except SettingsError:
            continue  # `validate` and the line `settings` tell of it
        if agent.account is not None:
            users.setdefault((path, agent.account.name), []).append(User(agent, _own(watcher)))
    common = agent_variables.of_section(file.env, copied=False)
    return [
        Subject(account, loaded, tuple(users.get((path, account.name), ())), common)
        for path, loaded in settings.items()
        for account in loaded.accounts
    ]


def _own(watcher: Mapping[str, object]) -> Mapping[str, str]:
    env = watcher.get("env")
    return agent_variables.of_section(
        dict(env) if isinstance(env, Mapping) else {}, copied=bool(watcher.get("copy_env"))
    )


def shortly(file: FleetFile, settings: Mapping[Path, Settings], uid: int) -> list[Check]:
    """Look at the files of all accounts: a line for each that is in order, and one for each problem.

    Args:
        file: the circus.ini.
        settings: each failover.yaml that could be read, by its path.
        uid: who runs circusd.
    """
    found = subjects(file, settings)
    if found and uid != os.geteuid():
        return [warn("accounts", f"the homes of uid {uid} are not checked", "run doctor as that user")]
    checks = []
    for subject in found:
        looks = _looks(subject)
        wrong = [*_wrong(subject, looks), *_beyond_files(subject, looks)]
        program = _program(subject)
        wrong += [_client_missing(subject, program)] if program and not _found(subject, program) else []
        checks += wrong or [ok(subject.check, f"{subject.account.home}: {_login(looks[0])}")]
    return checks


def known(accounts: Iterable[Known], settings: Mapping[Path, Settings], now: float) -> list[Check]:
    """Return a line for each configured account on which nothing can be done, as agents' clients have said.

    Args:
        accounts: what the store knows.
        settings: each failover.yaml that could be read, by its path.
        now: epoch seconds.
    """
    configured = {account.name for loaded in settings.values() for account in loaded.accounts}
    checks = []
    for one in (current(account, now) for account in accounts):
        if one.name not in configured or not one.state.exhausted:
            continue
        seen = f" (seen at {one.seen_by})" if one.seen_by else ""
        if one.state is AccountState.CREDENTIALS:
            remedy = f"log its client in, then `failoverctl accounts check {one.name}`"
            checks.append(warn(f"account {one.name}", f"its login has failed{seen}", remedy))
            continue
        limit = f" ({one.limit_name})" if one.limit_name else ""
        until = "nobody knows for how long" if one.until is None else f"until {timestamp(one.until)}"
        remedy = f"wait, or `failoverctl accounts forget {one.name}` where that is wrong"
        checks.append(warn(f"account {one.name}", f"limited{limit}, {until}{seen}", remedy))
    return checks


def examine(
    names: Sequence[str], file: FleetFile, settings: Mapping[Path, Settings], uid: int
) -> list[Check]:
    """Look at accounts closely, and ask their clients.

    Args:
        names: the accounts.
        file: the circus.ini.
        settings: each failover.yaml that could be read, by its path.
        uid: who runs circusd.
    """
    known = subjects(file, settings)
    checks: list[Check] = []
    for name in dict.fromkeys(names):
        chosen = [subject for subject in known if subject.account.name == name]
        if not chosen:
            listed = ", ".join(subject.account.name for subject in known) or "none"
            near = nearest(name, [subject.account.name for subject in known])
            finding = f"there is no such account (configured: {listed}){near}"
            checks.append(fail(f"account {name}", finding, "name one that failover.yaml has"))
        elif uid != os.geteuid():
            finding = f"its home is that of uid {uid}, and not checked"
            checks.append(warn(f"account {name}", finding, "run doctor as that user"))
        else:
            checks += [check for subject in chosen for check in _closely(subject)]
    return checks


def _closely(subject: Subject) -> list[Check]:
    looks = _looks(subject)
    checks = _wrong(subject, looks)
    if not any(check.level is Level.FAIL for check in checks):
        checks.insert(0, ok(subject.check, f"{subject.account.home}: {_login(looks[0])}"))
    checks += _env_file(subject)
    checks += _links(subject)
    checks += _beyond_files(subject, looks) or _transcripts_kept(subject)
    checks.append(_used_by(subject))
    checks += _client(subject, looks[0])
    return checks


# -- files -------------------------------------------------------------------------------------------


def _looks(subject: Subject) -> list[Finding]:
    """Return what a launch of each of its agents would find; without any, what would hold for all."""
    links = subject.settings.shared.links(subject.account.runtime)
    if not subject.users:
        return [account_homes.check_account(subject.account, subject.common, links)]
    return [account_homes.check(user.agent, user.own) for user in subject.users]


def _login(finding: Finding) -> str:
    report = finding.report
    if report is None:
        return "what it is logged in with is unknown"
    if report.credentials is Credentials.PRESENT:
        return f"logged in by {report.how}"
    if report.credentials is Credentials.ABSENT:
        return f"not logged in: {report.how}"
    return f"whether it is logged in is not known ({report.how})"


def _wrong(subject: Subject, looks: Sequence[Finding]) -> list[Check]:
    """Return a line for each problem, with whose launches it is in the way of where not of all."""
    found: dict[tuple[str, str, bool], list[str]] = {}
    names = [user.agent.identity for user in subject.users] or [""]
    for name, look in zip(names, looks, strict=True):
        for problem in look.problems:
            finding = f"{problem.key}: found {problem.found}, expected {problem.expected}"
            found.setdefault((finding, problem.remedy, problem.refuses), []).append(name)
    return [
        Check(
            Level.FAIL if refuses else Level.WARN,
            subject.check,
            finding if len(whose) == len(names) else f"{finding} (of {', '.join(whose)})",
            remedy,
        )
        for (finding, remedy, refuses), whose in found.items()
    ]


def _env_file(subject: Subject) -> list[Check]:
    """Return how many variables an `env_file` holds; what is wrong with it is told with the home."""
    path = subject.account.env_file
    if path is None:
        return []
    try:
        number = len(agent_variables.of_account(subject.account))
    except EnvFileError:
        return []
    holds = f"{number} variable{'s' if number != 1 else ''}"
    return [ok(subject.check, f"env_file {path}: {holds}, mode {stat.S_IMODE(os.stat(path).st_mode):04o}")]


def _links(subject: Subject) -> list[Check]:
    account, settings = subject.account, subject.settings
    names = ", ".join(settings.shared.links(account.runtime))
    verdict = judge(shared_state.inspect(settings, settings.accounts), False, account.name)
    if not verdict.failures:
        return [ok(subject.check, f"links to {settings.shared.root}: {names}")]
    return [
        fail(subject.check, str(failure).removesuffix(f"; {failure.remedy}"), failure.remedy)
        for failure in verdict.failures
    ]


def _used_by(subject: Subject) -> Check:
    names = [user.agent.identity for user in subject.users]
    listed = ", ".join(names) if len(names) <= 10 else f"{len(names)} agents"
    return ok(subject.check, f"used by {listed}" if names else "no agent of circus.ini uses it")


def _beyond_files(subject: Subject, looks: Sequence[Finding]) -> list[Check]:
    """Return what may surprise although launches work: a daemon, and transcripts that are deleted early."""
    checks = []
    daemon = RUNTIMES[subject.account.runtime].background(subject.account.home)
    if daemon is not None and not any(one.key == DAEMON for look in looks for one in look.problems):
        finding = f"its client's own background process runs (pid {daemon.pid}); it outlives agents"
        remedy = "turn it off in the client's settings, then end it"
        checks.append(warn(subject.check, finding, remedy))
    days, of = _retention(subject)
    longest = max((user.agent.resume_max_age_secs for user in subject.users), default=0.0) / 86400
    if days is not None and (of != subject.account.home or days < longest):
        finding = f"transcripts are deleted after {days:g} days (cleanupPeriodDays of {of})"
        why = f", and agents may resume for {longest:g}" if days < longest else ": each home deletes for all"
        remedy = f"set cleanupPeriodDays in {of}/settings.json"
        checks.append(warn(subject.check, finding + why, remedy))
    return checks


def _transcripts_kept(subject: Subject) -> list[Check]:
    days, of = _retention(subject)
    if days is None:
        return []
    return [ok(subject.check, f"transcripts are kept for {days:g} days (cleanupPeriodDays of {of})")]


def _retention(subject: Subject) -> tuple[float | None, Path | None]:
    """Return after how many days transcripts are deleted, and by which home: the one that keeps them least.

    Every home that shares them deletes (Claude Code 2.1.329); where none is earlier it is the account's own.
    """
    account, settings = subject.account, subject.settings
    if account.runtime != "claude":
        return None, None
    shared = "projects" in settings.shared.links(account.runtime)
    others = [one for one in settings.accounts if one.runtime == account.runtime and one != account]
    homes = [account.home, *(one.home for one in others if shared)]
    days = {home: kept_days(home) for home in homes}
    least = min(homes, key=lambda home: days[home])  # the first of them, so its own unless another is earlier
    return days[least], least


def kept_days(home: Path) -> float:
    """Return how long a home of Claude Code keeps transcripts; what cannot be read says nothing."""
    days = float(RETENTION_DAYS)
    for name in _RETENTION_FILES:
        try:
            descriptor = os.open(home / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                said = json.loads(os.read(descriptor, _SETTINGS_BYTES))["cleanupPeriodDays"]
            finally:
                os.close(descriptor)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(said, (int, float)) and not isinstance(said, bool) and said >= 0:
            days = float(said)
    return days


# -- the client --------------------------------------------------------------------------------------


def _variables(subject: Subject) -> dict[str, str] | None:
    """Return what a client of this account would get; None: its `env_file` cannot be used."""
    own = subject.users[0].own if subject.users else subject.common
    try:
        given = {**own, **agent_variables.of_account(subject.account)}
    except EnvFileError:
        return None
    return agent_variables.leading_to(subject.account.runtime, subject.account.home, given, named=True)


def _program(subject: Subject) -> str | None:
    """Return the client that the agents of an account run; None: any command, which is its own affair."""
    program = RUNTIMES[subject.account.runtime].program
    words = [word for user in subject.users for word in user.agent.command]
    return next((word for word in words if os.path.basename(word) == program), program)


def _found(subject: Subject, program: str) -> str | None:
    own = subject.users[0].own if subject.users else subject.common
    return shutil.which(program, path=(_variables(subject) or own).get("PATH"))


def _client_missing(subject: Subject, program: str) -> Check:
    return fail(
        subject.check, f"{program} is not on the PATH of its agents", "install it, or set PATH in [env]"
    )


def _client(subject: Subject, finding: Finding) -> list[Check]:
    program, variables = _program(subject), _variables(subject)
    if program is None or variables is None:
        return []
    path = _found(subject, program)
    if path is None:
        return [_client_missing(subject, program)]
    version = asked_client.version(path, variables)
    about = f"{path}, version {version}" if version else f"{path}, which does not say its version"
    checks = [ok(subject.check, about) if version else warn(subject.check, about, f"try {path} --version")]
    answer = asked_client.login(subject.account.runtime, path, variables)
    return [*checks, *_said(subject, finding, answer)]


def _said(subject: Subject, finding: Finding, answer: Answer | None) -> Iterable[Check]:
    """Judge what the client itself says of the login."""
    if answer is None:
        return
    home = subject.account.home
    if answer.logged_in is None:
        yield warn(
            subject.check, f"{answer.command}: {answer.text}", "run it by hand with the account's home"
        )
    elif answer.logged_in:
        yield ok(subject.check, f"{answer.command}: {answer.text}")
    elif finding.report is not None and finding.report.credentials is Credentials.PRESENT:
        text = f"{answer.command}: {answer.text}, while the files say: {_login(finding)}"
        remedy = "nothing, where a key of the environment is what it uses; else log it in again"
        yield (warn if answer.keys_do_not_count else fail)(subject.check, text, remedy)
    else:
        leads = " ".join(f"{name}={value}" for name, value in _leads(subject).items())
        remedy = f"{leads} {_program(subject)}, and log it in there".strip()
        yield fail(subject.check, f"{answer.command}: {answer.text} ({home})", remedy)


def _leads(subject: Subject) -> Mapping[str, str]:
    given: dict[str, Any] = dict(subject.common)
    return RUNTIMES[subject.account.runtime].environment(subject.account.home, given)
