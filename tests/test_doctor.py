"""What doctor makes of evidence: each check from values, none needs a host of a certain kind."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from circus_failover import doctor, doctor_checks, doctor_plugins, doctor_systemd
from circus_failover.doctor_checks import Check, Entry, Level
from circus_failover.doctor_plugins import Plugin
from circus_failover.doctor_systemd import Logind, Place, logind, logout, place, unit
from circus_failover.fleet_file import FleetFile
from circus_failover.process_table import ProcessId
from circus_failover.records import AgentRow, PluginRow, TaskRow
from circus_failover.settings import Settings, Shared
from circus_failover.state_dir import Holder

FOLDER = stat.S_IFDIR
SOCKET = stat.S_IFSOCK


def levels(checks: list[Check]) -> list[str]:
    return [str(check.level) for check in checks]


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 9), "fail"), ((3, 10), "ok"), ((3, 13), "ok"), ((3, 14), "warn")],
)
def test_python_is_judged_by_its_version(version: tuple[int, int], level: str) -> None:
    assert doctor_checks.python(version, "x").level == level


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (None, "fail"),
        ("tmux 3.1c", "fail"),
        ("tmux 3.2", "ok"),
        ("tmux 3.3a", "ok"),
        ("tmux next-3.6", "ok"),
        ("tmux 2.9", "fail"),
        ("tmux master", "warn"),
        ("", "warn"),
    ],
)
def test_tmux_is_judged_by_its_version(found: str | None, level: str) -> None:
    assert doctor_checks.tmux(found).level == level


@pytest.mark.parametrize(
    ("found", "level"),
    [(None, "fail"), ("0.18.0", "fail"), ("0.19.0", "ok"), ("0.20", "warn"), ("1.0", "warn")],
)
def test_a_package_is_judged_by_its_version(found: str | None, level: str) -> None:
    check = doctor_checks.package("circus", found, "0.19", "0.20")
    assert check.level == level
    assert level == "ok" or "pip install" in check.remedy


@pytest.mark.parametrize(
    ("endpoint", "level"),
    [
        ("tcp://127.0.0.1:5555", "warn"),
        ("tcp://localhost:5555", "warn"),
        ("tcp://[::1]:5555", "warn"),
        ("tcp://127.9.9.9:5555", "warn"),
        ("tcp://0.0.0.0:5555", "fail"),
        ("tcp://*:5555", "fail"),
        ("tcp://10.0.0.3:5555", "fail"),
        ("tcp://127.0.0.1.example.org:5555", "fail"),
        ("tcp://[::]:5555", "fail"),
    ],
)
def test_a_tcp_endpoint_is_never_all_right(endpoint: str, level: str) -> None:
    check = doctor_checks.tcp_endpoint("pubsub_endpoint", endpoint)
    assert check.level == level
    assert endpoint in check.finding
    assert "pubsub_endpoint = ipc://" in check.remedy


@pytest.mark.parametrize(
    ("socket", "folders", "level", "named"),
    [
        ((0o755, 7), [(0o700, 7), (0o755, 0)], "ok", "/a/b"),
        ((0o777, 7), [(0o755, 7), (0o700, 7)], "ok", "/a"),
        ((0o755, 7), [(0o755, 7), (0o755, 0)], "fail", "chmod 700 /a/b"),
        ((0o777, 7), [(0o755, 7), (0o755, 0)], "fail", "/a/b/ctl"),
        ((0o755, 7), [(0o750, 7), (0o755, 0)], "fail", "chmod 700 /a/b"),
        ((0o755, 7), [(0o1777, 0), (0o755, 0)], "fail", "a folder of its own"),
        ((0o755, 7), [(0o700, 8), (0o755, 0)], "fail", "a folder of its own"),
        ((None, 0), [(0o755, 7), (0o755, 0)], "fail", "chmod 700 /a/b"),
        ((None, 0), [(None, 0), (0o755, 0)], "warn", "mkdir -m 700 /a/b"),
    ],
)
def test_an_ipc_endpoint_needs_a_folder_that_lets_nobody_else_in(
    socket: tuple[int | None, int], folders: list[tuple[int | None, int]], level: str, named: str
) -> None:
    mode, owner = socket
    entry = Entry("/a/b/ctl", None if mode is None else SOCKET | mode, owner)
    above = [
        Entry(path, None if mode is None else FOLDER | mode, owner)
        for path, (mode, owner) in zip(("/a/b", "/a"), folders, strict=True)
    ]
    check = doctor_checks.ipc_endpoint("endpoint", "ipc:///a/b/ctl", entry, above, 7)
    assert check.level == level
    assert named in f"{check.finding} {check.remedy}"


def test_an_abstract_socket_is_open_to_everybody() -> None:
    check = doctor_checks.ipc_endpoint("endpoint", "ipc://@circus", Entry("@circus", None), [], 7)
    assert check.level is Level.FAIL


@pytest.mark.parametrize(
    ("mode", "owner", "level", "remedy"),
    [
        (FOLDER | 0o700, 7, "ok", ""),
        (FOLDER | 0o750, 7, "fail", "chmod 700 /s"),
        (FOLDER | 0o700, 8, "fail", "owner"),
        (stat.S_IFREG | 0o700, 7, "fail", "another state_dir"),
        (None, 0, "ok", ""),
    ],
)
def test_the_state_directory_is_this_users_alone(
    mode: int | None, owner: int, level: str, remedy: str
) -> None:
    check = doctor_checks.state_dir(Entry("/s", mode, owner), 7)
    assert check.level == level
    assert remedy in check.remedy


@pytest.mark.parametrize(
    ("now", "newest", "level"),
    [
        (1.8e9, None, "ok"),
        (1.8e9, 1.8e9 + 59, "ok"),
        (1.8e9, 1.8e9 + 61, "warn"),
        (1.8e9, 1.7e9, "ok"),
        (86400.0, None, "fail"),
    ],
)
def test_a_clock_behind_the_newest_record_is_told(now: float, newest: float | None, level: str) -> None:
    assert doctor_checks.clock(now, newest).level == level


@pytest.mark.parametrize(
    ("free", "inodes", "free_inodes", "level"),
    [
        (2 * 1024**3, 10**6, 10**5, "ok"),
        (500 * 1024**2, 10**6, 10**5, "warn"),
        (99 * 1024**2, 10**6, 10**5, "fail"),
        (2 * 1024**3, 10**6, 10, "fail"),
        (2 * 1024**3, 0, 0, "ok"),
    ],
)
def test_a_full_disk_is_told(free: int, inodes: int, free_inodes: int, level: str) -> None:
    assert doctor_checks.disk("/s", free, inodes, free_inodes).level == level


def test_the_supervisor_is_judged_by_what_circusd_says() -> None:
    fine = {"trouble": None, "last_tick": 99.0, "log_lines_lost": 0}
    assert levels(doctor_checks.supervisor(fine, 100.0)) == ["ok"]
    assert levels(doctor_checks.supervisor({**fine, "trouble": "no store"}, 100.0)) == ["fail"]
    assert levels(doctor_checks.supervisor({**fine, "last_tick": 80.0}, 100.0)) == ["fail"]
    assert levels(doctor_checks.supervisor({**fine, "last_tick": None}, 100.0)) == ["ok"]
    (lost,) = doctor_checks.supervisor({**fine, "log_lines_lost": 7}, 100.0)
    assert (lost.level, lost.check) == (Level.WARN, "lifecycle.log")
    assert "7 lines" in lost.finding
    (lost,) = doctor_checks.supervisor({**fine, "log_lines_lost": 7, "log_trouble": "disk full"}, 100.0)
    assert lost.finding.endswith("disk full")


def test_refused_held_and_wedged_agents_are_named() -> None:
    views: list[dict[str, object]] = [
        {"identity": "a", "phase": "up", "reason": None, "wedged": False, "server_pid": 1},
        {"identity": "b", "phase": "refused", "reason": "no such link", "wedged": False, "server_pid": None},
        {"identity": "c", "phase": "held", "reason": "crash loop", "wedged": False, "server_pid": None},
        {"identity": "d", "phase": "up", "reason": None, "wedged": True, "server_pid": 77},
    ]
    assert levels(doctor_checks.agents(views[:1])) == ["ok"]
    refused, wedged, held = doctor_checks.agents(views)
    assert (refused.level, held.level, wedged.level) == (Level.FAIL, Level.WARN, Level.FAIL)
    assert "c (crash loop)" in held.finding
    assert "no such link" in refused.finding
    assert refused.remedy == "failoverctl explain b"
    assert "pid 77" in wedged.finding


def test_one_line_names_every_agent_that_is_held_with_its_time_or_given_up() -> None:
    held = {"phase": "held", "reason": "died too often", "wedged": False, "server_pid": None}
    views: list[dict[str, object]] = [
        {**held, "identity": "a", "cause": "crash-loop", "held_until": 1.8e9},
        {**held, "identity": "b", "cause": "given-up", "held_until": None},
        {**held, "identity": "c", "cause": "limited", "held_until": 1.8e9},
    ]
    line, limited = doctor_checks.agents(views)
    assert (limited.level, limited.check) == (Level.WARN, "limited")
    assert limited.finding == "held because of their accounts: c (until 2027-01-15 08:00:00 UTC)"
    assert "failoverctl accounts" in limited.remedy and "reset" not in limited.remedy
    assert (line.level, line.check) == (Level.WARN, "held")
    assert "a (until 2027-01-15 08:00:00 UTC), b (given up)" in line.finding
    assert "failoverctl reset" in line.remedy


def task(waited: float, note: str | None = None, identity: str = "bob") -> TaskRow:
    return TaskRow(7, identity, "a secret", None, "me", 1000.0 - waited, note=note)


def test_a_task_that_waits_long_for_an_agent_that_is_up_is_told_with_its_note() -> None:
    up = AgentRow("bob", phase="up", ready_at=0.0)
    rows = {"bob": up}
    assert levels(doctor_checks.tasks([], rows, 1000.0)) == ["ok"]
    assert levels(doctor_checks.tasks([task(600.0)], rows, 1000.0)) == ["ok"]
    (line,) = doctor_checks.tasks([task(660.0, "the input line did not take it")], rows, 1000.0)
    assert (line.level, line.check) == (Level.WARN, "tasks")
    assert "task 7 waits for 11 minutes for bob" in line.finding
    assert line.finding.endswith("the input line did not take it")
    assert "a secret" not in f"{line.finding}{line.remedy}"


@pytest.mark.parametrize(
    ("phase", "ready_at", "level"),
    [
        ("up", 0.0, "warn"),
        ("up", None, "warn"),
        ("up", 900.0, "ok"),
        ("parked", 0.0, "ok"),
        (None, 0.0, "ok"),
    ],
)
def test_only_time_in_which_the_agent_could_have_taken_a_task_counts(
    phase: str | None, ready_at: float | None, level: str
) -> None:
    rows = {"bob": AgentRow("bob", phase=phase, ready_at=ready_at)} if phase else {}
    assert levels(doctor_checks.tasks([task(990.0)], rows, 1000.0)) == [level]


@pytest.mark.parametrize(
    ("status", "running", "level"),
    [("active", 1, "ok"), ("active", 0, "fail"), ("stopped", 0, "fail"), (None, 0, "fail")],
)
def test_a_plugin_must_be_active_and_have_a_process(status: str | None, running: int, level: str) -> None:
    assert levels(doctor_plugins.plugins([Plugin("plugin:x", status, running)])) == [level]


@pytest.mark.parametrize(
    ("use", "name"),
    [
        ("circus_failover.plugins.IdleReaper", "IdleReaper"),
        ("circus_failover.plugins.idle_reaper.IdleReaper", "IdleReaper"),
        ("circus.plugins.flapping.Flapping", None),
        ("my_circus_failover.plugins.IdleReaper", None),
        ("circus_failover.pluginsX.IdleReaper", None),
        ("", None),
    ],
)
def test_our_plugins_are_known_by_where_they_come_from(use: str, name: str | None) -> None:
    assert doctor_plugins.ours(use) == name


def test_without_a_guard_nothing_restarts_and_the_remedy_is_its_section() -> None:
    guard, reaper = doctor_plugins.judged([], {}, [])
    assert (guard.level, guard.check) == (Level.WARN, "CrashLoopGuard")
    assert "no restart policy is carried out" in guard.finding
    assert "[plugin:guard]" in guard.remedy
    assert "use = circus_failover.plugins.CrashLoopGuard" in guard.remedy
    assert (reaper.level, reaper.check) == (Level.OK, "IdleReaper")
    assert "no agent is ever parked" in reaper.finding


def test_a_missing_reaper_is_a_warning_only_when_settings_ask_for_it() -> None:
    (reaper,) = doctor_plugins.judged(["CrashLoopGuard"], {}, ["bob"])
    assert (reaper.level, reaper.check) == (Level.WARN, "IdleReaper")
    assert "bob" in reaper.finding
    assert "use = circus_failover.plugins.IdleReaper" in reaper.remedy
    assert doctor_plugins.judged(["CrashLoopGuard", "IdleReaper"], {}, ["bob"]) == []


def test_plugins_that_only_say_what_they_would_do_are_told() -> None:
    dry = {"CrashLoopGuard": "plugin:guard", "IdleReaper": "plugin:idle"}
    guard, reaper = doctor_plugins.judged(dry, dry, ["bob"])
    assert (guard.level, reaper.level) == (Level.WARN, Level.OK)
    assert guard.remedy == "dry_run = False in [plugin:guard]"
    there = ["CrashLoopGuard", "IdleReaper", "Notify"]
    (teller,) = doctor_plugins.judged(there, {"Notify": "plugin:tell"}, [])
    assert (teller.level, teller.check) == (Level.WARN, "Notify") and "nobody is told" in teller.finding
    assert teller.remedy == "dry_run = False in [plugin:tell]"


def test_a_heartbeat_that_nobody_listens_to_is_told() -> None:
    others = ["CrashLoopGuard", "IdleReaper"]
    assert doctor_plugins.judged([*others, "Heartbeat"], {}, [], [], ["bob"]) == []
    (heart,) = doctor_plugins.judged(others, {}, [], [], ["bob"])
    assert (heart.level, heart.check) == (Level.WARN, "Heartbeat") and "bob" in heart.finding
    assert "use = circus_failover.plugins.Heartbeat" in heart.remedy
    (heart,) = doctor_plugins.judged([*others, "Heartbeat"], {"Heartbeat": "plugin:heart"}, [])
    assert heart.level is Level.OK and "dry_run" in heart.finding
    agents: list[dict[str, object]] = [{"name": "bob", "failover.heartbeat": "self"}]
    said = declares(agents, {}, *({"name": "x", "use": f"circus_failover.plugins.{name}"} for name in others))
    assert [check.check for check in said] == ["Heartbeat"]


def declares(
    agents: list[dict[str, object]], defaults: dict[str, str], *plugins: dict[str, str]
) -> list[Check]:
    """Judge a circus.ini with these agents and plugins."""
    path = Path("/f/failover.yaml")
    settings = Settings(path, Path("/s"), Shared(), (), MappingProxyType(defaults))
    file = FleetFile(
        path=Path("/f/circus.ini"),
        endpoint="",
        pubsub_endpoint="",
        env={"FAILOVER_CONFIG": "failover.yaml"},
        agents=tuple(agents),
        other_watchers=(),
        plugins=plugins,
    )
    return doctor_plugins.declared(file, {path: settings})


@pytest.mark.parametrize(
    ("own", "default", "level"),
    [
        (None, None, "ok"),
        ("600", None, "warn"),
        ("0", None, "ok"),
        ("0.0", None, "ok"),
        ("10", None, "warn"),
        (None, "600", "warn"),
        ("0", "600", "ok"),
    ],
)
@pytest.mark.parametrize("option", ["idle_secs", "max_age_secs"])
def test_whether_settings_ask_for_a_park_is_read_from_section_and_defaults(
    option: str, own: str | None, default: str | None, level: str
) -> None:
    agent: dict[str, object] = {"name": "bob", **({f"failover.{option}": own} if own is not None else {})}
    checks = declares([agent], {} if default is None else {option: default})
    assert [check.level for check in checks if check.check == "IdleReaper"] == [level]


def test_agents_whose_clients_tell_what_they_do_want_the_plugin_that_looks() -> None:
    claude: dict[str, object] = {"name": "bob", "failover.runtime": "claude"}
    codex: dict[str, object] = {"name": "eve"}
    command: dict[str, object] = {"name": "joe", "failover.runtime": "command"}
    checks = declares([claude, codex, command], {"runtime": "codex"})
    (line,) = [check for check in checks if check.check == "AgentStates"]
    assert line.level == Level.WARN and line.finding.endswith("what these agents do: bob, eve")
    assert "[plugin:states] and use = circus_failover.plugins.AgentStates" in line.remedy
    states = {"name": "plugin:states", "use": "circus_failover.plugins.AgentStates"}
    for found in (declares([claude], {}, states), declares([command], {}), declares([{"name": "joe"}], {})):
        assert [check for check in found if check.check == "AgentStates"] == []


def test_a_dry_run_is_read_from_the_plugins_own_section() -> None:
    guard = {"name": "plugin:guard", "use": "circus_failover.plugins.CrashLoopGuard"}
    reaper = {"name": "plugin:idle", "use": "circus_failover.plugins.IdleReaper"}
    assert declares([{"name": "bob"}], {}, guard, reaper) == []
    (line,) = declares([{"name": "bob"}], {}, {**guard, "dry_run": "yes"}, reaper)
    assert (line.level, line.check) == (Level.WARN, "CrashLoopGuard")


def said(at: float, interval: float, errors: int = 0, **detail: object) -> PluginRow:
    return PluginRow(
        "x", 1, at, 0.003, interval, 40, errors, "no answer" if errors else None, json.dumps(detail)
    )


@pytest.mark.parametrize(
    ("row", "since", "level"),
    [
        (said(1000.0, 1.0), None, "ok"),
        (said(992.0, 1.0), None, "ok"),
        (said(991.9, 1.0), None, "warn"),
        (said(991.9, 30.0), None, "ok"),
        (said(904.9, 30.0), None, "warn"),
        (said(2000.0, 1.0), None, "ok"),
        (None, None, "warn"),
        (None, 60.0, "warn"),
        (None, 3.0, "ok"),
        (said(10.0, 1.0), 3.0, "ok"),
        (said(10.0, 1.0), 60.0, "warn"),
        (said(1000.0, 1.0, errors=2), None, "warn"),
        (said(1000.0, 1.0, alert="look at the host"), None, "fail"),
        (said(1000.0, 1.0, alert=None), None, "ok"),
    ],
)
def test_a_plugin_is_judged_by_its_own_interval_and_by_what_it_says(
    row: PluginRow | None, since: float | None, level: str
) -> None:
    (line,) = doctor_plugins.ticks("IdleReaper", "plugin:idle", row, 1000.0, since)
    assert (line.level, line.check) == (level, "IdleReaper")


def test_a_tick_that_takes_longer_than_its_interval_is_told() -> None:
    for secs, expected in ((1.9, ["ok"]), (2.0, ["ok"]), (2.1, ["warn"])):
        row = replace(said(1000.0, 1.0), secs=secs)
        (line,) = found = doctor_plugins.ticks("IdleReaper", "plugin:idle", row, 1000.0, None)
        assert levels(found) == expected
    assert "took 2.1 s" in line.finding and "every 1 s" in line.finding and "[plugin:idle]" in line.remedy


def test_a_plugins_alert_and_its_last_error_are_both_said() -> None:
    row = said(1000.0, 1.0, errors=2, alert="relaunches have stopped")
    alert, errors = doctor_plugins.ticks("CrashLoopGuard", "plugin:guard", row, 1000.0, None)
    assert alert.finding == "relaunches have stopped"
    assert "2 errors in 40 ticks" in errors.finding
    assert "no answer" in errors.finding
    odd = PluginRow("x", 1, 1000.0, 0.0, 1.0, detail="[1")
    assert levels(doctor_plugins.ticks("x", "plugin:x", odd, 1000.0, None)) == ["ok"]


def test_a_long_check_delay_is_a_warning() -> None:
    assert doctor_checks.check_delay(5.0).level is Level.OK
    assert doctor_checks.check_delay(30.0).level is Level.WARN


def test_agents_without_a_section_are_listed_by_whether_they_run() -> None:
    assert levels(doctor_checks.undeclared([], {})) == ["ok"]
    (running,) = doctor_checks.undeclared(["bob"], {})
    assert running.level is Level.WARN
    assert "run, and no section" in running.finding
    (gone,) = doctor_checks.undeclared([], {"eve": "parked", "zoe": "stopped"})
    assert gone.level is Level.WARN
    assert "eve (parked), zoe (stopped)" in gone.finding
    assert "come back as they were" in gone.remedy
    assert "failoverctl purge" in gone.remedy
    assert levels(doctor_checks.undeclared(["bob"], {"eve": "parked"})) == ["warn", "warn"]


def test_the_lock_and_the_answer_must_belong_together(tmp_path: Path) -> None:
    ini = tmp_path / "circus.ini"
    held = Holder(ProcessId(5, 1), "ipc:///x", str(ini))
    assert doctor.lock(None, ini).level is Level.OK
    assert doctor.lock(held, ini).level is Level.OK
    assert doctor.lock(held, tmp_path / "other.ini").level is Level.FAIL
    assert doctor.lock(Holder(ProcessId(0, 0), "unknown", "unknown"), ini).level is Level.WARN
    answer = {"status": "ok", "circusd": {"pid": 5}}
    assert doctor.reached("e", held, answer).level is Level.OK
    assert doctor.reached("e", held, {"status": "ok", "circusd": {"pid": 6}}).level is Level.FAIL
    assert doctor.reached("e", held, None).level is Level.FAIL
    assert doctor.reached("e", None, None).level is Level.WARN
    assert doctor.reached("e", held, {"status": "error", "reason": "unknown command"}).level is Level.FAIL


# -- systemd -----------------------------------------------------------------------------------------

V1 = "12:cpu,cpuacct:/system.slice/a.service\n1:name=systemd:{}\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("0::/system.slice/circus.service\n", Place("circus.service")),
        (V1.format("/system.slice/circus.service"), Place("circus.service")),
        ("0::/system.slice/system-circus.slice/circus@prod.service/sub\n", Place("circus@prod.service")),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/circus.service\n",
            Place("circus.service", 1000),
        ),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope\n",
            Place(None, 1000),
        ),
        ("0::/user.slice/user-1000.slice/session-c3.scope\n", Place(session="session-c3.scope")),
        (V1.format("/user.slice/user-0.slice/session-4.scope"), Place(session="session-4.scope")),
        ("1:name=systemd:/\n0::/system.slice/circus.service\n", Place("circus.service")),
        ("0::/docker/0123456789abcdef\n", Place()),
        ("0::/system.slice/docker-0123.scope\n", Place()),
        ("0::/system.slice/_weird.service\n", Place("weird.service")),
        ("0::/\n", Place()),
        ("", Place()),
        ("nonsense\n\n", Place()),
    ],
)
def test_the_unit_of_a_process_is_read_from_its_control_group(cgroup: str, expected: Place) -> None:
    assert place(cgroup) == expected


@pytest.mark.parametrize(
    ("kill", "memory", "expected"),
    [
        ("process", "continue", ["ok"]),
        ("none", "continue", ["ok"]),
        ("control-group", "continue", ["fail"]),
        ("mixed", "continue", ["fail"]),
        ("process", "stop", ["fail"]),
        ("process", "kill", ["fail"]),
        ("control-group", "stop", ["fail", "fail"]),
        ("process", "", ["ok"]),
    ],
)
def test_a_unit_that_would_end_agents_fails(kill: str, memory: str, expected: list[str]) -> None:
    shown = doctor_systemd.parse_show(f"KillMode={kill}\nOOMPolicy={memory}\nSendSIGKILL=yes\n")
    checks = unit("circusd", Place("circus.service"), shown)
    assert levels(checks) == expected
    for check in checks:
        assert check.level is Level.OK or "systemctl edit circus.service" in check.remedy


def test_a_units_unknown_settings_are_a_warning_and_not_all_right() -> None:
    assert levels(unit("circusd", Place("circus.service", 1000), None)) == ["warn"]
    assert doctor_systemd.parse_show("") is None
    assert doctor_systemd.parse_show("KillMode=\n") is None


def test_asking_for_another_users_unit_is_unknown() -> None:
    assert doctor_systemd.unit_settings(Place("circus.service", 99999)) is None


def drop_in(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_the_last_assignment_for_logind_wins_and_same_names_override(tmp_path: Path) -> None:
    main = tmp_path / "logind.conf"
    main.write_text("[Login]\n#KillUserProcesses=no\n")
    usr, run, etc = (tmp_path / name for name in ("usr", "run", "etc"))
    assert logind(main, (usr, etc)).kill is False
    drop_in(usr, "50-x.conf", "[Login]\nKillUserProcesses=yes\n")
    assert logind(main, (usr, run, etc)).kill is True
    drop_in(etc, "50-x.conf", "[Login]\nKillUserProcesses = no\n")
    assert logind(main, (usr, run, etc)).kill is False
    drop_in(run, "90-y.conf", "[Login]\nKillUserProcesses=TRUE\nKillExcludeUsers=root bob\n")
    assert logind(main, (usr, run, etc)) == Logind(True, (), ("root", "bob"))
    drop_in(run, "95-z.conf", "[Login]\nKillUserProcesses=\n")
    assert logind(main, (usr, run, etc)).kill is False
    drop_in(run, "ignored.txt", "[Login]\nKillUserProcesses=yes\n")
    assert logind(main, (usr, run, etc)).kill is False
    drop_in(run, "96-broken.conf", "KillUserProcesses=yes\n[[[")
    assert logind(main, (usr, run, etc)).kill is False


def test_without_any_word_on_it_logind_is_unknown(tmp_path: Path) -> None:
    assert logind(tmp_path / "nothing", (tmp_path / "nowhere",)).kill is None


@pytest.mark.parametrize(
    ("found", "settings", "linger", "expected"),
    [
        (Place(session="session-1.scope"), Logind(True), False, ["fail"]),
        (Place(session="session-1.scope"), Logind(True), True, ["fail"]),
        (Place(session="session-1.scope"), Logind(False), False, ["ok"]),
        (Place(session="session-1.scope"), Logind(None), False, ["warn"]),
        (Place(session="session-1.scope"), Logind(True, exclude=("bob",)), False, ["ok"]),
        (Place(session="session-1.scope"), Logind(True, only=("eve",)), False, ["ok"]),
        (Place("circus.service", 1000), Logind(False), False, ["fail"]),
        (Place("circus.service", 1000), Logind(True), True, ["ok"]),
        (Place("circus.service"), Logind(True), False, []),
        (Place(), Logind(True), False, []),
    ],
)
def test_logout_is_judged_by_where_a_process_is(
    found: Place, settings: Logind, linger: bool, expected: list[str]
) -> None:
    checks = logout("circusd", found, "bob", settings, linger)
    assert levels(checks) == expected
    for check in checks:
        assert check.level is not Level.FAIL or "loginctl enable-linger bob" in check.remedy


def test_root_is_not_logged_out_by_default() -> None:
    assert Logind(True).kills("root") is False
    assert Logind(True).kills("bob") is True
