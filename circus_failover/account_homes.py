"""Whether an agent's account home, and its `env_file`, let a launch do what it should.

Runs inside circusd's loop before each launch: files only. What the files of a home mean is the runtime's
to say (`Runtime.check_home`); this puts it together with the `env_file` and words the refusal. It changes and
starts nothing, and no secret is in what it says.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circus import logger

from circus_failover import agent_variables
from circus_failover.agent_settings import AgentSettings
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import HomeProblem, HomeReport
from circus_failover.env_file import EnvFileError
from circus_failover.problems import printable
from circus_failover.settings import Account
from circus_failover.words import Credentials

ENV_FILE = "env_file"
LOGIN = "login"


@dataclass(frozen=True)
class Finding:
    """What was found of one home."""

    account: str | None
    """None: the home that a client has without an account."""
    home: Path | None
    """None: the runtime knows none."""
    report: HomeReport | None
    """None: there is no home, or its `env_file` cannot be used, without which nobody knows what it has."""
    problems: tuple[HomeProblem, ...] = ()

    @property
    def where(self) -> str:
        """Which account and home: the beginning of a message."""
        named = "no account" if self.account is None else f"account {self.account}"
        return named if self.home is None else f"{named} ({self.home})"

    @property
    def refusal(self) -> str | None:
        """Why a launch is refused, in one line with everything that is wrong; None when it is not."""
        wrong = [said(problem) for problem in self.problems if problem.refuses]
        return printable(f"{self.where}: {'; '.join(wrong)}") if wrong else None


def said(problem: HomeProblem) -> str:
    """Return a problem in words."""
    remedy = f": {problem.remedy}" if problem.remedy else ""
    return f"{problem.key}: found {problem.found}, expected {problem.expected}{remedy}"


def check(agent: AgentSettings, own: Mapping[str, str]) -> Finding:
    """Look at the home that an agent's next launch would use.

    Args:
        agent: the agent as configured.
        own: its variables without its account's (`agent_variables.of_watcher`).
    """
    home = RUNTIMES[agent.runtime].home(agent, own)
    return _look(agent.runtime, agent.account, home, own, agent, agent.settings.shared.links(agent.runtime))


def check_account(account: Account, own: Mapping[str, str], links: Sequence[str]) -> Finding:
    """Look at an account's home for whatever holds for every agent.

    Args:
        account: the account.
        own: the variables of an agent whose section says nothing.
        links: names that must not be dangling links.
    """
    return _look(account.runtime, account, account.home, own, None, links)


def _look(
    runtime: str,
    account: Account | None,
    home: Path | None,
    own: Mapping[str, str],
    agent: AgentSettings | None,
    links: Sequence[str],
) -> Finding:
    name = None if account is None else account.name
    try:
        extra = {} if account is None else agent_variables.of_account(account)
    except EnvFileError as error:
        return Finding(name, home, None, env_file_problems(error))
    if home is None:
        return Finding(name, None, None)
    variables = agent_variables.leading_to(runtime, home, {**own, **extra}, named=account is not None)
    try:
        report = RUNTIMES[runtime].check_home(agent, home, variables, links)
    except Exception as error:
        # A client's files are undocumented: one that is not understood says nothing, and refuses nothing.
        # The error's text is not shown, since it may quote them.
        at = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} in {at.filename}:{at.lineno}"
        logger.error("circus-failover: the home %s could not be looked at: %s", home, what)
        report = HomeReport(Credentials.UNKNOWN, f"it could not be looked at ({type(error).__name__})")
    problems = report.problems
    if report.credentials is Credentials.ABSENT and not any(one.key == LOGIN for one in problems):
        problems = (_no_login(report, home), *problems)
    return Finding(name, home, report, problems)


def _no_login(report: HomeReport, home: Path) -> HomeProblem:
    return HomeProblem(
        LOGIN,
        report.how or "nothing to log in with",
        f"a login in {home}, or a key or token in env_file",
        "log the client in there, or name a file with a key as the account's env_file",
    )


def env_file_problems(error: EnvFileError) -> tuple[HomeProblem, ...]:
    """Return what is wrong with an `env_file`, as problems of the home."""
    return tuple(
        HomeProblem(
            f"{ENV_FILE} {error.path}{f':{one.line}' if one.line else ''}",
            one.found,
            one.expected,
            one.remedy,
        )
        for one in error.mistakes
    )
