"""`failover.mode = observe`: watched and shown, never started, stopped, restarted or reaped."""

from __future__ import annotations

import os
import signal

from tests.live.fleet import Fleet, alive, wait_for


def observed(fleet: Fleet, name: str = "seen", **options: str) -> None:
    """Add an agent that is only observed."""
    fleet.agent(name, failover__mode="observe", **{"failover__command": "", **options})


def await_pid(fleet: Fleet, name: str, pid: int | None, timeout: float = 20.0) -> dict[str, object]:
    """Wait until `fleet` shows an observed agent with this pid."""

    def look() -> dict[str, object] | None:
        view = fleet.view(name)
        return view if view["pid"] == pid and view["phase"] == "observed" else None

    return wait_for(f"{name} is observed with pid {pid}", look, timeout)


def test_a_session_that_is_there_is_shown(fleet: Fleet) -> None:
    pid = fleet.by_hand(fleet.socket("seen"), "seen")
    observed(fleet)
    fleet.start()
    view = await_pid(fleet, "seen", pid)
    assert view["mode"] == "observe"
    assert view["state"] is not None
    assert view["server_pid"] is not None
    assert view["last_activity"] is not None


def test_an_absent_session_is_observed_and_never_launched(fleet: Fleet) -> None:
    observed(fleet)
    observed(fleet, "late", autostart="False")
    fleet.start()
    for name in ("seen", "late"):
        view = await_pid(fleet, name, None)
        assert (view["generation"], view["state"]) == (0, None)
        refused = fleet.ctl("start", name)
        assert refused.code == 3
        assert "observe" in refused.err
        assert not fleet.socket(name).exists()
        assert fleet.view(name)["phase"] == "observed"


def test_a_session_that_comes_later_is_shown_without_being_asked_for(fleet: Fleet) -> None:
    observed(fleet, autostart="False")
    fleet.start()
    await_pid(fleet, "seen", None)
    pid = fleet.by_hand(fleet.socket("seen"), "seen")
    await_pid(fleet, "seen", pid)


def test_no_verb_ends_it(fleet: Fleet) -> None:
    pid = fleet.by_hand(fleet.socket("seen"), "seen")
    observed(fleet)
    fleet.start()
    await_pid(fleet, "seen", pid)
    for verb in ("stop", "restart"):
        for program in ("failoverctl", "circusctl"):
            refused = fleet.ctl(verb, "seen", program=program)
            assert refused.code == 3, (program, verb, refused)
            assert "observe" in refused.err + refused.out
            assert alive(pid)
            assert fleet.view("seen")["pid"] == pid
    fleet.ctl("kill", "seen")
    fleet.ctl("signal", "seen", "9")
    fleet.ctl("reload")
    fleet.ctl("start", "seen")
    await_pid(fleet, "seen", pid)
    fleet.ctl("rm", "seen")
    assert alive(pid)
    fleet.end(signal.SIGTERM)
    assert alive(pid)
    with fleet.store() as store:
        assert store.actions("seen") == []


def test_its_death_is_shown_and_nothing_follows(fleet: Fleet) -> None:
    pid = fleet.by_hand(fleet.socket("seen"), "seen")
    observed(fleet, failover__restart="always")
    fleet.start()
    await_pid(fleet, "seen", pid)
    os.kill(pid, signal.SIGKILL)
    view = await_pid(fleet, "seen", None)
    assert "ended" in str(view["reason"])
    gone = [record for record in fleet.lifecycle() if record["ev"] == "observe"]
    assert gone[-1]["action"] == "gone"
    fleet.await_ticks()
    assert fleet.view("seen")["pid"] is None
    assert not any(record["ev"] == "launch" for record in fleet.lifecycle())

    # And when the operator starts it again, it is shown again.
    again = fleet.by_hand(fleet.socket("seen"), "seen")
    await_pid(fleet, "seen", again)


def test_a_mistake_in_its_section_does_not_make_it_one_that_may_be_ended(fleet: Fleet) -> None:
    pid = fleet.by_hand(fleet.socket("seen"), "seen")
    observed(fleet)
    fleet.start()
    await_pid(fleet, "seen", pid)
    fleet.end(signal.SIGTERM)
    fleet.sections["watcher:seen"]["failover.restrat"] = "lazy"
    fleet.start()
    view = wait_for("the mistake is shown", lambda: (v := fleet.view("seen"))["reason"] and v)
    assert "failover.restrat" in view["reason"]
    for verb in ("stop", "restart", "rm"):
        fleet.ctl(verb, "seen")
        assert alive(pid), verb


def test_circusds_end_and_start_leave_it_as_it_is(fleet: Fleet) -> None:
    pid = fleet.by_hand(fleet.socket("seen"), "seen")
    observed(fleet)
    fleet.start()
    first = await_pid(fleet, "seen", pid)
    fleet.end(signal.SIGKILL)
    fleet.start()
    again = await_pid(fleet, "seen", pid)
    assert again["generation"] == first["generation"]


def test_an_agent_that_is_changed_to_observe_while_it_runs_is_kept(fleet: Fleet) -> None:
    fleet.agent("seen")
    fleet.start()
    (was,) = fleet.await_up("seen")
    fleet.sections["watcher:seen"]["failover.mode"] = "observe"
    fleet.write()
    assert fleet.ctl("reloadconfig").code == 0
    assert fleet.ctl("stop", "seen").code == 3
    assert alive(was["pid"])
    fleet.sections["watcher:seen"]["failover.mode"] = "manage"
    fleet.write()
    assert fleet.ctl("reloadconfig").code == 0
    (now,) = fleet.await_up("seen")
    assert now["pid"] == was["pid"]
    assert fleet.ctl("stop", "seen", "--waiting").code == 0
    assert not alive(was["pid"])
