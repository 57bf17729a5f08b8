"""What transcripts say of the last turn, and of what a conversation was told, as the clients leave them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from circus_failover.agents import RUNTIMES, claude_turns, codex_turns, transcripts
from circus_failover.policy.continuing import OpenTurn, TurnEnd

NOW = 1_790_000_000.0
CONVERSATION = "01a1ff65-d390-73e2-9772-0123456789ab"
Record = dict[str, Any]


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at))


def written(tmp_path: Path, records: list[Record]) -> Path:
    path = tmp_path / f"{CONVERSATION}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# -- Claude Code 2.1.329 -----------------------------------------------------------------------------------


def said(at: float, role: str, content: Any, **more: Any) -> Record:
    message = {"role": role, "content": content, **more.pop("message", {})}
    return {"type": role, "timestamp": stamp(at), "isSidechain": False, "message": message, **more}


def answer(at: float, text: str, stop: str | None = "end_turn") -> Record:
    return said(at, "assistant", [{"type": "text", "text": text}], message={"stop_reason": stop})


ASKED = said(NOW - 40, "user", "add it up")
CALL = said(NOW - 30, "assistant", [{"type": "tool_use", "id": "t1", "name": "Bash"}])
RESULT = said(NOW - 20, "user", [{"type": "tool_result", "tool_use_id": "t1", "content": "42"}])
LIMIT = {**answer(NOW - 10, "You've hit your 5-hour limit"), "isApiErrorMessage": True, "error": "rate_limit"}
QUEUED = {
    "type": "attachment",
    "timestamp": stamp(NOW - 25),
    "attachment": {"type": "queued_command", "prompt": "and then send it"},
}


@pytest.mark.parametrize(
    ("records", "end", "at"),
    [
        ([], TurnEnd.NONE, None),
        ([ASKED], TurnEnd.CUT, NOW - 40),
        ([ASKED, CALL], TurnEnd.CUT, NOW - 30),
        ([ASKED, CALL, RESULT], TurnEnd.CUT, NOW - 20),
        ([ASKED, answer(NOW - 9, "it is", stop=None)], TurnEnd.CUT, NOW - 9),
        ([ASKED, answer(NOW - 9, "it is 42")], TurnEnd.ANSWERED, NOW - 9),
        ([ASKED, CALL, RESULT, LIMIT], TurnEnd.FAILED, NOW - 10),
        ([ASKED, said(NOW - 8, "user", "[Request interrupted by user]")], TurnEnd.INTERRUPTED, NOW - 8),
        # What the client adds of its own is no turn: its commands, and what it says for the model.
        ([ASKED, LIMIT, said(NOW - 5, "user", "<command-name>/status</command-name>")], TurnEnd.FAILED, None),
        ([ASKED, {**answer(NOW - 5, "No response requested."), "isMeta": True}], TurnEnd.CUT, NOW - 40),
        (
            [ASKED, said(NOW - 5, "assistant", [], message={"model": "<synthetic>", "stop_reason": "x"})],
            *(TurnEnd.CUT, NOW - 40),
        ),
        # A sub-agent's.
        ([ASKED, {**answer(NOW - 5, "done"), "isSidechain": True}], TurnEnd.CUT, NOW - 40),
    ],
)
def test_how_the_last_turn_of_claude_ended(
    tmp_path: Path, records: list[Record], end: TurnEnd, at: float | None
) -> None:
    found = claude_turns.open_turn(written(tmp_path, records))
    assert found.end is end and (at is None or found.at == at)
    assert found.reaches == 0.0


def test_what_claude_was_told_is_known_with_what_waited_inside_it(tmp_path: Path) -> None:
    records = [ASKED, CALL, QUEUED, RESULT, said(NOW - 5, "user", "<bash-stdout>x</bash-stdout>")]
    found = claude_turns.open_turn(written(tmp_path, records))
    assert [(prompt.text, prompt.at) for prompt in found.prompts] == [
        ("add it up", NOW - 40),
        ("and then send it", NOW - 25),
    ]


def test_a_long_transcript_is_known_back_to_a_time(tmp_path: Path) -> None:
    filler = said(NOW - 100, "user", "x" * (transcripts.LIMIT // 2))
    found = claude_turns.open_turn(written(tmp_path, [filler, filler, filler, ASKED]))
    assert found.end is TurnEnd.CUT and found.reaches == NOW - 100
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b"\xff\x00 no JSON\n[1]\n" + json.dumps(ASKED).encode()[:-9])
    assert claude_turns.open_turn(broken).end is TurnEnd.NONE


# -- Codex 0.169.0 -----------------------------------------------------------------------------------------


def event(at: float, kind: str, **payload: Any) -> Record:
    return {"timestamp": stamp(at), "type": "event_msg", "payload": {"type": kind, **payload}}


def typed(at: float, text: str) -> Record:
    item = {"type": "UserMessage", "content": [{"type": "text", "text": text, "text_elements": []}]}
    return event(at, "item_completed", item=item)


BEGUN = [event(NOW - 40, "task_started"), typed(NOW - 39, "add it up")]
USAGE = {"message": "You’ve hit your usage limit.", "codex_error_info": "usage_limit_exceeded"}


@pytest.mark.parametrize(
    ("records", "end"),
    [
        ([], TurnEnd.NONE),
        (BEGUN, TurnEnd.CUT),
        ([BEGUN[0], event(NOW - 39, "user_message", message="add it up")], TurnEnd.CUT),
        ([*BEGUN, event(NOW - 9, "task_complete", last_agent_message="42")], TurnEnd.ANSWERED),
        ([*BEGUN, event(NOW - 9, "task_complete", last_agent_message=None)], TurnEnd.ANSWERED),
        ([*BEGUN, event(NOW - 9, "task_complete", last_agent_message=None, error=USAGE)], TurnEnd.FAILED),
        (
            [
                *BEGUN,
                event(NOW - 9, "error", **USAGE),
                event(NOW - 8, "task_complete", last_agent_message=None),
            ],
            TurnEnd.FAILED,
        ),
        ([*BEGUN, event(NOW - 9, "error", **USAGE), event(NOW - 8, "token_count")], TurnEnd.FAILED),
        ([*BEGUN, event(NOW - 9, "turn_aborted", reason="interrupted")], TurnEnd.INTERRUPTED),
        ([event(NOW - 60, "error", **USAGE), *BEGUN, event(NOW - 9, "task_complete")], TurnEnd.ANSWERED),
    ],
)
def test_how_the_last_turn_of_codex_ended(tmp_path: Path, records: list[Record], end: TurnEnd) -> None:
    found = codex_turns.open_turn(written(tmp_path, records))
    assert found.end is end
    assert [prompt.text for prompt in found.prompts] == (["add it up"] if records else [])


@pytest.mark.parametrize("runtime", ["claude", "codex"])
def test_where_there_is_no_transcript_nothing_was_said(tmp_path: Path, runtime: str) -> None:
    assert RUNTIMES[runtime].open_turn(tmp_path, tmp_path, CONVERSATION) == OpenTurn(TurnEnd.NONE)


def test_of_a_command_nobody_can_tell(tmp_path: Path) -> None:
    assert RUNTIMES["command"].open_turn(tmp_path, tmp_path, CONVERSATION) is None
