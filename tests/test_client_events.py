"""What a client's hook reports: the reporter's file, what is believed of it, and what is kept."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circus_failover import client_hooks, process_table, spool
from circus_failover.agents import claude_usage
from circus_failover.client_events import FIELDS, LONGEST_WORD, merged
from circus_failover.records import AgentRow

REPORTER = Path(__file__).resolve().parent.parent / "bin" / "failover-event"
LAUNCH = "01234567-89ab-cdef-0123-456789abcdef"
ROW = AgentRow("bob", "up", generation=3, launch=LAUNCH, pid=os.getpid())
SESSION = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory as far as the reporter knows it."""
    (tmp_path / "spool").mkdir(mode=0o700)
    return tmp_path


def environment(state: Path, **changes: str) -> dict[str, str]:
    """Return what a launch gives its agent."""
    ours = {
        "FAILOVER_IDENTITY": "bob",
        "FAILOVER_GENERATION": "3",
        "FAILOVER_LAUNCH": LAUNCH,
        "FAILOVER_STATE_DIR": str(state),
    }
    return {"PATH": os.environ["PATH"], **ours, **changes}


def run(environment: dict[str, str], said: bytes, hook: str = "Stop") -> None:
    """Run the reporter as a client does: by what is in its settings, in a shell."""
    command = client_hooks.command(REPORTER, hook)
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, input=said, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), "a client reads what it prints"


def files(state: Path) -> list[Path]:
    """Return what is in the spool, finished or not."""
    return sorted((state / "spool").iterdir())


def reports(state: Path) -> list[dict[str, Any]]:
    """Return the reports of the spool as circusd reads them, in its order."""
    found: list[dict[str, Any]] = []
    assert spool.take_in(state / "spool", lambda name, report: found.append(report)) == []
    return found


def payload(hook: str = "Stop", **said: Any) -> bytes:
    """Return what a client says to a hook."""
    return json.dumps({"session_id": SESSION, "hook_event_name": hook, **said}).encode()


def report(hook: str = "Stop", said: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """Return a report of this very launch, from its own client."""
    encoded = base64.b64encode(payload(hook) if said is None else said).decode()
    ours = {"kind": "client-event", "identity": "bob", "generation": 3, "launch": LAUNCH, "hook": hook}
    return {**ours, "client": os.getpid(), "payload": encoded, **changes}


def kept(found: dict[str, Any], row: AgentRow = ROW, at: float = 1000.0) -> dict[str, Any] | None:
    """Return what is kept once a report is taken in, or None when it is dropped."""
    pushed, why_not = merged(row, found, at)
    assert (pushed is None) == bool(why_not)
    return None if pushed is None else json.loads(pushed)


# -- the reporter ---------------------------------------------------------------------------------


def test_a_report_is_one_whole_private_file_that_says_whose_it_is_and_carries_what_the_client_said(
    state: Path,
) -> None:
    said = payload(last_assistant_message='it\'s "$HOME" `id` \\ %s \u00e9\n', background_tasks=[])
    run(environment(state), said)
    (path,) = files(state)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (found,) = reports(state)
    assert base64.b64decode(found.pop("payload")) == said
    assert found == {
        "kind": "client-event",
        "identity": "bob",
        "generation": 3,
        "launch": LAUNCH,
        "hook": "Stop",
        "client": os.getpid(),
    }


def test_it_does_nothing_for_a_client_that_nobody_launched_and_never_fails(state: Path) -> None:
    for name in ("FAILOVER_LAUNCH", "FAILOVER_STATE_DIR"):
        run({key: value for key, value in environment(state).items() if key != name}, payload())
    run(environment(state, FAILOVER_IDENTITY='b"b'), payload())
    run(environment(state, FAILOVER_GENERATION="3x"), payload())
    run(environment(state, FAILOVER_LAUNCH='x","kind":"self'), payload())
    run(environment(state, FAILOVER_STATE_DIR=str(state / "gone")), payload())
    run(environment(state, PATH=""), payload(), "../../Stop")
    assert files(state) == []
    (state / "spool").rmdir()
    run(environment(state), payload())
    (state / "spool").symlink_to("/dev/full")
    run(environment(state), payload())


def test_what_is_said_at_length_is_cut_and_the_client_is_not_held_up(state: Path) -> None:
    run(environment(state), payload(last_assistant_message="x" * 3_000_000))
    (found,) = reports(state)
    assert len(base64.b64decode(found["payload"])) == 262144
    assert kept(found) == {"Stop": {"at": 1000.0, "client": me()}}, "it says when, and nothing else"


def test_of_each_hook_the_newest_report_alone_waits_for_a_circusd_that_is_down(state: Path) -> None:
    for number in range(3):
        run(environment(state), payload(number=number))
        run(environment(state), payload("Notification", number=number), "Notification")
    run(environment(state, FAILOVER_GENERATION="4"), payload())
    run(environment(state, FAILOVER_IDENTITY="bob-2"), payload())
    found = reports(state)
    assert [(one["identity"], one["generation"], one["hook"]) for one in found] == [
        ("bob", 3, "Stop"),
        ("bob", 3, "Notification"),
        ("bob", 4, "Stop"),
        ("bob-2", 3, "Stop"),
    ]
    assert [json.loads(base64.b64decode(one["payload"])).get("number") for one in found[:2]] == [2, 2]


# -- what is believed -----------------------------------------------------------------------------


def me() -> list[int]:
    """Return who reports in these tests."""
    found = process_table.identify(os.getpid())
    assert found is not None
    return [found.pid, found.start]


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 2},
        {"generation": 4},
        {"generation": "3"},
        {"launch": "another"},
        {"launch": None},
        {"hook": "PreToolUse"},
        {"hook": ["Stop"]},
    ],
    ids=str,
)
def test_what_is_not_of_this_very_launch_is_dropped(change: dict[str, Any]) -> None:
    assert kept(report()) is not None
    assert kept(report(**change)) is None


def test_an_agent_that_was_not_launched_by_us_has_no_reports() -> None:
    assert kept(report(launch=None, generation=0), AgentRow("bob", "observed")) is None


SAID: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "SessionStart": ({"source": "startup", "model": "m"}, {"source": "startup"}),
    "UserPromptSubmit": ({"prompt": "SECRET"}, {}),
    "Stop": (
        {"last_assistant_message": "SECRET", "background_tasks": [{"type": "x"}], "stop_hook_active": False},
        {"background_tasks": 1, "stop_hook_active": False},
    ),
    "StopFailure": (
        {"error": "rate_limit", "last_assistant_message": "SECRET"},
        {"error": "rate_limit"},
    ),
    "Notification": (
        {"notification_type": "permission_prompt", "message": "It needs your permission", "title": "SECRET"},
        {"notification_type": "permission_prompt", "message": "It needs your permission"},
    ),
    "Interrupt": ({"turn_id": "SECRET"}, {}),
    "SessionEnd": ({"reason": "prompt_input_exit"}, {"reason": "prompt_input_exit"}),
    "StatusLine": (
        {
            "rate_limits": {
                "five_hour": {"used_percentage": 95, "resets_at": 1795312662},
                "seven_day": {"used_percentage": 40.5},
                "other": {"used_percentage": 1, "resets_at": 1},
                "cwd": "SECRET",
            },
            "cwd": "SECRET",
        },
        {"rate_limits": {"five_hour": [95.0, 1795312662.0], "seven_day": [40.5, None]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("hook", FIELDS)
def test_only_a_few_words_are_kept_and_never_what_was_asked_or_answered(hook: str) -> None:
    said, wanted = SAID[hook]
    found = kept(report(hook, payload(hook, transcript_path="SECRET", **said)))
    assert found == {hook: {"at": 1000.0, "client": me(), "session_id": SESSION, **wanted}}


def test_every_hook_that_is_installed_is_known() -> None:
    installed = {hook for hooks in client_hooks.HOOKS.values() for hook in hooks}
    assert {*installed, claude_usage.EVENT} == set(FIELDS)


STATUS = (
    b'{"session_id":"SECRET","cost":{"total_cost_usd":1.5},"rate_limits": {"five_hour":{"used_percentage":%d,'
    b'"resets_at":1795312662}, "seven_day":{"used_percentage":40}},"thinking":{"enabled":true}}'
)


def test_a_status_line_reports_its_limits_alone_and_only_when_they_are_new(state: Path) -> None:
    (state / "run").mkdir()
    for said in (b"", b'{"cwd":"/x"}', STATUS % 94, STATUS % 94, STATUS.replace(b",", b",\n") % 94):
        run(environment(state), said, "StatusLine")
    (first,) = reports(state)
    said_of_it = base64.b64decode(first["payload"])
    assert b"SECRET" not in said_of_it and b"cost" not in said_of_it
    # The next launch says it again: circusd forgets what an earlier one reported.
    run(environment(state), STATUS % 95, "StatusLine")
    assert len(reports(state)) == 1
    run(environment(state, FAILOVER_LAUNCH="another"), STATUS % 95, "StatusLine")
    assert len(reports(state)) == 1
    found = kept({**first, "client": os.getpid()})
    assert found is not None
    limits = {"five_hour": [94.0, 1795312662.0], "seven_day": [40.0, None]}
    assert found["StatusLine"]["rate_limits"] == limits
    used = claude_usage.of_event(found["StatusLine"])
    assert [(one.window, one.used, one.resets_at, one.at) for one in used] == [
        ("5-hour", 0.94, 1795312662.0, 1000.0),
        ("weekly", 0.4, None, 1000.0),
    ]


@pytest.mark.parametrize(
    ("said", "kept_of_it"),
    [
        (b'{"rate_limits":{"five_hour":{"used_percentage":7}},"x":"\xff"}', True),
        (b'{"rate_limits": { "five_hour": null, "status":"allowed", "n2":{"a":[1]}, "seven_day":{}}}', True),
        (b'{\n "rate_limits": {\n  "five_hour": {\n   "used_percentage": 7\n  }\n }\n}\n', True),
        (b'{"title":"\\"rate_limits\\": {\\"five_hour\\": {\\"used_percentage\\": 9}}"}', False),
        (b'{"rate_limits":{"five_hour":{"used_perc', False),
        (b'{"rate_limits":null}', False),
        (b"", False),
    ],
)
def test_a_status_line_that_says_more_than_expected_still_tells_of_the_windows_it_has(
    state: Path, said: bytes, kept_of_it: bool
) -> None:
    (state / "run").mkdir()
    run(environment(state, LANG="C.UTF-8"), said, "StatusLine")
    carried = [json.loads(base64.b64decode(one["payload"])) for one in reports(state)]
    assert [set(one) for one in carried] == [{"hook_event_name", "rate_limits"}] * kept_of_it


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["five_hour", "used_percentage", "resets_at"]), inner)
        ),
    )
)
def test_no_report_of_a_status_line_is_an_error(said: object) -> None:
    found = claude_usage.kept(said)
    for one in claude_usage.of_event({"at": 1000.0, "rate_limits": said if found is None else found}):
        assert one.used == one.used, "what is no number is no share"


def test_what_is_kept_is_short_on_one_line_and_of_the_hook_that_it_says_it_is() -> None:
    long = kept(report("SessionEnd", payload("SessionEnd", reason="a\nb" * 1000)))
    assert long is not None
    assert long["SessionEnd"]["reason"] == ("a b" * 1000)[:LONGEST_WORD]
    assert kept(report("Stop", payload("SessionEnd", reason="x"))) == {"Stop": {"at": 1000.0, "client": me()}}
    assert kept(report("Stop", payload(session_id="../x"))) == {"Stop": {"at": 1000.0, "client": me()}}


@settings(deadline=None)
@given(
    st.sampled_from(sorted(FIELDS)),
    st.dictionaries(
        st.sampled_from(["session_id", "hook_event_name", "error", "message", "background_tasks", "reason"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.none()) | st.just("Stop"),
    )
    | st.binary(),
)
def test_whatever_a_client_says_what_is_kept_is_short_and_of_known_kinds(hook: str, said: Any) -> None:
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    found = kept(report(hook, content))
    assert found is not None
    for value in found[hook].values():
        assert isinstance(value, (int, float, list)) or (len(value) <= LONGEST_WORD and "\n" not in value)
    assert kept(report(hook, payload=7)) == {hook: {"at": 1000.0, "client": me()}}


def test_the_newest_of_each_hook_is_kept_in_whatever_order_they_come() -> None:
    row = ROW
    for hook, at in (("Stop", 5.0), ("SessionStart", 1.0), ("Stop", 3.0), ("Stop", 5.0), ("Stop", 6.0)):
        pushed, _ = merged(row, report(hook), at)
        assert (pushed is None) == (hook == "Stop" and at in (3.0, 5.0) and row is not ROW)
        row = row if pushed is None else AgentRow("bob", "up", generation=3, launch=LAUNCH, pushed=pushed)
    assert {hook: event["at"] for hook, event in json.loads(row.pushed or "").items()} == {
        "Stop": 6.0,
        "SessionStart": 1.0,
    }


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another client."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_client_that_the_agent_itself_runs_is_not_believed(other: subprocess.Popen[bytes]) -> None:
    first = report("SessionStart")
    before = AgentRow("bob", "up", generation=3, launch=LAUNCH, pid=1, pushed=merged(ROW, first, 1.0)[0])
    assert kept(report(client=os.getpid()), before), "who reported first, behind a script"
    assert kept(report(client=other.pid), before) is None, "a client of the same account, beside it"
    assert kept(report(client=1), before), "the agent's own process"
    assert kept(report(client=0), before), "where it cannot be told"


def test_a_client_that_took_the_place_of_one_that_has_ended_is_believed(
    other: subprocess.Popen[bytes],
) -> None:
    row = AgentRow("bob", "up", generation=3, launch=LAUNCH, pid=1)
    pushed, _ = merged(row, report(client=other.pid), 1.0)
    row = AgentRow("bob", "up", generation=3, launch=LAUNCH, pid=1, pushed=pushed)
    assert kept(report()) and kept(report(), row) is None
    other.kill()
    other.wait()
    assert kept(report(), row)


@pytest.mark.parametrize(
    "pushed", ["", "{", "[]", "7", '{"Stop": 1}', '{"Stop": {"at": "x"}}', '{"Stop": {}}']
)
def test_a_row_that_cannot_be_read_is_begun_anew(pushed: str) -> None:
    row = AgentRow("bob", "up", generation=3, launch=LAUNCH, pushed=pushed)
    assert kept(report("SessionStart"), row) == {
        "SessionStart": {"at": 1000.0, "client": me(), "session_id": SESSION}
    }
