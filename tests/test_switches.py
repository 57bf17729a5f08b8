"""What a switch means to those that decide about launches and their ends."""

from __future__ import annotations

import pytest

from circus_failover import launch_ends
from circus_failover.dispatching import PLANNED_ENDS
from circus_failover.endings import _RANK, CAUSES
from circus_failover.policy import crash_loop, respawn
from circus_failover.policy.bringup import BringUp, Hindrance, Situation, decide
from circus_failover.policy.crash_loop import LoopState
from circus_failover.policy.respawn import Fallen, RespawnAction
from circus_failover.records import LaunchRow
from circus_failover.words import Asked, Cause, IntentAction, Liveness, Loop, Phase, Restart


def situation(asked: Asked, phase: Phase, **more: object) -> Situation:
    facts: dict[str, object] = {
        "observed": False,
        "stay_stopped": False,
        "generation": 3,
        "liveness": Liveness.DEAD,
        "ours": True,
        "ending": False,
        "switching": True,
        **more,
    }
    return Situation(asked=asked, phase=phase, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "phase", "action"),
    [
        (Asked.SWITCH, Phase.PARKED, BringUp.LAUNCH),
        (Asked.WAKE, Phase.PARKED, BringUp.LAUNCH),
        (Asked.START, Phase.PARKED, BringUp.LAUNCH),
        (Asked.RESTORE, Phase.STARTING, BringUp.LAUNCH),
        # Whoever parked it on its way goes on with it; Circus's own start does not.
        (Asked.RESTORE, Phase.PARKED, BringUp.LEAVE),
        (Asked.POLICY, Phase.PARKED, BringUp.LEAVE),
        (Asked.ADOPT, Phase.PARKED, BringUp.LEAVE),
    ],
)
def test_whoever_launches_an_agent_on_its_way_launches_it_for_the_switch(
    asked: Asked, phase: Phase, action: BringUp
) -> None:
    verdict = decide(situation(asked, phase))
    assert verdict.action is action
    assert verdict.cause is (Cause.SWITCHED if action is BringUp.LAUNCH else None)


def test_a_switch_launches_nothing_that_is_not_on_its_way_any_more() -> None:
    for more in ({"switching": False}, {"stay_stopped": True}, {"ending": True}):
        assert decide(situation(Asked.SWITCH, Phase.PARKED, **more)).action is BringUp.LEAVE
    refused = Hindrance(Cause.ACCOUNT, "no login")
    verdict = decide(situation(Asked.SWITCH, Phase.PARKED, hindrance=refused))
    assert (verdict.action, verdict.cause) == (BringUp.REFUSE, Cause.ACCOUNT)
    live = decide(situation(Asked.SWITCH, Phase.PARKED, liveness=Liveness.LIVE))
    assert live.action is BringUp.ADOPT, "there is never a second one"


def launch(cause: Cause, end: Cause, up_at: float | None, planned: bool = False) -> LaunchRow:
    return LaunchRow(
        *("bob", 3, str(cause), "circusd", "two", None, 100.0),
        up_at=up_at,
        ended_at=110.0,
        planned=planned,
        end_cause=str(end),
    )


def test_a_launch_that_never_ended_its_switch_is_no_death_and_one_that_did_is_like_any_other() -> None:
    failed = launch_ends.ended_of(launch(Cause.SWITCHED, Cause.LAUNCH_FAILED, None))
    assert not crash_loop.spends(failed)
    fallen = Fallen(
        *("bob", 3, Phase.DOWN, False, False, Restart.ALWAYS, LoopState(Loop.CLOSED, None, 0), 1),
        ended=[failed],
        stable_secs=60.0,
    )
    assert respawn.decide(fallen, 200.0).action is RespawnAction.LEAVE
    for died in (
        launch(Cause.SWITCHED, Cause.SIGNALED, 105.0),
        launch(Cause.OPERATOR_WAKE, Cause.LAUNCH_FAILED, None),
    ):
        assert crash_loop.spends(launch_ends.ended_of(died))


def test_ends_for_an_account_are_planned_and_any_wish_of_a_person_is_stronger() -> None:
    assert {str(Cause.SWITCHED), str(Cause.LIMITED)} <= PLANNED_ENDS
    ours = (IntentAction.LIMIT, IntentAction.SWITCH)
    persons = (IntentAction.PARK, IntentAction.RESTART, IntentAction.FRESH)
    assert all(_RANK[one] < _RANK[other] for one in ours for other in persons)
    assert _RANK[IntentAction.STUCK] < _RANK[IntentAction.LIMIT] < _RANK[IntentAction.SWITCH]
    assert _RANK.keys() == set(IntentAction) and CAUSES.keys() == set(IntentAction) - {IntentAction.CLEAR}
