"""Whether an agent that has work gets on with it: the table, and nothing else.

First match wins. Only a broken heartbeat contract, with work and of a proven launch, ever ends an agent; what
cannot be told leads to nothing.

| evidence | action |
|---|---|
| observed | leave |
| not up | leave |
| its tmux server does not answer | leave |
| it waits for somebody, and that was not told yet | waiting |
| it waits for somebody, or its account is limited | leave |
| it has no assignment that it has taken | leave |
| its process, or when its launch began or was ready, is not proven | leave |
| its launch became ready less than `grace_secs` ago | young |
| its heartbeat cannot be looked at | leave |
| nothing is due | alive |
| its runtime tells what it does, and nobody has looked at it for this | look |
| its runtime tells what it does, and that is unknown | leave |
| its heartbeat is older than `stuck_secs` | stuck |
| no progress for more than `progress_secs`, which was not told yet | no-progress |
| its heartbeat is older than `nudge_secs`, and it was not nudged yet | nudge |
| no heartbeat contract, and silent for more than `nudge_secs`, which was not told yet | silent |
| otherwise | alive |

A threshold of 0 is never. An age counts from the newest sign, or from a later suspend or jump of the clock:
of a heartbeat from the last beat of this launch, the launch's being ready, and the agent's taking the
assignment; of progress also from what its client did (of a runtime that cannot tell that: from its terminal's
last movement) and from every change of the assignment; of silence also from its terminal. A sign that is
older than the launch is none, and one that lies ahead is one of now. What was told or done once is told or
done again only when a newer sign has ended that episode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from circus_failover.policy.idle import Clock, clock_jumped
from circus_failover.words import Phase, State, Word

TYPED_SECS = 15.0
"""A terminal that moves so soon after something was typed into it may have moved for that alone: it shows
what is typed, and tells the time of a movement only within 8 s (Linux 6.18)."""
LATE_TICKS = 3
LATE_SECS = 5.0
"""Looks that are further apart than so many intervals and seconds say that the host stood still."""


class HeartbeatAction(Word):
    """What is done about an agent."""

    LEAVE = "leave"
    YOUNG = "young"
    ALIVE = "alive"
    LOOK = "look"
    WAITING = "waiting"
    SILENT = "silent"
    NUDGE = "nudge"
    NO_PROGRESS = "no-progress"
    STUCK = "stuck"


@dataclass(frozen=True)
class Thresholds:
    """The settings this depends on, in seconds; 0 is never."""

    contract: bool
    """It promises a heartbeat (`failover.heartbeat`), and this very launch was told so."""
    grace_secs: float
    nudge_secs: float
    stuck_secs: float
    progress_secs: float
    nudge_no_progress: bool


@dataclass(frozen=True)
class Beat:
    """One look at a heartbeat: when it was the last time, in epoch seconds; None: never."""

    at: float | None = None
    failed: str = ""
    """Why it cannot be told; empty when it can."""


@dataclass(frozen=True)
class Work:
    """An assignment that its owner has taken; times in epoch seconds."""

    id: str
    taken_at: float
    changed_at: float
    """When its state was last another one."""


@dataclass(frozen=True)
class Evidence:
    """What is known of an agent; times in epoch seconds."""

    phase: Phase
    observed: bool
    wedged: bool
    tells: bool
    """Its runtime can tell what it does."""
    state: State | None
    """What it does; None: that was not said, or holds no more."""
    question: str
    """What it waits for, where it waits."""
    looked: bool
    """Its client was looked at just now, for this decision."""
    work: Work | None
    proven: bool
    """The recorded process runs, as far as that can be told."""
    launched_at: float | None
    ready_at: float | None
    beat: Beat
    """Its heartbeat; nothing where it has no contract."""
    activity: float | None
    """When its client last did something; None: that cannot be told."""
    terminal: float | None
    """When its terminal last moved; None: that cannot be told."""
    typed_at: float | None
    """When something was last typed into it."""


@dataclass(frozen=True)
class Told:
    """What was done about an agent's launch: for each kind, the sign that was the newest then.

    A newer sign ends the episode, so that it may be done again.
    """

    nudged: float | None = None
    no_progress: float | None = None
    silent: float | None = None
    question: str | None = None
    """What it waits for, as it was told; None: it does not wait."""
    progress: float = 0.0
    """The newest sign of progress that was ever seen of this launch."""


@dataclass(frozen=True)
class HeartbeatVerdict:
    """What is done, why, and for how many seconds nothing was seen (None: that cannot be told)."""

    action: HeartbeatAction
    reason: str
    age: float | None = None
    nudge: bool = False
    """It is nudged, too."""


def interrupted(previous: Clock, current: Clock, interval: float) -> bool:
    """Say whether the host stood still, or its clock was set, between two looks: ages count anew then.

    Args:
        previous: the clocks at the last look.
        current: the clocks now.
        interval: how many seconds were to be between them.
    """
    late = current.steady - previous.steady > LATE_TICKS * interval + LATE_SECS
    return late or clock_jumped(previous, current)


def decide(
    thresholds: Thresholds, evidence: Evidence, told: Told, floor: float | None, now: float
) -> HeartbeatVerdict:
    """Return what is done about an agent.

    Args:
        thresholds: the agent's settings.
        evidence: what is known.
        told: what was done about this launch before.
        floor: epoch seconds of the last suspend or jump of the clock: no age is greater than since then.
        now: epoch seconds.
    """
    left = _left(evidence, told)
    if left is not None:
        return left
    signs = _signs(thresholds, evidence, told, now)
    if signs is None:
        return HeartbeatVerdict(HeartbeatAction.LEAVE, "when its launch began, or was ready, is not proven")
    ages = _Ages(signs, floor, now)
    shown = ages.beat if thresholds.contract else ages.silence
    up = now - min(evidence.ready_at or now, now)
    if up < thresholds.grace_secs:
        reason = f"ready for {_secs(up)} of failover.grace_secs {_secs(thresholds.grace_secs)} s"
        return HeartbeatVerdict(HeartbeatAction.YOUNG, reason, shown)
    if thresholds.contract and evidence.beat.failed:
        reason = f"its heartbeat cannot be looked at: {evidence.beat.failed}"
        return HeartbeatVerdict(HeartbeatAction.LEAVE, reason)
    due = _due(thresholds, evidence, signs, ages, told)
    if due.action is HeartbeatAction.ALIVE:
        return due
    if evidence.tells and not evidence.looked:
        return replace(due, action=HeartbeatAction.LOOK, nudge=False)
    if evidence.tells and evidence.state in (None, State.UNKNOWN):
        return HeartbeatVerdict(HeartbeatAction.LEAVE, "what it does is unknown", due.age)
    return due


def after(
    thresholds: Thresholds, evidence: Evidence, told: Told, verdict: HeartbeatVerdict, now: float
) -> Told:
    """Return what was told and done once a verdict has been carried out.

    Args:
        thresholds: the agent's settings.
        evidence: what the verdict is about.
        told: what had been done before.
        verdict: what was carried out.
        now: epoch seconds.
    """
    if verdict.action is HeartbeatAction.WAITING:
        return replace(told, question=evidence.question)
    if evidence.state not in (None, State.UNKNOWN, State.WAITING):
        told = replace(told, question=None)
    signs = _signs(thresholds, evidence, told, now)
    if signs is None:
        return told
    told = replace(told, progress=signs.progress)
    if verdict.nudge:
        told = replace(told, nudged=signs.beat if thresholds.contract else signs.progress)
    if verdict.action is HeartbeatAction.NO_PROGRESS:
        # That it is silent, too, is no more news.
        return replace(told, no_progress=signs.progress, silent=signs.silence)
    if verdict.action is HeartbeatAction.SILENT:
        return replace(told, silent=signs.silence)
    return told


# -- signs and ages --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Signs:
    """The newest sign of each kind, in epoch seconds."""

    beat: float
    progress: float
    silence: float


class _Ages:
    """How old those signs are, in seconds, or how long ago the host stood still."""

    def __init__(self, signs: _Signs, floor: float | None, now: float) -> None:
        start = now if floor is None else min(floor, now)
        self.beat, self.progress, self.silence = (
            now - (at if floor is None else max(at, start))
            for at in (signs.beat, signs.progress, signs.silence)
        )


def _signs(thresholds: Thresholds, evidence: Evidence, told: Told, now: float) -> _Signs | None:
    work, launched, ready = evidence.work, evidence.launched_at, evidence.ready_at
    if work is None or launched is None or ready is None or not evidence.proven:
        return None
    # One that lies ahead was noted before the clock was set back.
    launched = min(launched, now)

    def seen(*times: float | None) -> float:
        return max(min(at, now) for at in times if at is not None and at >= launched)

    ready = max(ready, launched)
    terminal = evidence.terminal
    if terminal is not None and evidence.typed_at is not None:
        echo = evidence.typed_at <= terminal <= evidence.typed_at + TYPED_SECS
        terminal = None if echo else terminal
    beat = evidence.beat.at if thresholds.contract else None
    did = evidence.activity if evidence.tells else terminal
    progress = seen(beat, did, work.taken_at, work.changed_at, ready, told.progress)
    return _Signs(seen(beat, work.taken_at, ready), progress, seen(progress, terminal))


# -- what is due -----------------------------------------------------------------------------------------


def _left(evidence: Evidence, told: Told) -> HeartbeatVerdict | None:
    """Return the verdict of the lines that depend on no age; None when none of them applies."""
    leave, state = HeartbeatAction.LEAVE, evidence.state
    if evidence.observed:
        return HeartbeatVerdict(leave, "observed: watched and shown only")
    if evidence.phase is not Phase.UP:
        return HeartbeatVerdict(leave, f"it is {evidence.phase}")
    if evidence.wedged or state is State.WEDGED:
        return HeartbeatVerdict(leave, "its tmux server does not answer")
    if state is State.WAITING and told.question != evidence.question:
        return HeartbeatVerdict(HeartbeatAction.WAITING, evidence.question or "for somebody")
    if state in (State.WAITING, State.LIMITED):
        return HeartbeatVerdict(leave, f"it is {state}")
    if evidence.work is None:
        return HeartbeatVerdict(leave, "it has no assignment that it has taken")
    if not evidence.proven:
        return HeartbeatVerdict(leave, "its process is not proven to run")
    return None


def _due(
    thresholds: Thresholds, evidence: Evidence, signs: _Signs, ages: _Ages, told: Told
) -> HeartbeatVerdict:
    """Return what is due by age, whatever the client says that it does."""
    contract = thresholds.contract
    words = f"no heartbeat for {_secs(ages.beat)} s"
    if contract and _older(ages.beat, thresholds.stuck_secs):
        limit = f"failover.stuck_secs is {_secs(thresholds.stuck_secs)}"
        return HeartbeatVerdict(HeartbeatAction.STUCK, f"{words}, {limit}", ages.beat)
    # What a telling client did is seen when it is looked at; until then the last look counts.
    known = evidence.activity is not None if evidence.tells else evidence.terminal is not None
    known = known or (evidence.tells and not evidence.looked)
    if known and _older(ages.progress, thresholds.progress_secs) and _newer(signs.progress, told.no_progress):
        limit = f"failover.progress_secs is {_secs(thresholds.progress_secs)}"
        reason = f"no progress for {_secs(ages.progress)} s, {limit}"
        nudge = thresholds.nudge_no_progress and _newer(
            signs.beat if contract else signs.progress, told.nudged
        )
        return HeartbeatVerdict(HeartbeatAction.NO_PROGRESS, reason, ages.progress, nudge)
    limit = f"failover.nudge_secs is {_secs(thresholds.nudge_secs)}"
    if contract and _older(ages.beat, thresholds.nudge_secs) and _newer(signs.beat, told.nudged):
        return HeartbeatVerdict(HeartbeatAction.NUDGE, f"{words}, {limit}", ages.beat, nudge=True)
    silent = known and evidence.terminal is not None and _older(ages.silence, thresholds.nudge_secs)
    if not contract and silent and _newer(signs.silence, told.silent):
        reason = f"nothing was seen of it for {_secs(ages.silence)} s, {limit}; it has no heartbeat contract"
        return HeartbeatVerdict(HeartbeatAction.SILENT, reason, ages.silence)
    age = ages.beat if contract else ages.silence
    return HeartbeatVerdict(HeartbeatAction.ALIVE, f"last seen {_secs(age)} s ago", age)


def _older(age: float, threshold: float) -> bool:
    return 0 < threshold < age


def _newer(sign: float, told: float | None) -> bool:
    return told is None or sign > told


# -- queues ----------------------------------------------------------------------------------------------


def waits_too_long(queued_at: float, longest: float, floor: float | None, now: float) -> float | None:
    """Return for how many seconds something has been queued, where that is too long; else None.

    Args:
        queued_at: epoch seconds.
        longest: `failover.queue_max_age_secs`; 0 is never.
        floor: epoch seconds of the last suspend or jump of the clock.
        now: epoch seconds.
    """
    since = queued_at if floor is None else max(queued_at, min(floor, now))
    return now - since if _older(now - since, longest) else None


def _secs(seconds: float) -> str:
    return f"{seconds:.1f}".removesuffix(".0")
