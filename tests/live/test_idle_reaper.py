"""The idle reaper on a real fleet: who is parked, and who is left alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import replace

from circus_failover import process_table
from circus_failover.store import Store
from tests.live.fleet import Fleet, alive, wait_for
from tests.live.with_plugins import (
    NEVER,
    a_person_looking_at,
    await_said,
    await_ticks,
    causes,
    row,
    said,
    with_guard,
    with_reaper,
)


def test_an_idle_agent_is_parked_once_and_the_log_says_why(fleet: Fleet) -> None:
    with_reaper(fleet)
    fleet.agent("alpha", failover__idle_secs="2", autostart="False")
    fleet.start()
    row(fleet, "IdleReaper")  # else it may come to look only when the agent has been idle for long enough
    assert fleet.ctl("start", "alpha").code == 0
    fleet.await_phase("alpha", "parked")
    with fleet.store() as store:
        agent = store.agent("alpha")
    assert agent is not None and (agent.parked_by, agent.generation) == ("idle-reaper", 1)
    (record,) = said(fleet, "alpha", action="reaped-idle")
    assert float(record["age"]) >= 2 and record["outcome"] == "fresh-next-wake"
    assert "failover.idle_secs is 2" in record["evidence"]
    before = said(fleet, "alpha", action="alive", outcome="young")
    assert before, "it was looked at before it had been idle for long enough"


def test_an_agent_whose_tool_still_runs_is_left_alone_until_it_has_ended(fleet: Fleet) -> None:
    with_reaper(fleet)
    # What it starts before it is up is no tool; what is typed then comes before it is idle for too long.
    fleet.agent("alpha", failover__idle_secs="4")
    fleet.agent("bravo", failover__idle_secs="4")
    fleet.start()
    fleet.await_up("alpha", "bravo")
    fleet.type("alpha", "/child 600")
    fleet.type("bravo", "/daemon 600")
    tools = [int(fleet.await_screen(name, kind).split(kind)[-1].split()[0]) for name, kind in TOOLS]
    for name, _ in TOOLS:
        await_said(fleet, name, outcome="busy", evidence="running processes of tools: 1")
        assert fleet.view(name)["phase"] == "up"
    for tool in tools:
        os.kill(tool, signal.SIGKILL)
    for name, _ in TOOLS:
        fleet.await_phase(name, "parked")


TOOLS = (("alpha", "\nchild "), ("bravo", "\ndaemon "))


def test_an_agent_that_somebody_looks_at_is_left_alone_and_counts_anew_when_they_leave(fleet: Fleet) -> None:
    with_reaper(fleet)
    fleet.agent("alpha", failover__idle_secs="4")
    fleet.start()
    fleet.await_up("alpha")
    with a_person_looking_at(fleet, "alpha"):
        await_said(fleet, "alpha", outcome="busy", evidence="attached clients: 1")
        assert fleet.view("alpha")["phase"] == "up"
    fleet.await_phase("alpha", "parked", 30)
    records = said(fleet, "alpha")
    last_look = max(n for n, record in enumerate(records) if "attached clients" in record["evidence"])
    after = [record["outcome"] for record in records[last_look + 1 :]]
    assert after[0] == "young", after


def test_an_agent_that_is_never_idle_by_its_settings_is_never_parked(fleet: Fleet) -> None:
    with_reaper(fleet)
    fleet.agent("alpha", failover__idle_secs="0")
    fleet.agent("bravo", failover__idle_secs="2")
    fleet.start()
    fleet.await_phase("bravo", "parked")
    await_said(fleet, "alpha", outcome="leave", evidence="failover.idle_secs and failover.max_age_secs are 0")
    assert fleet.view("alpha")["phase"] == "up"


def test_a_dry_run_says_once_what_it_would_do_and_does_nothing(fleet: Fleet) -> None:
    with_reaper(fleet, dry_run="true")
    with_guard(fleet, dry_run="true")
    fleet.agent("alpha", failover__idle_secs="2")
    fleet.agent("bravo", failover__idle_secs="0", failover__restart="always")
    fleet.start()
    fleet.await_up("alpha", "bravo")
    fleet.type("bravo", "/crash")
    await_said(fleet, "alpha", action="reaped-idle", outcome="dry-run", evidence="failover.idle_secs is 2")
    await_said(fleet, "bravo", action="respawn", outcome="dry-run", evidence="always: ")
    await_ticks(fleet, "IdleReaper")
    await_ticks(fleet, "CrashLoopGuard")
    assert len(said(fleet, "alpha", action="reaped-idle")) == 1
    assert len(said(fleet, "bravo", action="respawn")) == 1
    assert fleet.view("alpha")["phase"] == "up" and fleet.view("bravo")["phase"] == "down"


def test_an_observed_agent_is_only_looked_at(fleet: Fleet) -> None:
    with_reaper(fleet)
    with_guard(fleet)
    pid = fleet.by_hand(fleet.folder / "theirs.sock", "theirs")
    fleet.agent(
        "alpha",
        failover__mode="observe",
        failover__socket=str(fleet.folder / "theirs.sock"),
        failover__session="theirs",
        failover__idle_secs="2",
        failover__restart="always",
    )
    fleet.agent("bravo", failover__idle_secs="2")
    fleet.start()
    fleet.await_phase("bravo", "parked")
    await_said(fleet, "alpha", action="skipped-observe", outcome="leave")
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for("it is seen to be gone", lambda: fleet.view("alpha")["pid"] is None)
    await_ticks(fleet, "CrashLoopGuard")
    assert fleet.view("alpha")["phase"] == "observed" and causes(fleet, "alpha") in ([], ["observed"])


def test_a_server_that_does_not_answer_costs_the_other_agents_nothing(fleet: Fleet) -> None:
    with_reaper(fleet)
    fleet.agent("alpha", failover__idle_secs="5")  # its server is stopped before that is over
    fleet.agent("bravo", failover__idle_secs="2")
    fleet.agent("charlie", failover__idle_secs="2")
    fleet.start()
    stopped = fleet.await_up("alpha", "bravo", "charlie")[0]["server_pid"]
    os.kill(stopped, signal.SIGSTOP)
    fleet.await_phase("bravo", "parked")
    fleet.await_phase("charlie", "parked")
    await_said(fleet, "alpha", action="error", outcome="left-alone", evidence="did not answer")
    await_ticks(fleet, "IdleReaper")
    assert len(said(fleet, "alpha", action="error")) == 1
    assert fleet.view("alpha")["phase"] == "up"
    assert row(fleet, "IdleReaper").errors == 0
    os.kill(stopped, signal.SIGCONT)
    fleet.await_phase("alpha", "parked", 30)


def test_an_event_about_an_idle_agent_has_it_looked_at_without_a_tick(fleet: Fleet) -> None:
    with_reaper(fleet, interval=NEVER)
    fleet.agent("alpha", failover__idle_secs="2")
    fleet.start()
    fleet.await_up("alpha")
    assert row(fleet, "IdleReaper").ticks <= 2

    def shaken() -> bool:
        if fleet.view("alpha")["phase"] != "up":
            return True
        with contextlib.suppress(ValueError, ProcessLookupError):
            os.kill(fleet.keeper("alpha"), signal.SIGKILL)  # Circus tells about its end and its successor
        return False

    wait_for("an event came when it was idle", shaken, 40)
    fleet.await_phase("alpha", "parked")


def test_idle_time_counts_anew_after_a_suspend_that_the_reaper_did_not_live_through(fleet: Fleet) -> None:
    with_reaper(fleet, config=str(fleet.yaml))
    fleet.agent("alpha", failover__idle_secs="6", autostart="False")
    fleet.start()
    wait_for("the reaper has ticked", lambda: json.loads(row(fleet, "IdleReaper").detail)["clock"])
    assert fleet.ctl("start", "alpha").code == 0
    fleet.await_up("alpha")
    fleet.await_screen("alpha", "standin ready")
    fleet.end()
    store = Store(fleet.state / "failover.db")
    found = store.plugins()["IdleReaper"]
    detail = json.loads(found.detail)
    detail["clock"][0] -= 3600.0  # in the meantime the wall clock went on for an hour, the other one did not
    with store.decision(durable=True):
        store.put_plugin(replace(found, detail=json.dumps(detail)))
    store.close()
    moved = os.stat(fleet.tmux(fleet.socket("alpha"), "display-message", "-p", "#{pane_tty}").strip())
    wait_for("its terminal was quiet for longer than it may be", lambda: time.time() - moved.st_mtime > 15)
    fleet.start()
    resumed = time.time()
    fleet.await_phase("alpha", "parked", 30)
    await_said(fleet, "alpha", action="alive", outcome="young")
    (record,) = said(fleet, "alpha", action="reaped-idle")
    assert 6 <= float(record["age"]) < time.time() - resumed + 1
    await_said(fleet, "", outcome="counted-anew")


def test_an_agent_that_is_too_old_is_parked_when_it_has_been_quiet_for_a_minute(fleet: Fleet) -> None:
    with_reaper(fleet)
    for name in ("old", "busy"):
        fleet.agent(name, failover__idle_secs="0", failover__max_age_secs="600")
    fleet.start()
    views = dict(zip(("old", "busy"), fleet.await_up("old", "busy"), strict=True))
    for name in views:
        fleet.await_screen(name, "standin ready")
    # They were launched an hour ago, and one of them has printed nothing for as long.
    fleet.end()
    then = time.time() - 3600
    store = Store(fleet.state / "failover.db")
    with store.decision(durable=True):
        for row_ in store.agents().values():
            store.put_agent(replace(row_, ready_at=then, since=then))
    store.close()
    terminal = process_table.terminal(views["old"]["pid"])
    assert terminal is not None
    os.utime(terminal, (then, then))
    fleet.start()
    fleet.await_phase("old", "parked")
    (record,) = said(fleet, "old", action="reaped-idle")
    assert "failover.max_age_secs is 600" in record["evidence"]
    await_ticks(fleet, "IdleReaper")
    assert fleet.view("busy")["phase"] == "up"
