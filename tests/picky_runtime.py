"""A runtime that is as particular as a real client, about a home that a test can lay out with a few files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from circus_failover.agent_settings import AgentSettings
from circus_failover.agents.command import CommandRuntime
from circus_failover.agents.runtime import HomeProblem, HomeReport
from circus_failover.process_table import ProcessId
from circus_failover.words import Credentials


class PickyRuntime(CommandRuntime):
    """Stands in for the `claude` runtime where a test is not about the real client's files.

    Its home holds `login` or `no-login` (else that is unknown), `trusted` (a folder a line), `warn`, `daemon`
    (a pid), and `strange`, which makes every look at it fail.
    """

    name = "claude"
    program = "claude"
    owned_arguments: Mapping[str, str] = {
        "--resume": "the supervisor resumes by id",
        "-r": "the supervisor resumes by id",
        "resume": "the supervisor resumes by id",
    }
    valued_arguments = frozenset({"--model"})
    surrounding = ("CLAUDECODE", "CLAUDE_CODE_*", "PICKY_HOME")

    def __init__(self) -> None:
        self.given: Mapping[str, str] = {}
        """The variables of the last look at a home."""

    def home(self, agent: AgentSettings, variables: Mapping[str, str]) -> Path | None:
        if agent.account is not None:
            return agent.account.home
        return Path(variables.get("PICKY_HOME") or f"{variables.get('HOME')}/.picky")

    def environment(self, home: Path, variables: Mapping[str, str]) -> Mapping[str, str]:
        # As Claude Code has it: its default home only works while the variable is not set.
        return {} if str(home) == f"{variables.get('HOME')}/.picky" else {"PICKY_HOME": str(home)}

    def check_home(
        self, agent: AgentSettings | None, home: Path, variables: Mapping[str, str], links: Sequence[str]
    ) -> HomeReport:
        self.given = dict(variables)
        if (home / "strange").exists():
            raise ValueError("Marker of a secret")
        problems = [
            HomeProblem(f"link {name}", "a dangling link", "a folder", "mend it")
            for name in links
            if os.path.islink(home / name) and not os.path.exists(home / name)
        ]
        trusted = (home / "trusted").read_text().split() if (home / "trusted").exists() else []
        if agent is not None and str(agent.working_dir) not in trusted:
            problems.append(HomeProblem("trust", f"{agent.working_dir} not trusted", "trust", "trust it"))
        if (home / "warn").exists():
            problems.append(HomeProblem("habit", "a bad one", "a good one", "change it", refuses=False))
        if (home / "no-login").exists():
            return HomeReport(Credentials.ABSENT, "no login file", tuple(problems))
        present = (home / "login").exists()
        credentials = Credentials.PRESENT if present else Credentials.UNKNOWN
        return HomeReport(credentials, "login" if present else "in the keychain", tuple(problems))

    def background(self, home: Path) -> ProcessId | None:
        daemon = home / "daemon"
        return ProcessId(int(daemon.read_text()), 1) if daemon.exists() else None
