"""How the last turn of a Claude Code transcript ended, and what the conversation was told.

For whoever ends its client and goes on with the conversation elsewhere. Facts are of Claude Code 2.1.329. It
reads the end of one file, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circus_failover.agents import transcripts
from circus_failover.agents.claude_files import is_turn, mapping, past, sequence, text
from circus_failover.agents.claude_transcript import is_error, message_text
from circus_failover.policy.continuing import OpenTurn, Prompt, TurnEnd

INTERRUPTED = "[Request interrupted by user"
# What the client writes for its own commands, and for what it takes up again by itself.
_NO_PROMPT = ("<command-", "<local-command", "<bash-stdout", "<bash-stderr", "Caveat:")


def open_turn(path: Path) -> OpenTurn:
    """Return what a transcript says of its last turn."""
    end: TurnEnd | None = None
    ended_at: float | None = None
    prompts: list[Prompt] = []
    reaches = 0.0
    for record in transcripts.last_records(path):
        at = past(transcripts.time_of(record.get("timestamp")))
        reaches = at if at is not None else reaches
        if queued := _queued(record):
            prompts.append(Prompt(queued, at))
        if not is_turn(record) or record.get("isCompactSummary") is True or _synthetic(record):
            continue
        if record.get("type") == "user" and (said := _prompt(record)) is not None:
            prompts.append(Prompt(said, at))
        if end is None and (found := _end(record)) is not None:
            end, ended_at = found, at
    since = 0.0 if transcripts.whole(path) else reaches
    return OpenTurn(end or TurnEnd.NONE, ended_at, tuple(reversed(prompts)), since)


def _end(record: Mapping[str, Any]) -> TurnEnd | None:
    """Return how a turn ended whose newest record this is; None for one that is about none."""
    if record.get("type") == "user":
        said = message_text(record).lstrip()
        if said.startswith(INTERRUPTED):
            return TurnEnd.INTERRUPTED
        return None if said.startswith(_NO_PROMPT) else TurnEnd.CUT
    if is_error(record):
        return TurnEnd.FAILED
    message = mapping(record.get("message"))
    if any(mapping(part).get("type") == "tool_use" for part in sequence(message.get("content"))):
        return TurnEnd.CUT
    # A part of a message, of which more was to come, has no reason to stop yet.
    unfinished = "stop_reason" in message and message.get("stop_reason") is None
    return TurnEnd.CUT if unfinished else TurnEnd.ANSWERED


def _prompt(record: Mapping[str, Any]) -> str | None:
    """Return what a person, or the supervisor, has said; None for results of tools and the client's own."""
    content = mapping(record.get("message")).get("content")
    if any(mapping(part).get("type") == "tool_result" for part in sequence(content)):
        return None
    said = message_text(record)
    return None if not said or said.lstrip().startswith((*_NO_PROMPT, INTERRUPTED)) else said


def _queued(record: Mapping[str, Any]) -> str:
    """Return a prompt that was typed during a turn and handed to it: it is an attachment of that turn."""
    attached = mapping(record.get("attachment"))
    return text(attached.get("prompt")) if attached.get("type") == "queued_command" else ""


def _synthetic(record: Mapping[str, Any]) -> bool:
    """Say whether the client has written an answer in the model's place, which is no error either."""
    return mapping(record.get("message")).get("model") == "<synthetic>" and not is_error(record)
