"""The `command` runtime: any interactive program, and the smallest example of a runtime."""

from __future__ import annotations

from circus_failover.agent_settings import CONVERSATION, AgentSettings


class CommandRuntime:
    """Any command: its account's home is in `FAILOVER_HOME`, its conversation in `FAILOVER_CONVERSATION`."""

    home_variable = "FAILOVER_HOME"

    def resume(self, settings: AgentSettings, conversation: str) -> tuple[str, ...] | None:
        """Return `failover.resume_command` with the conversation's id filled in; None when it is not set."""
        if settings.resume_command is None:
            return None
        return tuple(word.replace(CONVERSATION, conversation) for word in settings.resume_command)
