"""What an agent is to the assignments that wait: the table, read from the module line by line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import standing as module
from circus_failover.policy.standing import AGAIN_SECS, SETTLE_SECS, Member, Standing, standing
from circus_failover.words import Phase, State

NOW = 1_000_000.0
IDLE = Member(
    identity="coder-1",
    pool="coders",
    phase=Phase.UP,
    state=State.IDLE,
    tells=True,
    busy=False,
    account="work",
    account_limited=False,
    observed=False,
    stay_stopped=False,
    ended_by_itself=False,
    launched_at=NOW - 9000,
    last_used=NOW - 100,
)
BUSY = replace(IDLE, busy=True)
LOOKED_AT_SOON = replace(IDLE, busy=True, assigned=False)
"""It has no assignment: tasks wait for it, or nobody has looked at it since it came up."""
JUST_UP = replace(IDLE, state=State.UNKNOWN, launched_at=NOW - 5)
SILENT = replace(IDLE, tells=False, state=State.UNKNOWN)
PARKED = replace(IDLE, phase=Phase.PARKED, state=None)
DOWN = replace(PARKED, phase=Phase.DOWN)
DIED = replace(DOWN, ended_by_itself=True)


def table() -> list[tuple[str, str]]:
    """Return the rows of the table in the module's docstring: agent, what it is."""
    assert module.__doc__ is not None
    lines = [line for line in module.__doc__.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    assert all(len(row) == 2 for row in rows)
    return rows  # type: ignore[return-value]


def known_to_all(*members: Member) -> list[tuple[Member, bool]]:
    """Return agents that are the same to any assignment."""
    return [(member, named) for member in members for named in (False, True)]


# The first words of each line of the table, and agents to which exactly that line applies, with whether the
# assignment was given to them by name.
EXAMPLES: dict[str, list[tuple[Member, bool]]] = {
    "observed": known_to_all(
        replace(IDLE, observed=True),
        replace(IDLE, observed=True, stay_stopped=True, phase=Phase.STARTING),
        replace(IDLE, phase=Phase.OBSERVED),
    ),
    "an operator stopped it": known_to_all(
        replace(DOWN, phase=Phase.STOPPED),
        replace(DOWN, stay_stopped=True),
        replace(IDLE, stay_stopped=True),
        replace(DOWN, stay_stopped=True, phase=Phase.HELD),
    ),
    "held or refused": known_to_all(
        replace(DOWN, phase=Phase.HELD),
        replace(DOWN, phase=Phase.REFUSED),
        replace(DIED, phase=Phase.HELD, account_limited=True),
    ),
    "an end of it is under way": known_to_all(
        replace(IDLE, phase=Phase.STOPPING), replace(JUST_UP, phase=Phase.STOPPING, busy=True)
    ),
    "starting": known_to_all(
        replace(DOWN, phase=Phase.STARTING),
        replace(BUSY, phase=Phase.STARTING),
        replace(DOWN, phase=Phase.STARTING, account_limited=True),
    ),
    "its account has reached a limit": known_to_all(
        replace(IDLE, account_limited=True),
        replace(PARKED, account_limited=True),
        replace(BUSY, account_limited=True, state=State.WAITING),
        replace(DIED, account_limited=True),
    ),
    "up, and waiting, limited": known_to_all(
        *(
            replace(member, state=state)
            for state in (State.WAITING, State.LIMITED, State.STUCK, State.WEDGED)
            for member in (IDLE, SILENT, BUSY, JUST_UP)
        )
    ),
    "up, with an assignment": known_to_all(
        BUSY,
        replace(BUSY, state=State.WORKING),
        replace(BUSY, launched_at=NOW - 5),
        replace(SILENT, busy=True),
    ),
    "up, nothing to do": known_to_all(
        IDLE, replace(IDLE, launched_at=NOW - 1), SILENT, replace(SILENT, state=None)
    ),
    "up, launched less than": known_to_all(
        JUST_UP,
        replace(JUST_UP, state=None),
        replace(JUST_UP, state=State.WORKING),
        replace(LOOKED_AT_SOON, launched_at=NOW - SETTLE_SECS + 0.1),
        replace(LOOKED_AT_SOON, state=State.WORKING, launched_at=NOW - 5),
    ),
    "up, with something else to do, or working": known_to_all(
        LOOKED_AT_SOON,
        replace(LOOKED_AT_SOON, launched_at=NOW - SETTLE_SECS),
        replace(LOOKED_AT_SOON, launched_at=NOW + 5),
        replace(IDLE, state=State.WORKING),
        replace(IDLE, state=State.WORKING, launched_at=None),
        replace(SILENT, state=State.WORKING),
    ),
    "up otherwise": known_to_all(
        replace(IDLE, state=None), replace(IDLE, state=State.UNKNOWN), replace(JUST_UP, launched_at=None)
    ),
    "down or parked, with an assignment": known_to_all(
        replace(PARKED, busy=True), replace(DIED, busy=True), replace(DOWN, busy=True)
    ),
    "down by itself": known_to_all(
        DIED, replace(DIED, busy=True, assigned=False), replace(DIED, launched_at=NOW - 1)
    ),
    "down or parked, tasks wait": [
        (replace(PARKED, busy=True, assigned=False), False),
        (replace(DOWN, busy=True, assigned=False, launched_at=NOW - 1), False),
    ],
    "down or parked, launched less than": [
        *known_to_all(
            replace(DOWN, launched_at=NOW - AGAIN_SECS + 0.1), replace(PARKED, launched_at=NOW - 1)
        ),
        (replace(DOWN, busy=True, assigned=False, launched_at=NOW - 1), True),
    ],
    "down or parked otherwise": [
        *known_to_all(
            PARKED,
            DOWN,
            replace(DOWN, launched_at=None),
            replace(DOWN, launched_at=NOW - AGAIN_SECS),
            replace(DOWN, launched_at=NOW + 5),
        ),
        (replace(PARKED, busy=True, assigned=False), True),
    ],
}


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    agents = [row[0] for row in table()]
    assert len(agents) == len(EXAMPLES)
    for text, start in zip(agents, EXAMPLES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize(
    "row, member, named",
    [(index, *example) for index, examples in enumerate(EXAMPLES.values()) for example in examples],
)
def test_the_table_says_what_an_agent_is(row: int, member: Member, named: bool) -> None:
    found = standing(member, NOW, named)
    assert found.standing is Standing(table()[row][1])
    assert found.words


def test_the_seconds_in_the_table_are_those_that_decide() -> None:
    text = str(module.__doc__)
    assert f"up, launched less than {SETTLE_SECS:.0f} s ago" in text
    assert f"parked, launched less than {AGAIN_SECS:.0f} s ago" in text


times = st.one_of(st.none(), st.integers(-100, 500).map(lambda ago: NOW - ago))
members = st.builds(
    Member,
    identity=st.sampled_from([f"coder-{number}" for number in range(12)]),
    pool=st.sampled_from(["coders", "coders", "coders", "testers", None]),
    phase=st.one_of(st.sampled_from([Phase.UP, Phase.UP, Phase.PARKED, Phase.DOWN]), st.sampled_from(Phase)),
    state=st.one_of(st.just(State.IDLE), st.none(), st.sampled_from(State)),
    tells=st.booleans(),
    busy=st.sampled_from([False, False, True]),
    account=st.sampled_from(["work", "home", None]),
    account_limited=st.sampled_from([False, False, False, True]),
    observed=st.sampled_from([False, False, False, True]),
    stay_stopped=st.sampled_from([False, False, False, True]),
    ended_by_itself=st.sampled_from([False, False, True]),
    launched_at=times,
    last_used=times,
    assigned=st.booleans(),
)


@given(members, st.booleans())
def test_only_who_is_up_idle_and_has_nothing_to_do_is_free(member: Member, named: bool) -> None:
    if standing(member, NOW, named).standing is not Standing.FREE:
        return
    assert member.phase is Phase.UP
    assert member.state is State.IDLE or (not member.tells and member.state in (None, State.UNKNOWN))
    assert not (member.busy or member.account_limited or member.observed or member.stay_stopped)


@given(members, st.booleans())
def test_only_who_is_down_and_nobody_else_brings_back_can_be_started(member: Member, named: bool) -> None:
    if standing(member, NOW, named).standing is not Standing.ASLEEP:
        return
    assert member.phase in (Phase.DOWN, Phase.PARKED)
    assert not (member.ended_by_itself or member.account_limited or member.observed or member.stay_stopped)
    assert not (member.busy and (member.assigned or not named))


@given(members)
def test_what_waits_for_it_by_name_makes_no_other_difference_than_that_its_own_tasks_do_not_matter(
    member: Member,
) -> None:
    any_of_its_pool, by_name = standing(member, NOW), standing(member, NOW, named=True)
    if any_of_its_pool != by_name:
        assert any_of_its_pool.standing is Standing.BUSY and not member.assigned
