"""What becomes of an assignment whose owner may have died with it: the table, and where it must end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import recovery
from circus_failover.policy.recovery import Owned, RecoveryAction, decide
from circus_failover.words import AssignmentState, Orphans, Phase, State, TaskState

WORKING = Owned(
    state=AssignmentState.WORKING,
    for_pool=True,
    retries=0,
    orphanings=0,
    task=None,
    owner_known=True,
    owner_phase=Phase.UP,
    owner_stay_stopped=False,
    owner_observed=False,
    owner_ends=False,
    launch_ended=False,
    launch_planned=False,
    launch_cause=None,
    worked=True,
    idle_since_worked=False,
    done_on_idle=False,
    work_retries=3,
    on_orphan=Orphans.PERSON,
)
DELIVERED = replace(WORKING, state=AssignmentState.DELIVERED, worked=False)
QUEUED = replace(
    WORKING, state=AssignmentState.QUEUED, task=TaskState.QUEUED, launch_ended=None, worked=False
)
BY_NAME = replace(QUEUED, for_pool=False)
FINISHED = replace(WORKING, done_on_idle=True, idle_since_worked=True)
DIED = replace(WORKING, owner_phase=Phase.DOWN, launch_ended=True, launch_cause="signaled")
PARKED = replace(DIED, owner_phase=Phase.PARKED, launch_planned=True, launch_cause="parked")
SPENT = replace(DIED, retries=3)
TO_POOL = replace(SPENT, on_orphan=Orphans.POOL)
GONE = replace(WORKING, owner_known=False, owner_phase=Phase.DOWN, launch_ended=None)
OUT = [
    {"owner_phase": Phase.STOPPED, "owner_stay_stopped": True},
    {"owner_phase": Phase.DOWN, "owner_stay_stopped": True},
    {"owner_phase": Phase.HELD},
    {"owner_phase": Phase.REFUSED},
    {"owner_phase": Phase.OBSERVED, "owner_observed": True},
    {"owner_observed": True},
]


def changed(owned: Owned, changes: dict[str, object]) -> Owned:
    return replace(owned, **changes)  # type: ignore[arg-type]


def table() -> list[tuple[str, str]]:
    """Return the rows of the table in the module's docstring: assignment, action."""
    assert recovery.__doc__ is not None
    lines = [line for line in recovery.__doc__.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    assert all(len(row) == 2 for row in rows)
    return rows  # type: ignore[return-value]


# The first words of each line of the table, and assignments to which exactly that line applies.
EXAMPLES: dict[str, list[Owned]] = {
    "it is over, or waits for a person": [
        replace(base, state=state)
        for state in AssignmentState
        if state.over or state is AssignmentState.ORPHANED
        for base in (WORKING, DIED, SPENT, GONE, FINISHED, replace(QUEUED, task=None))
    ],
    "an end of its owner is under way": [
        replace(base, owner_ends=True)
        for base in (WORKING, DIED, PARKED, FINISHED, GONE, QUEUED, replace(QUEUED, task=TaskState.TYPING))
    ],
    "not taken: its text is being typed": [
        replace(base, task=TaskState.TYPING)
        for base in (QUEUED, BY_NAME, replace(QUEUED, owner_known=False), changed(QUEUED, OUT[0]))
    ],
    "not taken: its owner is no more": [
        replace(QUEUED, owner_known=False),
        replace(BY_NAME, owner_known=False, task=None),
        replace(QUEUED, task=None),
        replace(BY_NAME, task=TaskState.CANCELLED),
        replace(QUEUED, task=None, launch_ended=True, launch_planned=True),
    ],
    "not taken, a pool's: its owner is observed": [
        *(changed(QUEUED, out) for out in OUT),
        *(changed(replace(QUEUED, launch_ended=True, retries=2), out) for out in OUT),
    ],
    "not taken, a pool's: its owner was parked": [replace(QUEUED, owner_phase=Phase.PARKED)],
    "not taken, a pool's: its owner is limited or waits": [
        replace(QUEUED, owner_state=State.LIMITED),
        replace(QUEUED, owner_state=State.WAITING, retries=2),
    ],
    "not taken otherwise": [
        replace(BY_NAME, owner_state=State.LIMITED),
        # What it began it is to go on with, when it can.
        replace(QUEUED, owner_state=State.LIMITED, launch_ended=True),
        replace(QUEUED, owner_state=State.UNKNOWN),
        QUEUED,
        BY_NAME,
        *(changed(BY_NAME, out) for out in OUT),
        *(replace(QUEUED, owner_phase=phase) for phase in (Phase.STARTING, Phase.DOWN)),
        replace(BY_NAME, owner_phase=Phase.PARKED),
        # Its owner was told before, so its next launch goes on with it.
        replace(QUEUED, owner_phase=Phase.PARKED, launch_ended=True),
    ],
    "taken: its owner was idle after working": [
        FINISHED,
        replace(FINISHED, state=AssignmentState.DELIVERED),
        replace(FINISHED, launch_ended=True),
        replace(FINISHED, launch_ended=True, launch_planned=True, owner_known=False),
    ],
    "its launch lives, and its owner is seen to work": [
        replace(DELIVERED, worked=True),
        replace(DELIVERED, worked=True, owner_known=False),
        replace(DELIVERED, worked=True, idle_since_worked=True),
    ],
    "its launch lives, its client began nothing with it": [
        replace(DELIVERED, unheard=True),
        replace(DELIVERED, unheard=True, for_pool=False, retries=2, owner_known=False),
    ],
    "its launch lives": [
        replace(DELIVERED, unheard=True, retries=3),
        replace(WORKING, unheard=True),
        WORKING,
        DELIVERED,
        replace(WORKING, owner_known=False),
        replace(WORKING, retries=9),
        replace(WORKING, idle_since_worked=True),
        replace(DELIVERED, done_on_idle=True),
        changed(WORKING, OUT[0]),
        replace(WORKING, owner_phase=Phase.STOPPING),
    ],
    "its owner is no more, a pool's": [
        GONE,
        replace(DIED, owner_known=False),
        replace(PARKED, owner_known=False),
    ],
    "its owner is no more, given by name": [
        replace(GONE, for_pool=False),
        replace(SPENT, owner_known=False, for_pool=False, on_orphan=Orphans.POOL),
    ],
    "whether its launch lives cannot be told": [
        replace(WORKING, launch_ended=None),
        replace(DELIVERED, launch_ended=None, owner_phase=Phase.DOWN),
    ],
    "its launch was ended on purpose": [
        PARKED,
        replace(PARKED, retries=9),
        replace(PARKED, state=AssignmentState.DELIVERED),
        replace(PARKED, for_pool=False),
        changed(PARKED, OUT[0]),
    ],
    "its launch died, fewer than": [
        DIED,
        replace(DIED, retries=2, for_pool=False),
        replace(DIED, state=AssignmentState.DELIVERED, worked=False),
        changed(DIED, OUT[2]),
        replace(DIED, launch_cause=None),
    ],
    "its launch died, a pool's": [
        TO_POOL,
        replace(TO_POOL, retries=99, orphanings=2),
        replace(TO_POOL, work_retries=1, retries=1),
    ],
    "its launch died otherwise": [
        SPENT,
        replace(SPENT, for_pool=False, on_orphan=Orphans.POOL),
        replace(TO_POOL, orphanings=3),
        replace(TO_POOL, work_retries=0, retries=0),
        replace(DIED, work_retries=0),
    ],
}


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    assignments = [row[0] for row in table()]
    assert len(assignments) == len(EXAMPLES)
    for text, start in zip(assignments, EXAMPLES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize(
    "row, owned", [(index, owned) for index, found in enumerate(EXAMPLES.values()) for owned in found]
)
def test_the_table_says_what_is_done(row: int, owned: Owned) -> None:
    verdict = decide(owned)
    assert verdict.action is RecoveryAction(table()[row][1])
    assert verdict.reason


@pytest.mark.parametrize(
    "owned, words",
    [
        (DIED, "its owner died with it (signaled): retry 1 of 3"),
        (replace(DIED, retries=2, launch_cause="stuck"), "died with it (stuck): retry 3 of 3"),
        (PARKED, "ended on purpose (parked): the next one goes on with it"),
        (SPENT, "failover.work_retries (3) are spent: a person has to look at it"),
        (TO_POOL, "are spent: another agent of its pool may try"),
        (replace(TO_POOL, orphanings=3), "its pool had it back 3 times: a person has to look at it"),
        (changed(QUEUED, OUT[0]), "nobody had taken it, and its owner was stopped by an operator"),
        (changed(QUEUED, OUT[2]), "its owner is held"),
        (changed(BY_NAME, OUT[2]), "it waits for its owner, which is held"),
        (replace(QUEUED, owner_phase=Phase.STARTING), "in the queue of its owner, which is starting"),
        (replace(GONE, for_pool=False), "given to nobody else"),
        (FINISHED, "failover.done_on_idle is set"),
    ],
)
def test_the_reason_says_what_happened_and_what_follows(owned: Owned, words: str) -> None:
    assert words in decide(owned).reason


# -- whatever there is ------------------------------------------------------------------------------------

owned_ = st.builds(
    Owned,
    state=st.sampled_from([AssignmentState.WORKING, AssignmentState.QUEUED, *AssignmentState]),
    for_pool=st.booleans(),
    retries=st.integers(0, 5),
    orphanings=st.integers(0, 5),
    task=st.one_of(st.none(), st.sampled_from(TaskState)),
    owner_known=st.sampled_from([True, True, False]),
    owner_phase=st.sampled_from(Phase),
    owner_stay_stopped=st.sampled_from([False, False, True]),
    owner_observed=st.sampled_from([False, False, True]),
    owner_ends=st.sampled_from([False, False, False, True]),
    launch_ended=st.sampled_from([True, True, False, None]),
    launch_planned=st.booleans(),
    launch_cause=st.sampled_from(["signaled", "parked", None]),
    worked=st.booleans(),
    idle_since_worked=st.booleans(),
    done_on_idle=st.booleans(),
    work_retries=st.integers(0, 4),
    on_orphan=st.sampled_from(Orphans),
    owner_state=st.one_of(st.none(), st.sampled_from(State)),
    unheard=st.booleans(),
)


@given(owned_)
def test_nothing_is_done_about_what_is_over_or_waits_for_a_person(owned: Owned) -> None:
    if owned.state.over or owned.state is AssignmentState.ORPHANED:
        assert decide(owned).action is RecoveryAction.LEAVE


@given(owned_)
def test_a_retry_is_spent_only_for_a_death_of_the_launch_that_took_it_or_did_not_hear_of_it(
    owned: Owned,
) -> None:
    action = decide(owned).action
    if action in (RecoveryAction.RECOVER, RecoveryAction.BACK_TO_POOL):
        died = owned.launch_ended and not owned.launch_planned and owned.owner_known
        lost = owned.launch_ended is False and owned.unheard and not owned.worked
        assert died or (lost and action is RecoveryAction.RECOVER)
        assert owned.state in (AssignmentState.DELIVERED, AssignmentState.WORKING)
    if action is RecoveryAction.RECOVER:
        assert owned.retries < owned.work_retries


@given(owned_)
def test_a_planned_end_spends_nothing_and_orphans_nothing(owned: Owned) -> None:
    if owned.launch_planned and owned.launch_ended and owned.owner_known:
        assert decide(owned).action in (
            *(RecoveryAction.GO_ON, RecoveryAction.LEAVE),
            *(RecoveryAction.DONE, RecoveryAction.RELEASE),
        )


@given(owned_)
def test_work_is_taken_from_nobody_whose_launch_lives_or_may_live(owned: Owned) -> None:
    taken = owned.state in (AssignmentState.DELIVERED, AssignmentState.WORKING)
    if taken and owned.owner_known and owned.launch_ended is not True:
        left = {RecoveryAction.LEAVE, RecoveryAction.WORKING, RecoveryAction.DONE}
        lost = owned.unheard and owned.state is AssignmentState.DELIVERED and not owned.worked
        # What never reached its client it is told again; nobody else gets it.
        assert decide(owned).action in (left | {RecoveryAction.RECOVER} if lost else left)


@given(owned_)
def test_nothing_is_decided_while_its_text_is_typed_or_its_owner_ends(owned: Owned) -> None:
    typed = replace(owned, state=AssignmentState.QUEUED, task=TaskState.TYPING)
    assert decide(typed).action is RecoveryAction.LEAVE
    assert decide(replace(owned, owner_ends=True)).action is RecoveryAction.LEAVE


@given(owned_)
def test_a_finished_turn_counts_as_done_only_where_that_is_set(owned: Owned) -> None:
    if decide(owned).action is RecoveryAction.DONE:
        assert owned.done_on_idle and owned.worked and owned.idle_since_worked


def after(owned: Owned, action: RecoveryAction) -> Owned:
    """Return an assignment after an action, taken again by a launch that dies with it, too."""
    again = replace(owned, state=AssignmentState.WORKING)
    if action is RecoveryAction.RECOVER:
        return replace(again, retries=owned.retries + 1)
    if action is RecoveryAction.BACK_TO_POOL:
        return replace(again, retries=0, orphanings=owned.orphanings + 1)
    assert action is RecoveryAction.ORPHAN
    return replace(owned, state=AssignmentState.ORPHANED)


@given(st.integers(0, 6), st.sampled_from(Orphans), st.booleans())
def test_an_assignment_that_every_launch_dies_with_reaches_a_person_in_the_end(
    work_retries: int, on_orphan: Orphans, for_pool: bool
) -> None:
    owned = replace(DIED, work_retries=work_retries, on_orphan=on_orphan, for_pool=for_pool)
    deaths = 0
    while owned.state is not AssignmentState.ORPHANED:
        owned = after(owned, decide(owned).action)
        deaths += 1
        assert deaths <= (work_retries + 1) ** 2
    rounds = work_retries + 1 if for_pool and on_orphan is Orphans.POOL else 1
    assert deaths == rounds * (work_retries + 1)


@given(owned_)
def test_a_release_is_final_since_nobody_had_taken_it_or_its_owner_is_no_more(owned: Owned) -> None:
    if decide(owned).action is RecoveryAction.RELEASE:
        assert owned.state is AssignmentState.QUEUED or not owned.owner_known
