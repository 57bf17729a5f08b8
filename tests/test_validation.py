"""A whole fleet checked offline, everything at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circus_failover import shared_state
from circus_failover.fleet_file import ENROL
from circus_failover.policy.gate import Divergence
from circus_failover.settings import Problem
from circus_failover.validation import Report, validate

YAML = """
state_dir: state
shared: {root: shared}
accounts:
  - {name: main, home: homes/main}
  - {name: spare, home: homes/spare}
"""


def fleet(base: Path, yaml: str = YAML, **agents: str) -> Path:
    """A circus.ini with one agent for each keyword, named after it, with these lines."""
    (base / "failover.yaml").write_text(yaml)
    text = "[env]\nFAILOVER_CONFIG = failover.yaml\n"
    for name, lines in agents.items():
        text += f"[watcher:{name}]\ncmd = failover-session\nhooks.before_start = {ENROL}\n{lines}\n"
    (base / "circus.ini").write_text(text)
    return base / "circus.ini"


def create(ini: Path) -> Report:
    for settings in validate(ini).settings:
        shared_state.create(settings)
    return validate(ini)


def places(found: Report) -> list[tuple[str, str, str]]:
    return [(Path(problem.file).name, problem.section, problem.key) for problem in found.problems]


RUN = "failover.command = run\n"


def test_a_fleet_in_order_is_ok(tmp_path: Path) -> None:
    report = create(fleet(tmp_path, bob=RUN + "failover.account = main", eve=RUN))
    assert report.ok
    assert (report.accepted, report.refused) == (("bob", "eve"), ())


def test_validate_changes_nothing(tmp_path: Path) -> None:
    ini = fleet(tmp_path, bob=RUN)
    report = validate(ini)
    assert sorted(os.listdir(tmp_path)) == ["circus.ini", "failover.yaml"]
    assert not report.ok
    assert {failure.kind for failure in report.failures} == {Divergence.ROOT_MISSING, Divergence.HOME_MISSING}
    assert report.refused == ("bob",)


def test_a_mistake_in_failover_yaml_hides_no_other_there_nor_in_an_agent_or_a_home(tmp_path: Path) -> None:
    yaml = YAML.replace("name: spare", "name: main, hom: x").replace("root: shared", "root: shared, never: x")
    yaml += "  - {name: deep, home: homes/main/deep}\n"
    yaml += "state_dri: x\ndefaults: {restart: sometimes, stop_sec: 1, pool: [1], account: none-such}\n"
    report = validate(fleet(tmp_path, yaml, bob=RUN + "failover.mode = x"))
    assert sorted(places(report)) == [
        ("circus.ini", "watcher:bob", "failover.mode"),
        ("failover.yaml", "", "accounts[1].hom"),
        ("failover.yaml", "", "accounts[1].name"),
        ("failover.yaml", "", "defaults.pool"),
        ("failover.yaml", "", "defaults.restart"),
        ("failover.yaml", "", "defaults.stop_sec"),
        ("failover.yaml", "", "shared.never"),
        ("failover.yaml", "", "state_dri"),
    ]
    assert {(failure.account, failure.kind) for failure in report.failures} == {
        ("", Divergence.ROOT_MISSING),
        ("main", Divergence.HOME_MISSING),
        ("deep", Divergence.HOME_MISSING),
        ("deep", Divergence.HOME_INSIDE),
    }
    assert (report.accepted, report.refused, report.settings) == ((), ("bob",), ())


def test_a_value_that_would_keep_circusd_from_starting_hides_no_other_mistake(tmp_path: Path) -> None:
    ini = fleet(
        tmp_path,
        YAML.replace("state_dir", "state_dri"),
        ann=RUN + "numprocesses = two\nfailover.restrat = lazy\nautostart = False\nrlimit_nofile = 99",
        bob=RUN,
    )
    (tmp_path / "more.ini").write_text(
        f"[watcher:eve]\ncmd = x\npriority = high\nhooks.before_start = {ENROL}\n"
    )
    ini.write_text("[circus]\ninclude = more.ini\ncheck_delay = soon\n" + ini.read_text())
    report = validate(ini)
    assert sorted(places(report)) == [
        ("circus.ini", "circus", "check_delay"),
        ("circus.ini", "watcher:ann", "failover.restrat"),
        ("circus.ini", "watcher:ann", "numprocesses"),
        ("failover.yaml", "", "state_dir"),
        ("failover.yaml", "", "state_dri"),
        ("more.ini", "watcher:eve", "cmd"),
        ("more.ini", "watcher:eve", "priority"),
    ]
    assert report.failures
    assert (report.accepted, report.refused) == ((), ("ann", "bob", "eve"))


def test_what_is_in_the_place_of_a_socket_is_told_before_tmux_removes_it(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    lines = {
        "ann": "notes",
        "bob": "nowhere/s",
        "eve": "nowhere/s\nfailover.mode = observe",
        "ian": "state/s",
        "joe": ".",
    }
    agents = {name: f"{RUN}failover.socket = {where}\n" for name, where in lines.items()}
    report = create(fleet(tmp_path, **agents))
    assert [(problem.section[-3:], problem.key) for problem in report.problems] == [
        (name, "failover.socket") for name in ("ann", "bob", "joe")
    ]
    assert "something else is there" in str(report.problems[0])
    assert f"{tmp_path}/nowhere is none" in str(report.problems[1])
    assert report.accepted == ("eve", "ian")


def test_a_wrong_agent_is_refused_alone(tmp_path: Path) -> None:
    report = create(fleet(tmp_path, bob=RUN, eve=RUN + "failover.mode = x", ann="numprocesses = 2"))
    assert (report.accepted, report.refused) == (("bob",), ("ann", "eve"))
    assert places(report) == [
        ("circus.ini", "watcher:ann", "numprocesses"),
        ("circus.ini", "watcher:ann", "failover.command"),
        ("circus.ini", "watcher:eve", "failover.mode"),
    ]


def test_mistakes_in_how_an_agent_wakes_and_is_held_are_told_together_and_refuse_it_alone(
    tmp_path: Path,
) -> None:
    wrong = (
        "failover.kind = talker\nfailover.crash_max = 0\nfailover.resume_command = '\nfailover.idle_secs = -1"
    )
    plugins = "\n[plugin:reaper]\nuse = circus_failover.plugins.IdleReaper\ninterval = 5\n"
    report = create(fleet(tmp_path, bob=RUN + "failover.kind = conversation" + plugins, eve=RUN + wrong))
    assert (report.accepted, report.refused) == (("bob",), ("eve",))
    assert sorted(places(report)) == [
        ("circus.ini", "watcher:eve", f"failover.{option}")
        for option in ("crash_max", "idle_secs", "kind", "resume_command")
    ]


def test_mistakes_in_failover_yaml_are_told_once_with_those_of_the_agents(tmp_path: Path) -> None:
    yaml = YAML.replace("state_dir", "state_dri")
    ini = fleet(
        tmp_path, yaml, bob=RUN + "failover.account = main", eve="failover.mode = x\nfailover.socket = y"
    )
    report = validate(ini)
    assert sorted(places(report)) == [
        ("circus.ini", "watcher:eve", "failover.mode"),
        ("failover.yaml", "", "state_dir"),
        ("failover.yaml", "", "state_dri"),
    ]
    assert report.refused == ("bob", "eve")


def test_mistakes_in_the_defaults_are_told_once(tmp_path: Path) -> None:
    report = create(fleet(tmp_path, YAML + "defaults: {comand: run, restart: x}\n", bob=RUN, eve=RUN))
    assert sorted(places(report)) == [
        ("failover.yaml", "", "defaults.comand"),
        ("failover.yaml", "", "defaults.restart"),
    ]


def test_an_unknown_default_is_told_also_without_agents(tmp_path: Path) -> None:
    (tmp_path / "failover.yaml").write_text(YAML + "defaults: {comand: run}\n")
    (tmp_path / "circus.ini").write_text("[watcher:web]\ncmd = x\n")
    report = validate(tmp_path / "circus.ini")
    assert report.ok  # no agent uses the file
    assert any("no agents" in note for note in report.notes)


@pytest.mark.parametrize(
    "bob, eve, clash",
    [
        ("failover.socket = s", "failover.socket = s", False),
        ("failover.socket = s\nfailover.session = x", "failover.socket = s\nfailover.session = x", True),
        ("failover.socket = s\nfailover.session = x", "failover.socket = link/s\nfailover.session = x", True),
        ("failover.session = x", "failover.session = x", False),
        ("", "failover.socket = state/tmux/bob.sock\nfailover.session = bob", True),
    ],
)
def test_two_agents_cannot_be_the_same_session(tmp_path: Path, bob: str, eve: str, clash: bool) -> None:
    (tmp_path / "link").symlink_to(".")
    report = create(fleet(tmp_path, bob=RUN + bob, eve=RUN + eve))
    assert places(report) == ([("circus.ini", "watcher:eve", "failover.session")] if clash else [])
    assert report.refused == (("eve",) if clash else ())


def test_an_agent_without_any_failover_yaml_is_a_problem(tmp_path: Path) -> None:
    ini = fleet(tmp_path, bob=RUN)
    ini.write_text(ini.read_text().replace("FAILOVER_CONFIG", "OTHER"))
    report = validate(ini)
    assert places(report) == [("circus.ini", "watcher:bob", "failover.config")]
    assert report.refused == ("bob",)


def test_one_circusd_has_one_state_directory(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("state_dir: other\n")
    (tmp_path / "three.yaml").write_text("state_dir: ./x/../state\n")
    (tmp_path / "x").mkdir()
    ini = fleet(
        tmp_path,
        bob=RUN,
        eve=RUN + "failover.config = two.yaml",
        zoe=RUN + "failover.config = three.yaml",
    )
    assert places(create(ini)) == [("two.yaml", "", "state_dir")]


def test_an_account_is_the_same_one_in_every_failover_yaml_of_a_circusd(tmp_path: Path) -> None:
    (tmp_path / "same.yaml").write_text(YAML)
    (tmp_path / "two.yaml").write_text(
        YAML.replace("home: homes/main", "home: homes/new").replace("name: spare", "name: renamed")
    )
    lines = {"bob": RUN, "eve": RUN + "failover.config = same.yaml"}
    assert not places(create(fleet(tmp_path, **lines)))
    report = create(fleet(tmp_path, **lines, zoe=RUN + "failover.config = two.yaml"))
    assert places(report) == [("two.yaml", "", "accounts[0].name"), ("two.yaml", "", "accounts[1].home")]
    name, home = report.problems
    assert (name.value, home.value) == ("main", str(tmp_path / "homes/spare"))
    assert f"in {tmp_path}/failover.yaml it is command in {tmp_path}/homes/main" in name.expected
    assert "the name spare" in home.expected


def state_problems(base: Path) -> list[Problem]:
    return [problem for problem in create(fleet(base, bob=RUN)).problems if problem.key == "state_dir"]


@pytest.mark.parametrize("mode, fine", [(0o700, True), (0o750, False), (0o707, False), (0o500, False)])
def test_the_state_directory_is_for_its_owner_alone(tmp_path: Path, mode: int, fine: bool) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    found = state_problems(tmp_path)
    assert (found == []) is fine
    assert all(f"{mode:04o}" in problem.expected for problem in found)


def test_a_state_directory_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert "something else is there" in state_problems(tmp_path)[0].expected


def test_a_state_directory_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o755)
    (problem,) = validate(fleet(tmp_path, "state_dir: file/state\n", bob=RUN)).problems
    assert problem.key == "state_dir"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_state_directory_in_a_folder_that_is_not_writable_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    (problem,) = validate(fleet(tmp_path, "state_dir: locked/state\n", bob=RUN)).problems
    assert "may write to" in problem.expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_state_directory_of_somebody_else_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", 12345, -1)
    assert "uid 12345" in state_problems(tmp_path)[0].expected


def test_the_gate_of_every_account_is_told_also_when_it_is_not_strict(tmp_path: Path) -> None:
    yaml = YAML.replace("root: shared", "root: shared, strict: false")
    ini = fleet(
        tmp_path, yaml, bob=RUN + "failover.account = main", eve=RUN + "failover.account = spare", ann=RUN
    )
    assert create(ini).ok
    (tmp_path / "homes/spare/projects").unlink()
    report = validate(ini)
    assert [(failure.account, failure.kind) for failure in report.failures] == [
        ("spare", Divergence.MISSING_LINK)
    ]
    assert (report.accepted, report.refused) == (("ann", "bob"), ("eve",))


def test_an_env_file_that_cannot_be_used_is_told_without_a_word_of_it(tmp_path: Path) -> None:
    yaml = YAML.replace("homes/main}", "homes/main, env_file: main.env}")
    ini = fleet(tmp_path, yaml, bob=RUN + "failover.account = main", eve=RUN + "failover.account = spare")
    path = tmp_path / "main.env"
    path.write_text("TOKEN=Marker\nMarker\nFAILOVER_HOME=Marker\n")
    path.chmod(0o600)
    report = create(ini)
    assert [(problem.file, problem.line) for problem in report.problems] == [(str(path), 2), (str(path), 3)]
    assert "main.env:2: found a line that cannot be used, expected NAME=value" in str(report.problems[0])
    assert "Marker" not in str(report)
    assert (report.accepted, report.refused) == (("eve",), ("bob",))
    path.write_text("TOKEN=Marker\n")
    path.chmod(0o640)
    (problem,) = validate(ini).problems
    assert str(problem).startswith(f"{path}: found mode 0640, expected mode 0600")
    path.chmod(0o600)
    assert validate(ini).ok


def test_an_ini_that_cannot_be_read_is_a_report_too(tmp_path: Path) -> None:
    report = validate(tmp_path / "gone.ini")
    assert not report.ok
    assert "No such file" in str(report.problems[0])


def test_a_missing_tmux_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ini = fleet(tmp_path, bob=RUN)
    assert create(ini).ok
    monkeypatch.setenv("PATH", str(tmp_path))
    report = validate(ini)
    assert report.ok
    assert any("tmux" in note for note in report.notes)
