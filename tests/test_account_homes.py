"""What refuses a launch before it: the account's home, as its runtime sees it, and its env_file."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from circus_failover import account_homes, agent_variables
from circus_failover.account_homes import Finding
from circus_failover.agent import Agent
from circus_failover.agent_settings import AgentSettings, parse
from circus_failover.agents import RUNTIMES
from circus_failover.bring_up import BringUps
from circus_failover.records import AgentRow
from circus_failover.settings import Account, Settings, Shared
from tests.picky_runtime import PickyRuntime

OWN = {"HOME": "/nowhere", "PATH": "/bin"}


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> PickyRuntime:
    made = PickyRuntime()
    monkeypatch.setitem(RUNTIMES, "claude", made)
    return made


@pytest.fixture
def home(tmp_path: Path, runtime: PickyRuntime) -> Path:
    """A home in which nothing is wrong."""
    made = tmp_path / "home"
    made.mkdir()
    (made / "login").touch()
    (made / "trusted").write_text(f"{tmp_path}\n")
    return made


def agent(home: Path, env_file: Path | None = None, *, account: bool = True) -> AgentSettings:
    main = Account("main", "claude", home, env_file)
    settings = Settings(Path("/f.yaml"), Path("/s"), Shared(), (main,), {})
    options = {"name": "bob", "cmd": "failover-session", "failover.runtime": "claude"}
    named = {"failover.account": "main"} if account else {}
    watcher = {**options, **named, "working_dir": str(home.parent)}
    return parse(watcher, settings, "circus.ini", working_dir_is_there=False)


def check(home: Path, env_file: Path | None = None) -> Finding:
    return account_homes.check(agent(home, env_file), OWN)


def refusal(home: Path, env_file: Path | None = None) -> str:
    found = check(home, env_file).refusal
    assert found is not None
    return found


def test_a_home_in_order_refuses_nothing(home: Path) -> None:
    assert check(home).refusal is None
    (home / "warn").touch()
    found = check(home)
    assert (found.refusal, [problem.key for problem in found.problems]) == (None, ["habit"])


def test_everything_that_is_wrong_is_in_one_line_with_account_file_and_remedy(home: Path) -> None:
    (home / "trusted").unlink()
    (home / "warn").touch()
    (home / "projects").symlink_to(home / "gone")
    (home / "login").rename(home / "no-login")
    assert refusal(home) == (
        f"account main ({home}): "
        f"login: found no login file, expected a login in {home}, or a key or token in env_file: "
        "log the client in there, or name a file with a key as the account's env_file; "
        "link projects: found a dangling link, expected a folder: mend it; "
        f"trust: found {home.parent} not trusted, expected trust: trust it"
    )


def test_what_cannot_be_known_of_a_login_refuses_nothing(home: Path) -> None:
    (home / "login").unlink()
    assert check(home).refusal is None


def test_a_login_that_the_runtime_says_more_about_is_told_once(
    home: Path, runtime: PickyRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "login").rename(home / "no-login")
    report = runtime.check_home(None, home, {}, ())
    own = account_homes._no_login(report, home)
    said = replace(report, problems=(replace(own, found="an expired login"),))
    monkeypatch.setattr(runtime, "check_home", lambda *arguments: said)
    assert refusal(home).count("login: found") == 1
    assert "an expired login" in refusal(home)


def test_a_look_that_fails_refuses_nothing_and_quotes_no_file(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "strange").touch()
    with caplog.at_level(logging.ERROR, "circus"):
        found = check(home)
    assert found.refusal is None
    assert found.report is not None and "ValueError" in found.report.how
    assert str(home) in caplog.text and "picky_runtime.py" in caplog.text
    assert "Marker" not in caplog.text + found.report.how


def test_an_env_file_that_cannot_be_used_refuses_and_is_named(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.env"
    path.write_text("A=sk-Marker\nFAILOVER_LAUNCH=sk-Marker\nPICKY_HOME='sk-Marker'\nsk-Marker\n")
    path.chmod(0o600)
    said = refusal(home, path)
    assert said.startswith(f"account main ({home}): env_file {path}:2: found")
    for part in (f"{path}:3", "(PICKY_HOME)", f"{path}:4", "expected NAME=value", "take the line out"):
        assert part in said
    assert "Marker" not in said
    path.chmod(0o644)
    assert f"env_file {path}: found mode 0644" in refusal(home, path)
    assert f"chmod 600 {path}" in refusal(home, path)


def test_the_home_is_looked_at_with_what_the_agent_will_have(
    home: Path, tmp_path: Path, runtime: PickyRuntime
) -> None:
    path = tmp_path / "a.env"
    path.write_text("TOKEN=t\nPATH=/mine\n")
    path.chmod(0o600)
    assert check(home, path).refusal is None
    assert runtime.given == {"HOME": "/nowhere", "PATH": "/mine", "TOKEN": "t", "PICKY_HOME": str(home)}


def test_without_an_account_the_clients_own_home_is_looked_at(home: Path, tmp_path: Path) -> None:
    home.rename(tmp_path / ".picky")
    configured = agent(tmp_path / ".picky", account=False)
    own = {"HOME": str(tmp_path)}
    assert account_homes.check(configured, own).refusal is None
    (tmp_path / ".picky" / "trusted").unlink()
    said = account_homes.check(configured, own).refusal
    assert said is not None and said.startswith(f"no account ({tmp_path}/.picky): trust: ")


def test_a_command_has_no_home_that_could_be_wrong(tmp_path: Path) -> None:
    settings = Settings(Path("/f.yaml"), Path("/s"), Shared(), (), {})
    options = {"name": "bob", "cmd": "failover-session", "failover.command": "sh", "working_dir": "/"}
    assert account_homes.check(parse(options, settings, "circus.ini"), OWN).refusal is None


# -- which variables an agent has ----------------------------------------------------------------------


def test_the_home_of_an_account_wins_over_what_a_section_says(home: Path) -> None:
    own = {**OWN, "PICKY_HOME": "/elsewhere"}
    assert agent_variables.complete(agent(home), own, {})["PICKY_HOME"] == str(home)
    # The client's default home is used only while the variable is not set at all.
    default = {**own, "HOME": "/h"}
    assert "PICKY_HOME" not in agent_variables.complete(agent(Path("/h/.picky")), default, {})


def test_without_an_account_a_section_may_name_the_home(home: Path) -> None:
    own = {**OWN, "PICKY_HOME": str(home)}
    assert agent_variables.complete(agent(home, account=False), own, {})["PICKY_HOME"] == str(home)


def test_an_account_s_variables_win_over_a_section_s(home: Path) -> None:
    given = agent_variables.complete(agent(home), {**OWN, "TOKEN": "old"}, {"TOKEN": "new"})
    assert given == {**OWN, "TOKEN": "new", "PICKY_HOME": str(home)}


def test_of_a_copied_environment_nothing_of_other_clients_terminals_and_agents_is_left(
    runtime: PickyRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = {"CLAUDECODE": "1", "CLAUDE_CODE_ENTRYPOINT": "cli", "TERM": "xterm", "TERM_PROGRAM": "tmux"}
    foreign |= {"TMUX": "/x,1,0", "TMUX_PANE": "%1", "TMUX_TMPDIR": "/t"}
    foreign |= {"FAILOVER_IDENTITY": "eve", "FAILOVER_HOME": "/eve", "PICKY_HOME": "/eve"}
    plain = {"EDITOR": "vi", "CLAUDE": "kept", "FAILOVER_CONFIG": "f.yaml"}
    monkeypatch.setattr(agent_variables, "INHERITED", {**foreign, **plain})
    base = agent_variables.of_section({}, copied=True)
    assert agent_variables.of_section({**foreign, **plain}, copied=True) == {**base, **plain}


def test_what_a_section_says_itself_is_kept_whatever_it_is_called(
    runtime: PickyRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_variables, "INHERITED", {"CLAUDE_CODE_X": "theirs", "CLAUDE_CODE_Y": "same"})
    said = {"CLAUDE_CODE_X": "mine", "CLAUDE_CODE_Y": "same", "CLAUDE_CODE_Z": "new"}
    base = agent_variables.of_section({}, copied=False)
    assert agent_variables.of_section(said, copied=False) == {**base, **said}
    kept = {"CLAUDE_CODE_X": "mine", "CLAUDE_CODE_Z": "new"}
    assert agent_variables.of_section(said, copied=True) == {**base, **kept}


def test_every_runtime_s_home_is_named_by_variables_that_no_env_file_may_set() -> None:
    assert agent_variables.leading("command") == ("FAILOVER_HOME",)
    for runtime in RUNTIMES:
        assert agent_variables.leading(runtime)


# -- a resume that cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({}, "there is no conversation that was ever ready"),
        ({"ready_conversation": "c-1"}, "there is no transcript of conversation c-1 in {home}"),
        (
            {"ready_conversation": "c-1", "parked_by": "park", "parked_conversation": "c-2"},
            "there is no transcript of conversation c-2 in {home}",
        ),
    ],
)
def test_a_resume_that_a_client_cannot_do_says_which_transcript_is_missing_where(
    home: Path, columns: dict[str, str], reason: str
) -> None:
    watcher = SimpleNamespace(name="bob", env={}, copy_env=False)
    bob = Agent(watcher, "bob", AgentRow("bob", **columns), settings=agent(home))  # type: ignore[arg-type]
    bring_ups = BringUps(None)  # type: ignore[arg-type]
    said = bring_ups._nothing_to_resume(bob)
    assert said == f"bob: nothing to resume: {reason.format(home=home)}; wake it without --resume"
