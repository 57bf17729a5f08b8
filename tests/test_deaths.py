"""`failoverctl deaths`: since when, which deaths belong together, and what is shown; without circusd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from circus.exc import ArgumentError

from circus_failover import deaths, process_table, spool
from circus_failover.canary import death, watched
from circus_failover.canary.watched import Watched, WatchedAgent
from circus_failover.deaths import Incident, incidents, since
from circus_failover.failure import Failed
from circus_failover.process_table import ProcessId
from circus_failover.records import AgentRow, LaunchRow, ServerExitRow
from circus_failover.state_dir import StateDir
from circus_failover.store import Store
from circus_failover.verbs.canary_verbs import Deaths

NOW = 1795258800.0
"""2026-11-21 12:00:00 in Berlin, 11:00:00 UTC."""
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# -- since when --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("2h", 2 * HOUR),
        ("30m", 30 * MINUTE),
        ("90s", 90.0),
        ("1d", DAY),
        ("1w", 7 * DAY),
        ("1d12h", 1.5 * DAY),
        ("1h 30m", 1.5 * HOUR),
        ("1.5h", 1.5 * HOUR),
        (" 2h ", 2 * HOUR),
        ("2 hours ago", 2 * HOUR),
        ("1 day", DAY),
        ("30 minutes ago", 30 * MINUTE),
        ("today", 12 * HOUR),
        ("yesterday", 36 * HOUR),
        ("10:30", 1.5 * HOUR),
        ("2026-11-21", 12 * HOUR),
        ("2026-11-20", 36 * HOUR),
        ("2026-11-20 14:30", 21.5 * HOUR),
        ("2026-11-20T14:30:15", 21.5 * HOUR - 15),
        ("2026-11-20T14:30:15.5", 21.5 * HOUR - 15.5),
        ("2026-11-20T14:30Z", 20.5 * HOUR),
        ("2026-11-20T14:30:00+01:00", 21.5 * HOUR),
        ("2026-11-20T14:30:00-0530", 15 * HOUR),
        ("2026-11-20 14:30:00 UTC", 20.5 * HOUR),
        ("2026-11-20 14:30:00 CET", 21.5 * HOUR),
        ("2026-10-20", 32.5 * DAY + HOUR),
        ("99999999999d", NOW),
    ],
)
def test_people_write_since_when_as_they_are_used_to(berlin: None, text: str, back: float) -> None:
    assert since(text, NOW) == NOW - back


@pytest.mark.parametrize(
    "text",
    [
        *("", "2", "h", "ago", "soon", "2 parsecs", "-2h", "1e5h", "nan", "2h ago ago", "14", "T10:00", "Z"),
        *("2026-13-01", "2026-11-31", "2026-11-20T", "2026-11-2010:00", "2026-11-20 25:00", "20261120"),
        *("2026-11-20 10:00 XST", "2026-11-20 10:00 +99:00", "0001-01-01"),
    ],
)
def test_what_means_no_time_is_refused_with_examples(berlin: None, text: str) -> None:
    with pytest.raises(ValueError, match="expected 2h, 30m, 1d, 2026-11-21") as refused:
        since(text, NOW)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("text", ["2026-11-22", "13:00", "2026-11-21T11:00:01Z"])
def test_a_time_that_has_not_come_is_refused(berlin: None, text: str) -> None:
    with pytest.raises(ValueError, match="that time has not come"):
        since(text, NOW)


# -- which deaths belong together --------------------------------------------------------------------


def server_exit(pid: int, at: float, *agents: tuple[str, int], **changes: Any) -> ServerExitRow:
    row = ServerExitRow(
        boot="boot",
        pid=pid,
        start=pid * 10,
        socket=f"/s/tmux/{pid}.sock",
        at=at,
        up=120.0,
        signal=9,
        status=None,
        how="pidfd-info",
        cause="killed",
        detected="live",
        seen=None,
        evidence="SIGKILL, and no OOM counter moved",
        forensics=None,
        agents=[{"identity": name, "generation": generation} for name, generation in agents],
    )
    return ServerExitRow(**{**asdict(row), **changes})


def ended(name: str, generation: int, at: float, cause: str = "server-lost", **changes: Any) -> LaunchRow:
    row = LaunchRow(name, generation, "operator-start", "me", None, None, at - 60, at - 50, at, False, cause)
    return LaunchRow(**{**asdict(row), **changes})


def shape(found: list[Incident]) -> list[tuple[int | None, list[tuple[str, bool]]]]:
    """Return of each incident the server's pid, and its agents with whether their death is with them."""
    return [
        (
            one.server.pid if one.server else None,
            [(each.identity, each.launch is not None) for each in one.victims],
        )
        for one in found
    ]


def test_a_server_with_many_agents_is_one_incident_that_holds_their_deaths() -> None:
    exits = [server_exit(7, 100.0, ("a", 1), ("b", 4), ("c", 2))]
    launches = [ended("a", 1, 100.2), ended("b", 4, 100.3), ended("c", 2, 99.9, "exited", exit_status=0)]
    assert shape(incidents(exits, [], launches)) == [(7, [("a", True), ("b", True), ("c", True)])]


def test_an_agent_that_died_while_its_server_lived_on_is_an_incident_of_its_own() -> None:
    exits = [server_exit(7, 100.0, ("a", 1), ("b", 4))]
    launches = [ended("a", 1, 80.0, "exited", exit_status=3), ended("b", 3, 100.0), ended("b", 4, 100.1)]
    assert shape(incidents(exits, [], launches)) == [
        (None, [("a", True)]),
        (7, [("a", False), ("b", True)]),
        (None, [("b", True)]),
    ]


def test_of_a_server_that_was_found_gone_everything_since_it_was_last_seen_belongs_together() -> None:
    exits = [server_exit(7, 1000.0, ("a", 1), ("b", 1), detected="post-factum", seen=500.0)]
    launches = [ended("a", 1, 600.0, "exited"), ended("b", 1, 400.0, "exited")]
    assert shape(incidents(exits, [], launches)) == [(None, [("b", True)]), (7, [("a", True), ("b", False)])]


def test_what_is_in_the_spool_and_in_the_store_is_there_once_and_taken_in() -> None:
    one, two = server_exit(7, 100.0, ("a", 1)), server_exit(8, 90.0, ("b", 1))
    found = incidents([one], [one, two], [])
    assert [(each.server and each.server.pid, each.taken_in) for each in found] == [(8, False), (7, True)]


def test_the_same_pid_of_another_process_is_another_server() -> None:
    found = incidents(
        [server_exit(7, 1.0), server_exit(7, 2.0, start=71)], [server_exit(7, 3.0, boot="b")], []
    )
    assert [one.at for one in found] == [1.0, 2.0, 3.0]


# -- a fleet on disk ---------------------------------------------------------------------------------


class Disk:
    """A circus.ini with its state directory: a store that a circusd has left, and its spool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o700)
        lines = ["[circus]", f"endpoint = ipc://{folder}/ctl", "[env]", "FAILOVER_CONFIG = failover.yaml"]
        for name in ("alpha", "never-started"):
            lines += [f"[watcher:{name}]", "cmd = failover-session", "failover.command = sleep 1000"]
            lines += ["hooks.before_start = circus_failover.hooks.enrol", f"working_dir = {folder}"]
        (folder / "circus.ini").write_text("\n".join(lines) + "\n")
        (folder / "failover.yaml").write_text("state_dir: state\n")
        self.state = StateDir(folder / "state")
        self.state.prepare()

    def store(self, *rows: ServerExitRow | LaunchRow) -> None:
        """Have circusd remember these."""
        store = Store(self.state.store)
        with store.decision(durable=False):
            for row in rows:
                if isinstance(row, ServerExitRow):
                    assert store.add_server_exit(row)
                else:
                    store.put_agent(AgentRow(row.identity))
                    store.add_launch(row)
        store.close()

    def report(self, one: death.Death) -> None:
        """Leave a report in the spool, as the canary does."""
        spool.send(self.state.spool, {"kind": "server-exits", "deaths": [one.report()]})


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIRCUSCTL_ENDPOINT", f"ipc://{tmp_path}/nobody")
    return Disk(tmp_path)


OPTIONS = {"json": False, "prettify": False, "endpoint": None, "timeout": 5}


def show(capsys: pytest.CaptureFixture[str], *names: str, **options: Any) -> str:
    assert Deaths().run(OPTIONS, *names, **options) == 0
    told, errors = capsys.readouterr()
    assert errors == ""
    return told


def answer(capsys: pytest.CaptureFixture[str], *names: str, **options: Any) -> dict[str, Any]:
    assert Deaths().run({**OPTIONS, "json": True}, *names, **options) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def observed(pid: int, at: float, *agents: str, boot: str = "boot") -> death.Death:
    """Return a death as the canary knows it."""
    lived = tuple(WatchedAgent(name, 1, None, None, None, None) for name in agents)
    one = Watched(f"/s/{pid}", ProcessId(pid, 1), boot, at - 60, False, lived)
    return death.Death(one, at, 60.0, None, None, "none", "unknown", "post-factum", at - 30, "", None)


def test_a_fleet_in_which_nobody_died_says_so(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no deaths since" in show(capsys)
    disk.store()
    assert "no deaths since" in show(capsys)
    found = answer(capsys, since="1h")
    assert (found["status"], found["deaths"], found["notes"]) == ("ok", [], [])
    assert time.time() - found["since"] == pytest.approx(HOUR, abs=60)


def test_a_row_says_what_died_why_how_that_is_known_and_where_its_snapshot_is(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    snapshot = disk.state.path / "forensics" / "x.json"
    snapshot.write_text("{}")
    disk.store(
        server_exit(7, now - 60, ("alpha", 3), forensics=str(snapshot)),
        server_exit(
            8, now - 30, ("b", 1), signal=None, status=0, cause="orderly-unintended", how="proc-stat",
            detected="post-factum", seen=now - 45, forensics="/gone.json",
        ),
        server_exit(9, now - 20, ("c", 1), signal=None, cause="unknown", how="none"),
        server_exit(10, now - 15, ("e", 1), signal=64),
        ended("alpha", 3, now - 60),
        ended("d", 2, now - 10, "signaled", exit_signal=int(signal.SIGSEGV)),
    )  # fmt: skip
    told = show(capsys)
    heading, *lines = told.splitlines()
    assert heading.split("  ")[0] == "WHEN"
    rows = [line for line in lines if not line.startswith(" ")]
    cells = [[cell.strip() for cell in row.split("  ") if cell.strip()][1:] for row in rows]
    seen = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now - 45))
    assert cells == [
        ["server", "alpha", "killed", "SIGKILL", "pidfd-info", "live"],
        [
            "server",
            "b",
            "orderly-unintended",
            "status 0",
            "proc-stat",
            f"post-factum, last seen alive {seen}",
        ],
        ["server", "c", "unknown", "unknown", "-", "live"],
        ["server", "e", "killed", "SIGRTMAX", "pidfd-info", "live"],
        ["agent", "d", "signaled", "SIGSEGV", "-", "-"],
    ]
    assert "    server pid 7 on /s/tmux/7.sock, up 2m: SIGKILL, and no OOM counter moved\n" in told
    assert "    server-lost: alpha (launch 3)\n" in told
    assert f"    snapshot: {snapshot}\n" in told
    assert "    snapshot: /gone.json (not there)\n" in told
    assert "\x1b" not in told


def test_json_has_everything(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    row = server_exit(7, now - 60, ("alpha", 3), ("b", 1), forensics="/gone.json")
    launch = ended("alpha", 3, now - 59, last_output="the end")
    disk.store(row, launch, ended("d", 2, now - 10, "signaled", exit_signal=11))
    server, agent = answer(capsys)["deaths"]
    for key, value in asdict(row).items():
        name = {"pid": "server_pid", "start": "server_start", "seen": "last_seen"}.get(key, key)
        if key != "agents":
            assert server[name] == value, key
    assert (server["what"], server["signal_name"], server["forensics_there"]) == ("server", "SIGKILL", False)
    assert server["agents"] == [
        {"identity": "alpha", "generation": 3, "death": asdict(launch)},
        {"identity": "b", "generation": 1, "death": None},
    ]
    assert (agent["what"], agent["cause"], agent["signal_name"]) == ("agent", "signaled", "SIGSEGV")
    assert agent["agents"][0]["death"]["generation"] == 2
    assert agent.keys() == server.keys()


def test_a_death_that_circusd_has_not_taken_in_is_shown_and_marked(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    disk.store(server_exit(7, now - 60, ("alpha", 3)))
    disk.report(observed(8, now - 20, "beta"))
    disk.report(observed(9, now - 2 * DAY, "long-ago"))
    (disk.state.spool / "00000000000000000001-1-server-exits.json").write_text("[1")
    (disk.state.spool / "00000000000000000002-1-server-exits.json").write_text('{"deaths": [{"pid": 1}]}')
    told = show(capsys)
    rows = [line for line in told.splitlines() if line[0].isdigit()]
    assert [row.endswith(", not taken in yet") for row in rows] == [False, True]
    assert "  beta  " in rows[1]
    assert "long-ago" not in told
    assert "    death not taken in yet: beta (launch 1)\n" in told
    found = answer(capsys)["deaths"]
    assert [(one["agents"][0]["identity"], one["taken_in"]) for one in found] == [
        ("alpha", True),
        ("beta", False),
    ]
    assert found[1]["last_seen"] == now - 50
    assert len(list(disk.state.spool.glob("*.json"))) == 4, "it only reads"


def test_also_without_a_store_what_is_in_the_spool_is_shown(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.report(observed(8, time.time(), "beta"))
    assert not disk.state.store.exists()
    assert "not taken in yet" in show(capsys)
    assert not disk.state.store.exists()


def test_an_incident_is_whole_when_a_part_of_it_is_older_than_asked_for(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    disk.store(
        server_exit(7, now - HOUR - 1, ("late", 1)),
        ended("late", 1, now - HOUR + 60),
        server_exit(8, now - HOUR + 1, ("early", 1)),
        ended("early", 1, now - HOUR - 2),
        server_exit(9, now - 2 * HOUR, ("gone", 1)),
        ended("gone", 1, now - 2 * HOUR),
        ended("old", 1, now - 2 * HOUR, "exited"),
    )
    found = answer(capsys, since="1h")["deaths"]
    assert [one["server_pid"] for one in found] == [7, 8]
    assert all(one["agents"][0]["death"] for one in found)


def test_none_of_thousands_is_left_out(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    disk.store(*(server_exit(pid, now - 60, (f"a{pid}", 1)) for pid in range(1, 2501)))
    assert len(answer(capsys)["deaths"]) == 2500


def test_names_and_globs_choose_incidents_and_a_wrong_name_is_refused(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    disk.store(
        server_exit(7, now - 60, ("alpha", 3), ("beta", 1)),
        server_exit(8, now - 50, ("gamma", 1)),
        ended("gamma-2", 1, now - 10, "exited"),
    )
    assert [one["server_pid"] for one in answer(capsys, "beta")["deaths"]] == [7]
    assert [one["at"] for one in answer(capsys, "gam*")["deaths"]] == [now - 50, now - 10]
    assert "no deaths of never-started since" in show(capsys, "never-started")
    for wrong in ("betta", "x*"):
        with pytest.raises(Failed, match="is known here") as refused:
            Deaths().run(OPTIONS, wrong)
        assert refused.value.code == 3
    with pytest.raises(Failed, match="did you mean 'beta'"):
        Deaths().run(OPTIONS, "betta")


def test_many_agents_of_a_server_are_named_below_its_one_row(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    names = [f"a{number}" for number in range(1, 7)]
    launches = [ended(name, 1, now, "signaled" if name == "a6" else "server-lost") for name in names[1:]]
    disk.store(server_exit(7, now - 1, *((name, 1) for name in names)), *launches)
    told = show(capsys)
    assert [line.split("  ")[1:3] for line in told.splitlines() if line[0].isdigit()] == [
        ["server", "a1, a2, a3 and 3 more"]
    ]
    assert "    server-lost: a2 (launch 1), a3 (launch 1), a4 (launch 1), a5 (launch 1)\n" in told
    assert "    signaled: a6 (launch 1)\n" in told
    assert "    no death of its own is recorded: a1 (launch 1)\n" in told


def test_what_was_recorded_cannot_move_the_cursor(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J\n[red]x"
    disk.store(server_exit(7, time.time(), ("alpha", 1), evidence=hostile, socket=hostile, forensics=hostile))
    disk.report(observed(8, time.time(), hostile)._replace(cause=hostile, how=hostile, detected=hostile))
    told = show(capsys)
    assert "\x1b" not in told
    assert told.count("\\x1b[2J\\n[red]x") == 3 + 5


def test_a_server_that_is_gone_and_in_no_record_is_pointed_out(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = subprocess.Popen(["true"])
    gone = process_table.identify(dead.pid)
    dead.wait()
    assert gone is not None
    state, boot = str(disk.state.path), process_table.boot_id()
    lived = (WatchedAgent("alpha", 1, None, None, None, None),)
    one = Watched("/s/x", gone, boot, time.time(), False, lived)
    watched.write(state, one)
    note = "note: a tmux server is gone and not recorded yet (of alpha): a canary does that when it starts"
    assert note in show(capsys)
    watched.intend(state, gone, watched.ANY)
    assert "not recorded" not in show(capsys)
    watched.remove(state, one.name)
    for other in (one._replace(drill=True), one._replace(boot="another")):
        watched.write(state, other)
        assert "not recorded" not in show(capsys)
    watched.write(state, one)
    disk.report(observed(gone.pid, time.time(), "alpha")._replace(watched=one))
    assert answer(capsys)["notes"] == [], "it is in the spool already"


def test_mistakes_are_told_with_their_exit_code(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((ArgumentError, ValueError), match="--since 'soon'"):
        Deaths().run(OPTIONS, since="soon")
    disk.state.store.write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(Failed, match="exits.log has the deaths") as refused:
        Deaths().run(OPTIONS)
    assert refused.value.code == 1


def test_on_the_command_line(disk: Disk) -> None:
    program = str(Path(sys.executable).parent / "failoverctl")

    def run(*arguments: str, cwd: Path = disk.folder) -> tuple[int, str, str]:
        done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    disk.store(server_exit(7, time.time(), ("alpha", 3)))
    assert run("deaths", "--since", "2h", "alpha")[0] == 0
    code, out, err = run("deaths", "--since", "soon")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    elsewhere = disk.folder / "elsewhere"
    elsewhere.mkdir()
    code, out, err = run("deaths", cwd=elsewhere)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "which fleet?" in err
    code, out, err = run("--json", "deaths", "--ini", "../circus.ini", cwd=elsewhere)
    assert (code, err) == (0, "")
    assert json.loads(out)["deaths"][0]["server_pid"] == 7


def test_what_the_canary_reports_is_what_is_read(disk: Disk) -> None:
    one = observed(8, NOW, "beta", "gamma")
    disk.report(one)
    (row,) = deaths.in_spool(disk.state.spool)
    assert asdict(row) == one.report()
    assert os.listdir(disk.state.spool)
