"""How the last turn of a Codex transcript ended, and what the conversation was told.

For whoever ends its client and goes on with the conversation elsewhere. Facts are of Codex 0.169.0. It reads
the end of one file, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circus_failover.agents import transcripts
from circus_failover.policy.continuing import OpenTurn, Prompt, TurnEnd


def open_turn(path: Path) -> OpenTurn:
    """Return what a transcript says of its last turn."""
    end: TurnEnd | None = None
    ended_at: float | None = None
    prompts: list[Prompt] = []
    reaches, silent = 0.0, False
    for record in transcripts.last_records(path):
        at = transcripts.time_of(record.get("timestamp"))
        reaches = at if at is not None else reaches
        payload = record.get("payload")
        if record.get("type") != "event_msg" or not isinstance(payload, dict):
            continue
        if said := _prompt(payload):
            prompts.append(Prompt(said, at))
        found = _end(payload)
        if end is None and found is not None:
            end, ended_at = found, at
            silent = found is TurnEnd.ANSWERED and payload.get("last_agent_message") is None
        elif silent and found is not None:
            # A turn that came to nothing may say why in an event of its own, right before its end.
            end, silent = TurnEnd.FAILED if found is TurnEnd.FAILED else end, False
    since = 0.0 if transcripts.whole(path) else reaches
    return OpenTurn(end or TurnEnd.NONE, ended_at, tuple(reversed(prompts)), since)


def _prompt(payload: Mapping[str, Any]) -> str:
    """Return what a person, or the supervisor, has said; earlier versions had an event of its own for it."""
    if payload.get("type") == "user_message":
        said = payload.get("message")
        return said if isinstance(said, str) else ""
    item = payload.get("item")
    if (
        payload.get("type") != "item_completed"
        or not isinstance(item, dict)
        or item.get("type") != "UserMessage"
    ):
        return ""
    content = item.get("content")
    texts = (
        [part.get("text") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    )
    return "\n".join(text for text in texts if isinstance(text, str))


def _end(payload: Mapping[str, Any]) -> TurnEnd | None:
    """Return how a turn ended whose newest event this is; None for one that is about none."""
    kind = payload.get("type")
    if kind in ("task_started", "user_message"):
        return TurnEnd.CUT
    if kind == "error":
        return TurnEnd.FAILED
    if kind == "turn_aborted":
        return TurnEnd.INTERRUPTED
    if kind == "task_complete":
        failed = payload.get("error") is not None
        return TurnEnd.FAILED if failed else TurnEnd.ANSWERED
    return None
