"""What the options mean, and the defaults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from circus_failover.agent_settings import IDENTITY
from circus_failover.failure import USAGE, Failed
from circus_failover.init import survey, wishes
from circus_failover.init.survey import HomeFound, Installed, Survey
from circus_failover.init.wishes import Options
from circus_failover.settings import ACCOUNT_NAME, Account
from circus_failover.words import Credentials
from tests.init.ground import home


def options(base: Path, **said: object) -> Options:
    return replace(Options(base / "fleet", base, base / "My App"), **said)  # type: ignore[arg-type]


def found(path: Path, runtime: str = "claude", usual: bool = True, root: Path | None = None) -> HomeFound:
    return HomeFound(runtime, path, "", Credentials.PRESENT, "", usual, root)


def test_by_default_every_home_is_an_account_and_one_agent_works_here(tmp_path: Path) -> None:
    homes = (
        found(tmp_path / ".claude"),
        found(tmp_path / ".claude-work"),
        found(tmp_path / ".codex", "codex"),
    )
    wish = wishes.wish(options(tmp_path), Survey((), homes, ()))
    assert [(one.name, one.runtime) for one in wish.accounts] == [
        ("claude", "claude"), ("claude-work", "claude"), ("codex", "codex")
    ]  # fmt: skip
    (agent,) = wish.agents
    assert (agent.identity, agent.working_dir, agent.account) == (
        "my-app",
        tmp_path / "My App",
        wish.accounts[0],
    )
    assert wish.root == tmp_path / ".circus-failover/shared" and not wish.move_data and not wish.new


def test_a_home_that_only_some_process_uses_is_no_account_unless_it_is_named(tmp_path: Path) -> None:
    homes = (found(tmp_path / ".claude"), found(tmp_path / "x", usual=False))
    looked = Survey((), homes, ())
    assert [one.name for one in wishes.wish(options(tmp_path), looked).accounts] == ["claude"]
    named = wishes.wish(options(tmp_path, accounts=[f"x={tmp_path}/x"]), looked)
    assert [one.home for one in named.accounts] == [tmp_path / "x"]


def test_the_folder_that_the_homes_link_into_already_stays_the_shared_one(tmp_path: Path) -> None:
    looked = Survey((), (found(tmp_path / ".claude", root=tmp_path / "ours"),), ())
    assert wishes.wish(options(tmp_path), looked).root == tmp_path / "ours"
    assert wishes.wish(options(tmp_path, root=tmp_path / "r"), looked).root == tmp_path / "r"
    assert wishes.wish(options(tmp_path, no_shared=True), looked).root is None


def test_where_a_client_was_never_used_its_home_is_made(tmp_path: Path) -> None:
    wish = wishes.wish(options(tmp_path), Survey((Installed("codex", "/bin/codex", "1"),), (), ()))
    assert wish.accounts == (Account("codex", "codex", tmp_path / ".codex"),) and wish.new == {"codex"}


def test_where_nothing_is_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="--account NAME=HOME") as caught:
        wishes.wish(options(tmp_path), Survey((), (), ()))
    assert caught.value.code == USAGE
    assert wishes.wish(options(tmp_path, program="top"), Survey((), (), ())).accounts == ()


def test_colons_belong_to_paths_unless_a_runtime_or_an_account_follows(tmp_path: Path) -> None:
    nothing = Survey((), (), ())
    one = wishes.account_of(f"a={tmp_path}/x:y", nothing)
    assert (one.home, one.runtime) == (tmp_path / "x:y", "claude")
    two = wishes.account_of(f"a={tmp_path}/x:y:codex", nothing)
    assert (two.home, two.runtime) == (tmp_path / "x:y", "codex")
    accounts = [Account("a", "claude", tmp_path), Account("b", "claude", tmp_path / "b")]
    assert wishes.place_of(f"{tmp_path}/w:b", accounts) == (tmp_path / "w", accounts[1])
    (tmp_path / "w:b").mkdir()
    assert wishes.place_of(f"{tmp_path}/w:b", accounts) == (tmp_path / "w:b", accounts[0])
    with pytest.raises(Failed, match="did you mean 'b'|one of the accounts"):
        wishes.place_of(f"{tmp_path}/w:bb", accounts)


def test_a_second_account_has_the_runtime_of_the_first_and_its_home_may_be_made(tmp_path: Path) -> None:
    looked = Survey((), (found(tmp_path / ".codex", "codex"),), ())
    wish = wishes.wish(options(tmp_path, second=[f"two={tmp_path}/two"]), looked)
    assert wish.accounts[1] == Account("two", "codex", tmp_path / "two") and wish.new == {"two"}


@pytest.mark.parametrize("text", ["", "x", "=x", "x=", "a b=/x", "/x"])
def test_an_account_that_is_no_account_is_a_usage_error(text: str) -> None:
    with pytest.raises(Failed) as caught:
        wishes.account_of(text, Survey((), (), ()))
    assert caught.value.code == USAGE


@pytest.mark.parametrize("folder", ["My App", "ÜBER", "漢字", "-", "a" * 200, "1.2", "___"])
def test_names_that_are_made_from_folders_are_names(tmp_path: Path, folder: str) -> None:
    first = wishes.agent_name(tmp_path / folder, [])
    assert IDENTITY.fullmatch(first)
    account = Account(wishes.account_name(tmp_path / folder, []), "claude", tmp_path)
    assert ACCOUNT_NAME.fullmatch(account.name)
    assert wishes.account_name(tmp_path / folder, [account]) != account.name


def test_homes_are_found_by_default_by_name_and_by_variable(tmp_path: Path) -> None:
    home(tmp_path, ".claude", "p/1")
    home(tmp_path, ".claude-work")
    home(tmp_path, "elsewhere")
    (tmp_path / ".claude-server").mkdir()
    (tmp_path / "shared/projects").mkdir(parents=True)
    (tmp_path / ".claude-work/projects").symlink_to("../shared/projects")
    variables = {"HOME": str(tmp_path), "CLAUDE_CONFIG_DIR": str(tmp_path / "elsewhere"), "PATH": "/nowhere"}
    looked = survey.look({**variables, "TMUX_TMPDIR": str(tmp_path)})
    usual = {one.path: one for one in looked.homes if one.usual}
    assert set(usual) == {tmp_path / ".claude", tmp_path / ".claude-work", tmp_path / "elsewhere"}
    assert usual[tmp_path / ".claude"].root is None
    assert usual[tmp_path / ".claude-work"].root == tmp_path / "shared"
    assert looked.clients == () and looked.sessions == ()


def test_a_client_is_asked_for_its_version_without_touching_any_home(tmp_path: Path) -> None:
    script = tmp_path / "claude"
    script.write_text(
        '#!/bin/sh\necho "1.2.3 (Claude Code)"\ntouch "${CLAUDE_CONFIG_DIR:-$HOME/.claude}/touched"\n'
    )
    script.chmod(0o700)
    home(tmp_path, ".claude")
    variables = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin", "TMUX_TMPDIR": str(tmp_path)}
    looked = survey.look(variables)
    assert looked.clients == (Installed("claude", str(script), "1.2.3"),)
    assert not (tmp_path / ".claude/touched").exists()
    script.write_text("#!/bin/sh\nexit 1\n")
    assert survey.look(variables).clients[0].version is None
