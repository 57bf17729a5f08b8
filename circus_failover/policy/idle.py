"""Whether an agent that is up has been idle for so long that it is parked: the table, and nothing else.

First match wins. What is not proven is not idle: only what says so in every line leads to a park.

| evidence | action |
|---|---|
| observed | leave |
| not up | leave |
| never parked: `failover.idle_secs` and `failover.max_age_secs` are 0 | leave |
| tasks wait for it | busy |
| it has an assignment | busy |
| its state is working, waiting, limited, stuck or wedged | busy |
| its runtime tells what it does, and it was not seen to be idle | busy |
| its last activity cannot be told | busy |
| not idle for long enough | young |
| no probe was made | probe |
| the probe failed | busy |
| a client is attached, or that cannot be told | busy |
| a tool still runs below it, or that cannot be told | busy |
| otherwise | park |

Long enough is strictly more than `idle_secs`; or 60 s, when its launch became ready more than `max_age_secs`
ago. Idle time counts from the newest of: its last activity, its last task, its launch, its last attached
client, and the last suspend or jump of the clock. Its last activity is the newest movement of its terminal;
with the probe, also what its client was seen to do. The probe comes last because it alone costs something.
"""

from __future__ import annotations

from dataclasses import dataclass

from circus_failover.words import Phase, State, Word

MAX_AGE_QUIET_SECS = 60.0
"""How long an agent that is old must have been quiet: no agent is parked between two steps of its work."""
JUMP_SECS = 2.0
"""How far the clocks may differ between two looks: slewing (adjtime(3)) stays far below it."""

_NOT_IDLE = (State.WORKING, State.WAITING, State.LIMITED, State.STUCK, State.WEDGED)


class IdleAction(Word):
    """What is done about an agent."""

    LEAVE = "leave"
    BUSY = "busy"
    YOUNG = "young"
    PROBE = "probe"
    PARK = "park"


@dataclass(frozen=True)
class IdleSettings:
    """The settings this depends on, in seconds; 0 is never."""

    idle_secs: float
    max_age_secs: float


@dataclass(frozen=True)
class Probe:
    """What was found at a price: one call of tmux and one look at the processes. None: cannot be told."""

    attached: int | None
    tool_children: int | None
    failed: str = ""
    """Why it failed; empty when it did not."""
    state: State | None = None
    """What it was seen to do; None where its runtime cannot tell."""
    seen: str = ""
    """What says so."""
    last_activity: float | None = None
    """When its client last did something, in epoch seconds; None: that cannot be told."""


@dataclass(frozen=True)
class Evidence:
    """What is known of an agent; times in epoch seconds."""

    phase: Phase
    observed: bool
    state: State | None
    """What it was last said to do; None: nothing that still holds. `idle` and `unknown` prove nothing."""
    ready_at: float | None
    last_activity: float | None
    """None: it cannot be told, so nothing is proven."""
    last_task: float | None
    """None: no task was ever delivered."""
    last_attached: float | None
    """None: no client was ever seen."""
    tasks_waiting: int
    assignment: bool
    probe: Probe | None
    """None: not made, which is right until it is asked for."""


@dataclass(frozen=True)
class IdleVerdict:
    """What is done, why, and how long the agent has been idle in seconds (None: cannot be told)."""

    action: IdleAction
    reason: str
    age: float | None = None


@dataclass(frozen=True)
class Clock:
    """Two clocks read at the same moment.

    `wall` is epoch seconds; `steady` are seconds that nobody can set and that stand still in a suspend
    (CLOCK_MONOTONIC: clock_gettime(2), Linux).
    """

    wall: float
    steady: float


def clock_jumped(previous: Clock, current: Clock) -> bool:
    """Say whether the host was suspended or its clock was set, either way, between two looks."""
    moved = (current.wall - previous.wall) - (current.steady - previous.steady)
    return abs(moved) > JUMP_SECS


def decide(settings: IdleSettings, evidence: Evidence, floor: float | None, now: float) -> IdleVerdict:
    """Return whether an agent is parked.

    Args:
        settings: the agent's.
        evidence: what is known; its probe is made only after a verdict `probe`.
        floor: epoch seconds of the last suspend or jump of the clock; idle time counts from there at most.
        now: epoch seconds.
    """
    if evidence.observed:
        return IdleVerdict(IdleAction.LEAVE, "observed: watched and shown only")
    if evidence.phase is not Phase.UP:
        return IdleVerdict(IdleAction.LEAVE, f"it is {evidence.phase}")
    if settings.idle_secs <= 0 and settings.max_age_secs <= 0:
        return IdleVerdict(IdleAction.LEAVE, "failover.idle_secs and failover.max_age_secs are 0")
    age = _age(evidence, floor, now)
    missing = _missing(evidence)
    if missing or age is None:
        return IdleVerdict(IdleAction.BUSY, missing or "its last activity cannot be told", age)
    enough, reason = _long_enough(settings, evidence, age, now)
    if not enough:
        return IdleVerdict(IdleAction.YOUNG, reason, age)
    if evidence.probe is None:
        return IdleVerdict(IdleAction.PROBE, reason, age)
    missing = _unproven(evidence.probe)
    if missing:
        return IdleVerdict(IdleAction.BUSY, missing, age)
    return IdleVerdict(IdleAction.PARK, reason, age)


def _age(evidence: Evidence, floor: float | None, now: float) -> float | None:
    """Return for how many seconds nothing was seen of an agent; None when that cannot be told."""
    if evidence.last_activity is None:
        return None
    start = None if floor is None else min(floor, now)
    # A time ahead of now was read before the clock was set back. When that was is the floor, if it was seen.
    instead = now if start is None else start
    told = evidence.probe.last_activity if evidence.probe is not None else None
    seen = (evidence.last_activity, told, evidence.last_task, evidence.ready_at, evidence.last_attached)
    signs = [at if at <= now else instead for at in seen if at is not None]
    return now - max(signs if start is None else [*signs, start])


def _missing(evidence: Evidence) -> str:
    """Return which proof is missing that does not depend on for how long it was idle; empty when none is."""
    if evidence.tasks_waiting:
        return f"tasks wait for it: {evidence.tasks_waiting}"
    if evidence.assignment:
        return "it has an assignment"
    if evidence.state in _NOT_IDLE:
        return f"its state is {evidence.state}"
    probe = evidence.probe
    if probe is not None and probe.state not in (None, State.IDLE):
        return f"it was seen to be {probe.state}" + (f": {probe.seen}" if probe.seen else "")
    return ""


def _unproven(probe: Probe) -> str:
    """Return what the probe did not prove; empty when it proved everything."""
    if probe.failed:
        return f"the probe failed: {probe.failed}"
    if probe.attached is None:
        return "whether a client is attached cannot be told"
    if probe.attached:
        return f"attached clients: {probe.attached}"
    if probe.tool_children is None:
        return "whether a tool still runs cannot be told"
    if probe.tool_children:
        return f"running processes of tools: {probe.tool_children}"
    return ""


def _long_enough(settings: IdleSettings, evidence: Evidence, age: float, now: float) -> tuple[bool, str]:
    """Return whether the idle time is enough for a park, and the sentence that says so or why not."""
    idle_secs, limit = settings.idle_secs, settings.max_age_secs
    if 0 < idle_secs < age:
        return True, f"idle for {_secs(age)} s, failover.idle_secs is {_secs(idle_secs)}"
    launched = None if evidence.ready_at is None else now - evidence.ready_at
    if launched is not None and 0 < limit < launched:
        old = f"old: launched {_secs(launched)} s ago"
        if age >= MAX_AGE_QUIET_SECS:
            return True, f"{old}, failover.max_age_secs is {_secs(limit)}; idle for {_secs(age)} s"
        return False, f"{old}, but idle for {_secs(age)} of {_secs(MAX_AGE_QUIET_SECS)} s"
    if idle_secs > 0:
        return False, f"idle for {_secs(age)} of {_secs(idle_secs)} s"
    if launched is None:
        return False, "its age cannot be told, and failover.idle_secs is 0"
    return False, f"launched {_secs(launched)} of {_secs(limit)} s ago, and failover.idle_secs is 0"


def _secs(seconds: float) -> str:
    return f"{seconds:.1f}".removesuffix(".0")
