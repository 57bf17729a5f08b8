"""Agents outlive the supervisor: whatever ends circusd, they run on, and the next one adopts them."""

from __future__ import annotations

import os
import signal

from tests.live.fleet import Fleet, alive, wait_for


def test_agents_live_on_and_are_adopted_with_the_same_pid_and_generation(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("beta", autostart="False")
    fleet.start()
    fleet.await_up("alpha")
    assert fleet.ctl("start", "beta").code == 0
    before = {agent["identity"]: agent for agent in fleet.await_up("alpha", "beta")}

    for times, how in enumerate(["quit", "SIGTERM", "SIGINT", "SIGKILL"], 1):
        if how == "quit":
            assert fleet.ctl("quit", program="circusctl").code == 0
            assert fleet.circusd is not None and fleet.circusd.wait(10) == 0
        else:
            fleet.end(signal.Signals[how])
        assert all(alive(agent["pid"]) for agent in before.values()), how

        fleet.start()
        for name, was in before.items():
            (now,) = fleet.await_up(name)
            for number in ("pid", "generation", "server_pid"):
                assert now[number] == was[number], (how, name, number)
        with fleet.store() as store:
            assert [launch.generation for launch in store.launches("alpha")] == [1], how
        adopted = [record["identity"] for record in fleet.lifecycle() if record["ev"] == "adopt"]
        assert sorted(adopted) == sorted([*before] * times), how


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


def test_a_keeper_that_is_killed_is_replaced_and_the_agent_stays(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP):
        keeper = fleet.keeper("alpha")
        os.kill(keeper, number)
        wait_for(
            f"another keeper after {number.name}",
            lambda keeper=keeper: fleet.call("list", name="alpha")["pids"] not in ([], [keeper]),
        )
        (now,) = fleet.await_up("alpha")
        assert (now["pid"], now["generation"]) == (was["pid"], 1), number.name
