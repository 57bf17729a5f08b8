"""What the store remembers, as values: agents, launches, deliberate ends, and circusd's own processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from circus_failover.process_table import ProcessId


@dataclass(frozen=True)
class AgentRow:
    """What is remembered of an agent."""

    identity: str
    phase: str = "down"
    reason: str | None = None
    cause: str | None = None
    since: float = 0.0
    stay_stopped: bool = False
    """An operator stopped it: it stays down until `start`."""
    generation: int = 0
    socket: str | None = None
    own_server: bool = True
    session: str | None = None
    pane: str | None = None
    pid: int | None = None
    pid_start: int | None = None
    server_pid: int | None = None
    server_start: int | None = None
    boot: str | None = None
    account: str | None = None
    launch: str | None = None
    """The recorded launch's own name, unique on the host; None when somebody else started it."""
    conversation: str | None = None
    declared: bool = True
    """False while no section of circus.ini names it; nothing else of it is forgotten."""

    @property
    def process(self) -> ProcessId | None:
        """The agent's own process, as far as it is known."""
        if self.pid is None or self.pid_start is None:
            return None
        return ProcessId(self.pid, self.pid_start)

    @property
    def server(self) -> ProcessId | None:
        """The tmux server it was launched in, as far as it is known."""
        if self.server_pid is None or self.server_start is None:
            return None
        return ProcessId(self.server_pid, self.server_start)


@dataclass(frozen=True)
class LaunchRow:
    """One launch of an agent and how it ended."""

    identity: str
    generation: int
    cause: str
    asked_by: str
    account: str | None
    conversation: str | None
    started_at: float
    up_at: float | None = None
    ended_at: float | None = None
    planned: bool | None = None
    end_cause: str | None = None
    exit_status: int | None = None
    exit_signal: int | None = None
    last_output: str | None = None


@dataclass(frozen=True)
class ActionRow:
    """A deliberate end: the intent, and the work of the worker that carries it out."""

    id: int
    identity: str
    generation: int
    intent: str
    who: str
    why: str
    asked_at: float
    spec: dict[str, Any]
    attempts: int = 0
    worker_pid: int | None = None
    worker_start: int | None = None
    done_at: float | None = None
    outcome: str | None = None

    @property
    def worker(self) -> ProcessId | None:
        """The worker process that was last started for it."""
        if self.worker_pid is None or self.worker_start is None:
            return None
        return ProcessId(self.worker_pid, self.worker_start)


@dataclass(frozen=True)
class ChildRow:
    """A process that circusd started and that must not outlive it into its successor's time."""

    process: ProcessId
    boot: str
    kind: str
    name: str
