"""Resume or fresh: the table, read from the module itself line by line, and what never happens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import wake
from circus_failover.policy.wake import LastLaunch, WakeSettings, WakeVerdict, decide
from circus_failover.words import Kind, WakeAsked, WakeCause, WakeMode

NOW = 1_000_000.0
MAX_AGE = 3600.0


@dataclass(frozen=True)
class Case:
    """Everything the decision depends on."""

    asked: WakeAsked = WakeAsked.NOTHING
    kind: Kind = Kind.EXECUTOR
    resume_lost: bool = True
    last: LastLaunch | None = LastLaunch()
    resumable: bool = True
    topic: str | None = None
    known: bool = False

    def decided(self) -> WakeVerdict:
        """Return the verdict."""
        settings = WakeSettings(self.kind, self.resume_lost, MAX_AGE)
        return decide(settings, self.asked, self.last, self.resumable, self.topic, self.known, NOW)


NEVER = Case(last=None)
CRASHED = Case()
LOST = Case(last=LastLaunch(lost=True))
LOST_PARKED = Case(last=LastLaunch(lost=True, parked_at=NOW - 1))
PARKED = Case(last=LastLaunch(parked_at=NOW - MAX_AGE))
OLD = Case(last=LastLaunch(parked_at=NOW - MAX_AGE - 0.001))
TALK = replace(PARKED, kind=Kind.CONVERSATION)
NEW_TOPIC = replace(PARKED, topic="billing", known=False)
KNOWN_TOPIC = replace(PARKED, topic="billing", known=True)


def nothing(case: Case) -> Case:
    """Return the same case without anything to resume."""
    return replace(case, resumable=False)


# What the table must say, row by row: state, result, cause, and cases to which exactly that row applies. Each
# case is also one for the rows below it, as far as that is possible: the first match wins.
ROWS: list[tuple[str, str, str, str, list[Case]]] = [
    (
        *("fresh", "any", "fresh", "fresh-requested"),
        [
            replace(case, asked=WakeAsked.FRESH)
            for case in (NEVER, CRASHED, LOST, PARKED, OLD, TALK, NEW_TOPIC, nothing(PARKED))
        ],
    ),
    (
        *("resume", "resumable", "resume", "resume-requested"),
        [
            replace(case, asked=WakeAsked.RESUME)
            for case in (NEVER, CRASHED, LOST, PARKED, OLD, TALK, NEW_TOPIC)
        ],
    ),
    (
        *("resume", "not resumable", "refused", "resume-requested-nothing-to-resume"),
        [
            replace(nothing(case), asked=WakeAsked.RESUME)
            for case in (NEVER, CRASHED, LOST, PARKED, OLD, TALK, NEW_TOPIC)
        ],
    ),
    (
        *("", "never launched", "fresh", "first-wake"),
        [NEVER, nothing(NEVER), replace(NEVER, kind=Kind.CONVERSATION), replace(NEVER, topic="billing")],
    ),
    (
        *("", "lost, `resume_lost`, resumable", "resume", "lost-resume"),
        [LOST, LOST_PARKED, replace(LOST, kind=Kind.CONVERSATION), replace(LOST, topic="billing")],
    ),
    (
        *("", "lost, `resume_lost`, not resumable", "fresh", "lost-no-resume"),
        [nothing(LOST), nothing(LOST_PARKED), replace(nothing(LOST), topic="billing")],
    ),
    (
        *("", "not parked: it ended by itself", "fresh", "crash-or-self-close"),
        [
            CRASHED,
            nothing(CRASHED),
            replace(CRASHED, kind=Kind.CONVERSATION),
            replace(CRASHED, topic="billing", known=True),
            replace(LOST, resume_lost=False),
            replace(CRASHED, resume_lost=False),
        ],
    ),
    (
        *("", "parked, conversation, resumable", "resume", "idle-reaped-conversation"),
        [
            TALK,
            replace(TALK, topic="billing", known=False),
            replace(OLD, kind=Kind.CONVERSATION),
            replace(TALK, last=LOST_PARKED.last, resume_lost=False),
        ],
    ),
    (
        *("", "parked, conversation, not resumable", "fresh", "idle-reaped-conversation-no-resume"),
        [nothing(TALK), replace(nothing(TALK), topic="billing"), nothing(replace(OLD, kind=TALK.kind))],
    ),
    (
        *("", "parked, executor, new topic", "fresh", "idle-reaped-new-topic"),
        [NEW_TOPIC, nothing(NEW_TOPIC), replace(NEW_TOPIC, last=OLD.last)],
    ),
    (
        *("", "parked, executor, no topic, too long ago", "fresh", "idle-reaped-too-old"),
        [OLD, nothing(OLD)],
    ),
    (
        *("", "parked, executor, resumable", "resume", "idle-reaped-resume"),
        # A known topic is resumed however long ago it was parked: the age is looked at without one only.
        [PARKED, KNOWN_TOPIC, replace(KNOWN_TOPIC, last=OLD.last)],
    ),
    (
        *("", "parked, executor, not resumable", "fresh", "idle-reaped-no-resume"),
        [nothing(PARKED), nothing(KNOWN_TOPIC), nothing(replace(KNOWN_TOPIC, last=OLD.last))],
    ),
]


def table() -> list[tuple[str, ...]]:
    """Return the rows of the table in the module's docstring: asked, state, result, cause."""
    assert wake.__doc__ is not None
    lines = [line for line in wake.__doc__.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def test_the_table_has_the_rows_that_were_agreed_on_in_their_order() -> None:
    assert table() == [row[:4] for row in ROWS]


@pytest.mark.parametrize("row", range(len(ROWS)), ids=[row[3] for row in ROWS])
def test_each_row_of_the_table_says_what_is_done(row: int) -> None:
    _, _, result, cause = table()[row]
    for case in ROWS[row][4]:
        assert case.decided() == WakeVerdict(WakeMode(result), WakeCause(cause)), case


def test_every_cause_of_a_wake_is_in_the_table() -> None:
    assert sorted(row[3] for row in table()) == sorted(str(cause) for cause in WakeCause)


def test_a_park_is_too_old_only_beyond_the_age_not_at_it() -> None:
    assert PARKED.decided().mode is WakeMode.RESUME
    assert OLD.decided().cause is WakeCause.TOO_OLD
    future = replace(PARKED, last=LastLaunch(parked_at=NOW + 10 * MAX_AGE))
    assert future.decided().cause is WakeCause.PARKED_RESUME, "the clock was set back: nothing is too old"


cases = st.builds(
    Case,
    asked=st.sampled_from(WakeAsked),
    kind=st.sampled_from(Kind),
    resume_lost=st.booleans(),
    last=st.none()
    | st.builds(
        LastLaunch, lost=st.booleans(), parked_at=st.none() | st.floats(NOW - 3 * MAX_AGE, NOW + MAX_AGE)
    ),
    resumable=st.booleans(),
    topic=st.none() | st.just("billing"),
    known=st.booleans(),
)


@given(cases)
def test_nothing_is_resumed_that_cannot_be(case: Case) -> None:
    assert case.resumable or case.decided().mode is not WakeMode.RESUME


@given(cases)
def test_only_a_resume_that_was_asked_for_by_name_is_refused(case: Case) -> None:
    refused = case.decided().mode is WakeMode.REFUSED
    assert refused == (case.asked is WakeAsked.RESUME and not case.resumable)


@given(cases)
def test_what_ended_by_itself_is_resumed_only_when_it_was_lost_or_somebody_asks(case: Case) -> None:
    if case.asked is WakeAsked.RESUME or case.decided().mode is not WakeMode.RESUME:
        return
    assert case.last is not None
    assert case.last.parked_at is not None or (case.last.lost and case.resume_lost)


@given(cases)
def test_a_new_topic_never_continues_an_executor_s_parked_conversation(case: Case) -> None:
    if case.kind is Kind.EXECUTOR and case.topic and not case.known and case.asked is WakeAsked.NOTHING:
        verdict = case.decided()
        assert verdict.mode is WakeMode.FRESH or verdict.cause is WakeCause.LOST_RESUME


@given(cases)
def test_the_cause_tells_the_mode(case: Case) -> None:
    verdict = case.decided()
    fresh = "-no-resume" in verdict.cause or verdict.cause in (
        *(WakeCause.FRESH_REQUESTED, WakeCause.FIRST_WAKE, WakeCause.CRASH_OR_SELF_CLOSE),
        *(WakeCause.NEW_TOPIC, WakeCause.TOO_OLD),
    )
    if verdict.cause is WakeCause.NOTHING_TO_RESUME:
        assert verdict.mode is WakeMode.REFUSED
    else:
        assert verdict.mode is (WakeMode.FRESH if fresh else WakeMode.RESUME)
