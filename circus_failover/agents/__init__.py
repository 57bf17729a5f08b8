"""What differs by runtime, one file each, behind the interface of `runtime`."""

from __future__ import annotations

from circus_failover.agents.claude import ClaudeRuntime
from circus_failover.agents.codex import CodexRuntime
from circus_failover.agents.command import CommandRuntime
from circus_failover.agents.runtime import Runtime

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime for runtime in (CommandRuntime(), ClaudeRuntime(), CodexRuntime())
}
