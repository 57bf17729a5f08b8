"""What happens to an agent whose account can do nothing for it, read from the module's table line by line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import failover
from circus_failover.policy.account_choice import Candidate, Choice, Need, choose
from circus_failover.policy.failover import LimitAction, Situation, decide
from circus_failover.words import AccountState, OnLimit, Phase, State

NOW = 1_000_000.0
RESET = NOW + 600
A = Candidate("a", "claude", AccountState.LIMITED, until=RESET)
FREE = Candidate("b", "claude", AccountState.AVAILABLE)
TO_B = choose(Need("claude", "a"), [A, FREE], NOW)
NOWHERE = choose(Need("claude", "a"), [A, replace(FREE, state=AccountState.LIMITED, until=NOW + 60)], NOW)
STAYS = choose(Need("claude", "a"), [replace(A, state=AccountState.AVAILABLE)], NOW)

LIMITED = Situation(
    identity="bob",
    phase=Phase.UP,
    account="a",
    on_limit=OnLimit.SWITCH,
    choice=TO_B,
    state=State.LIMITED,
    failing=True,
    exhausted=True,
    until=RESET,
)
IDLE = replace(LIMITED, state=State.IDLE, failing=False)
WITH_WORK = replace(IDLE, work=True)
HELD = replace(
    LIMITED,
    phase=Phase.HELD,
    state=None,
    failing=False,
    held_for_limit=True,
    limited_until=NOW - 1,
    choice=NOWHERE,
)
FULL = replace(IDLE, exhausted=False, until=None, choice=STAYS, switch_at=80, used=0.8, better=TO_B)
PHASES_OUT = (Phase.STARTING, Phase.PARKED, Phase.DOWN, Phase.REFUSED, Phase.HELD)


def table() -> list[list[str]]:
    """Return the rows of the table in the module's docstring: agent, action."""
    assert failover.__doc__ is not None
    lines = [line for line in failover.__doc__.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# The first words of each line of the table, and agents to which exactly that line applies.
EXAMPLES: dict[str, list[Situation]] = {
    "observed": [replace(LIMITED, observed=True), replace(HELD, observed=True), replace(FULL, observed=True)],
    "stopped": [
        replace(HELD, stay_stopped=True),
        replace(LIMITED, phase=Phase.STOPPED),
        replace(LIMITED, ending=True),
        replace(HELD, ending=True),
        replace(LIMITED, phase=Phase.STOPPING),
    ],
    "held for a limit, and without": [
        replace(HELD, account=None),
        replace(HELD, account=None, on_limit=OnLimit.WAIT, limited_until=RESET),
    ],
    "held for a limit; an account": [
        replace(HELD, choice=TO_B),
        replace(HELD, choice=TO_B, limited_until=RESET),
        replace(HELD, choice=TO_B, waited_for=True),
        replace(HELD, choice=TO_B, limited_until=None, waited_for=True),
        replace(HELD, on_limit=OnLimit.WAIT, exhausted=False, limited_until=RESET),
        replace(HELD, on_limit=OnLimit.PARK, exhausted=False),
    ],
    "held for a limit, and its time": [
        replace(HELD, limited_until=NOW + 1),
        replace(HELD, choice=TO_B, waited_for=True, limited_until=NOW + 1),
        replace(HELD, on_limit=OnLimit.WAIT, choice=TO_B, limited_until=NOW + 1),
    ],
    "held for a limit otherwise": [
        HELD,
        replace(HELD, limited_until=None),
        replace(HELD, on_limit=OnLimit.WAIT, choice=TO_B),
    ],
    "not up": [*(replace(LIMITED, phase=phase) for phase in PHASES_OUT), replace(LIMITED, account=None)],
    "in a tmux server": [
        replace(LIMITED, state=state) for state in (None, State.WEDGED, State.UNKNOWN, State.STUCK)
    ],
    "limited, by a limit of one model": [
        replace(LIMITED, model_only=True),
        replace(LIMITED, model_only=True, exhausted=False, on_limit=OnLimit.PARK),
    ],
    "working": [
        replace(WITH_WORK, state=State.WORKING),
        replace(WITH_WORK, state=State.WAITING),
        replace(FULL, state=State.WORKING),
        replace(LIMITED, state=State.WORKING),
    ],
    "hindered, `notify`": [
        replace(one, on_limit=OnLimit.NOTIFY) for one in (LIMITED, WITH_WORK, replace(LIMITED, choice=STAYS))
    ],
    "hindered, `park`": [replace(one, on_limit=OnLimit.PARK) for one in (LIMITED, WITH_WORK)],
    "hindered, `switch`": [
        LIMITED,
        WITH_WORK,
        replace(LIMITED, exhausted=False),
        replace(LIMITED, state=State.WAITING),  # for a login
    ],
    "hindered itself": [
        replace(LIMITED, exhausted=False, choice=NOWHERE),
        replace(LIMITED, exhausted=False, on_limit=OnLimit.WAIT),
    ],
    "hindered otherwise": [
        replace(LIMITED, choice=NOWHERE),
        replace(WITH_WORK, choice=NOWHERE),
        replace(LIMITED, on_limit=OnLimit.WAIT),
        replace(WITH_WORK, on_limit=OnLimit.WAIT),
    ],
    "idle, its account is exhausted": [replace(IDLE, pool_work=True)],
    "its account is exhausted": [
        IDLE,
        replace(IDLE, pool_work=True, choice=NOWHERE),
        replace(IDLE, pool_work=True, on_limit=OnLimit.WAIT),
        replace(IDLE, pool_work=True, on_limit=OnLimit.PARK),
        replace(FULL, exhausted=True),
    ],
    "idle without work": [FULL, replace(FULL, used=1.2, pool_work=True)],
    "any other": [
        replace(FULL, switch_at=0),
        replace(FULL, used=0.79),
        replace(FULL, used=None),
        replace(FULL, work=True),
        replace(FULL, attached=True),
        replace(FULL, better=STAYS),
        replace(FULL, better=None),
    ],
}


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    agents = [row[0] for row in table()]
    assert len(agents) == len(EXAMPLES)
    for text, start in zip(agents, EXAMPLES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize(
    "row, one", [(index, one) for index, examples in enumerate(EXAMPLES.values()) for one in examples]
)
def test_the_table_says_what_happens_to_an_agent(row: int, one: Situation) -> None:
    verdict = decide(one, NOW)
    assert str(verdict.action) == table()[row][1] and verdict.reason
    goes = verdict.action in (LimitAction.SWITCH, LimitAction.WAKE) and one.account is not None
    assert (verdict.to is not None) == goes
    assert (verdict.until is not None) == (verdict.action is LimitAction.HOLD)


def test_it_is_held_until_its_account_resets_or_with_a_switch_the_first_of_all() -> None:
    slack, jitter = failover.SLACK_SECS, failover.JITTER_SECS
    for one, reset in ((replace(LIMITED, on_limit=OnLimit.WAIT), RESET), (HELD, NOW + 60)):
        found = decide(one, NOW).until
        assert found is not None and reset + slack <= found <= reset + slack + jitter
        assert found == decide(one, NOW + 5).until, "the same at every tick"
    others = {decide(replace(HELD, identity=f"a-{number}"), NOW).until for number in range(20)}
    assert len(others) == 20, "they do not all come back in the same moment"
    unknown = replace(LIMITED, on_limit=OnLimit.WAIT, until=None)
    assert decide(unknown, NOW).until == NOW + failover.UNKNOWN_RESET_SECS
    passed = decide(replace(LIMITED, on_limit=OnLimit.WAIT, until=NOW - 5), NOW).until
    assert passed is not None and passed >= NOW + slack


def test_the_reason_says_what_is_with_each_account() -> None:
    assert decide(LIMITED, NOW).reason == (
        "its client can do nothing on account a; b: the only one that can be used; available, headroom "
        "unknown, agents up on it: 0"
    )
    assert "a: limited, resets 1970-01-12T13:56:40Z; b: limited, resets" in decide(HELD, NOW).reason
    assert decide(FULL, NOW).reason.startswith("80 % of account a used, failover.switch_at is 80 %; b: ")


choices = st.sampled_from([TO_B, NOWHERE, STAYS, Choice(None, "none")])
situations = st.builds(
    Situation,
    identity=st.just("bob"),
    phase=st.sampled_from(Phase),
    account=st.sampled_from([None, "a"]),
    on_limit=st.sampled_from(OnLimit),
    choice=choices,
    observed=st.booleans(),
    stay_stopped=st.booleans(),
    ending=st.booleans(),
    held_for_limit=st.booleans(),
    limited_until=st.one_of(st.none(), st.floats(NOW - 100, NOW + 100)),
    waited_for=st.booleans(),
    state=st.one_of(st.none(), st.sampled_from(State)),
    failing=st.booleans(),
    model_only=st.booleans(),
    exhausted=st.booleans(),
    until=st.one_of(st.none(), st.floats(NOW - 100, NOW + 100)),
    work=st.booleans(),
    pool_work=st.booleans(),
    attached=st.booleans(),
    switch_at=st.integers(0, 100),
    used=st.one_of(st.none(), st.floats(0, 1.5)),
    better=st.one_of(st.none(), choices),
)


@given(situations)
def test_nobody_is_ended_who_works_whom_nobody_knows_or_whom_a_person_has_stopped(one: Situation) -> None:
    verdict = decide(one, NOW)
    if verdict.action in (LimitAction.SWITCH, LimitAction.PARK) or (
        verdict.action is LimitAction.HOLD and not one.held_for_limit
    ):
        assert one.phase is Phase.UP and not one.ending and not one.stay_stopped and not one.observed
        assert one.state in (State.IDLE, State.LIMITED, State.WAITING)
        assert one.failing or one.exhausted or (one.switch_at and not one.work and not one.attached)
    if verdict.action is LimitAction.SWITCH:
        assert one.on_limit is OnLimit.SWITCH or not one.failing
        assert verdict.to not in (None, one.account)
    if verdict.action is LimitAction.WAKE:
        assert one.held_for_limit and not one.stay_stopped and not one.observed


@given(situations)
def test_whoever_is_held_is_woken_as_soon_as_an_account_can_be_used_and_its_time_has_come(
    one: Situation,
) -> None:
    held = replace(
        one,
        held_for_limit=True,
        phase=Phase.HELD,
        observed=False,
        stay_stopped=False,
        ending=False,
        account="a",
        on_limit=OnLimit.SWITCH,
        choice=NOWHERE,
        exhausted=True,
    )
    first = decide(held, NOW)
    if first.action is LimitAction.HOLD:
        assert first.until is not None
        later = replace(held, limited_until=first.until, choice=TO_B)
        assert decide(later, first.until).action is LimitAction.WAKE
