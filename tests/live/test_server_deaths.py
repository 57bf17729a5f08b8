"""The death of a tmux server from end to end: real circusd, canary and tmux, one record, and what follows.

Two fleets serve all tests of this module; each test ends servers of its own in one of them. At the end
nothing may have been said twice, and nothing of them may be left running.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table, tmux
from circus_failover.canary import asking
from circus_failover.logfmt import timestamp
from circus_failover.process_table import ProcessId
from circus_failover.records import ServerExitRow
from tests.live.fleet import STANDIN, Fleet, alive, remove, wait_for
from tests.live.with_plugins import NEVER, said, with_canary

KEYS = {
    *("ts", "ev", "identity", "socket", "server_pid", "up"),
    *("how", "cause", "detected", "agents", "forensics"),
}
"""What every line about a server says, beside `signal` or `status`."""
QUIET = "sleep 600"
WRITER = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.set_inheritable(lock, True)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open(sys.argv[1] + ".two", "w").close()
os.execv(sys.executable, [sys.executable, "-m", "circus_failover.standin", *sys.argv[2:]])
"""
"""A stand-in that leaves a note when it begins while another one, or what that has started, still runs."""


# -- what these tests look at, for other modules too ---------------------------------------------------


@contextlib.contextmanager
def lasting_fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A fleet for the tests of a module, of which nothing is left running; its logs, if a test failed."""
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    made, failed = Fleet(folder), request.session.testsfailed
    try:
        yield made
    except BaseException:
        failed = -1
        raise
    finally:
        said = canary_status(made)
        made.close()
        left = asking.holder(str(made.state))
        if request.session.testsfailed != failed:
            print(f"---- the canary\n{said}")
            logs = (made.state / name for name in ("lifecycle.log", "exits.log", "canary/crash.log"))
            for path in (made.log, *logs):
                if path.exists():
                    print(f"---- {path.name}\n{path.read_text()[-12000:]}")
        remove(folder)
        assert left is None, "a canary of this fleet still runs"


def exits_of(fleet: Fleet, name: str) -> list[dict[str, str]]:
    """Return what exits.log says of an agent, and of servers that it lived in."""
    return [
        line
        for line in fleet.exits()
        if line["identity"] == name or name in line.get("agents", "").split(",")
    ]


def server_exits(fleet: Fleet, pid: int | None = None) -> list[ServerExitRow]:
    """Return the deaths of servers in the store, or of the server with this pid."""
    with fleet.store() as store:
        return [found for found in store.server_exits() if pid in (None, found.pid)]


def canary_status(fleet: Fleet) -> dict[str, Any] | None:
    """Return what the canary says of itself, or None."""
    return asking.ask(str(fleet.state), ask="status")


def running_servers(fleet: Fleet) -> list[int]:
    """Return the pids of the servers that agents live in, as circusd knows them."""
    agents = fleet.call("fleet")["agents"]
    return sorted({agent["server_pid"] for agent in agents if agent["server_pid"] is not None})


def canary_of(fleet: Fleet) -> ProcessId:
    """Wait for a canary, and return it."""
    return wait_for("a canary", lambda: asking.holder(str(fleet.state)))


def all_watched(fleet: Fleet) -> dict[str, Any]:
    """Wait until the canary watches the servers that agents live in, and no others; return what it says."""

    def look() -> dict[str, Any] | None:
        # Anew each time: an agent may be coming up just now.
        before, status, after = running_servers(fleet), canary_status(fleet), running_servers(fleet)
        pids = sorted(server["pid"] for server in status["servers"]) if status is not None else None
        return status if pids == before == after else None

    return wait_for("the canary watches the servers of all agents", look)


def no_plugin_lives(fleet: Fleet) -> bool:
    """End the plugins of a circusd that was killed: they outlive it for a while, and start a canary."""
    found = [process_table.identify(pid) for pid in fleet.running(b"plugins.main()")]
    return not [process_table.send(one, signal.SIGKILL) for one in found if one is not None]


def killed_unseen(fleet: Fleet, server: int) -> ProcessId:
    """Kill a server and the canary, which notices nothing, nor does another; return that canary."""
    canary = canary_of(fleet)
    # While it is stopped it holds its lock: nobody starts another.
    os.kill(canary.pid, signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)
    wait_for("the server is gone", lambda: not alive(server))
    os.kill(canary.pid, signal.SIGKILL)
    return canary


def await_dead(fleet: Fleet, name: str, cause: str, generation: int = 1) -> dict[str, Any]:
    """Wait until an agent is down for this cause, cleared away, and told how; return what explain says."""

    def look() -> dict[str, Any] | None:
        told = fleet.call("explain", name=name)
        agent, intent, server = told["agent"], told["intent"], told["server_exit"]
        over = intent is None or intent["done_at"] is not None
        if cause in ("server-lost", "server-ended"):
            over = over and server is not None and f"pid {server['pid']} " in (agent["reason"] or "")
        found = (agent["phase"], agent["cause"], agent["generation"])
        return told if found == ("down", cause, generation) and over else None

    return wait_for(f"{name} is down, {cause}", look)


def once_each(fleet: Fleet) -> None:
    """Nothing was said twice: a line and a row a server, a line an end of a session, a death a launch."""
    lines, rows = fleet.exits(), server_exits(fleet)
    servers = [(line["socket"], line["server_pid"]) for line in lines if line["ev"] == "server-exit"]
    assert sorted(servers) == sorted((found.socket, str(found.pid)) for found in rows)
    sessions = [(line["identity"], line["generation"]) for line in lines if line["ev"] == "session-exit"]
    gone = [line for line in fleet.lifecycle() if line.get("action") == "reaped-gone"]
    # The cause, and with it the statement, may be corrected by a canary that comes later.
    launches = [(line["identity"], line["generation"], line["evidence"].split(":")[0]) for line in gone]
    for told in (Counter(servers), Counter(sessions), Counter(launches)):
        assert {one: count for one, count in told.items() if count > 1} == {}
    with_server = {(one["identity"], str(one["generation"])) for found in rows for one in found.agents}
    assert with_server & set(sessions) == set()


# -- one server, one agent -----------------------------------------------------------------------------


@dataclass(frozen=True)
class End:
    """One way in which a server ends, and what is to be said of it."""

    agent: str
    number: signal.Signals | None
    """The signal that it is sent; None: it is told to end by a command."""
    command: tuple[str, ...]
    signal: int | None
    status: int | None
    cause: str
    of_agent: str
    deaths: int
    """How many of these ends the crash-loop guard counts."""
    says: str

    def do(self, fleet: Fleet) -> None:
        """End the agent's server."""
        if self.number is not None:
            os.kill(fleet.view(self.agent)["server_pid"], self.number)
        else:
            fleet.tmux(fleet.socket(self.agent), *self.command)


_CLOSED = (None, 0, "orderly-unintended", "server-ended", 0, "was closed by somebody")
ENDS = [
    End("killed", signal.SIGKILL, (), 9, None, "killed", "server-lost", 1, "was killed (SIGKILL)"),
    End("crashed", signal.SIGSEGV, (), 11, None, "crashed", "server-lost", 1, "crashed (SIGSEGV)"),
    End("asked", signal.SIGTERM, (), *_CLOSED),
    End("server-closed", None, ("kill-server",), *_CLOSED),
    End("session-closed", None, ("kill-session", "-t", "=session-closed"), *_CLOSED),
]
FIVE = [f"five-{number}" for number in range(5)]
MUTE = ["mute-0", "mute-1"]


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A fleet with an agent for each test, and what takes seconds is begun: nobody waits for it here."""
    with lasting_fleet(request) as fleet:
        with_canary(fleet, interval="0.5")
        for name in (end.agent for end in ENDS):
            fleet.resumable(name)
        for name in ("exits", "kills-itself"):
            fleet.agent(name)
        for name in ("reborn", "guest"):
            fleet.agent(name, failover__command=QUIET)
        fleet.agent("young", failover__command=QUIET, failover__ready_secs="600")
        fleet.agent("seen", failover__mode="observe", failover__socket=str(fleet.folder / "seen.sock"))
        pairs = {"pair": ["gone", "stays"], "both": ["leaving", "beside"]}
        for socket, names in {"five": FIVE, "mute": MUTE, "hand": ["shell"], **pairs}.items():
            for name in names:
                at = str(fleet.folder / f"{socket}.sock")
                fleet.agent(name, failover__socket=at, failover__command=QUIET)
        stubborn = {"failover.command": f"{STANDIN} --ignore-term", "failover.stop_secs": "60"}
        fleet.sections["watcher:leaving"].update(stubborn)
        script = fleet.folder / "writer.py"
        script.write_text(WRITER)
        writer = f"{sys.executable} {script} {fleet.folder}/writing --ignore-term"
        fleet.agent(
            "stubborn",
            failover__command=writer,
            failover__resume_command=f"{writer} --resume {{conversation}}",
        )
        for session in ("shell", "notes"):
            fleet.by_hand(fleet.folder / "hand.sock", session)
        fleet.by_hand(fleet.folder / "seen.sock", "seen")
        fleet.start()
        names = [section.removeprefix("watcher:") for section in fleet.sections]
        fleet.await_up(*(name for name in names if name not in ("young", "seen")))
        wait_for("young is launched", lambda: fleet.view("young")["server_pid"])
        wait_for("seen is seen", lambda: fleet.view("seen")["server_pid"])
        views = {name: fleet.view(name) for name in names}
        all_watched(fleet)
        shared = fleet.folder / "both.sock"
        (pane,) = tmux.panes(shared, "leaving")
        wait_for("leaving is deaf", lambda: "standin ready" in tmux.capture(shared, pane.pane))
        talkers = ["stubborn", *(end.agent for end in ENDS)]
        for name in talkers:
            fleet.await_screen(name, "standin ready")
            fleet.type(name, "hello")
        fleet.type("stubborn", "/daemon 600")
        for name in talkers:
            fleet.await_screen(name, "done: hello")
        fleet.await_screen("stubborn", "daemon ")

        os.kill(views["mute-0"]["server_pid"], signal.SIGSTOP)
        os.kill(views["stubborn"]["server_pid"], signal.SIGKILL)
        fleet.await_phase("stubborn", "down")
        fleet.call_all({"command": "wake", "name": "stubborn", "waiting": True}, timeout=0)
        yield fleet
        once_each(fleet)


@pytest.mark.parametrize("end", ENDS, ids=[end.agent for end in ENDS])
def test_a_server_s_end_is_one_line_one_row_one_snapshot_and_one_death(running: Fleet, end: End) -> None:
    name, server = end.agent, running.view(end.agent)["server_pid"]
    conversation = running.launches(name)[0].conversation
    end.do(running)
    told = await_dead(running, name, end.of_agent)

    (line,) = exits_of(running, name)
    (found,) = server_exits(running, server)
    assert set(line) >= KEYS and ("signal" in line) is not ("status" in line)
    assert (line["ev"], line["identity"], line["agents"]) == ("server-exit", name, name)
    assert (line["socket"], line["server_pid"]) == (str(running.socket(name)), str(server))
    assert (line["cause"], line["detected"]) == (end.cause, "live")
    assert (found.signal, found.status) == (end.signal, end.status) and found.how != "none"
    assert line.get("signal", "") == str(end.signal or "") and line.get("status") in (None, str(end.status))
    assert (line["ts"], line["how"]) == (timestamp(found.at), found.how)
    assert (found.socket, found.cause, found.detected) == (line["socket"], end.cause, "live")
    assert (found.agents, found.seen) == ([{"identity": name, "generation": 1}], None)
    assert found.up is not None and abs(float(line["up"]) - found.up) < 0.001

    snapshot = Path(line["forensics"])
    assert (snapshot.parent, str(snapshot)) == (running.state / "forensics", found.forensics)
    wait_for("the snapshot", snapshot.exists)
    assert stat.S_IMODE(snapshot.stat().st_mode) == 0o600
    assert name in snapshot.read_text() and json.loads(snapshot.read_text())

    assert told["server_exit"]["pid"] == server and told["server_exit"]["cause"] == end.cause
    assert end.says in told["agent"]["reason"]
    (launch,) = running.launches(name)
    assert (launch.planned, launch.end_cause) == (False, end.of_agent)
    assert launch.up_at is not None and launch.ended_at is not None
    assert launch.up_at < launch.ended_at <= found.at
    assert told["crash_loop"]["deaths"] == end.deaths
    history = running.call("history", name=name)["history"]
    assert any(entry.get("reason") == told["agent"]["reason"] for entry in history)
    assert [one["outcome"] for one in said(running, name, action="reaped-gone")] == ["resume-eligible"]

    assert running.call("wake", name=name)["status"] == "ok"
    again = running.begun(name)
    assert (again.generation, again.mode, again.wake_cause) == (2, "resume", "lost-resume")
    assert again.conversation == conversation
    assert len(exits_of(running, name)) == len(server_exits(running, server)) == 1


def test_a_server_that_another_replaces_on_its_socket_at_once_is_recorded_and_so_is_the_other(
    running: Fleet,
) -> None:
    socket, was = running.socket("reborn"), running.view("reborn")
    os.kill(was["server_pid"], signal.SIGKILL)
    wait_for("it is gone", lambda: not alive(was["server_pid"]))
    stranger = running.by_hand(socket, "reborn")
    other = tmux.server_pid(socket)
    told = await_dead(running, "reborn", "server-lost")
    (line,) = exits_of(running, "reborn")
    assert line["server_pid"] == str(was["server_pid"]) != str(other)
    assert told["server_exit"]["pid"] == was["server_pid"]
    assert alive(stranger) and tmux.server_pid(socket) == other

    assert running.call("start", name="reborn", waiting=True)["status"] == "ok"
    (view,) = running.await_up("reborn")
    assert (view["pid"], view["server_pid"], view["cause"]) == (stranger, other, "adopted-foreign")
    all_watched(running)
    os.kill(view["server_pid"], signal.SIGKILL)
    await_dead(running, "reborn", "server-lost", 2)
    assert [line["server_pid"] for line in exits_of(running, "reborn")] == [
        str(was["server_pid"]),
        str(other),
    ]


def test_a_server_that_a_restart_left_alive_is_watched_on_and_its_end_is_recorded(running: Fleet) -> None:
    """It has a session of somebody else, so that what was meant to end with the agent did not."""
    socket, server = running.socket("guest"), running.view("guest")["server_pid"]
    running.by_hand(socket, "stranger")
    assert running.call("restart", name="guest", waiting=True)["status"] == "ok"
    (view,) = running.await_up("guest")
    assert (view["generation"], view["server_pid"]) == (2, server) and not exits_of(running, "guest")
    running.tmux(socket, "kill-server")
    await_dead(running, "guest", "server-ended", 2)
    (line,) = exits_of(running, "guest")
    assert (line["server_pid"], line["cause"]) == (str(server), "orderly-unintended")


def test_a_server_that_dies_while_its_agent_starts_is_a_death(running: Fleet) -> None:
    server = running.view("young")["server_pid"]
    os.kill(server, signal.SIGKILL)
    told = await_dead(running, "young", "server-lost")
    (line,) = exits_of(running, "young")
    assert (line["server_pid"], line["signal"], line["detected"]) == (str(server), "9", "live")
    (launch,) = running.launches("young")
    assert (launch.up_at, launch.end_cause, launch.planned) == (None, "server-lost", False)
    assert told["crash_loop"]["deaths"] == 1


def test_the_death_of_a_server_with_an_observed_agent_is_recorded_and_nothing_else_follows(
    running: Fleet,
) -> None:
    server = running.view("seen")["server_pid"]
    os.kill(server, signal.SIGKILL)
    wait_for("its row", lambda: server_exits(running, server))
    wait_for("it is gone", lambda: running.view("seen")["pid"] is None)
    (line,) = exits_of(running, "seen")
    assert (line["ev"], line["agents"], line["signal"]) == ("server-exit", "seen", "9")
    assert running.view("seen")["phase"] == "observed"


# -- one server, many agents ---------------------------------------------------------------------------


def test_the_death_of_a_shared_server_is_one_incident_and_a_death_of_each_agent(running: Fleet) -> None:
    was = [running.view(name) for name in FIVE]
    (server,) = {view["server_pid"] for view in was}
    os.kill(server, signal.SIGKILL)
    for name in FIVE:
        told = await_dead(running, name, "server-lost")
        assert "with 5 agents" in told["agent"]["reason"] and told["crash_loop"]["deaths"] == 1
        assert [one["ev"] for one in exits_of(running, name)] == ["server-exit"]
    (line,) = [line for line in running.exits() if line["socket"] == was[0]["socket"]]
    assert (line["identity"], line["agents"], line["signal"]) == ("", ",".join(FIVE), "9")
    (found,) = server_exits(running, server)
    assert [one["identity"] for one in found.agents] == FIVE
    shown = running.ctl("--json", "deaths", *FIVE).json()["deaths"]
    (incident,) = shown
    assert [victim["identity"] for victim in incident["agents"]] == FIVE
    assert {victim["death"]["end_cause"] for victim in incident["agents"]} == {"server-lost"}

    answers = running.call_all(*({"command": "start", "name": name, "waiting": True} for name in FIVE))
    assert [answer["status"] for answer in answers] == ["ok"] * 5
    now = running.await_up(*FIVE)
    (other,) = {view["server_pid"] for view in now}
    assert other != server and not any(alive(view["pid"]) for view in was)
    assert len({view["pid"] for view in now}) == 5
    assert [len(running.launches(name)) for name in FIVE] == [2] * 5


def test_a_server_killed_while_one_of_its_agents_is_stopped_is_a_death_of_the_other(running: Fleet) -> None:
    server, leaving = running.view("beside")["server_pid"], running.view("leaving")["pid"]
    assert running.call("stop", name="leaving")["status"] == "ok"
    os.kill(server, signal.SIGKILL)
    await_dead(running, "beside", "server-lost")
    os.kill(leaving, signal.SIGKILL)
    assert running.await_phase("leaving", "stopped")["cause"] == "operator-stop"
    (line,) = exits_of(running, "leaving")
    assert (line["ev"], line["agents"], line["signal"]) == ("server-exit", "beside,leaving", "9")
    (launch,) = running.launches("leaving")
    assert (launch.planned, launch.end_cause) == (True, "operator-stop")
    assert not said(running, "leaving", action="reaped-gone")


# -- agents that end, and servers that do not ----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "command", "cause", "status", "number", "shown"),
    [
        ("exits", "/crash 7", "exited", "7", "", "crashed on request"),
        ("kills-itself", "/kill KILL", "signaled", "", "9", "standin ready"),
    ],
)
def test_an_agent_that_ends_by_itself_in_its_own_server_is_one_session_exit(
    running: Fleet, name: str, command: str, cause: str, status: str, number: str, shown: str
) -> None:
    running.await_screen(name, "standin ready")
    server = running.view(name)["server_pid"]
    running.type(name, command)
    await_dead(running, name, cause)
    wait_for("its server is gone", lambda: not alive(server))
    all_watched(running)
    (line,) = exits_of(running, name)
    assert (line["ev"], line["cause"], line["generation"]) == ("session-exit", cause, "1")
    assert (line["dead_status"], line["dead_signal"]) == (status, number)
    assert shown in line["last_screen"]
    assert not server_exits(running, server)


def test_a_session_that_somebody_closes_beside_others_is_gone_and_its_server_is_watched_on(
    running: Fleet,
) -> None:
    stays = running.view("stays")
    running.tmux(running.folder / "pair.sock", "kill-session", "-t", "=gone")
    await_dead(running, "gone", "session-gone")
    (line,) = exits_of(running, "gone")
    assert (line["ev"], line["cause"], line["dead_status"]) == ("session-exit", "session-gone", "")
    assert running.view("stays") == stays and not exits_of(running, "stays")
    status = all_watched(running)
    assert [one["agents"] for one in status["servers"] if one["pid"] == stays["server_pid"]] == [["stays"]]


def test_a_session_that_lives_on_after_its_agent_is_one_death_and_is_left_alone(running: Fleet) -> None:
    socket = running.folder / "hand.sock"
    running.tmux(socket, "respawn-pane", "-k", "-t", "=shell:", "sleep 600")
    (pane,) = tmux.panes(socket, "shell")
    told = await_dead(running, "shell", "ended-unknown")
    assert "gone" not in told["agent"]["reason"]
    (line,) = exits_of(running, "shell")
    assert (line["ev"], line["generation"], line["dead_status"]) == ("session-exit", "1", "")
    running.await_ticks()
    assert [found.pid for found in tmux.panes(socket, "shell")] == [pane.pid] and alive(pane.pid)
    # What is in it by now is nobody's agent: its end is no second death.
    os.kill(pane.pid, signal.SIGKILL)
    wait_for("its session has closed", lambda: tmux.sessions(socket) == ["notes"])
    running.await_ticks()
    assert exits_of(running, "shell") == [line]
    assert (running.view("shell")["phase"], running.view("shell")["generation"]) == ("down", 1)


def test_a_server_that_does_not_answer_is_said_once_and_no_death(running: Fleet) -> None:
    socket = str(running.folder / "mute.sock")

    def lines(ev: str) -> list[dict[str, str]]:
        return [line for line in running.lifecycle() if line["ev"] == ev and line["socket"] == socket]

    wait_for("it is called wedged", lambda: lines("server-wedged"))
    views = [running.view(name) for name in MUTE]
    assert [(view["phase"], view["wedged"]) for view in views] == [("up", True)] * 2
    (wedged,) = lines("server-wedged")
    assert wedged["agents"] == ",".join(MUTE) and not lines("server-answers")
    os.kill(views[0]["server_pid"], signal.SIGCONT)
    wait_for("it answers", lambda: lines("server-answers"))
    running.await_ticks()
    assert (len(lines("server-wedged")), len(lines("server-answers"))) == (1, 1)
    for view in views:
        now = running.view(view["identity"])
        assert (now["phase"], now["pid"], now["wedged"]) == ("up", view["pid"], False)
        assert not exits_of(running, view["identity"])


def test_what_outlives_its_server_is_ended_before_the_next_launch_and_never_do_two_write(
    running: Fleet,
) -> None:
    """Its server was killed, and a wake asked for, when this fleet had come up."""
    again = running.begun("stubborn")
    assert (again.generation, again.mode, again.wake_cause) == (2, "resume", "lost-resume")
    assert [line["ev"] for line in exits_of(running, "stubborn")] == ["server-exit"]
    first = running.launches("stubborn")[1]
    assert (first.end_cause, first.conversation) == ("server-lost", again.conversation)
    assert not (running.folder / "writing.two").exists()
    (survivor,) = [
        int(line["pid"])
        for line in running.lifecycle()
        if (line["ev"], line.get("identity"), line.get("generation")) == ("launched", "stubborn", "1")
    ]
    assert not alive(survivor)


# -- who records it when somebody else is dead, too ----------------------------------------------------

TEN = [f"agent-{number}" for number in range(10)]


@dataclass(frozen=True)
class Outlived:
    """A fleet of ten whose Canary plugin ticks only when it starts, and what its first canary said."""

    fleet: Fleet
    first: dict[str, Any]


@pytest.fixture(scope="module")
def outlived(request: pytest.FixtureRequest) -> Iterator[Outlived]:
    """Each test leaves circusd and the canary running, and has agents of its own."""
    with lasting_fleet(request) as fleet:
        with_canary(fleet, interval=NEVER)
        for name in TEN:
            fleet.agent(name, failover__command=QUIET, failover__ready_secs="2")
        fleet.start()
        fleet.await_up(*TEN)
        yield Outlived(fleet, all_watched(fleet))
        once_each(fleet)


def all_armed(fleet: Fleet) -> dict[str, Any]:
    """Wait until the canary has armed every server that an agent lives in, and nothing else."""
    status = all_watched(fleet)
    assert all(server["since"] is not None for server in status["servers"])
    return status


def assert_found_gone(line: dict[str, str]) -> None:
    """Nobody watched a SIGKILL: how it ended is told where a zombie still did, and never guessed."""
    told = (line.get("signal"), line.get("status"), line["how"], line["cause"])
    assert told in ((None, "unknown", "none", "unknown"), ("9", None, "proc-stat", "killed"))
    assert line["detected"] == "post-factum" and line["last_seen"]


def test_a_server_is_armed_before_its_agent_counts_as_ready(outlived: Outlived) -> None:
    armed = {server["agents"][0]: server["since"] for server in outlived.first["servers"]}
    late = {}
    for name in TEN:
        with outlived.fleet.store() as store:
            up_at = store.launches(name)[-1].up_at
        assert up_at is not None
        if armed[name] > up_at:
            late[name] = armed[name] - up_at
    assert not late


def test_a_canary_killed_with_a_server_records_it_when_it_is_back(outlived: Outlived) -> None:
    fleet, name = outlived.fleet, "agent-0"
    server = fleet.view(name)["server_pid"]
    (launch,) = fleet.launches(name)
    canary = killed_unseen(fleet, server)
    await_dead(fleet, name, "server-lost")
    (found,) = wait_for("its row", lambda: server_exits(fleet, server))
    (line,) = exits_of(fleet, name)
    assert found.seen is not None and launch.started_at <= found.seen <= found.at
    assert line["last_seen"] == timestamp(found.seen)
    assert_found_gone(line)
    assert canary_of(fleet) != canary
    all_armed(fleet)


def test_deaths_while_circusd_is_down_are_on_disk_at_once_and_taken_in_once(outlived: Outlived) -> None:
    fleet = outlived.fleet
    killed, closed = fleet.view("agent-1"), fleet.view("agent-2")
    fleet.end(signal.SIGKILL)
    os.kill(killed["server_pid"], signal.SIGKILL)
    fleet.tmux(fleet.socket("agent-2"), "kill-server")
    (line,) = wait_for("its line", lambda: exits_of(fleet, "agent-1"))
    (other,) = wait_for("its line", lambda: exits_of(fleet, "agent-2"))
    assert (line["signal"], line["cause"], line["detected"]) == ("9", "killed", "live")
    assert (other["status"], other["cause"], other["detected"]) == ("0", "orderly-unintended", "live")
    assert not server_exits(fleet, killed["server_pid"])
    fleet.start()
    told = await_dead(fleet, "agent-1", "server-lost")
    assert "was killed (SIGKILL)" in told["agent"]["reason"] and told["crash_loop"]["deaths"] == 1
    assert await_dead(fleet, "agent-2", "server-ended")["crash_loop"]["deaths"] == 0
    all_armed(fleet)
    assert (exits_of(fleet, "agent-1"), exits_of(fleet, "agent-2")) == ([line], [other])
    for view, record in ((killed, line), (closed, other)):
        (found,) = server_exits(fleet, view["server_pid"])
        assert timestamp(found.at) == record["ts"]
        assert fleet.launches(view["identity"])[0].ended_at == found.at


def test_a_death_that_nobody_lived_to_see_is_recorded_when_circusd_starts(outlived: Outlived) -> None:
    fleet = outlived.fleet
    server = fleet.view("agent-3")["server_pid"]
    fleet.end(signal.SIGKILL)
    wait_for("nobody is left who starts a canary", lambda: no_plugin_lives(fleet))
    killed_unseen(fleet, server)
    (launch,), over = fleet.launches("agent-3"), time.time()
    fleet.start()
    await_dead(fleet, "agent-3", "server-lost")
    (found,) = wait_for("its row", lambda: server_exits(fleet, server))
    (line,) = exits_of(fleet, "agent-3")
    assert_found_gone(line)
    assert found.seen is not None and launch.started_at <= found.seen <= over <= found.at
    all_armed(fleet)


def test_what_ran_when_circusd_started_is_armed_in_the_first_tick_whatever_became_of_the_list(
    outlived: Outlived,
) -> None:
    fleet = outlived.fleet
    server = fleet.view("agent-4")["server_pid"]
    fleet.end(signal.SIGKILL)
    wait_for("nobody is left who starts a canary", lambda: no_plugin_lives(fleet))
    canary = killed_unseen(fleet, server)
    wait_for("it is gone, too", lambda: not alive(canary.pid))
    shutil.rmtree(fleet.state / "canary")
    fleet.start()
    status = all_armed(fleet)
    assert len(status["servers"]) >= 5 and status["pid"] != canary.pid
    await_dead(fleet, "agent-4", "server-lost")
    (line,) = wait_for("its line", lambda: exits_of(fleet, "agent-4"))
    assert_found_gone(line)
    wait_for("its row", lambda: server_exits(fleet, server))
