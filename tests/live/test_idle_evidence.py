"""What is seen of clients, tools and terminals: real tmux servers and real processes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from circus_failover import idle_evidence, process_table, tmux
from circus_failover.idle_evidence import Clients, Looks, Terminals
from circus_failover.process_table import LINUX
from circus_failover.records import AgentRow
from tests.live.fleet import Fleet, wait_for
from tests.live.with_plugins import a_person_looking_at

NAME = "one"


def name_of(fleet: Fleet) -> str:
    """Return a launch's name that no other fleet on this host has."""
    return f"launch-{fleet.folder.name}"


def started(fleet: Fleet, command: str = "sleep 600") -> AgentRow:
    """Start a session by hand, and return what would be stored of it if it were an agent that is ready."""
    socket = fleet.socket(NAME)
    fleet.environment.pop("FAILOVER_LAUNCH", None)
    launch = name_of(fleet)
    pid = fleet.by_hand(socket, NAME, f"exec env FAILOVER_LAUNCH={launch} {command}")
    process = process_table.identify(pid)
    server = tmux.server_pid(socket)
    assert process is not None and server is not None
    return AgentRow(
        NAME,
        phase="up",
        socket=str(socket),
        session=NAME,
        pid=process.pid,
        pid_start=process.start,
        server_pid=server,
        launch=launch,
        ready_ticks=process.start - 1,  # what follows may begin within the same hundredth of a second
    )


def test_a_session_without_clients_is_told_from_one_that_is_not_there(fleet: Fleet) -> None:
    started(fleet)
    assert idle_evidence.clients(fleet.socket(NAME), NAME) == Clients(0, None)
    with pytest.raises(tmux.TmuxError, match="there is no session on"):
        idle_evidence.clients(fleet.socket(NAME), "on")  # no prefix is taken for a name


def test_a_client_is_seen_and_when_it_left_is_known_though_it_was_killed(fleet: Fleet) -> None:
    started(fleet)
    config = fleet.folder / "tmux.conf"
    config.write_text(tmux.OWN_SERVER_CONFIG)
    fleet.tmux(fleet.socket(NAME), "source-file", str(config))
    with a_person_looking_at(fleet, NAME):
        here = idle_evidence.clients(fleet.socket(NAME), NAME)
        assert here.attached == 1 and here.last_attached is not None
        came = here.last_attached
        before = wait_for("a later second", lambda: int(time.time()) if time.time() >= came + 1 else None)
    gone = wait_for(
        "the server noticed that it left",
        # tmux 3.3a counts a client out first, and runs the hook that says when it left right behind that.
        lambda: (
            (seen := idle_evidence.clients(fleet.socket(NAME), NAME)).attached == 0
            and (seen.last_attached or 0.0) >= before
            and seen
        ),
    )
    assert gone.last_attached is not None and gone.last_attached <= time.time() + 1


def test_a_client_of_a_session_in_the_same_group_looks_at_it_too(fleet: Fleet) -> None:
    started(fleet)
    fleet.tmux(fleet.socket(NAME), "new-session", "-d", "-s", "view", "-t", NAME)
    with a_person_looking_at(fleet, NAME, session="view"):
        assert idle_evidence.clients(fleet.socket(NAME), NAME).attached == 1


def test_tools_are_what_was_started_since_it_was_ready_below_it_or_away_from_it(fleet: Fleet) -> None:
    command = "sh -c 'sleep 601 & (setsid sleep 602 &) ; exec sleep 600'"
    row = started(fleet, command=command)
    early = AgentRow(**{**vars(row), "ready_ticks": 0})
    wait_for("both tools run, and nothing else", lambda: idle_evidence.look().tools(early) == 2)
    # What is no younger than its readiness belongs to its boot.
    later = AgentRow(
        **{**vars(row), "ready_ticks": max(p.start for p in process_table.carrying(name_of(fleet)))}
    )
    assert idle_evidence.look().tools(later) == 0


def test_a_tool_that_has_ended_and_was_not_reaped_is_no_tool(fleet: Fleet) -> None:
    row = started(fleet, command="python3 -c 'import os,time; os.fork() or os._exit(0); time.sleep(600)'")

    def has_a_zombie() -> bool:
        return any(
            stat.parent == row.pid and stat.run_state == "Z" for stat in process_table.table().values()
        )

    wait_for("its child is a zombie", has_a_zombie)
    assert idle_evidence.look().tools(row) == 0


def test_the_server_and_circusd_are_nobodys_tools_though_they_were_started_from_its_shell(
    fleet: Fleet,
) -> None:
    row = started(fleet)
    fleet.environment["FAILOVER_LAUNCH"] = name_of(fleet)
    inner = fleet.folder / "inner.sock"
    fleet.by_hand(inner, "inner", "exec env -u FAILOVER_LAUNCH sleep 603")
    server = tmux.server_pid(inner)
    # A server that an agent has started is its tool,
    wait_for("only that server is a tool", lambda: idle_evidence.look().tools(row) == 1)
    own = AgentRow(**{**vars(row), "server_pid": server})
    assert idle_evidence.look().tools(own) == 0  # and the one that it lives in is not


def test_a_probe_that_fails_says_why_and_proves_nothing(fleet: Fleet) -> None:
    row = started(fleet)
    looks = Looks()
    assert row.server_pid is not None and row.pid is not None
    os.kill(row.server_pid, signal.SIGSTOP)
    failed = idle_evidence.probe(row, looks)
    os.kill(row.server_pid, signal.SIGCONT)
    assert "did not answer within 2 s" in failed.probe.failed
    assert (failed.probe.attached, failed.probe.tool_children) == (None, None)
    assert idle_evidence.probe(row, looks).probe.failed == ""
    nowhere = AgentRow(NAME, phase="up")
    assert idle_evidence.probe(nowhere, looks).probe.failed == "where its session is was not recorded"
    another = AgentRow(**{**vars(row), "pid_start": 1})
    assert idle_evidence.probe(another, looks).probe.failed == "its process was not found"


def test_probes_share_one_look_at_the_processes() -> None:
    taken = []

    def take() -> idle_evidence.Processes:
        taken.append(1)
        return idle_evidence.look()

    looks = Looks(take)
    assert looks.recent() is looks.recent()
    assert len(taken) == 1


@pytest.mark.skipif(not LINUX, reason="the terminal's time is read from /proc")
def test_what_an_agent_prints_moves_its_last_activity_and_silence_does_not(fleet: Fleet) -> None:
    row = started(fleet, command="cat")
    assert row.process is not None
    terminals = Terminals()
    ahead = time.time() + 3600
    silent = terminals.last_activity(row.process, ahead)
    assert silent is not None and silent == terminals.last_activity(row.process, ahead)

    def moved() -> bool:
        fleet.type(NAME, "hello")
        return (terminals.last_activity(row.process, ahead) or 0) > silent if row.process else False

    wait_for("it shows that the terminal moved", moved)


def test_an_agent_without_a_terminal_has_no_last_activity() -> None:
    process = process_table.identify(os.getpid())
    assert process is not None
    null = os.open(os.devnull, os.O_RDONLY)
    kept = os.dup(0)
    os.dup2(null, 0)
    try:
        assert Terminals().last_activity(process, time.time()) is None
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(null)
