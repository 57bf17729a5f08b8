"""The command line without a circusd: usage, help, offline verbs, units and completion scripts."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from circus_failover import ctl, systemd_unit
from circus_failover.circusd_control import unsettled
from circus_failover.circusd_site import absolute, listens
from circus_failover.completion import SHELLS, script
from circus_failover.failure import Failed
from tests.live import forked

PROGRAM = str(Path(sys.executable).parent / "failoverctl")
LOCAL = ("validate", "up", "down", "attach", "canaries", "deaths", "drill", "doctor", "unit", "completion")


def run(
    *arguments: str, cwd: Path, anew: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run failoverctl; `anew` as a program of its own, else from a process that has its imports done."""
    variables = {**os.environ, "CIRCUSCTL_ENDPOINT": f"ipc://{cwd}/nobody", **environment}
    if not anew:
        return subprocess.CompletedProcess(arguments, *forked.run("failoverctl", arguments, variables, cwd))
    return subprocess.run(
        [PROGRAM, *arguments], cwd=cwd, env=variables, capture_output=True, text=True, timeout=60
    )


def describe(folder: Path, *, agents: str = "alpha", settings: str = "state_dir: state\n") -> Path:
    lines = ["[circus]", f"endpoint = ipc://{folder}/ctl", f"pubsub_endpoint = ipc://{folder}/pub"]
    lines += ["[env]", "FAILOVER_CONFIG = failover.yaml"]
    for name in agents.split():
        lines += [f"[watcher:{name}]", "cmd = failover-session", "failover.command = sleep 1000"]
        lines += ["hooks.before_start = circus_failover.hooks.enrol", f"working_dir = {folder}"]
    ini = folder / "circus.ini"
    ini.write_text("\n".join(lines) + "\n")
    (folder / "failover.yaml").write_text(settings)
    folder.chmod(0o700)
    return ini


ACCOUNTS = """\
state_dir: state
shared: {root: shared, links: [projects]}
accounts:
- {name: one, runtime: command, home: homes/one}
- {name: two, runtime: command, home: homes/two}
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "no verb 'nonsense'"),
        (["fleeet"], 2, "did you mean 'fleet'"),
        (["validate", "a", "b"], 2, "takes one circus.ini"),
        (["validate", "--nonsense"], 2, "--nonsense"),
        (["validate"], 1, "expected a circus.ini"),
        (["validate", "nope.ini"], 1, "no such file"),
        (["up"], 1, "expected a circus.ini"),
        (["up", "a", "b"], 2, "takes one circus.ini"),
        (["up", "--timeout-secs", "soon"], 2, "'soon'"),
        (["up", "--timeout-secs", "-1"], 2, "'-1'"),
        (["up", "--timeout-secs", "nan"], 2, "'nan'"),
        (["up", "--timeout-secs"], 2, "--timeout-secs"),
        (["up", "."], 1, "a folder is there"),
        (["down", "nope.ini"], 1, "no such file"),
        (["down", "a", "b"], 2, "takes one circus.ini"),
        (["attach"], 2, "takes the name of one agent"),
        (["attach", "a", "b"], 2, "takes the name of one agent"),
        (["attach", "bob"], 1, "no answer from"),
        (["attach", "bob", "--ini", "nope.ini"], 1, "no such file"),
        (["unit", "nope.ini"], 1, "no such file"),
        (["doctor", "a", "b"], 2, "takes one circus.ini"),
        (["canaries", "a", "b"], 2, "takes one circus.ini"),
        (["canaries", "nope.ini"], 1, "no such file"),
        (["canaries"], 1, "which fleet?"),
        (["deaths", "--since", "soon"], 2, "'soon'"),
        (["deaths", "--ini", "nope.ini"], 1, "no such file"),
        (["drill", "a", "b"], 2, "takes one circus.ini"),
        (["drill", "--signal", "HUP"], 2, "expected one of KILL, TERM, SEGV, ABRT"),
        (["completion"], 2, "one of bash, zsh, fish"),
        (["completion", "tcsh"], 2, "one of bash, zsh, fish"),
        (["--endpoint", "nonsense", "fleet"], 2, "'nonsense' cannot be used"),
        (["--endpoint", "nonsense", "attach", "bob"], 1, "no answer from"),
        (["--timeout", "x", "fleet"], 2, "--timeout"),
        (["explain"], 2, "takes the name of one agent"),
        (["set", "bob", "env", "X=1"], 2, "make no sense to set"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_with_its_exit_code(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("verb", LOCAL)
def test_the_help_of_a_verb_names_every_option(tmp_path: Path, verb: str) -> None:
    from circus.commands import get_commands

    import circus_failover.verbs.local  # noqa: F401

    done = run(verb, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"failoverctl {verb}" in done.stdout
    for option in get_commands()[verb].options:
        assert f"--{option[1]}" in done.stdout
        assert f"<{option[1]}>" in done.stdout


def test_down_with_nobody_there_says_so_and_is_done(tmp_path: Path) -> None:
    done = run("down", cwd=tmp_path, anew=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "circusd is not running" in done.stdout
    assert run("--json", "down", cwd=tmp_path).stdout.startswith('{"status": "ok", "stopped": false')


# -- validate ----------------------------------------------------------------------------------------


def test_validate_accepts_a_fleet_that_is_right(tmp_path: Path) -> None:
    describe(tmp_path)
    done = run("validate", cwd=tmp_path, anew=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 can be launched, 0 refused" in done.stdout


def test_validate_reports_everything_at_once(tmp_path: Path) -> None:
    ini = describe(tmp_path, agents="alpha Beta", settings=ACCOUNTS + "nonsense: 1\n")
    ini.write_text(ini.read_text() + "failover.restrat = always\n")
    done = run("--json", "validate", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    keys = {problem["key"] for problem in answer["problems"]}
    assert {"nonsense", "failover.restrat"} <= keys
    assert all(problem["expected"] and problem["file"] for problem in answer["problems"])
    assert "did you mean" in str(answer["problems"])
    plain = run("validate", str(ini), cwd=tmp_path)
    assert plain.stdout.count("problem  ") == len(answer["problems"])


def test_validate_create_makes_what_is_missing_once(tmp_path: Path) -> None:
    describe(tmp_path, settings=ACCOUNTS)
    missing = json.loads(run("--json", "validate", cwd=tmp_path).stdout)
    assert {failure["account"] for failure in missing["failures"]} >= {"one", "two"}
    made = run("validate", "--create", cwd=tmp_path)
    assert made.returncode == 0, made
    assert made.stdout.count("create   made") >= 4
    assert (tmp_path / "homes/two/projects").resolve() == tmp_path / "shared/projects"
    again = run("validate", "--create", cwd=tmp_path)
    assert again.returncode == 0
    assert "nothing is missing that could be made" in again.stdout


def test_validate_create_leaves_what_diverges(tmp_path: Path) -> None:
    describe(tmp_path, settings=ACCOUNTS)
    (tmp_path / "homes/one/projects").mkdir(parents=True)
    done = run("validate", "--create", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("gate     ") == 1
    assert not (tmp_path / "homes/one/projects").is_symlink()


# -- up: what is checked before anything is started --------------------------------------------------


@pytest.mark.parametrize(
    ("ini", "settings", "said"),
    [
        ("[circus]\ncheck_delay = soon\n", "state_dir: state\n", "check_delay"),
        (None, "state_dir: [\n", "failover.yaml"),
        (None, "accounts: 3\n", "accounts"),
        ("[circus]\n", "state_dir: state\n", "no watcher names the enrol hook"),
        ("not an ini file\n", "state_dir: state\n", "circus.ini"),
    ],
)
def test_up_starts_nothing_when_a_file_cannot_be_read(
    tmp_path: Path, ini: str | None, settings: str, said: str
) -> None:
    path = describe(tmp_path, settings=settings)
    if ini is not None:
        path.write_text(ini)
    done = run("up", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()


def test_agents_that_have_not_been_tried_yet_are_not_settled() -> None:
    def agent(name: str, phase: str, generation: int) -> dict[str, object]:
        return {"identity": name, "phase": phase, "generation": generation}

    agents = [agent("a", "starting", 1), agent("b", "down", 0), agent("c", "down", 2), agent("d", "down", 0)]
    assert unsettled({"agents": agents}, {"a", "b", "c"}) == ["a", "b"]


def test_a_relative_ipc_endpoint_is_below_the_ini(tmp_path: Path) -> None:
    ini = tmp_path / "circus.ini"
    assert absolute("ipc://run/ctl", ini) == f"ipc://{tmp_path}/run/ctl"
    for same in ("ipc:///x/ctl", "ipc://@name", "tcp://127.0.0.1:5555"):
        assert absolute(same, ini) == same
    assert not listens(f"ipc://{tmp_path}/nobody")
    assert not listens("tcp://127.0.0.1:1")
    assert not listens("tcp://nonsense")


# -- units -------------------------------------------------------------------------------------------


def unit_of(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        (">/dev/full", 3, "failoverctl: standard output: No space left on device"),
        (">&-", 0, ""),
        ("| true", 0, ""),
    ],
)
def test_an_answer_that_cannot_be_written_is_no_traceback(
    tmp_path: Path, where: str, code: int, said: str
) -> None:
    line = f'set -o pipefail; "$0" validate "$1" {where}'
    done = subprocess.run(
        ["bash", "-c", line, PROGRAM, str(describe(tmp_path))], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.strip()) == (code, said)


def test_an_answer_is_written_also_where_its_letters_are_unknown(tmp_path: Path) -> None:
    ini = describe(tmp_path, settings="state_dir: state\nétat: x\n")
    done = run("validate", str(ini), cwd=tmp_path, anew=True, PYTHONIOENCODING="ascii")
    assert done.returncode == 1 and "\\xe9tat" in done.stdout, done


@pytest.mark.parametrize("user", [False, True])
def test_the_shipped_units_never_end_an_agent(user: bool) -> None:
    service = unit_of(systemd_unit.template(user=user))["Service"]
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    assert service["Restart"] == "on-failure"
    assert service["Type"] == "simple"
    assert service["TimeoutStopSec"] == "30"
    install = unit_of(systemd_unit.template(user=user))["Install"]["WantedBy"]
    assert install == ("default.target" if user else "multi-user.target")
    assert ("User" in service) is not user


HOSTILE = ["plain", "with space", "100%n $HOME", "qu\"ote's", "back\\slash", "ünï ;x", "a{b}~*", "#h", "[x]"]


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_filled_unit_survives_hostile_paths(tmp_path: Path, name: str, user: bool) -> None:
    folder = tmp_path / name
    folder.mkdir()
    python = folder / "py thon"
    python.symlink_to(sys.executable)
    text = systemd_unit.filled(user=user, python=python, ini=folder / "circus.ini", account="root")
    service = unit_of(text)["Service"]
    assert service["KillMode"] == "process"
    assert service["WorkingDirectory"] == str(folder).replace("%", "%%")
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "circus-failover-test.service"
    path.write_text(text)
    done = subprocess.run(
        [analyze, *(["--user"] if user else []), "verify", str(path)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_setting_can_be_smuggled_in_through_a_path(tmp_path: Path) -> None:
    for name in ("a\nKillMode=control-group", "c ", "d\\"):
        with pytest.raises(Failed, match="cannot be written into a systemd unit"):
            systemd_unit.filled(
                user=True, python=Path("/usr/bin/python3"), ini=tmp_path / name / "x.ini", account="root"
            )
    text = systemd_unit.filled(
        user=True, python=Path("/a\nb/python"), ini=tmp_path / "x\nKillMode=mixed\\", account="root"
    )
    assert unit_of(text)["Service"]["KillMode"] == "process"
    assert text.count("KillMode=") == systemd_unit.template(user=True).count("KillMode=") + 2


def test_the_verb_prints_a_unit_of_this_python_and_ini(tmp_path: Path) -> None:
    ini = describe(tmp_path)
    done = run("unit", cwd=tmp_path)
    assert done.returncode == 0
    start = unit_of(done.stdout)["Service"]["ExecStart"]
    assert "-m circus.circusd" in start
    assert str(ini) in start
    assert "User" not in unit_of(run("unit", "--user", str(ini), cwd=tmp_path).stdout)["Service"]


# -- completion --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_is_what_its_shell_understands(tmp_path: Path, shell: str) -> None:
    done = run("completion", shell, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "explain" in done.stdout
    assert "timeout-secs" in done.stdout
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    checked = subprocess.run([program, "-n"], input=done.stdout, capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_names_of_agents_are_empty_and_quick_without_circusd(tmp_path: Path) -> None:
    done = run("completion", "names", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ctrl_c_while_it_still_imports_is_no_traceback(tmp_path: Path) -> None:
    """Raised where the signal would be taken: in the middle of an import."""
    pressed = """
import sys
from circus_failover import failoverctl
class Pressed:
    def find_spec(self, name, *about):
        if name == "circus_failover.verbs.local":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
sys.argv = ["failoverctl", "fleet"]
failoverctl.main()
"""
    done = subprocess.run([sys.executable, "-c", pressed], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_every_verb_is_in_every_script() -> None:
    from circus.commands import get_commands

    import circus_failover.verbs.local  # noqa: F401

    commands = get_commands()
    for shell in SHELLS:
        text = script(shell, commands)
        assert all(verb in text for verb in commands)


def test_global_options_of_the_completion_are_those_of_the_parser() -> None:
    from circus_failover.completion import GLOBAL

    known = {name for action in ctl._global_parser()._actions for name in action.option_strings}
    assert set(GLOBAL) <= known
    assert {name for name in known if name.startswith("--")} <= set(GLOBAL)


def test_it_starts_without_what_only_circusd_or_a_table_needs() -> None:
    """It runs in scripts, and at every key that completes a word: its imports are most of what it takes."""
    code = "import sys, circus_failover.ctl, circus_failover.verbs.local\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"pydantic", "rich", "libtmux", "circus_failover.agent", "circus_failover.tmux"}
    assert not heavy & set(done.stdout.split())
