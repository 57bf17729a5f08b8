"""A tmux server that does not answer: shown, nothing is killed, and nobody waits for it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

from circus_failover import process_table
from tests.live.fleet import Fleet, alive, wait_for

WEDGED_SECS = 12.0
"""Twice 2 s for an answer, and a tick before and after; the rest is for a busy machine."""


def await_state(fleet: Fleet, name: str, state: str, timeout: float = WEDGED_SECS) -> dict[str, Any]:
    """Wait until an agent is in a state, while every look is answered."""

    def look() -> dict[str, Any] | None:
        view = fleet.view(name)
        return view if view["state"] == state else None

    return wait_for(f"{name} is {state}", look, timeout)


def test_a_stopped_server_is_shown_and_recovers_and_nothing_is_killed(fleet: Fleet) -> None:
    for name in ("alpha", "beta", "gamma"):
        fleet.agent(name)
    fleet.start()
    alpha, _, gamma = fleet.await_up("alpha", "beta", "gamma")
    os.kill(alpha["server_pid"], signal.SIGSTOP)
    try:
        view = await_state(fleet, "alpha", "wedged")
        assert view["phase"] == "up"
        assert "does not answer" in view["reason"]
        assert view["pid"] == alpha["pid"]
        # Meanwhile everybody else is served.
        assert fleet.call("stop", name="beta", waiting=True)["status"] == "ok"
        assert fleet.call("start", name="beta")["status"] == "ok"
        for verb in ("explain", "history"):
            assert fleet.call(verb, name="alpha")["status"] == "ok"
        assert fleet.call("start", name="alpha")["status"] == "ok"  # it is up
        assert fleet.view("gamma")["state"] == "unknown"
        assert alive(alpha["pid"])
        assert alive(alpha["server_pid"])
    finally:
        os.kill(alpha["server_pid"], signal.SIGCONT)
    view = await_state(fleet, "alpha", "unknown")
    assert (view["phase"], view["reason"], view["pid"]) == ("up", None, alpha["pid"])
    assert fleet.view("gamma")["pid"] == gamma["pid"]
    wedged, answers = lines(fleet)
    assert (wedged["ev"], answers["ev"]) == ("server-wedged", "server-answers")
    for line in (wedged, answers):
        assert line["agents"] == "alpha"
        assert line["socket"] == str(fleet.socket("alpha"))
        assert line["server_pid"] == str(alpha["server_pid"])
        assert "identity" not in line
    assert 4.0 <= float(wedged["secs"]) <= float(answers["secs"])
    assert not [record for record in fleet.lifecycle() if record["ev"] == "supervise"]
    # The history of an agent has its own share of it, the newest first.
    with fleet.store() as store:
        told = [entry["ev"] for entry in store.history("alpha") if entry["ev"].startswith("server-")]
    assert told == ["server-answers", "server-wedged"]


def lines(fleet: Fleet) -> list[dict[str, str]]:
    """Return what lifecycle.log says of servers that hang."""
    return [record for record in fleet.lifecycle() if record["ev"] in ("server-wedged", "server-answers")]


def one_silent_probe(fleet: Fleet) -> Path:
    """Put a tmux on PATH that is as silent as its server, once, and lets that go on meanwhile.

    Returns:
        Where it writes a line for each probe. The file `server` beside it holds the server's pid.
    """
    tools = fleet.folder / "tools"
    tools.mkdir()
    hangs = f'if [ -e "{tools}/server" ]; then echo >> "{tools}/probes"; read -r pid < "{tools}/server"'
    hangs += f'; [ -e "{tools}/hung" ] || {{ : > "{tools}/hung"; kill -CONT "$pid"; exec sleep 600; }}; fi'
    real = shutil.which("tmux")
    (tools / "tmux").write_text(
        f'#!/bin/sh\ncase "$*" in *display-message*) {hangs};; esac\nexec {real} "$@"\n'
    )
    (tools / "tmux").chmod(0o755)
    fleet.environment["PATH"] = f"{tools}{os.pathsep}{fleet.environment['PATH']}"
    return tools / "probes"


def test_one_silent_probe_says_nothing(fleet: Fleet) -> None:
    probes = one_silent_probe(fleet)
    fleet.agent("alpha")
    fleet.start()
    (alpha,) = fleet.await_up("alpha")
    assert fleet.circusd is not None
    circusd = fleet.circusd.pid
    os.kill(circusd, signal.SIGSTOP)  # no probe begins before its time, nor is one under way
    wait_for("circusd is stopped", lambda: (stat := process_table.read(circusd)) and stat.run_state == "T")
    wait_for("no probe is under way", lambda: not fleet.running(b"display-message"))
    try:
        os.kill(alpha["server_pid"], signal.SIGSTOP)
        probes.with_name("server").write_text(f"{alpha['server_pid']}\n")
        os.kill(circusd, signal.SIGCONT)
        # The second follows at once, so that the first was in vain.
        wait_for("another probe", lambda: len(probes.read_text().splitlines()) > 1)
    finally:
        os.kill(alpha["server_pid"], signal.SIGCONT)
    fleet.await_ticks(3)
    assert fleet.view("alpha")["state"] == "unknown"
    assert lines(fleet) == []


def test_a_server_of_many_agents_is_said_to_hang_once_and_all_of_them_are_shown(fleet: Fleet) -> None:
    names = [f"agent-{number}" for number in range(3)]
    socket = shared(fleet, *names)
    fleet.agent("apart")
    fleet.start()
    first, *_ = fleet.await_up(*names, "apart")
    os.kill(first["server_pid"], signal.SIGSTOP)
    try:
        for name in names:
            view = await_state(fleet, name, "wedged")
            assert str(socket) in view["reason"]
        fleet.await_ticks(3)
        (line,) = lines(fleet)
        assert line["agents"] == ",".join(names)
        assert fleet.view("apart")["state"] == "unknown"
    finally:
        os.kill(first["server_pid"], signal.SIGCONT)
    for name in names:
        view = await_state(fleet, name, "unknown")
        assert view["reason"] is None
    fleet.await_ticks()
    assert [line["ev"] for line in lines(fleet)] == ["server-wedged", "server-answers"]


def shared(fleet: Fleet, *names: str, **options: str) -> Path:
    """Add agents that share one server, and return its socket."""
    socket = fleet.folder / "shared.sock"
    for name in names:
        fleet.agent(name, failover__socket=str(socket), **options)
    return socket


def test_nothing_is_launched_beside_a_wedged_server(fleet: Fleet) -> None:
    shared(fleet, "alpha", "beta")
    fleet.agent("apart")
    fleet.start()
    alpha, _, apart = fleet.await_up("alpha", "beta", "apart")
    assert fleet.ctl("stop", "beta", "--waiting").code == 0
    os.kill(alpha["server_pid"], signal.SIGSTOP)
    try:
        answer = fleet.call("start", name="beta", waiting=True)
        assert answer["status"] == "error"
        assert "does not answer" in answer["reason"]
        view = fleet.view("beta")
        assert (view["phase"], view["cause"]) == ("refused", "server-wedged")
        await_state(fleet, "alpha", "wedged")
        assert fleet.view("apart")["state"] == "unknown"
    finally:
        os.kill(alpha["server_pid"], signal.SIGCONT)
    await_state(fleet, "alpha", "unknown")
    assert fleet.ctl("start", "beta").code == 0
    assert fleet.view("apart")["pid"] == apart["pid"]
    assert alive(alpha["pid"])


def test_one_that_dies_beside_a_wedged_server_comes_back_when_that_answers(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__restart="always")
    fleet.guard(interval="0.5")
    fleet.start()
    (alpha,) = fleet.await_up("alpha")
    os.kill(alpha["server_pid"], signal.SIGSTOP)
    os.kill(alpha["pid"], signal.SIGKILL)
    assert fleet.await_phase("alpha", "refused")["cause"] == "server-wedged"
    os.kill(alpha["server_pid"], signal.SIGCONT)
    wait_for("it is back", lambda: fleet.view("alpha")["generation"] == 2, WEDGED_SECS)
    fleet.await_up("alpha")
    assert "server-answers" in [line["ev"] for line in fleet.lifecycle() if line.get("identity") == "alpha"]


def test_a_wedged_agent_can_be_stopped(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    fleet.type("alpha", "/child 300")
    wait_for("its child", lambda: len(_tree(was["pid"])) == 2)
    tree = _tree(was["pid"])
    os.kill(was["server_pid"], signal.SIGSTOP)
    await_state(fleet, "alpha", "wedged")
    stopped = fleet.ctl("stop", "alpha", "--waiting", timeout=30)
    assert stopped.code == 0, stopped
    assert not any(alive(pid) for pid in tree)
    view = fleet.view("alpha")
    assert (view["phase"], view["pid"], view["cause"]) == ("stopped", None, "operator-stop")
    assert view["state"] is None
    assert "could not be closed" in view["reason"]
    refused = fleet.ctl("start", "alpha")
    assert refused.code == 3
    assert "does not answer" in refused.err

    os.kill(was["server_pid"], signal.SIGCONT)
    assert fleet.ctl("start", "alpha").code == 0
    (now,) = fleet.await_up("alpha")
    assert now["generation"] == 2


def _tree(pid: int) -> list[int]:
    from circus_failover.stats import tree_of

    return tree_of(pid)


def test_a_wedged_server_that_dies_is_a_death(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    os.kill(was["server_pid"], signal.SIGSTOP)
    await_state(fleet, "alpha", "wedged")
    os.kill(was["server_pid"], signal.SIGKILL)
    view = fleet.await_phase("alpha", "down")
    assert view["state"] is None
    wait_for("it is not wedged any more", lambda: fleet.view("alpha")["wedged"] is False)
    # It never answered.
    assert [line["ev"] for line in lines(fleet)] == ["server-wedged"]
    assert fleet.ctl("start", "alpha").code == 0
    assert fleet.view("alpha")["state"] == "unknown"


def test_circusd_starts_beside_wedged_servers_without_waiting_for_them(fleet: Fleet) -> None:
    stopped = [f"idle{number}" for number in range(8)]
    shared(fleet, "alpha", *stopped)
    fleet.agent("apart")
    fleet.start()
    (was, *_) = fleet.await_up("alpha", *stopped, "apart")
    assert fleet.ctl("stop", "idle*", "--waiting").code == 0
    fleet.end(signal.SIGKILL)
    shared(fleet, "new")
    os.kill(was["server_pid"], signal.SIGSTOP)
    try:
        fleet.start()
        view = fleet.view("alpha")
        assert (view["phase"], view["pid"]) == ("up", was["pid"])
        await_state(fleet, "alpha", "wedged")
        fleet.await_up("apart")
        assert {fleet.view(name)["phase"] for name in stopped} == {"stopped"}
        assert fleet.await_phase("new", "refused")["cause"] == "server-wedged"
        assert alive(was["pid"])
        keeper = fleet.keeper("alpha")
        os.kill(keeper, signal.SIGKILL)
        wait_for("another keeper", lambda: fleet.call("list", name="alpha")["pids"] not in ([], [keeper]))
    finally:
        os.kill(was["server_pid"], signal.SIGCONT)
    await_state(fleet, "alpha", "unknown")
    # Its start was circusd's own: it is made up for, and that of those who were stopped is not.
    (new,) = fleet.await_up("new")
    assert (new["generation"], new["server_pid"]) == (1, was["server_pid"])
    assert {fleet.view(name)["phase"] for name in stopped} == {"stopped"}
