"""The plugin that looks whether agents get on with their work: what it asks for, and what it says once."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from circus_failover.plugins import Heartbeat

from circus_failover import agent_health, heartbeats, process_table
from circus_failover.agent import Agent
from circus_failover.agent_health import Seen
from circus_failover.agents.claude import ClaudeRuntime
from circus_failover.fleet_file import ENROL
from circus_failover.heartbeats import Heard
from circus_failover.idle_evidence import Terminals
from circus_failover.plugin import Refused
from circus_failover.plugin_input import Event
from circus_failover.policy.health import Health
from circus_failover.process_table import ProcessId
from circus_failover.records import AgentRow, AssignmentRow, PluginRow, TaskRow
from circus_failover.store import Reader, Store, open_reader
from circus_failover.validation import validate
from circus_failover.words import Phase, State

HERE = process_table.identify(os.getpid())
POLICY = {
    "mode": "manage",
    "restart": "on-work",
    "idle_secs": 0,
    "max_age_secs": 0,
    "crash_max": 3,
    "crash_window_secs": 300,
    "stable_secs": 300,
    "grace_secs": 300,
    "nudge_secs": 900,
    "stuck_secs": 1800,
    "progress_secs": 1800,
    "nudge_no_progress": False,
    "queue_max_age_secs": 3600,
}


class Heart(Heartbeat):
    """The plugin, with what it asks circusd written down instead of sent."""

    def __init__(self, **options: str) -> None:
        super().__init__("ipc:///nowhere/ctl", "ipc:///nowhere/pub", 1.0, **options)
        self.asked: list[dict[str, Any]] = []
        self.wedged: list[str] = []
        self.refuses: str | None = None

    def ask(self, verb: str, **properties: Any) -> dict[str, Any]:
        self.asked.append({"verb": verb, **properties})
        if self.refuses is not None and verb != "beats":
            raise Refused(self.refuses)
        return {"status": "ok", "wedged": self.wedged}

    def take(self) -> list[str]:
        """Return the verbs that were asked since the last time, but for the heartbeats themselves."""
        asked, self.asked = self.asked, []
        return [each["verb"] for each in asked if each["verb"] != "beats"]

    def found(self) -> list[tuple[str, str]]:
        """Return what was found since the last time: action and outcome."""
        findings, self._findings = self._findings, []
        return [(finding["action"], finding["outcome"]) for finding in findings]


class Ground:
    """A store with one agent that has had work for hours: this test's own process stands for it."""

    def __init__(self, folder: Path) -> None:
        assert HERE is not None
        self.folder, self.beat, now = folder, folder / "beat", time.time()
        self.row = AgentRow(
            "bob",
            phase="up",
            generation=3,
            launch="l3",
            pid=HERE.pid,
            pid_start=HERE.start,
            boot=process_table.boot_id(),
            runtime="command",
            launched_at=now - 9000,
            ready_at=now - 8990,
            last_task=now - 8000,
        )
        self.work: AssignmentRow | None = AssignmentRow(
            1,
            "w1",
            "do it",
            "ann",
            now - 8100,
            owner="bob",
            state="working",
            generation=3,
            delivered_at=now - 8000,
            working_at=now - 7900,
        )
        self.promises(True)

    def promises(self, contract: bool, **settings: Any) -> None:
        """Set what the agent's settings say."""
        heartbeat = str(self.beat) if contract else None
        self.row = replace(self.row, policy=json.dumps({**POLICY, "heartbeat": heartbeat, **settings}))

    def beats(self, ago: float) -> None:
        """Let it have beaten so many seconds ago."""
        self.beat.touch()
        os.utime(self.beat, (time.time() - ago,) * 2)

    def store(self, *tasks: TaskRow, looked: float | None = None) -> Reader:
        """Store what there is, and open it as a plugin does."""
        store = Store(self.folder / "failover.db")
        with store.decision(durable=False):
            store.put_agent(self.row)
            if self.work is not None and store.assignment(self.work.id) is None:
                store.add_assignment(self.work)
            for task in tasks:
                store.add_task(task)
            if looked is not None:
                store.put_plugin(PluginRow("AgentStates", 1, looked, 0.1, 2.0))
        store.close()
        return open_reader(self.folder / "failover.db")


def tick(heart: Heart, store: Reader) -> list[str]:
    asyncio.run(heart.tick(store))
    return heart.take()


class Still(Terminals):
    """Terminals that have not moved for so many seconds."""

    def __init__(self, ago: float) -> None:
        super().__init__()
        self.moved = time.time() - ago

    def last_activity(self, process: ProcessId, now: float) -> float | None:
        return self.moved


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_one_whose_heart_stops_is_nudged_once_and_ended_when_that_does_not_help(ground: Ground) -> None:
    heart = Heart()
    ground.beats(10)
    assert tick(heart, ground.store()) == []
    ground.beats(901)
    asyncio.run(heart.tick(ground.store()))
    (nudge,) = [each for each in heart.asked if each["verb"] == "nudge"]
    assert (nudge["name"], nudge["generation"], nudge["assignment"]) == ("bob", 3, "w1")
    assert nudge["age"] > 900 and "failover.nudge_secs is 900" in nudge["evidence"]
    heart.take()
    assert tick(heart, ground.store()) == []
    ground.beats(1801)
    asyncio.run(heart.tick(ground.store()))
    (end,) = [each for each in heart.asked if each["verb"] == "end-stuck"]
    assert (end["generation"], end["pid"], end["pid_start"]) == (3, *(HERE or ()))
    assert end["beat"] == os.stat(ground.beat).st_mtime and end["assignment"] == "w1"
    shown = [each["agents"][0]["stuck"] for each in heart.asked if each["verb"] == "beats"]
    assert shown == [False, True], "it shows before it is ended"
    assert heart.found() == []


def test_no_episode_begins_anew_with_the_plugin(ground: Ground) -> None:
    first, second = Heart(), Heart()
    ground.beats(901)
    assert tick(first, ground.store()) == ["nudge"]
    second.remember(json.loads(json.dumps(first.remembered())))
    assert tick(second, ground.store()) == []
    ground.row = replace(ground.row, generation=4)
    assert ground.work is not None
    ground.work = replace(ground.work, id="w2", generation=4)
    assert tick(second, ground.store()) == ["nudge"], "another launch is another episode"


def test_what_it_remembers_of_another_boot_of_the_host_means_nothing(ground: Ground) -> None:
    heart = Heart()
    told: dict[str, Any] = {"told": {"bob": [3, []]}, "queued": []}
    heart.remember({"boot": "another", "clock": [0.0, 0.0], "floor": 0.0, **told})
    ground.beats(901)
    assert tick(heart, ground.store()) == ["nudge"]


def test_a_suspend_that_the_plugin_did_not_live_through_makes_nobody_look_stuck(ground: Ground) -> None:
    heart = Heart()
    tick(heart, ground.store())
    detail = heart.remembered()
    detail["clock"][0] -= 7200.0  # in the meantime the wall clock went on, the other one did not
    again = Heart()
    again.remember(detail)
    ground.beats(1801)
    assert tick(again, ground.store()) == []
    assert again.found() == [("alive", "counted-anew")]


def test_a_dry_run_shows_who_is_stuck_and_says_once_what_it_would_do(ground: Ground) -> None:
    heart = Heart(dry_run="true")
    ground.beats(1801)
    for _ in range(2):
        assert tick(heart, ground.store()) == []
    assert heart.found() == [("stuck", "dry-run")]
    asyncio.run(heart.tick(ground.store()))
    (told,) = heart.asked
    assert told["agents"][0]["stuck"]
    assert re.search(r"no heartbeat for 18\d\d[. ]", told["agents"][0]["evidence"])
    ground.beats(901)
    assert tick(heart, ground.store()) == [] and heart.found() == [("nudged", "dry-run")]


def test_a_refusal_is_said_once_and_asked_again(ground: Ground) -> None:
    heart = Heart()
    heart.refuses = "it has beaten since"
    ground.beats(1801)
    assert tick(heart, ground.store()) == tick(heart, ground.store()) == ["end-stuck"]
    assert heart.found() == [("error", "not-ended")]
    ground.beats(901)
    assert tick(heart, ground.store()) == tick(heart, ground.store()) == ["nudge"]
    assert heart.found() == [("error", "not-nudged")]


@pytest.mark.parametrize(
    "change",
    [
        lambda ground: setattr(ground, "work", None),
        lambda ground: setattr(ground, "work", replace(ground.work, generation=2)),
        lambda ground: setattr(ground, "work", replace(ground.work, state="queued")),
        lambda ground: setattr(ground, "row", replace(ground.row, boot="another")),
        lambda ground: setattr(ground, "row", replace(ground.row, pid=1)),
        lambda ground: setattr(ground, "row", replace(ground.row, phase="stopping")),
        lambda ground: setattr(ground, "row", replace(ground.row, ready_at=time.time() - 100)),
        lambda ground: setattr(ground, "row", replace(ground.row, launch=None)),
        lambda ground: ground.promises(False),
        lambda ground: ground.promises(True, mode="observe"),
        lambda ground: ground.promises(True, nudge_secs=0, stuck_secs=0),
    ],
    ids=[
        *("no work", "work of an earlier launch", "work that it has not taken", "another boot"),
        *("another process", "its end is under way", "just ready", "started by somebody else"),
        *("no contract", "observed", "thresholds of 0"),
    ],
)
def test_whoever_owes_no_beat_is_left_alone(ground: Ground, change: Any) -> None:
    ground.beats(5000)
    change(ground)
    assert tick(Heart(), ground.store()) == []


def test_one_whose_tmux_server_does_not_answer_is_left_alone(ground: Ground) -> None:
    heart = Heart()
    heart.wedged = ["bob"]
    ground.beats(5000)
    assert tick(heart, ground.store()) == [] and heart.found() == []


def test_a_heartbeat_that_cannot_be_looked_at_leads_to_nothing_and_is_said_once(ground: Ground) -> None:
    heart = Heart()
    (ground.folder / "file").touch()
    ground.beat = ground.folder / "file" / "beat"
    ground.promises(True)
    for _ in range(2):
        assert tick(heart, ground.store()) == []
    assert heart.found() == [("error", "left-alone")]


def test_a_question_is_told_at_once_and_once(ground: Ground) -> None:
    heart = Heart()
    assert heart.concerns(Event("bob", "agent", state="waiting"))
    assert not heart.concerns(Event("bob", "agent", state="working"))
    assert ground.row.process is not None
    seen = Seen(3, ground.row.process, time.time(), 2.0, Health(State.WAITING, what="permission: Bash"))
    ground.row = replace(ground.row, runtime="claude", health=agent_health.text(seen))
    ground.beats(5000)
    store = ground.store(looked=time.time())
    asyncio.run(heart.react(store, ["bob", "nobody"]))
    (found,) = heart._findings
    assert (found["action"], found["evidence"]) == ("waiting", "permission: Bash")
    heart.found()
    assert tick(heart, store) == [] and heart.found() == []


def test_a_client_that_tells_is_looked_at_before_anything_is_done(ground: Ground) -> None:
    """Its home is not known here, so nothing can be seen of it: and nothing follows."""
    ground.row = replace(ground.row, runtime="claude")
    ground.beats(5000)
    assert tick(Heart(), ground.store()) == []


def test_no_progress_and_silence_are_told_once_each_and_nobody_is_ended_for_them(ground: Ground) -> None:
    ground.promises(False)
    for ago, told in ((901, "silent"), (1801, "no-progress")):
        heart = Heart()
        heart._terminals = Still(ago)
        assert tick(heart, ground.store()) == [] and heart.found() == [(told, "left-alone")]
        assert tick(heart, ground.store()) == [] and heart.found() == []
    ground.promises(False, nudge_no_progress=True)
    nudging = Heart()
    nudging._terminals = Still(1801)
    assert tick(nudging, ground.store()) == ["nudge"]
    (found,) = nudging._findings
    assert (found["action"], found["outcome"], found["notice"]) == ("no-progress", "nudged", "no-progress")


def test_what_has_been_queued_for_too_long_is_told_once_each(ground: Ground) -> None:
    heart, now = Heart(), time.time()
    ground.work = AssignmentRow(1, "w1", "do it", "ann", now - 3700, pool="some", state="queued")
    task = TaskRow(0, "bob", "look", None, "ann", now - 3601)
    late = ground.store(task, replace(task, queued_at=now - 10), replace(task, kind="assignment"))
    assert tick(heart, late) == []
    told = {finding["evidence"].partition(": ")[2] for finding in heart._findings}
    assert told == {"task 1", "assignment w1"}
    assert {finding["notice"] for finding in heart._findings} == {"queued-long"}
    heart.found()
    again = Heart()
    again.remember(heart.remembered())
    assert tick(again, late) == [] and again.found() == []


# -- on its way to circusd -------------------------------------------------------------------------------


def test_what_was_found_of_a_heartbeat_reaches_circusd_as_it_was() -> None:
    found = Heard("bob", 3, ProcessId(4, 5), 1000.5, stuck=True, evidence="late", told_at=7.0, interval=9.0)
    said = json.loads(json.dumps(heartbeats.told(found)))
    assert heartbeats.heard(said, 7.0, 9.0) == found
    for name, wrong in [
        *(("identity", 3), ("generation", True), ("pid", -1), ("pid_start", "5"), ("at", float("nan"))),
        *(("at", "now"), ("stuck", 1), ("evidence", None)),
    ]:
        assert heartbeats.heard({**said, name: wrong}, 7.0, 15.0) is None, name
    assert heartbeats.heard(["bob"], 7.0, 15.0) is None


def test_a_heartbeat_that_is_not_there_is_none_and_one_behind_a_file_is_a_failed_look(tmp_path: Path) -> None:
    assert heartbeats.read(tmp_path / "none") == heartbeats.Beat()
    (tmp_path / "file").touch()
    assert heartbeats.read(tmp_path / "file" / "beat").failed
    assert heartbeats.read(tmp_path / "file").at == (tmp_path / "file").stat().st_mtime


def test_an_agent_is_shown_as_stuck_for_as_long_as_the_plugin_says_so() -> None:
    assert HERE is not None
    row = AgentRow("bob", phase=str(Phase.UP), generation=3, pid=HERE.pid, pid_start=HERE.start)
    heard = Heard("bob", 3, HERE, 1000.0, stuck=True, evidence="silent", told_at=time.time(), interval=15.0)
    agent = Agent(None, "bob", row, heard=heard)
    view = agent.view(None)
    assert (view["state"], view["heartbeat_at"], view["state_evidence"]) == ("stuck", 1000.0, "silent")
    for other in (
        *(replace(heard, stuck=False), replace(heard, generation=2), replace(heard, process=ProcessId(1, 1))),
        replace(heard, told_at=time.time() - 60),
    ):
        assert Agent(None, "bob", row, heard=other).state() is State.UNKNOWN
    wedged = Agent(None, "bob", row, heard=heard, wedged=True)
    assert wedged.state() is State.WEDGED


# -- thresholds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, variables, secs",
    [
        (None, {}, 600.0),
        (None, {"BASH_MAX_TIMEOUT_MS": "2400000"}, 2400.0),
        (None, {"BASH_MAX_TIMEOUT_MS": "1000"}, 120.0),
        (None, {"BASH_DEFAULT_TIMEOUT_MS": "900000"}, 900.0),
        (None, {"BASH_MAX_TIMEOUT_MS": "soon", "BASH_DEFAULT_TIMEOUT_MS": "0"}, 600.0),
        ('{"env": {"BASH_MAX_TIMEOUT_MS": "7200000"}}', {"BASH_MAX_TIMEOUT_MS": "1"}, 7200.0),
        ('{"env": 3}', {}, 600.0),
    ],
)
def test_a_claude_may_be_silent_for_as_long_as_its_longest_command(
    tmp_path: Path, settings: str | None, variables: dict[str, str], secs: float
) -> None:
    if settings is not None:
        (tmp_path / "settings.json").write_text(settings)
    found = ClaudeRuntime().longest_wait(tmp_path, variables)
    assert found is not None and found.secs == secs


def said_of(folder: Path, lines: str, plugin: str = "", more: str = "") -> list[str]:
    """Return what validate says of one agent with these lines, in the order of its options."""
    (folder / "failover.yaml").write_text(f"state_dir: state\nshared: {{root: shared}}\n{more}")
    text = "[env]\nFAILOVER_CONFIG = failover.yaml\n"
    if plugin:
        text += f"[plugin:heart]\nuse = circus_failover.plugins.Heartbeat\ninterval = {plugin}\n"
    text += f"[watcher:bob]\ncmd = failover-session\nhooks.before_start = {ENROL}\n"
    text += f"failover.command = run\n{lines}\n"
    (folder / "circus.ini").write_text(text)
    return [str(problem).partition(": ")[2] for problem in validate(folder / "circus.ini").problems]


def test_thresholds_that_cannot_be_right_are_refused_with_what_is_expected(tmp_path: Path) -> None:
    contract = "failover.heartbeat = self\n"
    assert said_of(tmp_path, contract) == []
    assert said_of(tmp_path, "failover.stuck_secs = 5") == [], "without a contract none of them ends anybody"
    assert said_of(tmp_path, contract + "failover.stuck_secs = 0\nfailover.nudge_secs = 0", "300") == []
    (said,) = said_of(tmp_path, contract + "failover.stuck_secs = 900")
    assert said == (
        "[watcher:bob] failover.stuck_secs: found '900', expected more than failover.nudge_secs, 900: it is "
        "nudged before it is ended; raise this or lower that"
    )
    (said,) = said_of(tmp_path, contract + "failover.nudge_secs = 20", "15")
    assert "failover.nudge_secs: found '20', expected at least 30, 2 times the interval of 15 s" in said
    (said,) = said_of(tmp_path, contract, more="defaults: {progress_secs: 20}", plugin="15")
    assert said.startswith("defaults.progress_secs: found '20'")


def test_no_threshold_may_be_shorter_than_a_command_of_the_agent_itself(tmp_path: Path) -> None:
    agent = "failover.heartbeat = self\nfailover.runtime = claude\ncopy_env = False\n"
    assert said_of(tmp_path, agent) == []
    (said,) = said_of(tmp_path, agent + "failover.nudge_secs = 500")
    assert "failover.nudge_secs: found '500', expected at least 600, which a command of its shell" in said
    longer = agent + "[env:bob]\nBASH_MAX_TIMEOUT_MS = 1500000\n"
    (said,) = said_of(tmp_path, longer)
    assert "failover.nudge_secs: found '900 (the default)', expected at least 1500" in said
