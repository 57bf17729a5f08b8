"""Faults by their words: the table, read from the module line by line, and what must never be taken for one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import usage_limits
from circus_failover.policy.health import Fault
from circus_failover.policy.usage_limits import read, reset_time
from circus_failover.words import FaultKind

UTC = timezone.utc
SAID = datetime(2026, 11, 21, 7, 30, tzinfo=UTC).timestamp()
"""When the words are read, if a test does not say otherwise: a Saturday morning."""
EPOCH = int(SAID) + 4000


def at(*when: int) -> float:
    """Return a time in UTC in epoch seconds."""
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[arg-type]


def told(text: str, now: float = SAID) -> Fault | None:
    """Return what a text says, without its words."""
    fault = read(text, now, UTC)
    return None if fault is None else replace(fault, text="")


def table() -> list[tuple[str, ...]]:
    """Return the rows of the table in the module's docstring: words, what they are, whether retrying."""
    assert usage_limits.__doc__ is not None
    lines = [line for line in usage_limits.__doc__.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


# What the table must say, row by row, and texts to which exactly that row applies. Rows with a mark before them
# are as they stood on real screens (Claude Code 2.1.329, Codex 0.169.0); others are of older versions.
ROWS: list[tuple[tuple[str, str, str], list[str]]] = [
    (
        ("Usage limit reset (or available) +", "nothing, and ends what is above it", "no"),
        [
            "Usage limit reset · Continuing automatically",
            "● Usage limit available again · continuing now",
            "Usage limit has reset · Press enter to continue",
            "Your claude.ai usage limit has reset. Continue the task you were working on",
        ],
    ),
    (
        ("Fast limit reached, Context limit reached", "nothing: it goes on", "no"),
        [
            "Fast limit reached, fast mode paused · resets in 5m",
            "You've hit your fast limit · resets 8:11am",
            "Context limit reached · /compact or /clear to continue",
        ],
    ),
    (
        ("... · retrying in 3s, also retrying 1/5 +", "as said", "yes"),
        [
            "  ⎿  529 Overloaded · retrying in 3s · attempt 3/10",
            "✻ API error · retrying in 1s · attempt 1/10",
            'API Error (529 {"type":"error","error":{"type":"overloaded_error"}}) · Retrying in 5 seconds… (attempt 4/10)',
            "⎿ API Error (Connection error.) · Retrying in 1 seconds… (attempt 1/10)",
            "⚠  stream error: exceeded retry limit, last status: 429 Too Many Requests; retrying 1/5 in 200ms…",
            "stream error: stream disconnected before completion: idle timeout; retrying 2/5 in 400ms…",
            "● 529 Overloaded · Retrying in 12s · attempt 9/10",
        ],
    ),
    (
        ("Reconnecting... 2/5 +", "as said", "yes"),
        [
            "• Reconnecting... 2/5 (3s • esc to interrupt)",
            "Reconnecting… 1/5",
        ],
    ),
    (
        ("API Error: ... +", "as said", "no"),
        [
            "● API Error: Server is temporarily limiting requests (not your usage limit) · This request would exceed",
            "● API Error: Request rejected (429) · This request would exceed your account's rate limit.",
            "● API Error: 529 Overloaded. This is a server-side issue, usually temporary — try again in a moment.",
            "⏺ API Error: 401 {}",
            "API Error (Request timed out.)",
        ],
    ),
    (
        ("Not logged in · (Login expired, Invalid API key, OAuth token revoked, ...) +", "credentials", "no"),
        [
            "  ⎿  Not logged in · Please run /login",
            "● Please run /login · API Error: 403 Your account does not have permission to use this resource.",
            "  ⎿  Invalid API key · Fix external API key",
            "Invalid API key · Please run /login",
            "Invalid auth token · Fix external auth token",
            "Login expired · Please run /login",
            "Login reached its time limit · Please run /login",
            "OAuth token revoked · Please run /login",
            "OAuth token has expired. Please obtain a new token or refresh your existing token.",
            "Failed to authenticate: OAuth token revoked. Please log in again or contact your administrator.",
            "Failed to authenticate. API Error: 401 terminated",
            "Authentication required · Sign in again to continue",
            "Missing API key · Run /login",
            "Could not refresh your login because another Claude Code process is refreshing it",
        ],
    ),
    (
        ("This organization has been disabled (Your session has ended, ...)", "credentials", "no"),
        [
            "This organization has been disabled.",
            "Your organization has disabled API key authentication · Run /login to sign in with your claude.ai account",
            "Your ANTHROPIC_API_KEY belongs to a disabled organization · Update or unset the environment variable",
            "Session expired. Please run /login to sign in again.",
            "■ Your session has ended. Please log in again.",
            "■ Your access token could not be refreshed because your refresh token was already used.",
            "■ Missing environment variable: `OPENAI_API_KEY`.",
            "Your apiKeyHelper script is failing · This usually means you need to re-authenticate",
            "This service is disabled for your org",
            "Anthropic profile login expired · Re-authenticate your Anthropic profile",
        ],
    ),
    (
        ("You've hit your usage limit for WHOSE. Switch to another model", "usage-limit, of a model", "no"),
        [
            "■ You’ve hit your usage limit for GPT-5.3-Codex-Spark. Switch to another model now, or try again at 8:29 AM.",
        ],
    ),
    (
        (
            "You've hit your WHOSE spend limit (pooled group budget, You're out of usage credits, ...)",
            "credit",
            "no",
        ),
        [
            "You've hit your monthly spend limit · /usage-credits to raise it",
            "You've hit your org's monthly spend limit · visit https://claude.ai/admin to raise it",
            "You've hit your channel's monthly spend limit.",
            "You've hit your individual spend limit · run /cost to ask your admin for a higher limit",
            "You've hit your usage credit limit",
            "You've hit your team's pooled group budget",
            "Spend limit reached",
            "You're out of usage credits",
            "You’re out of extra usage",
            "You're out of credits.",
            "Your org is out of usage · add funds to continue",
            "Your organization is out of usage credits. Contact your admin to add more.",
            "■ Your workspace is out of credits. Ask your workspace owner to refill in order to continue.",
        ],
    ),
    (
        ("You've hit (reached, exceeded) your WHOSE limit", "usage-limit", "no"),
        [
            "  ⎿  You've hit your 5-hour limit · resets 8:11am (UTC)",
            "You've hit your session limit · resets 8:30am (Europe/Berlin)\n/login to switch to an API account.",
            "You've hit your limit · resets 11pm (America/Anchorage)",
            "You’ve hit your limit for Claude messages. Limits will reset at 9:30 AM.",
            "You've reached your Fable limit.",
            "You've hit your 5-hour limit",
            "You've hit your org's monthly usage limit",
            "■ You’ve hit your usage limit. Try again later.",
            "■ You hit your usage limit.",
            "You have reached your usage limit. Upgrade your plan or add credits to continue.",
            "ERROR: You've hit your usage limit. Try again later.",
            "■ Error running remote compact task: You've hit your usage limit. Try again later.",
        ],
    ),
    (
        (
            "WHOSE limit reached · resets TIME (· continuing automatically at TIME, ...) +",
            "usage-limit",
            "no",
        ),
        [
            "● Usage limit reached · continuing automatically at 8:11am · esc to cancel",
            "⏺ 5-hour limit reached ∙ resets 8am",
            f"Claude AI usage limit reached|{EPOCH}",
            "Claude usage limit reached. Your limit will reset at 3pm (America/Los_Angeles).",
            "Opus weekly limit reached ∙ resets Nov 27, 9am",
            "Weekly limit reached · resets 10am (Asia/Seoul) · /upgrade to Max or turn on /extra-usage",
            "Usage limit reached again · continuing automatically at 8:11am · esc to cancel",
        ],
    ),
    (
        ("WHOSE limit reached (again)", "usage-limit", "no"),
        [
            "5-hour limit reached",
            "Session limit reached",
            "  ⚠ Usage limit reached · limit resets 8:11am",
            "Weekly limit reached — check plan",
            "■ Usage limit reached. You've reached your usage limit. Increase your limits to continue using codex.",
            "Goal paused · usage limit reached · continues automatically when it resets",
            "Fable limit reached · continuing on Opus uses usage credits",
        ],
    ),
    (
        ("Credit balance too low (Quota exceeded, You hit your spend cap, ...)", "credit", "no"),
        [
            "  ⎿  Credit balance too low · Add funds: https://platform.claude.com/settings/billing",
            "Credit balance is too low",
            "■ Quota exceeded. Check your plan and billing details.",
            "You exceeded your current quota, please check your plan and billing details.",
            "■ You hit your spend cap set in your workspace. Increase your spend cap to continue.",
            "Your seat type doesn't include usage credits",
            "Your usage allocation has been disabled by your admin",
            "Your group's usage limit is set to $0",
            "■ To use Codex with your ChatGPT plan, upgrade to Plus: https://chatgpt.com/explore/plus.",
            "Usage is paused for your organization. For help, please contact support.",
            "Extra usage is required for 1M context",
        ],
    ),
    (
        ("Fable requires usage credits", "credit, of a model", "no"),
        [
            "Fable 5 requires usage credits. /model to switch models.",
        ],
    ),
    (
        ("1. Stop and wait for limit to reset", "usage-limit", "no"),
        [
            "What do you want to do?\n  ❯ 1. Stop and wait for limit to reset\n    2. Upgrade your plan",
        ],
    ),
    (
        ("Automatic continue stopped +", "usage-limit", "no"),
        [
            "● Automatic continue stopped · the usage limit now resets more than 24 hours out, so this task will not resume",
        ],
    ),
    (
        ("Opus is experiencing high load (Selected model is at capacity, ...)", "overload", "no"),
        [
            "Opus is experiencing high load, please use /model to switch to Sonnet",
            "Repeated 529 Overloaded errors",
            "■ Selected model is at capacity. Please try a different model.",
            "Codex is currently experiencing high load.",
        ],
    ),
    (
        ("We're currently experiencing high demand", "server-error", "no"),
        [
            "■ We’re currently experiencing high demand, which may cause temporary errors.",
        ],
    ),
    (
        ("Authentication error · This may be a temporary network issue +", "network", "no"),
        [
            "Authentication error · This may be a temporary network issue, please try again",
        ],
    ),
    (
        ("Authentication error · +", "credentials", "no"),
        [
            "● Authentication error · The gateway could not authenticate with its upstream provider",
        ],
    ),
    (
        (
            "unexpected status 401, exceeded retry limit, stream disconnected, Connection failed, ...",
            "as said",
            "no",
        ),
        [
            "■ unexpected status 401 Unauthorized: Missing bearer or basic authentication in header",
            "■ exceeded retry limit, last status: 429 Too Many Requests, request id: 1",
            "■ stream disconnected before completion: error sending request for url (http://127.0.0.1/v1/responses)",
            "■ Connection failed: error sending request",
            "Request timed out",
            "Unable to connect to API (ECONNREFUSED)",
        ],
    ),
]


def test_the_table_has_these_rows() -> None:
    assert table() == [row for row, _ in ROWS]


@pytest.mark.parametrize("row, text", [(row, text) for row, texts in ROWS for text in texts])
def test_each_row_is_what_is_read(row: tuple[str, str, str], text: str) -> None:
    fault = read(text, SAID, UTC)
    if row[1].startswith("nothing"):
        assert fault is None
        return
    assert fault is not None
    if row[1] != "as said":
        kind, _, of_a_model = row[1].partition(", ")
        assert fault.kind == kind
        assert fault.model_only or not of_a_model
    assert fault.retrying is (row[2] == "yes" or "automatically" in text)
    assert fault.text and "\n" not in fault.text
