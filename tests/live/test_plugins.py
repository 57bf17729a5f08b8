"""The plugins on a real fleet: who is parked and who is left alone, who comes back and who is held."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from circus_failover import tmux
from circus_failover.records import PluginRow
from circus_failover.store import Store
from tests.live.fleet import Fleet, alive, wait_for

REAPER = "circus_failover.plugins.IdleReaper"
GUARD = "circus_failover.plugins.CrashLoopGuard"
CRASHES = "sh -c 'sleep 0.6; exit 1'"
NEVER = "3600"


def with_reaper(fleet: Fleet, **options: str) -> None:
    """Give the fleet an idle reaper that ticks often, and tells what it sees of every agent."""
    fleet.plugins["plugin:idle"] = {"use": REAPER, "interval": "0.5", **options}
    fleet.settings["log_verbose"] = True


def with_guard(fleet: Fleet, **options: str) -> None:
    fleet.plugins["plugin:guard"] = {"use": GUARD, "interval": "0.5", **options}


def said(fleet: Fleet, identity: str, **wanted: str) -> list[dict[str, str]]:
    """Return what the log says was found or done about an agent, as far as it is as wanted."""
    return [
        record
        for record in fleet.lifecycle()
        if record["ev"] == "supervise"
        and record["identity"] == identity
        and all(text in record[key] for key, text in wanted.items())
    ]


def await_said(fleet: Fleet, identity: str, **wanted: str) -> dict[str, str]:
    """Wait until the log says this of an agent, and return the first such record."""
    return wait_for(f"of {identity}: {wanted}", lambda: said(fleet, identity, **wanted), 40.0)[0]


def row(fleet: Fleet, plugin: str) -> PluginRow:
    """Return what a plugin last said of itself."""
    with fleet.store() as store:
        return store.plugins()[plugin]


def await_ticks(fleet: Fleet, plugin: str, number: int = 3) -> None:
    """Wait until a plugin has ticked so many times more: what a tick would do, it has done."""
    seen = {row(fleet, plugin).at}

    def look() -> bool:
        seen.add(row(fleet, plugin).at)
        return len(seen) > number

    wait_for(f"{number} more ticks of {plugin}", look)


def await_generation(fleet: Fleet, name: str, generation: int) -> None:
    """Wait until an agent is up in this launch."""
    wait_for(
        f"{name} is up in generation {generation}",
        lambda: (view := fleet.view(name))["phase"] == "up" and view["generation"] == generation,
    )


def causes(fleet: Fleet, name: str) -> list[str]:
    """Return why each launch of an agent was made, the first one first."""
    with fleet.store() as store:
        return [launch.cause for launch in reversed(store.launches(name))]


def by_hand(fleet: Fleet, use: str, pubsub: str, **options: str) -> subprocess.Popen[bytes]:
    """Start a plugin as Circus does."""
    given = ":::".join(f"{name}:{value}" for name, value in options.items())
    return subprocess.Popen(
        [
            *(sys.executable, "-c", "from circus import plugins;plugins.main()"),
            *("--endpoint", fleet.endpoint, "--pubsub", pubsub, "--config", given, use),
        ],
        env=fleet.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextlib.contextmanager
def a_person_looking_at(fleet: Fleet, name: str) -> Iterator[None]:
    """Attach a real client of tmux, on a terminal of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**fleet.environment, "TERM": "xterm"}
        argv = tmux.attach_arguments(fleet.socket(name), name)
        os.execvpe(argv[0], argv, environment)
    try:
        wait_for(
            "the client is attached",
            lambda: (
                fleet.tmux(fleet.socket(name), "list-clients", "-F", "#{client_pid}").split() == [str(pid)]
            ),
        )
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


# -- the idle reaper ----------------------------------------------------------------------------------


def test_an_idle_agent_is_parked_once_and_the_log_says_why(fleet: Fleet) -> None:
    with_reaper(fleet)
    fleet.agent("alpha", failover__idle_secs="2")
    fleet.start()
    fleet.await_phase("alpha", "parked")
    with fleet.store() as store:
        agent = store.agent("alpha")
    assert agent is not None and (agent.parked_by, agent.generation) == ("idle-reaper", 1)
    (record,) = said(fleet, "alpha", action="reaped-idle")
    assert float(record["age"]) > 2 and record["outcome"] == "fresh-next-wake"
    assert "failover.idle_secs is 2" in record["evidence"]
    before = said(fleet, "alpha", action="alive", outcome="young")
    assert before, "it was looked at before it had been idle for long enough"


def test_an_agent_whose_tool_still_runs_is_left_alone_until_it_has_ended(fleet: Fleet) -> None:
    with_reaper(fleet)
    fleet.agent("alpha", failover__idle_secs="2")
    fleet.agent("bravo", failover__idle_secs="2")
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
    fleet.agent("alpha", failover__idle_secs="2")
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
    wait_for("the reaper's first and only tick", lambda: row(fleet, "IdleReaper").ticks)

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
    fleet.agent("alpha", failover__idle_secs="6")
    fleet.start()
    fleet.await_up("alpha")
    wait_for("the reaper has ticked", lambda: json.loads(row(fleet, "IdleReaper").detail)["clock"])
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
    assert 6 < float(record["age"]) < time.time() - resumed + 1
    await_said(fleet, "", outcome="counted-anew")


# -- the crash-loop guard -------------------------------------------------------------------------------


def test_an_agent_that_was_killed_comes_back_if_it_is_always_to_run_and_else_does_not(fleet: Fleet) -> None:
    with_guard(fleet)
    fleet.agent("alpha", failover__restart="lazy")
    fleet.agent("bravo", failover__restart="on-work")
    fleet.agent("charlie", failover__restart="always")
    fleet.start()
    views = fleet.await_up("alpha", "bravo", "charlie")
    for view in views[:2]:
        os.kill(view["pid"], signal.SIGKILL)
        fleet.await_phase(view["identity"], "down")
    os.kill(views[2]["pid"], signal.SIGKILL)
    await_generation(fleet, "charlie", 2)
    assert causes(fleet, "charlie") == ["first-start", "restart-policy"]
    with fleet.store() as store:
        assert store.launches("charlie")[0].asked_by == "crash-loop-guard"
    await_ticks(fleet, "CrashLoopGuard")
    for name in ("alpha", "bravo"):
        assert fleet.view(name)["phase"] == "down" and causes(fleet, name) == ["first-start"]


def test_a_death_is_reacted_to_without_a_tick(fleet: Fleet) -> None:
    with_guard(fleet, interval=NEVER)
    fleet.agent("alpha", failover__restart="always")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    wait_for("the guard's first and only tick", lambda: row(fleet, "CrashLoopGuard").ticks)
    os.kill(view["pid"], signal.SIGKILL)
    await_generation(fleet, "alpha", 2)
    assert row(fleet, "CrashLoopGuard").ticks <= 2


def test_an_agent_that_was_parked_or_stopped_stays_down_whatever_its_restart_policy(fleet: Fleet) -> None:
    with_guard(fleet)
    fleet.agent("alpha", failover__restart="always")
    fleet.agent("bravo", failover__restart="always")
    fleet.start()
    fleet.await_up("alpha", "bravo")
    assert fleet.ctl("park", "alpha").code == 0
    assert fleet.ctl("stop", "bravo").code == 0
    fleet.await_phase("alpha", "parked")
    fleet.await_phase("bravo", "stopped")
    await_ticks(fleet, "CrashLoopGuard")
    assert causes(fleet, "alpha") == causes(fleet, "bravo") == ["first-start"]
    assert fleet.view("alpha")["phase"] == "parked" and fleet.view("bravo")["phase"] == "stopped"


def test_an_agent_that_crashes_again_and_again_is_held_and_tried_once_when_its_time_has_come(
    fleet: Fleet,
) -> None:
    with_guard(fleet)
    fleet.agent("alpha", failover__command=CRASHES, failover__restart="always", failover__crash_max="3")
    fleet.start()
    fleet.await_phase("alpha", "held", 30)
    assert causes(fleet, "alpha") == ["first-start", "restart-policy", "restart-policy"]
    await_ticks(fleet, "CrashLoopGuard")
    assert len(causes(fleet, "alpha")) == 3

    # It is held for 30 s; they pass while circusd is down.
    fleet.end()
    store = Store(fleet.state / "failover.db")
    agent = store.agent("alpha")
    assert agent is not None and agent.loop == "open" and agent.loop_until is not None
    with store.decision(durable=True):
        store.put_agent(replace(agent, loop_until=time.time() - 1))
    store.close()
    fleet.start()
    await_said(fleet, "alpha", action="half-open")
    wait_for("the trial has failed", lambda: len(said(fleet, "alpha", action="held")) == 2)
    fleet.await_phase("alpha", "held")
    assert len(causes(fleet, "alpha")) == 4
    with fleet.store() as reader:
        agent = reader.agent("alpha")
    assert agent is not None and (agent.loop, agent.loop_failures) == ("open", 1)


def test_after_a_mass_death_relaunches_go_one_by_one_and_stop_with_one_alert(fleet: Fleet) -> None:
    with_guard(fleet)
    for name in ("alpha", "bravo", "charlie"):
        fleet.agent(name, failover__command=CRASHES, failover__restart="always", failover__crash_max="50")
    fleet.start()
    await_said(fleet, "", action="error", outcome="relaunches-stopped")
    await_ticks(fleet, "CrashLoopGuard")
    again = [cause for name in ("alpha", "bravo", "charlie") for cause in causes(fleet, name)[1:]]
    assert again == ["restart-policy"] * 3
    assert "relaunches in a row failed" in json.loads(row(fleet, "CrashLoopGuard").detail)["alert"]

    with fleet.store() as store:
        lives = [launch for name in ("alpha", "bravo", "charlie") for launch in store.launches(name)]
    ordered = sorted(
        (life for life in lives if life.cause == "restart-policy"), key=lambda life: life.started_at
    )
    for before, after in zip(ordered, ordered[1:], strict=False):
        assert before.ended_at is not None and before.ended_at < after.started_at

    restarted(fleet, "plugin:guard", "CrashLoopGuard")
    await_ticks(fleet, "CrashLoopGuard")
    assert len(said(fleet, "", outcome="relaunches-stopped")) == 1


# -- every plugin -----------------------------------------------------------------------------------------


def restarted(fleet: Fleet, watcher: str, plugin: str) -> None:
    """Kill a plugin, and wait until its successor has ticked."""
    (pid,) = fleet.call("list", name=watcher)["pids"]
    os.kill(pid, signal.SIGKILL)
    wait_for("its successor ticks", lambda: row(fleet, plugin).pid != pid)


def test_a_plugin_that_is_killed_is_started_again_and_goes_on(fleet: Fleet) -> None:
    with_reaper(fleet)
    with_guard(fleet)
    fleet.agent("alpha", failover__idle_secs="4")
    fleet.agent("bravo", failover__idle_secs="0", failover__restart="always")
    fleet.start()
    _, bravo = fleet.await_up("alpha", "bravo")
    restarted(fleet, "plugin:idle", "IdleReaper")
    restarted(fleet, "plugin:guard", "CrashLoopGuard")
    os.kill(bravo["pid"], signal.SIGKILL)
    fleet.await_phase("alpha", "parked")
    await_generation(fleet, "bravo", 2)


def test_what_a_plugin_did_is_in_the_store_for_doctor(fleet: Fleet) -> None:
    with_reaper(fleet)
    with_guard(fleet)
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    for name, watcher in (("IdleReaper", "plugin:idle"), ("CrashLoopGuard", "plugin:guard")):
        await_ticks(fleet, name)
        found = row(fleet, name)
        assert [found.pid] == fleet.call("list", name=watcher)["pids"]
        assert (found.interval, found.errors, found.last_error) == (0.5, 0, None)
        assert found.ticks > 1 and 0 < found.secs < found.interval


def test_with_the_event_stream_cut_the_ticks_come_to_the_same_result(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__idle_secs="2")
    fleet.agent("bravo", failover__idle_secs="0", failover__restart="always")
    fleet.start()
    _, bravo = fleet.await_up("alpha", "bravo")
    nobody = f"ipc://{fleet.folder}/nobody"
    plugins = [by_hand(fleet, use, nobody, interval="0.5", name="by-hand") for use in (REAPER, GUARD)]
    try:
        os.kill(bravo["pid"], signal.SIGKILL)
        fleet.await_phase("alpha", "parked")
        await_generation(fleet, "bravo", 2)
    finally:
        for plugin in plugins:
            plugin.kill()
            plugin.wait()


def test_a_plugin_that_circusd_does_not_answer_asks_again_at_the_next_tick(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__idle_secs="2")
    fleet.write()
    reaper = by_hand(fleet, REAPER, fleet.pubsub, interval="0.5", config=str(fleet.yaml))
    try:
        fleet.start()
        fleet.await_up("alpha")
        assert fleet.circusd is not None
        wait_for("the reaper ticks", lambda: row(fleet, "IdleReaper").pid == reaper.pid)
        fleet.end(signal.SIGKILL)
        fleet.start()
        fleet.await_phase("alpha", "parked", 40)
        assert reaper.poll() is None
        wait_for("it says what failed", lambda: "did not answer" in str(row(fleet, "IdleReaper").last_error))
    finally:
        reaper.kill()
        reaper.wait()


def test_an_option_that_makes_no_sense_is_named_and_the_plugin_runs_with_its_default(fleet: Fleet) -> None:
    fleet.plugins["plugin:guard"] = {"use": GUARD, "interval": "often", "colour": "red"}
    fleet.agent("alpha", failover__restart="always")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    for mistake in ("interval = 'often': expected seconds", "colour = 'red': expected one of the options"):
        await_said(fleet, "", action="error", outcome="default-used", evidence=f"[plugin:guard] {mistake}")
    assert row(fleet, "CrashLoopGuard").interval == 1.0
    os.kill(view["pid"], signal.SIGKILL)
    await_generation(fleet, "alpha", 2)


def test_a_store_that_is_replaced_or_cannot_be_read_is_said_and_opened_anew(fleet: Fleet) -> None:
    with_guard(fleet, config=str(fleet.yaml))
    fleet.agent("alpha", failover__restart="always")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    await_ticks(fleet, "CrashLoopGuard", 1)
    fleet.end()
    path = fleet.state / "failover.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o600)
    guard = by_hand(fleet, GUARD, fleet.pubsub, interval="0.5", config=str(fleet.yaml))
    try:
        fleet.plugins.clear()
        copy.rename(path)
        fleet.start()
        fleet.await_up("alpha")
        os.kill(view["pid"], signal.SIGKILL)
        await_generation(fleet, "alpha", 2)
    finally:
        guard.kill()
        guard.wait()
