"""The bring-up decision: its table, read from the module itself line by line, and what never happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import bringup
from circus_failover.policy.bringup import BringUp, Hindrance, Situation, decide
from circus_failover.words import Asked, Cause, Liveness, Phase

GATE = Hindrance(Cause.SHARED_STATE, "projects is a real folder")
PLAIN = Situation(
    asked=Asked.START,
    observed=False,
    phase=Phase.DOWN,
    stay_stopped=False,
    generation=3,
    liveness=Liveness.DEAD,
    ours=False,
    ending=False,
)
RESTORE = replace(PLAIN, asked=Asked.RESTORE)
ON_ITS_WAY = replace(PLAIN, asked=Asked.SWITCH, phase=Phase.PARKED, switching=True)
WEDGED = replace(PLAIN, liveness=Liveness.UNKNOWN, unknown_reason="it does not answer")


def table() -> list[tuple[str, str, str]]:
    """Return the rows of the table in the module's docstring: situation, action, cause."""
    assert bringup.__doc__ is not None
    lines = [line for line in bringup.__doc__.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    assert all(len(row) == 3 for row in rows)
    return rows  # type: ignore[return-value]


# The first words of each line of the table, and situations to which exactly that line applies. Each
# situation is also one for the lines below it, as far as that is possible: the first match wins.
EXAMPLES: dict[str, list[Situation]] = {
    "an end of this agent is under way": [
        replace(PLAIN, ending=True),
        replace(PLAIN, ending=True, observed=True, liveness=Liveness.LIVE, ours=True),
        replace(WEDGED, ending=True, hindrance=GATE),
        replace(RESTORE, ending=True, generation=0),
    ],
    "observed, alive": [
        replace(PLAIN, observed=True, liveness=Liveness.LIVE),
        replace(RESTORE, observed=True, liveness=Liveness.LIVE, ours=True, hindrance=GATE),
    ],
    "observed, not alive": [
        replace(PLAIN, observed=True),
        replace(WEDGED, observed=True),
        replace(PLAIN, observed=True, liveness=Liveness.REMAINS),
        replace(RESTORE, observed=True, generation=0),
    ],
    "alive, the launch that is recorded": [
        replace(PLAIN, liveness=Liveness.LIVE, ours=True),
        replace(PLAIN, liveness=Liveness.LIVE, ours=True, hindrance=GATE),
        replace(PLAIN, liveness=Liveness.LIVE, ours=True, asked=Asked.ADOPT),
        replace(RESTORE, liveness=Liveness.LIVE, ours=True, stay_stopped=True, phase=Phase.STOPPED),
    ],
    "alive, started by somebody else": [
        replace(PLAIN, liveness=Liveness.LIVE),
        replace(PLAIN, liveness=Liveness.LIVE, generation=0, hindrance=GATE, asked=Asked.ADOPT),
        replace(RESTORE, liveness=Liveness.LIVE, phase=Phase.PARKED),
    ],
    "nothing can be said": [
        WEDGED,
        replace(WEDGED, hindrance=GATE),
        replace(WEDGED, asked=Asked.RESTORE, generation=0),
        replace(WEDGED, asked=Asked.POLICY),
    ],
    "only what is alive is wanted": [
        replace(PLAIN, asked=Asked.ADOPT),
        replace(WEDGED, asked=Asked.ADOPT),
        replace(PLAIN, asked=Asked.ADOPT, generation=0, hindrance=GATE),
        replace(PLAIN, asked=Asked.ADOPT, phase=Phase.STARTING, liveness=Liveness.REMAINS),
    ],
    "the restart policy wants it": [
        replace(PLAIN, asked=Asked.POLICY, phase=Phase.PARKED),
        replace(PLAIN, asked=Asked.POLICY, phase=Phase.STOPPED, stay_stopped=True, hindrance=GATE),
        replace(PLAIN, asked=Asked.POLICY, phase=Phase.HELD, liveness=Liveness.REMAINS),
    ],
    "a switch wants it": [
        replace(ON_ITS_WAY, switching=False),
        replace(ON_ITS_WAY, switching=False, hindrance=GATE, liveness=Liveness.REMAINS),
        replace(ON_ITS_WAY, stay_stopped=True, phase=Phase.STOPPED),
    ],
    "restore: stopped by an operator, parked or held": [
        replace(RESTORE, phase=Phase.STOPPED),
        replace(RESTORE, phase=Phase.STOPPED, stay_stopped=True, hindrance=GATE),
        replace(RESTORE, phase=Phase.DOWN, stay_stopped=True, generation=0),
        replace(RESTORE, phase=Phase.STARTING, stay_stopped=True),
        replace(RESTORE, phase=Phase.PARKED),
        replace(RESTORE, phase=Phase.PARKED, switching=True),
        replace(RESTORE, phase=Phase.HELD, liveness=Liveness.REMAINS),
    ],
    "restore: ended by itself": [
        RESTORE,
        replace(RESTORE, hindrance=GATE),
        replace(RESTORE, phase=Phase.UP, liveness=Liveness.REMAINS),
    ],
    "a launch is refused": [
        replace(PLAIN, hindrance=GATE),
        replace(PLAIN, hindrance=GATE, liveness=Liveness.REMAINS, stay_stopped=True),
        replace(RESTORE, hindrance=GATE, generation=0),
        replace(RESTORE, hindrance=GATE, phase=Phase.REFUSED),
    ],
    "something of the dead launch is left": [
        replace(PLAIN, liveness=Liveness.REMAINS),
        replace(RESTORE, liveness=Liveness.REMAINS, phase=Phase.REFUSED),
        replace(PLAIN, asked=Asked.WAKE, liveness=Liveness.REMAINS, phase=Phase.PARKED),
    ],
    "it is on its way to another account": [
        ON_ITS_WAY,
        replace(ON_ITS_WAY, asked=Asked.WAKE),
        replace(ON_ITS_WAY, asked=Asked.START, stay_stopped=True),
        replace(ON_ITS_WAY, asked=Asked.RESTORE, phase=Phase.STARTING),
    ],
    "otherwise": [
        PLAIN,
        replace(PLAIN, phase=Phase.STOPPED, stay_stopped=True),
        replace(PLAIN, phase=Phase.HELD),
        replace(RESTORE, generation=0),
        replace(RESTORE, phase=Phase.STARTING),
        replace(RESTORE, phase=Phase.REFUSED),
        replace(PLAIN, asked=Asked.WAKE, phase=Phase.PARKED),
        replace(PLAIN, asked=Asked.POLICY),
    ],
}
ACTIONS = {
    "leave": BringUp.LEAVE,
    "adopt": BringUp.ADOPT,
    "refuse": BringUp.REFUSE,
    "clear first, then again": BringUp.CLEAR_FIRST,
    "launch": BringUp.LAUNCH,
}
WANTED: list[tuple[str, Situation, Cause]] = [
    ("somebody asked, never launched", replace(PLAIN, generation=0), Cause.FIRST_START),
    ("somebody asked, launched before", PLAIN, Cause.OPERATOR_START),
    ("somebody asked, it was stopped", replace(PLAIN, stay_stopped=True), Cause.OPERATOR_START),
    ("restore: never launched", replace(RESTORE, generation=0), Cause.FIRST_START),
    ("restore: it was being started", replace(RESTORE, phase=Phase.STARTING), Cause.INTERRUPTED_START),
    ("restore: it had been refused", replace(RESTORE, phase=Phase.REFUSED), Cause.RESTORED),
    ("a wake, never launched", replace(PLAIN, asked=Asked.WAKE, generation=0), Cause.FIRST_START),
    ("a wake", replace(PLAIN, asked=Asked.WAKE, phase=Phase.PARKED), Cause.OPERATOR_WAKE),
    ("its restart policy", replace(PLAIN, asked=Asked.POLICY), Cause.RESTART_POLICY),
]


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    situations = [row[0] for row in table()]
    assert len(situations) == len(EXAMPLES)
    for situation, start in zip(situations, EXAMPLES, strict=True):
        assert situation.startswith(start)


@pytest.mark.parametrize(
    "row, situation",
    [(index, example) for index, rows in enumerate(EXAMPLES.values()) for example in rows],
)
def test_the_table_says_what_is_done(row: int, situation: Situation) -> None:
    _, action, cause = table()[row]
    verdict = decide(situation)
    assert verdict.action is ACTIONS[action]
    if cause == "none":
        assert verdict.cause is None
    elif cause == "that":
        assert situation.hindrance is not None
        assert (verdict.cause, verdict.reason) == (situation.hindrance.cause, situation.hindrance.reason)
    elif cause == "why it is wanted":
        assert verdict.cause in {cause for _, _, cause in WANTED}
    else:
        assert verdict.cause == Cause(cause)


@pytest.mark.parametrize("situation, cause", [row[1:] for row in WANTED], ids=[row[0] for row in WANTED])
def test_a_launch_says_why_it_is_wanted(situation: Situation, cause: Cause) -> None:
    verdict = decide(situation)
    assert (verdict.action, verdict.cause) == (BringUp.LAUNCH, cause)


situations = st.builds(
    Situation,
    asked=st.sampled_from(Asked),
    observed=st.booleans(),
    phase=st.sampled_from(Phase),
    stay_stopped=st.booleans(),
    generation=st.integers(0, 3),
    liveness=st.sampled_from(Liveness),
    ours=st.booleans(),
    ending=st.booleans(),
    switching=st.booleans(),
    hindrance=st.one_of(st.none(), st.just(GATE)),
    unknown_reason=st.just("it does not answer"),
)


@given(situations)
def test_nothing_is_launched_that_may_not_be(situation: Situation) -> None:
    if decide(situation).action is not BringUp.LAUNCH:
        return
    assert situation.liveness is Liveness.DEAD
    assert not situation.ending
    assert not situation.observed
    assert situation.hindrance is None
    assert situation.asked is not Asked.ADOPT
    if situation.asked is Asked.POLICY:
        assert situation.phase is Phase.DOWN
    if situation.asked is Asked.SWITCH:
        assert situation.switching and not situation.stay_stopped
    if situation.asked is Asked.RESTORE:
        assert not situation.stay_stopped
        assert situation.phase not in (Phase.STOPPED, Phase.PARKED, Phase.HELD)


@given(situations)
def test_what_lives_is_adopted_unless_its_end_is_under_way(situation: Situation) -> None:
    adopted = decide(situation).action is BringUp.ADOPT
    assert adopted == (situation.liveness is Liveness.LIVE and not situation.ending)


@given(situations)
def test_an_observed_agent_is_never_acted_on(situation: Situation) -> None:
    assert decide(replace(situation, observed=True)).action in (BringUp.ADOPT, BringUp.LEAVE)


@given(situations)
def test_unknown_leads_to_no_action(situation: Situation) -> None:
    verdict = decide(replace(situation, liveness=Liveness.UNKNOWN))
    assert verdict.action in (BringUp.LEAVE, BringUp.REFUSE)


@given(situations)
def test_a_refusal_says_why(situation: Situation) -> None:
    verdict = decide(situation)
    if verdict.action is BringUp.REFUSE:
        assert verdict.cause is not None and verdict.reason


@given(situations)
def test_remains_are_cleared_exactly_where_a_launch_would_follow(situation: Situation) -> None:
    clears = decide(replace(situation, liveness=Liveness.REMAINS)).action is BringUp.CLEAR_FIRST
    launches = decide(replace(situation, liveness=Liveness.DEAD)).action is BringUp.LAUNCH
    assert clears == launches
