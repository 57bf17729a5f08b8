"""Agents outlive the supervisor: whatever ends circusd, they run on, and the next one adopts them."""

from __future__ import annotations

import os
import signal

import pytest

from tests.live.fleet import Fleet, alive, wait_for


@pytest.mark.parametrize("how", ["quit", "SIGTERM", "SIGINT", "SIGKILL"])
def test_agents_live_on_and_are_adopted_with_the_same_pid_and_generation(fleet: Fleet, how: str) -> None:
    fleet.agent("alpha")
    fleet.agent("beta", autostart="False")
    fleet.start()
    fleet.await_up("alpha")
    assert fleet.ctl("start", "beta").code == 0
    before = {agent["identity"]: agent for agent in fleet.await_up("alpha", "beta")}

    if how == "quit":
        assert fleet.ctl("quit", program="circusctl").code == 0
        assert fleet.circusd is not None and fleet.circusd.wait(10) == 0
    else:
        fleet.end(signal.Signals[how])
    assert all(alive(agent["pid"]) for agent in before.values())

    fleet.start()
    for name, was in before.items():
        (now,) = fleet.await_up(name)
        assert (now["pid"], now["generation"], now["server_pid"]) == (
            was["pid"],
            was["generation"],
            was["server_pid"],
        )
    with fleet.store() as store:
        assert [launch.generation for launch in store.launches("alpha")] == [1]
    adopted = [r for r in fleet.lifecycle() if r["ev"] == "adopt"]
    assert {record["identity"] for record in adopted} == {"alpha", "beta"}


def test_a_keeper_killed_while_circusd_is_down_makes_no_second_copy(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    keeper = fleet.keeper("alpha")
    fleet.end(signal.SIGKILL)
    os.kill(keeper, signal.SIGKILL)
    fleet.start()
    (now,) = fleet.await_up("alpha")
    assert (now["pid"], now["generation"]) == (was["pid"], 1)


def test_the_keepers_of_a_dead_circusd_are_ended_before_its_successor_answers(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    orphan = fleet.keeper("alpha")
    fleet.end(signal.SIGKILL)
    assert alive(orphan)
    fleet.start()
    assert not alive(orphan)
    fleet.await_up("alpha")
    assert fleet.keeper("alpha") != orphan


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_a_keeper_that_is_killed_is_replaced_and_the_agent_stays(
    fleet: Fleet, number: signal.Signals
) -> None:
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    keeper = fleet.keeper("alpha")
    os.kill(keeper, number)
    wait_for("another keeper", lambda: fleet.call("list", name="alpha")["pids"] not in ([], [keeper]))
    (now,) = fleet.await_up("alpha")
    assert (now["pid"], now["generation"]) == (was["pid"], 1)
