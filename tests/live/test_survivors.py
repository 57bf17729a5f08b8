"""What outlives its launch's tmux server is ended before the next launch, and nobody else is."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest

from circus_failover.process_table import ProcessId
from tests.live.fleet import Fleet, alive, wait_for
from tests.live.launched import Host, Launch, known, private_host, runs

AGENT = """
(setsid sleep 600 & echo $! >daemon) >/dev/null 2>&1
(env -i setsid sleep 600 & echo $! >nameless) >/dev/null 2>&1
exec sleep 600
"""
"""An agent with a daemon, and a daemon without an environment."""
DEAF = """
(trap '' HUP TERM; : >ignores; while :; do sleep 0.1; done) & echo $! >deaf
while [ ! -e ignores ]; do sleep 0.01; done
"""
"""A child that ignores SIGHUP and SIGTERM, before anything else is started."""
POINTS = ["worker-before-signal", "worker-after-signal", "worker-before-report"]


@pytest.fixture
def host() -> Iterator[Host]:
    with private_host() as made:
        yield made


def started(host: Host, script: str = AGENT) -> tuple[Launch, ProcessId, ProcessId]:
    """Start the agent; return its launch, the daemon, and the one without an environment."""
    bob = host.launch(script)
    daemon, nameless = bob.process("daemon"), bob.process("nameless")
    wait_for("both daemons", lambda: all(os.getsid(one.pid) == one.pid for one in (daemon, nameless)))
    return bob, daemon, nameless


def lost(host: Host, script: str = AGENT) -> tuple[Launch, ProcessId, ProcessId]:
    """Start the agent, write down its tree, and lose its server."""
    bob, daemon, nameless = started(host, script)
    host.trees({bob.launch: [[*process, "sh"] for process in (bob.agent, daemon, nameless) if process]})
    bob.lose_server()
    # The kernel hangs up its terminal: the agent itself ends by that.
    wait_for("the agent is gone", lambda: bob.agent is None or not runs(bob.agent))
    assert runs(daemon) and runs(nameless)
    return bob, daemon, nameless


def test_what_outlives_its_server_is_ended_by_its_number_or_by_what_it_carries(host: Host) -> None:
    bob, daemon, nameless = lost(host, DEAF + AGENT)
    deaf = bob.process("deaf")
    assert host.end(bob, intent="clear", stop_secs=60.0) == 0
    assert not any(runs(process) for process in (deaf, daemon, nameless))
    report = host.report()
    assert (report["outcome"], report["left"], report["alone"]) == ("ended", [], [])
    assert deaf.pid in report["killed"]
    assert not {daemon.pid, nameless.pid} & set(report["killed"])
    assert bob.intent() is None


def test_what_outlives_its_server_is_asked_to_end_together_with_an_agent_that_does_not(host: Host) -> None:
    """An agent that has lost its terminal ends no tools of its own any more."""
    deaf = "trap '' HUP TERM; echo yes >ignores; while :; do sleep 0.1; done"
    bob = host.launch(f"(setsid sleep 600 & echo $! >daemon); {deaf}")
    daemon = bob.process("daemon")
    bob.said("ignores")
    wait_for("the daemon", lambda: os.getsid(daemon.pid) == daemon.pid)
    bob.lose_server()
    assert host.end(bob, intent="clear") == 0
    assert bob.agent is not None and bob.agent.pid in host.report()["killed"]
    assert daemon.pid not in host.report()["killed"] and not runs(daemon)


def test_a_survivor_is_given_time_to_end_however_little_its_agent_is_given(host: Host) -> None:
    bob = host.launch(
        "trap '' HUP; trap 'sleep 0.5; echo bye >bye; exit 0' TERM; echo yes >ready; "
        "while :; do sleep 0.1; done"
    )
    bob.said("ready")
    bob.lose_server()
    assert host.end(bob, intent="clear", stop_secs=0.0) == 0
    assert bob.said("bye") == "bye"
    assert host.report()["killed"] == []


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_among_survivors_is_repeated(host: Host, point: str) -> None:
    bob, *survivors = lost(host, DEAF + AGENT)
    survivors.append(bob.process("deaf"))
    assert host.end(bob, crash_at=point, intent="clear") == -signal.SIGKILL
    # By then the tree may be forgotten: the first worker has remembered it.
    host.trees({})
    assert host.end(bob, intent="clear") == 0
    assert not any(runs(process) for process in survivors)
    assert host.report()["outcome"] == "ended"


def test_what_is_not_proven_to_belong_to_the_launch_is_left_alone_and_named(host: Host) -> None:
    bob, daemon, _ = lost(host)
    state = str(host.state.path)
    older = host.beside(FAILOVER_IDENTITY="bob", FAILOVER_STATE_DIR=state, FAILOVER_LAUNCH="an-older-one")
    elsewhere = host.beside(FAILOVER_IDENTITY="bob", FAILOVER_STATE_DIR="/other", FAILOVER_LAUNCH="x")
    nobody = host.beside(FAILOVER_IDENTITY="bob", FAILOVER_STATE_DIR=state)
    recycled = host.beside()
    trees = json.loads((host.state.path / "canary" / "trees.json").read_text())
    trees[bob.launch].append([recycled.pid, recycled.start - 1, "node"])
    trees["another"] = [[*nobody, "sleep"]]
    host.trees(trees)
    assert host.end(bob, intent="clear") == 0
    assert not runs(daemon)
    assert all(runs(process) for process in (older, elsewhere, nobody, recycled))
    report = host.report()
    assert sorted(report["alone"]) == sorted([[older.pid, "sleep"], [recycled.pid, "sleep"]])
    assert report["outcome"] == "ended"
    for process in (older, recycled):
        assert f"pid {process.pid} (sleep)" in report["reason"]


def test_a_look_alike_is_also_named_when_an_agent_is_stopped(host: Host) -> None:
    bob = host.launch("exec sleep 600")
    older = host.beside(
        FAILOVER_IDENTITY="bob", FAILOVER_STATE_DIR=str(host.state.path), FAILOVER_LAUNCH="an-older-one"
    )
    assert host.end(bob) == 0
    assert runs(older)
    assert host.report()["alone"] == [[older.pid, "sleep"]]


GARBAGE = ["", "{", "[]", "null", '{"LAUNCH": 5}', '{"LAUNCH": [["x", 1], 7, [1]]}']


@pytest.mark.parametrize("content", [None, *GARBAGE])
def test_without_a_tree_what_carries_the_launch_is_ended(host: Host, content: str | None) -> None:
    bob, daemon, nameless = lost(host)
    if content is None:
        (host.state.path / "canary" / "trees.json").unlink()
    else:
        host.trees(content.replace("LAUNCH", bob.launch))
    assert host.end(bob, intent="clear") == 0
    assert not runs(daemon)
    assert runs(nameless)  # nothing proves whose it is
    assert host.report()["outcome"] == "ended"


def test_a_stop_ends_what_was_seen_of_the_launch_while_it_lived(host: Host) -> None:
    """Also where its server is there: a daemon with no environment is in nobody's tree any more."""
    bob, _, nameless = started(host)
    host.trees({bob.launch: [[*nameless, "sleep"]]})
    assert host.end(bob) == 0
    assert not runs(nameless)


def test_nothing_of_the_old_launch_lives_when_the_next_one_begins(fleet: Fleet) -> None:
    """A daemon outlives agent and server; the next launch begins after its end."""
    fleet.agent("bob")
    fleet.start()
    (was,) = fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    fleet.type("bob", "/daemon 600")
    shown = wait_for("a daemon", lambda: re.search(r"^daemon (\d+)", fleet.screen("bob"), re.MULTILINE))
    daemon = known(int(shown[1]))
    # circusd sees both of them gone: were it the agent first, it would clear up at once.
    assert fleet.circusd is not None
    fleet.circusd.send_signal(signal.SIGSTOP)
    os.kill(was["server_pid"], signal.SIGKILL)
    wait_for("both are gone", lambda: not alive(was["server_pid"]) and not alive(was["pid"]))
    fleet.circusd.send_signal(signal.SIGCONT)
    fleet.await_phase("bob", "down")
    assert runs(daemon)
    assert fleet.ctl("start", "bob").code == 0
    (now,) = fleet.await_up("bob")
    assert now["generation"] == 2
    assert not runs(daemon)
