"""The options of one watcher, read through Circus's own parser from real ini files."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest
from circus.config import get_config, watcher_defaults
from circus.watcher import Watcher
from hypothesis import given
from hypothesis import strategies as st

from circus_failover import agent_settings, task_text
from circus_failover.agent_settings import (
    IDENTITY,
    AgentSettings,
    Mode,
    Restart,
    check_defaults,
    parse,
    socket_path_limit,
)
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import Dialog
from circus_failover.settings import Account, Problem, Settings, SettingsError, Shared
from circus_failover.words import Kind, OnLimit, Orphans
from tests.picky_runtime import PickyRuntime

ACCOUNTS = (Account("main", "command", Path("/homes/main")), Account("cl", "claude", Path("/homes/cl")))
START = """
[circus]
check_delay = 1

[watcher:%s]
cmd = failover-session
hooks.before_start = circus_failover.hooks.enrol
"""


def settings(
    accounts: tuple[Account, ...] = ACCOUNTS, state_dir: Path = Path("/s"), **defaults: str
) -> Settings:
    return Settings(Path("/etc/fleet/failover.yaml"), state_dir, Shared(Path("/shared")), accounts, defaults)


def agent(base: Path, lines: str, using: Settings | None = None, name: str = "bob") -> AgentSettings:
    path = base / "circus.ini"
    path.write_text(START % name + lines, encoding="utf-8")
    (watcher,) = get_config(str(path))["watchers"]
    return parse(watcher, using or settings(), "circus.ini")


def problems(base: Path, lines: str, using: Settings | None = None, name: str = "bob") -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        agent(base, lines, using, name)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("failover.comand = x", "failover.command"),
        ("failovr.account = main", "failover.account"),
        ("Failover.account = main", "failover.account"),
        ("failover_account = main", "failover.account"),
        ("account = main", "failover.account"),
        ("command = x", "failover.command"),
        ("autostrat = False", "autostart"),
        ("workingdir = /tmp", "working_dir"),
        ("stop-signal = 2", "stop_signal"),
    ],
)
def test_an_unknown_option_is_told_with_the_nearest_known_one(tmp_path: Path, line: str, meant: str) -> None:
    (problem,) = problems(tmp_path, f"failover.command = run\n{line}\n")
    assert problem.key == line.split(" = ")[0]
    assert f"did you mean {meant!r}?" in str(problem)


def test_an_option_that_resembles_none_is_another_hooks_and_circuss_own_are_all_known(tmp_path: Path) -> None:
    agent(tmp_path, "failover.command = run\nowner = me\nflapping.max_retry = 2\nslack_channel = ops\n")
    known = {*watcher_defaults(), *inspect.signature(Watcher.__init__).parameters, "check_flapping"}
    assert known - {"self", "loop", "options"} == agent_settings.CIRCUS_OPTIONS


def test_the_smallest_agent_has_the_documented_values(tmp_path: Path) -> None:
    using = settings()
    assert agent(tmp_path, "failover.command = run 'me now' x\n", using) == AgentSettings(
        identity="bob",
        settings=using,
        runtime="command",
        command=("run", "me now", "x"),
        args=(),
        dialogs={},
        account=None,
        configured_account=None,
        socket=Path("/s/tmux/bob.sock"),
        own_server=True,
        session="bob",
        restart=Restart.ON_WORK,
        mode=Mode.MANAGE,
        prepare=None,
        prepare_secs=300,
        stop_secs=10,
        ready_secs=1,
        boot_secs=240,
        ready_match=None,
        kind=Kind.EXECUTOR,
        resume_command=None,
        resume_lost=True,
        resume_max_age_secs=86400,
        idle_secs=3600,
        max_age_secs=0,
        crash_max=3,
        crash_window_secs=300,
        stable_secs=300,
        initial_prompt=None,
        pool=None,
        pool_min=0,
        work_retries=3,
        on_orphan=Orphans.PERSON,
        done_on_idle=False,
        heartbeat=None,
        grace_secs=300.0,
        nudge_secs=900.0,
        stuck_secs=1800.0,
        progress_secs=1800.0,
        nudge_no_progress=False,
        queue_max_age_secs=3600.0,
        on_limit=OnLimit.NOTIFY,
        switch_at=0,
        working_dir=Path(os.getcwd()),
        autostart=True,
    )


def test_every_option_is_taken(tmp_path: Path) -> None:
    found = agent(
        tmp_path,
        f"""
failover.config = failover.yaml
failover.runtime = command
failover.command = run
failover.account = main
failover.socket = run/shared.sock
failover.session = Bob_1
failover.restart = always
failover.mode = observe
failover.prepare = git pull
failover.prepare_secs = 5
failover.stop_secs = 2.5
failover.ready_secs = 0
failover.boot_secs = 60
failover.ready_match = ^❯ $
failover.kind = conversation
failover.resume_command = run --resume "{{conversation}}"
failover.resume_lost = off
failover.resume_max_age_secs = 3600
failover.idle_secs = 0
failover.max_age_secs = 604800
failover.crash_max = 5
failover.crash_window_secs = 60
failover.stable_secs = 30.5
failover.initial_prompt = read NOTES.md
failover.pool = night.1
working_dir = {tmp_path}
autostart = False
numprocesses = 1
uid = {os.geteuid()}
""",
    )
    assert (found.account, found.socket, found.own_server) == (
        ACCOUNTS[0],
        Path("/etc/fleet/run/shared.sock"),
        False,
    )
    assert (found.session, found.restart, found.mode) == ("Bob_1", Restart.ALWAYS, Mode.OBSERVE)
    assert (found.prepare, found.prepare_secs, found.stop_secs) == ("git pull", 5, 2.5)
    assert (found.ready_secs, found.boot_secs, found.pool) == (0, 60, "night.1")
    assert (found.ready_match, found.kind) == ("^❯ $", Kind.CONVERSATION)
    assert (found.resume_command, found.resume_lost) == (("run", "--resume", "{conversation}"), False)
    assert (found.resume_max_age_secs, found.idle_secs, found.max_age_secs) == (3600, 0, 604800)
    assert (found.crash_max, found.crash_window_secs, found.stable_secs) == (5, 60, 30.5)
    assert found.initial_prompt == "read NOTES.md"
    assert (found.working_dir, found.autostart) == (tmp_path, False)


@pytest.mark.parametrize("text", ["true", "On", "YES", "1"])
def test_a_switch_may_be_written_in_any_usual_way(tmp_path: Path, text: str) -> None:
    assert agent(
        tmp_path, RUN + f"failover.resume_lost = {text}\n", settings(resume_lost="false")
    ).resume_lost
    off = {"true": "false", "On": "Off", "YES": "no", "1": "0"}[text]
    assert not agent(tmp_path, RUN + f"failover.resume_lost = {off}\n").resume_lost


@pytest.mark.parametrize(
    "lines", ["", "failover.resume_max_age_secs = 315360000\nfailover.idle_secs = 31536000\n"]
)
@pytest.mark.parametrize("crash_max", ["1", "100", "003"])
def test_the_largest_and_the_smallest_numbers_are_taken(tmp_path: Path, lines: str, crash_max: str) -> None:
    found = agent(tmp_path, RUN + lines + f"failover.crash_max = {crash_max}\n")
    assert found.crash_max == int(crash_max)
    assert found.idle_secs == (31536000 if lines else 3600)


def test_a_prompt_of_several_lines_is_one_text(tmp_path: Path) -> None:
    lines = "failover.initial_prompt = read NOTES.md,\n  then\tgo on at 100% (é)\n"
    assert agent(tmp_path, RUN + lines).initial_prompt == "read NOTES.md,\nthen\tgo on at 100% (é)"


def test_what_resumes_need_not_name_the_conversation(tmp_path: Path) -> None:
    found = agent(tmp_path, RUN + "failover.resume_command = run --continue\n")
    assert found.resume_command == ("run", "--continue")


def test_defaults_fill_in_what_the_watcher_leaves_out(tmp_path: Path) -> None:
    using = settings(command="run", restart="lazy", stop_secs="3", account="main")
    found = agent(tmp_path, "failover.stop_secs = 4\n", using)
    assert (found.command, found.restart, found.stop_secs) == (("run",), Restart.LAZY, 4)
    assert found.account == ACCOUNTS[0]


def test_a_mistake_in_the_defaults_names_failover_yaml(tmp_path: Path) -> None:
    using = settings(command="run", restart="lzy", rstart="lazy", config="x")
    found = problems(tmp_path, "", using)
    assert {problem.file for problem in found} == {"/etc/fleet/failover.yaml"}
    assert {problem.key for problem in found} == {"defaults.restart", "defaults.rstart", "defaults.config"}
    assert {problem.key for problem in check_defaults(using)} == {"defaults.rstart", "defaults.config"}
    assert "did you mean 'restart'" in str(SettingsError(check_defaults(using)))


def test_a_mistake_of_the_watcher_is_not_the_defaults(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "failover.restart = x\n", settings(command="run", restart="lazy"))
    assert (problem.file, problem.key) == ("circus.ini", "failover.restart")


def test_a_server_that_the_defaults_name_is_not_the_agents_own(tmp_path: Path) -> None:
    found = agent(tmp_path, "", settings(command="run", socket="/run/one.sock"))
    assert (found.socket, found.own_server) == (Path("/run/one.sock"), False)


def test_a_flag_that_is_neither_true_nor_false_is_a_problem() -> None:
    watcher = {"name": "bob", "cmd": "failover-session", "failover.command": "run", "autostart": "perhaps"}
    with pytest.raises(SettingsError, match="autostart: found 'perhaps', expected True or False"):
        parse(watcher, settings(), "circus.ini")


def test_a_working_directory_that_was_removed_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    watcher = {"name": "bob", "cmd": "failover-session", "failover.command": "run"}
    with pytest.raises(SettingsError, match="own is gone"):
        parse(watcher, settings(), "circus.ini")


def test_an_observed_agent_needs_no_command(tmp_path: Path) -> None:
    assert agent(tmp_path, "failover.mode = observe\n").command == ()


def test_socket_paths_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN", "/run/x")
    assert agent(tmp_path, "failover.command = a\nfailover.socket = $RUN/t.sock\n").socket == Path(
        "/run/x/t.sock"
    )


RUN = "failover.command = run\n"
# the watcher's lines, then the key, the value and a piece of what is expected, of the only problem
MISTAKES: list[tuple[str, str, object, str]] = [
    ("", "failover.command", None, "the command that runs the agent"),
    ("failover.command =\n", "failover.command", "", "leave the option out"),
    ("failover.command = 'run\n", "failover.command", "'run", "quotes closed"),
    ("failover.command = ''\n", "failover.command", "''", "names a program"),
    (RUN + "failover.restrat = lazy\n", "failover.restrat", "lazy", "did you mean 'failover.restart'"),
    (RUN + "failover.zzz = 1\n", "failover.zzz", "1", "a known option: failover.config"),
    (
        RUN + "failover.restart = lzy\n",
        "failover.restart",
        "lzy",
        "lazy, on-work, always; did you mean 'lazy'",
    ),
    (RUN + "failover.mode = Manage\n", "failover.mode", "Manage", "manage, observe"),
    (RUN + "failover.runtime = claud\n", "failover.runtime", "claud", "one of command, claude, codex"),
    (RUN + "failover.account = mian\n", "failover.account", "mian", "did you mean 'main'"),
    (RUN + "failover.account = cl\n", "failover.account", "cl", "this one is of runtime claude"),
    (RUN + "failover.account =\n", "failover.account", "", "leave the option out"),
    (RUN + "failover.session = a:b\n", "failover.session", "a:b", "1 to 100"),
    (RUN + "failover.session = -a\n", "failover.session", "-a", "1 to 100"),
    (RUN + "failover.pool = a b\n", "failover.pool", "a b", "1 to 63"),
    (RUN + "failover.socket = $NOT_SET/x\n", "failover.socket", "$NOT_SET/x", "'NOT_SET' is not"),
    (RUN + "failover.socket = /a\x07b\n", "failover.socket", "/a\x07b", "control characters"),
    (RUN + "failover.prepare = a\0b\n", "failover.prepare", "a\0b", "NUL"),
    (RUN + "failover.stop_secs = soon\n", "failover.stop_secs", "soon", "from 0 to 3600"),
    (RUN + "failover.stop_secs = -1\n", "failover.stop_secs", "-1", "from 0 to 3600"),
    (RUN + "failover.stop_secs = nan\n", "failover.stop_secs", "nan", "from 0 to 3600"),
    (RUN + "failover.stop_secs = inf\n", "failover.stop_secs", "inf", "from 0 to 3600"),
    (RUN + "failover.stop_secs = 1_0\n", "failover.stop_secs", "1_0", "from 0 to 3600"),
    (RUN + "failover.stop_secs = 3601\n", "failover.stop_secs", "3601", "from 0 to 3600"),
    (RUN + "failover.boot_secs = x\n", "failover.boot_secs", "x", "seconds"),
    (RUN + "failover.ready_secs = x\n", "failover.ready_secs", "x", "seconds"),
    (RUN + "failover.prepare_secs = x\n", "failover.prepare_secs", "x", "seconds"),
    (RUN + "failover.idle_secs = 31536001\n", "failover.idle_secs", "31536001", "from 0 to 31536000"),
    (RUN + "failover.idle_secs = never\n", "failover.idle_secs", "never", "seconds: a number from 0"),
    (RUN + "failover.max_age_secs = -1\n", "failover.max_age_secs", "-1", "from 0 to 315360000"),
    (RUN + "failover.max_age_secs = 315360001\n", "failover.max_age_secs", "315360001", "to 315360000"),
    (RUN + "failover.resume_max_age_secs = 1d\n", "failover.resume_max_age_secs", "1d", "to 315360000"),
    (RUN + "failover.crash_window_secs = 86401\n", "failover.crash_window_secs", "86401", "from 0 to 86400"),
    (RUN + "failover.stable_secs = nan\n", "failover.stable_secs", "nan", "from 0 to 86400"),
    (RUN + "failover.crash_max = 0\n", "failover.crash_max", "0", "how many deaths: a whole number from 1"),
    (RUN + "failover.crash_max = 101\n", "failover.crash_max", "101", "from 1 to 100"),
    (RUN + "failover.crash_max = 2.5\n", "failover.crash_max", "2.5", "whole number"),
    (RUN + "failover.crash_max = -3\n", "failover.crash_max", "-3", "whole number"),
    (RUN + "failover.crash_max = ٣\n", "failover.crash_max", "٣", "whole number"),
    (
        RUN + "failover.kind = conversations\n",
        "failover.kind",
        "conversations",
        "did you mean 'conversation'",
    ),
    (RUN + "failover.resume_lost = maybe\n", "failover.resume_lost", "maybe", "true or false"),
    (RUN + "failover.resume_command = run '\n", "failover.resume_command", "run '", "quotes closed"),
    (RUN + "failover.resume_command = ''\n", "failover.resume_command", "''", "names a program"),
    (RUN + "failover.resume_command =\n", "failover.resume_command", "", "leave the option out"),
    (RUN + "failover.ready_match = (❯\n", "failover.ready_match", "(❯", "of Python (missing )"),
    (RUN + "failover.ready_match = .*\n", "failover.ready_match", ".*", "an empty screen does not match"),
    (RUN + "failover.ready_match = ❯?\n", "failover.ready_match", "❯?", "an empty screen does not match"),
    (RUN + "failover.initial_prompt = a\x1b[2J\n", "failover.initial_prompt", "a\x1b[2J", "U+001B (ESC)"),
    (RUN + "failover.initial_prompt =\n", "failover.initial_prompt", "", "leave the option out"),
    (RUN + "failover.idle_sec = 3\n", "failover.idle_sec", "3", "did you mean 'failover.idle_secs'"),
    (RUN + "numprocesses = 2\n", "numprocesses", 2, "1: an agent is one session"),
    (RUN + "numprocesses = 0\n", "numprocesses", 0, "1: an agent is one session"),
    (RUN + "uid = 54321\n", "uid", "54321", "no such user"),
    (RUN + "uid = no-such-user\n", "uid", "no-such-user", "no such user"),
    (RUN + "shell = True\n", "shell", True, "no shell"),
    (RUN + "on_demand = True\n", "on_demand", True, "no on_demand"),
    (RUN + "executable = /bin/sh\n", "executable", "/bin/sh", "no executable"),
    (RUN + "working_dir = /not/there\n", "working_dir", "/not/there", "an existing folder"),
    (RUN + "working_dir = ~\n", "working_dir", "~", "neither '~' nor"),
    (RUN + "working_dir = /etc/passwd\n", "working_dir", "/etc/passwd", "an existing folder"),
]


@pytest.mark.parametrize("lines, key, value, said", MISTAKES, ids=[row[0].strip() for row in MISTAKES])
def test_each_mistake_names_its_key_its_value_and_what_is_allowed(
    tmp_path: Path, lines: str, key: str, value: object, said: str
) -> None:
    (problem,) = problems(tmp_path, lines)
    assert (problem.file, problem.section, problem.key, problem.value) == (
        "circus.ini",
        "watcher:bob",
        key,
        value,
    )
    assert said in problem.expected
    assert str(problem).isprintable()


def test_the_sentence_of_a_mistake_is_for_the_one_who_mends_it(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, RUN + "failover.crash_max = many\n")
    assert str(problem) == (
        "circus.ini: [watcher:bob] failover.crash_max: found 'many', "
        "expected how many deaths: a whole number from 1 to 100"
    )
    (problem,) = problems(tmp_path, RUN, settings(idle_secs="an hour"))
    assert str(problem) == (
        "/etc/fleet/failover.yaml: defaults.idle_secs: found 'an hour', "
        "expected seconds: a number from 0 to 31536000"
    )


def test_an_initial_prompt_may_be_as_long_as_a_task_and_no_longer() -> None:
    watcher = {"name": "bob", "cmd": "failover-session", "failover.command": "run"}
    longest = "x" * task_text.MAX_BYTES
    assert (
        parse({**watcher, "failover.initial_prompt": longest}, settings(), "circus.ini").initial_prompt
        == longest
    )
    with pytest.raises(SettingsError, match=r"4 MiB") as caught:
        parse({**watcher, "failover.initial_prompt": longest + "x"}, settings(), "circus.ini")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["Bob", "b" * 200, "bob_1", "-bob", "b" * 64, "bob smith", "é", "bob.x"])
def test_a_bad_identity_is_refused(tmp_path: Path, name: str) -> None:
    (problem,) = problems(tmp_path, RUN + "failover.session = s\n", name=name)
    assert (problem.key, problem.value) == ("name", name)


@pytest.mark.parametrize("name", ["b", "0", "bob-2", "b" * 63])
def test_a_good_identity_is_taken(tmp_path: Path, name: str) -> None:
    assert agent(tmp_path, RUN, name=name).identity == name


@pytest.mark.parametrize(
    "cmd, fine",
    [
        ("failover-session", True),
        ("/opt/x/bin/failover-session", True),
        ("failover-session2", False),
        ("sh -c failover-session", False),
        ("'failover-session", False),
        ("", False),
    ],
)
def test_the_watcher_must_run_the_keeper(cmd: str, fine: bool) -> None:
    watcher = {"name": "bob", "cmd": cmd, "failover.command": "run"}
    if fine:
        assert parse(watcher, settings(), "circus.ini").identity == "bob"
        return
    with pytest.raises(SettingsError) as caught:
        parse(watcher, settings(), "circus.ini")
    (problem,) = caught.value.problems
    assert problem.key == "cmd"
    assert "failover-session" in problem.expected


@pytest.mark.skipif(os.geteuid() != 0, reason="names root as the user that runs this")
def test_a_uid_by_name_is_fine_when_it_is_this_user(tmp_path: Path) -> None:
    assert agent(tmp_path, RUN + "uid = root\n")
    (problem,) = problems(tmp_path, RUN + "uid = daemon\n")
    assert problem.key == "uid"
    assert "no such user" not in problem.expected


def test_an_account_without_any_configured_is_its_own_message(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, RUN + "failover.account = main\n", settings(()))
    assert "it has none" in problem.expected


@pytest.mark.parametrize("length, fine", [(socket_path_limit(), True), (socket_path_limit() + 1, False)])
def test_a_socket_path_may_be_as_long_as_the_system_allows(tmp_path: Path, length: int, fine: bool) -> None:
    path = "/" + "s" * (length - 1)
    if fine:
        assert str(agent(tmp_path, RUN + f"failover.socket = {path}\n").socket) == path
    else:
        (problem,) = problems(tmp_path, RUN + f"failover.socket = {path}\n")
        assert (problem.key, problem.value) == ("failover.socket", path)
        assert f"at most {length - 1} bytes (this has {length})" in problem.expected


def test_the_limit_counts_bytes_and_includes_the_default_path(tmp_path: Path) -> None:
    using = settings(state_dir=Path("/" + "é" * 50))
    (problem,) = problems(tmp_path, RUN, using)
    assert problem.key == "failover.socket"
    assert "a shorter state_dir" in problem.expected


def test_the_limit_is_the_systems() -> None:
    assert (socket_path_limit("linux"), socket_path_limit("darwin")) == (107, 103)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    lines = """
failover.command = 'run
failover.acount = main
failover.restart = x
failover.stop_secs = x
failover.socket = ~nobody-of-that-name/x
numprocesses = 3
shell = True
working_dir = /not/there
"""
    assert {problem.key for problem in problems(tmp_path, lines, name="Bob")} == {
        "name", "failover.command", "failover.acount", "failover.restart", "failover.stop_secs",
        "failover.socket", "numprocesses", "shell", "working_dir",
    }  # fmt: skip


@given(name=st.text(), options=st.dictionaries(st.sampled_from(
    ["failover.command", "failover.socket", "failover.session", "failover.stop_secs", "failover.account",
     "failover.x", "failover.restart", "working_dir", "uid", "cmd", "numprocesses", "autostart",
     "failover.kind", "failover.crash_max", "failover.ready_match", "failover.resume_command",
     "failover.resume_lost", "failover.idle_secs", "failover.initial_prompt"]
), st.text() | st.integers() | st.none()))  # fmt: skip
def test_any_watcher_is_an_agent_or_printable_problems(name: str, options: dict[str, object]) -> None:
    watcher: dict[str, object] = {
        "name": name,
        "cmd": "failover-session",
        "failover.command": "run",
        **options,
    }
    try:
        found = parse(watcher, settings(), "circus.ini")
    except SettingsError as error:
        assert all(str(problem).isprintable() and len(str(problem)) < 3000 for problem in error.problems)
    else:
        assert IDENTITY.fullmatch(found.identity)
        assert found.command or found.mode is Mode.OBSERVE
        assert 0 <= found.stop_secs <= 3600
        assert 1 <= found.crash_max <= 100
        assert found.resume_command is None or found.resume_command[0]


# -- what is a client's, and what the supervisor gives it ----------------------------------------------


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> PickyRuntime:
    made = PickyRuntime()
    made.dialogs = (Dialog("trust", "whether it is trusted", {"accept": ("Enter",)}), Dialog("login", "", {}))
    monkeypatch.setitem(RUNTIMES, "claude", made)
    return made


CLAUDE = "failover.runtime = claude\n"


@pytest.mark.parametrize(
    ("lines", "key", "value", "expected"),
    [
        (
            "failover.args = -v --resume=x\n",
            "failover.args",
            "--resume=x",
            "no --resume: the supervisor",
        ),
        ("failover.command = claude -r\n", "failover.command", "-r", "no -r: the supervisor resumes"),
        ("failover.resume_command = claude\n", "failover.resume_command", "claude", "resumes by itself"),
        ("failover.dialogs = trust=yes\n", "failover.dialogs", "trust=yes", "trust=accept"),
        ("failover.dialogs = trust\n", "failover.dialogs", "trust", "trust=accept"),
        ("failover.dialogs = turst=accept\n", "failover.dialogs", "turst=accept", "did you mean 'trust'"),
        (
            "failover.dialogs = login=accept\n",
            "failover.dialogs",
            "login=accept",
            "has to answer login",
        ),
    ],
)
def test_what_a_client_s_agent_may_not_have_is_told_with_the_reason(
    tmp_path: Path, picky: PickyRuntime, lines: str, key: str, value: str, expected: str
) -> None:
    (problem,) = problems(tmp_path, CLAUDE + lines)
    assert (problem.key, problem.value) == (key, value)
    assert expected in problem.expected


def test_all_owned_arguments_are_told_at_once(tmp_path: Path, picky: PickyRuntime) -> None:
    found = problems(tmp_path, CLAUDE + "failover.command = claude --resume a\nfailover.args = resume -rb\n")
    assert [(one.key, one.value) for one in found] == [
        ("failover.command", "--resume"),
        ("failover.args", "resume"),
        ("failover.args", "-rb"),
    ]


def test_a_default_for_agents_of_another_runtime_is_no_mistake(tmp_path: Path, picky: PickyRuntime) -> None:
    using = settings(resume_command="run --resume", dialogs="trust=accept")
    claude = agent(tmp_path, CLAUDE, using)
    assert (claude.resume_command, claude.dialogs) == (None, {"trust": "accept"})
    command = agent(tmp_path, "failover.command = run\n", using)
    assert (command.resume_command, command.dialogs) == (("run", "--resume"), {})
    (problem,) = problems(tmp_path, CLAUDE, settings(dialogs="nonsense=accept"))
    assert (problem.file, problem.key) == ("/etc/fleet/failover.yaml", "defaults.dialogs")


def test_a_client_that_resumes_by_itself_is_resumable_and_a_command_only_with_its_option(
    tmp_path: Path,
) -> None:
    assert agent(tmp_path, CLAUDE).resumable
    assert agent(tmp_path, "failover.runtime = codex\n").resumable
    assert not agent(tmp_path, "failover.command = run\n").resumable
    assert agent(tmp_path, "failover.command = run\nfailover.resume_command = run -r\n").resumable
