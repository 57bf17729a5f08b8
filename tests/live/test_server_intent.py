"""Whoever closes a tmux server says so before, and takes it back when the server lives on."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

import pytest

from circus_failover import server_intent, tmux
from circus_failover.canary import watched
from circus_failover.ending_work import Order
from tests.live.fleet import wait_for
from tests.live.launched import Host, Launch, private_host, runs

DELIBERATE = ["stop", "park", "restart", "fresh", "rm"]
POINTS = ["worker-before-signal", "worker-after-signal", "worker-before-close", "worker-before-report"]
LOOKS = """
trap '' HUP
trap 'cat "$FAILOVER_STATE_DIR"/canary/servers/*.intent >looked 2>&1; mv looked saw; exit 0' TERM
echo ready >ready; while :; do sleep 0.1; done
"""
"""An agent that notes, when it is asked to end, what is said of its server by then; a hangup is too soon."""


@pytest.fixture
def host() -> Iterator[Host]:
    with private_host() as made:
        yield made


def by_hand(launch: Launch, session: str = "mine") -> None:
    """Open a second session in the launch's server, as a person does."""
    tmux.run(launch.socket, ["new-session", "-d", "-s", session, "sleep 600"])


@pytest.mark.parametrize("intent", DELIBERATE)
def test_an_agent_with_a_server_of_its_own_means_every_end_before_its_first_signal(
    host: Host, intent: str
) -> None:
    bob = host.launch(LOOKS)
    bob.said("ready")
    assert host.end(bob, intent=intent) == 0
    assert bob.said("saw") == watched.ANY
    assert not runs(bob.server)
    assert bob.intent() == watched.ANY  # for whoever looks at the death
    assert host.report()["reason"] == ""


def test_an_agent_in_a_shared_server_means_nothing_until_its_session_is_closed(host: Host) -> None:
    bob = host.launch(LOOKS, own=False)
    bob.said("ready")
    assert host.end(bob) == 0
    assert "No such file" in bob.said("saw")
    assert not runs(bob.server)
    assert bob.intent() == watched.ORDERLY


@pytest.mark.parametrize("own", [True, False], ids=["own server", "shared server"])
def test_clearing_away_a_dead_launch_means_an_orderly_end(host: Host, own: bool) -> None:
    bob = host.launch("exit 7", own=own)
    wait_for("its end", lambda: tmux.panes(bob.socket, "bob")[0].dead)
    assert host.end(bob, intent="clear") == 0
    assert host.report()["exit_status"] == 7
    assert not runs(bob.server)
    assert bob.intent() == watched.ORDERLY


@pytest.mark.parametrize("intent", ["stop", "clear"])
@pytest.mark.parametrize("own", [True, False], ids=["own server", "shared server"])
def test_a_server_that_lives_on_is_not_meant_to_end_any_more(host: Host, own: bool, intent: str) -> None:
    bob = host.launch("exec sleep 600", own=own)
    by_hand(bob)
    assert host.end(bob, intent=intent) == 0
    assert runs(bob.server) and tmux.sessions(bob.socket) == ["mine"]
    assert bob.intent() is None
    assert bob.watched()


def test_a_server_that_does_not_end_when_it_is_empty_lives_on(host: Host) -> None:
    bob = host.launch("exec sleep 600", own=False)
    tmux.run(bob.socket, ["set-option", "-s", "exit-empty", "off"])
    assert host.end(bob) == 0
    assert runs(bob.server)
    assert bob.intent() is None


def test_a_server_that_a_stuck_client_keeps_from_ending_is_still_meant_to_end(host: Host) -> None:
    bob = host.launch("exec sleep 600")
    # tmux 3.3a waits for every client to leave, whoever it is.
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(bob.socket))
        assert host.end(bob) == 0
        assert runs(bob.server)
        assert bob.intent() == watched.ANY
    wait_for("the server's end", lambda: not runs(bob.server))


def test_what_went_with_its_server_is_not_judged_before_that_has_gone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, looks, stays = host.launch("exec sleep 600"), Semaphore(0), server_intent._stays
    monkeypatch.setattr(server_intent, "END_SECS", 60.0)
    monkeypatch.setattr(server_intent, "_stays", lambda *asked: (stays(*asked), looks.release())[0])
    order = Order.load({**bob.order(), "intent": "clear"})
    with ThreadPoolExecutor(1) as pool:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(bob.socket))
            server_intent.await_end(order, bob.server)  # it is there to stay
            assert looks.acquire(timeout=0)
            tmux.run(bob.socket, ["kill-session", "-t", "=bob"])
            waiting = pool.submit(server_intent.await_end, order, bob.server)
            assert looks.acquire(timeout=20) and looks.acquire(timeout=20), "it looks again and again"
            assert runs(bob.server)
        waiting.result(20)
    assert not runs(bob.server)


def test_agents_that_leave_a_shared_server_together_never_take_back_what_the_last_one_means(
    host: Host,
) -> None:
    for _ in range(5):
        agents = [host.launch("exec sleep 600", f"agent-{number}", own=False) for number in range(4)]
        workers = [host.start(agent) for agent in agents]
        assert [worker.wait(60) for worker in workers] == [0] * 4
        assert not runs(agents[0].server)
        assert agents[0].intent() == watched.ORDERLY


def test_what_a_worker_said_that_died_is_taken_back_by_the_next_one(host: Host) -> None:
    bob = host.launch("exec sleep 600", own=False)
    by_hand(bob)
    tmux.close_session(bob.socket, "bob")
    watched.intend(str(host.state.path), bob.server, watched.ORDERLY)
    assert host.end(bob) == 0
    assert bob.intent() is None and runs(bob.server)


def test_a_worker_that_dies_before_it_closes_a_session_of_many_leaves_nothing_meant_in_the_end(
    host: Host,
) -> None:
    bob = host.launch("exec sleep 600", own=False)
    by_hand(bob)
    assert host.end(bob, crash_at="worker-before-close") == -signal.SIGKILL
    assert bob.intent() == watched.ORDERLY
    assert host.end(bob) == 0
    assert tmux.sessions(bob.socket) == ["mine"]
    assert bob.intent() is None


def test_a_server_that_has_died_was_not_meant_to(host: Host) -> None:
    bob = host.launch("trap '' HUP; while :; do sleep 0.1; done")
    bob.lose_server()
    assert host.end(bob) == 0
    assert bob.intent() is None
    assert bob.watched()  # somebody has yet to record it


def test_a_server_that_does_not_answer_lives_on_and_is_not_meant_to_end(host: Host) -> None:
    bob = host.launch("exec sleep 600")
    os.kill(bob.server.pid, signal.SIGSTOP)
    try:
        assert host.end(bob) == 0
        assert bob.agent is not None and not runs(bob.agent)
        assert "could not be closed" in host.report()["reason"]
        assert bob.intent() is None
    finally:
        os.kill(bob.server.pid, signal.SIGCONT)


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_on_the_way_is_repeated_and_says_the_same(host: Host, point: str) -> None:
    bob = host.launch(LOOKS)
    bob.said("ready")
    assert host.end(bob, crash_at=point) == -signal.SIGKILL
    assert bob.intent() == watched.ANY
    assert host.reports() == []
    assert host.end(bob) == 0
    assert bob.said("saw") == watched.ANY
    assert not runs(bob.server)
    assert bob.intent() == watched.ANY
    assert host.report()["outcome"] == "ended"


@pytest.mark.parametrize("own", [True, False], ids=["own server", "shared server"])
def test_what_cannot_be_said_keeps_nobody_from_ending_an_agent_and_is_told(host: Host, own: bool) -> None:
    bob = host.launch("exec sleep 600", own=own)
    # A folder by that name: nothing can be put in its place, also by root.
    (host.state.path / watched.SERVERS / f"{watched.server_name(bob.server)}.intent").mkdir()
    assert host.end(bob) == 0
    assert bob.agent is not None and not runs(bob.agent)
    # Where nothing was said of its end, no worker waits for it.
    wait_for("the server's end", lambda: not runs(bob.server))
    assert "could not be written" in host.report()["reason"]
    # A server of its own is taken off the list instead: then its end is nobody's concern.
    assert bob.watched() is not own


def test_where_nobody_watches_servers_nothing_is_said(host: Host) -> None:
    bob = host.launch("exec sleep 600")
    for path in (host.state.path / watched.SERVERS).iterdir():
        path.unlink()
    (host.state.path / watched.SERVERS).rmdir()
    assert host.end(bob) == 0
    assert host.report()["reason"] == ""
    wait_for("the server's end", lambda: not runs(bob.server))


def test_an_order_of_an_earlier_version_is_carried_out(host: Host) -> None:
    bob = host.launch("exec sleep 600")
    order = bob.order()
    for key in ("own_server", "state_dir", "intent"):
        del order[key]
    bob.order = lambda: order  # type: ignore[method-assign]
    assert host.end(bob) == 0
    assert host.report()["outcome"] == "ended"
    assert bob.intent() is None
    wait_for("the server's end", lambda: not runs(bob.server))


def test_a_launch_whose_server_was_not_known_yet_means_its_end_all_the_same(host: Host) -> None:
    bob = host.launch("exec sleep 600")
    assert host.end(bob, server=None, agent=None, pane=None) == 0
    assert not runs(bob.server)
    assert bob.intent() == watched.ANY
