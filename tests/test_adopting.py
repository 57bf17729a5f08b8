"""What `failoverctl adopt` makes of sessions that run already."""

from __future__ import annotations

from pathlib import Path

import pytest

from circus_failover import adopting, agent_settings, fleet_file
from circus_failover.adopting import Adoption, LeftAlone
from circus_failover.agents import RUNTIMES
from circus_failover.client_sessions import ClientSession
from circus_failover.failure import Failed
from circus_failover.process_table import ProcessId
from circus_failover.settings import Account, Settings, Shared

CLAUDE = RUNTIMES["claude"]


def settings(tmp_path: Path, *accounts: Account) -> Settings:
    return Settings(tmp_path / "failover.yaml", tmp_path / "state", Shared(), accounts, {})


def session(tmp_path: Path, name: str = "bob", **changes: object) -> ClientSession:
    values: dict[str, object] = {
        "socket": tmp_path / "tmux.sock",
        "session": name,
        "panes": 1,
        "pane_process": ProcessId(100, 1),
        "process": ProcessId(101, 2),
        "runtime": "claude",
        "argv": ("claude",),
        "home": tmp_path / "home",
        "working_dir": tmp_path,
        "launch": False,
    }
    return ClientSession(**{**values, **changes})  # type: ignore[arg-type]


def planned(tmp_path: Path, *sessions: ClientSession, taken: tuple[str, ...] = ()) -> list[object]:
    using = settings(tmp_path, Account("main", "claude", tmp_path / "home"))
    return list(adopting.plan(sessions, using, taken, [(tmp_path / "tmux.sock", "ours")]))


def test_a_session_becomes_a_section_that_circus_reads_back_as_it_was_meant(tmp_path: Path) -> None:
    found = session(
        tmp_path, "Work_1", argv=("/opt/my tools/claude", "--dangerously-skip-permissions", "fix it")
    )
    (adoption,) = planned(tmp_path, found)
    assert isinstance(adoption, Adoption)
    ini = tmp_path / "circus.ini"
    ini.write_text("[circus]\n[env]\nFAILOVER_CONFIG = failover.yaml\n")
    assert adopting.write(ini, [adoption]) == {"work-1": ini}
    (agent,) = fleet_file.read(ini).agents
    using = settings(tmp_path, Account("main", "claude", tmp_path / "home"))
    parsed = agent_settings.parse(agent, using, str(ini))
    assert (parsed.identity, parsed.session, parsed.socket) == ("work-1", "Work_1", tmp_path / "tmux.sock")
    assert parsed.command == ("/opt/my tools/claude",)
    assert parsed.args == ("--dangerously-skip-permissions",)
    assert parsed.account is not None and parsed.account.name == "main"
    assert (parsed.working_dir, parsed.own_server) == (tmp_path, False)
    assert adoption.left_out == ("fix it",)


def test_a_new_section_has_a_file_of_its_own_where_circus_reads_a_folder(tmp_path: Path) -> None:
    (tmp_path / "fleet.d").mkdir()
    ini = tmp_path / "circus.ini"
    ini.write_text("[circus]\ninclude_dir = fleet.d\n[env]\nFAILOVER_CONFIG = failover.yaml\n")
    (adoption,) = planned(tmp_path, session(tmp_path))
    assert isinstance(adoption, Adoption)
    assert adopting.write(ini, [adoption]) == {"bob": tmp_path / "fleet.d" / "adopted-bob.ini"}
    assert [agent["name"] for agent in fleet_file.read(ini).agents] == ["bob"]
    with pytest.raises(Failed, match="adopted-bob.ini: it is there already"):
        adopting.write(ini, [adoption])
    (tmp_path / "fleet.d" / "adopted-bob.ini").unlink()
    (tmp_path / "fleet.d").rmdir()
    with pytest.raises(Failed, match="include_dir = fleet.d: no such folder"):
        adopting.write(ini, [adoption])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"launch": True}, "an agent already"),
        ({"name": "ours"}, "an agent already"),
        ({"panes": 3}, "3 panes"),
        ({"name": "two words"}, "tmux rename-session"),
        ({"home": None}, "cannot be read"),
        ({"working_dir": None}, "cannot be read"),
        ({"argv": ("claude", "--model", "a\nb")}, "an ini file cannot hold"),
        ({"argv": ("claude", "--model", "$(circus.env.HOME)")}, "an ini file cannot hold"),
        ({"runtime": "codex"}, "is no account of"),
        ({"home": Path("/elsewhere")}, "is no account of"),
    ],
)
def test_a_session_that_cannot_be_taken_in_is_left_alone_with_the_reason(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    (left,) = planned(tmp_path, session(tmp_path, **changes))  # type: ignore[arg-type]
    assert isinstance(left, LeftAlone) and reason in left.reason


def test_two_sessions_of_one_name_become_two_identities(tmp_path: Path) -> None:
    sessions = [session(tmp_path, "bob"), session(tmp_path, "Bob"), session(tmp_path, "__")]
    names = [
        one.identity for one in planned(tmp_path, *sessions, taken=("bob",)) if isinstance(one, Adoption)
    ]
    assert names == ["bob-2", "bob-3", "agent"]


@pytest.mark.parametrize(
    ("argv", "kept", "left"),
    [
        ((), (), ()),
        (("fix the bug",), (), ("fix the bug",)),
        (("--model", "opus", "hello"), ("--model", "opus"), ("hello",)),
        (("--model=opus",), ("--model=opus",), ()),
        (("--resume", "0f0e", "go on"), (), ("--resume", "0f0e", "go on")),
        (("--session-id=0f0e",), (), ("--session-id=0f0e",)),
        (("--continue", "--verbose"), ("--verbose",), ("--continue",)),
        (("--dangerously-skip-permissions", "go"), ("--dangerously-skip-permissions",), ("go",)),
        (("--never-heard-of", "it"), (), ("--never-heard-of", "it")),
    ],
)
def test_the_next_launch_has_the_options_and_neither_prompt_nor_conversation(
    argv: tuple[str, ...], kept: tuple[str, ...], left: tuple[str, ...]
) -> None:
    assert adopting.kept_arguments(argv, CLAUDE) == (kept, left)
