"""Mass deaths: the tables, read from the module line by line, and whole incidents played through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import incident
from circus_failover.policy.incident import Incident, Life, Pace, find, pace
from circus_failover.words import Cause

NOW = 1_000_000.0
BEGAN = NOW - 100
POLICY = str(Cause.RESTART_POLICY)


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table in the module's docstring whose heading begins so."""
    assert incident.__doc__ is not None
    blocks = [block.splitlines() for block in incident.__doc__.split("\n\n")]
    (found,) = [block for block in blocks if block[0].startswith(f"| {heading} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[2:]]


def life(identity: str, ended_at: float | None = None, started_at: float = NOW - 50_000) -> Life:
    """Return the launch of an agent that was up at once, and that died at a time or is alive."""
    return Life(
        identity=identity,
        generation=1,
        started_at=started_at,
        up_at=started_at + 1,
        ended_at=ended_at,
        planned=None if ended_at is None else False,
        cause=str(Cause.FIRST_START),
        end_cause=None if ended_at is None else str(Cause.SERVER_LOST),
    )


def fleet(count: int, ended_at: float | None = None, name: str = "a") -> list[Life]:
    return [life(f"{name}{n}", ended_at) for n in range(count)]


def again(
    started: float, up: float | None = None, ended: float | None = None, who: str = "a0", cause: str = POLICY
) -> Life:
    """Return a launch after the incident; times in seconds after it began."""
    return Life(
        identity=who,
        generation=2,
        started_at=BEGAN + started,
        up_at=None if up is None else BEGAN + up,
        ended_at=None if ended is None else BEGAN + ended,
        planned=None if ended is None else False,
        cause=cause,
        end_cause=None if ended is None else str(Cause.SIGNALED),
    )


def planned(one: Life) -> Life:
    return replace(one, planned=True)


# -- what is an incident -----------------------------------------------------------------------------

FOUND: list[tuple[str, list[Life], set[str] | None]] = [
    ("nothing", [], None),
    ("a healthy fleet", fleet(9), None),
    ("three of three at once", fleet(3, BEGAN), {"a0", "a1", "a2"}),
    ("two of two", fleet(2, BEGAN), None),
    ("three of six", fleet(3, BEGAN) + fleet(3, name="b"), {"a0", "a1", "a2"}),
    ("three of seven", fleet(3, BEGAN) + fleet(4, name="b"), None),
    ("three of seven, and one that died before", fleet(3, BEGAN) + fleet(4, name="b")
     + fleet(1, BEGAN - 90, "c"), None),
    ("three of six, and more that died long before", fleet(3, BEGAN) + fleet(3, name="b")
     + fleet(5, BEGAN - 3000, "c"), {"a0", "a1", "a2"}),
    ("three of six, and more that were launched since", fleet(3, BEGAN) + fleet(3, name="b")
     + [life(f"c{n}", started_at=BEGAN + 1) for n in range(5)], {"a0", "a1", "a2"}),
    ("three within 30 s", [life(f"a{n}", BEGAN + 15 * n) for n in range(3)], {"a0", "a1", "a2"}),
    ("three within 31 s", [life(f"a{n}", BEGAN + 15.5 * n) for n in range(3)], None),
    ("three, one asked to end", [*fleet(2, BEGAN), planned(life("b", BEGAN))], None),
    ("one agent thrice", [life("a", BEGAN), life("a", BEGAN + 5, BEGAN + 3), life("a", BEGAN + 9, BEGAN + 7)],
     None),
    ("two, and one that was launched only meanwhile", [*fleet(2, BEGAN), life("b", BEGAN + 5, BEGAN + 3)],
     None),
    ("a fleet that dies one a second", [life(f"a{n}", BEGAN + n) for n in range(40)],
     {f"a{n}" for n in range(40)}),
    ("whatever lies in the future: the clock was set back", fleet(3, NOW + 4000), None),
]  # fmt: skip


@pytest.mark.parametrize("lives, members", [row[1:] for row in FOUND], ids=[row[0] for row in FOUND])
def test_an_incident_is_three_agents_and_half_of_the_live_ones_within_30_seconds(
    lives: list[Life], members: set[str] | None
) -> None:
    found = find(lives, NOW)
    assert (None if found is None else set(found.identities)) == members
    assert find(lives[::-1], NOW) == found


def test_an_incident_says_when_it_began_and_when_the_last_one_died() -> None:
    found = find([life(f"a{n}", BEGAN + 10 * n) for n in range(6)], NOW)
    assert found is not None
    assert (found.began, found.last) == (BEGAN, BEGAN + 50)
    assert (found.relaunched, found.failures_in_a_row, found.last_relaunch) == (0, 0, None)


def test_an_incident_is_over_ten_minutes_after_the_last_that_happened_to_it() -> None:
    lives = fleet(3, BEGAN)
    assert find(lives, BEGAN + 600) is not None
    assert find(lives, BEGAN + 600.1) is None
    relaunched = [*lives, again(550, up=560)]
    assert find(relaunched, BEGAN + 1160) is not None
    assert find(relaunched, BEGAN + 1160.1) is None
    assert find([*lives, again(600, up=601)], BEGAN + 1201) is not None
    failed = [*lives, again(550, up=560, ended=575)]
    assert find(failed, BEGAN + 1175) is not None
    assert find(failed, BEGAN + 1175.1) is None
    assert find([*lives, again(550)], BEGAN + 5000) is not None


def test_what_happens_to_its_agents_after_it_is_over_does_not_reopen_it() -> None:
    assert find([*fleet(3, BEGAN), again(700, up=701, ended=702)], BEGAN + 710) is None


def test_a_second_wave_before_the_first_is_over_belongs_to_it() -> None:
    first = fleet(8, BEGAN)
    back = [again(10 * n, up=10 * n + 1, ended=300, who=f"a{n}") for n in range(1, 5)]
    found = find([*first, *back], BEGAN + 310)
    assert found is not None
    assert (found.began, found.last, len(found.identities)) == (BEGAN, BEGAN + 300, 8)
    assert (found.relaunched, found.failures_in_a_row) == (4, 0)


def test_of_two_incidents_far_apart_the_newer_one_is_found() -> None:
    found = find([*fleet(4, BEGAN - 5000), *fleet(4, BEGAN, "b")], NOW)
    assert found is not None
    assert (found.began, found.identities) == (BEGAN, frozenset({"b0", "b1", "b2", "b3"}))


# -- the row of failures -----------------------------------------------------------------------------

AT = 60
"""Seconds after the incident began at which the examples are looked at."""
FAILURES = [again(2, ended=3), again(8, up=9, ended=10)]
OTHER = str(Cause.OPERATOR_WAKE)
# The first words of each line of the table, and launches after two failures to which exactly it applies.
ROW: dict[str, list[Life]] = {
    "restart policy: ended by itself before it was ready": [again(14, ended=15)],
    "restart policy: ended by itself within 30 s": [again(14, up=15, ended=44.9), again(14, up=15, ended=14)],
    "restart policy: ready for 30 s": [
        again(14, up=15),
        again(14, up=30),
        again(14, up=15, ended=45),
        planned(again(14, up=15, ended=45)),
    ],
    "restart policy: otherwise": [
        again(14),
        again(14, up=31),
        planned(again(14, ended=15)),
        planned(again(14, up=15, ended=16)),
    ],
    "adopted": [
        again(14, up=15, cause=str(cause)) for cause in (Cause.ADOPTED, Cause.ADOPTED_FOREIGN, Cause.OBSERVED)
    ],
    "another cause: came up after the last failure": [
        again(14, up=15, cause=OTHER),
        again(14, up=59, cause=str(Cause.OPERATOR_START)),
        again(14, up=15, ended=50, cause=OTHER),
        planned(again(14, up=15, ended=16, cause=OTHER)),
    ],
    "another cause: otherwise": [
        again(14, cause=OTHER),
        again(14, up=15, ended=16, cause=OTHER),
        again(14, ended=16, cause=OTHER),
        again(9.5, up=12, cause=OTHER),
        again(1, up=2, cause=OTHER),
        again(14, up=15, cause=OTHER, who="somebody-else"),
    ],
}


def test_every_line_of_the_table_of_failures_has_examples_in_its_order() -> None:
    rows = table("a member's launch")
    assert len(rows) == len(ROW)
    for row, start in zip(rows, ROW, strict=True):
        assert row[0].startswith(start)


@pytest.mark.parametrize("row, one", [(row, one) for row, lives in enumerate(ROW.values()) for one in lives])
def test_the_table_says_what_a_launch_does_to_the_row_of_failures(row: int, one: Life) -> None:
    found = find([*fleet(3, BEGAN), *FAILURES, one], BEGAN + AT)
    assert found is not None
    expected = {"one more": 3, "none left": 0, "as it was": 2}[table("a member's launch")[row][1]]
    assert found.failures_in_a_row == expected
    assert found.relaunched == 2 + (one.cause == POLICY)


def test_only_failures_in_a_row_count() -> None:
    good = again(20, up=21, ended=52)
    lives = [*fleet(3, BEGAN), *FAILURES, good, again(53, ended=54)]
    found = find(lives, BEGAN + AT)
    assert found is not None and found.failures_in_a_row == 1


def test_an_operators_launch_before_the_last_failure_ends_no_row() -> None:
    lives = [*fleet(3, BEGAN), again(5, up=6, cause=OTHER, who="a1"), *FAILURES[1:], again(14, ended=15)]
    found = find(lives, BEGAN + AT)
    assert found is not None and found.failures_in_a_row == 2


def test_relaunches_of_others_are_not_counted() -> None:
    found = find([*fleet(3, BEGAN), again(14, ended=15, who="somebody-else")], BEGAN + AT)
    assert found is not None and (found.relaunched, found.last_relaunch) == (0, None)


STOPPED = [*fleet(3, BEGAN), *FAILURES, again(14, ended=15)]


def test_a_stop_lasts_until_an_operators_launch_and_the_others_follow_it() -> None:
    much_later = 40_000.0
    found = find(STOPPED, BEGAN + much_later)
    assert found is not None and found.failures_in_a_row == 3
    woken = [*STOPPED, again(much_later, up=much_later + 5, cause=OTHER)]
    found = find(woken, BEGAN + much_later + 6)
    assert found is not None and found.failures_in_a_row == 0
    assert pace(found, "a1", BEGAN + much_later + 6).at is not None
    followed = [*woken, again(much_later + 7, up=much_later + 8, who="a1")]
    found = find(followed, BEGAN + much_later + 9)
    assert found is not None and found.last_relaunch == BEGAN + much_later + 7


def test_after_an_operators_launch_it_takes_three_failures_anew() -> None:
    lives = [*STOPPED, again(20, up=21, cause=OTHER), again(25, ended=26, who="a1")]
    found = find(lives, BEGAN + AT)
    assert found is not None and found.failures_in_a_row == 1


# -- the pace ----------------------------------------------------------------------------------------

CALM = Incident(BEGAN, BEGAN + 5, frozenset({"bob", "eve", "kim"}), 2, 1, NOW - 3)
PACES: dict[str, list[tuple[Incident, str]]] = {
    "no member": [(CALM, "bob2"), (replace(CALM, failures_in_a_row=3), "bob2")],
    "3 failures in a row": [
        (replace(CALM, failures_in_a_row=3), "bob"),
        (replace(CALM, failures_in_a_row=4, under_way=True), "bob"),
    ],
    "the newest relaunch is neither ready nor ended": [(replace(CALM, under_way=True), "bob")],
    "none was relaunched yet": [(replace(CALM, relaunched=0, last_relaunch=None), "bob")],
    "otherwise": [(CALM, "bob"), (replace(CALM, failures_in_a_row=2), "eve")],
}


def test_every_line_of_the_table_of_the_pace_has_examples_in_its_order() -> None:
    rows = table("agent")
    assert len(rows) == len(PACES)
    for row, start in zip(rows, PACES, strict=True):
        assert row[0].startswith(start)


@pytest.mark.parametrize(
    "row, one, identity",
    [(row, *example) for row, examples in enumerate(PACES.values()) for example in examples],
)
def test_the_table_says_when_an_agent_may_be_relaunched(row: int, one: Incident, identity: str) -> None:
    _, at, alert = table("agent")[row]
    verdict = pace(one, identity, NOW)
    if at == "now":
        assert verdict.at == NOW
    elif at == "5 s ± 20% after the newest":
        assert verdict.at is not None and NOW - 3 + 4 <= verdict.at <= NOW - 3 + 6
    else:
        assert at == "not yet" and verdict.at is None
    assert (verdict.alert is not None) is (alert == "yes")
    assert verdict.reason


def test_the_time_is_the_same_at_every_tick_and_differs_from_step_to_step() -> None:
    assert pace(CALM, "bob", NOW).at == pace(CALM, "eve", NOW + 500).at
    assert len({pace(replace(CALM, relaunched=step), "bob", NOW).at for step in range(1, 50)}) == 49
    assert pace(CALM, "bob", NOW).at != pace(replace(CALM, began=BEGAN - 1), "bob", NOW).at


def test_the_alert_says_how_many_died_when_and_what_to_do() -> None:
    alert = pace(replace(CALM, failures_in_a_row=3), "bob", NOW).alert
    assert alert is not None
    for words in ("3 agents died", "100 s ago", "3 relaunches in a row", "look at the host",
                  "failoverctl wake bob", "failoverctl reset bob"):  # fmt: skip
        assert words in alert
    assert "\n" not in alert


# -- whole incidents ---------------------------------------------------------------------------------


def play(
    count: int, secs: int, outcome: Callable[[float], tuple[float | None, float | None]]
) -> tuple[list[Life], list[Pace]]:
    """Let `count` agents die at once and be relaunched as the policy says, one tick a second.

    `outcome` says of a launch begun at a time when it becomes ready and when it dies.
    """
    lives, waiting, verdicts = fleet(count, BEGAN), [f"a{n}" for n in range(count)], list[Pace]()
    for tick in range(secs):
        now = BEGAN + 1 + tick
        found = find(known(lives, now), now)
        assert found is not None
        for identity in waiting:
            verdict = pace(found, identity, now)
            verdicts.append(verdict)
            if verdict.at is not None and verdict.at <= now:
                up, ended = outcome(now)
                new = Life(
                    *(identity, 2, now, up, ended),
                    *(None if ended is None else False, POLICY, None if ended is None else "signaled"),
                )
                lives.append(new)
                waiting.remove(identity)
                if ended is not None:
                    waiting.append(identity)
                break
        if not waiting:
            break
    return lives[count:], verdicts


def known(lives: Sequence[Life], now: float) -> list[Life]:
    """Return lives as they are known at a time."""
    return [
        one
        if (one.up_at or 0) <= now and (one.ended_at or 0) <= now
        else replace(
            one,
            up_at=one.up_at if (one.up_at or now) < now else None,
            ended_at=None,
            planned=None,
            end_cause=None,
        )
        for one in lives
    ]


def test_a_whole_fleet_comes_back_one_by_one_however_long_it_takes() -> None:
    relaunched, verdicts = play(130, 2000, lambda now: (now + 1, None))
    assert len(relaunched) == 130
    starts = [one.started_at for one in relaunched]
    assert starts == sorted(starts)
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
    assert set(gaps) == {5, 6}  # 4 to 6 s, seen at the next tick
    assert starts[-1] - BEGAN > 600
    assert not any(verdict.alert for verdict in verdicts)


def test_relaunches_stop_after_three_failures_in_a_row_and_say_so() -> None:
    relaunched, verdicts = play(10, 100, lambda now: (None, now + 2))
    assert len(relaunched) == 3
    assert verdicts[-1].alert is not None


def test_a_launch_that_boots_slowly_is_waited_for() -> None:
    relaunched, _ = play(5, 100, lambda now: (now + 20, None))
    starts = [one.started_at for one in relaunched]
    assert len(starts) == 5
    assert all(later - earlier >= 20 for earlier, later in zip(starts, starts[1:], strict=False))


secs_ = st.integers(-900, 40).map(lambda secs: NOW + secs)
lives_ = st.builds(
    Life,
    identity=st.sampled_from("abcdef"),
    generation=st.integers(1, 9),
    started_at=secs_,
    up_at=st.one_of(st.none(), secs_),
    ended_at=st.one_of(st.none(), secs_),
    planned=st.sampled_from([None, False, False, True]),
    cause=st.sampled_from([POLICY, POLICY, OTHER, str(Cause.ADOPTED_FOREIGN)]),
    end_cause=st.none(),
)


@given(st.lists(lives_, max_size=25))
def test_whatever_was_recorded_an_incident_is_one_and_its_pace_bounded(lives: list[Life]) -> None:
    found = find(lives, NOW)
    if found is None:
        return
    assert len(found.identities) >= 3
    assert found.began <= found.last <= NOW + 30
    assert 0 <= found.failures_in_a_row <= found.relaunched
    assert (found.last_relaunch is None) == (found.relaunched == 0)
    for identity in "abcdefg":
        verdict = pace(found, identity, NOW)
        assert verdict.at is None or verdict.at <= NOW + 36
        assert identity in found.identities or verdict.at == NOW
        assert (verdict.alert is not None) == (identity in found.identities and found.failures_in_a_row >= 3)
