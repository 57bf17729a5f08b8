"""circusd dies at every step of a switch: one live agent or one parked one, one transcript, no turn lost."""

from __future__ import annotations

import signal

from circus_failover import process_table
from circus_failover.policy.continuing import GO_ON
from tests.live.account_fleet import AccountFleet
from tests.live.fleet import Fleet, wait_for
from tests.live.test_account_failover import with_failover
from tests.live.test_switch import AGENT, TURN, ask, client, in_a_turn, row, steps


def killed_at(fleet: Fleet, *points: str) -> None:
    """Kill circusd at these places, each time in what the circusd after the last death goes on with."""
    for point in points:
        fleet.start(crash_at=point, wait=False)
        fleet.crashed()


def test_a_switch_during_which_circusd_dies_at_every_step_is_done_once(fleet: Fleet) -> None:
    accounts = AccountFleet(fleet)
    accounts.agent(AGENT)
    fleet.start(crash_at="intent-written")
    (view,) = fleet.await_up(AGENT)
    conversation = view["conversation"]
    fleet.converse(AGENT)
    in_a_turn(fleet)
    ask(fleet, "two")
    fleet.crashed()
    killed_at(fleet, "worker-started", "switch-ended", "launch-recorded", "switch-up")
    fleet.start()
    (view,) = fleet.await_up(AGENT)
    wait_for("its turn goes on", lambda: f"finished: {TURN}" in accounts.answers(conversation))
    assert accounts.prompts(conversation) == ["hello", TURN, GO_ON]
    assert accounts.writers(conversation) == [("two", view["pid"])] and len(accounts.transcripts()) == 1
    launches = [(one.account, one.end_cause, one.planned) for one in fleet.launches(AGENT)]
    assert launches == [("two", None, None), ("two", "interrupted-start", False), ("one", "switched", True)]
    assert steps(fleet) == ["asked", "ended", "launched", "launched", "done"]
    assert (row(fleet).switching, row(fleet).loop, view["account"]) == (None, "closed", "two")


def test_workers_die_too_and_a_launch_that_fails_is_known_to_have_failed(fleet: Fleet) -> None:
    """The other places, one after another; in the end it is parked where it was, and its turn is not lost."""
    accounts = AccountFleet(fleet)
    accounts.agent(AGENT, client=client(fleet))
    (accounts.homes["two"] / "broken").touch()
    fleet.start(crash_at="worker-after-signal")
    (view,) = fleet.await_up(AGENT)
    conversation = view["conversation"]
    fleet.converse(AGENT)
    in_a_turn(fleet)
    ask(fleet, "two")
    tries = worker_died(fleet, 0)
    fleet.end(signal.SIGKILL)
    fleet.start(crash_at="worker-before-report")
    worker_died(fleet, tries)
    fleet.end(signal.SIGKILL)
    killed_at(fleet, "report-taken-in", "switch-failed")
    fleet.start()
    parked = fleet.await_phase(AGENT, "parked")
    assert (parked["cause"], parked["account"]) == ("switch-failed", "one")
    wait_for("what is left of it is cleared", lambda: row(fleet).uncleared is None)
    assert accounts.writers(conversation) == []
    assert fleet.call("wake", name=AGENT, waiting=True)["status"] == "ok"
    wait_for("its turn goes on", lambda: f"finished: {TURN}" in accounts.answers(conversation))
    assert accounts.prompts(conversation) == ["hello", TURN, GO_ON]
    assert accounts.writers(conversation) == [("one", fleet.view(AGENT)["pid"])]
    assert len(accounts.transcripts()) == 1 and steps(fleet)[-1] == "failed"


def test_one_that_was_held_comes_back_also_when_circusd_dies_right_before_its_launch_elsewhere(
    fleet: Fleet,
) -> None:
    accounts = AccountFleet(fleet)
    accounts.agent(AGENT)
    with_failover(fleet)
    fleet.start(crash_at="switch-entered")
    (view,) = fleet.await_up(AGENT)
    fleet.converse(AGENT)
    accounts.limit("one")
    accounts.limit("two")
    fleet.type(AGENT, TURN)
    there = fleet.await_phase(AGENT, "held")["account"]
    other = "one" if there == "two" else "two"
    accounts.lift(other)
    fleet.call("accounts", action="forget", name=other)
    fleet.crashed()
    fleet.start()
    wait_for("its turn goes on", lambda: f"finished: {TURN}" in accounts.answers(view["conversation"]))
    assert accounts.account_of(AGENT) == other and row(fleet).switching is None
    assert "refused" in steps(fleet), "what was entered before its death came to nothing"


def worker_died(fleet: Fleet, tries: int) -> int:
    """Wait until one more worker of an agent's end has died without a report; return how many there were."""

    def look() -> int | None:
        with fleet.store() as store:
            action = store.open_action(AGENT)
        if action is None or action.worker is None or action.attempts <= tries:
            return None
        return None if process_table.may_run(action.worker) else action.attempts

    return wait_for("a worker has died", look)
