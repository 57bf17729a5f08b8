"""A park: intent first, a clean end, and a rest that no policy, restart or circusd ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3

from circus_failover.records import ActionRow
from tests.live.fleet import STANDIN, Fleet, alive, wait_for

RESUMED = ("resume", "idle-reaped-resume")


def newest_action(fleet: Fleet, name: str) -> ActionRow:
    with fleet.store() as store:
        return store.actions(name, 1)[0]


def park(fleet: Fleet, *names: str, verb: str = "park") -> None:
    assert fleet.call(verb, names=list(names), waiting=True)["status"] == "ok"


def wake(fleet: Fleet, name: str) -> tuple[str | None, str | None]:
    """Wake an agent, and return how its launch begins and why."""
    assert fleet.call("wake", name=name, waiting=True)["status"] == "ok"
    launch = fleet.begun(name)
    return launch.mode, launch.wake_cause


def test_the_intent_is_stored_before_anything_is_signalled(fleet: Fleet) -> None:
    fleet.agent("bob", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="3")
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    answer = fleet.call("park", name="bob", by="ann@desk")
    assert answer["status"] == "ok" and answer["agents"][0]["phase"] == "stopping"
    action = newest_action(fleet, "bob")
    assert (action.intent, action.who, action.generation, action.done_at) == ("park", "ann@desk", 1, None)
    assert alive(view["pid"])
    # It ignores SIGTERM and SIGHUP: only what stop_secs of grace did not end is killed.
    parked = fleet.await_phase("bob", "parked")
    assert not alive(view["pid"])
    assert (parked["cause"], parked["parked_by"], parked["pid"]) == ("parked", "park", None)
    assert parked["reason"] == "park (ann@desk)"
    launch = fleet.launches("bob")[0]
    assert (launch.planned, launch.end_cause, launch.exit_signal) == (True, "parked", signal.SIGKILL)
    (asked,) = [line for line in fleet.lifecycle() if line["ev"] == "park"]
    (ended,) = [line for line in fleet.lifecycle() if line["ev"] == "stopped"]
    assert (asked["who"], asked["parked_by"], ended["parked_by"]) == ("ann@desk", "park", "park")
    assert ended["killed"] == "1" and float(ended["secs"]) >= 3
    fleet.await_watcher("bob", "stopped")
    assert fleet.exits() == [], "a park is no death"


def test_a_polite_agent_ends_by_itself_and_the_next_wake_resumes_it(fleet: Fleet) -> None:
    fleet.resumable("bob", failover__stop_secs="30")
    fleet.resumable("eve")
    fleet.agent("zoe")
    fleet.start()
    first = fleet.begun("bob")
    fleet.await_up("eve", "zoe")
    fleet.converse("bob")
    fleet.converse("eve")
    done = fleet.ctl("park", "bob", "e*", "--waiting")
    assert done.code == 0, done
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["bob", "eve"]
    assert fleet.view("zoe")["phase"] == "up"
    launch = fleet.launches("bob")[0]
    assert (launch.exit_status, launch.exit_signal, launch.planned) == (143, None, True)
    assert fleet.ctl("park", "bob", "--waiting").code == 0, "parked already is as good"
    assert fleet.view("bob")["parked_by"] == "park"
    assert wake(fleet, "bob") == RESUMED
    assert fleet.launches("bob")[0].conversation == first.conversation
    fleet.await_screen("bob", "(1 turns)")
    for name in ("nobody", "no*"):
        refused = fleet.ctl("park", name)
        assert refused.code == 3 and name in refused.err, refused


def test_no_restart_policy_brings_back_what_was_parked_or_stopped(fleet: Fleet) -> None:
    """Nor does a task that waits; `control` dies at the same time and shows that the guard is at work."""
    for name in ("parked", "stopped", "control", "down"):
        fleet.resumable(name, failover__restart="always")
    fleet.agent("refused", failover__restart="always", working_dir=str(fleet.folder / "elsewhere"))
    fleet.guard(interval="1")
    fleet.start()
    fleet.await_up("parked", "stopped", "control", "down")
    fleet.converse("parked")
    park(fleet, "parked", "refused")
    park(fleet, "stopped", verb="stop")
    (guard,) = fleet.call("list", name="plugin:guard")["pids"]
    os.kill(guard, signal.SIGSTOP)  # nothing is back before it was parked
    for name in ("control", "down"):
        os.kill(fleet.view(name)["pid"], signal.SIGKILL)
        fleet.await_phase(name, "down")
    # What is down and would come back by itself is parked, too, and stays.
    park(fleet, "down")
    os.kill(guard, signal.SIGCONT)
    assert fleet.ctl("wake", "refused", "--task", "work for it").code == 3
    wait_for("the guard has brought back control", lambda: fleet.view("control")["generation"] == 2)
    fleet.await_up("control")
    fleet.await_ticks(2)
    shown = {name: fleet.view(name) for name in ("parked", "stopped", "down")}
    assert {name: (view["phase"], view["generation"]) for name, view in shown.items()} == {
        "parked": ("parked", 1),
        "stopped": ("stopped", 1),
        "down": ("parked", 1),
    }
    assert fleet.view("refused")["generation"] == 0
    assert wake(fleet, "parked") == RESUMED
    # Nothing had been parked: there was no launch to end.
    assert wake(fleet, "down") == ("fresh", "crash-or-self-close")


def test_parked_stays_parked_however_circusd_ends(fleet: Fleet) -> None:
    fleet.resumable("bob", failover__restart="always")
    fleet.resumable("eve")
    fleet.guard(interval="1")
    fleet.start()
    first = fleet.begun("bob")
    fleet.converse("bob")
    park(fleet, "bob")
    before = fleet.view("bob")
    for number in (signal.SIGTERM, signal.SIGKILL):
        fleet.end(number)
        fleet.start()
        fleet.await_up("eve")
        assert fleet.ctl("reload", "--waiting").code == 0
        fleet.await_ticks(1)
        assert fleet.view("bob") == before
        assert fleet.call("status", name="bob")["status"] == "stopped"
    # A stop on top of it only adds that a start is needed.
    park(fleet, "bob", verb="stop")
    fleet.end(signal.SIGKILL)
    fleet.start()
    assert fleet.ctl("wake", "bob").code == 3
    assert fleet.ctl("start", "bob").code == 0
    launch = fleet.begun("bob")
    assert (launch.mode, launch.wake_cause, launch.conversation) == (*RESUMED, first.conversation)
    assert launch.parked_by == "park"


def test_a_park_of_what_does_not_run_ends_nothing_and_makes_nothing_resumable(fleet: Fleet) -> None:
    for name in ("never", "down", "stopped", "held"):
        fleet.resumable(name, autostart=str(name != "never"), failover__crash_max="1")
    fleet.start()
    fleet.await_up("down", "stopped", "held")
    park(fleet, "stopped", verb="stop")
    for name, text in (("down", "/exit"), ("held", "/crash 1")):
        fleet.converse(name)
        fleet.type(name, text)
        fleet.await_phase(name, name)
    before = {name: fleet.view(name) for name in ("never", "down", "stopped", "held")}
    done = fleet.ctl("park", "*", "--waiting")
    assert done.code == 0, done
    for name, was in before.items():
        view = fleet.view(name)
        assert view["phase"] == ("stopped" if name == "stopped" else "parked")
        assert (view["generation"], view["pid"]) == (was["generation"], None)
        assert view["parked_by"] == ("operator-stop" if name == "stopped" else None)
    assert wake(fleet, "never") == ("fresh", "first-wake")
    assert wake(fleet, "down") == ("fresh", "crash-or-self-close")
    # It takes nothing away that keeps it from coming up: neither a stop nor a crash loop.
    for name, words in (("stopped", "start stopped"), ("held", "reset held")):
        answer = fleet.call("wake", name=name, waiting=True)
        assert answer["status"] == "error" and words in answer["reason"], answer


def test_a_park_of_what_is_booting_ends_it_and_an_older_park_is_kept(fleet: Fleet) -> None:
    fleet.resumable("bob")
    fleet.start()
    first = fleet.begun("bob")
    fleet.converse("bob")
    park(fleet, "bob")
    fleet.resumable("bob", failover__ready_match="never shown", failover__boot_secs="60")
    fleet.write()
    assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
    fleet.call_all({"command": "wake", "name": "bob"}, timeout=0)
    wait_for("it boots", lambda: fleet.view("bob")["pid"])
    park(fleet, "bob")
    view = fleet.view("bob")
    assert (view["phase"], view["generation"], view["parked_by"]) == ("parked", 2, "park")
    fleet.resumable("bob")
    fleet.write()
    assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
    assert wake(fleet, "bob") == RESUMED
    assert fleet.launches("bob")[0].conversation == first.conversation


def test_a_stop_and_a_park_at_once_are_one_end_and_the_stop_wins(fleet: Fleet) -> None:
    orders = {"one": ("stop", "park"), "two": ("park", "stop")}
    for name in orders:
        fleet.resumable(name, failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="0.5")
    fleet.start()
    for name, verbs in orders.items():
        first = fleet.begun(name)
        fleet.converse(name)
        fleet.call_all(*({"command": verb, "name": name, "waiting": True} for verb in verbs))
        view = fleet.view(name)
        assert (view["phase"], view["generation"], view["parked_by"]) == ("stopped", 1, "operator-stop"), name
        with fleet.store() as store:
            assert len(store.actions(name)) == 1
        assert fleet.call("wake", name=name, waiting=True)["status"] == "error"
        assert fleet.call("start", name=name, waiting=True)["status"] == "ok"
        launch = fleet.begun(name)
        assert (launch.mode, launch.wake_cause, launch.conversation) == (*RESUMED, first.conversation)


def test_what_ends_by_itself_while_it_is_being_parked_is_parked(fleet: Fleet) -> None:
    names = ("exits", "killed", "server")
    for name in names:
        # Only the one that outlives its server has to be killed.
        secs = "3" if name == "server" else "60"
        fleet.resumable(name, failover__command=f"{STANDIN} --ignore-term", failover__stop_secs=secs)
    fleet.start()
    first = {name: fleet.begun(name) for name in names}
    for name in names:
        fleet.converse(name)
    views = {name: fleet.view(name) for name in names}
    fleet.call("park", names=list(names))
    os.kill(views["server"]["server_pid"], signal.SIGKILL)
    fleet.type("exits", "/exit")
    os.kill(views["killed"]["pid"], signal.SIGKILL)
    for name in names:
        assert fleet.await_phase(name, "parked")["parked_by"] == "park"
        launch = fleet.launches(name)[0]
        assert (launch.planned, launch.end_cause) == (True, "parked"), name
    fleet.await_ticks()
    assert fleet.exits() == []
    for name in names:
        assert wake(fleet, name) == RESUMED
        assert fleet.launches(name)[0].conversation == first[name].conversation


def test_start_clears_a_stop_and_what_was_given_up_and_nothing_else(fleet: Fleet) -> None:
    """Queue, park and counted deaths are as they were; one that is merely held is refused."""
    fleet.resumable("bob", failover__crash_max="2")
    fleet.start()
    first = fleet.begun("bob")
    fleet.converse("bob")
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert fleet.ctl("start", "bob").code == 0
    launch = fleet.begun("bob")
    assert (launch.wake_cause, launch.conversation) == ("idle-reaped-resume", first.conversation)
    # A death that was counted still counts after a start in between: the second one holds it.
    for phase in ("down", "held"):
        fleet.converse("bob", f"until {phase}")
        fleet.type("bob", "/crash 1")
        fleet.await_phase("bob", phase)
        if phase == "down":
            for verb in ("stop", "start"):
                assert fleet.call(verb, name="bob", waiting=True)["status"] == "ok"
    refused = fleet.ctl("start", "bob")
    assert refused.code == 3 and "failoverctl reset bob" in refused.err, refused
    assert fleet.view("bob")["phase"] == "held"
    # A stop of a held one is cleared by start, and the hold is not.
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    refused = fleet.ctl("start", "bob")
    assert refused.code == 3 and "failoverctl reset bob" in refused.err, refused
    generation = fleet.view("bob")["generation"]
    with fleet.store() as store:
        row = store.agents()["bob"]
    assert (row.stay_stopped, row.loop, row.phase) == (False, "open", "held")
    fleet.end()
    with contextlib.closing(sqlite3.connect(fleet.state / "failover.db")) as connection, connection:
        connection.execute("UPDATE agents SET loop = 'given-up', loop_until = NULL, loop_failures = 5")
    fleet.start()
    assert fleet.ctl("start", "bob").code == 0
    (view,) = fleet.await_up("bob")
    assert view["generation"] == generation + 1
    with fleet.store() as store:
        row = store.agents()["bob"]
    assert (row.loop, row.loop_failures) == ("closed", 0)


def test_an_observed_session_is_never_parked(fleet: Fleet) -> None:
    fleet.agent("bob", failover__mode="observe")
    pid = fleet.by_hand(fleet.socket("bob"), "bob")
    fleet.start()
    fleet.await_phase("bob", "observed")
    done = fleet.ctl("park", "bob", "--waiting")
    assert done.code == 3 and "observe" in done.err, done
    assert alive(pid)


def test_a_park_of_what_has_just_died_makes_its_death_no_park(fleet: Fleet) -> None:
    """What is left of it is still being cleared away: the launch was over before anybody asked."""
    script = fleet.work / "agent.sh"
    # What is ignored is inherited: from its beginning on only SIGKILL ends the leftover.
    leave = 'trap "" TERM HUP; sleep 600 & echo $! > $FAILOVER_IDENTITY; trap - TERM HUP'
    script.write_text(f"{leave}\nexec {STANDIN}\n")
    verbs = ("park", "stop", "restart")
    for verb in verbs:
        fleet.resumable(f"to-{verb}", failover__command=f"/bin/sh {script}", failover__stop_secs="60")
    fleet.start()
    first = {verb: fleet.begun(f"to-{verb}") for verb in verbs}
    leftovers = []
    for verb in verbs:
        name = f"to-{verb}"
        fleet.converse(name)
        leftovers.append(int((fleet.work / name).read_text()))
        os.kill(fleet.view(name)["pid"], signal.SIGKILL)
        fleet.await_phase(name, "down")
        assert newest_action(fleet, name).done_at is None
        # A restart is answered when it is done, and that may be long.
        fleet.call_all({"command": verb, "names": [name]}, timeout=0)
        wait_for("it is asked for", lambda name=name, verb=verb: newest_action(fleet, name).intent == verb)
    for leftover in leftovers:
        os.kill(leftover, signal.SIGKILL)
    for verb in verbs:
        name = f"to-{verb}"
        if verb != "restart":
            fleet.await_phase(name, {"park": "parked", "stop": "stopped"}[verb])
            again = "wake" if verb == "park" else "start"
            assert fleet.call(again, name=name, waiting=True)["status"] == "ok"
        launch = fleet.begun(name)
        ended = fleet.launches(name)[1]
        assert (ended.planned, ended.end_cause, ended.exit_signal) == (False, "signaled", signal.SIGKILL)
        assert (launch.mode, launch.wake_cause, launch.parked_by) == ("fresh", "crash-or-self-close", None)
        assert launch.conversation != first[verb].conversation
    assert [line["cause"] for line in fleet.exits()] == ["signaled"] * 3
