"""What the `codex` runtime reads from transcripts, screens, homes and processes, as Codex leaves them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circus_failover import agent_settings, process_table
from circus_failover.agent_settings import AgentSettings
from circus_failover.agents import codex_home, codex_processes, codex_rollout, codex_screen
from circus_failover.agents.codex import SETTLED_SECS, CodexRuntime
from circus_failover.agents.codex_rollout import summed_up
from circus_failover.agents.runtime import Place, Screen
from circus_failover.policy.accounts import Usage
from circus_failover.policy.health import Health, decide
from circus_failover.settings import Account, Settings, Shared
from circus_failover.words import BootStage, Credentials, FaultKind, Source, State
from tests.clients.waiting import wait_for

NOW = 1_795_286_800.0
# Of this process alone: who has a conversation open is looked for on the whole host.
HERE = f"01a1ff65-d390-73e2-9772-{os.getpid():012x}"
"""An id that says 2026-11-21 18:37 UTC."""
OTHER = f"01a1ff6b-ab0b-7392-bc9c-{os.getpid():012x}"
linux = pytest.mark.skipif(not process_table.LINUX, reason="open files are listed by /proc")
Record = dict[str, Any]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client's words are in local time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# -- records as Codex 0.169.0 writes them ------------------------------------------------------------------


def event(at: float, kind: str, **payload: Any) -> Record:
    return {"timestamp": stamp(at), "ordinal": 1, "type": "event_msg", "payload": {"type": kind, **payload}}


def item(at: float, kind: str, **payload: Any) -> Record:
    return {
        "timestamp": stamp(at),
        "ordinal": 1,
        "type": "response_item",
        "payload": {"type": kind, **payload},
    }


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"


def started(at: float) -> Record:
    return event(at, "task_started", turn_id="t", started_at=int(at), model_context_window=258400)


def ended(at: float, words: str | None = "heard", **more: Any) -> Record:
    return event(at, "task_complete", turn_id="t", last_agent_message=words, **more)


def failed(at: float, message: str, info: object) -> Record:
    return ended(at, None, error={"message": message, "codex_error_info": info})


def prompt(at: float) -> Record:
    return item(at, "message", role="user", content=[{"type": "input_text", "text": "do"}])


def answer(at: float) -> Record:
    return item(at, "message", role="assistant", content=[{"type": "output_text", "text": "heard"}])


def call(at: float, number: str = "call_1") -> Record:
    return item(at, "function_call", name="exec_command", call_id=number, arguments="{}")


def output(at: float, number: str = "call_1") -> Record:
    return item(at, "function_call_output", call_id=number, output="done")


def tokens(at: float, primary: float | None = None, secondary: float = 10.0, **more: Any) -> Record:
    limits = None
    if primary is not None:
        limits = {
            "limit_id": "codex",
            "primary": {"used_percent": primary, "window_minutes": 300, "resets_at": int(NOW) + 3600, **more},
            "secondary": {"used_percent": secondary, "window_minutes": 10080, "resets_at": int(NOW) + 86400},
        }
    return event(at, "token_count", info=None, rate_limits=limits)


META: Record = {
    "timestamp": stamp(NOW - 100),
    "type": "session_meta",
    "payload": {"id": HERE, "cwd": "/work", "source": "cli", "thread_source": "user"},
}
LIMIT = (
    "You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), visit "
    "https://chatgpt.com/settings/usage to purchase more credits or try again at 7:46 PM."
)
TURN = [META, started(NOW - 90), prompt(NOW - 90), answer(NOW - 89), tokens(NOW - 89, 10.0), ended(NOW - 89)]
WORKS = [*TURN, started(NOW - 60), prompt(NOW - 60), call(NOW - 59), tokens(NOW - 59, 10.0)]
RESTS = [*WORKS, output(NOW - 40), answer(NOW - 39), tokens(NOW - 39, 10.0), ended(NOW - 39)]


def read(*records: Record) -> codex_rollout.Turn:
    return summed_up(reversed(records))


@pytest.mark.parametrize(
    ("records", "state", "what"),
    [
        ([META], None, ""),
        (TURN, State.IDLE, ""),
        (WORKS, State.WORKING, "exec_command"),
        ([*WORKS, output(NOW - 40)], State.WORKING, ""),
        (RESTS, State.IDLE, ""),
        ([*WORKS, event(NOW - 39, "turn_aborted", reason="interrupted")], State.IDLE, ""),
        ([*RESTS, tokens(NOW - 1, 20.0)], State.IDLE, ""),
        # A turn in a format that is not known: nothing is said, rather than the state before it.
        ([*RESTS, event(NOW - 1, "turn_began")], None, ""),
        ([*RESTS, prompt(NOW - 1)], None, ""),
        ([*RESTS, {"type": "new"}], None, ""),
        ([*RESTS, {}], None, ""),
    ],
)
def test_the_newest_begin_or_end_of_a_turn_says_whether_one_is_on(
    records: list[Record], state: State | None, what: str
) -> None:
    turn = read(*records)
    assert (turn.state, turn.what) == (state, what)


def test_a_limit_has_the_reset_of_the_window_that_is_used_up() -> None:
    turn = read(
        *TURN, started(NOW - 60), tokens(NOW - 59, 100.0), failed(NOW - 58, LIMIT, "usage_limit_exceeded")
    )
    fault = turn.fault
    assert fault is not None and turn.fault_at == pytest.approx(NOW - 58, abs=0.01)
    assert (fault.kind, fault.window, fault.resets_at) == (FaultKind.USAGE_LIMIT, "5-hour", NOW + 3600)
    assert fault.text == LIMIT
    both = [tokens(NOW - 59, 100.0, 100.0), failed(NOW - 58, LIMIT, "usage_limit_exceeded")]
    later = read(*TURN, started(NOW - 60), *both).fault
    assert later is not None and (later.window, later.resets_at) == ("weekly", NOW + 86400)


@pytest.mark.parametrize(
    "limits", [tokens(NOW - 59), tokens(NOW - 59, 10.0), tokens(NOW - 59, 100.0, resets_at="x")]
)
def test_a_limit_whose_numbers_are_missing_has_the_time_in_its_words(limits: Record) -> None:
    fault = read(started(NOW - 60), limits, failed(NOW - 58, LIMIT, "usage_limit_exceeded")).fault
    assert fault is not None and fault.kind is FaultKind.USAGE_LIMIT
    assert fault.resets_at is not None and time.gmtime(fault.resets_at)[3:5] == (19, 46)


def test_how_much_of_each_window_is_used_is_what_was_told_last() -> None:
    said = (
        Usage("5-hour", 0.2, NOW + 3600, pytest.approx(NOW - 40, abs=0.01)),
        Usage("weekly", 0.15, NOW + 86400, pytest.approx(NOW - 40, abs=0.01)),
    )
    ends = [answer(NOW - 39), ended(NOW - 39)]
    for later in ([], [output(NOW - 39)], ends, [*ends, started(NOW - 9), prompt(NOW - 9)]):
        assert read(*WORKS, tokens(NOW - 40, 20.0, 15.0), *later).usage == said
    limited = read(*WORKS, tokens(NOW - 40, 100.0), failed(NOW - 39, LIMIT, "usage_limit_exceeded"))
    assert [one.used for one in limited.usage] == [1.0, 0.1]


def test_nothing_is_used_where_nothing_or_another_limit_is_told() -> None:
    of_a_model = tokens(NOW - 40, 20.0)
    of_a_model["payload"]["rate_limits"]["limit_id"] = "codex_other"
    bare = tokens(NOW - 40, None)
    odd = tokens(NOW - 40, 20.0, used_percent="much", resets_at=-1)
    assert read(META, of_a_model).usage == () == read(META, bare).usage
    assert [one.window for one in read(META, odd).usage] == ["weekly"]


def test_numbers_of_another_turn_say_nothing_of_a_limit() -> None:
    turn = read(started(NOW - 90), tokens(NOW - 90, 100.0), ended(NOW - 89), started(NOW - 60),
                failed(NOW - 58, "You’ve hit your usage limit.", "usage_limit_exceeded"))  # fmt: skip
    assert turn.fault is not None and turn.fault.resets_at is None


@pytest.mark.parametrize(
    ("words", "info", "kind"),
    [
        ("exceeded retry limit, last status: 429 Too Many Requests",
         {"response_too_many_failed_attempts": {"http_status_code": 429}}, FaultKind.RATE_LIMIT),
        ("Selected model is at capacity.", "server_overloaded", FaultKind.OVERLOAD),
        ("We’re currently experiencing high demand", "internal_server_error", FaultKind.SERVER_ERROR),
        ("status 401", {"http_connection_failed": {"http_status_code": 401}}, FaultKind.CREDENTIALS),
        ("status 403", {"http_connection_failed": {"http_status_code": 403}}, FaultKind.CREDENTIALS),
        ("Your access token could not be refreshed.", "unauthorized", FaultKind.CREDENTIALS),
        ("Missing environment variable: `OFFLINE_KEY`.", "other", FaultKind.CREDENTIALS),
        (
            "unexpected status 502",
            {"http_connection_failed": {"http_status_code": 502}},
            FaultKind.SERVER_ERROR,
        ),
        ("unexpected status 418", {"http_connection_failed": {"http_status_code": 418}}, FaultKind.OTHER),
        ("it broke", {"response_stream_disconnected": {"http_status_code": None}}, FaultKind.NETWORK),
        ("Quota exceeded. Check your plan and billing details.", "usage_limit_exceeded", FaultKind.CREDIT),
        ("stream disconnected before completion: error sending request", "other", FaultKind.NETWORK),
        ("who knows", "other", FaultKind.OTHER),
        ("who knows", "a_new_kind", FaultKind.OTHER),
        ("who knows", ["no", {"kind": 1}], FaultKind.OTHER),
    ],
)  # fmt: skip
def test_a_fault_is_what_codex_calls_it_and_else_what_it_says(
    words: str, info: object, kind: FaultKind
) -> None:
    turn = read(*TURN, started(NOW - 60), failed(NOW - 58, words, info))
    assert turn.fault is not None and turn.fault.kind is kind and turn.state is State.IDLE
    # Older versions wrote a record of its own.
    older = event(NOW - 59, "error", message=words, codex_error_info=info)
    fault = read(*TURN, started(NOW - 60), older, ended(NOW - 58, None)).fault
    assert fault is not None and fault.kind is kind


def test_what_the_model_says_ends_a_fault_and_a_turn_that_was_broken_off_does_not() -> None:
    limited = [*TURN, started(NOW - 60), failed(NOW - 58, LIMIT, "usage_limit_exceeded")]
    assert read(*limited).answered_at is None, "it answered before"
    broken = [
        *limited,
        started(NOW - 50),
        prompt(NOW - 50),
        event(NOW - 49, "turn_aborted", reason="interrupted"),
    ]
    assert (turn := read(*broken)).fault is not None and turn.state is State.IDLE
    answered = [*limited, started(NOW - 50), answer(NOW - 48)]
    assert (turn := read(*answered)).fault is None and turn.answered_at == pytest.approx(NOW - 48, abs=0.01)


# -- finding transcripts -----------------------------------------------------------------------------------


def write(home: Path, records: list[Record], conversation: str = HERE, day: str = "2026/11/21") -> Path:
    folder = home / "sessions" / day
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rollout-{day.replace('/', '-')}T18-37-05-{conversation}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("day", ["2026/11/20", "2026/11/21", "2026/11/22", "2024/01/31"])
def test_a_transcript_is_found_by_the_day_in_its_id_and_else_anywhere(tmp_path: Path, day: str) -> None:
    path = write(tmp_path, TURN, day=day)
    write(tmp_path, TURN, OTHER)
    assert codex_rollout.find(tmp_path, HERE) == path
    assert (codex_rollout.find(tmp_path, HERE, everywhere=False) is None) == day.startswith("2024")
    random = str(uuid.UUID(int=7, version=4))
    assert codex_rollout.find(tmp_path, random) is None
    assert codex_rollout.find(tmp_path, random, everywhere=False) is None
    assert codex_rollout.find(tmp_path, write(tmp_path, TURN, random).stem[-36:]) is not None
    for nothing in ("", "last", "../x", HERE.upper(), HERE[:-1]):
        assert codex_rollout.find(tmp_path, nothing) is None


def configured(home: Path, work: Path, **options: str) -> AgentSettings:
    account = Account("a", "codex", home)
    fleet = Settings(home / "failover.yaml", home, Shared(), (account,), {})
    ours = {"runtime": "codex", "account": "a", "socket": "/tmp/s", **options}
    watcher = {"name": "bob", "cmd": "failover-session", "working_dir": str(work)}
    return agent_settings.parse({**watcher, **{f"failover.{k}": v for k, v in ours.items()}}, fleet, "ini")


def test_a_resume_names_the_id_and_the_directory_and_never_the_last_one(tmp_path: Path) -> None:
    codex, agent = (
        CodexRuntime(),
        configured(tmp_path, tmp_path, args="--model gpt-5", command="/opt/codex -p a"),
    )
    assert codex.resume(agent, HERE, tmp_path) is None
    path = write(tmp_path, [META])
    assert codex.resume(agent, HERE, tmp_path) is None, "there is no turn to go on with"
    path.write_text(json.dumps(META) + "\n" + json.dumps(started(NOW))[:-9])
    assert codex.resume(agent, HERE, tmp_path) is None
    write(tmp_path, TURN)
    assert codex.resume(agent, HERE, tmp_path) == (
        *("/opt/codex", "-p", "a", "resume", HERE, "--no-daemon", "-C", str(tmp_path), "--model", "gpt-5"),
    )
    assert codex.resume(agent, HERE, None) is None
    assert codex.fresh(agent, "x") == ("/opt/codex", "-p", "a", "--no-daemon", "--model", "gpt-5")
    assert codex.home(agent, {}) == tmp_path and codex.environment(tmp_path, {}) == {
        "CODEX_HOME": str(tmp_path)
    }


@pytest.mark.parametrize(
    ("args", "config", "kept_off"),
    [
        ("--model m", "", True),
        ("--model m", "[features]\ndaemon_auto_start = false", True),
        ("--model m", "[features]\ndaemon_auto_start = true", False),
        ("--model m", "[features", True),
        ("--no-daemon", "", False),
        ("-c features.daemon_auto_start=false", "", False),
        ("--enable daemon_auto_start", "", False),
    ],
)
def test_its_background_server_is_kept_off_unless_the_operator_says_something(
    tmp_path: Path, args: str, config: str, kept_off: bool
) -> None:
    (tmp_path / "config.toml").write_text(config)
    argv = CodexRuntime().fresh(configured(tmp_path, tmp_path, args=args), "x")
    assert argv == ("codex", *(("--no-daemon",) if kept_off else ()), *args.split())


# -- screens -----------------------------------------------------------------------------------------------

HEADER = ["  >_ OpenAI Codex (v0.169.0)", "     /tmp/work"]
FOOT = [
    "  gpt-5 default · /tmp/work",
    "  ← for agents · ? for shortcuts                ⚠ 1 warning · f2 to view",
]
BOX = ["", "› Ask Codex to do anything", "", *FOOT]
TRUST = [
    "  Folder access",
    "  /tmp/repo",
    "  Trust this folder? Codex can read, edit, and run files here, subject to your permission settings.",
    "  can run code automatically, even without a model request. Continue only if you trust these files.",
    "› 1. Trust and continue",
    "  2. Back to Agent Command Center",
    "  enter continue · esc back",
]
MODEL = [
    "■ You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), visit https://chatgpt.com/",
    "usage to purchase more credits or try again at 7:46 PM.",
    "  Approaching rate limits",
    "  Switch to gpt-6-luna for lower credit usage?",
    "› 1. Switch to gpt-6-luna                   Fast and affordable model for easier tasks.",
    "  2. Keep current model",
    "  3. Keep current model (never show again)  Hide future rate limit reminders about switching models",
    "  enter select · esc back",
]
DIALOGS: dict[str, tuple[list[str], str]] = {
    "trust": (TRUST, "accept"),
    "restricted": (
        [
            "  Folder access",
            "  Config, hooks, and exec policies from untrusted folders stay disabled. Trusted project",
            "› 1. Open restricted",
            "  2. Back to Agent Command Center",
            "  enter continue · esc back",
        ],
        "accept",
    ),
    "update": (
        [
            "  Update available · 0.169.0 → 9.9.9",
            "  Release notes: https://github.com/openai/codex/releases/latest",
            "› 1. Update now (runs `npm install -g @openai/codex`)",
            "  2. Skip",
            "  3. Skip until next version",
            "  enter continue · esc skip",
        ],
        "other",
    ),
    "hooks": (
        [
            "  Hooks need review",
            "  1 hook is new or changed.",
            "› 1. Review hooks",
            "  2. Trust all and continue",
            "  3. Continue without trusting (hooks won't run)",
            "  enter confirm · esc skip",
        ],
        "other",
    ),
    "directory": (
        [
            "  Working directory · resume",
            "  Session = latest cwd recorded in the resumed session",
            "  Current = your current working directory",
            "  1. Use session directory (/tmp/work)",
            "› 2. Use current directory (/tmp/other)",
            "  enter continue · esc use session · ^c quit",
        ],
        "current",
    ),
    "daemon": (
        [
            "  Background server has incompatible feature settings",
            "  This session requires daemon_auto_start to be disabled",
            "› 1. Run without daemon this time",
            "  2. Restart with these settings (recommended)",
            "  3. Cancel",
            "  enter confirm · esc cancel",
        ],
        "without",
    ),
    "login": (
        [
            "  Welcome to Codex, OpenAI's command-line coding agent",
            "  Sign in with ChatGPT to use Codex as part of your paid plan",
            "  or connect an API key for usage-based billing",
            "> 1. Sign in with ChatGPT",
            "     Usage included with Plus, Pro, Business, and Enterprise plans",
            "  Press enter to continue",
        ],
        "other",
    ),
    "model": (MODEL, "other"),
}
ASKS = [
    "  Would you like to run the following command?",
    "  Environment: local",
    "  $ touch made",
    "› 1. Yes, proceed (y)",
    "  3. No, and tell Codex what to do differently (esc)",
    "  Press enter to confirm or esc to cancel",
]
WORKING = ["› do", "• Working (29s • esc to interrupt) · 1 background terminal running · /ps to view", *BOX]
RETRIES = [
    "› p4",
    "◦ Reconnecting... 1/3 (3s • esc to interrupt)",
    "  └ Unexpected status 401 Unauthorized: Incorrect API key provided., url: http://127.0.0.1:44961/v1/responses",
    *BOX,
]


def screen(rows: list[str], title: str = "work") -> codex_screen.Seen:
    return codex_screen.read(Screen((*rows, *[""] * (40 - len(rows))), title), NOW)


@pytest.mark.parametrize("name", DIALOGS)
def test_a_dialog_is_known_by_its_question_and_its_menu(name: str) -> None:
    rows, chosen = DIALOGS[name]
    seen = screen([*HEADER, "", *rows])
    assert (seen.state, seen.dialog, seen.chosen) == (State.WAITING, name, chosen)
    assert name in {dialog.name for dialog in codex_screen.DIALOGS}


@pytest.mark.parametrize("name", DIALOGS)
def test_what_only_reads_like_a_dialog_is_none(name: str) -> None:
    rows, _ = DIALOGS[name]
    assert screen([*HEADER, *rows, *BOX]).state is State.IDLE, "it was answered"
    assert screen([*HEADER, *("• " + row for row in rows), *BOX]).state is State.IDLE, "a model speaks of it"
    assert screen([*HEADER, rows[0], *BOX]).state is State.IDLE


def test_a_menu_that_is_not_known_is_waited_at_and_has_no_name() -> None:
    seen = screen(["  A new question", "› 1. Yes", "  2. No", "  enter continue · esc back"])
    assert (seen.state, seen.what, seen.dialog) == (State.WAITING, "dialog", None)


def test_the_box_of_an_update_that_was_skipped_is_no_dialog() -> None:
    rows = ["│ ✨ Update available! 0.169.0 -> 9.9.9           │", *HEADER, *BOX]
    assert screen(rows).state is State.IDLE


@pytest.mark.parametrize(
    ("rows", "title", "state", "what"),
    [
        ([*HEADER, *BOX], "work", State.IDLE, ""),
        ([*HEADER, *BOX], "⠦ work", State.WORKING, ""),
        ([*HEADER, *WORKING], "work", State.WORKING, ""),
        ([*HEADER, *ASKS], "[ ! ] Action Required | work", State.WAITING, "permission: command"),
        ([*HEADER, *BOX], "[ . ] Action Required | work", State.WAITING, "permission"),
        ([*HEADER[:1], "     loading", "› Ask Codex to do anything", "  ? for shortcuts"], "vm", None, ""),
        ([*HEADER, "  Resuming session…", "› Ask Codex to do anything", "  ? for shortcuts"], "vm", None, ""),
        ([], "vm", None, ""),
    ],
)
def test_title_and_screen_say_what_it_does(
    rows: list[str], title: str, state: State | None, what: str
) -> None:
    seen = screen(rows, title)
    assert (seen.state, seen.what) == (state, what)


def test_what_it_tries_again_for_is_only_on_its_screen() -> None:
    fault = screen(RETRIES, "⠦ work").retrying
    assert fault is not None and (fault.kind, fault.retrying) == (FaultKind.CREDENTIALS, True)
    busy = ["• Server is busy, reconnecting 2/3 (1s • esc to interrupt)", *BOX]
    assert (fault := screen(busy, "⠦ work").retrying) is not None and fault.kind is FaultKind.RATE_LIMIT
    assert screen(WORKING, "⠦ work").retrying is None


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=80), max_size=12), st.text(max_size=20))
def test_no_screen_is_too_strange(rows: list[str], title: str) -> None:
    codex_screen.read(Screen(tuple(rows), title), NOW)


# -- looking: transcript, screen and processes together ----------------------------------------------------


@contextmanager
def opened(*paths: Path) -> Iterator[None]:
    """Have files open as a client has, and hold locks on those that are locks."""
    with ExitStack() as stack:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "a"))
            if path.suffix == ".lock":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def lock(home: Path, conversation: str = HERE) -> Path:
    return home / "thread-writer-locks" / f"{conversation}.lock"


def place(home: Path, rows: list[str], title: str = "work", conversation: str | None = None) -> Place:
    own = process_table.identify(os.getpid())
    assert own is not None
    shown = Screen(tuple(rows), title)
    return Place(own, home, home, conversation, NOW - 95, screen=lambda: shown)


def health(where: Place) -> Health:
    return decide(CodexRuntime(lambda: NOW).look(where).signs, where.launched_at, NOW)


@linux
@pytest.mark.parametrize(
    ("records", "rows", "title", "state", "source"),
    [
        ([], BOX, "work", State.IDLE, Source.SCREEN),
        (WORKS, WORKING, "⠦ work", State.WORKING, Source.TRANSCRIPT),
        (RESTS, BOX, "work", State.IDLE, Source.TRANSCRIPT),
        (WORKS, ASKS, "[ ! ] Action Required | work", State.WAITING, Source.SCREEN),
        (RESTS, MODEL, "work", State.WAITING, Source.SCREEN),
        # They contradict one another for longer than it takes to draw.
        (WORKS, BOX, "work", State.IDLE, Source.SCREEN),
        (RESTS, WORKING, "⠦ work", State.WORKING, Source.TITLE),
        # One is a moment behind.
        ([*RESTS, started(NOW - 1)], BOX, "work", State.WORKING, Source.TRANSCRIPT),
        ([*WORKS, answer(NOW - 1), ended(NOW - 1)], WORKING, "⠦ work", State.IDLE, Source.TRANSCRIPT),
        # The turn was of an earlier launch.
        (
            [META, started(NOW - 200), answer(NOW - 199), ended(NOW - 198)],
            BOX,
            "work",
            State.IDLE,
            Source.SCREEN,
        ),
        ([META, started(NOW - 200), call(NOW - 199)], BOX, "work", State.IDLE, Source.SCREEN),
        ([META, started(NOW - 200), call(NOW - 199)], [], "vm", State.UNKNOWN, None),
    ],
)
def test_the_state_is_the_transcripts_where_nothing_speaks_against_it(
    tmp_path: Path, records: list[Record], rows: list[str], title: str, state: State, source: Source | None
) -> None:
    files = [lock(tmp_path)]
    if records:
        files.append(write(tmp_path, records))
    with opened(*files):
        seen = health(place(tmp_path, rows, title))
        assert (seen.state, seen.source) == (state, source)


BROKEN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.just([]),
    st.just({}),
    st.just([[]]),
)


@st.composite
def spoilt(draw: st.DrawFn, records: list[Record]) -> bytes:
    """Records of which one is missing, renamed, damaged or cut."""
    spoiled = json.loads(json.dumps(records))
    index = draw(st.integers(1, len(spoiled) - 1))
    how = draw(st.sampled_from(["drop", "rename", "rename payload", "damage", "damage deep", "strip", "cut"]))
    one = spoiled[index]
    if how == "drop":
        del spoiled[index]
    elif how == "rename":
        one["type"] = draw(BROKEN)
    elif how == "rename payload":
        one["payload"]["type"] = draw(BROKEN)
    elif how == "damage":
        one["payload"][draw(st.sampled_from(sorted(one["payload"])))] = draw(BROKEN)
    elif how == "damage deep":
        table = one["payload"]
        while nested := [value for value in table.values() if isinstance(value, dict) and value]:
            table = draw(st.sampled_from([table, *nested]))
            if table not in nested:
                break
        table[draw(st.sampled_from(sorted(table)))] = draw(BROKEN)
    elif how == "strip":
        spoiled[index] = {
            name: value for name, value in one.items() if name != draw(st.sampled_from(sorted(one)))
        }
    lines = [json.dumps(record).encode() + b"\n" for record in spoiled]
    if how == "cut":
        lines[index] = lines[index][: draw(st.integers(0, len(lines[index])))]
    return b"".join(lines)


@linux
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.booleans())
def test_a_record_that_is_missing_or_not_as_expected_leads_to_no_wrong_state(
    tmp_path: Path, data: st.DataObject, works: bool
) -> None:
    path = write(tmp_path, [])
    path.write_bytes(data.draw(spoilt(WORKS if works else RESTS)))
    os.utime(path, ns=(time.time_ns(), data.draw(st.integers(1, 10**15))))
    with opened(path, lock(tmp_path)):
        rows, title = (WORKING, "⠦ work") if works else (BOX, "work")
        assert health(place(tmp_path, rows, title)).state is (State.WORKING if works else State.IDLE)
        # Without a screen nothing is known, at the worst.
        blind = health(place(tmp_path, [], "vm"))
        assert blind.state in (State.UNKNOWN, State.WORKING) or not works


@linux
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_limit_that_cannot_be_read_is_at_the_worst_none(tmp_path: Path, data: st.DataObject) -> None:
    limited = [
        *TURN,
        started(NOW - 60),
        tokens(NOW - 59, 100.0),
        failed(NOW - 58, LIMIT, "usage_limit_exceeded"),
    ]
    path = write(tmp_path, [])
    path.write_bytes(data.draw(spoilt(limited)))
    os.utime(path, ns=(time.time_ns(), data.draw(st.integers(1, 10**15))))
    with opened(path, lock(tmp_path)):
        seen = health(place(tmp_path, BOX))
        assert seen.state in (State.LIMITED, State.IDLE)
        assert seen.fault is None or seen.fault.resets_at is None or seen.fault.resets_at > NOW


@linux
def test_of_several_conversations_it_is_in_the_one_written_last_and_never_in_a_sub_agents(
    tmp_path: Path,
) -> None:
    codex = CodexRuntime(lambda: NOW)
    sub = str(uuid.UUID("01a1ff6b-ffff-7392-bc9c-3443fa692804"))
    first = write(tmp_path, RESTS)
    with opened(lock(tmp_path), first, lock(tmp_path, OTHER)):
        assert codex.look(place(tmp_path, BOX)).conversation == HERE, "the other has nothing to go on with"
        second = write(tmp_path, TURN, OTHER)
        os.utime(first, ns=(1, 1))
        with opened(second):
            assert codex.look(place(tmp_path, BOX, conversation=HERE)).conversation == OTHER
        os.utime(second, ns=(0, 0))
        meta = {**META, "payload": {"id": sub, "source": {"subagent": {"thread_spawn": {}}}}}
        third = write(tmp_path, [meta, started(NOW - 30)], sub)
        with opened(third, lock(tmp_path, sub)):
            seen = codex.look(place(tmp_path, BOX))
            assert seen.conversation == HERE
            told = decide(seen.signs, NOW - 95, NOW)
            assert (told.state, told.what) == (State.WORKING, "sub-agent")
            assert seen.last_activity == pytest.approx(NOW - 39, abs=0.01)


@linux
def test_a_transcript_from_the_future_does_not_make_it_busy_for_ever(tmp_path: Path) -> None:
    path = write(tmp_path, [*RESTS, tokens(NOW + 86400, 10.0)])
    with opened(lock(tmp_path), path):
        assert CodexRuntime(lambda: NOW).look(place(tmp_path, BOX)).last_activity is None


@linux
def test_a_command_that_outlives_its_turn_is_work(tmp_path: Path) -> None:
    path = write(tmp_path, RESTS)
    with opened(lock(tmp_path), path):
        with child([sys.executable, "-c", "input()"]):
            assert health(place(tmp_path, BOX)).state is State.IDLE, "a server of tools is none"
        with child([sys.executable, "-c", "input()"], CODEX_TOOL_CALL_ID="call_1"):
            seen = health(place(tmp_path, BOX))
            assert (seen.state, seen.what) == (State.WORKING, "background terminal")


@contextmanager
def child(
    argv: list[str], executable: str | None = None, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has executed its program, and end it."""
    begun = subprocess.Popen(
        argv,
        executable=executable,
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with begun:
        try:
            # Popen returns when the program is being executed; its environment is there a moment later.
            wait_for("its environment", lambda: any(process_table.environ(begun.pid) or ()))
            yield begun
        finally:
            begun.kill()


# -- boot --------------------------------------------------------------------------------------------------


@linux
def test_it_is_ready_with_its_lock_and_not_with_its_input_box(tmp_path: Path) -> None:
    codex = CodexRuntime(lambda: NOW)
    assert codex.boot(place(tmp_path, [*HEADER, *BOX])).stage is BootStage.WAIT
    asked = codex.boot(place(tmp_path, TRUST))
    assert (asked.stage, asked.dialog, asked.chosen) == (BootStage.DIALOG, "trust", "accept")
    gone = codex.boot(place(tmp_path, [f"No saved session found with ID {HERE}."]))
    assert gone.stage is BootStage.FAILED and HERE in gone.evidence
    held_back = [
        "  🔒  This conversation is open in another app     r to retry",
        "  r retry   f fork   ←/esc back",
    ]
    assert codex.boot(place(tmp_path, [*HEADER, *held_back])).stage is BootStage.FAILED
    with opened(lock(tmp_path)):
        ready = codex.boot(place(tmp_path, [*HEADER, *BOX]))
        assert (ready.stage, ready.conversation) == (BootStage.READY, HERE)
        assert str(lock(tmp_path)) in ready.evidence
        assert codex.boot(place(tmp_path, [*HEADER, "  Resuming session…", *BOX])).stage is BootStage.WAIT
        assert codex.boot(place(tmp_path, TRUST)).stage is BootStage.DIALOG


# -- processes ---------------------------------------------------------------------------------------------

HOLDS = """
import fcntl, sys
files = [open(path, "a") for path in sys.argv[1:] if path.startswith("/")]
for file in files:
    if file.name.endswith(".lock"):
        fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
input()
"""


@linux
@pytest.mark.parametrize("named", ["codex", "something"])
def test_whoever_holds_the_lock_is_a_writer_whatever_it_is_called(tmp_path: Path, named: str) -> None:
    lock(tmp_path).parent.mkdir()
    argv = [named, "-c", HOLDS, str(lock(tmp_path))]
    with child(argv, sys.executable, CODEX_HOME=str(tmp_path)) as process:
        assert process.stdout is not None and process.stdout.readline()
        (writer,) = codex_processes.writers([tmp_path / "other", tmp_path], HERE)
        assert (writer.process.pid, writer.home, writer.evidence) == (
            process.pid,
            tmp_path,
            str(lock(tmp_path)),
        )
        assert codex_processes.writers([tmp_path], OTHER) == ()
    assert lock(tmp_path).exists() and codex_processes.writers([tmp_path], HERE) == (), "only a file is left"


@linux
def test_a_script_and_the_client_that_it_starts_are_one_writer(tmp_path: Path) -> None:
    lock(tmp_path).parent.mkdir()
    path = write(tmp_path, TURN)
    script, native, waits = tmp_path / "codex", tmp_path / "codex-native", tmp_path / "codex-early"
    native.write_text(HOLDS)
    waits.write_text("print(flush=True)\ninput()\n")
    script.write_text(
        "import subprocess, sys\n"
        f"with subprocess.Popen([sys.executable, {str(native)!r}, *sys.argv[1:]]) as it: it.wait()\n"
    )
    with child([sys.executable, str(script), "resume", HERE, str(lock(tmp_path)), str(path)]) as started_by:
        assert started_by.stdout is not None and started_by.stdout.readline()
        (writer,) = codex_processes.writers([tmp_path], HERE)
        stat, own = process_table.read(writer.process.pid), process_table.identify(started_by.pid)
        assert stat is not None and stat.parent == started_by.pid and own is not None
        held = codex_processes.client(own)
        assert (held.process, set(held.locks), set(held.rollouts)) == (writer.process, {HERE}, {HERE})
        process_table.send(writer.process, signal.SIGKILL)
    with child([sys.executable, str(waits), "resume", HERE]) as early:
        assert early.stdout is not None and early.stdout.readline()
        (writer,) = codex_processes.writers([tmp_path], HERE)
        assert writer.process.pid == early.pid and "resume" in writer.evidence


@linux
def test_a_background_server_is_one_that_is_alive_by_its_own_number(tmp_path: Path) -> None:
    assert codex_processes.daemon(tmp_path) is None
    own = process_table.identify(os.getpid())
    assert own is not None
    said = {"pid": own.pid, "processIdentity": {"bootId": process_table.boot_id(), "startTicks": own.start}}
    (tmp_path / "app-server-daemon").mkdir()
    file = tmp_path / "app-server-daemon" / "daemon.pid"
    file.write_text(json.dumps(said))
    assert CodexRuntime().background(tmp_path) == own
    wrong: list[Any] = [
        {**said, "processIdentity": {"startTicks": own.start + 1}},
        {**said, "processIdentity": {"bootId": "another", "startTicks": own.start}},
        {**said, "processIdentity": None},
        {"pid": "x"},
        [],
        "{",
    ]
    for content in wrong:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        assert codex_processes.daemon(tmp_path) is None, content


# -- account homes -----------------------------------------------------------------------------------------

PROVIDER = '[model_providers.own]\nname = "Own"\nbase_url = "http://127.0.0.1:1"\n'
OWN = 'model_provider = "own"\n'


@pytest.mark.parametrize(
    ("config", "auth", "variables", "credentials"),
    [
        ("", None, {}, Credentials.ABSENT),
        ("", {"OPENAI_API_KEY": "sk-1"}, {}, Credentials.PRESENT),
        ("", {"OPENAI_API_KEY": None, "tokens": {"access_token": "t"}}, {}, Credentials.PRESENT),
        ("", {"OPENAI_API_KEY": None, "tokens": {}, "last_refresh": "2026"}, {}, Credentials.ABSENT),
        ("", {"new": "way"}, {}, Credentials.UNKNOWN),
        ("", "{", {}, Credentials.UNKNOWN),
        ("", [], {}, Credentials.UNKNOWN),
        # The screen asks for a login all the same (0.169.0).
        ("", None, {"OPENAI_API_KEY": "sk-1"}, Credentials.ABSENT),
        ('cli_auth_credentials_store = "keyring"', None, {}, Credentials.UNKNOWN),
        ('cli_auth_credentials_store = "auto"', None, {}, Credentials.UNKNOWN),
        (OWN + PROVIDER + 'env_key = "K"', None, {"K": "sk-1"}, Credentials.PRESENT),
        (OWN + PROVIDER + 'env_key = "K"', {"OPENAI_API_KEY": "sk-1"}, {}, Credentials.ABSENT),
        (OWN + PROVIDER + "requires_openai_auth = true", None, {}, Credentials.ABSENT),
        (OWN + PROVIDER, None, {}, Credentials.PRESENT),
        (OWN, None, {}, Credentials.UNKNOWN),
        ("model_provider = 3", {"OPENAI_API_KEY": "sk-1"}, {}, Credentials.PRESENT),
        ("[[[", {"OPENAI_API_KEY": "sk-1"}, {}, Credentials.UNKNOWN),
    ],
)
def test_credentials_are_told_from_files_and_what_they_do_not_tell_is_unknown(
    tmp_path: Path, config: str, auth: object, variables: dict[str, str], credentials: Credentials
) -> None:
    (tmp_path / "config.toml").write_text(config)
    if auth is not None:
        (tmp_path / "auth.json").write_text(auth if isinstance(auth, str) else json.dumps(auth))
    report = CodexRuntime().check_home(None, tmp_path, variables, ())
    assert report.credentials is credentials
    assert "sk-1" not in repr(report)
    refused = [problem.key for problem in report.problems if problem.refuses]
    assert refused == (["login"] if credentials is Credentials.ABSENT else [])


def keys(agent: AgentSettings | None, home: Path, *links: str) -> dict[str, bool]:
    """Return what is wrong with a home that is logged in, and whether it refuses a launch."""
    (home / "auth.json").write_text('{"OPENAI_API_KEY": "sk-1"}')
    return {one.key: one.refuses for one in CodexRuntime().check_home(agent, home, {}, links).problems}


def test_a_home_that_is_not_there_or_links_nowhere_refuses_a_launch(tmp_path: Path) -> None:
    report = CodexRuntime().check_home(None, tmp_path / "none", {}, ())
    assert [(one.key, one.refuses) for one in report.problems] == [("home", True)]
    (tmp_path / "sessions").symlink_to(tmp_path / "nowhere")
    (tmp_path / "locks").symlink_to(tmp_path)
    assert keys(None, tmp_path, "sessions", "locks", "absent") == {"link sessions": True}


def test_settings_with_which_it_does_not_start_are_told_before(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('approval_policy = "untrusted"\n')
    assert keys(None, tmp_path) == {"approval_policy": True}
    agent = configured(tmp_path, tmp_path, args="-c approval_policy=never")
    assert keys(agent, tmp_path) == {}
    (tmp_path / "strict.config.toml").write_text('approval_policy = "untrusted"\n')
    config.write_text("")
    assert keys(configured(tmp_path, tmp_path, args="--profile=strict"), tmp_path) == {
        "approval_policy": True
    }
    config.write_text("a = 'b\n")
    assert keys(None, tmp_path) == {"config.toml": False}
    config.write_bytes(b"\xff")
    assert keys(None, tmp_path) == {"config.toml": False}
    config.write_text("[features]\ndaemon_auto_start = true\n")
    assert keys(None, tmp_path) == {"daemon": False}


def test_a_fifo_in_the_place_of_a_file_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "app-server-daemon").mkdir()
    for name in ("config.toml", "app-server-daemon/daemon.pid"):
        os.mkfifo(tmp_path / name)
    assert keys(None, tmp_path) == {"config.toml": False}
    (tmp_path / "config.toml").unlink()
    (tmp_path / "auth.json").unlink()
    os.mkfifo(tmp_path / "auth.json")
    assert CodexRuntime().check_home(None, tmp_path, {}, ()).credentials is Credentials.UNKNOWN
    assert CodexRuntime().background(tmp_path) is None
    write(tmp_path, TURN).unlink()
    os.mkfifo(tmp_path / "sessions/2026/11/21" / f"rollout-2026-11-21T18-37-05-{HERE}.jsonl")
    assert CodexRuntime().resume(configured(tmp_path, tmp_path), HERE, tmp_path) is None


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "repo"
    (made / "below").mkdir(parents=True)
    git = [
        "git",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "init.defaultBranch=main",
        "-C",
        str(made),
    ]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run([*git, "worktree", "add", "-q", str(tmp_path / "tree")], check=True)
    return made


def test_trust_is_of_the_directory_or_its_repositorys_root(tmp_path: Path, repository: Path) -> None:
    config = tmp_path / "config.toml"

    def trust(directory: Path, *trusted: Path, level: str = "trusted", **options: str) -> bool:
        config.write_text("".join(f'[projects."{path}"]\ntrust_level = "{level}"\n' for path in trusted))
        return "trust" not in keys(configured(tmp_path, directory, **options), tmp_path)

    below, tree = repository / "below", tmp_path / "tree"
    (tmp_path / "plain").mkdir()
    assert trust(tmp_path / "plain"), "it asks about repositories alone"
    assert not trust(repository)
    assert not trust(below, tmp_path), "a folder above the root does not count"
    assert trust(below, repository) and trust(below, below)
    assert not trust(tree) and trust(tree, repository) and trust(tree, tree)
    assert not trust(below, repository, level="untrusted")
    assert trust(below, repository, level="untrusted", dialogs="restricted=accept")
    assert trust(below, dialogs="trust=accept")
    assert not trust(below, args="--dangerously-bypass-approvals-and-sandbox")
    assert trust(below, args="--sandbox read-only"), "whether it asks then is not known"
    (tmp_path / "link").symlink_to(below)
    assert trust(tmp_path / "link", repository)
    config.write_text('approval_policy = "never"\n')
    assert keys(configured(tmp_path, below), tmp_path) == {}


def test_arguments_are_laid_over_the_settings_as_codex_does(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('model = "a"\n[features]\nx = true\n')
    arguments = ["-c", "features.y=true", "--config=model=b c", "-cz=3", "--disable", "x", "--enable"]
    values = codex_home.config(tmp_path, arguments).values
    assert values == {"model": "b c", "features": {"x": False, "y": True}, "z": 3}


def test_every_dialog_that_can_be_answered_has_keys(tmp_path: Path) -> None:
    codex = CodexRuntime()
    assert len({dialog.name for dialog in codex.dialogs}) == len(codex.dialogs)
    for dialog in codex.dialogs:
        assert all(keys for keys in dialog.answers.values()), dialog.name
        assert dialog.answers or dialog.otherwise, dialog.name
    assert not {"-c", "--model", "--profile"} & set(codex.owned_arguments)
    assert {"resume", "--last", "fork", "exec"} <= set(codex.owned_arguments)
    assert SETTLED_SECS > 2, "a screen of circusd may be that old"
    assert codex.stale_files([tmp_path], process_table.ProcessId(1, 1)) == ()
