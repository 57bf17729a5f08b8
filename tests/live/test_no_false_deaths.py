"""What is no death of a tmux server is never recorded as one, whatever is restarted, killed or suspended.

One fleet serves all tests of this module. After each of them, and once more at the end with another canary,
nothing is recorded, and the canary watches exactly the servers that agents live in.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table, tmux
from circus_failover.canary import asking, watched
from circus_failover.canary.watched import Watched
from circus_failover.process_table import ProcessId
from tests.live.fleet import STANDIN, Fleet, alive, wait_for
from tests.live.test_server_deaths import (
    all_watched,
    canary_of,
    lasting_fleet,
    running_servers,
    server_exits,
)
from tests.live.with_plugins import NEVER, with_canary

VERBS = ["stop", "park", "restart", "fresh", "rm"]
AGAIN = {"stop": "start", "park": "wake"}
KINDS = ["own", "slow", "one", "two"]
"""With a server of its own; the same, and only SIGKILL ends it; two that share one."""
SLOW = f"{STANDIN} --ignore-term"
LASTING = ["alpha", "beta", "gamma"]
"""They live through everything; the last two share a server with a stranger."""


def nothing_is_recorded(fleet: Fleet) -> dict[str, Any]:
    """Wait until the canary watches the servers that agents live in; no death of one may be on record."""
    status = all_watched(fleet)
    assert [line for line in fleet.exits() if line["ev"] == "server-exit"] == []
    assert server_exits(fleet) == []
    assert (status["deaths"], status["waiting"], status["trouble"]) == (0, 0, None)
    return status


@pytest.fixture(scope="module")
def lasting(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with lasting_fleet(request) as fleet:
        with_canary(fleet, interval=NEVER)
        shared = str(fleet.folder / "shared.sock")
        for name in LASTING:
            fleet.resumable(name, failover__socket="" if name == "alpha" else shared)
        for verb in VERBS:
            together = str(fleet.folder / f"{verb}.sock")
            fleet.agent(f"{verb}-own")
            fleet.agent(f"{verb}-slow", failover__command=SLOW, failover__stop_secs="0.2")
            for name in ("one", "two"):
                fleet.agent(f"{verb}-{name}", failover__socket=together)
        fleet.agent("ends-own")
        fleet.agent("ends-shared", failover__socket=str(fleet.folder / "ends.sock"))
        for name in ("stale", "unseen", "late", "leaves"):
            fleet.agent(name)
        fleet.agent("closed", failover__socket=shared)
        fleet.agent("seen", failover__mode="observe", failover__socket=shared)
        stale = socket.socket(socket.AF_UNIX)
        fleet.socket("stale").parent.mkdir(mode=0o700, parents=True)
        fleet.state.chmod(0o700)
        stale.bind(str(fleet.socket("stale")))
        stale.close()
        for session in ("stranger", "seen"):
            fleet.by_hand(Path(shared), session)
        fleet.start()
        fleet.await_up(*(name[8:] for name in fleet.sections if name != "watcher:seen"))
        yield fleet
        # Whatever was left on the list would come to light with the next canary.
        os.kill(canary_of(fleet).pid, signal.SIGKILL)
        nothing_is_recorded(fleet)


@pytest.fixture
def fleet(lasting: Fleet) -> Iterator[Fleet]:
    """The fleet, before and after each test."""
    views = [lasting.view(name) for name in LASTING]
    yield lasting
    nothing_is_recorded(lasting)
    for view in lasting.await_up(*LASTING):
        (was,) = [found for found in views if found["identity"] == view["identity"]]
        assert (view["pid"], view["generation"]) == (was["pid"], was["generation"])


# -- ends that somebody asked for ----------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_a_deliberate_end(fleet: Fleet, verb: str) -> None:
    names = [f"{verb}-{kind}" for kind in KINDS]
    servers = {fleet.view(name)["server_pid"] for name in names}
    answers = fleet.call_all(*({"command": verb, "name": name, "waiting": True} for name in names))
    assert [answer["status"] for answer in answers] == ["ok"] * len(names)
    if verb not in ("restart", "fresh"):
        # Of two that share one and begin again, one may be back before the other has left.
        wait_for("the servers have ended", lambda: not any(alive(server) for server in servers))
    nothing_is_recorded(fleet)
    if verb in AGAIN:
        # The old sockets are still there: tmux never removes them (3.3a).
        assert all(fleet.socket(name).exists() for name in names[:2])
        answers = fleet.call_all(*({"command": AGAIN[verb], "name": name, "waiting": True} for name in names))
        assert [answer["status"] for answer in answers] == ["ok"] * len(names)
    if verb != "rm":
        assert [view["generation"] for view in fleet.await_up(*names)] == [2] * len(names)


def test_a_wake_into_another_conversation(fleet: Fleet) -> None:
    server = fleet.view("late")["server_pid"]
    for topic in ("one", "two"):
        assert fleet.call("park", name="late", waiting=True)["status"] == "ok"
        assert fleet.call("wake", name="late", topic=topic, waiting=True)["status"] == "ok"
    (view,) = fleet.await_up("late")
    assert view["server_pid"] != server and len({one.conversation for one in fleet.launches("late")}) == 3


def test_a_launch_on_a_stale_socket(fleet: Fleet) -> None:
    """Nobody served it any more when this fleet came up."""
    (view,) = fleet.await_up("stale")
    assert view["generation"] == 1 and tmux.server_pid(fleet.socket("stale")) == view["server_pid"]


def test_an_agent_that_ends_by_itself_and_its_server_with_it(fleet: Fleet) -> None:
    names = ["ends-own", "ends-shared"]
    views = [fleet.view(name) for name in names]
    os.kill(views[0]["pid"], signal.SIGKILL)
    os.kill(views[1]["pid"], signal.SIGTERM)
    for view in views:
        wait_for("its server has ended", lambda pid=view["server_pid"]: not alive(pid))
        wait_for(
            "its end is told",
            lambda name=view["identity"]: (
                [line["ev"] for line in fleet.exits() if line["identity"] == name] == ["session-exit"]
            ),
        )


def test_a_session_that_somebody_closes_beside_others(fleet: Fleet) -> None:
    at = Path(fleet.view("closed")["socket"])
    for name in ("closed", "seen"):
        fleet.tmux(at, "kill-session", "-t", f"={name}")
    fleet.await_phase("closed", "down")
    wait_for("the observed one is gone", lambda: fleet.view("seen")["pid"] is None)


# -- restarts ------------------------------------------------------------------------------------------


def _reload(fleet: Fleet) -> None:
    fleet.sections["watcher:alpha"]["failover.idle_secs"] = "1234"
    fleet.write()
    assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
    wait_for("it is in force", lambda: fleet.call("explain", name="alpha")["idle"]["idle_secs"] == 1234)


def _quit(fleet: Fleet) -> None:
    assert fleet.circusd is not None
    fleet.call("quit")
    fleet.circusd.wait(20)
    fleet.circusd = None
    fleet.start()


def _again(number: signal.Signals) -> Callable[[Fleet], None]:
    def restart(fleet: Fleet) -> None:
        fleet.end(number)
        fleet.start()

    return restart


def _plugin_killed(fleet: Fleet) -> None:
    (pid,) = fleet.call("list", name="plugin:canary")["pids"]
    os.kill(pid, signal.SIGKILL)
    wait_for("another plugin", lambda: fleet.call("list", name="plugin:canary")["pids"] not in ([], [pid]))


def _plugin_restarted(fleet: Fleet) -> None:
    assert fleet.call("restart", name="plugin:canary", waiting=True)["status"] == "ok"


def _canary_ended(number: signal.Signals) -> Callable[[Fleet], None]:
    def end(fleet: Fleet) -> None:
        before = canary_of(fleet)
        os.kill(before.pid, number)
        wait_for("another canary", lambda: asking.holder(str(fleet.state)) not in (None, before))

    return end


RESTARTS = {
    "circusd-term": _again(signal.SIGTERM),
    "circusd-kill": _again(signal.SIGKILL),
    "circusd-quit": _quit,
    "reloadconfig": _reload,
    "plugin-kill": _plugin_killed,
    "plugin-restart": _plugin_restarted,
    "canary-kill": _canary_ended(signal.SIGKILL),
    "canary-term": _canary_ended(signal.SIGTERM),
}


@pytest.mark.parametrize("what", RESTARTS)
def test_a_restart(fleet: Fleet, what: str) -> None:
    RESTARTS[what](fleet)
    fleet.await_up(*LASTING)


def test_an_agent_whose_section_is_taken_out_is_nobody_s_any_more(fleet: Fleet) -> None:
    view = fleet.view("leaves")
    del fleet.sections["watcher:leaves"]
    fleet.write()
    assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
    nothing_is_recorded(fleet)
    assert alive(view["pid"])
    fleet.tmux(Path(view["socket"]), "kill-server")
    wait_for("its server has ended", lambda: not alive(view["server_pid"]))
    fleet.await_ticks()


# -- a canary that looks away --------------------------------------------------------------------------


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Keep processes from running for a while, as a suspended host or a debugger does."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def test_a_stop_while_the_canary_is_suspended(fleet: Fleet) -> None:
    server = fleet.view("unseen")["server_pid"]
    with stopped(canary_of(fleet).pid):
        assert fleet.call("stop", name="unseen", waiting=True)["status"] == "ok"
        wait_for("its server has ended", lambda: not alive(server))
    nothing_is_recorded(fleet)


def test_a_stop_while_no_canary_runs(fleet: Fleet) -> None:
    fleet.call("start", name="unseen", waiting=True)
    (view,) = fleet.await_up("unseen")
    assert fleet.call("stop", name="plugin:canary", waiting=True)["status"] == "ok"
    os.kill(canary_of(fleet).pid, signal.SIGKILL)
    assert fleet.call("stop", name="unseen", waiting=True)["status"] == "ok"
    wait_for("its server has ended", lambda: not alive(view["server_pid"]))
    assert fleet.call("start", name="plugin:canary")["status"] == "ok"


def test_everything_is_suspended_for_a_while(fleet: Fleet) -> None:
    assert fleet.circusd is not None
    with stopped(fleet.circusd.pid, canary_of(fleet).pid, *running_servers(fleet)):
        pass
    fleet.await_ticks()


def test_another_process_that_has_the_pid_of_a_server_that_was_closed(fleet: Fleet) -> None:
    """That server was closed while no canary looked: the intent is there, and somebody has its pid by now."""
    other = subprocess.Popen(shlex.split("sleep 600"))
    try:
        now = process_table.identify(other.pid)
        assert now is not None
        server = ProcessId(now.pid, now.start - 1)
        path, state = f"{fleet.folder}/closed.sock", str(fleet.state)
        watched.intend(state, server, watched.ANY)
        watched.write(state, Watched(path, server, process_table.boot_id(), time.time(), False, ()))
        assert asking.poke(state, watched.server_name(server))
        wait_for("it is off the list", lambda: watched.server_name(server) not in watched.names(state))
        assert watched.intent(state, server) is None
        nothing_is_recorded(fleet)
    finally:
        other.kill()
        other.wait()
