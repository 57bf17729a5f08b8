"""Resume or fresh: how an agent begins again is decided by how its last launch ended. The table, only.

First match wins.

| asked | state | result | cause |
|---|---|---|---|
| fresh | any | fresh | fresh-requested |
| resume | resumable | resume | resume-requested |
| resume | not resumable | refused | resume-requested-nothing-to-resume |
| | never launched | fresh | first-wake |
| | lost, `resume_lost`, resumable | resume | lost-resume |
| | lost, `resume_lost`, not resumable | fresh | lost-no-resume |
| | not parked: it ended by itself | fresh | crash-or-self-close |
| | parked, conversation, resumable | resume | idle-reaped-conversation |
| | parked, conversation, not resumable | fresh | idle-reaped-conversation-no-resume |
| | parked, executor, new topic | fresh | idle-reaped-new-topic |
| | parked, executor, no topic, too long ago | fresh | idle-reaped-too-old |
| | parked, executor, resumable | resume | idle-reaped-resume |
| | parked, executor, not resumable | fresh | idle-reaped-no-resume |

Lost means: with its tmux server or its host, proven by a record. A topic is new when it was never
delivered in the conversation that would be resumed.
"""

from __future__ import annotations

from dataclasses import dataclass

from circus_failover.words import Kind, WakeAsked, WakeCause, WakeMode


@dataclass(frozen=True)
class WakeSettings:
    """The settings a wake depends on."""

    kind: Kind = Kind.EXECUTOR
    resume_lost: bool = True
    resume_max_age_secs: float = 86400.0


@dataclass(frozen=True)
class LastLaunch:
    """How the last launch ended, as far as a record proves it."""

    lost: bool = False
    """Its tmux server or its host went, and a record says so."""
    parked_at: float | None = None
    """Epoch seconds of the park that ended it, still unspent; None when it ended by itself."""


@dataclass(frozen=True)
class WakeVerdict:
    """How the launch begins, and why."""

    mode: WakeMode
    cause: WakeCause


def decide(
    settings: WakeSettings,
    asked: WakeAsked,
    last: LastLaunch | None,
    resumable: bool,
    topic: str | None,
    topic_known: bool,
    now: float,
) -> WakeVerdict:
    """Return whether a wake resumes or begins fresh.

    Args:
        settings: the agent's.
        asked: what the wake asked for.
        last: how the last launch ended; None when there never was one.
        resumable: there is a conversation that can be resumed.
        topic: the topic of what is to be done, trimmed; None when there is none.
        topic_known: that topic was delivered in the conversation that would be resumed.
        now: epoch seconds.
    """

    def resume_if_possible(resume: WakeCause, fresh: WakeCause) -> WakeVerdict:
        return WakeVerdict(WakeMode.RESUME, resume) if resumable else WakeVerdict(WakeMode.FRESH, fresh)

    if asked is WakeAsked.FRESH:
        return WakeVerdict(WakeMode.FRESH, WakeCause.FRESH_REQUESTED)
    if asked is WakeAsked.RESUME:
        if resumable:
            return WakeVerdict(WakeMode.RESUME, WakeCause.RESUME_REQUESTED)
        return WakeVerdict(WakeMode.REFUSED, WakeCause.NOTHING_TO_RESUME)
    if last is None:
        return WakeVerdict(WakeMode.FRESH, WakeCause.FIRST_WAKE)
    if last.lost and settings.resume_lost:
        return resume_if_possible(WakeCause.LOST_RESUME, WakeCause.LOST_NO_RESUME)
    if last.parked_at is None:
        return WakeVerdict(WakeMode.FRESH, WakeCause.CRASH_OR_SELF_CLOSE)
    if settings.kind is Kind.CONVERSATION:
        return resume_if_possible(WakeCause.CONVERSATION_RESUME, WakeCause.CONVERSATION_NO_RESUME)
    if topic is not None:
        if not topic_known:
            return WakeVerdict(WakeMode.FRESH, WakeCause.NEW_TOPIC)
    elif now - last.parked_at > settings.resume_max_age_secs:
        return WakeVerdict(WakeMode.FRESH, WakeCause.TOO_OLD)
    return resume_if_possible(WakeCause.PARKED_RESUME, WakeCause.PARKED_NO_RESUME)
