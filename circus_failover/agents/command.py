"""The `command` runtime: any interactive program, and the smallest example of a runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover.agents.runtime import Boot, Dialog, HomeReport, LongestWait, Observation, Place, Writer
from circus_failover.policy.continuing import OpenTurn
from circus_failover.process_table import ProcessId
from circus_failover.words import BootStage, Credentials

if TYPE_CHECKING:
    from circus_failover.agent_settings import AgentSettings

CONVERSATION = "{conversation}"
"""Where `failover.resume_command` gets the conversation's id."""


class CommandRuntime:
    """Any command: its account's home is in `FAILOVER_HOME`, its conversation in `FAILOVER_CONVERSATION`."""

    name = "command"
    program: str | None = None
    dialogs: tuple[Dialog, ...] = ()
    tells = False
    owned_arguments: Mapping[str, str] = {}
    switches: frozenset[str] = frozenset()
    valued_arguments: frozenset[str] = frozenset()
    surrounding: tuple[str, ...] = ()

    def home(self, agent: AgentSettings, variables: Mapping[str, str]) -> Path | None:
        """Return its account's home; a command without an account has none."""
        return agent.account.home if agent.account is not None else None

    def environment(self, home: Path, variables: Mapping[str, str]) -> Mapping[str, str]:
        """Return `FAILOVER_HOME`."""
        return {"FAILOVER_HOME": str(home)}

    def fresh(self, agent: AgentSettings, conversation: str) -> tuple[str, ...]:
        """Return `failover.command`; the id is in its environment."""
        return (*agent.command, *agent.args)

    def resume(self, agent: AgentSettings, conversation: str, home: Path | None) -> tuple[str, ...] | None:
        """Return `failover.resume_command` with the conversation's id filled in; None when it is not set."""
        if agent.resume_command is None:
            return None
        return tuple(word.replace(CONVERSATION, conversation) for word in agent.resume_command)

    def check_home(
        self, agent: AgentSettings | None, home: Path, variables: Mapping[str, str], links: Sequence[str]
    ) -> HomeReport:
        """Find nothing wrong: what a command keeps in its home is its own affair."""
        return HomeReport(Credentials.UNKNOWN, "a command's own affair")

    def boot(self, place: Place) -> Boot:
        """Take it for ready: running for `failover.ready_secs` proves it, and `failover.ready_match`."""
        return Boot(BootStage.READY)

    def look(self, place: Place) -> Observation:
        """See nothing."""
        return Observation()

    def open_turn(self, home: Path, working_dir: Path, conversation: str) -> OpenTurn | None:
        """Know nothing of it: what a command keeps of a conversation is its own affair."""
        return None

    def longest_wait(self, home: Path | None, variables: Mapping[str, str]) -> LongestWait | None:
        """Know of none."""
        return None

    def writers(self, homes: Sequence[Path], conversation: str) -> tuple[Writer, ...]:
        """Know of none."""
        return ()

    def stale_files(self, homes: Sequence[Path], process: ProcessId) -> tuple[Path, ...]:
        """Know of none."""
        return ()

    def background(self, home: Path) -> ProcessId | None:
        """Know of none."""
        return None
