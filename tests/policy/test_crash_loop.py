"""The crash-loop guard: its tables, read from the module line by line, and what never happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import crash_loop
from circus_failover.policy.crash_loop import (
    Ended,
    LoopSettings,
    LoopState,
    after_end,
    counted,
    due_at,
    half_open,
    permits,
    reason,
    spends,
    stable,
)
from circus_failover.words import Cause, Loop

NOW = 1_000_000.0
SETTINGS = LoopSettings(crash_max=3, crash_window_secs=300.0, stable_secs=300.0)
CLOSED = LoopState(Loop.CLOSED, None, 0)
OPEN = LoopState(Loop.OPEN, NOW + 30, 0)
GIVEN_UP = LoopState(Loop.GIVEN_UP, None, 5)


def trial(failures: int) -> LoopState:
    return LoopState(Loop.HALF_OPEN, None, failures)


def death(ago: float, up_for: float | None = 5.0, cause: str = Cause.SIGNALED, **rest: object) -> Ended:
    """Return an end `ago` seconds before now, of a launch that was up for `up_for` (None: never)."""
    at = NOW - ago
    plain = Ended(1, None if up_for is None else at - up_for, at, False, str(cause), None)
    return replace(plain, **rest)  # type: ignore[arg-type]


KILLED = death(0)
FAILED = death(0, up_for=None, cause=Cause.LAUNCH_FAILED)
DONE = death(0, cause=Cause.EXITED, exit_status=0)
PARKED = death(0, cause=Cause.PARKED, planned=True)
STABLE = death(0, up_for=300)
STABLE_DONE = replace(DONE, up_at=NOW - 300)
TWO_BEFORE = [death(10), death(20)]


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table in the module's docstring whose heading begins so."""
    assert crash_loop.__doc__ is not None
    blocks = [block.splitlines() for block in crash_loop.__doc__.split("\n\n")]
    (found,) = [block for block in blocks if block[0].startswith(f"| {heading} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[2:]]


# The first words of each line of the table of ends, and ends to which exactly that line applies.
ENDS: dict[str, list[Ended]] = {
    "planned": [
        PARKED,
        replace(KILLED, planned=True),
        *(
            death(0, cause=cause, planned=True)
            for cause in (Cause.OPERATOR_STOP, Cause.OPERATOR_RESTART, Cause.FRESH, Cause.REMOVED)
        ),
    ],
    "exited with status 0": [DONE, STABLE_DONE],
    "exited, signaled": [
        death(0, cause=Cause.EXITED, exit_status=1),
        death(0, cause=Cause.EXITED, exit_status=None),
        KILLED,
        STABLE,
        FAILED,
        *(death(0, cause=cause) for cause in (Cause.SERVER_LOST, Cause.SESSION_GONE, Cause.ENDED_UNKNOWN)),
    ],
    "anything else": [
        *(
            death(0, cause=cause)
            for cause in (Cause.HOST_REBOOT, Cause.INTERRUPTED_START, Cause.ADOPTED_FOREIGN, Cause.PARKED)
        ),
        *(death(0, cause=cause, exit_status=1) for cause in (Cause.SERVER_ENDED, Cause.USAGE_LIMIT)),
        death(0, cause=Cause.CREDENTIALS, exit_status=1),
        death(0, cause=""),
        death(0, cause="a-word-of-a-later-version"),
    ],
}


def test_every_line_of_the_table_of_ends_has_examples_in_its_order() -> None:
    rows = table("end")
    assert len(rows) == len(ENDS)
    for row, start in zip(rows, ENDS, strict=True):
        assert row[0].startswith(start)


@pytest.mark.parametrize("row, end", [(row, end) for row, ends in enumerate(ENDS.values()) for end in ends])
def test_the_table_says_what_spends_the_budget(row: int, end: Ended) -> None:
    assert spends(end) is {"yes": True, "no": False}[table("end")[row][1]]


def test_the_table_names_exactly_the_causes_that_spend() -> None:
    named = {cause.strip() for cause in table("end")[2][0].split(",")}
    assert named == {str(cause) for cause in Cause if spends(death(0, cause=cause))}


COUNTS: list[tuple[str, list[Ended], int]] = [
    ("none", [], 0),
    ("all within the window", [death(0), death(10), death(300)], 3),
    ("not the one before it", [death(0), death(10), death(300.1)], 2),
    ("those of a clock that was set back since", [death(-5), death(-4000), death(10)], 3),
    ("not what does not spend", [death(0), PARKED, death(10), DONE], 2),
    ("the death of a stable launch, none before it", [death(0), death(5, up_for=300), death(290)], 2),
    ("none before a stable launch that was parked", [death(0), replace(STABLE, planned=True), death(9)], 1),
    ("none before a stable launch that exited with 0", [death(0), STABLE_DONE, death(9)], 1),
    ("those before a launch that was up almost as long", [death(0), death(5, up_for=299), death(290)], 3),
    ("those of launches that were never up", [FAILED, death(1, up_for=None), death(2, up_for=None)], 3),
]


@pytest.mark.parametrize("ended, count", [row[1:] for row in COUNTS], ids=[row[0] for row in COUNTS])
def test_what_counts_against_the_budget(ended: list[Ended], count: int) -> None:
    found = counted(SETTINGS, ended, NOW)
    assert len(found) == count
    assert all(spends(end) for end in found)
    assert found == [end for end in ended if end in found]


# The first two cells of each line of the table of states, and states and ends to which exactly it applies.
AFTER: dict[tuple[str, str], list[tuple[LoopState, list[Ended], LoopState]]] = {
    ("open, given-up", "any"): [
        (OPEN, [KILLED, *TWO_BEFORE], OPEN),
        (replace(OPEN, until=NOW - 1), [KILLED], replace(OPEN, until=NOW - 1)),
        (replace(OPEN, failures=2), [STABLE], replace(OPEN, failures=2)),
        (GIVEN_UP, [KILLED], GIVEN_UP),
        (GIVEN_UP, [STABLE_DONE], GIVEN_UP),
    ],
    ("half-open", "of a launch that was up for `stable_secs`"): [
        (trial(0), [STABLE, *TWO_BEFORE], CLOSED),
        (trial(4), [STABLE, *TWO_BEFORE], CLOSED),
        (trial(4), [STABLE_DONE], CLOSED),
        (trial(1), [replace(STABLE, planned=True)], CLOSED),
    ],
    ("any", "spends nothing"): [
        (CLOSED, [DONE, *TWO_BEFORE, death(30)], CLOSED),
        (CLOSED, [PARKED, *TWO_BEFORE, death(30)], CLOSED),
        (CLOSED, [], CLOSED),
        (trial(0), [DONE], trial(0)),
        (trial(4), [PARKED, death(20)], trial(4)),
        (trial(2), [death(0, cause=Cause.HOST_REBOOT), death(20)], trial(2)),
    ],
    ("half-open", "spends, and is the 5th failed trial"): [
        (trial(4), [KILLED], GIVEN_UP),
        (trial(4), [FAILED, *TWO_BEFORE], GIVEN_UP),
        (trial(7), [KILLED], replace(GIVEN_UP, failures=8)),
    ],
    ("half-open", "spends"): [
        (trial(0), [KILLED], LoopState(Loop.OPEN, NOW + 60, 1)),
        (trial(1), [FAILED], LoopState(Loop.OPEN, NOW + 120, 2)),
        (trial(2), [death(0, up_for=299)], LoopState(Loop.OPEN, NOW + 240, 3)),
        (trial(3), [KILLED], LoopState(Loop.OPEN, NOW + 480, 4)),
    ],
    ("closed", "spends, and is the `crash_max`th that counts"): [
        (CLOSED, [KILLED, *TWO_BEFORE], OPEN),
        (CLOSED, [FAILED, death(150), death(300), death(400)], OPEN),
        (CLOSED, [KILLED, DONE, PARKED, *TWO_BEFORE], OPEN),
        (CLOSED, [KILLED, *TWO_BEFORE, death(30), death(40)], OPEN),
    ],
    ("closed", "spends"): [
        (CLOSED, [KILLED], CLOSED),
        (CLOSED, [KILLED, death(10), death(301)], CLOSED),
        (CLOSED, [STABLE, *TWO_BEFORE], CLOSED),
        (CLOSED, [KILLED, DONE, death(10)], CLOSED),
    ],
}
BECOMES = {
    "stays": None,
    "closed, then as below": Loop.CLOSED,
    "given-up": Loop.GIVEN_UP,
    "open, for 30 s doubled by each failed trial, at most 600 s": Loop.OPEN,
    "open, for 30 s": Loop.OPEN,
}


def test_every_line_of_the_table_of_states_has_examples_in_its_order() -> None:
    assert [tuple(row[:2]) for row in table("held to")] == list(AFTER)


@pytest.mark.parametrize(
    "row, state, ended, becomes",
    [(row, *example) for row, examples in enumerate(AFTER.values()) for example in examples],
)
def test_the_table_says_what_an_end_does(
    row: int, state: LoopState, ended: list[Ended], becomes: LoopState
) -> None:
    assert after_end(SETTINGS, state, ended, NOW) == becomes
    loop = BECOMES[table("held to")[row][2]]
    assert becomes == state if loop is None else becomes.loop is loop


def test_a_trial_that_dies_after_being_stable_is_the_first_death_of_a_new_count() -> None:
    once = replace(SETTINGS, crash_max=1)
    assert after_end(once, trial(4), [STABLE], NOW) == OPEN
    twice = after_end(SETTINGS, trial(4), [STABLE, *TWO_BEFORE], NOW)
    assert after_end(SETTINGS, twice, [KILLED, STABLE, *TWO_BEFORE], NOW) == CLOSED
    assert after_end(SETTINGS, twice, [KILLED, KILLED, STABLE, *TWO_BEFORE], NOW) == OPEN


# what is held, since or until when       whether a launch may happen
PERMITS: list[tuple[str, LoopState, bool]] = [
    ("closed", CLOSED, True),
    ("half-open", trial(3), True),
    ("given-up", GIVEN_UP, False),
    ("open", OPEN, False),
    ("open, until now", replace(OPEN, until=NOW), True),
    ("open, until a moment ago", replace(OPEN, until=NOW - 0.1), True),
    ("open, for the longest time there is", replace(OPEN, until=NOW + 600), False),
    ("open, for longer than there is: the clock was set back", replace(OPEN, until=NOW + 600.1), True),
    ("open, until nobody knows when", replace(OPEN, until=None), True),
]


@pytest.mark.parametrize("state, allowed", [row[1:] for row in PERMITS], ids=[row[0] for row in PERMITS])
def test_a_launch_is_permitted_only_when_the_hold_allows_it(state: LoopState, allowed: bool) -> None:
    assert permits(state, NOW) is allowed


@pytest.mark.parametrize("state, allowed", [row[1:] for row in PERMITS], ids=[row[0] for row in PERMITS])
def test_a_hold_half_opens_exactly_when_it_permits_a_launch(state: LoopState, allowed: bool) -> None:
    new = half_open(replace(state, failures=2), NOW)
    if state.loop is Loop.OPEN and allowed:
        assert new == trial(2)
    else:
        assert new is None


@pytest.mark.parametrize("state", [OPEN, trial(3), GIVEN_UP])
def test_being_up_for_long_enough_clears_everything(state: LoopState) -> None:
    assert stable(SETTINGS, state, NOW - 300, NOW) == CLOSED
    assert stable(SETTINGS, state, NOW - 299.9, NOW) is None
    assert stable(SETTINGS, state, NOW + 4000, NOW) is None
    assert stable(SETTINGS, state, None, NOW) is None
    assert stable(SETTINGS, CLOSED, NOW - 4000, NOW) is None


EXITED = death(12, cause=Cause.EXITED, exit_status=1)
REASONS: list[tuple[LoopState, list[Ended], str]] = [
    (
        LoopState(Loop.OPEN, NOW + 18, 0),
        [EXITED, death(40), death(300)],
        "3 deaths in 300 s, the last at 13:46:28 UTC (exited with status 1);"
        " held until 13:46:58 UTC, or failoverctl reset bob",
    ),
    (
        LoopState(Loop.OPEN, NOW - 1, 0),
        [death(31), death(40), death(330)],
        "3 deaths in 300 s, the last at 13:46:09 UTC (signaled);"
        " one launch may be tried now, or failoverctl reset bob",
    ),
    (
        LoopState(Loop.OPEN, NOW + 60, 1),
        [death(0, cause=Cause.LAUNCH_FAILED)],
        "1 launch on trial died, the last at 13:46:40 UTC (launch-failed);"
        " held until 13:47:40 UTC, or failoverctl reset bob",
    ),
    (
        GIVEN_UP,
        [death(0, cause=Cause.SERVER_LOST)],
        "5 launches on trial died, the last at 13:46:40 UTC (server-lost);"
        " given up: failoverctl reset bob, or failoverctl start bob",
    ),
    (
        trial(0),
        [death(31), death(40), death(50)],
        "3 deaths in 300 s, the last at 13:46:09 UTC (signaled);"
        " one launch is on trial: up for 300 s it clears the crash loop, as does failoverctl reset bob",
    ),
    (
        LoopState(Loop.OPEN, NOW + 18, 0),
        [],
        "it died too often; held until 13:46:58 UTC, or failoverctl reset bob",
    ),
    (
        LoopState(Loop.OPEN, NOW + 18, 0),
        [PARKED, STABLE_DONE, EXITED, death(13), death(14)],
        "3 deaths in 300 s, the last at 13:46:28 UTC (exited with status 1);"
        " held until 13:46:58 UTC, or failoverctl reset bob",
    ),
    (CLOSED, [EXITED, death(40)], "no crash loop: 2 of 3 deaths in 300 s"),
    (CLOSED, [], "no crash loop: 0 of 3 deaths in 300 s"),
]


@pytest.mark.parametrize("state, ended, sentence", REASONS)
def test_the_reason_says_how_often_why_until_when_and_what_to_do(
    state: LoopState, ended: list[Ended], sentence: str
) -> None:
    assert reason(SETTINGS, state, ended, NOW, "bob") == sentence


def test_an_agent_that_dies_at_every_launch_is_held_ever_longer_and_given_up_after_five_trials() -> None:
    now, state, ended = NOW, CLOSED, list[Ended]()
    holds = []
    while state.loop is not Loop.GIVEN_UP:
        if not permits(state, now):
            assert state.until is not None
            holds.append(state.until - now)
            now = state.until
        state = half_open(state, now) or state
        now += 1
        ended.insert(0, Ended(len(ended), None, now, False, str(Cause.LAUNCH_FAILED), None))
        state = after_end(SETTINGS, state, ended, now)
    assert holds == [30, 60, 120, 240, 480]
    assert len(ended) == 3 + 5
    assert not permits(state, now + 10**9)


ends = st.builds(
    Ended,
    generation=st.integers(1, 9),
    up_at=st.one_of(st.none(), st.integers(-900, 900).map(lambda secs: NOW + secs)),
    ended_at=st.integers(-900, 900).map(lambda secs: NOW + secs),
    planned=st.booleans(),
    cause=st.sampled_from([str(cause) for cause in Cause]),
    exit_status=st.one_of(st.none(), st.integers(0, 2)),
)
states = st.one_of(
    st.just(CLOSED),
    st.just(GIVEN_UP),
    st.builds(trial, st.integers(0, 4)),
    st.builds(
        LoopState,
        loop=st.just(Loop.OPEN),
        until=st.one_of(st.none(), st.integers(-9000, 9000).map(lambda secs: NOW + secs)),
        failures=st.integers(0, 4),
    ),
)


@given(states, st.lists(ends, max_size=6))
def test_no_end_holds_an_agent_for_longer_than_the_longest_hold(state: LoopState, ended: list[Ended]) -> None:
    new = after_end(SETTINGS, state, ended, NOW)
    if new.loop is not Loop.GIVEN_UP:
        assert any(permits(new, NOW + wait) for wait in (0, 600))
    assert (new.loop is Loop.GIVEN_UP) == (new.failures >= 5)


@given(states, st.lists(ends, max_size=6))
def test_what_spends_nothing_holds_nothing(state: LoopState, ended: list[Ended]) -> None:
    harmless = [replace(end, planned=True) for end in ended]
    new = after_end(SETTINGS, state, harmless, NOW)
    assert new in (state, CLOSED)


@given(states, st.integers(0, 1200))
def test_a_hold_is_over_when_it_says(state: LoopState, wait: int) -> None:
    at = due_at(state, NOW)
    if state.loop is not Loop.OPEN:
        assert at is None
        return
    assert at is not None and at <= NOW + 600
    assert permits(state, NOW) is (at <= NOW)
    if state.until == at and at <= NOW + wait:
        assert permits(state, NOW + wait)


@given(states, st.lists(ends, max_size=6))
def test_the_reason_is_one_sentence_that_never_counts_what_is_not_there(
    state: LoopState, ended: list[Ended]
) -> None:
    said = reason(SETTINGS, state, ended, NOW, "bob")
    assert said and "\n" not in said
    if state.loop is not Loop.CLOSED:
        assert "0 deaths" not in said and "reset bob" in said
