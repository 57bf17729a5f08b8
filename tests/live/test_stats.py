"""`circusctl stats --extended` shows the agent's real process tree; Circus's own verbs work on agents."""

from __future__ import annotations

import pytest

from circus_failover.stats import tree_of
from tests.live.fleet import Fleet, wait_for


def with_a_child(fleet: Fleet, pid: int) -> list[int]:
    """Have `alpha`, of this pid, start a child, and return both pids; its launch script has children, too."""
    fleet.await_screen("alpha", "standin ready")
    fleet.type("alpha", "/child 300")
    fleet.await_screen("alpha", "\nchild ")
    tree = tree_of(pid)
    assert len(tree) == 2
    return tree


def test_extended_stats_are_those_of_the_agents_tree(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    tree = with_a_child(fleet, view["pid"])
    keeper = fleet.keeper("alpha")

    (info,) = fleet.call("stats", name="alpha", extended=True)["info"].values()
    assert info["pid"] == view["pid"]
    assert info["pids"] == tree
    assert [child["pid"] for child in info["children"]] == tree[1:]
    assert info["tree_rss"] > 1_000_000
    assert isinstance(info["tree_cpu"], (int, float))
    assert isinstance(info["mem"], (int, float))
    assert "standin" in " ".join(info["cmdline"]) or "python" in info["cmdline"]

    # Without --extended it is Circus's own: the keeper.
    (plain,) = fleet.call("stats", name="alpha")["info"].values()
    assert plain["pid"] == keeper


@pytest.mark.parametrize("program", ["circusctl", "failoverctl"])
def test_extended_stats_print_every_pid(fleet: Fleet, program: str) -> None:
    fleet.agent("alpha")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    tree = with_a_child(fleet, view["pid"])
    # circusctl takes options behind all names only (circus 0.19).
    shown = fleet.ctl("stats", "alpha", "--extended", program=program)
    assert shown.code == 0, shown
    for pid in tree:
        assert str(pid) in shown.out, shown.out
    other_way = fleet.ctl("stats", "--extended", "alpha")
    assert str(view["pid"]) in other_way.out


def test_stats_of_an_agent_that_does_not_run_are_empty(fleet: Fleet) -> None:
    fleet.agent("alpha", autostart="False")
    fleet.start()
    answer = fleet.call("stats", name="alpha", extended=True)
    assert answer["status"] == "ok"
    assert answer["info"] == {}


def test_extended_stats_after_the_agent_ended_do_not_fail(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__command="/bin/sh -c 'sleep 3600; true'")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    wait_for("its child", lambda: len(tree_of(view["pid"])) == 2)
    assert fleet.ctl("stop", "alpha", "--waiting").code == 0
    assert fleet.call("stats", name="alpha", extended=True)["status"] == "ok"
    assert fleet.call("stats", extended=True)["status"] == "ok"
