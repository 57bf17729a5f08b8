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
from circus_failover.records import ActionRow, AgentRow, ChildRow, LaunchRow
from circus_failover.store import BUSY_MS, Store, StoreError, open_reader

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
)
LAUNCH = LaunchRow("bob", 3, "first-start", "ann", "one", "c", 1.0)
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
