"""OpenAI's responses interface as Codex 0.169.0 uses it: what goes over the wire, no sockets."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from typing import Any

from tests.clients.faults import Failing, Fault, Refusal
from tests.clients.turns import Step, Turn, read, words

PATH = "/v1/responses"
CALLS = ("function_call", "custom_tool_call", "local_shell_call")
LIMITS = (Fault.LIMIT_5H, Fault.LIMIT_WEEK, Fault.LIMIT_OPUS)
ERRORS = {
    Fault.RATE: (429, "rate_limit_exceeded", "Rate limit reached for requests."),
    Fault.OVERLOADED: (503, "server_is_overloaded", "The server is overloaded."),
    Fault.BROKEN: (500, "server_error", "The server had an error while processing your request."),
    Fault.UNAUTHORIZED: (401, "invalid_request_error", "Incorrect API key provided."),
    Fault.FORBIDDEN: (403, "permission_error", "You do not have access to this resource."),
    Fault.CREDIT: (429, "insufficient_quota", "You exceeded your current quota, please check your plan."),
}


def is_conversation(body: dict[str, Any]) -> bool:
    """Say whether a request belongs to a conversation."""
    return bool(body.get("tools"))


def turn(body: dict[str, Any]) -> Turn:
    """Return what a request is to be answered with."""
    items = body.get("input") or []
    return read(_said([{"role": "user", "content": items}] if isinstance(items, str) else items))


def _said(items: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for item in items:
        if item.get("type") in CALLS:
            yield "tool", str(item.get("name"))
        elif item.get("role") == "user":
            content = item.get("content")
            parts = [{"text": content}] if isinstance(content, str) else content or []
            for part in parts:
                if "text" in part:
                    yield "user", part["text"]


def refusal(failing: Failing) -> Refusal | None:
    """Return the answer of a failing account; None when it answers all the same."""
    if failing.fault in LIMITS:
        left = max(0, failing.resets_at - int(time.time()))
        said = {"plan_type": "plus", "resets_at": failing.resets_at, "resets_in_seconds": left}
        body = _error("usage_limit_reached", "The usage limit has been reached")
        return Refusal(429, {"error": {**body, **said}}, quota(failing))
    if failing.fault not in ERRORS:
        return None
    status, kind, text = ERRORS[failing.fault]
    return Refusal(status, {"error": _error(kind, text)}, (("retry-after", "1"),) if status == 429 else ())


def _error(kind: str, text: str) -> dict[str, object]:
    return {"type": kind, "code": kind, "message": text}


def quota(failing: Failing | None) -> tuple[tuple[str, str], ...]:
    """Return the headers that tell a subscription how much of its limits is used."""
    fault = failing.fault if failing else None
    five = {Fault.LIMIT_5H: 100, Fault.NEAR_LIMIT: 95}.get(fault, 10) if fault else 10
    week = 100 if fault in (Fault.LIMIT_WEEK, Fault.LIMIT_OPUS) else 10
    reset = failing.resets_at if failing else int(time.time()) + 3600
    said = {
        "primary-used-percent": five,
        "primary-window-minutes": 5 * 60,
        "primary-reset-at": reset,
        "secondary-used-percent": week,
        "secondary-window-minutes": 7 * 24 * 60,
        "secondary-reset-at": reset,
    }
    return tuple((f"x-codex-{name}", str(value)) for name, value in said.items())


def _item(answer: Turn, number: int) -> dict[str, Any]:
    if answer.step:
        name, given = _call(answer.step)
        return {
            "id": f"fc_{number:06d}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{number:06d}",
            "name": name,
            "arguments": json.dumps(given),
        }
    return {
        "id": f"msg_{number:06d}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": answer.text, "annotations": []}],
    }


def _call(step: Step) -> tuple[str, dict[str, Any]]:
    command = f"printf 'written\\n' > {shlex.quote(step.value)}" if step.tool == "write" else step.value
    # A command that takes longer goes on while the model is told so; 30 s is the most it waits (0.169.0).
    given = {"cmd": command, "yield_time_ms": 30000}
    if step.tool == "ask":
        given.update(sandbox_permissions="require_escalated", justification="May it run?")
    return "exec_command", given


def message(body: dict[str, Any], answer: Turn, number: int) -> dict[str, Any]:
    """Return the whole answer, as a request without a stream gets it."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 12,
        "total_tokens": 22,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {**_begun(body, number), "status": "completed", "output": [_item(answer, number)], "usage": usage}


def _begun(body: dict[str, Any], number: int) -> dict[str, Any]:
    return {
        "id": f"resp_{number:06d}",
        "object": "response",
        "status": "in_progress",
        "created_at": int(time.time()),
        "model": body.get("model"),
        "output": [],
    }


def opening(body: dict[str, Any], answer: Turn, number: int) -> list[dict[str, Any]]:
    """Return the events before the first word."""
    item = _item(answer, number)
    empty: dict[str, Any] = {"arguments": ""} if answer.step else {"content": []}
    added = {**item, "status": "in_progress", **empty}
    return [
        {"type": "response.created", "response": _begun(body, number)},
        {"type": "response.output_item.added", "output_index": 0, "item": added},
    ]


def pieces(answer: Turn, number: int) -> list[dict[str, Any]]:
    """Return the events of the answer's content, a word each."""
    if answer.step:
        return []
    where = {"item_id": f"msg_{number:06d}", "output_index": 0, "content_index": 0}
    return [{"type": "response.output_text.delta", **where, "delta": word} for word in words(answer)]


def closing(body: dict[str, Any], answer: Turn, number: int) -> list[dict[str, Any]]:
    """Return the events after the last word."""
    done = {"type": "response.output_item.done", "output_index": 0, "item": _item(answer, number)}
    return [done, {"type": "response.completed", "response": message(body, answer, number)}]


IDLE = {"type": "response.in_progress"}
"""What may be sent while nothing is to be said."""
