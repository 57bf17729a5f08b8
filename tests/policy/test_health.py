"""What an agent does: the table, read from the module line by line, and what never happens."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circus_failover.policy import health
from circus_failover.policy.health import Fault, Health, Sign, decide
from circus_failover.words import FaultKind, Source, State

calm = settings(max_examples=50, deadline=None)
"""On a loaded machine an example may take long."""
LAUNCH = 1_000_000.0
NOW = LAUNCH + 5000

IDLE, WORKING, WAITING = State.IDLE, State.WORKING, State.WAITING
STATUS, HOOK, TRANSCRIPT, TITLE, SCREEN = Source
LIMIT = Fault(FaultKind.USAGE_LIMIT, "You've hit your 5-hour limit", "5-hour", NOW + 600)
CREDIT = Fault(FaultKind.CREDIT, "Credit balance too low")
LOGIN = Fault(FaultKind.CREDENTIALS, "Not logged in")
OVERLOAD = Fault(FaultKind.OVERLOAD, "529 Overloaded")
RETRIED = replace(OVERLOAD, retrying=True)


def says(source: Source, state: State | None, ago: float | None, what: str = "", **more: Any) -> Sign:
    """Return a sign of so many seconds ago; None: of a time that cannot be told."""
    at = None if ago is None else NOW - ago
    return replace(Sign(source, at, state, what), **more)


def failed(source: Source, fault: Fault, ago: float | None, state: State | None = None) -> Sign:
    """Return a sign of a fault."""
    return says(source, state, ago, fault=fault)


def answered(ago: float | None, source: Source = TRANSCRIPT) -> Sign:
    """Return a sign of an answer."""
    return says(source, None, ago, answered=True)


def decided(*signs: Sign) -> Health:
    """Return what these signs say."""
    return decide(signs, LAUNCH, NOW)


def table() -> list[tuple[str, ...]]:
    """Return the rows of the table in the module's docstring: fault, state otherwise, state, shown."""
    assert health.__doc__ is not None
    lines = [line for line in health.__doc__.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


IDLE_NOW = says(STATUS, IDLE, 5)
BUSY_SINCE = says(STATUS, WORKING, 50)
ASKS = says(STATUS, WAITING, 5, "permission: Bash")
PASSED = replace(LIMIT, resets_at=NOW)

# What the table must say, row by row, and signs to which exactly that row applies.
ROWS: list[tuple[tuple[str, str, str, str], list[list[Sign]]]] = [
    (
        ("none", "cannot be told", "unknown", "no"),
        [
            [],
            [answered(3)],
            [says(STATUS, WORKING, 5001)],
            [failed(TRANSCRIPT, LIMIT, 5001)],
            [failed(HOOK, LIMIT, None)],
            [failed(TRANSCRIPT, LIMIT, None)],
            [failed(TITLE, LIMIT, None)],
            [failed(STATUS, LIMIT, None)],
        ],
    ),
    (
        ("none", "any", "that", "no"),
        [
            [IDLE_NOW],
            [BUSY_SINCE],
            [ASKS],
            [says(STATUS, IDLE, 4999), says(HOOK, WORKING, 10), says(SCREEN, WORKING, None)],
            [says(STATUS, IDLE, None), says(HOOK, WORKING, 10)],
            [says(HOOK, IDLE, 10), says(TRANSCRIPT, WORKING, 20), says(TITLE, WORKING, None)],
            [says(TRANSCRIPT, IDLE, 10), says(HOOK, WORKING, 20)],
            [says(TITLE, WORKING, None), says(SCREEN, IDLE, None)],
            [says(SCREEN, WAITING, None, "dialog: trust")],
            [failed(TRANSCRIPT, LIMIT, None), IDLE_NOW],
        ],
    ),
    (
        ("any, answered since", "any", "that", "no"),
        [
            [failed(TRANSCRIPT, LIMIT, 20), answered(10), IDLE_NOW],
            [failed(HOOK, LOGIN, 20), answered(10), ASKS],
            [failed(TRANSCRIPT, RETRIED, 20), answered(10), BUSY_SINCE],
            [failed(SCREEN, CREDIT, 20), answered(10), IDLE_NOW],
        ],
    ),
    (
        ("any, a newer turn works", "working", "working", "no"),
        [
            [failed(TRANSCRIPT, LIMIT, 60), BUSY_SINCE],
            [failed(TRANSCRIPT, CREDIT, 60), says(HOOK, WORKING, 5)],
            [failed(HOOK, LOGIN, 60, IDLE), says(TRANSCRIPT, WORKING, 5)],
        ],
    ),
    (
        ("usage limit or credit, its reset has passed", "any", "that", "no"),
        [
            [failed(TRANSCRIPT, PASSED, 60), IDLE_NOW],
            [failed(TRANSCRIPT, PASSED, 40), BUSY_SINCE],
            [failed(SCREEN, PASSED, None), ASKS],
            [failed(TRANSCRIPT, replace(PASSED, kind=FaultKind.CREDIT), 60), IDLE_NOW],
            # The same limit, by words without a time that could be read.
            [failed(TRANSCRIPT, PASSED, 60), failed(SCREEN, replace(LIMIT, resets_at=None), None), IDLE_NOW],
            [failed(TRANSCRIPT, PASSED, 60), failed(HOOK, replace(LIMIT, resets_at=None), 59), IDLE_NOW],
            [failed(TRANSCRIPT, LIMIT, 90), failed(TRANSCRIPT, PASSED, 9), IDLE_NOW],
        ],
    ),
    (
        ("any, the client works", "working", "working", "yes"),
        [
            [failed(TRANSCRIPT, LIMIT, 20), BUSY_SINCE],
            [failed(TRANSCRIPT, LIMIT, 50), BUSY_SINCE],
            [failed(TRANSCRIPT, LOGIN, 20), BUSY_SINCE],
            [failed(SCREEN, RETRIED, None), BUSY_SINCE],
            [failed(SCREEN, replace(LIMIT, retrying=True), None), BUSY_SINCE],
            [failed(TRANSCRIPT, LIMIT, 90), failed(SCREEN, RETRIED, None), BUSY_SINCE],
            [failed(TRANSCRIPT, RETRIED, 20), says(HOOK, WORKING, 50)],
            [failed(TRANSCRIPT, replace(LIMIT, retrying=True), 20), says(HOOK, WORKING, 50)],
        ],
    ),
    (
        ("usage limit or credit", "any other", "limited", "yes"),
        [
            [failed(TRANSCRIPT, LIMIT, 20), IDLE_NOW],
            [failed(TRANSCRIPT, LIMIT, 20)],
            [failed(TRANSCRIPT, LIMIT, 20), says(STATUS, WAITING, 19, "dialog: limit")],
            [failed(TRANSCRIPT, replace(LIMIT, resets_at=None), 4000), IDLE_NOW],
            [failed(TRANSCRIPT, replace(LIMIT, model_only=True), 20), IDLE_NOW],
            [failed(TRANSCRIPT, replace(LIMIT, retrying=True), 20), IDLE_NOW],
            [failed(TRANSCRIPT, CREDIT, 20), IDLE_NOW],
            [failed(SCREEN, LIMIT, None), IDLE_NOW],
            [failed(TRANSCRIPT, LIMIT, 20), answered(30), IDLE_NOW],
            [failed(TRANSCRIPT, LIMIT, 20), answered(20), IDLE_NOW],
            [failed(TRANSCRIPT, LIMIT, 20), answered(None), IDLE_NOW],
            # That turn is over: it ended in this fault.
            [failed(TRANSCRIPT, LIMIT, 20), says(HOOK, WORKING, 30)],
            # A turn that was given up before it answered proves nothing.
            [failed(TRANSCRIPT, LIMIT, 90), says(HOOK, WORKING, 50), IDLE_NOW],
        ],
    ),
    (
        ("credentials", "any other", "waiting", "yes"),
        [
            [failed(TRANSCRIPT, LOGIN, 20), IDLE_NOW],
            [failed(HOOK, LOGIN, 20, IDLE)],
            [failed(SCREEN, LOGIN, None), ASKS],
            [failed(TRANSCRIPT, replace(LOGIN, retrying=True), 20), IDLE_NOW],
            [failed(TRANSCRIPT, PASSED, 60), failed(SCREEN, LOGIN, None), IDLE_NOW],
        ],
    ),
    (
        ("any other, retrying", "cannot be told, or an older or less trusted one", "working", "yes"),
        [
            [failed(SCREEN, RETRIED, None)],
            [failed(TRANSCRIPT, RETRIED, 20)],
            [failed(TRANSCRIPT, RETRIED, 20), says(HOOK, IDLE, 30)],
            [failed(TRANSCRIPT, RETRIED, 20), says(TITLE, IDLE, None)],
        ],
    ),
    (
        ("any other", "cannot be told", "idle", "yes"),
        [
            [failed(TRANSCRIPT, OVERLOAD, 20)],
            [failed(SCREEN, replace(OVERLOAD, kind=FaultKind.OTHER), None)],
            [failed(TRANSCRIPT, replace(OVERLOAD, kind=FaultKind.NETWORK), 20), says(HOOK, WORKING, 30)],
        ],
    ),
    (
        ("any other", "any other", "that", "yes"),
        [
            [failed(TRANSCRIPT, OVERLOAD, 20), IDLE_NOW],
            [failed(TRANSCRIPT, OVERLOAD, 20), ASKS],
            [failed(HOOK, replace(OVERLOAD, kind=FaultKind.RATE_LIMIT), 20, IDLE)],
            [failed(SCREEN, RETRIED, None), IDLE_NOW],
            [failed(TRANSCRIPT, RETRIED, 40), says(HOOK, IDLE, 30)],
            [failed(TRANSCRIPT, RETRIED, 20), says(STATUS, IDLE, 30)],
            # Only a limit ends with its time.
            [failed(TRANSCRIPT, replace(PASSED, kind=FaultKind.RATE_LIMIT), 20), IDLE_NOW],
        ],
    ),
]


def test_the_table_has_these_rows() -> None:
    assert table() == [row for row, _ in ROWS]


@pytest.mark.parametrize(
    "row, signs",
    [(row, signs) for row, cases in ROWS for signs in cases],
    ids=lambda value: None if isinstance(value, list) else f"{value[0]} / {value[1]}",
)
def test_each_row_is_what_is_decided(row: tuple[str, str, str, str], signs: list[Sign]) -> None:
    state, shown = row[2], row[3]
    result = decided(*signs)
    if state == "that":
        others = [sign for sign in signs if sign.fault is None or sign.state is not None]
        assert result.state is decided(*(replace(sign, fault=None) for sign in others)).state
    else:
        assert result.state == state
    assert (result.fault is not None) is (shown == "yes")


@pytest.mark.parametrize("kind", FaultKind)
def test_every_kind_of_fault_has_a_row(kind: FaultKind) -> None:
    states = {
        FaultKind.USAGE_LIMIT: State.LIMITED,
        FaultKind.CREDIT: State.LIMITED,
        FaultKind.CREDENTIALS: State.WAITING,
    }
    fault = Fault(kind, "words")
    result = decided(failed(TRANSCRIPT, fault, 20), IDLE_NOW)
    assert (result.state, result.fault) == (states.get(kind, State.IDLE), fault)


def test_a_limit_is_over_at_the_second_of_its_reset_and_not_before() -> None:
    signs = [failed(TRANSCRIPT, LIMIT, 20), IDLE_NOW]
    assert LIMIT.resets_at is not None
    assert decide(signs, LAUNCH, LIMIT.resets_at - 0.001).state is State.LIMITED
    assert decide(signs, LAUNCH, LIMIT.resets_at) == replace(
        decided(IDLE_NOW),
        evidence="status-file: idle for 605 s; transcript: usage-limit (5-hour), was to reset "
        "1970-01-12T15:20:00Z",
    )


def test_a_sign_counts_from_the_moment_of_the_launch_on() -> None:
    assert decide([says(STATUS, IDLE, 5000)], LAUNCH, NOW).state is State.IDLE
    assert decide([says(STATUS, IDLE, 5000.001)], LAUNCH, NOW).state is State.UNKNOWN


def test_what_it_waits_for_and_since_when_is_told() -> None:
    assert decided(ASKS, says(HOOK, IDLE, 1)) == Health(
        WAITING,
        STATUS,
        NOW - 5,
        "permission: Bash",
        evidence="status-file: waiting (permission: Bash) for 5 s",
    )
    assert decided(failed(TRANSCRIPT, LOGIN, 20), IDLE_NOW).what == "login"
    menu = says(STATUS, WAITING, 19, "dialog: limit")
    assert decided(failed(TRANSCRIPT, LIMIT, 20), menu).what == "dialog: limit"


def test_a_less_trusted_source_that_agrees_does_not_take_over() -> None:
    assert decided(says(HOOK, IDLE, 20), says(TRANSCRIPT, IDLE, 10)).source is HOOK


def test_a_limit_counts_from_the_fault_and_not_from_the_look() -> None:
    limited = decided(failed(TRANSCRIPT, LIMIT, 20), IDLE_NOW)
    assert (limited.source, limited.at) == (TRANSCRIPT, NOW - 20)


@pytest.mark.parametrize(
    "signs, words",
    [
        ([], "nothing tells what it does"),
        ([IDLE_NOW], "status-file: idle for 5 s"),
        ([says(SCREEN, WORKING, None, "tool: Bash")], "screen: working (tool: Bash)"),
        (
            [says(STATUS, IDLE, 12), failed(TRANSCRIPT, LIMIT, 20)],
            "status-file: idle for 12 s; transcript: usage-limit (5-hour), resets 1970-01-12T15:20:00Z",
        ),
        (
            [IDLE_NOW, failed(SCREEN, Fault(FaultKind.USAGE_LIMIT), None)],
            "status-file: idle for 5 s; screen: usage-limit, reset unknown",
        ),
        (
            [BUSY_SINCE, failed(SCREEN, RETRIED, None)],
            "status-file: working for 50 s; screen: overload, retrying",
        ),
        ([failed(TRANSCRIPT, OVERLOAD, 20)], "transcript: overload"),
    ],
)
def test_the_evidence_says_which_source_said_what(signs: list[Sign], words: str) -> None:
    assert decided(*signs).evidence == words


def test_a_reset_beyond_all_calendars_is_shown_as_a_number() -> None:
    far = replace(LIMIT, resets_at=1e18)
    assert decided(failed(TRANSCRIPT, far, 20)).evidence.endswith(f"resets {1e18:.0f}")


def test_what_one_source_does_not_say_of_a_fault_another_one_does() -> None:
    vague = Fault(FaultKind.USAGE_LIMIT, "limit")
    hook, transcript = failed(HOOK, vague, 20, IDLE), failed(TRANSCRIPT, LIMIT, 21)
    assert decided(hook, transcript).fault == replace(LIMIT, text="limit")
    assert decided(hook, failed(SCREEN, LIMIT, None)).fault == replace(LIMIT, text="limit")


@pytest.mark.parametrize(
    "other",
    [
        failed(TRANSCRIPT, LIMIT, 20 + health.SAME_EVENT_SECS + 1),
        failed(TRANSCRIPT, replace(LIMIT, window="weekly"), 21),
        failed(TRANSCRIPT, replace(CREDIT, resets_at=NOW + 9), 21),
    ],
    ids=["an earlier one", "another window", "another kind"],
)
def test_a_fault_is_not_completed_by_what_is_said_of_another(other: Sign) -> None:
    vague = Fault(FaultKind.USAGE_LIMIT, "limit", "5-hour")
    assert decided(failed(HOOK, vague, 20, IDLE), other).fault == vague


@pytest.mark.parametrize("other", [State.UNKNOWN, State.LIMITED, State.STUCK, State.WEDGED])
def test_a_state_that_no_client_can_say_tells_nothing(other: State) -> None:
    assert decided(says(STATUS, other, 5), says(SCREEN, IDLE, None)).source is SCREEN


ago = st.one_of(st.none(), st.integers(-5, 6000))
faults = st.one_of(
    st.none(),
    st.none(),
    st.builds(
        Fault,
        kind=st.sampled_from(FaultKind),
        text=st.sampled_from(["", "words"]),
        window=st.sampled_from([None, "5-hour", "weekly"]),
        resets_at=st.sampled_from([None, NOW - 1, NOW, NOW + 1, NOW + 90_000]),
        retrying=st.booleans(),
    ),
)
signs_ = st.builds(
    Sign,
    source=st.sampled_from(Source),
    at=ago.map(lambda secs: None if secs is None else NOW - secs),
    state=st.one_of(st.none(), st.sampled_from([IDLE, WORKING, WAITING])),
    what=st.sampled_from(["", "tool: Bash"]),
    fault=faults,
    answered=st.booleans(),
)
many = st.lists(signs_, max_size=6)


@calm
@given(many, st.randoms(use_true_random=False))
def test_the_order_of_the_signs_does_not_matter(signs: list[Sign], order: random.Random) -> None:
    shuffled = list(signs)
    order.shuffle(shuffled)
    assert decide(shuffled, LAUNCH, NOW) == decide(signs, LAUNCH, NOW)


@pytest.mark.parametrize(
    "one, other",
    [
        (says(HOOK, IDLE, 20), says(HOOK, WORKING, 20)),
        (says(HOOK, WAITING, 20, "permission: Bash"), says(HOOK, WAITING, 20, "permission: Edit")),
        (says(HOOK, IDLE, 0), says(HOOK, IDLE, None)),
        (failed(HOOK, LIMIT, 20), failed(HOOK, OVERLOAD, 20)),
        (failed(SCREEN, LIMIT, None), failed(SCREEN, OVERLOAD, None)),
    ],
)
def test_not_even_of_signs_of_one_moment(one: Sign, other: Sign) -> None:
    assert decided(one, other) == decided(other, one)


@calm
@given(many, st.lists(signs_, max_size=4))
def test_signs_that_are_older_than_the_launch_never_matter(signs: list[Sign], older: list[Sign]) -> None:
    before = [replace(sign, at=LAUNCH - 1 - number) for number, sign in enumerate(older)]
    assert decide([*before, *signs], LAUNCH, NOW) == decide(signs, LAUNCH, NOW)


@calm
@given(many, signs_)
def test_nothing_less_trusted_makes_a_working_status_file_idle(signs: list[Sign], more: Sign) -> None:
    working = says(STATUS, WORKING, 5)
    others = [sign for sign in (*signs, more) if sign.source is not STATUS]
    assert decide([working, *others], LAUNCH, NOW).state is State.WORKING


@calm
@given(many)
def test_it_is_unknown_exactly_when_nothing_tells(signs: list[Sign]) -> None:
    result = decide(signs, LAUNCH, NOW)
    fresh = [sign for sign in signs if sign.at is None or sign.at >= LAUNCH]
    says_state = any(sign.state is not None for sign in fresh)
    if says_state or result.fault is not None:
        assert result.state is not State.UNKNOWN
    else:
        assert result.state is State.UNKNOWN


@calm
@given(many)
def test_limited_always_has_its_fault_whose_reset_is_still_to_come(signs: list[Sign]) -> None:
    result = decide(signs, LAUNCH, NOW)
    if result.state is State.LIMITED:
        assert result.fault is not None
        assert result.fault.kind in (FaultKind.USAGE_LIMIT, FaultKind.CREDIT)
        assert result.fault.resets_at is None or result.fault.resets_at > NOW


@calm
@given(many, st.sampled_from(Source))
def test_an_answer_ends_every_fault_before_it(signs: list[Sign], source: Source) -> None:
    before = [replace(sign, at=min(sign.at, NOW - 1)) for sign in signs if sign.at is not None]
    result = decide([*before, Sign(source, NOW, answered=True)], LAUNCH, NOW)
    assert result.fault is None and result.state is not State.LIMITED


@calm
@given(many)
def test_a_fault_without_a_time_counts_only_from_the_screen(signs: list[Sign]) -> None:
    untimed = [replace(sign, at=None) for sign in signs if sign.source is not SCREEN]
    assert decide(untimed, LAUNCH, NOW).fault is None


@calm
@given(many)
def test_a_state_is_never_one_that_no_sign_or_fault_says(signs: list[Sign]) -> None:
    result = decide(signs, LAUNCH, NOW)
    if result.fault is None and result.state is not State.UNKNOWN:
        assert (result.source, result.at, result.state, result.what) in [
            (sign.source, sign.at, sign.state, sign.what) for sign in signs
        ]
    assert result.evidence
