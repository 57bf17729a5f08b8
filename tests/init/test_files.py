"""What is written is read by Circus and by our settings as it was meant, or it is refused."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from circus.config import get_config
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from circus_failover import settings
from circus_failover.fleet_file import ENROL
from circus_failover.init import files
from circus_failover.init.plan import Agent, Wish
from circus_failover.settings import Account
from circus_failover.validation import validate
from tests.init.ground import wish

# What a file's name may hold, and what a reader may trip over.
NAMES = st.text(
    st.one_of(
        st.characters(min_codepoint=32, exclude_characters="/"),
        st.sampled_from(" '\"%$;#=:[](){}\\~`,&!*|>-\n\t\r"),
    ),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in (".", ".."))
HARMLESS = [
    "a b", "it's", 'say "so"', "50%", "%(home)s", "a$", "a;b", "#a", "a=b: c", "[watcher:x]", "ünï 漢字 🙂",
    "trailing ", " leading", "a\nb", "~", "- a", "{a: b}", "!tag", "&x", "null", "a\\nb", "yes", "((a))", "-",
]  # fmt: skip
REFUSED = ["$(circus.env.home)", "((circus.env.HOME))", "a ;b", "a\rb", "a\n\nb", "a\n b", "\udcff"]


def read_back(wanted: Wish, base: Path) -> tuple[dict[str, object], settings.Settings]:
    """Write the files as init does, and return Circus's and our own reading of them."""
    for path, text in files.render(wanted).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(text.encode("utf-8"))
    config = get_config(str(wanted.folder / "circus.ini"))
    return config["watchers"][0], settings.load(wanted.folder / "failover.yaml")


def working_in(base: Path, name: str) -> Wish:
    wanted = wish(base, Account("a", "claude", base / "a"))
    place = Path(f"{base}/{name}")
    return replace(wanted, agents=(Agent("scout", place, wanted.accounts[0]),))


@pytest.mark.parametrize("name", HARMLESS)
def test_a_working_directory_with_a_hostile_name_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    wanted = working_in(tmp_path, name)
    assert files.problems(wanted, files.render(wanted)) == []
    watcher, _ = read_back(wanted, tmp_path)
    assert os.path.samefile(str(watcher["working_dir"]), tmp_path / name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_circus_would_read_as_something_else_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    wanted = working_in(tmp_path, name)
    assert files.problems(wanted, files.render(wanted))


@given(name=NAMES)
@example("a;b #c")
@example("\udc80")
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_accepted_is_read_back_the_same(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        place = base / name
        try:
            place.mkdir()
        except (OSError, UnicodeEncodeError):  # no name of a file
            return
        home = Path(f"{folder}/home{name}")
        wanted = working_in(base, name)
        account = Account("a", "claude", home)
        wanted = replace(wanted, accounts=(account,), agents=(Agent("scout", place, account),))
        if files.problems(wanted, files.render(wanted)):
            return
        watcher, loaded = read_back(wanted, base)
        assert os.path.abspath(str(watcher["working_dir"])) == str(place)
        assert loaded.accounts == (account,) and loaded.state_dir == wanted.state_dir


@pytest.mark.parametrize("name", [name for name in HARMLESS if "\n" not in name])
def test_a_home_with_a_hostile_name_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    account = Account("a", "claude", Path(f"{tmp_path}/{name}"))
    wanted = wish(tmp_path, account)
    assert files.problems(wanted, files.render(wanted)) == []
    _, loaded = read_back(wanted, tmp_path)
    assert loaded.accounts == (account,)


def test_a_dollar_in_the_folder_of_the_files_does_no_harm_and_elsewhere_it_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "a$HOME"
    base.mkdir()
    wanted = wish(base, Account("a", "claude", base / "fleet/a"))
    wanted = replace(wanted, root=base / "fleet/shared")
    assert files.problems(wanted, files.render(wanted)) == []
    _, loaded = read_back(wanted, base)
    assert loaded.accounts == wanted.accounts
    assert (loaded.state_dir, loaded.shared.root) == (wanted.state_dir, wanted.root)
    elsewhere = replace(wanted, accounts=(Account("a", "claude", base / "a"),))
    (problem,) = files.problems(elsewhere, files.render(elsewhere))
    assert "account a: home" in problem and "$" in problem


def test_a_program_is_read_as_it_was_given_or_refused(tmp_path: Path) -> None:
    wanted = replace(
        wish(tmp_path, Account("a", "command", tmp_path / "a")), program="sh -c 'echo \"50%\"; x'"
    )
    assert files.problems(wanted, files.render(wanted)) == []
    watcher, _ = read_back(wanted, tmp_path)
    assert watcher["failover.command"] == wanted.program
    (problem,) = files.problems(cut := replace(wanted, program="run --now ;done"), files.render(cut))
    assert "command" in problem and "Circus reads" in problem


def test_the_files_are_those_of_a_whole_fleet(tmp_path: Path) -> None:
    account = Account("a", "command", tmp_path / "a")
    wanted = replace(wish(tmp_path, account), program="true")
    for name in ("projects", "file-history", "session-env"):
        (tmp_path / "shared" / name).mkdir(parents=True, mode=0o700)
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / name).symlink_to(tmp_path / "shared" / name)
    watcher, _ = read_back(wanted, tmp_path)
    hooks = watcher["hooks"]
    assert watcher["cmd"] == "failover-session" and isinstance(hooks, dict)
    assert hooks["before_start"][0] == ENROL
    plugins = {plugin["use"] for plugin in get_config(str(wanted.folder / "circus.ini"))["plugins"]}
    assert plugins == {f"circus_failover.plugins.{name}" for _, name, _ in files.PLUGINS}
    report = validate(wanted.folder / "circus.ini")
    assert report.ok and report.accepted == ("scout",)


def test_two_agents_of_one_name_are_refused(tmp_path: Path) -> None:
    wanted = wish(tmp_path, Account("a", "claude", tmp_path / "a"))
    twice = replace(wanted, agents=wanted.agents * 2)
    assert any("scout" in problem for problem in files.problems(twice, files.render(twice)))


def test_a_state_directory_that_is_too_deep_for_sockets_goes_below_home(tmp_path: Path) -> None:
    assert files.state_dir_for(tmp_path, tmp_path, ["a"]) == tmp_path / "state"
    deep = tmp_path / ("d" * 60)
    below = files.state_dir_for(deep, Path("/home/u"), ["a" * 40])
    assert below == Path("/home/u/.circus-failover/state")
    wanted = replace(
        wish(tmp_path, Account("a", "claude", tmp_path / "a")), state_dir=deep / "s" / ("e" * 60)
    )
    assert any("bytes" in problem for problem in files.problems(wanted, files.render(wanted)))
