"""What is known of an account: the table, read from the module line by line, and what must never follow."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circus_failover.policy import accounts
from circus_failover.policy.accounts import (
    CHECKED,
    FORGOTTEN,
    OVERLOADED_SECS,
    UNKNOWN_RESET_SECS,
    Known,
    ModelLimit,
    Told,
    Usage,
    cleared,
    current,
    exhausted,
    headroom,
    learn,
)
from circus_failover.policy.health import Fault
from circus_failover.words import AccountState, FaultKind

calm = settings(max_examples=100, deadline=None)
"""On a loaded machine an example may take long."""
NOW = 1_800_000_000.0
AVAILABLE, LIMITED, CREDENTIALS, OVERLOADED, UNKNOWN = AccountState
WEEKLY = Fault(FaultKind.USAGE_LIMIT, "You've hit your weekly limit", "weekly", NOW + 86400)
FIVE_HOUR = Fault(FaultKind.USAGE_LIMIT, "You've hit your 5-hour limit", "5-hour", NOW + 600)
NO_RESET = Fault(FaultKind.USAGE_LIMIT, "You've hit your usage limit")
PASSED = replace(FIVE_HOUR, resets_at=NOW)
OPUS = Fault(FaultKind.USAGE_LIMIT, "You've reached your Opus limit", "opus", NOW + 86400, model_only=True)
CREDIT = Fault(FaultKind.CREDIT, "Credit balance too low")
LOGIN = Fault(FaultKind.CREDENTIALS, "Login expired")
OVERLOAD = Fault(FaultKind.OVERLOAD, "529 Overloaded", retrying=True)
FAILING = Fault(FaultKind.SERVER_ERROR, "API Error: 500")

NOTHING = Known("main", "claude")
GOOD = replace(NOTHING, state=AVAILABLE, since=NOW - 500, seen_at=NOW - 500, answered_at=NOW - 500)
HIT = replace(
    NOTHING,
    state=LIMITED,
    limit_name="5-hour",
    until=NOW + 300,
    since=NOW - 400,
    seen_at=NOW - 400,
    seen_by="a",
    source="transcript",
)
OUT = replace(NOTHING, state=CREDENTIALS, since=NOW - 400, seen_at=NOW - 400, seen_by="a")
BUSY = replace(NOTHING, state=OVERLOADED, since=NOW - 60, seen_at=NOW - 60, seen_by="a")
ANY = [NOTHING, GOOD, HIT, OUT, BUSY]


def told(fault: Fault | None = None, ago: float | None = 10.0, **more: Any) -> Told:
    """Return what a look at the agent `b` tells, whose fault is of so many seconds ago."""
    at = None if ago is None else NOW - ago
    return replace(Told("b", fault, at, "transcript"), **more)


def each(fault: Fault | None, ago: float | None = 10.0, of: Any = ANY, **more: Any) -> list[Any]:
    """Return what was known before, and what was told."""
    return [(known, told(fault, ago, **more)) for known in of]


def table() -> list[tuple[str, ...]]:
    """Return the rows of the table in the module's docstring: fault, known, becomes."""
    assert accounts.__doc__ is not None
    lines = [line for line in accounts.__doc__.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


CLEARED = [
    replace(cleared(OUT, CHECKED, "", None, NOW), seen_at=NOW - 9),
    replace(cleared(HIT, FORGOTTEN, "", "pat", NOW), seen_at=NOW - 9),
]
NOT_LIMITED = [NOTHING, GOOD, BUSY, HIT]

# What the table must say, row by row, and cases to which exactly that row applies.
ROWS: list[tuple[tuple[str, str, str], list[Any]]] = [
    (("none", "any", "that"), each(None)),
    (
        ("rate limit, network or other: the client tries again, or a person looks at it", "any", "that"),
        [
            case
            for kind in (FaultKind.RATE_LIMIT, FaultKind.NETWORK, FaultKind.OTHER)
            for case in each(Fault(kind, "429", retrying=True))
        ],
    ),
    (
        ("any, not newer than a check or `forget`", "any", "that"),
        [
            case
            for fault in (WEEKLY, NO_RESET, CREDIT, LOGIN, FAILING, OPUS)
            for case in each(fault, 9, CLEARED)
        ],
    ),
    (
        ("usage limit, its reset has passed, or said 6 h ago without one", "any", "that"),
        [
            case
            for fault in (PASSED, replace(OPUS, resets_at=NOW - 1), NO_RESET, CREDIT)
            for case in each(fault, UNKNOWN_RESET_SECS, [NOTHING, OUT])
        ],
    ),
    (
        ("usage limit of one model", "any", "that, and the model limited"),
        each(OPUS) + each(OPUS, of=[replace(GOOD, answered_at=NOW)]),
    ),
    (
        ("any, older than the last answer", "any", "that"),
        [
            case
            for fault in (WEEKLY, NO_RESET, CREDIT, LOGIN, FAILING)
            for case in each(fault, 501, [GOOD, replace(HIT, answered_at=NOW - 500)])
        ],
    ),
    (
        ("usage limit, credit or credentials, and its client works", "any", "that"),
        [case for fault in (WEEKLY, CREDIT, LOGIN) for case in each(fault, working=True)],
    ),
    (("credentials", "any", "credentials"), each(LOGIN) + each(LOGIN, None) + each(LOGIN, 0, CLEARED)),
    (
        ("usage limit or credit", "credentials", "that"),
        each(WEEKLY, of=[OUT]) + each(CREDIT, of=[OUT]) + each(NO_RESET, None, [OUT]),
    ),
    (
        ("usage limit or credit", "any other", "limited"),
        [case for fault in (WEEKLY, FIVE_HOUR, NO_RESET, CREDIT) for case in each(fault, of=NOT_LIMITED)],
    ),
    (
        ("overload or server error, said 120 s ago", "any", "that"),
        each(FAILING, OVERLOADED_SECS, [NOTHING, HIT, OUT, BUSY]),
    ),
    (
        ("overload or server error", "limited or credentials", "that"),
        each(OVERLOAD, of=[HIT, OUT]) + each(FAILING, of=[HIT, OUT]),
    ),
    (
        ("overload or server error", "any other", "overloaded"),
        each(OVERLOAD, of=[NOTHING, GOOD, BUSY], working=True) + each(FAILING, of=[NOTHING, GOOD, BUSY]),
    ),
]


def test_every_line_of_the_table_is_tried_and_nothing_else_is() -> None:
    assert table() == [row for row, _ in ROWS]


@pytest.mark.parametrize(
    ("becomes", "known", "said"),
    [(row[2], known, said) for row, cases in ROWS for known, said in cases],
)
def test_what_becomes_of_an_account_is_what_the_table_says(becomes: str, known: Known, said: Told) -> None:
    found = learn(known, said, NOW)
    if becomes == "that":
        assert found == known
    elif becomes == "that, and the model limited":
        assert found == replace(known, models=(ModelLimit("opus", OPUS.resets_at, NOW - 10),))
    else:
        assert found.state is AccountState(becomes)
        assert known.state is found.state or (found.seen_by, found.source) == ("b", "transcript")


# -- answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [NOTHING, HIT, OUT, BUSY])
def test_an_answer_that_is_newer_makes_an_account_available(known: Known) -> None:
    found = learn(known, told(answered_at=NOW - 5), NOW)
    assert (found.state, found.answered_at, found.seen_by) == (AVAILABLE, NOW - 5, "b")
    assert (found.until, found.limit_name, found.text, found.since) == (None, None, None, NOW - 5)


@pytest.mark.parametrize("known", [HIT, OUT])
def test_an_answer_that_is_not_newer_corrects_nothing(known: Known) -> None:
    assert learn(known, told(answered_at=NOW - 400), NOW) == replace(known, answered_at=NOW - 400)


@pytest.mark.parametrize("fault", [WEEKLY, NO_RESET, CREDIT, LOGIN, FAILING])
@pytest.mark.parametrize("answered", [NOW - 30.0, NOW - 9.0])
def test_it_does_not_matter_which_agent_is_looked_at_first(fault: Fault, answered: float) -> None:
    failed, other = told(fault, 20), Told("c", answered_at=answered)
    one = learn(learn(NOTHING, failed, NOW), other, NOW)
    two = learn(learn(NOTHING, other, NOW), failed, NOW)
    assert (one.state, one.until) == (two.state, two.until)
    assert (one.state is AVAILABLE) is (answered > NOW - 20)


def test_an_agent_that_still_shows_an_old_limit_does_not_bring_it_back() -> None:
    found = learn(HIT, Told("c", answered_at=NOW - 100), NOW)
    for _ in range(3):
        found = learn(found, told(FIVE_HOUR, 400), NOW)
    assert found.state is AVAILABLE


def test_the_time_since_which_it_is_known_is_that_of_the_first_to_say_so() -> None:
    found = learn(HIT, told(replace(FIVE_HOUR, resets_at=NOW + 360), 10), NOW)
    assert (found.since, found.seen_at, found.until) == (HIT.since, NOW - 10, NOW + 360)


# -- two limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations([(WEEKLY, 50), (FIVE_HOUR, 20)])))
def test_of_two_limits_the_one_that_holds_for_longer_counts(order: Any) -> None:
    found = NOTHING
    for fault, ago in order:
        found = learn(found, told(fault, ago), NOW)
    assert (found.limit_name, found.until, found.seen_at) == ("weekly", WEEKLY.resets_at, NOW - 20)


def test_of_one_limit_the_newest_word_about_its_reset_counts() -> None:
    later = replace(FIVE_HOUR, resets_at=NOW + 900)
    for first, then in itertools.permutations([(later, 50), (FIVE_HOUR, 20)]):
        found = learn(learn(NOTHING, told(*first), NOW), told(*then), NOW)
        assert found.until == FIVE_HOUR.resets_at


def test_a_reset_that_one_client_does_not_say_is_known_from_another() -> None:
    silent = replace(FIVE_HOUR, resets_at=None)
    found = learn(learn(NOTHING, told(FIVE_HOUR, 50), NOW), told(silent, 20), NOW)
    assert found.until == FIVE_HOUR.resets_at
    found = learn(learn(NOTHING, told(silent, 50), NOW), told(FIVE_HOUR, 50), NOW)
    assert found.until == FIVE_HOUR.resets_at


def test_the_end_of_a_credit_has_a_name_of_its_own() -> None:
    assert learn(NOTHING, told(CREDIT), NOW).limit_name == "credit"


# -- time ----------------------------------------------------------------------------------------------


def test_a_limit_is_over_at_its_reset_and_says_so() -> None:
    assert exhausted(HIT, NOW + 299) and not exhausted(HIT, NOW + 300)
    over = current(HIT, NOW + 300)
    assert over.state is UNKNOWN and over.since == HIT.until
    assert over.text == "the limit (5-hour) was to reset at 2027-01-15T08:05:00Z"
    assert learn(over, told(answered_at=NOW + 310), NOW + 320).state is AVAILABLE


def test_a_limit_without_a_reset_is_over_after_six_hours() -> None:
    hit = learn(NOTHING, told(NO_RESET, 0), NOW)
    assert exhausted(hit, NOW + UNKNOWN_RESET_SECS - 1) and not exhausted(hit, NOW + UNKNOWN_RESET_SECS)
    assert "no reset is known" in (current(hit, NOW + UNKNOWN_RESET_SECS).text or "")


def test_an_overload_is_never_exhausted_and_soon_over() -> None:
    assert not exhausted(BUSY, NOW)
    assert current(BUSY, BUSY.seen_at + OVERLOADED_SECS).state is UNKNOWN  # type: ignore[operator]


def test_bad_credentials_are_not_over_by_themselves() -> None:
    assert exhausted(OUT, NOW + 10 * 365 * 86400)


def test_the_newest_failure_of_a_login_is_what_a_new_login_has_to_be_newer_than() -> None:
    found = learn(learn(NOTHING, told(LOGIN, 50), NOW), told(LOGIN, 20), NOW)
    assert (found.state, found.since, found.seen_at) == (CREDENTIALS, NOW - 50, NOW - 20)
    assert learn(found, told(LOGIN, 30), NOW) == found


def test_what_was_seen_in_a_time_to_come_was_seen_before_the_clock_was_set_back() -> None:
    later = NOW + 7200
    hit = replace(HIT, until=None, seen_at=later)
    assert not exhausted(hit, NOW)
    known = learn(replace(GOOD, answered_at=later, seen_at=later), told(WEEKLY), NOW)
    assert known.state is LIMITED, "an answer to come proves nothing"
    assert learn(NOTHING, told(WEEKLY, -50), NOW).seen_at == NOW
    assert learn(HIT, told(answered_at=later), NOW).answered_at == NOW


def test_a_model_is_not_limited_any_more_after_its_reset() -> None:
    found = learn(NOTHING, told(OPUS), NOW)
    assert found.models and not current(found, OPUS.resets_at).models  # type: ignore[arg-type]
    again = learn(found, told(replace(OPUS, resets_at=NOW + 99), 5), NOW)
    assert again.models == (ModelLimit("opus", NOW + 99, NOW - 5),)


def test_limits_of_several_models_are_each_known_with_the_newest_word_about_its_reset() -> None:
    sonnet = replace(OPUS, window="sonnet", resets_at=NOW + 50)
    both = learn(learn(NOTHING, told(OPUS, 20), NOW), told(sonnet, 10), NOW)
    assert [(one.name, one.until) for one in both.models] == [("opus", NOW + 86400), ("sonnet", NOW + 50)]
    assert learn(both, told(replace(OPUS, resets_at=NOW + 7), 30), NOW) == both, "said before"
    silent = learn(both, told(replace(OPUS, resets_at=None), 5), NOW)
    assert silent.models[0] == ModelLimit("opus", NOW + 86400, NOW - 5), "a word without a reset takes none"
    late = learn(learn(NOTHING, told(replace(OPUS, resets_at=None), 5), NOW), told(OPUS, 20), NOW)
    assert late.models[0].until == NOW + 86400, "the only word about it counts, also when it is older"


# -- checked and forgotten -----------------------------------------------------------------------------


@pytest.mark.parametrize("known", [OUT, HIT])
def test_what_was_forgotten_comes_back_only_when_it_is_said_anew(known: Known) -> None:
    full = replace(known, models=(ModelLimit("opus", None, NOW),), usage=(Usage("weekly", 0.9, None, NOW),))
    found = cleared(full, FORGOTTEN, "forgotten by pat", "pat", NOW)
    assert found.state is UNKNOWN and not found.models and not found.usage
    for fault in (WEEKLY, LOGIN, OPUS):
        assert learn(found, told(fault, 0), NOW + 5) == found
        assert learn(found, told(fault, -1), NOW + 5) != found


def test_a_check_keeps_what_is_known_of_models_and_windows() -> None:
    full = replace(OUT, models=(ModelLimit("opus", None, NOW),), usage=(Usage("weekly", 0.9, None, NOW),))
    found = cleared(full, CHECKED, "checked: login", None, NOW)
    assert found.state is UNKNOWN and found.models and found.usage


# -- headroom ------------------------------------------------------------------------------------------


def test_the_tightest_window_that_was_not_reset_is_the_headroom() -> None:
    usage = (Usage("5-hour", 0.9, NOW + 10, NOW), Usage("weekly", 0.25, NOW + 9999, NOW))
    found = learn(NOTHING, told(usage=usage), NOW)
    assert headroom(found, NOW) == pytest.approx(0.1)
    assert headroom(found, NOW + 10) == pytest.approx(0.75)
    assert headroom(found, NOW + 9999) is None and headroom(NOTHING, NOW) is None
    assert headroom(learn(found, told(WEEKLY), NOW), NOW) == 0.0


def test_the_newest_word_about_a_window_counts() -> None:
    found = NOTHING
    for used, at in ((0.5, NOW - 10), (0.6, NOW - 5), (0.2, NOW - 20)):
        found = learn(found, told(usage=(Usage("weekly", used, NOW + 99, at),)), NOW)
    assert headroom(found, NOW) == pytest.approx(0.4)


# -- whatever is told ----------------------------------------------------------------------------------

times = st.floats(NOW - 40000, NOW + 100)
resets = st.none() | st.floats(NOW - 1000, NOW + 90000)
faults = st.builds(
    Fault,
    st.sampled_from(FaultKind),
    st.just("words"),
    st.sampled_from([None, "5-hour", "weekly"]),
    resets,
    st.booleans(),
    st.booleans(),
)
usages = st.lists(
    st.builds(Usage, st.sampled_from(["5-hour", "weekly"]), st.floats(0, 1.5), resets, times), max_size=2
).map(tuple)
looks = st.builds(
    Told,
    st.sampled_from("abc"),
    st.none() | faults,
    st.none() | times,
    st.none() | st.just("screen"),
    st.booleans(),
    st.none() | times,
    usages,
)


def after(said: list[Told]) -> Known:
    known = NOTHING
    for one in said:
        known = learn(known, one, NOW)
    return known


@calm
@given(st.lists(looks, max_size=6))
def test_only_a_standing_limit_of_the_account_or_its_login_exhausts_it(said: list[Told]) -> None:
    known = after(said)
    if exhausted(known, NOW):
        kinds = (FaultKind.USAGE_LIMIT, FaultKind.CREDIT, FaultKind.CREDENTIALS)
        assert any(
            one.fault is not None
            and one.fault.kind in kinds
            and (one.fault.kind is FaultKind.CREDENTIALS or not one.fault.model_only)
            and not one.working
            for one in said
        )
        if known.state is LIMITED and known.until is not None:
            assert known.until > NOW and not exhausted(known, known.until)


@calm
@given(st.lists(looks, max_size=6), looks)
def test_the_same_look_again_teaches_nothing_new(said: list[Told], last: Told) -> None:
    known = learn(after(said), last, NOW)
    assert learn(known, last, NOW) == known


@calm
@given(st.lists(looks, max_size=6))
def test_an_answer_now_always_makes_it_available_to_everybody(said: list[Told]) -> None:
    known = learn(after(said), Told("z", answered_at=NOW + 200), NOW + 200)
    assert known.state is AVAILABLE and not exhausted(known, NOW + 200)


@calm
@given(st.lists(looks, max_size=6), st.floats(0, 10**6))
def test_time_alone_never_exhausts_an_account_and_never_mends_a_login(said: list[Told], secs: float) -> None:
    known = after(said)
    later = current(known, NOW + secs)
    assert later.state in (known.state, UNKNOWN)
    assert (later.state is CREDENTIALS) is (known.state is CREDENTIALS)
    assert current(later, NOW + secs) == later


@calm
@given(st.lists(looks, max_size=6))
def test_headroom_is_a_part_of_the_whole_or_unknown(said: list[Told]) -> None:
    left = headroom(after(said), NOW)
    assert left is None or 0.0 <= left <= 1.0


@calm
@given(st.lists(looks, min_size=2, max_size=4))
def test_once_all_were_looked_at_again_it_does_not_matter_in_which_order(said: list[Told]) -> None:
    states = {after([*order, *order]).state.exhausted for order in itertools.permutations(said)}
    assert len(states) == 1
