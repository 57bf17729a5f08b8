"""What happens when Circus is about to start an agent's watcher: the table, and nothing else.

First match wins. Nothing here reads, writes, waits or knows Circus.

| situation | action | cause |
|---|---|---|
| an end of this agent is under way | leave | none |
| observed, alive | adopt | observed |
| observed, not alive | leave | observed |
| alive, the launch that is recorded | adopt | adopted |
| alive, started by somebody else | adopt | adopted-foreign |
| nothing can be said (its server does not answer), launch wanted | refuse | server-wedged |
| only what is alive is wanted (reload, tick) | leave | none |
| the restart policy wants it, and it is not down (parked, stopped, held) | leave | none |
| a switch wants it, and it is not on its way to another account any more | leave | none |
| restore: stopped by an operator, parked or held | leave | none |
| restore: ended by itself; its restart policy is the CrashLoopGuard's | leave | none |
| a launch is refused (settings, shared state, tmux missing) | refuse | that |
| something of the dead launch is left | clear first, then again | why it is wanted |
| it is on its way to another account | launch | switched |
| otherwise | launch | why it is wanted |
"""

from __future__ import annotations

from dataclasses import dataclass

from circus_failover.words import Asked, Cause, Liveness, Phase, Word


class BringUp(Word):
    """What is done."""

    ADOPT = "adopt"
    LAUNCH = "launch"
    REFUSE = "refuse"
    LEAVE = "leave"
    CLEAR_FIRST = "clear-first"


@dataclass(frozen=True)
class Hindrance:
    """Why no launch may happen now."""

    cause: Cause
    reason: str


@dataclass(frozen=True)
class Situation:
    """Everything the decision depends on."""

    asked: Asked
    observed: bool
    phase: Phase
    stay_stopped: bool
    generation: int
    liveness: Liveness
    ours: bool
    """What is alive is the recorded launch, by pid and start time."""
    ending: bool
    hindrance: Hindrance | None = None
    switching: bool = False
    """It is on its way to another account, and its old launch is gone."""
    unknown_reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is done, with the cause and the reason that every front end shows."""

    action: BringUp
    cause: Cause | None
    reason: str


def _wanted(situation: Situation) -> Cause | None:
    """Return why a launch is wanted, or None when it is not."""
    cause = _asked_for(situation)
    return Cause.SWITCHED if cause is not None and situation.switching else cause


def _asked_for(situation: Situation) -> Cause | None:
    if situation.asked is Asked.SWITCH:
        return Cause.SWITCHED if situation.switching and not situation.stay_stopped else None
    if situation.asked in (Asked.START, Asked.WAKE):
        if situation.generation == 0:
            return Cause.FIRST_START
        return Cause.OPERATOR_START if situation.asked is Asked.START else Cause.OPERATOR_WAKE
    if situation.asked is Asked.POLICY:
        return Cause.RESTART_POLICY if situation.phase is Phase.DOWN else None
    if situation.asked is Asked.ADOPT:
        return None
    if situation.stay_stopped or situation.phase in (Phase.STOPPED, Phase.PARKED, Phase.HELD):
        return None
    if situation.generation == 0:
        return Cause.FIRST_START
    if situation.phase is Phase.STARTING:
        return Cause.INTERRUPTED_START
    if situation.phase is Phase.REFUSED:
        return Cause.RESTORED
    return None


def decide(situation: Situation) -> Verdict:
    """Return what to do about an agent whose watcher is about to start."""
    if situation.ending:
        return Verdict(BringUp.LEAVE, None, "its end is under way")
    live = situation.liveness is Liveness.LIVE
    if situation.observed:
        if live:
            return Verdict(BringUp.ADOPT, Cause.OBSERVED, "observed: watched and shown only")
        return Verdict(BringUp.LEAVE, Cause.OBSERVED, "observed: its session is not there")
    if live:
        if situation.ours:
            return Verdict(BringUp.ADOPT, Cause.ADOPTED, "the recorded launch is alive")
        return Verdict(BringUp.ADOPT, Cause.ADOPTED_FOREIGN, "a session of its name is alive")
    wanted = _wanted(situation)
    if wanted is None:
        return Verdict(BringUp.LEAVE, None, f"not alive, and stays {situation.phase}")
    if situation.liveness is Liveness.UNKNOWN:
        return Verdict(BringUp.REFUSE, Cause.SERVER_WEDGED, situation.unknown_reason)
    if situation.hindrance is not None:
        return Verdict(BringUp.REFUSE, situation.hindrance.cause, situation.hindrance.reason)
    if situation.liveness is Liveness.REMAINS:
        return Verdict(BringUp.CLEAR_FIRST, wanted, "what is left of its last launch is cleared first")
    return Verdict(BringUp.LAUNCH, wanted, "")
