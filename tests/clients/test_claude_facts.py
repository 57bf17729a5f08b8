"""What the `claude` runtime relies on, as the real Claude Code does it: where this fails, it has changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table
from circus_failover.process_table import ProcessId
from tests import proc
from tests.clients.accounts import ClaudeHome, jsonl
from tests.clients.client import Client, Start
from tests.clients.faults import Fault
from tests.clients.install import Clients
from tests.clients.mock_api import Mock
from tests.clients.network import Network
from tests.clients.waiting import wait_for

MakeHome = Callable[..., ClaudeHome]
BYPASS = "--dangerously-skip-permissions"
READY = "⏵⏵ bypass permissions on"
LONG_TOOL = "[[bash tail -f /dev/null]]"
"""Claude Code refuses a plain `sleep`."""


def new_id() -> str:
    """Return the id of a conversation that nobody has."""
    return str(uuid.uuid4())


def launch(start: Start, home: ClaudeHome, *arguments: str, **variables: str) -> Client:
    """Start Claude Code without permissions, and wait until it says that it is idle."""
    client = start(home, BYPASS, *arguments, directory=None, **variables)
    client.await_screen(READY)
    home.await_status(client.pid, "idle")
    return client


def command(clients: Clients, network: Network, home: ClaudeHome, *arguments: str) -> tuple[int, Any]:
    """Run a command of Claude Code that prints JSON; its exit code, and what it printed."""
    done = subprocess.run(
        [*network.prefix, str(clients.claude), *arguments, "--json"],
        env={"PATH": os.environ["PATH"], "HOME": str(home.folder), **network.variables, **home.variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout)


def refused(home: ClaudeHome, work: Path, conversation: str, known: int = 0) -> list[dict[str, Any]]:
    """Return what a transcript says of errors that Claude Code showed in place of an answer."""
    return [one for one in home.entries(work, conversation) if one.get("isApiErrorMessage")][known:]


def await_refusal(home: ClaudeHome, work: Path, conversation: str, known: int = 0) -> dict[str, Any]:
    """Wait for one more such error."""
    return wait_for("an error", lambda: refused(home, work, conversation, known))[0]


def await_hook(home: ClaudeHome, event: str, known: int = 0) -> dict[str, Any]:
    """Wait for one more report of an event, and return it."""
    return wait_for(f"{event} is reported", lambda: home.hooked(event)[known:])[0]


def text_of(entry: dict[str, Any]) -> str:
    """Return the text of an entry of a transcript."""
    return str(entry["message"]["content"][0]["text"])


def tool_of(client: Client) -> ProcessId:
    """Wait for the process of the long tool."""

    def look() -> ProcessId | None:
        for process in process_table.descendants(client.process()):
            if proc.command_line(process.pid).startswith(b"tail\0"):
                return process
        return None

    return wait_for("the tool runs", look)


def test_a_conversation_has_the_id_it_was_given_and_says_in_a_file_and_a_command_what_it_does(
    start: Start, claude_home: MakeHome, clients: Clients, network: Network, mock: Mock, work: Path
) -> None:
    home = claude_home("a")
    home.record_hooks("SessionStart", "Stop", "SessionEnd")
    conversation = new_id()
    client = launch(start, home, "--session-id", conversation)
    said = home.await_status(client.pid, "idle")
    assert (said["pid"], said["sessionId"], said["cwd"]) == (client.pid, conversation, str(work.resolve()))
    # The start time of the process, as in /proc/PID/stat: which pid is meant is certain.
    assert said["procStart"] == str(client.process().start)
    assert said["statusUpdatedAt"] <= time.time() * 1000
    started = await_hook(home, "SessionStart")
    transcript = home.transcript(work, conversation)
    assert (started["session_id"], started["transcript_path"]) == (conversation, str(transcript))
    assert not transcript.exists(), "there is no transcript before the first prompt"

    client.prompt("remember PAPAYA [[hold]]")
    wait_for("the answer is held", lambda: mock.held)
    assert home.await_status(client.pid, "busy")["sessionId"] == conversation
    client.await_screen("esc to interrupt")
    code, agents = command(clients, network, home, "agents")
    assert code == 0
    assert [(one["pid"], one["sessionId"], one["status"]) for one in agents] == [
        (client.pid, conversation, "busy")
    ]
    shown = client.await_match(r"\(([\dms ]+) · ↓")[1]
    before = transcript.stat()
    client.await_match(rf"\((?!{shown} )[\dms ]+ · ↓")
    assert transcript.stat().st_mtime_ns == before.st_mtime_ns, "a long answer moves no transcript"
    mock.release()
    client.await_screen("heard: remember PAPAYA")
    home.await_status(client.pid, "idle")
    stopped = await_hook(home, "Stop")
    assert stopped["session_id"] == conversation and stopped["background_tasks"] == []

    client.prompt("write [[write out.txt]] [[bash cat out.txt]]")
    client.await_screen("heard: write; before: remember PAPAYA")
    home.await_status(client.pid, "idle")
    assert (work / "out.txt").read_text() == "written\n"
    client.prompt("/exit")
    assert client.ended() == 0
    assert not (home.folder / "sessions" / f"{client.pid}.json").exists()
    assert await_hook(home, "SessionEnd")["reason"] == "prompt_input_exit"
    entries = home.entries(work, conversation)
    assert {one["type"] for one in entries} >= {"user", "assistant", "system"}
    assert "timestamp" not in entries[-1], "the last lines are about the client, and have no time"


def test_another_account_resumes_a_conversation_by_its_id_and_remembers_it(
    start: Start, claude_home: MakeHome, mock: Mock, work: Path
) -> None:
    first, second = claude_home("a", shared=True), claude_home("b", shared=True)
    conversation = new_id()
    client = launch(start, first, "--session-id", conversation)
    client.prompt("remember PAPAYA")
    client.await_screen("heard: remember PAPAYA")
    first.await_status(client.pid, "idle")

    resumed = start(second, BYPASS, "--resume", conversation, "go on")
    resumed.await_screen("heard: go on; before: remember PAPAYA")
    assert [one.prompts for one in mock.asked(second.key)] == [("remember PAPAYA", "go on")]
    assert second.await_status(resumed.pid, "idle")["sessionId"] == conversation
    assert process_table.alive(client.process()), "nothing stops a second writer"

    def both_are_there() -> bool:
        said = [one for one in first.entries(work, conversation) if one["type"] == "user"]
        return [one["message"]["content"] for one in said] == ["remember PAPAYA", "go on"]

    wait_for("both write the same transcript", both_are_there)

    # A conversation that is there cannot be begun again under its id, in any home that shares it.
    again = start(second, BYPASS, "--session-id", conversation)
    assert again.ended() == 1
    assert f"Error: Session ID {conversation} is already in use." in again.printed()
    unknown = new_id()
    missing = start(second, BYPASS, "--resume", unknown)
    assert missing.ended() == 1
    assert f"No conversation found with session ID: {unknown}" in missing.printed()
    picker = start(second, BYPASS, "--resume", "no-id")
    picker.await_screen("Resume session")
    picker.await_screen("No sessions match")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_its_tools(
    start: Start, claude_home: MakeHome, number: signal.Signals, status: int
) -> None:
    home = claude_home("a")
    client = launch(start, home)
    client.prompt(f"do {LONG_TOOL}")
    tool = tool_of(client)
    assert client.end(number) == status, "it exits by itself, with the status that a shell gives a signal"
    wait_for("the tool has ended", lambda: not process_table.alive(tool))
    # Its status file goes with it, but not every time: once in some thirty ends it stayed.


def test_after_sigkill_its_tools_live_on_and_its_status_file_stays(
    start: Start, claude_home: MakeHome, clients: Clients, network: Network, work: Path
) -> None:
    home = claude_home("a")
    conversation = new_id()
    client = launch(start, home, "--session-id", conversation)
    client.prompt(f"do {LONG_TOOL}")
    tool = tool_of(client)
    home.await_status(client.pid, "busy")
    # It saves the call of a tool a moment after it has begun it; without that nothing was interrupted.
    saved = partial(home.entries, work, conversation)
    wait_for("the call is saved", lambda: any(entry.get("type") == "assistant" for entry in saved()))
    assert client.end(signal.SIGKILL) == -signal.SIGKILL
    assert process_table.alive(tool)
    assert home.status(client.pid)["status"] == "busy", "the file says what is no longer true"
    assert command(clients, network, home, "agents") == (0, []), "the command leaves out what is dead"

    resumed = launch(start, home, "--resume", conversation)
    resumed.await_screen("Interrupted")
    resumed.prompt("go on")
    resumed.await_screen("heard: go on; before: do")


def test_it_waits_for_permission_and_says_so(
    start: Start, claude_home: MakeHome, clients: Clients, network: Network, work: Path
) -> None:
    home = claude_home("a")
    home.record_hooks("PermissionRequest", "Notification")
    client = start(home, "--permission-mode", "default")
    home.await_status(client.pid, "idle")
    client.prompt("do [[bash touch made]]")
    said = home.await_status(client.pid, "waiting")
    assert said["waitingFor"] == "permission prompt"
    client.await_screen("Do you want to proceed? ❯ 1. Yes")
    assert command(clients, network, home, "agents")[1][0]["waitingFor"] == "permission prompt"
    request = await_hook(home, "PermissionRequest")
    assert request["tool_name"] == "Bash"
    client.press("Escape")
    assert "waitingFor" not in home.await_status(client.pid, "idle")
    client.await_screen("Interrupted · What should Claude do instead")
    assert not (work / "made").exists()


def test_sub_agents_keep_it_busy_after_its_turn_and_background_tools_have_a_status_of_their_own(
    start: Start, claude_home: MakeHome, mock: Mock, work: Path
) -> None:
    home = claude_home("a")
    home.record_hooks("Stop", "SubagentStop")
    conversation = new_id()
    client = launch(start, home, "--session-id", conversation)
    client.prompt("delegate [[agent inner ((hold))]]")
    wait_for("the sub-agent's answer is held", lambda: mock.held)
    stopped = await_hook(home, "Stop")
    assert [one["type"] for one in stopped["background_tasks"]] == ["subagent"], "Stop does not mean idle"
    client.await_screen("Waiting for 1 background agent to finish")
    home.await_status(client.pid, "busy")
    assert "esc to interrupt" not in client.screen()
    own = home.transcript(work, conversation).with_suffix("")
    (inner,) = wait_for("its own transcript", lambda: list(own.glob("subagents/agent-*.jsonl")))
    said = wait_for("an entry", lambda: [one for one in jsonl(inner) if one["type"] == "user"])
    assert all(one["isSidechain"] for one in said)
    mock.release()
    home.await_status(client.pid, "idle")
    assert await_hook(home, "SubagentStop")

    client.prompt(f"serve {LONG_TOOL.replace('bash', 'background')}")
    client.await_screen("heard: serve")
    home.await_status(client.pid, "shell")
    client.await_screen("1 shell")
    client.prompt("/exit")
    client.await_match(r"Background work is running[\s\S]*❯ 1. Exit and stop tasks")
    assert home.await_status(client.pid, "waiting")["waitingFor"] == "dialog open"
    tool = tool_of(client)
    client.press("Enter")
    assert client.ended() == 0
    wait_for("the tool has ended", lambda: not process_table.alive(tool))


def test_each_usage_limit_says_which_it_is_and_when_it_resets(
    start: Start, claude_home: MakeHome, mock: Mock, work: Path
) -> None:
    home, other = claude_home("a"), claude_home("b")
    home.record_hooks("StopFailure")
    conversation = new_id()
    client = launch(start, home, "--session-id", conversation, "--model", "opus", TZ="UTC")
    hour, days = 3600, 4 * 24 * 3600
    limits = [
        (Fault.LIMIT_5H, hour, "five_hour", "5-hour limit"),
        (Fault.LIMIT_WEEK, days, "seven_day", "weekly limit"),
        (Fault.LIMIT_OPUS, days, "seven_day_opus", "Opus limit"),
    ]
    for number, (fault, resets_in, kind, words) in enumerate(limits):
        set_ = mock.fail(fault, home.key, resets_in=resets_in)
        client.prompt(f"prompt {number}")
        entry = await_refusal(home, work, conversation, number)
        assert (entry["error"], entry["apiError"]) == ("rate_limit", "usage_limit_reached")
        assert (entry["apiErrorStatus"], entry["isSidechain"]) == (429, False)
        assert entry["quotaLimits"]["rateLimitType"] == kind
        assert entry["quotaLimits"]["resetsAt"] == set_.resets_at
        when = time.gmtime(set_.resets_at)
        clock = f"{when.tm_hour % 12 or 12}:{when.tm_min:02d}{'am' if when.tm_hour < 12 else 'pm'}"
        clock = clock.replace(":00", "")
        if resets_in > 24 * 3600:
            clock = f"{time.strftime('%b', when)} {when.tm_mday}, {clock}"
        assert text_of(entry) == f"You've hit your {words} · resets {clock} (UTC)"
        hooked = await_hook(home, "StopFailure", number)
        assert (hooked["error"], hooked["last_assistant_message"]) == ("rate_limit", text_of(entry))
        client.await_screen(f"You've hit your {words} · resets {clock} (UTC)")
        if resets_in == hour:
            # It goes on by itself, and calls itself idle meanwhile.
            client.await_screen("Usage limit reached · continuing automatically at")
            home.await_status(client.pid, "idle")
            client.press("Escape")
            client.await_screen("Automatic continue cancelled")
        else:
            client.await_screen("What do you want to do? ❯ 1. Stop and wait for limit to reset")
            assert home.await_status(client.pid, "waiting")["waitingFor"] == "dialog open"
            client.press("Escape")
            home.await_status(client.pid, "idle")

    # What is set for one account is no matter of another's, nor Opus of another model.
    sonnet = launch(start, home, "--model", "sonnet")
    sonnet.prompt("hello")
    sonnet.await_screen("heard: hello")
    healthy = launch(start, other, "--model", "opus")
    healthy.prompt("hello")
    healthy.await_screen("heard: hello")


FAULTS: list[tuple[Fault, dict[str, Any], str]] = [
    (
        Fault.RATE,
        {"error": "rate_limit", "apiErrorStatus": 429},
        "API Error: Server is temporarily limiting requests (not your usage limit) · ",
    ),
    (Fault.OVERLOADED, {"error": "server_error", "apiErrorStatus": 529}, "API Error: 529 Overloaded."),
    (
        Fault.BROKEN,
        {"error": "server_error", "apiErrorStatus": 500},
        "API Error: 500 Internal server error.",
    ),
    (
        Fault.UNAUTHORIZED,
        {"error": "authentication_failed", "apiErrorStatus": 401},
        "Not logged in · Please run /login",
    ),
    (
        Fault.FORBIDDEN,
        {"error": "authentication_failed", "apiErrorStatus": 403},
        "Please run /login · API Error: 403 ",
    ),
    (Fault.CREDIT, {"error": "billing_error", "apiErrorStatus": 400}, "Credit balance is too low"),
    (
        Fault.CUT,
        {"error": "server_error", "apiError": "connection_failed"},
        "API Error: Connection dropped (ECONNRESET).",
    ),
]


def test_other_faults_of_a_subscription_are_told_apart_and_none_looks_like_a_usage_limit(
    start: Start, claude_home: MakeHome, mock: Mock, work: Path
) -> None:
    home = claude_home("a", auth="token")
    home.record_hooks("StopFailure")
    conversation = new_id()
    client = launch(start, home, "--session-id", conversation, CLAUDE_CODE_MAX_RETRIES="0")
    for number, (fault, fields, words) in enumerate(FAULTS):
        mock.fail(fault, home.key)
        client.prompt(f"prompt {number}")
        entry = await_refusal(home, work, conversation, number)
        assert fields.items() <= entry.items()
        assert text_of(entry).startswith(words)
        assert entry.get("apiError") != "usage_limit_reached" and "quotaLimits" not in entry
        hooked = await_hook(home, "StopFailure", number)
        assert hooked["error"] == fields["error"]
        home.await_status(client.pid, "idle")
    # The screen says of credit what the transcript does not.
    client.await_screen("Credit balance too low · Add funds")


def test_with_a_key_a_limit_is_a_plain_rejection_and_a_wrong_key_has_words_of_its_own(
    start: Start, claude_home: MakeHome, mock: Mock, work: Path
) -> None:
    home = claude_home("a", auth="key")
    conversation = new_id()
    client = launch(start, home, "--session-id", conversation, CLAUDE_CODE_MAX_RETRIES="0")
    mock.fail(Fault.LIMIT_5H, home.key)
    client.prompt("first")
    limited = await_refusal(home, work, conversation)
    assert (limited["error"], limited["apiErrorStatus"]) == ("rate_limit", 429)
    assert "quotaLimits" not in limited and "apiError" not in limited
    assert text_of(limited).startswith("API Error: Request rejected (429) · ")
    home.await_status(client.pid, "idle")
    mock.fail(Fault.UNAUTHORIZED, home.key)
    client.prompt("second")
    wrong = await_refusal(home, work, conversation, 1)
    assert wrong["error"] == "authentication_failed"
    assert text_of(wrong) == "Invalid API key · Fix external API key"


def test_while_it_tries_again_it_is_busy_and_only_the_screen_says_why(
    start: Start, claude_home: MakeHome, mock: Mock, work: Path
) -> None:
    home = claude_home("a")
    conversation = new_id()
    client = launch(start, home, "--session-id", conversation)
    mock.fail(Fault.OVERLOADED, home.key)
    client.prompt("hello")
    client.await_match(r"529 Overloaded · retrying in \d+s · attempt \d+/10")
    home.await_status(client.pid, "busy")
    assert refused(home, work, conversation) == []
    mock.heal()
    client.await_screen("heard: hello")
    home.await_status(client.pid, "idle")

    mock.fail(Fault.HANG, home.key)
    client.prompt("are you there")
    wait_for("it has asked", lambda: mock.asked(home.key)[-1].fault is Fault.HANG)
    assert home.await_status(client.pid, "busy")
    client.press("Escape")
    home.await_status(client.pid, "idle")
    # What was not answered at all is in the input box again.
    # The blank after the sign is one that does not break.
    client.await_match("^❯\u00a0are you there$")
    client.press("C-u")
    client.write("next")


DIALOGS: dict[str, tuple[dict[str, Any], list[str], str, str]] = {
    "trust": (
        {"trusted": []},
        [BYPASS],
        "Quick safety check: Is this a project you created or one you trust",
        "❯ No, exit Yes, I trust this folder",
    ),
    "bypass": (
        {"bypass": False},
        [BYPASS],
        "WARNING: Claude Code running in Bypass Permissions mode",
        "❯ No, exit Yes, I accept",
    ),
    "key": (
        {"auth": "key", "approved": False},
        [BYPASS],
        "Detected a custom API key in your environment",
        "Yes ❯ No (recommended)",
    ),
}


@pytest.mark.parametrize("dialog", DIALOGS)
def test_a_dialog_at_start_says_no_by_default_and_there_is_no_status_file_yet(
    start: Start, claude_home: MakeHome, dialog: str
) -> None:
    options, arguments, question, answers = DIALOGS[dialog]
    home = claude_home("a", **options)
    client = start(home, *arguments)
    client.await_screen(question)
    client.await_screen(answers)
    assert home.status(client.pid) == {}
    client.answer(question, "Enter")
    if dialog != "key":
        assert client.ended() == 1
        return
    # The key is turned down for good, and it starts with nothing to work with.
    client.await_screen(READY)
    home.await_status(client.pid, "idle")

    def noted() -> list[str]:
        state = json.loads((home.folder / ".claude.json").read_text())
        return list(state.get("customApiKeyResponses", {}).get("rejected", ()))

    assert wait_for("it has noted the answer", noted) == [home.key[-20:]]
    client.prompt("hello")
    client.await_screen("Not logged in · Please run /login")


def test_files_that_are_broken_make_it_ask_and_the_first_answer_is_no_start(
    start: Start, claude_home: MakeHome
) -> None:
    home = claude_home("a")
    (home.folder / "settings.json").write_text("{ broken")
    client = start(home)
    client.await_screen("Settings Error")
    client.await_screen("❯ 1. Fix with Claude 2. Exit and fix manually 3. Continue without these settings")
    other = claude_home("b")
    (other.folder / ".claude.json").write_text("{ broken")
    client = start(other, BYPASS)
    client.await_screen("Configuration error")
    client.await_screen("❯ 1. Exit and fix manually 2. Reset to default configuration")
    client.answer("Configuration error", "Enter")
    assert client.ended() == 1


def test_whether_an_account_is_logged_in_is_told_by_a_command_and_not_by_a_start(
    start: Start, claude_home: MakeHome, clients: Clients, network: Network
) -> None:
    methods = {"login": "claude.ai", "token": "oauth_token", "key": "api_key"}
    for auth, method in methods.items():
        code, said = command(clients, network, claude_home(auth, auth=auth), "auth", "status")
        assert (code, said["loggedIn"], said["authMethod"]) == (0, True, method)
    nobody = claude_home("nobody", auth="none")
    code, said = command(clients, network, nobody, "auth", "status")
    assert (code, said["loggedIn"], said["authMethod"]) == (1, False, "none")
    client = launch(start, nobody)
    assert nobody.await_status(client.pid, "idle"), "it starts as if it could work"


def test_with_a_dangling_link_for_its_projects_it_works_and_saves_nothing(
    start: Start, claude_home: MakeHome, folder: Path, work: Path
) -> None:
    home = claude_home("a")
    (home.folder / "projects").symlink_to(folder / "gone")
    conversation = new_id()
    client = launch(start, home, "--session-id", conversation)
    client.prompt("remember PAPAYA")
    client.await_screen("heard: remember PAPAYA")
    home.await_status(client.pid, "idle")
    client.prompt("/exit")
    assert client.ended() == 0
    assert not (folder / "gone").exists() and not home.transcript(work, conversation).exists()
    again = start(home, BYPASS, "--resume", conversation)
    assert again.ended() == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="about root")
def test_root_needs_to_say_that_it_is_in_a_sandbox(start: Start, claude_home: MakeHome) -> None:
    home = claude_home("a")
    del home.variables["IS_SANDBOX"]
    client = start(home, BYPASS)
    assert client.ended() == 1
    assert "cannot be used with root/sudo privileges" in client.printed()
