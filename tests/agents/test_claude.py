"""What the `claude` runtime reads from files, hooks and screens, as Claude Code leaves them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circus_failover import agent_settings, process_table
from circus_failover.agent_settings import AgentSettings
from circus_failover.agents import claude_home, claude_screen, claude_transcript
from circus_failover.agents.claude import SPEAKS_SECS, ClaudeRuntime
from circus_failover.agents.claude_files import config_file
from circus_failover.agents.claude_home import trusted_by
from circus_failover.agents.runtime import Observation, Place, Screen
from circus_failover.policy.health import Fault, Health, Sign, decide
from circus_failover.process_table import ProcessId
from circus_failover.settings import Account, Settings, Shared
from circus_failover.words import BootStage, Credentials, FaultKind, Source, State
from tests.clients.waiting import wait_for

CONVERSATION = "10092de7-aa55-4d5b-aa86-dfee2b9966cc"
OTHER = "65da1aac-9b8c-490b-b24d-bbe0bbcb4c33"
RULE = "─" * 60
BYPASS = "--dangerously-skip-permissions"
Record = dict[str, Any]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client's words are in local time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# -- records as Claude Code 2.1.329 writes them ------------------------------------------------------------


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"


def said(at: float, kind: str, content: Any, **more: Any) -> Record:
    message = {"role": kind, "content": content}
    if kind == "assistant":
        message.update(model="claude-opus-5-5", stop_reason=more.pop("stop_reason", "end_turn"))
    return {"isSidechain": False, "type": kind, "message": message, "timestamp": stamp(at), **more}


def prompt(at: float, words: str = "hello") -> Record:
    return said(at, "user", words, promptSource="typed")


def answer(at: float) -> Record:
    return said(at, "assistant", [{"type": "text", "text": "heard"}])


def call(at: float, name: str = "Bash", number: int = 1) -> Record:
    use = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}
    return said(at, "assistant", [use], stop_reason="tool_use")


def result(at: float, number: int = 1) -> Record:
    return said(at, "user", [{"tool_use_id": f"toolu_{number}", "type": "tool_result", "content": "done"}])


def failure(at: float, words: str, **codes: Any) -> Record:
    record = said(at, "assistant", [{"type": "text", "text": words}], isApiErrorMessage=True, **codes)
    record["message"].update(model="<synthetic>", stop_reason="stop_sequence")
    return record


def limit(at: float, resets_at: float, kind: str = "five_hour", words: str = "5-hour limit") -> Record:
    clock = time.strftime("%I:%M%p", time.gmtime(resets_at)).lstrip("0").lower()
    return failure(
        at,
        f"You've hit your {words} · resets {clock} (UTC)",
        error="rate_limit",
        apiError="usage_limit_reached",
        apiErrorStatus=429,
        quotaLimits={"status": "rejected", "resetsAt": int(resets_at), "rateLimitType": kind},
    )


PLAIN_429 = {
    "error": "rate_limit",
    "apiErrorStatus": 429,
    "words": "API Error: Server is temporarily limiting requests (not your usage limit) · This request would"
    " exceed your organization's rate limit.",
}
ABOUT_ITSELF: tuple[Record, ...] = (
    {"type": "last-prompt", "lastPrompt": "hello"},
    {"type": "mode", "mode": "normal"},
)
"""The last lines of a transcript are about the client, and have no time."""


# -- screens as Claude Code 2.1.329 draws them -------------------------------------------------------------


def box(*above: str, mode: str = "⏵⏵ bypass permissions on (shift+tab to cycle)") -> tuple[str, ...]:
    return (" ▐▛███▛█   Claude Code v2.1.329", *above, "", RULE, "❯\u00a0", RULE, f"  {mode}")


def menu(*rows: str, footer: str = " Enter to confirm · Esc to cancel") -> tuple[str, ...]:
    return ("", RULE, *rows, "", footer)


TRUST = menu(
    " Accessing workspace:",
    " /work",
    " Quick safety check: Is this a project you created or one you",
    " trust? (Like your own code, a well-known open source project).",
    " ❯ No, exit",
    "   Yes, I trust this folder",
)
KEY = menu(
    "  Detected a custom API key in your environment",
    "  ANTHROPIC_API_KEY: sk-ant-...3dac87a2b90ac6ce32d6",
    "  Do you want to use this API key?",
    "    Yes",
    "  ❯ No (recommended)",
)
ACCEPTS = menu(
    "  WARNING: Claude Code running in Bypass Permissions mode",
    "  By proceeding, you accept all responsibility for actions",
    "  taken while running in Bypass Permissions mode.",
    "    No, exit",
    "  ❯ Yes, I accept",
)
SERVER = menu(
    "  New MCP server found in this project: x",
    "    Use this MCP server",
    "    Use this and all future MCP servers in this project",
    "  ❯ Continue without using this MCP server",
)
SUMMARY = menu(
    "  Resuming it will use about 30% of your 5-hour usage limit.",
    "  ❯ 1. Resume",
    "    2. Start a new conversation",
    "    3. Resume from summary",
)
LOGIN = (
    *("❯ /login", "▔" * 60, "  Login", "  Select login method:"),
    "  ❯ 1. Claude account with subscription · Individual, Team, or Enterprise",
    "  Esc to cancel",
)
LIMIT_MENU = (
    *("❯ lim", "  ⎿  You've hit your weekly limit · resets Nov 25, 6:57pm (UTC)", "▔" * 60),
    *("  What do you want to do?", "  ❯ 1. Stop and wait for limit to reset", "    2. Upgrade your plan"),
    *("", "  Enter to confirm · Esc to cancel"),
)
PERMISSION = menu(
    *(" Bash command", " a command", "╌" * 60, " touch a", "╌" * 60),
    *(" Do you want to proceed?", " ❯ 1. Yes", "   2. No"),
    footer=" Esc to cancel · Tab to amend",
)
BROKEN = menu(
    "  Configuration error",
    "  /homes/a/.claude.json isn't valid JSON.",
    "  ❯ 1. Exit and fix manually",
    "    2. Reset to default configuration",
)


# -- a home, and a process that stands for a client --------------------------------------------------------


def own() -> ProcessId:
    found = process_table.identify(os.getpid())
    assert found is not None
    return found


class Lab:
    """A home with what a client has written, and this process in its place."""

    def __init__(self, base: Path) -> None:
        self.runtime = ClaudeRuntime()
        self.home = base / "home"
        self.work = base / "work.dir"
        for folder in (self.home / "sessions", self.home / "projects", self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.process = own()
        self.now = time.time()
        self.launched_at = self.now - 1000.0
        self.events: dict[str, Mapping[str, Any]] = {}
        self.rows: tuple[str, ...] | None = None
        self.screens = 0

    def _screen(self) -> Screen | None:
        self.screens += 1
        return None if self.rows is None else Screen(self.rows)

    @property
    def place(self) -> Place:
        return Place(
            *(self.process, self.home, self.work, CONVERSATION, self.launched_at),
            events=self.events,
            screen=self._screen,
        )

    @property
    def status_file(self) -> Path:
        return self.home / "sessions" / f"{self.process.pid}.json"

    def status(self, word: str | None, at: float | None = None, **more: Any) -> Record:
        """Write the status file, and return what is in it."""
        record: Record = {
            "pid": self.process.pid,
            "sessionId": CONVERSATION,
            "cwd": str(self.work),
            "startedAt": int((self.launched_at + 1) * 1000),
            "procStart": str(self.process.start),
            "statusUpdatedAt": int((self.now - 100 if at is None else at) * 1000),
        }
        record.update({"status": word} if word is not None else {}, **more)
        self.status_file.write_text(json.dumps(record))
        return record

    def status_line(self) -> None:
        """Let the user have a status line."""
        (self.home / "settings.json").write_text('{"statusLine": {"type": "command", "command": "mine"}}')

    def transcript(self, *records: Record, of: str = CONVERSATION, project: str | None = None) -> Path:
        """Write a transcript, with the lines about the client behind it."""
        name = project or "".join(
            char if char.isascii() and char.isalnum() else "-" for char in os.path.realpath(self.work)
        )
        path = self.home / "projects" / name / f"{of}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in (*records, *ABOUT_ITSELF)))
        return path

    def look(self) -> tuple[Health, Observation]:
        seen = self.runtime.look(self.place)
        return decide(seen.signs, self.launched_at, self.now), seen

    def health(self) -> Health:
        return self.look()[0]

    def fault(self) -> Fault:
        fault = self.health().fault
        assert fault is not None
        return fault


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def agent(lab: Lab, args: str = "", dialogs: str = "", account: bool = True) -> AgentSettings:
    watcher: dict[str, object] = {"name": "bob", "cmd": "failover-session", "working_dir": str(lab.work)}
    options = {"runtime": "claude", "account": "a" if account else "", "args": args, "dialogs": dialogs}
    watcher.update({f"failover.{name}": value for name, value in options.items() if value})
    accounts = (Account("a", "claude", lab.home),)
    using = Settings(lab.work / "failover.yaml", lab.work, Shared(None), accounts, {})
    return agent_settings.parse(watcher, using, "circus.ini")


# -- how it is started -------------------------------------------------------------------------------------


def test_a_home_is_named_by_the_account_else_by_its_own_variables_else_it_is_that_of_the_user(
    lab: Lab,
) -> None:
    runtime = lab.runtime
    assert runtime.home(agent(lab), {"HOME": "/u", "CLAUDE_CONFIG_DIR": "/other"}) == lab.home
    nobody = agent(lab, account=False)
    assert runtime.home(nobody, {"HOME": "/u"}) == Path("/u/.claude")
    assert runtime.home(nobody, {"HOME": "/u", "CLAUDE_CONFIG_DIR": "/other"}) == Path("/other")


def test_the_users_own_home_is_not_named_so_that_its_config_file_stays_where_it_is(lab: Lab) -> None:
    runtime, variables = lab.runtime, {"HOME": "/u"}
    assert runtime.environment(Path("/u/.claude"), variables) == {}
    assert config_file(Path("/u/.claude"), variables) == Path("/u/.claude.json")
    assert runtime.environment(Path("/a"), variables) == {"CLAUDE_CONFIG_DIR": "/a"}
    assert config_file(Path("/a"), variables) == Path("/a/.claude.json")
    named = {**variables, "CLAUDE_CONFIG_DIR": "/u/.claude"}
    assert config_file(Path("/u/.claude"), named) == Path("/u/.claude/.claude.json")


def test_a_conversation_is_begun_and_continued_by_its_id(lab: Lab) -> None:
    settings = agent(lab, "--model opus")
    lab.status_line()
    assert lab.runtime.fresh(settings, OTHER) == ("claude", "--model", "opus", "--session-id", OTHER)
    lab.transcript(prompt(lab.now))
    wanted = ("claude", "--model", "opus", "--resume", CONVERSATION)
    assert lab.runtime.resume(settings, CONVERSATION, lab.home) == wanted


@pytest.mark.parametrize("place", ["home/settings.json", "work.dir/.claude/settings.local.json", ""])
def test_it_tells_how_much_is_used_where_nobody_has_a_status_line_of_his_own(
    lab: Lab, tmp_path: Path, place: str
) -> None:
    using = agent(lab, "--settings {}" if not place else "")
    if place:
        (lab.home / "settings.json").write_text('{"model": "opus"}')
        name, given, *rest = lab.runtime.fresh(using, OTHER)[1:]
        assert (name, rest) == ("--settings", ["--session-id", OTHER])
        line = json.loads(given)["statusLine"]
        assert line["type"] == "command" and line["command"].endswith("failover-event StatusLine || :")
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text('{"statusLine": {"type": "command", "command": "mine"}}')
        assert lab.runtime.fresh(using, OTHER) == ("claude", "--session-id", OTHER)
        (tmp_path / place).write_text("{broken")
    assert "statusLine" not in str(lab.runtime.fresh(using, OTHER)), "what is unreadable may be a status line"
    assert lab.runtime.fresh(agent(lab, account=False), OTHER) == ("claude", "--session-id", OTHER)


def test_settings_that_the_command_itself_gives_are_not_replaced_by_a_status_line_and_others_stay(
    lab: Lab,
) -> None:
    assert "--settings" in lab.runtime.fresh(agent(lab, "--model opus"), OTHER)
    command = ("claude", "--settings", "/mine.json")
    assert lab.runtime.fresh(replace(agent(lab), command=command), OTHER) == (*command, "--session-id", OTHER)


def test_what_its_status_line_reported_in_this_launch_is_how_much_is_used(lab: Lab) -> None:
    assert lab.look()[1].usage == ()
    limits = {"five_hour": [95.0, lab.now + 60], "seven_day": [40.0, None]}
    lab.events = {"StatusLine": {"at": lab.now - 5, "rate_limits": limits}}
    five, week = lab.look()[1].usage
    assert (five.window, five.used, five.resets_at) == ("5-hour", 0.95, lab.now + 60)
    assert (week.window, week.used, week.resets_at, week.at) == ("weekly", 0.4, None, lab.now - 5)
    lab.events = {"StatusLine": {"at": lab.launched_at - 5, "rate_limits": limits}}
    assert lab.look()[1].usage == (), "an earlier launch may have been on another account"


def test_nothing_is_resumed_where_the_client_would_end_or_ask(lab: Lab, tmp_path: Path) -> None:
    settings = agent(lab)

    def resumes(conversation: str, home: Path | None = lab.home) -> bool:
        return lab.runtime.resume(settings, conversation, home) is not None

    assert not resumes(OTHER), "there is no transcript"
    lab.transcript({"type": "mode", "mode": "normal"}, said(1.0, "user", "x", isMeta=True), of=OTHER)
    assert not resumes(OTHER), "nobody said anything"
    lab.transcript(prompt(lab.now), project="-of-another-directory", of=OTHER)
    (lab.home / "projects" / "-of-another-directory" / "work.jsonl").write_text(json.dumps(prompt(1.0)))
    assert not resumes("work"), "what is no UUID opens a picker"
    assert not resumes(CONVERSATION, None)
    (lab.home / "projects" / lab.transcript(of=OTHER).parent.name / f"{OTHER}.jsonl").unlink()
    assert resumes(OTHER), "the client finds a conversation of any directory"


def test_a_transcript_is_looked_for_under_the_real_path_of_the_working_directory(
    lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(lab.work)
    path = lab.transcript(prompt(lab.now))
    lab.work = tmp_path / "link"
    assert path.parent.name == "".join(c if c.isalnum() else "-" for c in str(tmp_path / "work.dir"))
    assert lab.runtime.resume(agent(lab), CONVERSATION, lab.home) is not None


# -- its account home --------------------------------------------------------------------------------------


def configure(lab: Lab, *, login: bool = True, trusted: bool = True, **config: Any) -> None:
    projects = {os.path.realpath(lab.work): {"hasTrustDialogAccepted": True}} if trusted else {}
    content = {"hasCompletedOnboarding": True, "projects": projects, **config}
    (lab.home / ".claude.json").write_text(json.dumps(content))
    if login:
        tokens = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-secret", "expiresAt": 1}}
        (lab.home / ".credentials.json").write_text(json.dumps(tokens))


def found(lab: Lab, args: str = "", dialogs: str = "", **variables: str) -> dict[str, bool]:
    """Return what is wrong with the home, and whether a launch is refused for it."""
    settings = agent(lab, args, dialogs)
    variables.setdefault("CLAUDE_CONFIG_DIR", str(lab.home))
    report = lab.runtime.check_home(settings, lab.home, variables, ("projects", "file-history"))
    assert "secret" not in repr(report)
    return {problem.key: problem.refuses for problem in report.problems}


def credentials(lab: Lab, **variables: str) -> tuple[Credentials, str]:
    report = lab.runtime.check_home(None, lab.home, variables, ())
    return report.credentials, report.how


def test_a_home_that_was_used_once_has_nothing_wrong(lab: Lab) -> None:
    configure(lab)
    (lab.home / "settings.json").write_text(json.dumps({"skipDangerousModePermissionPrompt": True}))
    assert found(lab, BYPASS, IS_SANDBOX="1") == {}
    assert credentials(lab) == (Credentials.PRESENT, "login")


def test_a_new_home_is_refused_before_the_client_asks_for_everything(lab: Lab) -> None:
    keys = found(lab)
    assert {"login", "onboarding", "trust"} <= keys.keys() and all(keys.values())
    lab.home = lab.home / "none"
    assert found(lab) == {"home": True}


@pytest.mark.skipif(not process_table.LINUX, reason="elsewhere a login may be in the keychain")
def test_credentials_are_found_wherever_the_client_takes_them_from(lab: Lab) -> None:
    configure(lab, login=False)
    assert credentials(lab)[0] is Credentials.ABSENT
    for name in ("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK"):
        assert credentials(lab, **{name: "1secret"}) == (Credentials.PRESENT, f"{name} (environment)")
    assert credentials(lab, CLAUDE_CODE_USE_VERTEX="0")[0] is Credentials.ABSENT
    configure(lab, login=False, primaryApiKey="secret")
    assert credentials(lab)[0] is Credentials.PRESENT
    configure(lab, login=False)
    for content in ({"apiKeyHelper": "/bin/key"}, {"env": {"ANTHROPIC_AUTH_TOKEN": "secret"}}):
        (lab.home / "settings.json").write_text(json.dumps(content))
        assert credentials(lab)[0] is Credentials.PRESENT


def test_a_key_must_have_been_agreed_to_or_be_answered_by_a_setting(lab: Lab) -> None:
    key = "sk-ant-api03-secret-0123456789abcdefghij"
    configure(lab)
    assert found(lab, ANTHROPIC_API_KEY=key) == {"api-key": True}
    assert found(lab, dialogs="api-key=accept", ANTHROPIC_API_KEY=key) == {}
    configure(lab, customApiKeyResponses={"approved": [key[-20:]]})
    assert found(lab, ANTHROPIC_API_KEY=key) == {}
    configure(lab, login=False, customApiKeyResponses={"approved": [key[-20:]]})
    (lab.home / ".credentials.json").unlink()
    assert credentials(lab, ANTHROPIC_API_KEY=key) == (Credentials.PRESENT, "api key (environment)")


@pytest.mark.skipif(not process_table.LINUX, reason="elsewhere a login may be in the keychain")
def test_a_key_that_was_turned_down_is_none(lab: Lab) -> None:
    key = "sk-ant-api03-secret-0123456789abcdefghij"
    configure(lab, login=False, customApiKeyResponses={"approved": [], "rejected": [key[-20:]]})
    assert found(lab, ANTHROPIC_API_KEY=key) == {"login": True}
    assert "turned down" in credentials(lab, ANTHROPIC_API_KEY=key)[1]


def test_trust_is_that_of_the_directory_or_of_one_above_it_in_its_repository(lab: Lab) -> None:
    inner = lab.work / "a" / "b"
    inner.mkdir(parents=True)
    assert trusted_by(inner)[:3] == [str(inner), str(inner.parent), str(lab.work)]
    assert trusted_by(inner)[-1] == "/"
    subprocess.run(["git", "init", "-q", str(inner.parent)], check=True)
    assert trusted_by(inner) == [str(inner), str(inner.parent)], "not beyond the repository"
    worktree = lab.work / "tree"
    worktree.mkdir()
    (worktree / ".git").write_text(f"gitdir: {inner.parent}/.git/worktrees/tree\n")
    assert trusted_by(worktree) == [str(worktree), str(inner.parent)]
    configure(lab, trusted=False)
    assert found(lab) == {"trust": True}
    assert found(lab, dialogs="trust=accept") == {}
    configure(
        lab, trusted=False, projects={os.path.realpath(lab.work.parent): {"hasTrustDialogAccepted": True}}
    )
    assert found(lab) == {}


def test_to_work_without_asking_must_have_been_agreed_to_and_root_must_say_it_is_in_a_sandbox(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(lab)
    for args in (BYPASS, "--permission-mode bypassPermissions", "--permission-mode=bypassPermissions"):
        assert found(lab, args, IS_SANDBOX="1") == {"bypass": True}
    assert found(lab, "--permission-mode plan") == {}
    assert found(lab, BYPASS, dialogs="bypass=accept", IS_SANDBOX="1") == {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert found(lab, BYPASS, dialogs="bypass=accept") == {BYPASS: True}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert found(lab, BYPASS, dialogs="bypass=accept") == {}


def test_a_dangling_link_is_refused_since_the_client_works_on_and_saves_nothing(lab: Lab) -> None:
    configure(lab)
    (lab.home / "projects").rmdir()
    (lab.home / "projects").symlink_to(lab.home / "gone")
    assert found(lab) == {"link projects": True}


def test_files_that_are_broken_are_shown_and_refuse_nothing(lab: Lab) -> None:
    configure(lab)
    for name in (".claude.json", "settings.json", ".credentials.json"):
        (lab.home / name).write_text("{ broken")
    assert found(lab) == {".claude.json": False, "settings.json": False}
    assert credentials(lab)[0] is Credentials.UNKNOWN


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from((".claude.json", "settings.json", ".credentials.json")), ANY_JSON))
def test_no_content_of_a_home_is_an_error(contents: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as base:
        lab = Lab(Path(base))
        for name, content in contents.items():
            (lab.home / name).write_text(json.dumps(content))
        found(lab, BYPASS, ANTHROPIC_API_KEY="k" * 30)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(("projects", "customApiKeyResponses", "hasCompletedOnboarding", "primaryApiKey")),
    ANY_JSON,
)
def test_no_value_in_a_config_file_is_an_error(key: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as base:
        lab = Lab(Path(base))
        configure(lab, **{key: value})
        (lab.home / "settings.json").write_text(json.dumps({"env": value, "apiKeyHelper": value}))
        found(lab, ANTHROPIC_API_KEY="k" * 30)


# -- its screen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "dialog", "chosen"),
    [
        (TRUST, "trust", "decline"),
        (KEY, "api-key", "reject"),
        (ACCEPTS, "bypass", "accept"),
        (SERVER, "mcp-server", "reject"),
        (SUMMARY, "resume-summary", "full"),
        (LOGIN, "login", None),
        (LIMIT_MENU, "usage-limit", None),
        (BROKEN, "settings", None),
        (PERMISSION, None, None),
    ],
)
def test_a_menu_is_recognised_with_its_cursor(
    rows: tuple[str, ...], dialog: str | None, chosen: str | None
) -> None:
    shown = claude_screen.read(rows)
    assert (shown.menu, shown.box, shown.dialog, shown.chosen) == (True, False, dialog, chosen)


def test_a_cursor_at_no_known_answer_is_never_to_be_confirmed() -> None:
    rows = tuple(row.replace("No, exit", "Nein") for row in TRUST)
    assert claude_screen.read(rows).chosen == claude_screen.ELSEWHERE
    words = {word for dialog in claude_screen.DIALOGS for word in dialog.answers}
    assert claude_screen.ELSEWHERE not in words


def test_a_conversation_about_a_dialog_is_none() -> None:
    talk = (
        "❯ what does it ask?",
        "● Quick safety check: Is this a project you trust?",
        " ❯ No, exit",
        *TRUST,
    )
    shown = claude_screen.read(box(*talk))
    assert shown.box and not shown.menu and shown.dialog is None
    assert not claude_screen.read(box("● press esc to interrupt")).working


def test_prompts_above_a_box_that_is_not_understood_are_no_menu() -> None:
    shown = claude_screen.read(("❯ hello", "● heard: hello", "", RULE, "> ", RULE))
    assert not shown.menu and not shown.box


def test_work_is_told_by_the_line_of_the_mode_or_of_the_spinner() -> None:
    assert claude_screen.read(box(mode="⏵⏵ auto mode on · esc to interrupt")).working
    assert claude_screen.read(box("✻ Waiting for 1 background agent to finish")).working
    assert claude_screen.read(box("✽ Sautéing… (3s · esc to interrupt)")).working
    assert not claude_screen.read(box("✻ Crunched for 1s · done 6:56 PM")).working


@given(st.lists(st.text(alphabet="❯\u00a0─▔ ●⎿1.aYesNoEnter to confirm", max_size=30), max_size=12))
def test_no_screen_is_an_error(rows: list[str]) -> None:
    claude_screen.read(rows)


# -- its start ---------------------------------------------------------------------------------------------


def test_it_is_ready_when_its_status_file_says_so_and_in_which_conversation(lab: Lab) -> None:
    lab.rows = box()
    assert lab.runtime.boot(lab.place).stage is BootStage.READY, "a version without status files"
    lab.status("idle")
    boot = lab.runtime.boot(lab.place)
    assert (boot.stage, boot.evidence) == (BootStage.READY, "status-file: idle")
    assert boot.conversation == CONVERSATION
    lab.rows = None
    assert lab.runtime.boot(lab.place).stage is BootStage.READY, "without a look at the screen"


def test_a_screen_that_is_drawn_before_the_status_file_speaks_is_not_ready(lab: Lab) -> None:
    lab.rows = box()
    lab.launched_at = lab.now - SPEAKS_SECS / 2
    assert lab.runtime.boot(lab.place).stage is BootStage.WAIT
    lab.status(None)
    assert lab.runtime.boot(lab.place).stage is BootStage.WAIT
    lab.status("busy")
    assert lab.runtime.boot(lab.place).stage is BootStage.READY


def test_a_hook_proves_a_start_where_there_is_no_status_file(lab: Lab) -> None:
    assert lab.runtime.boot(lab.place).stage is BootStage.WAIT
    lab.events["SessionStart"] = {"at": lab.now - 5, "source": "startup", "session_id": CONVERSATION}
    boot = lab.runtime.boot(lab.place)
    assert (boot.stage, boot.evidence) == (BootStage.READY, "hook: SessionStart")
    lab.events["SessionStart"] = {"at": lab.launched_at - 5, "session_id": CONVERSATION}
    assert lab.runtime.boot(lab.place).stage is BootStage.WAIT, "that was another launch"


def test_another_conversation_than_the_wanted_one_is_not_ready(lab: Lab) -> None:
    lab.rows = box()
    lab.status("idle", sessionId=OTHER)
    boot = lab.runtime.boot(lab.place)
    assert (boot.stage, boot.conversation) == (BootStage.WAIT, OTHER)
    assert CONVERSATION in boot.evidence


def test_an_open_dialog_is_not_ready_whatever_the_status_file_says(lab: Lab) -> None:
    lab.rows = SUMMARY
    lab.status("idle")
    boot = lab.runtime.boot(lab.place)
    assert (boot.stage, boot.dialog, boot.chosen) == (BootStage.DIALOG, "resume-summary", "full")
    lab.status_file.unlink()
    lab.rows = TRUST
    assert lab.runtime.boot(lab.place).dialog == "trust"
    lab.rows = menu("  Something that nobody knows", "  ❯ Go", "    Stop")
    lab.status("waiting", waitingFor="dialog open")
    boot = lab.runtime.boot(lab.place)
    assert boot.stage is BootStage.WAIT and "Something that nobody knows" in boot.evidence


@pytest.mark.parametrize(
    "words",
    [
        f"No conversation found with session ID: {CONVERSATION}",
        f"Error: Session ID {CONVERSATION} is already in use.",
        "--dangerously-skip-permissions cannot be used with root/sudo privileges for security reasons",
        " Unable to connect to Anthropic services",
    ],
)
def test_a_start_that_has_failed_says_why(lab: Lab, words: str) -> None:
    lab.rows = ("", words, "")
    boot = lab.runtime.boot(lab.place)
    assert boot.stage is BootStage.FAILED and words.strip() in boot.evidence
    lab.rows = box(f"● {words}")
    assert lab.runtime.boot(lab.place).stage is not BootStage.FAILED, "it is only spoken of"


# -- what it does, by its status file ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "state", "what"),
    [
        ("idle", State.IDLE, ""),
        ("busy", State.WORKING, ""),
        ("shell", State.IDLE, "background shell"),
        ("waiting", State.WAITING, "dialog"),
    ],
)
def test_the_status_file_says_what_it_does(lab: Lab, word: str, state: State, what: str) -> None:
    lab.status(word, lab.now - 2)
    health = lab.health()
    assert (health.state, health.what, health.source) == (state, what, Source.STATUS_FILE)
    assert health.at == pytest.approx(lab.now - 2, abs=0.002)


def test_a_turn_that_its_status_file_never_told_of_is_in_the_conversation(lab: Lab) -> None:
    lab.status("idle", lab.now - 90)
    lab.transcript(prompt(lab.now - 20), answer(lab.now - 19))
    assert lab.health().at == pytest.approx(lab.now - 19, abs=0.002)
    lab.transcript(prompt(lab.now - 120), answer(lab.now - 110))
    assert lab.health().at == pytest.approx(lab.now - 90, abs=0.002)


def test_what_it_waits_for_is_told(lab: Lab) -> None:
    lab.transcript(prompt(lab.now - 9), call(lab.now - 8, "Write"))
    lab.status("waiting", waitingFor="permission prompt")
    assert lab.health().what == "permission: Write"
    assert lab.screens == 0, "a screen is looked at only where the files do not tell"
    lab.transcript(
        prompt(lab.now - 9), call(lab.now - 8, "Read"), call(lab.now - 8, "Bash", 2), result(lab.now - 7)
    )
    assert lab.health().what == "permission: Bash", "the other one has answered"
    lab.transcript(prompt(lab.now - 9), call(lab.now - 8, "AskUserQuestion"))
    assert lab.health().what == "question"
    lab.status("waiting", waitingFor="dialog open")
    lab.rows = LIMIT_MENU
    assert lab.health().what == "dialog: usage-limit"
    lab.status("waiting", waitingFor="input needed")
    assert lab.health().what == "question"
    lab.status("waiting", waitingFor="something\nnew")
    assert lab.health().what == "something new"


def test_a_permission_is_named_by_the_screen_where_nothing_is_saved(lab: Lab) -> None:
    lab.status("waiting", waitingFor="permission prompt")
    lab.rows = PERMISSION
    assert lab.health().what == "permission: Bash"


@pytest.mark.parametrize(
    "changed",
    [
        {"procStart": "1"},
        {"procStart": ["1"]},
        {"pid": 1},
        {"procStart": None, "startedAt": 1},
        {"procStart": None, "startedAt": None},
        {"procStart": "soon"},
    ],
)
@pytest.mark.skipif(not process_table.LINUX, reason="start times of /proc")
def test_the_status_file_of_another_process_says_nothing(lab: Lab, changed: Record) -> None:
    lab.status("idle", **changed)
    lab.rows = box(mode="⏵⏵ auto mode on · esc to interrupt")
    assert (lab.health().state, lab.health().source) == (State.WORKING, Source.SCREEN)


def test_the_status_file_of_a_process_that_has_ended_says_nothing(lab: Lab) -> None:
    ended = subprocess.Popen(["sleep", "600"])
    found = process_table.identify(ended.pid)
    assert found is not None
    lab.process = found
    lab.status("busy")
    assert lab.health().state is State.WORKING
    ended.kill()
    ended.wait()
    assert lab.health().state is State.UNKNOWN
    assert lab.runtime.boot(lab.place).stage is BootStage.WAIT


def test_without_a_start_time_it_must_have_begun_after_its_process(lab: Lab) -> None:
    lab.status("idle", procStart=None, startedAt=int(lab.now * 1000))
    assert lab.health().source is Source.STATUS_FILE


def test_a_status_file_that_is_cut_short_leaves_it_to_the_next_evidence(lab: Lab) -> None:
    lab.status("idle")
    whole = lab.status_file.read_text()
    lab.rows = box(mode="⏵⏵ auto mode on · esc to interrupt")
    for size in range(len(whole)):
        lab.status_file.write_text(whole[:size])
        assert lab.health().state is State.WORKING, size


KNOWN = ("idle", "busy", "shell", "waiting")


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(("sessionId", "status", "waitingFor", "statusUpdatedAt", "startedAt", "new")),
        ANY_JSON,
        max_size=4,
    ),
    st.sets(st.sampled_from(("sessionId", "status", "waitingFor", "statusUpdatedAt", "startedAt", "cwd"))),
)
def test_no_status_file_leads_to_a_wrong_state(changed: Record, missing: set[str]) -> None:
    with tempfile.TemporaryDirectory() as base:
        lab = Lab(Path(base))
        record = {**lab.status("idle"), **changed}
        record = {key: value for key, value in record.items() if key not in missing}
        lab.status_file.write_text(json.dumps(record))
        lab.rows = box()
        health, seen = lab.look()
        told = [sign for sign in seen.signs if sign.source is Source.STATUS_FILE]
        assert bool(told) == (record.get("status") in KNOWN)
        assert health.state is State.IDLE or record.get("status") in KNOWN
        assert seen.conversation is not None
        lab.runtime.boot(lab.place)
        lab.runtime.writers((lab.home,), CONVERSATION)


# -- what it does, without a status file -------------------------------------------------------------------


def test_the_transcript_tells_the_state_and_the_screen_corrects_it(lab: Lab) -> None:
    at = lab.now - 5
    lab.transcript(prompt(at))
    assert (lab.health().state, lab.health().source) == (State.WORKING, Source.TRANSCRIPT)
    lab.rows = box("  ⎿  Interrupted · What should Claude do instead?")
    assert (lab.health().state, lab.health().source) == (State.IDLE, Source.SCREEN)
    lab.rows = PERMISSION
    assert (lab.health().state, lab.health().what) == (State.WAITING, "permission: Bash")
    lab.rows = None
    for records, state in (
        ((prompt(at), answer(at + 1)), State.IDLE),
        ((prompt(at), call(at + 1)), State.WORKING),
        ((prompt(at), call(at + 1), result(at + 2)), State.WORKING),
        ((prompt(at), said(at + 1, "user", "[Request interrupted by user]")), State.IDLE),
        ((prompt(at), answer(at + 1), said(at + 2, "user", "<command-name>/model")), State.IDLE),
        ((prompt(at), answer(at + 1), {**prompt(at + 2), "isSidechain": True}), State.IDLE),
        ((prompt(at), said(at + 1, "assistant", "part", stop_reason=None)), State.UNKNOWN),
    ):
        lab.transcript(*records)
        assert lab.health().state is state, records
    assert lab.look()[1].conversation == CONVERSATION


def test_hooks_tell_the_state_and_the_end_of_a_turn_is_not_idle_while_sub_agents_go_on(lab: Lab) -> None:
    lab.events["UserPromptSubmit"] = {"at": lab.now - 9}
    assert (lab.health().state, lab.health().source) == (State.WORKING, Source.HOOK)
    lab.events["Stop"] = {"at": lab.now - 8, "background_tasks": 1}
    assert lab.health().state is State.WORKING
    lab.events["Stop"] = {"at": lab.now - 7, "background_tasks": 0}
    assert lab.health().state is State.IDLE
    lab.events["Notification"] = {"at": lab.now - 6, "notification_type": "permission_prompt"}
    assert (lab.health().state, lab.health().what) == (State.WAITING, "permission")
    lab.events["Notification"] = {"at": lab.now - 6, "notification_type": "auth_success"}
    assert lab.health().state is State.IDLE
    lab.events = {"Stop": {"at": lab.now - 7, "session_id": OTHER}, "StopFailure": {"at": "soon"}}
    assert lab.health().state is State.UNKNOWN, "that was another conversation"


def test_nothing_is_known_of_what_nothing_tells(lab: Lab) -> None:
    health, seen = lab.look()
    assert health.state is State.UNKNOWN and seen.signs == () and seen.last_activity is None


# -- faults ------------------------------------------------------------------------------------------------


def test_a_usage_limit_has_its_window_and_reset_from_codes(lab: Lab) -> None:
    lab.status("idle")
    for kind, window, model_only in (
        ("five_hour", "5-hour", False),
        ("seven_day", "weekly", False),
        ("seven_day_opus", "opus", True),
        ("something_new", "something-new", False),
    ):
        lab.transcript(prompt(lab.now - 9), limit(lab.now - 8, lab.now + 3600, kind, "usage limit"))
        assert lab.health().state is State.LIMITED
        fault = lab.fault()
        assert (fault.kind, fault.window, fault.model_only) == (FaultKind.USAGE_LIMIT, window, model_only)
        assert fault.resets_at == int(lab.now + 3600) and fault.text.startswith("You've hit your usage limit")


def test_a_reset_that_cannot_be_read_is_taken_from_the_text_or_unknown(lab: Lab) -> None:
    at = 1795276536.0
    record = limit(at, at + 7200)
    for value in (None, "soon", True, float("nan"), -1, [1], 10**400):
        record["quotaLimits"]["resetsAt"] = value
        fault = claude_transcript.fault(record, at)
        assert fault.kind is FaultKind.USAGE_LIMIT and fault.window == "5-hour"
        assert fault.resets_at is not None and abs(fault.resets_at - at - 7200) <= 60
    record["message"]["content"] = "new words"
    assert claude_transcript.fault(record, at).resets_at is None


def test_an_older_record_without_codes_is_read_by_its_words() -> None:
    words = "Claude AI usage limit reached|1795283736"
    fault = claude_transcript.fault(failure(1795276536.0, words), 1795276536.0)
    assert fault.kind is FaultKind.USAGE_LIMIT


OTHERS: list[tuple[str, Record, FaultKind]] = [
    (PLAIN_429["words"], {"error": "rate_limit", "apiErrorStatus": 429}, FaultKind.RATE_LIMIT),
    (
        "API Error: Request rejected (429) · This request would exceed your account's rate limit.",
        {"error": "rate_limit", "apiErrorStatus": 429},
        FaultKind.RATE_LIMIT,
    ),
    ("API Error: 529 Overloaded.", {"error": "server_error", "apiErrorStatus": 529}, FaultKind.OVERLOAD),
    ("New words", {"error": "server_error", "apiErrorStatus": 529}, FaultKind.OVERLOAD),
    ("New words", {"error": "overloaded"}, FaultKind.OVERLOAD),
    ("API Error: 500 Internal.", {"error": "server_error", "apiErrorStatus": 500}, FaultKind.SERVER_ERROR),
    ("New words", {"error": "server_error"}, FaultKind.SERVER_ERROR),
    ("Not logged in · Please run /login", {"error": "authentication_failed"}, FaultKind.CREDENTIALS),
    ("New words", {"apiErrorStatus": 403}, FaultKind.CREDENTIALS),
    ("Credit balance is too low", {"error": "billing_error", "apiErrorStatus": 400}, FaultKind.CREDIT),
    (
        "API Error: Connection dropped (ECONNRESET).",
        {"error": "server_error", "apiError": "connection_failed"},
        FaultKind.NETWORK,
    ),
    ("New words", {}, FaultKind.OTHER),
]


@pytest.mark.parametrize(("words", "codes", "kind"), OTHERS)
def test_other_faults_are_told_apart_by_codes_first(words: str, codes: Record, kind: FaultKind) -> None:
    at = 1795276536.0
    fault = claude_transcript.fault(failure(at, words, **codes), at)
    assert (fault.kind, fault.text, fault.retrying) == (kind, words, False)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(("apiErrorStatus", "apiErrorParams", "apiErrorType", "timestamp", "new", "message")),
        ANY_JSON,
        max_size=3,
    )
)
def test_a_plain_429_never_becomes_a_usage_limit(changed: Record) -> None:
    record = {**failure(1795276536.0, PLAIN_429["words"], error="rate_limit", apiErrorStatus=429), **changed}
    assert claude_transcript.fault(record, 1795276536.0).kind is not FaultKind.USAGE_LIMIT


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                (
                    *("type", "message", "timestamp", "isSidechain", "isApiErrorMessage", "quotaLimits"),
                    *("apiErrorParams", "error", "apiError", "apiErrorStatus", "isMeta"),
                )
            ),
            ANY_JSON,
            max_size=4,
        ),
        max_size=4,
    )
)
def test_no_record_of_a_transcript_is_an_error(changes: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as base:
        lab = Lab(Path(base))
        whole = limit(lab.now - 8, lab.now + 60)
        lab.transcript(prompt(lab.now - 9), *({**whole, **change} for change in changes))
        lab.status("idle")
        assert lab.health().state in (State.IDLE, State.LIMITED, State.WAITING)


def test_an_answer_ends_a_fault_and_a_sub_agents_records_say_nothing_of_it(lab: Lab) -> None:
    lab.status("idle")
    broken = limit(lab.now - 8, lab.now + 3600)
    lab.transcript(prompt(lab.now - 9), broken, prompt(lab.now - 5), answer(lab.now - 4))
    assert lab.health().fault is None
    lab.transcript(prompt(lab.now - 9), answer(lab.now - 8), {**broken, "isSidechain": True})
    assert lab.health().fault is None
    lab.transcript(prompt(lab.now - 9), broken, {**answer(lab.now - 4), "isSidechain": True})
    assert lab.health().state is State.LIMITED


def test_what_an_earlier_launch_met_is_no_fault_of_this_one(lab: Lab) -> None:
    before = lab.launched_at - 60
    lab.transcript(prompt(before - 1), limit(before, lab.now + 3600))
    lab.status("idle")
    lab.rows = box("❯ hello", "  ⎿  You've hit your 5-hour limit · resets 4:55pm (UTC)")
    health, seen = lab.look()
    assert (health.state, health.fault) == (State.IDLE, None)
    assert seen.last_activity is not None


def test_a_hook_tells_a_fault_that_the_transcript_does_not(lab: Lab) -> None:
    lab.status("idle")
    lab.transcript(prompt(lab.now - 9))
    lab.events["StopFailure"] = {"at": lab.now - 8, "error": "authentication_failed"}
    assert (lab.health().state, lab.health().what) == (State.WAITING, "login")
    lab.events["StopFailure"] = {"at": lab.now - 8, "error": "rate_limit"}
    assert lab.fault().kind is FaultKind.OTHER, "the code alone does not say which limit"
    lab.transcript(prompt(lab.now - 9), limit(lab.now - 8, lab.now + 60))
    assert lab.fault().kind is FaultKind.USAGE_LIMIT


def test_what_is_tried_again_is_seen_on_the_screen_of_a_long_turn_only(lab: Lab) -> None:
    lab.transcript(prompt(lab.now - 60))
    retried = "  ⎿  API Error: 529 Overloaded · retrying in 8s · attempt 4/10"
    lab.rows = box("❯ hello", retried, mode="⏵⏵ auto mode on · esc to interrupt")
    lab.status("busy", lab.now - 60)
    health = lab.health()
    assert health.state is State.WORKING and lab.fault().retrying and lab.fault().kind is FaultKind.OVERLOAD
    lab.screens = 0
    lab.status("busy", lab.now)
    assert lab.health().fault is None and lab.screens == 0
    lab.status("idle", lab.now - 60)
    assert lab.health().fault is None and lab.screens == 0


def test_a_fault_of_which_nothing_is_saved_is_read_from_the_screen(lab: Lab) -> None:
    lab.status("idle")
    lab.rows = box("❯ hello", "  ⎿  You've hit your weekly limit · resets Nov 25, 6:57pm (UTC)")
    assert lab.health().state is State.LIMITED


def test_of_two_transcripts_that_of_its_own_directory_counts(lab: Lab, tmp_path: Path) -> None:
    lab.status("idle")
    lab.transcript(prompt(lab.now - 9), limit(lab.now - 8, lab.now + 3600))
    other = lab.transcript(prompt(lab.now - 9), answer(lab.now - 4), project="-another")
    os.utime(other, (lab.now + 5, lab.now + 5))
    (tmp_path / "link").symlink_to(lab.work)
    assert lab.health().state is State.LIMITED
    lab.work = tmp_path / "link"
    assert lab.health().state is State.LIMITED


# -- activity ----------------------------------------------------------------------------------------------


def test_activity_is_the_newest_entry_of_the_conversation_and_of_its_sub_agents(lab: Lab) -> None:
    lab.status("idle", lab.now - 500)
    path = lab.transcript(prompt(lab.now - 400), answer(lab.now - 300))
    os.utime(path)
    assert lab.look()[1].last_activity == pytest.approx(lab.now - 300, abs=0.002)
    inner = path.with_suffix("") / "subagents" / "agent-a.jsonl"
    inner.parent.mkdir(parents=True)
    inner.write_text(json.dumps({**answer(lab.now - 200), "isSidechain": True}) + "\n")
    assert lab.look()[1].last_activity == pytest.approx(lab.now - 200, abs=0.002)
    lab.status("idle", lab.now - 100)
    assert lab.look()[1].last_activity == pytest.approx(lab.now - 100, abs=0.002)


@pytest.mark.parametrize("word", ["busy", "shell"])
def test_a_long_turn_and_a_tool_in_the_background_are_activity_now(lab: Lab, word: str) -> None:
    lab.status(word, lab.now - 900)
    activity = lab.look()[1].last_activity
    assert activity is not None and activity >= lab.now


def test_a_time_in_the_future_is_no_activity(lab: Lab) -> None:
    lab.transcript(prompt(lab.now - 300), answer(lab.now + 10**6))
    lab.status("idle", lab.now + 10**6)
    assert lab.look()[1].last_activity == pytest.approx(lab.now - 300, abs=0.002)


def test_a_transcript_is_read_again_when_it_has_grown(lab: Lab) -> None:
    lab.status("idle")
    path = lab.transcript(prompt(lab.now - 9), limit(lab.now - 8, lab.now + 60))
    assert lab.health().state is State.LIMITED
    with path.open("a") as file:
        file.write(json.dumps(answer(lab.now - 1)) + "\n")
    assert lab.health().state is State.IDLE


# -- its processes -----------------------------------------------------------------------------------------


def test_a_conversation_is_open_in_a_process_that_runs_and_says_so_in_any_home(
    lab: Lab, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    homes = (empty, lab.home)
    lab.status("idle")
    (writer,) = lab.runtime.writers(homes, CONVERSATION.upper())
    assert (writer.process, writer.home, writer.evidence) == (lab.process, lab.home, str(lab.status_file))
    assert lab.runtime.writers(homes, OTHER) == ()
    lab.status("idle", procStart=str(lab.process.start + 1))
    assert lab.runtime.writers(homes, CONVERSATION) == (), "the pid is another process's now"


@pytest.mark.skipif(not process_table.LINUX, reason="start times of /proc")
def test_only_the_files_of_a_process_that_is_gone_are_stale(lab: Lab) -> None:
    lab.status("idle")
    assert lab.runtime.stale_files((lab.home,), lab.process) == (), "it runs"
    gone = ProcessId(lab.process.pid, lab.process.start + 1)
    assert lab.runtime.stale_files((lab.home,), gone) == (), "the file is another process's"
    lab.status("idle", procStart=str(gone.start))
    assert lab.runtime.stale_files((lab.home, lab.home), gone) == (lab.status_file,)


def test_a_look_at_files_alone_is_the_same_whoever_looks(lab: Lab) -> None:
    lab.transcript(prompt(lab.now - 9), answer(lab.now - 8))
    lab.status("idle")
    one, other = lab.runtime.look(lab.place), ClaudeRuntime().look(lab.place)
    key: Callable[[Sign], str] = repr
    assert sorted(one.signs, key=key) == sorted(other.signs, key=key)
    assert claude_home.check(None, lab.home, {}, ()) == claude_home.check(None, lab.home, {}, ())


@pytest.mark.parametrize(("called", "state"), [("sh", State.WORKING), ("claude", State.UNKNOWN)])
@pytest.mark.skipif(not process_table.LINUX, reason="start times of /proc")
def test_a_client_below_a_shell_is_the_agents_and_one_below_a_client_is_a_tool(
    lab: Lab, called: str, state: State
) -> None:
    with subprocess.Popen([called, "-c", "sleep 600; :"], executable="/bin/sh") as above:
        try:
            started = process_table.identify(above.pid)
            assert started is not None
            (lab.process,) = wait_for("its child", lambda: process_table.children(started))
            lab.status("busy")
            below, lab.process = lab.process, started
            assert lab.health().state is state
            process_table.send(below, signal.SIGKILL)
            wait_for("the child's end", lambda: not process_table.children(started))
            assert lab.health().state is State.UNKNOWN
        finally:
            above.kill()
