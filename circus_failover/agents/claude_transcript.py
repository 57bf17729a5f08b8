"""What the last records of a Claude Code transcript say: how its last turn went, and what it is at.

Facts are of Claude Code 2.1.329. Codes count before texts: the text of a plain 429 speaks of a usage limit
too. A code that is not known leaves it to the text, and a text that is not known is a fault of kind `other`.
Records of sub-agents in it say that something goes on, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circus_failover.agents import transcripts
from circus_failover.agents.claude_files import is_turn, mapping, past, seconds, sequence, text
from circus_failover.policy import usage_limits
from circus_failover.policy.health import Fault
from circus_failover.words import FaultKind, State

WINDOWS = {
    "five_hour": "5-hour",
    "seven_day": "weekly",
    "seven_day_overage_included": "fable",
    "seven_day_oauth_apps": "weekly",
    "seven_day_opus": "opus",
    "seven_day_sonnet": "sonnet",
}
"""The client's `rateLimitType`, in the words of `policy.usage_limits`."""
_ONE_MODEL = ("opus", "sonnet", "fable")
_KINDS = {
    "billing_error": FaultKind.CREDIT,
    "authentication_failed": FaultKind.CREDENTIALS,
    "oauth_org_not_allowed": FaultKind.CREDENTIALS,
    "account_on_hold": FaultKind.CREDENTIALS,
    "verification_required": FaultKind.CREDENTIALS,
    "cloud_credential_error": FaultKind.CREDENTIALS,
    "overloaded": FaultKind.OVERLOAD,
}
"""The client's `error` where that alone says what it is."""
_STATUSES = {
    401: FaultKind.CREDENTIALS,
    402: FaultKind.CREDIT,
    403: FaultKind.CREDENTIALS,
    529: FaultKind.OVERLOAD,
}
_NETWORK = ("connection_", "network_", "timeout")
_ENDED = ("end_turn", "stop_sequence", "max_tokens", "refusal")
_NO_PROMPT = ("<command-", "<local-command", "<bash-stdout", "<bash-stderr")
TEXT_CHARS = 300


@dataclass(frozen=True)
class Tail:
    """What the end of a transcript says."""

    newest: float | None = None
    """Epoch seconds of its newest entry that has a time."""
    state: State | None = None
    """What it was at when the newest entry of the conversation was made; None: that entry does not say."""
    state_at: float | None = None
    tools: tuple[str, ...] = ()
    """The tools that were called and have not answered."""
    fault: Fault | None = None
    """What its last turn failed at."""
    answered: bool = False
    """Its last turn that has come to anything was answered by the model."""
    verdict_at: float | None = None
    """Epoch seconds of the fault or the answer."""


def tail(path: Path) -> Tail:
    """Return what the last records of a transcript say; of a file that is not there, nothing."""
    found = Tail()
    done: set[str] = set()
    told = pending = False
    for record in transcripts.last_records(path):
        at = past(transcripts.time_of(record.get("timestamp")))
        if found.newest is None and at is not None:
            found = replace(found, newest=at)
        if not is_turn(record) or record.get("isCompactSummary") is True:
            continue
        kind = record.get("type")
        if kind == "user":
            done.update(_results(record))
        if not told and not (kind == "user" and _no_prompt(record)):
            told = pending = True
            found = replace(found, state=_state(record), state_at=at)
        if pending:
            if kind == "assistant":
                found = replace(found, tools=_with(found.tools, _calls(record, done)))
            # Only what was called after the last prompt can still be waited for.
            pending = kind == "assistant" or bool(_results(record))
        if kind == "assistant" and not found.answered and found.fault is None:
            found = _judged(found, record, at)
        if told and not pending and (found.answered or found.fault is not None):
            break
    return found


def _judged(found: Tail, record: Mapping[str, Any], at: float | None) -> Tail:
    if is_error(record):
        return replace(found, fault=fault(record, at), verdict_at=at)
    # The client itself writes answers in the model's place, `No response requested.`
    if mapping(record.get("message")).get("model") == "<synthetic>":
        return found
    return replace(found, answered=True, verdict_at=at)


def is_error(record: Mapping[str, Any]) -> bool:
    """Say whether a record stands in place of an answer and says what kept the model from it."""
    return record.get("isApiErrorMessage") is True


def fault(record: Mapping[str, Any], at: float | None) -> Fault:
    """Return what an error in place of an answer says.

    Args:
        record: the record.
        at: epoch seconds at which it was made; None: unknown, and then a time of day says nothing.
    """
    words = message_text(record)
    said = usage_limits.read(words, at if at is not None else 0.0)
    if said is not None and at is None:
        said = replace(said, resets_at=None)
    line = " ".join(words.split())[:TEXT_CHARS]
    limit = _limit(record)
    if limit is not None:
        return _limited(limit, said, line)
    kind = _kind(record, said)
    if said is not None and said.kind is kind:
        return replace(said, text=line or said.text, retrying=False)
    return Fault(kind, line)


def of_code(code: str) -> FaultKind | None:
    """Return what an `error` alone says; None where it leaves that open, as `rate_limit` does."""
    return _KINDS.get(code) or (FaultKind.SERVER_ERROR if code == "server_error" else None)


def _limit(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what an error says of a usage limit in codes, or None where codes do not call it one."""
    parameters = mapping(mapping(record.get("apiErrorParams")).get("rate_limit_info"))
    quota = {**parameters, **mapping(record.get("quotaLimits"))}
    if record.get("apiError") == "usage_limit_reached":
        return quota
    rejected = quota.get("status") == "rejected" and bool(text(quota.get("rateLimitType")))
    return quota if rejected and record.get("error") == "rate_limit" else None


def _limited(quota: Mapping[str, Any], said: Fault | None, line: str) -> Fault:
    if said is not None and said.kind not in (FaultKind.USAGE_LIMIT, FaultKind.CREDIT):
        said = None
    code = text(quota.get("rateLimitType"))
    window = WINDOWS.get(code) or (said.window if said else None) or code.replace("_", "-") or None
    resets_at = seconds(quota.get("resetsAt"))
    if resets_at is None and said is not None:
        resets_at = said.resets_at
    model_only = window in _ONE_MODEL or (said is not None and said.model_only)
    return Fault(FaultKind.USAGE_LIMIT, line, window, resets_at, model_only)


def _kind(record: Mapping[str, Any], said: Fault | None) -> FaultKind:
    error, detail = text(record.get("error")), text(record.get("apiError"))
    status = record.get("apiErrorStatus")
    if error in _KINDS:
        return _KINDS[error]
    if isinstance(status, int) and status in _STATUSES:
        return _STATUSES[status]
    if detail.startswith(_NETWORK):
        return FaultKind.NETWORK
    if said is not None and said.kind is not FaultKind.OTHER:
        return said.kind
    if error == "rate_limit" or status == 429:
        return FaultKind.RATE_LIMIT
    if error == "server_error" or (isinstance(status, int) and 500 <= status < 600):
        return FaultKind.SERVER_ERROR
    return FaultKind.OTHER


def message_text(record: Mapping[str, Any]) -> str:
    """Return the text of what was said in a record."""
    content = mapping(record.get("message")).get("content")
    if isinstance(content, str):
        return content
    return "\n".join(text(mapping(part).get("text")) for part in sequence(content))


def _state(record: Mapping[str, Any]) -> State | None:
    message = mapping(record.get("message"))
    if record.get("type") == "user":
        interrupted = message_text(record).lstrip().startswith("[Request interrupted by user")
        return State.IDLE if interrupted else State.WORKING
    if is_error(record):
        return State.IDLE
    if _calls(record, set()):
        return State.WORKING
    # A part of a message, of which more may follow, has no reason to stop yet.
    return State.IDLE if message.get("stop_reason") in _ENDED else None


def _no_prompt(record: Mapping[str, Any]) -> bool:
    """Say whether a user's entry is a command of the client or its output, which no turn follows."""
    return message_text(record).lstrip().startswith(_NO_PROMPT)


def _parts(record: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    content = sequence(mapping(record.get("message")).get("content"))
    return [part for part in map(mapping, content) if part.get("type") == kind]


def _results(record: Mapping[str, Any]) -> list[str]:
    return [text(part.get("tool_use_id")) for part in _parts(record, "tool_result")]


def _calls(record: Mapping[str, Any], done: set[str]) -> list[str]:
    calls = _parts(record, "tool_use")
    return [text(call.get("name")) for call in calls if text(call.get("id")) not in done]


def _with(names: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*(name for name in more if name), *names)))
