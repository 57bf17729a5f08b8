"""Anthropic's messages interface as Claude Code 2.1.329 uses it: what goes over the wire, no sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.clients.faults import Failing, Fault, Refusal
from tests.clients.turns import Step, Turn, read, words

PATH = "/v1/messages"
UNIFIED = "anthropic-ratelimit-unified-"
CLAIMS = {
    Fault.LIMIT_5H: "five_hour",
    Fault.LIMIT_WEEK: "seven_day",
    Fault.LIMIT_OPUS: "seven_day_opus",
}
ERRORS = {
    Fault.RATE: (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    Fault.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    Fault.BROKEN: (500, "api_error", "Internal server error"),
    Fault.UNAUTHORIZED: (401, "authentication_error", "invalid x-api-key"),
    Fault.FORBIDDEN: (403, "permission_error", "Your account does not have permission to use this resource."),
    Fault.CREDIT: (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. "
        "Please go to Plans & Billing to upgrade or purchase credits.",
    ),
}


def account_key(headers: dict[str, str]) -> str:
    """Return the credential that a request bears; header names in lower case."""
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ").strip()


def is_conversation(body: dict[str, Any]) -> bool:
    """Say whether a request belongs to a conversation; the others are the client's own (a title, a probe)."""
    return bool(body.get("tools"))


def turn(body: dict[str, Any]) -> Turn:
    """Return what a request is to be answered with."""
    return read(_said(body.get("messages") or []))


def _said(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for message in messages:
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        for block in blocks:
            if message.get("role") == "user" and block.get("type") == "text":
                yield "user", block["text"]
            elif block.get("type") == "tool_use":
                yield "tool", block["name"]


def refusal(failing: Failing) -> Refusal | None:
    """Return the answer of a failing account; None when it answers all the same."""
    if failing.fault in CLAIMS:
        body = _error("rate_limit_error", "This request would exceed your account's rate limit.")
        more = (("retry-after", "3600"), ("x-should-retry", "false"))
        return Refusal(429, body, (*quota(failing), *more))
    if failing.fault not in ERRORS:
        return None
    status, kind, text = ERRORS[failing.fault]
    return Refusal(status, _error(kind, text), (("retry-after", "2"),) if status == 429 else ())


def quota(failing: Failing | None) -> tuple[tuple[str, str], ...]:
    """Return the headers that tell a subscription how much of its limits is used."""
    near = failing is not None and failing.fault is Fault.NEAR_LIMIT
    if failing is None or (not near and failing.fault not in CLAIMS):
        return ()
    claim = CLAIMS.get(failing.fault, "five_hour")
    status, used = ("allowed_warning", "0.95") if near else ("rejected", "1.0")
    five, week = ("5h", "7d") if claim == "five_hour" else ("7d", "5h")
    reset = str(failing.resets_at)
    said = {
        "status": status,
        "reset": reset,
        "representative-claim": claim,
        "fallback": "unavailable",
        f"{five}-status": status,
        f"{five}-reset": reset,
        f"{five}-utilization": used,
        f"{week}-status": "allowed",
        f"{week}-reset": reset,
        f"{week}-utilization": "0.4",
        "overage-status": "rejected",
        "overage-disabled-reason": "org_level_disabled",
    }
    return tuple((UNIFIED + name, value) for name, value in said.items())


def _error(kind: str, text: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": kind, "message": text}}


def _call(step: Step, number: int) -> dict[str, Any]:
    names = {"write": "Write", "agent": "Agent"}
    given: dict[str, Any]
    if step.tool == "write":
        given = {"file_path": step.value, "content": "written\n"}
    elif step.tool == "agent":
        prompt = step.value.replace("((", "[[").replace("))", "]]")
        given = {"description": "a sub-agent", "prompt": prompt, "subagent_type": "general-purpose"}
    else:
        given = {"command": step.value, "description": "a command"}
        if step.tool == "background":
            given["run_in_background"] = True
    return {
        "type": "tool_use",
        "id": f"toolu_{number:06d}",
        "name": names.get(step.tool, "Bash"),
        "input": given,
    }


def message(body: dict[str, Any], answer: Turn, number: int) -> dict[str, Any]:
    """Return the whole answer, as a request without a stream gets it."""
    block = _call(answer.step, number) if answer.step else {"type": "text", "text": answer.text}
    return {
        "id": f"msg_{number:06d}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", ""),
        "content": [block],
        "stop_reason": "tool_use" if answer.step else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "output_tokens": 12,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def opening(body: dict[str, Any], answer: Turn, number: int) -> list[dict[str, Any]]:
    """Return the events before the first word."""
    whole = message(body, answer, number)
    started = {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
    block = whole["content"][0]
    empty = {**block, "input": {}} if answer.step else {**block, "text": ""}
    return [started, {"type": "content_block_start", "index": 0, "content_block": empty}]


def pieces(answer: Turn, number: int) -> list[dict[str, Any]]:
    """Return the events of the answer's content, a word each."""
    if answer.step:
        given = json.dumps(_call(answer.step, number)["input"])
        deltas = [{"type": "input_json_delta", "partial_json": given}]
    else:
        deltas = [{"type": "text_delta", "text": word} for word in words(answer)]
    return [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]


def closing(body: dict[str, Any], answer: Turn, number: int) -> list[dict[str, Any]]:
    """Return the events after the last word."""
    whole = message(body, answer, number)
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    return [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": whole["usage"]},
        {"type": "message_stop"},
    ]


IDLE = {"type": "ping"}
"""What the interface sends while nothing is to be said."""
