"""The canary process on bad days: a full disk, too few descriptors, 200 deaths at once, rude clients."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from circus_failover import process_table
from circus_failover.canary import asking, starting, watched
from circus_failover.logfmt import timestamp
from circus_failover.process_table import ProcessId
from circus_failover.state_dir import StateDir
from tests.live.canary_yard import Yard, await_gone, kill, opened, run_canary, tmux
from tests.live.fleet import wait_for

linux = pytest.mark.skipif(not process_table.LINUX, reason="asks the Linux kernel")
root = pytest.mark.skipif(os.geteuid() != 0 or not process_table.LINUX, reason="only root can do this")


@pytest.fixture
def yard() -> Iterator[Yard]:
    """A state directory with servers and canaries."""
    with opened() as made:
        yield made


def test_200_servers_killed_at_once_are_200_records_each_with_its_own_time(yard: Yard) -> None:
    servers = yard.watched_servers(200)
    yard.canary()
    assert len(yard.armed()) == 200
    killed: dict[int, float] = {}
    for server in servers:
        killed[server.server.pid] = time.time()
        kill(server.server)
    yard.await_deaths(*servers)
    lines = yard.lines()
    assert sorted(int(line["server_pid"]) for line in lines) == sorted(killed)
    assert {(line.get("signal"), line["cause"], line["detected"]) for line in lines} == {
        ("9", "killed", "live")
    }
    for line in lines:
        assert line["ts"] >= timestamp(killed[int(line["server_pid"])])
    assert len({line["ts"] for line in lines}) > 1
    deaths = yard.deaths()
    assert len(deaths) == 200
    assert yard.ask(ask="status")["deaths"] == 200


# -- disks


@pytest.fixture
def small_disk(yard: Yard) -> Iterator[Path]:
    """Lay the state directory on a small file system of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "tmpfs", yard.dir], check=True)
    try:
        yard.state.prepare()
        yield yard.state.path
    finally:
        yard.close()
        subprocess.run(["umount", "-l", yard.dir], check=True)


def fill(disk: Path) -> Path:
    """Leave no room at all, and return the file to remove for some."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return filler


@root
def test_with_a_full_disk_deaths_are_kept_and_written_once_when_there_is_room(
    yard: Yard, small_disk: Path
) -> None:
    first, second, meant = (yard.watched_server() for _ in range(3))
    yard.canary()
    watched.intend(yard.dir, meant.server, watched.ANY)
    # A page with room for the beginning of a line: a full disk takes a part of a write.
    yard.state.exits_log.write_text("#" * (4096 - 60) + "\n")
    filler = fill(small_disk)
    for server in (first, second):
        kill(server.server)
    status = wait_for(
        "both to wait", lambda: found if (found := yard.ask(ask="status"))["waiting"] == 2 else None
    )
    assert "exits.log: No space left on device" in status["trouble"]
    assert yard.lines() == [] and yard.deaths() == []
    assert watched.read(yard.dir, first.name) is not None
    # What waits is not taken for something new.
    yard.look()
    assert yard.ask(ask="status")["waiting"] == 2

    # What is nobody's death needs no room, and leaves some.
    kill(meant.server)
    yard.await_settled(meant)
    filler.unlink()
    yard.await_deaths(first, second)
    assert sorted(death["pid"] for death in yard.deaths()) == sorted([first.server.pid, second.server.pid])
    lines = yard.lines()
    assert {line["server_pid"] for line in lines} == {str(first.server.pid), str(second.server.pid)}
    assert [(line["signal"], line["detected"]) for line in lines] == [("9", "live"), ("9", "live")]
    rows = yard.state.exits_log.read_text().split("\n")
    assert rows[1].startswith("ts=") and "evidence" not in rows[1] and rows[-1] == ""
    assert all(row.startswith("ts=") for row in rows[1:-1])
    status = wait_for(
        "no trouble", lambda: found if (found := yard.ask(ask="status"))["trouble"] is None else None
    )
    assert (status["waiting"], status["deaths"]) == (0, 2)


# -- descriptors, wedged servers


def test_a_server_that_cannot_be_watched_is_no_dead_server(yard: Yard) -> None:
    servers = [yard.watched_server(asked_at=time.time() - 3000) for _ in range(8)]

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (45, 45))

    assert run_canary(yard.dir, preexec_fn=few).returncode == 0
    yard.adopt(yard.holder())
    armed = yard.armed()
    assert 0 < len(armed) < len(servers)
    assert "too many open files" in yard.ask(ask="status")["trouble"]
    held = [server for server in servers if server.server.pid in armed]
    left = [server for server in servers if server.server.pid not in armed]
    kill(left[0].server)
    yard.await_deaths(left[0])
    line = yard.line(left[0])
    # Nobody watched it end, but it was looked after: that is later than what the list says.
    assert line["detected"] == "post-factum"
    assert line["last_seen"] > timestamp(time.time() - 2000)
    # The room of a dead one is another's.
    kill(held[0].server)
    yard.await_deaths(held[0])
    wait_for("the next to be armed", lambda: len(yard.armed()) == len(held))
    assert len(yard.lines()) == 2


@linux
def test_a_server_that_hangs_with_a_full_queue_is_watched_all_the_same(yard: Yard) -> None:
    server = yard.watched_server()
    kill(server.server, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        while True:
            client = stack.enter_context(sockets.socket(sockets.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(server.socket) != 0:
                break
        yard.canary()
        assert yard.armed() == {server.server.pid}
        kill(server.server)
        yard.await_deaths(server)
    assert yard.line(server)["signal"] == "9"


# -- its socket


def test_clients_that_say_nothing_or_half_of_it_or_do_not_listen_hold_nobody_up(yard: Yard) -> None:
    # Its answer to status does not fit into the buffer of a socket.
    agents = tuple(f"agent-{'x' * 50}-{number}" for number in range(8000))
    server = yard.watched_server(agents=agents)
    yard.canary()
    with contextlib.ExitStack() as stack:

        def connect() -> sockets.socket:
            client = stack.enter_context(sockets.socket(sockets.AF_UNIX))
            client.settimeout(10)
            client.connect(os.path.join(yard.dir, watched.SOCKET))
            return client

        first = connect()
        for _ in range(100):
            connect()
        half = connect()
        half.sendall(b'{"ask": ')
        flood = connect()
        flood.sendall(b"x" * 60000)
        nonsense = connect()
        nonsense.sendall(b"[1, 2]\n")
        gone = connect()
        gone.sendall(b'{"ask": "status"}\n')
        gone.close()
        patient = connect()
        patient.sendall(b'{"ask": "status"}\n')
        assert yard.armed() == {server.server.pid}
        assert json.loads(patient.makefile().readline())["servers"][0]["agents"] == list(agents)
        half.sendall(b'"status"}\n')
        assert json.loads(half.makefile().readline())["status"] == "ok"
        # So many are not kept open.
        assert first.recv(1) == b""
        assert json.loads(nonsense.makefile().readline())["status"] == "error"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            flood.sendall(b"x" * 60000)
            assert flood.recv(1) == b""
        for request in ({"ask": "dance"}, {"ask": "look", "server": "../../x"}, {"ask": "look", "server": 5}):
            assert yard.ask(**request)["status"] == "error"
        kill(server.server)
        yard.await_deaths(server)


@linux
def test_a_socket_that_somebody_removed_is_made_again(yard: Yard) -> None:
    server = yard.watched_server()
    canary = yard.canary()
    os.unlink(os.path.join(yard.dir, watched.SOCKET))
    second = yard.watched_server()
    assert not asking.poke(yard.dir)
    # As the plugin does at each tick.
    starting.start(yard.dir)
    wait_for("an answer", lambda: asking.ask(yard.dir, ask="status"))
    wait_for("both to be armed", lambda: yard.armed() == {server.server.pid, second.server.pid})
    assert yard.holder() == canary


def test_where_the_path_is_too_long_for_a_socket_it_looks_at_its_list_by_itself(yard: Yard) -> None:
    yard.state = StateDir(yard.folder / ("deep" * 30) / "state")
    yard.dir = str(yard.state.path)
    yard.state.prepare()
    yard.canary()
    assert asking.ask(yard.dir, ask="status") is None
    server = yard.watched_server()
    kill(server.server)
    yard.await_deaths(server)


# -- its state directory


@linux
def test_without_its_state_directory_it_ends_and_records_nothing(yard: Yard) -> None:
    server = yard.watched_server()
    canary = yard.canary()
    shutil.rmtree(yard.dir)
    await_gone(canary)
    assert process_table.alive(server.server)
    assert not Path(yard.dir).exists()


@linux
def test_with_another_state_directory_in_the_place_of_its_own_it_gives_way(yard: Yard) -> None:
    yard.watched_server()
    first = yard.canary()
    shutil.rmtree(yard.dir)
    yard.state.prepare()
    server = yard.watched_server()
    second = yard.canary()
    await_gone(first)
    assert yard.ask(ask="status")["pid"] == second.pid
    assert yard.armed() == {server.server.pid}
    kill(server.server)
    yard.await_deaths(server)
    assert len(yard.lines()) == 1


# -- the other means


@linux
def test_a_wait_for_client_is_believed_only_when_the_server_is_proven_gone(yard: Yard) -> None:
    killed_with_client, killed, closed, lives = (yard.watched_server() for _ in range(4))
    canary = yard.canary("--means", "client")
    assert yard.ask(ask="status")["means"] == "client"
    wait_for("the clients", lambda: len(clients(canary)) == 4)

    # The client alone: nobody died, and there is another one.
    first = clients(canary)[lives.socket]
    kill(first)
    wait_for("another client", lambda: clients(canary).get(lives.socket, first) != first)
    wait_for("it to be armed", lambda: lives.server.pid in yard.armed())

    kill(canary, signal.SIGSTOP)
    kill(clients(canary)[killed_with_client.socket])
    kill(killed_with_client.server)
    kill(canary, signal.SIGCONT)
    kill(killed.server)
    tmux(closed.socket, "kill-session", "-t", "=main")
    yard.await_deaths(killed_with_client, killed, closed)
    lines = {int(line["server_pid"]): line for line in yard.lines()}
    assert lines.keys() == {each.server.pid for each in (killed_with_client, killed, closed)}
    for line in lines.values():
        # The real one where the server was still a zombie, and nothing made up where it was not.
        told = (line.get("signal"), line.get("status"), line["how"])
        orderly = int(line["server_pid"]) == closed.server.pid
        assert told in (
            (None, "unknown", "none"),
            (None, "0", "proc-stat") if orderly else ("9", None, "proc-stat"),
        )
        assert line["detected"] == "live"
    assert yard.armed() == {lives.server.pid}

    # No client outlives the canary.
    left = clients(canary)[lives.socket]
    kill(canary)
    await_gone(left)


def clients(canary: ProcessId) -> dict[str, ProcessId]:
    """Return the wait-for clients of a canary by the socket of their server."""
    found = {}
    for pid, entry in process_table.table().items():
        with contextlib.suppress(OSError, ValueError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if entry.parent == canary.pid and "wait-for" in arguments:
                found[arguments[arguments.index("-S") + 1]] = entry.id
    return found


# -- as a process


@linux
def test_it_keeps_nothing_of_where_it_was_started(yard: Yard) -> None:
    yard.watched_server()
    environment = {**os.environ, "FAILOVER_LAUNCH": "launch-1", "FAILOVER_STATE_DIR": "x", "TMUX": "y,1,2"}
    assert run_canary(yard.dir, env=environment, cwd=yard.folder).returncode == 0
    canary = yard.adopt(yard.holder())
    proc = Path(f"/proc/{canary.pid}")
    environ = proc.joinpath("environ").read_bytes()
    assert b"FAILOVER" not in environ and b"TMUX" not in environ
    assert process_table.carrying("launch-1") == []
    assert proc.joinpath("comm").read_text() == "failover-canary\n"
    assert os.readlink(proc / "cwd") == "/"
    assert {os.readlink(proc / "fd" / str(number)) for number in range(3)} == {os.devnull}
    # In a session that nobody else is in, and that it does not lead: no terminal can become its own.
    assert os.getsid(canary.pid) == os.getpgid(canary.pid) not in (os.getsid(0), canary.pid)


@linux
def test_nothing_wakes_it_while_nothing_happens(yard: Yard) -> None:
    def woken() -> int:
        rows = Path(f"/proc/{canary.pid}/status").read_text().splitlines()
        return int(next(row.split()[1] for row in rows if row.startswith("voluntary_ctxt_switches")))

    for _ in range(3):
        yard.watched_server()
    canary = yard.canary()
    assert len(yard.armed()) == 3
    wait_for("it to sleep", lambda: (stat := process_table.read(canary.pid)) and stat.run_state == "S")
    before = woken()
    # There is nothing to await where nothing is to happen. circusd's tick touches these meanwhile.
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        Path(yard.dir, watched.SEEN).touch()
        trees = Path(yard.dir, watched.TREES)
        trees.with_suffix(".tmp").write_text("{}")
        os.replace(trees.with_suffix(".tmp"), trees)
        time.sleep(0.05)
    assert woken() == before


@pytest.mark.parametrize(
    "arguments", [(), ("a", "b"), ("--means",), ("a", "--means"), ("a", "--means", "hope"), ("",)]
)
def test_wrong_arguments_are_answered_with_the_usage(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-I", "-S", str(starting.PROCESS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_who_starts_it_is_told_why_it_could_not_begin(yard: Yard) -> None:
    missing = yard.folder / "missing"
    with pytest.raises(OSError, match=r"missing/locks/canary\.lock"):
        starting.start(str(missing))
    starting.start(yard.dir)
    first = yard.adopt(yard.holder())
    starting.start(yard.dir)
    assert yard.holder() == first
    assert not missing.exists()


@root
def test_a_server_that_was_killed_for_memory_is_told_from_one_that_was_killed(yard: Yard) -> None:
    group = Path("/sys/fs/cgroup/memory/cf-canary-test")
    if not group.parent.joinpath("memory.limit_in_bytes").exists():
        pytest.skip("no memory cgroup (v1)")
    group.mkdir()
    try:
        server = yard.watched_server()
        other = yard.watched_server()
        group.joinpath("cgroup.procs").write_text(str(server.server.pid))
        yard.canary()
        group.joinpath("memory.limit_in_bytes").write_text(str(1024 * 1024))
        text = yard.folder / "text"
        text.write_text("x" * 8_000_000)
        with contextlib.suppress(AssertionError):
            tmux(server.socket, "load-buffer", str(text))
        yard.await_deaths(server)
        kill(other.server)
        yard.await_deaths(other)
        assert (yard.line(server)["signal"], yard.line(server)["cause"]) == ("9", "oom-likely")
        assert "memory" in yard.line(server)["evidence"]
    finally:
        yard.close()
        group.rmdir()
