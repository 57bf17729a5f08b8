"""What the store remembers, as values: agents, launches, deliberate ends, and circusd's own processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from circus_failover.process_table import ProcessId


def _process(pid: int | None, start: int | None) -> ProcessId | None:
    return None if pid is None or start is None else ProcessId(pid, start)


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
    """The conversation of the recorded launch."""
    declared: bool = True
    """False while no section of circus.ini names it; nothing else of it is forgotten."""
    ready_at: float | None = None
    """When the recorded launch was proven ready, in epoch seconds; None: it never was."""
    ready_ticks: int | None = None
    """The same moment as a process start time: what started later is no part of its boot."""
    ready_conversation: str | None = None
    """The newest conversation that was proven ready, which `--resume` resumes."""
    parked_by: str | None = None
    """Who parked it; None when no park is unspent."""
    parked_at: float | None = None
    parked_conversation: str | None = None
    """What the park's wake resumes; None when the parked launch was never ready."""
    born: int = 0
    """Generation before its first launch: not 0 when an agent of its name was removed."""
    pending: str | None = None
    """What the next launch was asked to be, before an end that is under way: `fresh`, or nothing."""
    loop: str = "closed"
    """What the crash-loop guard holds it to."""
    loop_until: float | None = None
    """Until when it is held, in epoch seconds."""
    loop_failures: int = 0
    """How many launches on trial have died in a row."""
    loop_from: int = 0
    """Deaths up to this generation are forgiven."""
    last_task: float | None = None
    """When it last took a task, in epoch seconds."""
    policy: str = "{}"
    """The settings that plugins decide by, as JSON: what is in force in circusd."""
    uncleared: int | None = None
    """Generation of a launch that ended by itself, until it was looked for what is left of it."""
    runtime: str | None = None
    """The runtime of the recorded launch."""
    home: str | None = None
    """The account home that its client uses; None: the runtime knows none."""
    working_dir: str | None = None
    """Where it was started."""
    launched_at: float | None = None
    """Epoch seconds of the recorded launch; None: it was adopted, and its process's start counts."""
    health: str | None = None
    """What it was last seen to do, as JSON (`agent_health`); None: it was not looked at."""
    pushed: str | None = None
    """What its client's hooks reported of the recorded launch, by hook, as JSON."""
    switched_to: str | None = None
    """The account that a switch has moved it to; None: it is on the one that its section names."""
    switched_from: str | None = None
    """What its section named at that time: when the section names another one, the switch is void."""
    switching: str | None = None
    """The account it comes from, while a switch is not proven: where it is parked when that fails."""
    limited_until: float | None = None
    """Until when it is held because of its account, in epoch seconds."""
    interrupted: str | None = None
    """Why its last launch was ended, where the next one is to go on with the turn it was in."""

    @property
    def process(self) -> ProcessId | None:
        """The agent's own process, as far as it is known."""
        return _process(self.pid, self.pid_start)

    @property
    def server(self) -> ProcessId | None:
        """The tmux server it was launched in, as far as it is known."""
        return _process(self.server_pid, self.server_start)


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
    mode: str | None = None
    """`fresh` or `resume`."""
    wake_cause: str | None = None
    """Why it was fresh or a resume."""
    parked_by: str | None = None
    """Whose park it resumes, or would have."""
    topic: str | None = None
    """The topic it was woken for."""
    assignment: str | None = None
    """The id of the assignment that it had when it ended."""


@dataclass(frozen=True)
class TaskRow:
    """A text for an agent: it leaves the queue only when the agent was seen to have taken it."""

    id: int
    identity: str
    text: str
    topic: str | None
    who: str
    queued_at: float
    state: str = "queued"
    first: bool = False
    """Before all others: what an agent is told when it begins afresh."""
    attempts: int = 0
    generation: int | None = None
    """The launch it was last typed into."""
    worker_pid: int | None = None
    worker_start: int | None = None
    done_at: float | None = None
    note: str | None = None
    """Why it was not taken the last time."""
    kind: str = "task"
    """What it is for."""
    assignment: str | None = None
    """The id of the assignment whose text it is."""
    expires_at: float | None = None
    """Epoch seconds after which it is not typed any more; None: it waits for as long as it takes."""

    @property
    def worker(self) -> ProcessId | None:
        """The worker process that was last started for it."""
        return _process(self.worker_pid, self.worker_start)


@dataclass(frozen=True)
class AssignmentRow:
    """Work that was given to an agent or a pool: it has one owner at a time, and is never silently lost."""

    number: int
    """Its place in the queue."""
    id: str
    """Unique; the same id again is not a second job."""
    text: str
    who: str
    queued_at: float
    topic: str | None = None
    wanted: str | None = None
    """The agent it was given to by name; None: any of its pool."""
    pool: str | None = None
    owner: str | None = None
    """The one agent that has it; None: nobody has. Kept when it is over."""
    state: str = "queued"
    dispatched_at: float | None = None
    """When its owner got it."""
    delivered_at: float | None = None
    """When its owner was told, in the recorded launch, and was seen to have taken it."""
    working_at: float | None = None
    """When its owner was first seen to work since then."""
    done_at: float | None = None
    """When it was over."""
    generation: int | None = None
    """The launch of its owner that took it."""
    conversation: str | None = None
    """The conversation it was told in: a launch that resumes it is told to go on."""
    task: int | None = None
    """The task that types it."""
    retries: int = 0
    """How many launches have died with it, or never began with it, since it was given to whoever has it."""
    orphanings: int = 0
    """How often it was orphaned."""
    interrupted: str | None = None
    """Why its owner's launch was ended on purpose while it had it; it goes on with the next one."""
    last_owner: str | None = None
    """Who had it before."""
    note: str | None = None
    """What was last said of it."""


@dataclass(frozen=True)
class AccountRow:
    """What agents' clients have said of an account; every one of its agents learns from it."""

    name: str
    runtime: str
    state: str = "unknown"
    limit_name: str | None = None
    """Which limit is reached: `5-hour`, `weekly`, ...; None: none is, or the client does not say."""
    until: float | None = None
    """Epoch seconds of the reset; None: unknown, or none."""
    text: str | None = None
    """The client's own words."""
    since: float | None = None
    """Since when the state is known, in epoch seconds."""
    seen_at: float | None = None
    """When that was seen the last time."""
    seen_by: str | None = None
    """At which agent."""
    source: str | None = None
    """By what: a word of `Source`, or `check`."""
    answered_at: float | None = None
    """When the model has last answered on it."""
    used_at: float | None = None
    """When an agent was last launched on it."""
    models: str = "[]"
    """The limits of single models, as JSON (`policy.accounts`)."""
    usage: str = "[]"
    """How much of each window is used, as JSON (`policy.accounts`)."""


@dataclass(frozen=True)
class NoticeRow:
    """Something that somebody wants to be told of; it is kept until it is old, told or not."""

    id: int
    at: float
    kind: str
    identity: str | None
    key: str
    """What it is about: of the same thing nobody is told twice within a short time."""
    text: str
    """One line for a person."""
    detail: dict[str, Any]


@dataclass(frozen=True)
class PluginRow:
    """What a plugin last said of itself."""

    name: str
    pid: int
    at: float
    """When its last tick ended, in epoch seconds."""
    secs: float
    """How long that took."""
    interval: float
    ticks: int = 0
    errors: int = 0
    last_error: str | None = None
    detail: str = "{}"
    """What it wants to know again after a restart, as JSON."""


@dataclass(frozen=True)
class ServerExitRow:
    """How a tmux server ended that nobody meant to end."""

    boot: str
    pid: int
    start: int
    socket: str
    at: float
    """When its end was noticed, in epoch seconds."""
    up: float | None
    """Seconds it had been up."""
    signal: int | None
    status: int | None
    """Both None: nobody knows how it ended."""
    how: str
    """How that is known: `pidfd-info`, `proc-stat` or `none`."""
    cause: str
    detected: str
    """`live`, or `post-factum`."""
    seen: float | None
    """When it was last seen alive, where nobody watched it end."""
    evidence: str
    forensics: str | None
    """Path of its snapshot."""
    agents: list[dict[str, Any]]
    """Those that lived in it: `identity`, `generation`."""


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
        return _process(self.worker_pid, self.worker_start)


@dataclass(frozen=True)
class ChildRow:
    """A process that circusd started and that must not outlive it into its successor's time."""

    process: ProcessId
    boot: str
    kind: str
    name: str
