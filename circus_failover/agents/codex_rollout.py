"""What Codex's transcripts say: `sessions/YYYY/MM/DD/rollout-<local time>-<id>.jsonl` in an account home.

It finds the transcript of one conversation, and reads from its last records whether a turn is on and how the
last one went. It reads files only, and knows nothing of processes and screens. The format is undocumented
(Codex 0.169.0): a record of an unknown kind that stands behind the end of a turn takes its proof away, so
that a new format leads to the next evidence, and never to a wrong state.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circus_failover.agents import client_file
from circus_failover.agents.transcripts import last_records, time_of
from circus_failover.policy import usage_limits
from circus_failover.policy.accounts import Usage
from circus_failover.policy.health import Fault
from circus_failover.words import FaultKind, State

SESSIONS = "sessions"
FOLDERS_MAX = 4000
"""So many days are looked through for an old conversation."""
HEAD_BYTES = 4 * 1024 * 1024
"""So much of a transcript's begin is read for its first record, and for a prompt."""
TEXT_CHARS = 300
RECORDS_BEYOND = 20
"""So many records are read on for how much of the account's windows is used."""
_DAY_SECS = 86400
# What Codex writes also between turns: it says nothing about one.
_BETWEEN = frozenset(
    ("token_count", "token_usage_record", "thread_settings_applied", "thread_name_updated", "world_state")
)
_SPOKEN = frozenset(
    ("message", "reasoning", "function_call", "custom_tool_call", "local_shell_call", "web_search_call")
)
_ENDS = ("task_complete", "turn_aborted")
_CALLS = frozenset(("function_call", "custom_tool_call", "local_shell_call"))
_KINDS = {
    "usage_limit_exceeded": FaultKind.USAGE_LIMIT,
    "server_overloaded": FaultKind.OVERLOAD,
    "internal_server_error": FaultKind.SERVER_ERROR,
    "unauthorized": FaultKind.CREDENTIALS,
}
_STATUSES = {
    401: FaultKind.CREDENTIALS,
    402: FaultKind.CREDIT,
    403: FaultKind.CREDENTIALS,
    408: FaultKind.NETWORK,
    429: FaultKind.RATE_LIMIT,
    503: FaultKind.OVERLOAD,
    529: FaultKind.OVERLOAD,
}
_CONNECTION = (
    "http_connection_failed",
    "response_stream_connection_failed",
    "response_stream_disconnected",
    "response_too_many_failed_attempts",
)
_WINDOWS = {300: "5-hour", 1440: "daily", 10080: "weekly"}
_ACCOUNTS_LIMIT = "codex"


@dataclass(frozen=True)
class Turn:
    """What the last records of a transcript say."""

    state: State | None = None
    """`working` while a turn is on, `idle` after its end; None: they do not tell."""
    at: float | None = None
    """Epoch seconds of the record that says so."""
    what: str = ""
    """The tool that was called last, while it has not answered."""
    fault: Fault | None = None
    """How the last turn that ended has failed."""
    fault_at: float | None = None
    answered_at: float | None = None
    """Epoch seconds of the newest words or call of the model, since that turn."""
    newest_at: float | None = None
    """Epoch seconds of the newest record."""
    usage: tuple[Usage, ...] = ()
    """How much of the account's windows is used, as it was told last."""


@dataclass(frozen=True)
class Head:
    """What the first record of a transcript says."""

    sub_agent: bool = False
    """The conversation is one that an agent of the client's own has."""


# -- finding -----------------------------------------------------------------------------------------------


def find(home: Path, conversation: str, *, everywhere: bool = True) -> Path | None:
    """Return the transcript of a conversation; None when there is none.

    The first 48 bits of an id are the milliseconds of its begin (UUIDv7, RFC 9562), which tells the day's
    folder up to the time zone; ids of older versions and moved transcripts are looked for in all of them.

    Args:
        home: the account home.
        conversation: the id.
        everywhere: whether to look beyond the days that its id tells, the newest folder first.
    """
    try:
        number = uuid.UUID(conversation)
    except ValueError:
        return None
    if str(number) != conversation:
        return None
    looked: set[Path] = set()
    if number.version == 7:
        begun = (number.int >> 80) / 1000
        for days in (0, -1, 1):
            with contextlib.suppress(OverflowError, OSError, ValueError):
                day = time.strftime("%Y/%m/%d", time.localtime(begun + days * _DAY_SECS))
                looked.add(folder := home / SESSIONS / day)
                if (found := _in_folder(folder, conversation)) is not None:
                    return found
    if not everywhere:
        return None
    for count, folder in enumerate(_days(home / SESSIONS)):
        if count >= FOLDERS_MAX:
            break
        if folder not in looked and (found := _in_folder(folder, conversation)) is not None:
            return found
    return None


def _in_folder(folder: Path, conversation: str) -> Path | None:
    found = (folder / name for name in _names(folder) if name.endswith(f"-{conversation}.jsonl"))
    return next((path for path in found if path.is_file()), None)


def _days(sessions: Path) -> Iterator[Path]:
    for year in _names(sessions):
        for month in _names(sessions / year):
            for day in _names(sessions / year / month):
                yield sessions / year / month / day


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder), reverse=True)
    except OSError:
        return []


def prompted(path: Path) -> bool:
    """Say whether a transcript holds a turn of a user, without which Codex has nothing to continue."""
    return any(_is_prompt(record) for record in _first_records(path))


def _is_prompt(record: Mapping[str, Any]) -> bool:
    payload = _mapping(record.get("payload"))
    if record.get("type") == "event_msg":
        return payload.get("type") in ("task_started", "user_message")
    return (
        record.get("type") == "response_item"
        and payload.get("type") == "message"
        and payload.get("role") == "assistant"
    )


@functools.lru_cache(maxsize=1024)
def head(path: Path) -> Head:
    """Return what the first record says; a file's first record does not change."""
    for record in _first_records(path):
        payload = _mapping(record.get("payload"))
        if record.get("type") != "session_meta":
            break
        # 0.169.0: `source` is "cli" of a person's, {"subagent": ...} of an agent's own.
        told = payload.get("thread_source"), payload.get("source")
        return Head(told[0] == "subagent" or (isinstance(told[1], dict) and "subagent" in told[1]))
    return Head()


def _first_records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with client_file.opened(path) as file:
            left = HEAD_BYTES
            while left > 0 and (line := file.readline(left)):
                left -= len(line)
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(record, dict):
                    yield record
    except OSError:
        return


# -- reading -----------------------------------------------------------------------------------------------


def read(path: Path) -> Turn:
    """Return what a transcript says, reading it when it has changed; one that cannot be read says nothing."""
    try:
        stamp = os.stat(path)
    except OSError:
        return Turn()
    return _read(path, stamp.st_mtime_ns, stamp.st_size, stamp.st_ino)


@functools.lru_cache(maxsize=1024)
def _read(path: Path, *stamp: int) -> Turn:
    return summed_up(last_records(path))


def summed_up(records: Iterable[Mapping[str, Any]]) -> Turn:
    """Return what records say, the newest first."""
    turn, decided, behind = Turn(), False, False
    replied: set[str] = set()
    beyond: int | None = None
    for record in records:
        kind, payload, at = _parts(record)
        if kind == "token_count" and not turn.usage:
            turn = replace(turn, usage=_usage(payload.get("rate_limits"), at))
        if beyond is not None:
            # All is known but how much is used, which stands before the end of the last turn.
            beyond += 1
            if turn.usage or kind == "task_started" or beyond >= RECORDS_BEYOND:
                break
            continue
        if turn.newest_at is None and at is not None:
            turn = replace(turn, newest_at=at)
        if not decided:
            if kind == "task_started":
                turn, decided = replace(turn, state=State.WORKING, at=at), True
            elif kind in _ENDS:
                # What stands behind an end, and is not known to, may be a turn in a newer format.
                turn, decided = replace(turn, state=None if behind else State.IDLE, at=at, what=""), True
            elif kind in _CALLS and not turn.what and _line(payload.get("call_id")) not in replied:
                turn = replace(turn, what=_line(payload.get("name"))[:60])
            elif kind.endswith("_output"):
                replied.add(_line(payload.get("call_id")))
            behind = behind or kind not in _BETWEEN
        if turn.fault is not None:
            if kind == "token_count":
                turn = replace(turn, fault=_with_limits(turn.fault, payload.get("rate_limits"), at))
            if kind in ("token_count", "task_started", *_ENDS):
                break
        elif kind in ("error", *_ENDS) and (error := _error(kind, payload)) is not None:
            turn = replace(turn, fault=fault(*error, at), fault_at=at)
        elif turn.answered_at is None and _is_answer(kind, payload):
            turn = replace(turn, answered_at=at)
        if decided and turn.answered_at is not None and turn.fault is None:
            if turn.usage or kind == "task_started":
                break
            beyond = 0
    return turn if decided else replace(turn, what="")


def _parts(record: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], float | None]:
    payload = _mapping(record.get("payload"))
    kind = record.get("type")
    if kind in ("event_msg", "response_item"):
        kind = payload.get("type")
    return kind if isinstance(kind, str) else "", payload, time_of(record.get("timestamp"))


def _is_answer(kind: str, payload: Mapping[str, Any]) -> bool:
    """Say whether a record comes from the model."""
    if kind == "task_complete":
        return payload.get("last_agent_message") is not None
    return kind in _SPOKEN and payload.get("role", "assistant") == "assistant"


def _error(kind: str, payload: Mapping[str, Any]) -> tuple[str, object] | None:
    """Return the words and the kind of what a turn failed at; 0.169.0 says it in the record of its end."""
    said = payload if kind == "error" else _mapping(payload.get("error"))
    words, info = _line(said.get("message")), said.get("codex_error_info")
    return (words, info) if words or info is not None else None


# -- faults ------------------------------------------------------------------------------------------------


def fault(words: str, info: object, at: float | None) -> Fault:
    """Return what kept the client from an answer.

    Args:
        words: what it says.
        info: its own kind: `usage_limit_exceeded`, `{"http_connection_failed": {"http_status_code": 401}}`.
        at: epoch seconds of the record, to which a time of day in the words refers.
    """
    read = usage_limits.read(words, time.time() if at is None else at)
    kind = _kind(info)
    if kind is None:
        return replace(read, text=words) if read is not None else Fault(FaultKind.OTHER, words)
    if kind is FaultKind.USAGE_LIMIT and read is not None and read.kind in (kind, FaultKind.CREDIT):
        # Only the words tell a lack of credit, and a limit of one model.
        return replace(read, text=words)
    return Fault(kind, words)


def _kind(info: object) -> FaultKind | None:
    """Return what Codex's own kind means; None where only its words can tell."""
    if isinstance(info, str):
        return _KINDS.get(info)
    for name, said in _mapping(info).items():
        if name in _CONNECTION:
            status = _mapping(said).get("http_status_code")
            if not isinstance(status, int) or isinstance(status, bool):
                return FaultKind.NETWORK if name != "response_too_many_failed_attempts" else None
            return _STATUSES.get(status) or (FaultKind.SERVER_ERROR if status >= 500 else FaultKind.OTHER)
    return None


def _with_limits(fault: Fault, said: object, at: float | None) -> Fault:
    """Add to a usage limit which window is used up, and until when; the words round to minutes."""
    if fault.kind is not FaultKind.USAGE_LIMIT or fault.model_only:
        return fault
    full = [
        (resets, name or "")
        for name, used, resets in _windows(said, at)
        if used is not None and used >= 100 and resets is not None
    ]
    if not full:
        return fault
    resets_at, name = max(full)
    return replace(fault, window=name or fault.window, resets_at=resets_at)


def _usage(said: object, at: float | None) -> tuple[Usage, ...]:
    """Return how much of each window is used; a limit of one model (0.169.0: its `limit_id`) is left out."""
    if at is None or _mapping(said).get("limit_id") not in (None, _ACCOUNTS_LIMIT):
        return ()
    return tuple(
        Usage(name, used / 100, resets, at)
        for name, used, resets in _windows(said, at)
        if name is not None and used is not None
    )


def _windows(said: object, at: float | None) -> Iterator[tuple[str | None, float | None, float | None]]:
    """Yield each window's name, the percent that is used, and its reset in epoch seconds."""
    for key in ("primary", "secondary"):
        window = _mapping(_mapping(said).get(key))
        resets, minutes = _number(window.get("resets_at")), _number(window.get("window_minutes"))
        after = _number(window.get("resets_in_seconds"))
        if resets is None and after is not None and at is not None:
            resets = at + after
        name = None if minutes is None else _WINDOWS.get(int(minutes), f"{minutes / 60:g}-hour")
        yield name, _number(window.get("used_percent")), resets


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # Also keeps nan and the infinities out, which JSON as Python reads it may hold.
    return float(value) if 0 <= value < 1e12 else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _line(value: object) -> str:
    return " ".join(value.split())[:TEXT_CHARS] if isinstance(value, str) else ""
