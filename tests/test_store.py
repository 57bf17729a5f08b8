"""The store: what is committed survives, what is not leaves no trace, and every failure says which file."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from circus_failover.process_table import ProcessId
from circus_failover.records import (
    AccountRow,
    ActionRow,
    AgentRow,
    ChildRow,
    LaunchRow,
    PluginRow,
    ServerExitRow,
    TaskRow,
)
from circus_failover.store import BUSY_MS, SCHEMA_VERSION, Store, StoreError, open_reader

AGENT = AgentRow(
    "bob",
    phase="up",
    reason="it's ;\n é",
    cause="adopted",
    since=1.5,
    stay_stopped=True,
    generation=3,
    socket="/x/a b.sock",
    own_server=False,
    session="bob",
    pane="%1",
    pid=10,
    pid_start=2**40,
    server_pid=9,
    server_start=2**40 - 1,
    boot="b",
    account="one",
    launch="l",
    conversation="c",
    declared=False,
    ready_at=3.5,
    ready_ticks=2**40 + 1,
    ready_conversation="r",
    parked_by="idle-reaper",
    parked_at=4.5,
    parked_conversation="p",
    born=2,
    pending="fresh",
    loop="open",
    loop_until=5.5,
    loop_failures=1,
    loop_from=1,
    last_task=6.5,
    policy='{"idle_secs": 3600.0}',
    uncleared=3,
    runtime="claude",
    home="/homes/a",
    working_dir="/work",
    launched_at=1010.0,
    health='{"state": "idle"}',
    pushed='{"Stop": {"at": 1.0}}',
    switched_to="b",
    switched_from="a",
    switching="a",
    limited_until=4.0,
    interrupted="limited",
)
LAUNCH = LaunchRow("bob", 3, "first-start", "ann", "one", "c", 1.0)
TASK = TaskRow(0, "bob", "read\n\tit's é", "release", "ann", 1.0)
SERVER_EXIT = ServerExitRow(
    *("b", 9, 19, "/x.sock", 8.5, 7.5, 9, None, "pidfd-info", "killed", "live", None, "SIGKILL", "/f.json"),
    agents=[{"identity": "bob", "generation": 3}, {"identity": "eve", "generation": 1}],
)
PLUGIN = PluginRow("IdleReaper", 7, 1.5, 0.25, 30.0, 4, 1, "bob: no", '{"floor": 1}')
ACTION = ActionRow(0, "bob", 3, "stop", "ann", "stop", 2.0, {"agent": [1, 2], "pane": None, "é": ["x"]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "failover.db"


def test_a_row_comes_back_as_it_was_put(path: Path) -> None:
    assert all(getattr(AGENT, field.name) is not None for field in fields(AgentRow))
    store = Store(path)
    with store.decision(durable=True):
        store.put_agent(AGENT)
        store.put_agent(AgentRow("eve"))
    assert store.agents() == {"bob": AGENT, "eve": AgentRow("eve")}
    with store.decision(durable=False):
        store.put_agent(replace(AGENT, phase="down", pid=None, reason=None))
    assert Store(path).agents()["bob"] == replace(AGENT, phase="down", pid=None, reason=None)
    assert (AGENT.process, AGENT.server) == (ProcessId(10, 2**40), ProcessId(9, 2**40 - 1))
    assert AgentRow("eve").process is None and AgentRow("eve", pid=3).process is None


def test_what_is_known_of_an_account_comes_back_as_it_was_put(path: Path) -> None:
    whole = AccountRow(
        *("a", "claude", "limited", "5-hour", 9.0, "You've hit your 5-hour limit", 1.0, 2.0, "bob"),
        *("transcript", 0.5, 0.1, "[1]", "[2]"),
    )
    store = Store(path)
    with store.decision(durable=True):
        store.put_account(replace(whole, state="available"))
        store.put_account(whole)
        store.put_account(AccountRow("b", "codex"))
    assert Store(path).accounts() == {"a": whole, "b": AccountRow("b", "codex")}
    with store.decision(durable=True):
        store.forget_account("a")
    assert store.accounts() == {"b": AccountRow("b", "codex")}


def test_a_launch_comes_back_as_it_was_put(path: Path) -> None:
    whole = replace(
        LAUNCH,
        up_at=2.0,
        ended_at=3.0,
        planned=False,
        end_cause="exited",
        exit_status=0,
        exit_signal=9,
        last_output="x",
        mode="resume",
        wake_cause="idle-reaped-resume",
        parked_by="self",
        topic="release",
        assignment="job-1",
    )
    assert all(getattr(whole, field.name) is not None for field in fields(LaunchRow))
    store = Store(path)
    with store.decision(durable=True):
        store.add_launch(whole)
    assert store.launches("bob") == [whole]


def test_an_end_is_recorded_once(path: Path) -> None:
    store = Store(path)
    with store.decision(durable=True):
        store.add_launch(LAUNCH)
        assert store.end_launch("bob", 3, at=5.0, planned=True, cause="operator-stop")
        assert not store.end_launch("bob", 3, at=9.0, planned=False, cause="signaled")
        assert not store.end_launch("bob", 4, at=9.0, planned=False, cause="signaled")
        store.update_launch("bob", 3, exit_status=143, last_output="x\n")
    (launch,) = store.launches("bob")
    assert launch == replace(
        LAUNCH, ended_at=5.0, planned=True, end_cause="operator-stop", exit_status=143, last_output="x\n"
    )
    assert store.last_causes() == {"bob": "operator-stop"}


def test_the_newest_launch_comes_first_and_the_newest_ended_one_gives_the_cause(path: Path) -> None:
    store = Store(path)
    with store.decision(durable=True):
        for generation in (1, 2, 3, 10):
            store.add_launch(replace(LAUNCH, generation=generation))
        store.end_launch("bob", 2, at=1.0, planned=False, cause="exited")
        store.end_launch("bob", 3, at=1.0, planned=False, cause="signaled")
    assert [launch.generation for launch in store.launches("bob", 3)] == [10, 3, 2]
    assert store.last_causes() == {"bob": "signaled"}


def test_an_action_is_open_until_it_is_finished_once(path: Path) -> None:
    store = Store(path)
    with store.decision(durable=True):
        first = store.add_action(ACTION)
        second = store.add_action(replace(ACTION, identity="eve"))
    assert first == replace(ACTION, id=first.id) and second.id > first.id
    assert store.open_actions() == [first, second]
    with store.decision(durable=True):
        store.worker_started(first.id, ProcessId(7, 8))
        store.worker_started(first.id, None)
        store.worker_started(second.id, ProcessId(7, 8))
        store.change_intent(second.id, "rm", "joe", "gone")
        assert store.finish_action(first.id, 9.0, "ended")
        assert not store.finish_action(first.id, 10.0, "left")
    (left,) = store.open_actions()
    assert (left.intent, left.who, left.why, left.worker) == ("rm", "joe", "gone", ProcessId(7, 8))
    (done,) = store.actions("bob")
    assert (done.attempts, done.worker, done.done_at, done.outcome) == (2, None, 9.0, "ended")


def test_the_ends_that_count_are_those_after_a_generation_the_newest_first(path: Path) -> None:
    store = Store(path)
    with store.decision(durable=True):
        for generation in range(1, 6):
            store.add_launch(replace(LAUNCH, generation=generation))
        store.add_launch(replace(LAUNCH, identity="bob2"))
        for generation in (1, 2, 4):
            store.end_launch("bob", generation, at=generation, planned=False, cause="exited")
        store.end_launch("bob2", 3, at=3.0, planned=False, cause="exited")

    def generations(after: int, limit: int = 200) -> list[int]:
        return [launch.generation for launch in store.ended_launches("bob", after, limit)]

    assert generations(0) == [4, 2, 1]
    assert (generations(1), generations(4)) == ([4, 2], [])
    assert generations(0, limit=1) == [4]


def test_who_lives_now_and_who_died_since_is_told_together(path: Path) -> None:
    """Whether half of the living died together is counted of all of them, however long they live."""
    store = Store(path)
    with store.decision(durable=True):
        for identity, began, ended in (("old", 1.0, None), ("long-gone", 1.0, 2.0), ("dead", 1.0, 50.0),
                                       ("new", 60.0, None), ("brief", 60.0, 61.0)):  # fmt: skip
            store.add_launch(replace(LAUNCH, identity=identity, started_at=began))
            if ended is not None:
                store.end_launch(identity, 3, at=ended, planned=False, cause="signaled")
    assert {launch.identity for launch in store.launches_since(50.0)} == {"old", "dead", "new", "brief"}


# -- tasks, topics, plugins -----------------------------------------------------------------------------


def queued(store: Store, *tasks: TaskRow) -> list[TaskRow]:
    with store.decision(durable=True):
        return [store.add_task(task) for task in tasks]


def test_a_task_comes_back_as_it_was_put_until_it_is_delivered_or_cancelled(path: Path) -> None:
    store = Store(path)
    one, two, other = queued(store, TASK, replace(TASK, topic=None), replace(TASK, identity="bob2"))
    assert one == replace(TASK, id=one.id)
    store.close()
    store = Store(path)
    assert store.tasks() == [one, two, other] and store.tasks("bob") == [one, two]
    assert store.waiting() == {"bob": 2, "bob2": 1}
    typing = {"state": "typing", "attempts": 1, "generation": 3, "worker_pid": 5, "worker_start": 6}
    with store.decision(durable=True):
        store.update_task(one.id, **typing)
    (again, _) = store.tasks("bob")
    assert again == replace(one, **typing) and again.worker == ProcessId(5, 6) and one.worker is None
    assert store.waiting() == {"bob": 2, "bob2": 1}, "one that is being typed is not out of the queue"
    with store.decision(durable=True):
        store.update_task(one.id, state="delivered", done_at=9.0)
        store.update_task(two.id, state="cancelled", done_at=9.0, note="it was removed")
    assert store.tasks() == [other] and store.waiting() == {"bob2": 1}
    done = store.task(two.id)
    assert done == replace(two, state="cancelled", done_at=9.0, note="it was removed")
    assert store.task(999) is None


def test_tasks_that_are_done_are_forgotten_in_time_and_those_that_wait_never(path: Path) -> None:
    store = Store(path)
    waiting, long_done, just_done = queued(store, TASK, TASK, TASK)
    with store.decision(durable=True):
        store.update_task(long_done.id, state="delivered", done_at=9.0)
        store.update_task(just_done.id, state="delivered", done_at=10.0)
        store.forget_tasks(10.0)
    assert [store.task(one.id) is not None for one in (waiting, long_done, just_done)] == [True, False, True]


def test_what_an_agent_is_told_first_stands_before_what_waits_already(path: Path) -> None:
    store = Store(path)
    texts = ["old", "older than the first", "first", "last"]
    queued(store, *(replace(TASK, text=text, first=text == "first") for text in texts))
    assert [task.text for task in store.tasks("bob")] == ["first", "old", "older than the first", "last"]
    assert store.tasks("bob")[0].first is True and store.tasks("bob")[1].first is False
    assert [task.text for task in store.tasks(limit=1)] == ["first"]


def test_a_task_of_a_mebibyte_is_kept_whole(path: Path) -> None:
    store = Store(path)
    text = "é\n" * (1024 * 1024 // 3)
    (task,) = queued(store, replace(TASK, text=text))
    store.close()
    found = Store(path).task(task.id)
    assert found is not None and found.text == text


def test_a_topic_is_known_in_the_conversation_it_was_delivered_in_and_nowhere_else(path: Path) -> None:
    store = Store(path)
    with store.decision(durable=True):
        store.add_topic("c", "release", "bob", 1.0)
        store.add_topic("c", "release", "bob", 2.0)
    assert store.knows_topic("c", "release")
    assert not store.knows_topic("c", "Release") and not store.knows_topic("d", "release")
    assert not store.knows_topic("c", "release ")


def test_a_plugin_has_one_row_which_is_what_it_said_last(path: Path) -> None:
    assert all(getattr(PLUGIN, field.name) is not None for field in fields(PluginRow))
    store = Store(path)
    with store.decision(durable=False):
        store.put_plugin(replace(PLUGIN, name="CrashLoopGuard"))
        store.put_plugin(replace(PLUGIN, pid=6, ticks=99))
        store.put_plugin(PLUGIN)
    found = Store(path).plugins()
    assert list(found) == ["CrashLoopGuard", "IdleReaper"] and found["IdleReaper"] == PLUGIN


def test_a_purge_deletes_everything_of_one_agent_and_says_what(path: Path) -> None:
    store = Store(path)

    def everything_of(identity: str) -> None:
        store.put_agent(replace(AGENT, identity=identity))
        store.add_launch(replace(LAUNCH, identity=identity))
        store.add_action(replace(ACTION, identity=identity))
        store.add_history(1.0, identity, 3, "up", {})
        store.add_history(2.0, identity, 3, "exit", {})
        store.add_task(replace(TASK, identity=identity))
        store.add_topic(f"c-{identity}", "release", identity, 1.0)

    with store.decision(durable=True):
        everything_of("bob")
        everything_of("bob2")
    with store.decision(durable=True):
        deleted = store.purge("bob")
    assert deleted == {"agents": 1, "launches": 1, "actions": 1, "history": 2, "tasks": 1, "topics": 1}
    assert list(store.agents()) == ["bob2"]
    assert not store.knows_topic("c-bob", "release") and store.knows_topic("c-bob2", "release")
    for left in (store.launches, store.actions, store.history, store.tasks):
        assert not left("bob") and left("bob2"), left.__name__
    with store.decision(durable=True):
        assert set(store.purge("nobody").values()) == {0}


# -- one's own reports -----------------------------------------------------------------------------------


def test_a_report_s_name_is_kept_with_its_effect_and_forgotten_in_time(path: Path) -> None:
    store = Store(path)
    assert not store.seen("a.json")
    with store.decision(durable=True):
        store.take_in("a.json", 10.0)
        store.take_in("a.json", 11.0)
        store.forget_reports(10.0)
    assert store.seen("a.json") and not store.seen("A.json")
    with pytest.raises(RuntimeError), store.decision(durable=True):
        store.take_in("b.json", 10.0)
        raise RuntimeError("its effect could not be stored")
    assert not store.seen("b.json")
    with store.decision(durable=True):
        store.forget_reports(10.5)
    assert not store.seen("a.json")


def test_history_is_newest_first_and_its_details_are_kept(path: Path) -> None:
    store = Store(path)
    with store.decision(durable=True):
        for number in range(5):
            store.add_history(float(number), "bob", number, "up", {"n": number, "none": None})
        store.add_history(9.0, "eve", None, "refuse", {})
    assert [entry["n"] for entry in store.history("bob", 2)] == [4, 3]
    assert store.history("eve") == [{"at": 9.0, "generation": None, "ev": "refuse"}]


def test_children_are_remembered_until_they_are_removed(path: Path) -> None:
    store = Store(path)
    child = ChildRow(ProcessId(5, 6), "boot", "keeper", "bob")
    with store.decision(durable=False):
        store.add_child(child)
        store.add_child(child)
        store.add_child(replace(child, process=ProcessId(5, 7)))
        store.remove_child(ProcessId(5, 7))
    assert store.children() == [child]


def test_a_decision_is_stored_whole_or_not_at_all(path: Path) -> None:
    store = Store(path)
    with pytest.raises(RuntimeError), store.decision(durable=True):
        store.put_agent(AGENT)
        store.add_action(ACTION)
        raise RuntimeError("in the middle")
    assert (store.agents(), store.open_actions()) == ({}, [])
    with pytest.raises(StoreError), store.decision(durable=True):
        store.put_agent(AGENT)
        store.add_launch(LAUNCH)
        store.add_launch(LAUNCH)
    assert (store.agents(), store.launches("bob")) == ({}, [])
    with store.decision(durable=True):
        store.put_agent(AGENT)
    assert store.agents() == {"bob": AGENT}


@pytest.mark.parametrize("durable", [True, False])
def test_a_decision_survives_the_death_of_the_process(path: Path, durable: bool) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from circus_failover.store import AgentRow, Store
        store = Store(Path({str(path)!r}))
        with store.decision(durable={durable}):
            store.put_agent(AgentRow("kept"))
        with store.decision(durable={durable}):
            store.put_agent(AgentRow("lost"))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL
    assert list(Store(path).agents()) == ["kept"]


def test_durability_is_asked_of_sqlite_for_each_decision(path: Path) -> None:
    store = Store(path)

    def level() -> int:
        return int(store._db.execute("PRAGMA synchronous").fetchone()[0])

    with store.decision(durable=True):
        assert level() == 2
    with store.decision(durable=False):
        assert level() == 1
    assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_its_files_are_for_their_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(path)
        with store.decision(durable=True):
            store.put_agent(AGENT)
    finally:
        os.umask(before)
    names = sorted(found.name for found in path.parent.iterdir())
    assert names == ["failover.db", "failover.db-shm", "failover.db-wal"]
    assert {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()} == {0o600}


# -- a store of an earlier version -----------------------------------------------------------------------

SCHEMA_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE agents (
    identity TEXT PRIMARY KEY,
    phase TEXT NOT NULL, reason TEXT, cause TEXT, since REAL NOT NULL,
    stay_stopped INTEGER NOT NULL, generation INTEGER NOT NULL,
    socket TEXT, own_server INTEGER NOT NULL, session TEXT, pane TEXT,
    pid INTEGER, pid_start INTEGER, server_pid INTEGER, server_start INTEGER,
    boot TEXT, account TEXT, launch TEXT, conversation TEXT, declared INTEGER NOT NULL
);
CREATE TABLE launches (
    identity TEXT NOT NULL, generation INTEGER NOT NULL,
    cause TEXT NOT NULL, asked_by TEXT NOT NULL, account TEXT, conversation TEXT,
    started_at REAL NOT NULL, up_at REAL, ended_at REAL,
    planned INTEGER, end_cause TEXT, exit_status INTEGER, exit_signal INTEGER,
    last_output TEXT,
    PRIMARY KEY (identity, generation)
);
CREATE TABLE actions (
    id INTEGER PRIMARY KEY, identity TEXT NOT NULL, generation INTEGER NOT NULL,
    intent TEXT NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, asked_at REAL NOT NULL,
    spec TEXT NOT NULL, attempts INTEGER NOT NULL, worker_pid INTEGER, worker_start INTEGER,
    done_at REAL, outcome TEXT
);
CREATE INDEX actions_open ON actions (done_at, identity);
CREATE TABLE history (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, identity TEXT NOT NULL, generation INTEGER,
    ev TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE INDEX history_identity ON history (identity, id);
CREATE TABLE children (
    pid INTEGER NOT NULL, start INTEGER NOT NULL, boot TEXT NOT NULL,
    kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (pid, start)
);
CREATE TABLE taken_in (name TEXT PRIMARY KEY, at REAL NOT NULL);
INSERT INTO meta VALUES ('schema', '1');
INSERT INTO agents VALUES ('bob', 'stopped', 'stop (ann)', 'operator-stop', 1.5, 1, 3, '/x.sock', 0, 'bob',
    '%1', 10, 20, 9, 19, 'b', 'one', 'l', 'c', 1);
INSERT INTO launches VALUES ('bob', 3, 'first-start', 'ann', 'one', 'c', 1.0, 2.0, 3.0, 1, 'operator-stop',
    143, NULL, 'x');
INSERT INTO actions VALUES (7, 'bob', 3, 'stop', 'ann', 'stop', 2.0, '{"pane": null}', 1, 5, 6, NULL, NULL);
INSERT INTO history VALUES (1, 2.0, 'bob', 3, 'stop', '{"who": "ann"}');
INSERT INTO children VALUES (5, 6, 'b', 'keeper', 'bob');
INSERT INTO taken_in VALUES ('a.json', 1.0);
"""
"""As the first version made and filled it."""


def of_version_1(path: Path) -> None:
    other = sqlite3.connect(path)
    other.executescript(SCHEMA_1)
    other.close()


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return the columns of every table: name, type, whether it may be empty, default, place in the key."""
    other = sqlite3.connect(path)
    tables = [name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: sorted(row[1:] for row in other.execute(f"PRAGMA table_info({name})")) for name in tables}
    other.close()
    return found


def version(path: Path) -> str:
    other = sqlite3.connect(path)
    (value,) = other.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    other.close()
    return str(value)


def test_a_store_of_the_first_version_is_upgraded_and_keeps_all_that_was_in_it(path: Path) -> None:
    of_version_1(path)
    store = Store(path)
    bob = store.agent("bob")
    assert bob is not None
    assert (bob.phase, bob.stay_stopped, bob.generation, bob.conversation) == ("stopped", True, 3, "c")
    assert (bob.process, bob.server, bob.declared) == (ProcessId(10, 20), ProcessId(9, 19), True)
    assert (bob.loop, bob.loop_from, bob.born, bob.policy, bob.parked_by) == ("closed", 0, 0, "{}", None)
    (launch,) = store.launches("bob")
    assert (launch.up_at, launch.exit_status, launch.planned, launch.mode) == (2.0, 143, True, None)
    (action,) = store.open_actions()
    assert (action.id, action.intent, action.worker) == (7, "stop", ProcessId(5, 6))
    assert store.history("bob") == [{"at": 2.0, "generation": 3, "ev": "stop", "who": "ann"}]
    assert store.children() == [ChildRow(ProcessId(5, 6), "b", "keeper", "bob")]
    assert store.seen("a.json")
    with store.decision(durable=True):
        store.put_agent(AGENT)
        store.update_launch("bob", 3, mode="fresh", wake_cause="first-wake", topic="t")
        store.add_task(TASK)
        store.put_plugin(PLUGIN)
    store.close()
    assert Store(path).agents() == {"bob": AGENT}


OF_A_RUNTIME = ("runtime", "home", "working_dir", "launched_at", "health", "pushed")
OF_A_SWITCH = ("switched_to", "switched_from", "switching", "limited_until", "interrupted")


def test_a_store_of_the_second_version_is_upgraded_and_keeps_all_that_was_in_it(path: Path) -> None:
    store = Store(path)
    with store.decision(durable=True):
        store.put_agent(replace(AGENT, uncleared=None))
        store.add_launch(LAUNCH)
    store.close()
    now = columns(path)
    other = sqlite3.connect(path)
    other.executescript(
        "ALTER TABLE agents DROP COLUMN uncleared; DROP TABLE server_exits;"
        + "".join(f"ALTER TABLE agents DROP COLUMN {name};" for name in (*OF_A_RUNTIME, *OF_A_SWITCH))
        + "".join(f"ALTER TABLE tasks DROP COLUMN {name};" for name in ("kind", "assignment", "expires_at"))
        + "ALTER TABLE launches DROP COLUMN assignment;"
        + "".join(f"DROP TABLE {name};" for name in ("assignments", "notices", "accounts"))
        + "UPDATE meta SET value = '2' WHERE name = 'schema'"
    )
    other.close()
    store = Store(path)
    gone = {**dict.fromkeys((*OF_A_RUNTIME, *OF_A_SWITCH)), "runtime": "command"}
    kept = replace(AGENT, uncleared=None, **gone)
    assert (store.agent("bob"), store.launches("bob")) == (kept, [LAUNCH])
    with store.decision(durable=True):
        store.put_agent(AGENT)
        store.add_server_exit(SERVER_EXIT)
    store.close()
    assert (columns(path), version(path)) == (now, str(SCHEMA_VERSION))


def test_the_end_of_a_server_is_stored_once_and_found_by_time_and_by_number(path: Path) -> None:
    store = Store(path)
    other = replace(SERVER_EXIT, pid=10, at=9.5, agents=[])
    with store.decision(durable=True):
        assert store.add_server_exit(SERVER_EXIT)
        assert store.add_server_exit(other)
        assert not store.add_server_exit(replace(SERVER_EXIT, cause="unknown"))
    assert store.server_exits() == [other, SERVER_EXIT]
    assert store.server_exits(since=9.0) == [other]
    assert store.server_exit("b", ProcessId(9, 19)) == SERVER_EXIT
    assert store.server_exit("b", ProcessId(9, 20)) is None
    assert store.server_exit("another boot", ProcessId(9, 19)) is None


def test_an_end_that_was_noticed_late_is_moved_back_and_never_forward(path: Path) -> None:
    store = Store(path)
    with store.decision(durable=True):
        store.add_launch(LAUNCH)
        store.end_launch("bob", 3, at=50.0, planned=False, cause="exited")
        for at in (40.0, 45.0, 0.5):
            store.launch_ended_earlier("bob", 3, at)
    assert store.launches("bob")[0].ended_at == 40.0
    assert [launch.identity for launch in store.deaths_since(40.0)] == ["bob"]
    assert store.deaths_since(41.0) == []


def test_an_agent_that_lives_through_the_upgrade_can_be_resumed(path: Path) -> None:
    """The first version called `up` what had been proven ready, and had no other word for it."""
    of_version_1(path)
    other = sqlite3.connect(path)
    for identity, phase in (("up", "up"), ("starting", "starting"), ("unseen", "up")):
        other.execute(
            "INSERT INTO agents SELECT ?, ?, reason, cause, since, 0, generation, socket, own_server,"
            " session, pane, pid, pid_start, server_pid, server_start, boot, account, launch, conversation, 1"
            " FROM agents WHERE identity = 'bob'",
            (identity, phase),
        )
    other.execute(
        "INSERT INTO launches SELECT 'up', generation, cause, asked_by, account, conversation, started_at,"
        " 2.0, NULL, NULL, NULL, NULL, NULL, NULL FROM launches WHERE identity = 'bob'"
    )
    other.commit()
    other.close()
    found = Store(path).agents()
    assert (found["up"].ready_at, found["up"].ready_conversation) == (2.0, "c")
    assert (found["unseen"].ready_at, found["unseen"].ready_conversation) == (1.5, "c")
    for name in ("starting", "bob"):
        assert (found[name].ready_at, found[name].ready_conversation) == (None, None), name


def test_an_agent_that_was_removed_before_the_upgrade_begins_with_nothing_of_it(path: Path) -> None:
    of_version_1(path)
    other = sqlite3.connect(path)
    other.execute("UPDATE agents SET phase = 'down', cause = 'removed', declared = 0")
    other.commit()
    other.close()
    bob = Store(path).agent("bob")
    assert bob is not None and (bob.born, bob.loop_from) == (3, 3)


def test_who_reads_a_store_before_it_is_upgraded_is_told_what_upgrades_it(path: Path) -> None:
    of_version_1(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"schema 1, this version reads {SCHEMA_VERSION}: start its circusd"):
        open_reader(path)
    assert path.read_bytes() == before
    Store(path).close()
    reader = open_reader(path)
    assert list(reader.agents()) == ["bob"]
    reader.close()


def test_an_upgraded_store_is_the_same_as_a_new_one(path: Path, tmp_path: Path) -> None:
    of_version_1(path)
    Store(path).close()
    Store(tmp_path / "new.db").close()
    assert columns(path) == columns(tmp_path / "new.db")
    assert version(path) == version(tmp_path / "new.db") == str(SCHEMA_VERSION)
    before = path.read_bytes()
    Store(path).close()
    assert path.read_bytes() == before, "a second time nothing is left to do"


def test_an_upgrade_happens_whole_or_not_at_all(path: Path) -> None:
    of_version_1(path)
    other = sqlite3.connect(path)
    other.execute("ALTER TABLE launches ADD COLUMN topic TEXT")  # what the upgrade is to add, and last
    other.commit()
    other.close()
    with pytest.raises(StoreError, match=r"failover\.db.*topic"):
        Store(path)
    assert version(path) == "1"
    assert "ready_at" not in {name for name, *_ in columns(path)["agents"]}


def test_a_store_of_a_newer_version_is_refused_and_says_what_to_install(path: Path) -> None:
    newer(path)
    with pytest.raises(
        StoreError, match=f"schema 999, this version knows {SCHEMA_VERSION}: install the newer"
    ):
        Store(path)
    assert version(path) == "999"


# -- what can be wrong with it -------------------------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever it is called" * 100)


def a_folder(path: Path) -> None:
    path.mkdir()


def newer(path: Path) -> None:
    Store(path).close()
    other = sqlite3.connect(path)
    other.execute("UPDATE meta SET value = '999' WHERE name = 'schema'")
    other.commit()
    other.close()


def other_tables(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE meta (x INTEGER)")
    other.commit()
    other.close()


def no_number(path: Path) -> None:
    newer(path)
    other = sqlite3.connect(path)
    other.execute("UPDATE meta SET value = 'one' WHERE name = 'schema'")
    other.commit()
    other.close()


def spoilt_page(path: Path) -> None:
    """The header is right, a table's page is not."""
    store = Store(path)
    with store.decision(durable=True):
        for number in range(300):
            store.put_agent(replace(AGENT, identity=f"a{number}"))
    store.close()
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("spoil", [garbage, a_folder, newer, other_tables, no_number, spoilt_page])
def test_a_store_that_cannot_be_used_names_the_file_and_is_left_as_it_is(path: Path, spoil: Any) -> None:
    spoil(path)
    before = None if path.is_dir() else path.read_bytes()

    def use() -> None:
        store = Store(path)
        try:
            store.agents()
            with store.decision(durable=True):
                store.put_agent(AGENT)
        finally:
            store.close()

    with pytest.raises(StoreError, match=r"failover\.db"):
        use()
    if before is not None and spoil is not other_tables:
        assert path.read_bytes()[:4096] == before[:4096]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every file")
def test_a_store_that_may_not_be_written_says_so(path: Path) -> None:
    Store(path).close()
    path.chmod(0o400)
    with pytest.raises(StoreError, match=r"failover\.db"):
        Store(path)


def test_a_folder_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="gone"):
        Store(tmp_path / "gone" / "failover.db")


def test_while_another_holds_it_nothing_is_stored_and_afterwards_everything_is(path: Path) -> None:
    store = Store(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked"), store.decision(durable=True):
        store.put_agent(AGENT)
    assert store.agents() == {}
    other.execute("ROLLBACK")
    with store.decision(durable=True):
        store.put_agent(AGENT)
    assert store.agents() == {"bob": AGENT}
    other.close()


def test_a_reader_neither_waits_for_the_writer_nor_sees_half_a_decision(path: Path) -> None:
    store = Store(path)
    with store.decision(durable=True):
        store.put_agent(AGENT)
    reader = open_reader(path)
    with store.decision(durable=True):
        store.put_agent(replace(AGENT, phase="down"))
        assert reader.agents()["bob"].phase == "up"
    assert reader.agents()["bob"].phase == "down"
    reader.close()


def test_a_reader_cannot_write(path: Path) -> None:
    Store(path).close()
    reader = open_reader(path)
    with pytest.raises(sqlite3.OperationalError):
        reader._db.execute("DELETE FROM agents")
    reader.close()


@pytest.mark.parametrize("spoil", [None, garbage, a_folder])
def test_a_reader_says_what_cannot_be_read_and_makes_nothing(path: Path, spoil: Any) -> None:
    if spoil is not None:
        spoil(path)
    with pytest.raises(StoreError, match=r"failover\.db"):
        open_reader(path)
    assert spoil is not None or not path.exists()


@pytest.mark.parametrize("name", ["two words", "it's", "a?b", "a#b", "a%20b", "é;"])
def test_its_path_may_be_anything(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    store = Store(folder / "failover.db")
    with store.decision(durable=True):
        store.put_agent(AGENT)
    reader = open_reader(folder / "failover.db")
    assert reader.agents() == {"bob": AGENT}
    reader.close()


def test_somebody_else_s_lock_holds_circusd_s_loop_up_for_a_moment_only(tmp_path: Path) -> None:
    """It is the only loop; what could not be written is kept and written later."""
    store = Store(tmp_path / "failover.db")
    (timeout,) = store._db.execute("PRAGMA busy_timeout").fetchone()
    assert timeout == BUSY_MS <= 100
    store.close()
