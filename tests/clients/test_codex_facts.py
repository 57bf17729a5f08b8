"""What the `codex` runtime relies on, as the real Codex does it: where this fails, it has changed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table
from tests import proc
from tests.clients.accounts import CodexHome, jsonl
from tests.clients.client import Client, Start, marked
from tests.clients.faults import Fault
from tests.clients.install import Clients
from tests.clients.mock_api import Mock
from tests.clients.network import Network
from tests.clients.waiting import wait_for

MakeHome = Callable[..., CodexHome]
READY = "gpt-5 default ·"
"""The line below the input box; the box itself is drawn before it takes what is typed."""
SPINNER = r"^[⠀-⣿] "
LONG_TOOL = "[[bash tail -f /dev/null]]"


def launch(start: Start, home: CodexHome, *arguments: str, **variables: str) -> Client:
    """Start Codex, and wait until it takes what is typed."""
    client = start(home, *arguments, directory=None, **variables)
    client.await_screen(READY)
    return client


def events(rollout: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of one kind that a transcript has so far."""
    return [
        one["payload"]
        for one in jsonl(rollout)
        if one["type"] == "event_msg" and one["payload"]["type"] == kind
    ]


def await_end_of_turn(rollout: Path, number: int) -> dict[str, Any]:
    """Wait until a turn has ended, and return what the transcript says of its end."""
    return wait_for(f"turn {number} has ended", lambda: events(rollout, "task_complete")[number - 1 :])[0]


def test_its_lock_tells_the_conversation_before_the_first_prompt_and_its_title_whether_it_works(
    start: Start, codex_home: MakeHome, mock: Mock, work: Path
) -> None:
    home = codex_home("a")
    client = launch(start, home)
    (conversation,) = wait_for("a lock", home.locked)
    assert home.rollouts() == [], "there is no transcript before the first prompt"
    assert client.await_title("^work$")

    client.prompt("remember PAPAYA [[hold]]")
    wait_for("the answer is held", lambda: mock.held)
    client.await_title(SPINNER)
    (rollout,) = wait_for("a transcript", home.rollouts)
    assert re.fullmatch(rf"rollout-\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d-{conversation}\.jsonl", rollout.name)
    assert re.fullmatch(r"sessions/\d{4}/\d\d/\d\d", str(rollout.parent.relative_to(home.folder)))
    mock.release()
    client.await_screen("heard: remember PAPAYA")
    client.await_title("^work$")
    ended = await_end_of_turn(rollout, 1)
    meta = jsonl(rollout)[0]
    assert (meta["type"], meta["payload"]["id"], meta["payload"]["cwd"]) == (
        "session_meta",
        conversation,
        str(work.resolve()),
    )
    assert ended["last_agent_message"] == "heard: remember PAPAYA" and "error" not in ended

    client.prompt("write [[write out.txt]] [[bash cat out.txt]]")
    client.await_screen("heard: write; before: remember PAPAYA")
    assert (work / "out.txt").read_text() == "written\n"


def test_another_account_resumes_a_conversation_once_the_first_has_let_go_of_it(
    start: Start, codex_home: MakeHome, mock: Mock
) -> None:
    first, second = codex_home("a", shared=True), codex_home("b", shared=True)
    client = launch(start, first)
    client.prompt("remember PAPAYA")
    client.await_screen("heard: remember PAPAYA")
    (conversation,) = first.locked()
    await_end_of_turn(first.rollouts()[0], 1)

    other = start(second, "resume", conversation, "go on")
    other.await_screen("This conversation is open in another app")
    assert mock.asked(second.key) == []
    tree = process_table.descendants(client.process())
    assert client.end(signal.SIGKILL) == -signal.SIGKILL
    # What npm installs may be a parent that ends before the real one does, which has it open.
    wait_for("its processes have ended", lambda: not any(map(process_table.alive, tree)))
    other.press("r")
    # The prompt of the command line is gone by then.
    other.await_screen("heard: remember PAPAYA")
    other.await_screen(READY)
    assert other.end(signal.SIGTERM) == -signal.SIGTERM

    resumed = start(second, "resume", conversation, "go on")
    resumed.await_screen("heard: go on; before: remember PAPAYA")
    assert [one.prompts for one in mock.asked(second.key)] == [("remember PAPAYA", "go on")]
    assert len(first.rollouts()) == 1, "the transcript is the same"

    for unknown in (str(uuid.uuid4()), "no-id"):
        missing = start(second, "resume", unknown)
        assert missing.ended() == 1
        assert f"No saved session found with ID {unknown}." in missing.printed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_kills_it_and_it_takes_its_tools_along(
    start: Start, codex_home: MakeHome, folder: Path, number: signal.Signals
) -> None:
    home = codex_home("a")
    client = launch(start, home)
    client.prompt(f"do {LONG_TOOL}")
    client.await_screen("Working")
    tree = wait_for("the tool runs", lambda: with_tool(client))
    assert client.end(number) == -number, "it is ended by the signal, and exits with no status of its own"
    wait_for("its processes have ended", lambda: not any(map(process_table.alive, tree)))


def with_tool(client: Client) -> list[process_table.ProcessId]:
    """Return the processes of a client once the long tool is one of them."""
    tree = process_table.descendants(client.process())
    lines = [proc.command_line(process.pid) for process in tree]
    return tree if any(line.startswith(b"tail\0") for line in lines) else []


def test_sigkill_of_the_program_that_npm_installs_ends_the_real_one_too(
    start: Start, codex_home: MakeHome
) -> None:
    home = codex_home("a")
    client = launch(start, home)
    client.prompt(f"do {LONG_TOOL}")
    tree = wait_for("the tool runs", lambda: with_tool(client))
    assert client.end(signal.SIGKILL) == -signal.SIGKILL
    wait_for("its processes have ended", lambda: not any(map(process_table.alive, tree)))


def test_the_usage_limit_says_which_window_it_is_and_asks_for_another_model(
    start: Start, codex_home: MakeHome, mock: Mock
) -> None:
    home, other = codex_home("a"), codex_home("b")
    client = launch(start, home, TZ="UTC")
    for number, (fault, resets_in) in enumerate(
        [(Fault.LIMIT_5H, 3600), (Fault.LIMIT_WEEK, 3 * 24 * 3600)], start=1
    ):
        set_ = mock.fail(fault, home.key, resets_in=resets_in)
        client.prompt(f"prompt {number}")
        client.await_screen("You’ve hit your usage limit.")
        (rollout,) = wait_for("a transcript", home.rollouts)
        error = await_end_of_turn(rollout, number)["error"]
        assert error["codex_error_info"] == "usage_limit_exceeded"
        when = time.gmtime(set_.resets_at)
        clock = f"{when.tm_hour % 12 or 12}:{when.tm_min:02d} {'AM' if when.tm_hour < 12 else 'PM'}"
        # The date is said where it is not today's.
        if fault is Fault.LIMIT_WEEK or when.tm_yday != time.gmtime().tm_yday:
            clock = (
                f"{time.strftime('%b', when)} {when.tm_mday}{ordinal(when.tm_mday)}, {when.tm_year} {clock}"
            )
        assert error["message"].startswith("You’ve hit your usage limit. ")
        assert error["message"].endswith(f" or try again at {clock}.")
        # Which window, and when in seconds, only what it heard about its limits tells.
        heard = events(rollout, "token_count")[-1]["rate_limits"]
        used = {name: heard[name]["used_percent"] for name in ("primary", "secondary")}
        full = "primary" if fault is Fault.LIMIT_5H else "secondary"
        assert [name for name, percent in used.items() if percent == 100.0] == [full]
        assert heard[full]["resets_at"] == set_.resets_at
        assert heard[full]["window_minutes"] == (300 if full == "primary" else 10080)
        if number == 1:
            # This takes whatever is typed next, and Enter changes the model.
            client.await_screen("Approaching rate limits")
            client.await_match(r"› 1\. Switch to")
            client.press("Escape")
            client.await_screen(READY)

    healthy = launch(start, other)
    healthy.prompt("hello")
    healthy.await_screen("heard: hello")


def ordinal(day: int) -> str:
    """Return how the number of a day ends in words."""
    return "th" if 10 <= day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


FAULTS: list[tuple[Fault, Any, str]] = [
    (
        Fault.RATE,
        {"response_too_many_failed_attempts": {"http_status_code": 429}},
        "exceeded retry limit, last status: 429 Too Many Requests",
    ),
    (Fault.OVERLOADED, "server_overloaded", "Selected model is at capacity."),
    (Fault.BROKEN, "internal_server_error", "We’re currently experiencing high demand"),
    (
        Fault.UNAUTHORIZED,
        {"http_connection_failed": {"http_status_code": 401}},
        "unexpected status 401 Unauthorized: ",
    ),
    (
        Fault.FORBIDDEN,
        {"http_connection_failed": {"http_status_code": 403}},
        "unexpected status 403 Forbidden: ",
    ),
    # The same kind as a usage limit: only the words tell.
    (Fault.CREDIT, "usage_limit_exceeded", "Quota exceeded. Check your plan and billing details."),
    (Fault.CUT, "other", "stream disconnected before completion"),
]


def test_other_faults_are_told_apart_by_kind_and_credit_by_its_words(
    start: Start, codex_home: MakeHome, mock: Mock
) -> None:
    home = codex_home("a")
    client = launch(start, home)
    for number, (fault, kind, words) in enumerate(FAULTS, start=1):
        mock.fail(fault, home.key)
        client.prompt(f"prompt {number}")
        (rollout,) = wait_for("a transcript", home.rollouts)
        error = await_end_of_turn(rollout, number)["error"]
        assert (error["codex_error_info"], error["message"][: len(words)]) == (kind, words)
        client.await_screen(f"■ {words[:40].strip()}")
        client.await_title("^work$")


def test_it_asks_for_permission_and_says_so_in_its_title(
    start: Start, codex_home: MakeHome, work: Path
) -> None:
    home = codex_home("a", asks=True)
    client = launch(start, home)
    client.prompt("do [[ask touch made]]")
    client.await_screen("Would you like to run the following command?")
    client.await_screen("› 1. Yes, proceed (y)")
    client.await_title(r"^\[ ! \] Action Required \| work$")
    client.press("Escape")
    client.await_title("^work$")
    assert not (work / "made").exists()


def test_it_asks_about_an_untrusted_repository_and_enter_trusts_it(
    start: Start, codex_home: MakeHome, work: Path
) -> None:
    subprocess.run(["git", "init", "--quiet", str(work)], check=True)
    home = codex_home("a", trusted=[], asks=True)
    client = start(home)
    client.await_screen("Trust this folder?")
    client.await_screen("› 1. Trust and continue")
    assert home.locked() == []
    client.answer("Trust this folder?", "Enter")
    client.await_screen(READY)
    trusted = f'[projects."{work.resolve()}"]'
    wait_for("it has noted the answer", lambda: trusted in (home.folder / "config.toml").read_text())
    # A directory that is no repository is not asked about.
    assert launch(start, codex_home("b", trusted=[], asks=True), "-C", str(home.folder))


def test_without_a_login_it_asks_for_one_and_a_command_says_so_beforehand(
    start: Start, codex_home: MakeHome, clients: Clients, network: Network
) -> None:
    known = {"login": (0, "API key"), "chatgpt": (0, "ChatGPT"), "none": (1, "Not logged in")}
    # A key of the environment is no login.
    known["env"] = (1, "Not logged in")
    for auth, (code, words) in known.items():
        home = codex_home(auth, auth=auth)
        done = subprocess.run(
            [*network.prefix, str(clients.codex_native), "login", "status"],
            env={"PATH": os.environ["PATH"], "HOME": str(home.folder), **network.variables, **home.variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert (done.returncode, words in done.stderr + done.stdout) == (code, True), auth
    client = start(codex_home("nobody", auth="none"))
    client.await_screen("Sign in with ChatGPT")
    keyed = launch(start, codex_home("keyed", auth="env"))
    keyed.prompt("hello")
    keyed.await_screen("heard: hello")


def test_its_daemon_outlives_it_unless_it_is_turned_off(
    start: Start, codex_home: MakeHome, folder: Path
) -> None:
    home = codex_home("a", daemon=True)
    client = launch(start, home)
    file = home.folder / "app-server-daemon" / "daemon.pid"
    said = wait_for("the daemon has said who it is", lambda: json.loads(file.read_text()))
    daemon = process_table.identify(said["pid"])
    assert daemon is not None and daemon in marked(str(folder))
    assert said["processIdentity"]["startTicks"] == daemon.start
    assert client.end(signal.SIGTERM) == -signal.SIGTERM
    assert process_table.alive(daemon)

    quiet = codex_home("b")
    client = launch(start, quiet)
    client.prompt("hello")
    client.await_screen("heard: hello")
    assert not (quiet.folder / "app-server-daemon").exists()
