"""Whether an account that was not logged in is again, as far as its files tell.

A login that merely is there proves nothing: it was there when it failed. So the file it is kept in has to be
newer than the failure, or a person says that it is mended. Runs inside circusd's loop: files only. What is in
them is neither kept nor said, and none is changed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import account_homes, agent_variables
from circus_failover.account_homes import Finding
from circus_failover.agents import RUNTIMES
from circus_failover.logfmt import timestamp
from circus_failover.policy.accounts import Known
from circus_failover.settings import Account
from circus_failover.words import AccountState, Credentials

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

LOGIN_FILES = {
    "claude": (".credentials.json",),
    "codex": ("auth.json",),
    "command": (".credentials.json",),
}
"""Where a login is kept in a home (Claude Code 2.1.329, Codex 0.169.0); files that hold other things too are
written all the time, and prove nothing."""


@dataclass(frozen=True)
class Checked:
    """What a check of an account has found."""

    passed: bool
    """Whether agents may be launched on it, as far as that can be told."""
    text: str
    """Why, in words without a secret; and what to do where it did not pass."""


def check(supervisor: Supervisor, account: Account, known: Known, *, accept: bool) -> Checked:
    """Look at an account's home.

    Args:
        supervisor: whose agents may use it; their variables are what its client would get.
        account: the account.
        known: what is known of it.
        accept: a person says that it is logged in.
    """
    finding = _look(supervisor, account)
    report = finding.report
    if report is None:
        return Checked(False, finding.refusal or f"{finding.where}: nothing tells whether it is logged in")
    if report.credentials is Credentials.ABSENT:
        return Checked(False, f"{finding.where}: not logged in: {report.how}")
    there = f"logged in by {report.how}" if report.credentials is Credentials.PRESENT else report.how
    if known.state is not AccountState.CREDENTIALS or accept:
        return Checked(True, there)
    since = "" if known.seen_at is None else f" since {timestamp(known.seen_at)}"
    judged = f"`failoverctl accounts check {account.name} --accept`, once you have seen that it is logged in"
    if report.credentials is Credentials.UNKNOWN and RUNTIMES[account.runtime].tells:
        return Checked(
            False, f"{finding.where}: whether it is logged in is not known ({report.how}): {judged}"
        )
    if not changed(account, known):
        unchanged = f"{finding.where}: {there}, but that has failed{since}, and no file of it is newer"
        return Checked(False, f"{unchanged}: log it in there; or {judged}")
    return Checked(True, f"{there}, newer than what has failed{since}")


def changed(account: Account, known: Known) -> bool:
    """Say whether a file that an account's login may be in is newer than what is held against it."""
    return changed_at(account) > (known.seen_at or 0.0)


def changed_at(account: Account) -> float:
    """Return when a file that an account's login may be in was changed last, in epoch seconds; 0: none is."""
    files = [account.home / name for name in LOGIN_FILES.get(account.runtime, ())]
    return max(map(_mtime, files if account.env_file is None else [*files, account.env_file]), default=0.0)


def _mtime(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _look(supervisor: Supervisor, account: Account) -> Finding:
    """Return what a launch of one of its agents would find; without any, what would hold for all."""
    shared = None
    for agent in supervisor.roster.agents.values():
        settings = agent.settings
        if settings is None:
            continue
        if settings.account == account:
            return account_homes.check(settings, agent_variables.of_watcher(agent.watcher))
        shared = shared or settings.settings.shared
    links = shared.links(account.runtime) if shared is not None else ()
    return account_homes.check_account(account, agent_variables.of_section({}, copied=False), links)
