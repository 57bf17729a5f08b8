"""The `claude` runtime."""

from __future__ import annotations

from circus_failover.agents.command import CommandRuntime


class ClaudeRuntime(CommandRuntime):
    """To be written."""

    name = "claude"
    program: str | None = "claude"
