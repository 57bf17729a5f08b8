"""Who of a pool is started, read from the module's table line by line, and who may leave."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import pool
from circus_failover.policy.pool import Leaver, Member, Standing, decide, hindrance, standing
from circus_failover.words import Phase, State

PARKED = Member(
    identity="a-1",
    phase=Phase.PARKED,
    observed=False,
    stay_stopped=False,
    usable=True,
    coming=False,
    ending=False,
    returns=False,
    ended_ago=None,
    tried_ago=None,
)
DOWN = replace(PARKED, phase=Phase.DOWN)
UP = replace(PARKED, phase=Phase.UP)
STARTING = replace(PARKED, phase=Phase.STARTING)
STOPPING = replace(PARKED, phase=Phase.STOPPING, ending=True)
DIED = replace(DOWN, returns=True, ended_ago=1.0)


def table() -> list[tuple[str, str, str]]:
    """Return the rows of the table in the module's docstring: member, counts, may be started."""
    assert pool.__doc__ is not None
    lines = [line for line in pool.__doc__.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]  # type: ignore[misc]


# The first words of each line of the table, and members to which exactly that line applies.
EXAMPLES: dict[str, list[Member]] = {
    "observed": [replace(UP, observed=True), replace(DOWN, observed=True)],
    "up": [UP, replace(UP, stay_stopped=True), replace(UP, usable=False), replace(UP, tried_ago=1.0)],
    "starting": [STARTING, replace(STOPPING, coming=True, ending=False), replace(PARKED, coming=True)],
    "stopped": [replace(DOWN, phase=Phase.STOPPED), replace(PARKED, stay_stopped=True)],
    "its end": [STOPPING, replace(PARKED, ending=True)],
    "held": [replace(DOWN, phase=phase) for phase in (Phase.HELD, Phase.REFUSED)]
    + [replace(PARKED, usable=False)],
    "it ended by itself and its restart policy brings it back, at most": [
        DIED,
        replace(DIED, ended_ago=pool.RETURN_SECS),
    ],
    "it ended by itself and its restart policy brings it back, longer": [
        replace(DIED, ended_ago=pool.RETURN_SECS + 0.1),
        replace(DIED, ended_ago=-60.0),
        replace(DIED, ended_ago=None),
    ],
    "its start was tried": [replace(DOWN, tried_ago=29.9), replace(PARKED, tried_ago=0.0)],
    "otherwise": [
        PARKED,
        DOWN,
        replace(DOWN, ended_ago=1.0),
        replace(DOWN, tried_ago=pool.AGAIN_SECS),
    ],
}


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    members = [row[0] for row in table()]
    assert len(members) == len(EXAMPLES)
    for text, start in zip(members, EXAMPLES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize(
    "row, member", [(index, member) for index, members in enumerate(EXAMPLES.values()) for member in members]
)
def test_the_table_says_who_counts_and_who_may_be_started(row: int, member: Member) -> None:
    _, counts, may_start = table()[row]
    found = standing(member)
    assert (found is Standing.PRESENT) == (counts == "yes")
    assert (found is Standing.AVAILABLE) == (may_start == "yes")


def named(member: Member, *indexes: int) -> list[Member]:
    return [replace(member, identity=f"a-{index}") for index in indexes]


def test_as_many_as_are_missing_are_started_the_lowest_index_first() -> None:
    members = [*named(PARKED, 10, 9), *named(UP, 4), *named(DOWN, 2, 11)]
    assert decide(members, 1).starts == ()
    assert decide(members, 3).starts == ("a-2", "a-9")
    assert decide(members, 9).starts == ("a-2", "a-9", "a-10", "a-11")
    assert decide(members, 3).reason == "1 of 3 are up or starting"


def test_a_hundred_missing_members_do_not_start_at_once() -> None:
    missing = named(DOWN, *range(100))
    assert len(decide(missing, 100).starts) == pool.STARTING_AT_ONCE
    booting = [*named(STARTING, *range(3)), *named(DOWN, *range(3, 100))]
    assert decide(booting, 100).starts == ("a-3", "a-4")
    assert decide([*named(STARTING, *range(9)), *named(DOWN, 50)], 100).starts == ()


def test_nobody_else_is_started_for_one_that_will_be_back_in_a_moment() -> None:
    assert decide([*named(DIED, 0), *named(UP, 1), *named(DOWN, 2)], 2).starts == ()
    late = replace(DIED, ended_ago=6.0)
    assert decide([*named(late, 0), *named(UP, 1), *named(DOWN, 2)], 2).starts == ("a-2",)


def test_that_nobody_may_be_started_is_said() -> None:
    plan = decide(named(replace(DOWN, stay_stopped=True), 0, 1), 2)
    assert (plan.starts, plan.reason) == ((), "0 of 2 are up or starting, and no other may be started")


@given(
    st.lists(st.sampled_from([row for rows in EXAMPLES.values() for row in rows]), max_size=30),
    st.integers(0, 30),
)
def test_never_more_are_started_than_are_missing_and_never_one_that_may_not(
    found: list[Member], wanted: int
) -> None:
    members = [replace(member, identity=f"a-{index}") for index, member in enumerate(found)]
    plan = decide(members, wanted)
    available = {member.identity for member in members if standing(member) is Standing.AVAILABLE}
    assert set(plan.starts) <= available
    assert (
        len(set(plan.starts)) == len(plan.starts) <= min(pool.STARTING_AT_ONCE, max(0, wanted - plan.present))
    )


IDLE = Leaver(Phase.UP, State.IDLE, tells=True, tasks=0, assignment=None)


@pytest.mark.parametrize(
    "leaver, why",
    [
        (IDLE, ""),
        (replace(IDLE, state=State.UNKNOWN, tells=False), ""),
        (replace(IDLE, state=State.UNKNOWN), "it is unknown"),
        (replace(IDLE, state=None), "it is unknown"),
        (replace(IDLE, state=State.WORKING), "it is working"),
        (replace(IDLE, state=State.WAITING), "it is waiting"),
        (replace(IDLE, state=State.WEDGED, tells=False), "it is wedged"),
        (replace(IDLE, assignment="job-7"), "it has the assignment job-7"),
        (replace(IDLE, tasks=2), "tasks wait for it: 2"),
        (Leaver(Phase.STARTING, None, False, 0, None), "it is starting"),
        (Leaver(Phase.OBSERVED, State.IDLE, True, 0, None), "it is observed, and never ended"),
        (Leaver(Phase.DOWN, None, True, 0, "job-7"), "it has the assignment job-7"),
        (Leaver(Phase.PARKED, None, True, 1, None), "tasks wait for it: 1"),
        *(
            (Leaver(phase, None, True, 0, None), "")
            for phase in (
                *(Phase.DOWN, Phase.PARKED, Phase.STOPPED),
                *(Phase.HELD, Phase.REFUSED, Phase.STOPPING),
            )
        ),
    ],
)
def test_who_has_work_or_may_have_does_not_leave(leaver: Leaver, why: str) -> None:
    assert hindrance(leaver) == why
