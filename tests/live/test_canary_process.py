"""The canary process: every death of a real tmux server once, with its real cause; and never a false one."""

from __future__ import annotations

import json
import os
import signal
import socket as sockets
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from circus_failover import process_table, spool
from circus_failover.canary import asking, exit_status, starting, watched
from circus_failover.logfmt import timestamp
from circus_failover.process_table import ProcessId
from tests import proc
from tests.live.canary_yard import Yard, await_gone, kill, opened, tmux
from tests.live.fleet import wait_for

linux = pytest.mark.skipif(not process_table.LINUX, reason="asks the Linux kernel")


@pytest.fixture
def yard() -> Iterator[Yard]:
    """A state directory with servers and canaries."""
    with opened() as made:
        yield made


# -- how servers end


@linux
def test_each_end_is_recorded_once_with_its_real_signal_or_status(yard: Yard) -> None:
    ends: dict[str, tuple[str, str]] = {
        "SIGKILL": ("signal=9", "killed"),
        "SIGSEGV": ("signal=11", "crashed"),
        "SIGABRT": ("signal=6", "crashed"),
        "SIGALRM": ("signal=14", "killed"),
        "SIGTERM": ("status=0", "orderly-unintended"),
        "kill-server": ("status=0", "orderly-unintended"),
        "kill-session": ("status=0", "orderly-unintended"),
    }
    servers = {end: yard.watched_server() for end in ends}
    lives = yard.watched_server()
    yard.canary()
    assert yard.armed() == {server.server.pid for server in (*servers.values(), lives)}
    woken = sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM)
    woken.settimeout(20)
    woken.bind(str(yard.state.spool / spool.WAKE_SOCKET))
    before = time.time()
    for end, server in servers.items():
        if end.startswith("SIG"):
            kill(server.server, signal.Signals[end])
        elif end == "kill-server":
            tmux(server.socket, "kill-server")
        else:
            tmux(server.socket, "kill-session", "-t", "=main")
    yard.await_deaths(*servers.values())
    with woken:
        assert woken.recv(16)

    assert len(yard.lines()) == len(servers)
    told = {death["pid"]: death for death in yard.deaths()}
    for end, server in servers.items():
        line, death = yard.line(server), told[server.server.pid]
        key, _, number = ends[end][0].partition("=")
        assert (end, line.get(key), line["cause"]) == (end, number, ends[end][1])
        assert line["ev"] == "server-exit" and line["detected"] == "live"
        assert line["identity"] == line["agents"] == f"agent-{server.server.pid}"
        assert line["socket"] == server.socket
        assert line["how"] in ("pidfd-info", "proc-stat")
        assert timestamp(before) <= line["ts"] <= timestamp(time.time())
        assert 0 < float(line["up"]) < 60
        assert line["last_seen"] == ""
        assert line["evidence"]
        assert (death["signal"], death["status"])[key == "status"] == int(number)
        assert (death["start"], death["boot"]) == (server.server.start, process_table.boot_id())
        assert timestamp(death["at"]) == line["ts"]
        assert (death["cause"], death["how"], death["evidence"]) == (
            *(line["cause"], line["how"], line["evidence"]),
        )
        assert death["agents"] == [{"identity": line["identity"], "generation": 1}]
        wait_for("its snapshot", lambda path=line["forensics"]: os.path.exists(path))
    assert mode_of(yard.state.exits_log) == 0o600
    assert mode_of(yard.state.path / watched.SOCKET) == 0o600
    assert yard.armed() == {lives.server.pid}
    taken: list[str] = []
    assert spool.take_in(yard.state.spool, lambda name, report: taken.append(report["kind"])) == []
    assert set(taken) == {"server-exits"}


def mode_of(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@linux
def test_the_exit_status_is_told_whoever_reaps_the_server_and_when(yard: Yard) -> None:
    (reaped, first), (zombie, second) = yard.own_server(), yard.own_server()
    canary = yard.canary()
    # Stopped meanwhile, so that when it looks one is reaped and the other is not.
    kill(canary, signal.SIGSTOP)
    first.kill()
    second.kill()
    assert first.wait() == -signal.SIGKILL
    os.waitid(os.P_PID, second.pid, os.WEXITED | os.WNOWAIT)
    kill(canary, signal.SIGCONT)
    yard.await_deaths(reaped, zombie)
    lines = [yard.line(reaped), yard.line(zombie)]
    if exit_status.capability()[0] == "pidfd-info":
        assert (lines[0].get("signal"), lines[0]["how"]) == ("9", "pidfd-info")
    else:
        assert (lines[0].get("status"), lines[0]["how"]) == ("unknown", "none")
    assert (lines[1].get("signal"), lines[1]["how"]) == ("9", "proc-stat")
    assert {line["detected"] for line in lines} == {"live"}


def test_one_server_with_several_agents_is_one_line_and_one_death_that_names_them_all(yard: Yard) -> None:
    shared = yard.watched_server(agents=("alpha", "beta", "gamma"))
    yard.canary()
    kill(shared.server)
    yard.await_deaths(shared)
    (line,) = yard.lines()
    assert (line["identity"], line["agents"]) == ("", "alpha,beta,gamma")
    (death,) = yard.deaths()
    assert [agent["identity"] for agent in death["agents"]] == ["alpha", "beta", "gamma"]


def test_who_has_joined_a_server_since_it_was_armed_is_in_the_record(yard: Yard) -> None:
    server = yard.watched_server(agents=("alpha",))
    yard.canary()
    watched.write(yard.dir, server._replace(agents=(*server.agents, *server.agents)))
    kill(server.server)
    yard.await_deaths(server)
    assert yard.line(server)["agents"] == "alpha,alpha"


# -- which ends are recorded


@linux
def test_an_end_that_is_meant_is_not_recorded_and_one_that_is_not_is(yard: Yard) -> None:
    any_killed, orderly_ended, orderly_killed, withdrawn, off_list, last = (
        yard.watched_server() for _ in range(6)
    )
    yard.canary()
    watched.intend(yard.dir, any_killed.server, watched.ANY)
    for server in (orderly_ended, orderly_killed, withdrawn):
        watched.intend(yard.dir, server.server, watched.ORDERLY)
    watched.withdraw(yard.dir, withdrawn.server)
    # Off the list, and nobody has told the canary.
    watched.remove(yard.dir, off_list.name)
    for server in (any_killed, orderly_killed, off_list, last):
        kill(server.server)
    for server in (orderly_ended, withdrawn):
        tmux(server.socket, "kill-server")
    yard.await_deaths(orderly_killed, withdrawn, last)
    yard.await_settled(any_killed, orderly_ended)
    # With nothing left to watch it may have ended by then.
    wait_for("all to be noticed", lambda: not (asking.ask(yard.dir, ask="status") or {}).get("servers"))
    recorded = {int(line["server_pid"]): line["cause"] for line in yard.lines()}
    assert recorded == {
        orderly_killed.server.pid: "killed",
        withdrawn.server.pid: "orderly-unintended",
        last.server.pid: "killed",
    }
    assert {death["pid"] for death in yard.deaths()} == recorded.keys()
    assert os.listdir(os.path.join(yard.dir, watched.SERVERS)) == []


def test_a_server_that_was_taken_off_the_list_is_watched_no_more(yard: Yard) -> None:
    server, stays = yard.watched_server(), yard.watched_server()
    yard.canary()
    watched.remove(yard.dir, server.name)
    assert yard.ask(ask="look", server=server.name) == {"status": "ok"}
    assert [each["pid"] for each in yard.ask(ask="status")["servers"]] == [stays.server.pid]


def test_the_end_of_a_drill_is_recorded_apart_and_nobodys_death(yard: Yard) -> None:
    drill = yard.watched_server(drill=True)
    yard.canary()
    kill(drill.server)
    yard.await_settled(drill)
    (line,) = yard.lines("canary/drill.log")
    assert line["server_pid"] == str(drill.server.pid)
    wait_for("its snapshot", lambda: os.path.exists(line["forensics"]))
    assert yard.lines() == [] and yard.deaths() == []


def test_a_pid_that_was_given_away_is_not_the_server(yard: Yard) -> None:
    socket, server = yard.server()
    earlier, stays = yard.listed(socket, ProcessId(server.pid, server.start - 100)), yard.watched_server()
    yard.canary()
    yard.await_deaths(earlier)
    (line,) = yard.lines()
    assert (line["detected"], line["status"], line["how"], line["cause"]) == (
        *("post-factum", "unknown", "none", "unknown"),
    )
    assert yard.armed() == {stays.server.pid}
    assert process_table.alive(server)


def test_a_server_reborn_on_the_same_socket_is_another_server(yard: Yard) -> None:
    first, stays = yard.watched_server(), yard.watched_server()
    yard.canary()
    kill(first.server)
    await_gone(first.server)
    second = yard.listed(*yard.server(Path(first.socket)))
    assert asking.poke(yard.dir, second.name)
    wait_for("the second", lambda: yard.armed() == {second.server.pid, stays.server.pid})
    kill(second.server)
    yard.await_deaths(first, second)
    assert [(line["socket"], int(line["server_pid"]), line["detected"]) for line in yard.lines()] == [
        (first.socket, first.server.pid, "live"),
        (first.socket, second.server.pid, "live"),
    ]


def test_a_server_whose_socket_another_one_has_taken_is_watched_and_the_other_is_not(yard: Yard) -> None:
    socket, displaced = yard.server()
    socket.unlink()
    taker = yard.listed(*yard.server(socket))
    watched.remove(yard.dir, taker.name)
    server = yard.listed(socket, displaced)
    yard.canary()
    assert yard.armed() == {displaced.pid}
    kill(taker.server)
    await_gone(taker.server)
    assert yard.armed() == {displaced.pid}
    kill(displaced)
    yard.await_deaths(server)
    assert [int(line["server_pid"]) for line in yard.lines()] == [displaced.pid]


def test_what_is_on_the_list_from_before_the_host_started_is_not_the_canarys_to_tell(yard: Yard) -> None:
    socket, server = yard.server()
    entry = yard.listed(socket, server, boot="another boot")
    yard.canary()
    yard.await_settled(entry)
    assert yard.lines() == [] and yard.deaths() == []


def test_a_file_that_makes_no_sense_is_named_and_the_others_are_watched(yard: Yard) -> None:
    server = yard.watched_server()
    names = {"1-1": "{", "2-2": "[]", "3-3": json.dumps({"pid": 10**30})}
    for name, text in names.items():
        Path(watched.path(yard.dir, name)).write_text(text)
    entry = yard.listed(Path("/nowhere"), ProcessId(10**20, 5))
    yard.canary()
    status = yard.ask(ask="status")
    assert [each["pid"] for each in status["servers"]] == [server.server.pid]
    assert "1-1.json" in status["trouble"]
    for name in (*names, entry.name):
        os.unlink(watched.path(yard.dir, name))
    yard.look()
    assert yard.ask(ask="status")["trouble"] is None


# -- canaries that die, and the next ones


@linux
def test_a_server_that_died_unwatched_is_found_by_the_next_canary(yard: Yard) -> None:
    server, process = yard.own_server()
    watched.write(yard.dir, server._replace(asked_at=time.time() - 3000))
    canary = yard.canary()
    kill(canary)
    await_gone(canary)
    process.kill()
    process.wait()
    ticked = time.time() - 1000
    seen = Path(yard.dir, watched.SEEN)
    seen.touch()
    os.utime(seen, (ticked, ticked))
    yard.canary()
    yard.await_deaths(server)
    (line,) = yard.lines()
    assert (line["detected"], line["status"], line["how"], line["cause"]) == (
        *("post-factum", "unknown", "none", "unknown"),
    )
    assert line["last_seen"] == timestamp(ticked)
    assert yard.deaths()[0]["seen"] == pytest.approx(ticked, abs=0.002)


@pytest.mark.parametrize("place", ["canary-before-line", "canary-after-line", "canary-after-report"])
def test_a_canary_that_dies_over_a_record_leaves_one_line_and_the_next_one_reports_it(
    yard: Yard, place: str
) -> None:
    server = yard.watched_server()
    canary = yard.canary(crash_at=place)
    kill(server.server)
    await_gone(canary)
    assert [int(line["server_pid"]) for line in yard.lines()] == (
        [] if place == "canary-before-line" else [server.server.pid]
    )
    assert len(yard.deaths()) == (1 if place == "canary-after-report" else 0)
    yard.canary()
    yard.await_deaths(server)
    (line,) = yard.lines()
    # After the report the next canary cannot know whether circusd has it: it says the same again.
    deaths = yard.deaths()
    assert len(deaths) == (2 if place == "canary-after-report" else 1)
    for death in deaths:
        assert timestamp(death["at"]) == line["ts"]
        assert (str(death["pid"]), death["detected"], death["cause"], death["evidence"]) == (
            *(line["server_pid"], line["detected"], line["cause"], line["evidence"]),
        )
        assert str(death["signal"] or "unknown") == line.get("signal", "unknown")
    wait_for("its snapshot", lambda: os.path.exists(line["forensics"]))


def test_a_server_that_is_put_on_the_list_again_after_its_death_has_no_second_line(yard: Yard) -> None:
    server = yard.watched_server(asked_at=time.time() - 1000)
    yard.watched_server()  # so that the canary stays
    yard.canary()
    kill(server.server)
    yard.await_deaths(server)
    again = server._replace(asked_at=time.time())
    watched.write(yard.dir, again)
    yard.look()
    yard.await_settled(again)
    assert yard.line(server)["detected"] == "live"
    assert {(death["pid"], death["detected"]) for death in yard.deaths()} == {(server.server.pid, "live")}


def test_of_two_canaries_that_start_at_once_one_lives(yard: Yard) -> None:
    yard.watched_server()
    command = [sys.executable, "-I", "-S", str(starting.PROCESS), yard.dir]
    starts = [subprocess.Popen(command, env={"PATH": os.environ["PATH"]}) for _ in range(5)]
    assert [start.wait(30) for start in starts] == [0] * 5
    wait_for("the others to end", lambda: len(canaries(yard)) == 1)
    assert canaries(yard) == [yard.canary()]
    assert yard.ask(ask="status")["pid"] == yard.holder().pid


def canaries(yard: Yard) -> list[ProcessId]:
    """Return the canaries of a state directory that run."""
    found = []
    for pid, entry in process_table.table().items():
        arguments = proc.command_line(pid).split(b"\0")
        if str(starting.PROCESS).encode() in arguments and yard.dir.encode() in arguments:
            found.append(entry.id)
    return found


def test_a_canary_that_is_told_to_end_leaves_the_list_to_the_next_one(yard: Yard) -> None:
    server = yard.watched_server()
    canary = yard.canary()
    kill(canary, signal.SIGTERM)
    await_gone(canary)
    assert not os.path.exists(os.path.join(yard.dir, watched.SOCKET))
    yard.canary()
    assert yard.armed() == {server.server.pid}
    kill(server.server)
    yard.await_deaths(server)
    assert yard.line(server)["detected"] == "live"


def test_with_nothing_left_to_watch_it_ends_by_itself_and_not_before(yard: Yard) -> None:
    first, (socket, later) = yard.watched_server(), yard.server()
    canary = yard.canary()
    kill(first.server)
    yard.await_deaths(first)
    second = yard.listed(socket, later)
    assert asking.poke(yard.dir, second.name)
    wait_for("the second", lambda: yard.armed() == {second.server.pid})
    kill(second.server)
    yard.await_deaths(second)
    await_gone(canary)
    assert not os.path.exists(os.path.join(yard.dir, watched.SOCKET))
    assert len(yard.lines()) == 2
