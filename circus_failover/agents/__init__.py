"""What differs by runtime, one file each, behind one small interface."""

from __future__ import annotations

from typing import Protocol

from circus_failover.agent_settings import AgentSettings
from circus_failover.agents.command import CommandRuntime


class Runtime(Protocol):
    """What the supervisor asks of a runtime."""

    home_variable: str
    """Environment variable that names the account's home to the program."""

    def resume(self, settings: AgentSettings, conversation: str) -> tuple[str, ...] | None:
        """Return the argv that continues a conversation, or None when this agent cannot."""


RUNTIMES: dict[str, Runtime] = {"command": CommandRuntime()}
