"""circus.ini read offline, through Circus's own parser."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from circus_failover.fleet_file import ENROL, FleetFile, read
from circus_failover.settings import Problem, SettingsError

FLEET = f"""
[circus]
endpoint = ipc:///run/x.sock
pubsub_endpoint = ipc:///run/y.sock

[env]
FAILOVER_CONFIG = conf/failover.yaml
A = b

[plugin:health]
use = some.plugin
priority = 3
interval = 5
dry_run = true

[watcher:web]
cmd = sleep 1

[watcher:bob]
cmd = failover-session
failover.command = run
hooks.before_start = {ENROL}

[watcher:eve]
cmd = failover-session
failover.config = /own/failover.yaml
hooks.before_start = {ENROL},true
"""


def write(base: Path, text: str, name: str = "circus.ini") -> Path:
    path = base / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(base: Path, text: str) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        read(write(base, text))
    return list(caught.value.problems)


def named(fleet: FleetFile, name: str) -> dict[str, object]:
    return dict(next(agent for agent in fleet.agents if agent["name"] == name))


def test_a_fleet_is_read(tmp_path: Path) -> None:
    fleet = read(write(tmp_path, FLEET))
    assert fleet.path == tmp_path / "circus.ini"
    assert (fleet.endpoint, fleet.pubsub_endpoint) == ("ipc:///run/x.sock", "ipc:///run/y.sock")
    assert fleet.env == {"FAILOVER_CONFIG": "conf/failover.yaml", "A": "b"}
    assert [agent["name"] for agent in fleet.agents] == ["bob", "eve"]
    assert fleet.other_watchers == ("web",)
    (plugin,) = fleet.plugins
    assert (plugin["name"], plugin["use"], plugin["priority"]) == ("plugin:health", "some.plugin", "3")
    assert (plugin["interval"], plugin["dry_run"]) == ("5", "true")
    assert fleet.problems == ()
    assert fleet.notes == ()


def test_an_enrolled_watcher_is_an_agent_also_when_it_says_true(tmp_path: Path) -> None:
    fleet = read(write(tmp_path, FLEET))
    assert named(fleet, "eve")["hooks"] == {"before_start": [ENROL, True]}


def test_failover_yaml_is_the_watchers_then_that_of_env_then_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILOVER_CONFIG", "process.yaml")
    fleet = read(write(tmp_path, FLEET))
    assert fleet.config_path(named(fleet, "eve")) == Path("/own/failover.yaml")
    assert fleet.config_path(named(fleet, "bob")) == tmp_path / "conf/failover.yaml"
    assert fleet.config_path({"name": "x"}) == tmp_path / "conf/failover.yaml"
    assert fleet.config_paths() == (tmp_path / "conf/failover.yaml", Path("/own/failover.yaml"))
    bare = read(write(tmp_path, f"[watcher:bob]\ncmd = failover-session\nhooks.before_start = {ENROL}\n"))
    assert bare.config_path(named(bare, "bob")) == tmp_path / "process.yaml"
    monkeypatch.delenv("FAILOVER_CONFIG")
    assert bare.config_path(named(bare, "bob")) is None
    assert bare.config_paths() == ()


def test_failover_yaml_of_one_watchers_env_goes_before_that_of_all(tmp_path: Path) -> None:
    fleet = read(write(tmp_path, FLEET + "\n[env:bob]\nFAILOVER_CONFIG = bobs.yaml\n"))
    assert fleet.config_path(named(fleet, "bob")) == tmp_path / "bobs.yaml"


def test_the_path_of_failover_yaml_expands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("CONF", "/conf")
    fleet = read(write(tmp_path, FLEET))
    for text, expected in {"~/f.yaml": "/home/me/f.yaml", "$CONF/f.yaml": "/conf/f.yaml"}.items():
        assert fleet.config_path({"failover.config": text}) == Path(expected)


def test_agents_of_included_files_name_the_file_they_are_in(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    extra = write(tmp_path / "agents", f"[watcher:ann]\ncmd = x\nhooks.before_start = {ENROL}\n", "ann.ini")
    fleet = read(write(tmp_path, FLEET.replace("[circus]", "[circus]\ninclude_dir = agents")))
    assert [agent["name"] for agent in fleet.agents] == ["ann", "bob", "eve"]
    assert fleet.source("watcher:ann") == str(extra)
    assert fleet.source("watcher:bob") == str(tmp_path / "circus.ini")


@pytest.mark.parametrize(
    "line, value",
    [("include_dir = agnets", "agnets"), ("include_dir = ag*", "ag*"), ("include = more.ini", "more.ini")],
)
def test_an_include_that_leads_nowhere_is_a_problem(tmp_path: Path, line: str, value: str) -> None:
    fleet = read(write(tmp_path, FLEET.replace("[circus]", f"[circus]\n{line}")))
    assert [(problem.section, problem.value) for problem in fleet.problems] == [("circus", value)]


def test_an_include_that_may_match_nothing_is_none(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    text = FLEET.replace("[circus]", "[circus]\ninclude = extra-*.ini\ninclude_dir = agents")
    assert read(write(tmp_path, text)).problems == ()


def test_a_section_that_stands_there_twice_is_a_note(tmp_path: Path) -> None:
    fleet = read(write(tmp_path, FLEET + "\n[watcher:bob]\ncmd = other\n[env]\nX = y\n"))
    assert [agent["name"] for agent in fleet.agents] == ["bob", "eve"]
    (note,) = fleet.notes
    assert "[watcher:bob]" in note


@pytest.mark.parametrize(
    "lines, key",
    [
        ("hooks.before_start = circus_failover.hook.enrol", "hooks.before_start"),
        ("hooks.before_start = circus_failover.hooks.enroll", "hooks.before_start"),
        ("hooks.before_start = circus_failover.hooks:enrol", "hooks.before_start"),
        ("hooks.before_start = circus-failover.hooks.enrol,true", "hooks.before_start"),
        (f"hooks.before_spawn = {ENROL}", "hooks.before_spawn"),
        (f"hooks.befor_start = {ENROL}", "hooks.befor_start"),
        ("failover.command = run", "failover.command"),
    ],
)
def test_a_watcher_that_almost_is_an_agent_is_a_problem(tmp_path: Path, lines: str, key: str) -> None:
    fleet = read(write(tmp_path, f"{FLEET}\n[watcher:ann]\ncmd = x\n{lines}\n"))
    assert [(problem.section, problem.key) for problem in fleet.problems] == [("watcher:ann", key)]
    assert "ann" in fleet.other_watchers


def test_a_watcher_with_a_hook_of_its_own_is_none_of_ours(tmp_path: Path) -> None:
    text = f"{FLEET}\n[watcher:ann]\ncmd = x\nhooks.before_start = mine.hooks.check\n"
    assert read(write(tmp_path, text)).problems == ()


@pytest.mark.parametrize(
    "text, section, key, value",
    [
        ("[watcher:a]\ncmd = x\nnumprocesses = one", "watcher:a", "numprocesses", "one"),
        ("[watcher:a]\ncmd = x\nautostart = perhaps", "watcher:a", "autostart", "perhaps"),
        ("[watcher:a]\ncmd = x\nstop_signal = SIGNOT", "watcher:a", "stop_signal", "SIGNOT"),
        ("[watcher:a]\ncmd = x\ngraceful_timeout = x", "watcher:a", "graceful_timeout", "x"),
        (f"[watcher:a]\ncmd = x\nhooks.before_start = {ENROL},maybe", "watcher:a", "hooks.before_start",
         f"{ENROL},maybe"),
        ("[watcher:a]\ncmd = x\nrlimit_nofile = many", "watcher:a", "rlimit_nofile", "many"),
        ("[circus]\ncheck_delay = fast", "circus", "check_delay", "fast"),
        ("[circus]\nhttpd = perhaps", "circus", "httpd", "perhaps"),
        ("[circus]\numask = 9", "circus", "umask", "9"),
        ("[plugin:p]\nuse = x\npriority = high", "plugin:p", "priority", "high"),
    ],
)  # fmt: skip
def test_a_value_that_circus_cannot_convert_names_its_section_and_key(
    tmp_path: Path, text: str, section: str, key: str, value: str
) -> None:
    (problem,) = problems(tmp_path, text + "\n")
    assert (problem.file, problem.section) == (str(tmp_path / "circus.ini"), section)
    assert (problem.key, problem.value) == (key, value)


def test_what_circus_does_not_convert_is_not_checked(tmp_path: Path) -> None:
    text = "[other]\nnumprocesses = x\n[watcher:a]\ncmd = x\nrlimit_core =\ncopy_env = 1\n"
    assert read(write(tmp_path, text)).other_watchers == ("a",)


def test_all_values_that_circus_cannot_convert_are_told_at_once(tmp_path: Path) -> None:
    text = "[circus]\ncheck_delay = x\n[watcher:a]\ncmd = x\nnumprocesses = x\nrespawn = x\n"
    assert [problem.key for problem in problems(tmp_path, text)] == ["check_delay", "numprocesses", "respawn"]


def test_a_value_from_env_is_left_to_circus(tmp_path: Path) -> None:
    text = FLEET + "\n[watcher:z]\ncmd = x\nnumprocesses = $(circus.env.N)\nwarmup_delay = ((circus.env.N))\n"
    assert read(write(tmp_path, text.replace("A = b", "N = 2"))).problems == ()
    (problem,) = problems(tmp_path, text)
    assert "ValueError" in str(problem)


@pytest.mark.parametrize(
    "text, said",
    [
        ("key = value\n", ":1: "),
        ("[circus]\nnonsense\n", ":2: "),
        ("[watcher:a]\ncmd = x\nhooks = x\nhooks.before_start = y\n", "values that Circus can read"),
        ("[watcher:a]\ncmd = x\nstdout_stream = x\n", "values that Circus can read"),
    ],
)
def test_a_file_that_circus_cannot_take_apart_is_a_problem(tmp_path: Path, text: str, said: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert said in str(problem)
    assert str(problem).isprintable()


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"[watcher:a]\ncmd = \xff\n")
    for name, said in {"gone": "No such file", ".": "Is a directory", "latin": "not UTF-8 (0xff)"}.items():
        with pytest.raises(SettingsError) as caught:
            read(tmp_path / name)
        assert said in str(caught.value)


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lines=st.lists(st.tuples(
    st.sampled_from(["[watcher:a]", "[circus]", "[env]", "[env:a]", "[plugin:p]", "cmd", "hooks.before_start",
                     "hooks", "failover.command", "numprocesses", "rlimit_core", "stdout_stream.x", "include",
                     "stop_signal"]),
    st.text(max_size=12) | st.sampled_from([ENROL, "1", "$(circus.env.a)", "((circus.env.a))"]),
), max_size=8))  # fmt: skip
def test_any_file_is_a_fleet_or_printable_problems(tmp_path: Path, lines: list[tuple[str, str]]) -> None:
    text = "\n".join(key if key.startswith("[") else f"{key} = {value}" for key, value in lines)
    path = tmp_path / "circus.ini"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        fleet = read(path)
    except SettingsError as error:
        assert error.problems
        assert all(str(problem).isprintable() for problem in error.problems)
    else:
        assert all(str(problem).isprintable() for problem in fleet.problems)
        assert len(fleet.config_paths()) <= len(fleet.agents)
