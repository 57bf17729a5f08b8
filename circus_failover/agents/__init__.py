"""What differs by runtime, one file each, behind one small interface."""

from __future__ import annotations

from typing import Protocol

from circus_failover.agents.command import CommandRuntime


class Runtime(Protocol):
    """What the supervisor asks of a runtime."""

    home_variable: str
    """Environment variable that names the account's home to the program."""


RUNTIMES: dict[str, Runtime] = {"command": CommandRuntime()}
