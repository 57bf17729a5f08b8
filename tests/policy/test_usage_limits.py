"""Faults by their words: the table, read from the module line by line, and what is never taken for one."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circus_failover.policy import client_text, health, reset_times, usage_limits
from circus_failover.policy.health import Fault
from circus_failover.policy.usage_limits import read, reset_time
from circus_failover.words import FaultKind

calm = settings(max_examples=50, deadline=None)
"""On a loaded machine an example may take long."""
UTC = timezone.utc
SAID = datetime(2026, 11, 21, 7, 30, tzinfo=UTC).timestamp()
"""When the words are read, if a test does not say otherwise: a Saturday morning."""
EPOCH = int(SAID) + 4000


def at(*when: int) -> float:
    """Return a time in UTC in epoch seconds."""
    year, month, day, hour, minute, second = (*when, 0, 0, 0)[:6]
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


def told(text: str, now: float = SAID) -> Fault | None:
    """Return what a text says, without its words."""
    fault = read(text, now, UTC)
    return None if fault is None else replace(fault, text="")


def table() -> list[tuple[str, ...]]:
    """Return the rows of the table in the module's docstring: words, what they are, whether retrying."""
    assert usage_limits.__doc__ is not None
    lines = [line for line in usage_limits.__doc__.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


# What the table must say, row by row, and texts that are such. With a mark before them they are as they stood
# on real screens (Claude Code 2.1.329, Codex 0.169.0), most others are of older versions.
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
        (
            "Fast limit reached (Context limit reached, Opus limit reached, now using ...)",
            "nothing: it goes on",
            "no",
        ),
        [
            "Fast limit reached, fast mode paused · resets in 5m",
            "You've hit your fast limit · resets 8:11am",
            "Context limit reached · /compact or /clear to continue",
            "Claude Opus 4 limit reached, now using Sonnet 4",
            "Opus 4.1 limit reached, now using Sonnet 4",
        ],
    ),
    (
        ("... · retrying in 3s, also retrying 1/5 +", "as said", "yes"),
        [
            "  ⎿  529 Overloaded · retrying in 3s · attempt 3/10",
            "✻ API error · retrying in 1s · attempt 1/10",
            'API Error (529 {"error":{"type":"overloaded_error"}}) · Retrying in 5 seconds… (attempt 4/10)',
            "⎿ API Error (Connection error.) · Retrying in 1 seconds… (attempt 1/10)",
            "⚠  stream error: exceeded retry limit, last status: 429 Too Many; retrying 1/5 in 200ms…",
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
            "● API Error: Server is temporarily limiting requests (not your usage limit) · This request",
            "● API Error: Request rejected (429) · This request would exceed your account's rate limit.",
            "● API Error: 529 Overloaded. This is a server-side issue, usually temporary — try again.",
            "⏺ API Error: 401 {}",
            "API Error (Request timed out.)",
        ],
    ),
    (
        ("Not logged in · (Login expired, Invalid API key, OAuth token revoked, ...) +", "credentials", "no"),
        [
            "  ⎿  Not logged in · Please run /login",
            "● Please run /login · API Error: 403 Your account does not have permission.",
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
            "Your organization has disabled API key authentication · Run /login to sign in",
            "Your ANTHROPIC_API_KEY belongs to a disabled organization · Update or unset it",
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
            "■ You’ve hit your usage limit for GPT-5.3-Codex-Spark. Switch to another model now.",
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
            "You've hit your session limit · resets 8:30am (Europe/Berlin)\n/login to switch.",
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
            "■ Usage limit reached. You've reached your usage limit. Increase your limits to continue.",
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
            "● Automatic continue stopped · the usage limit now resets more than 24 hours out, so this task",
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


def limit(window: str | None, resets_at: float | None, model: bool = False, retrying: bool = False) -> Fault:
    """Return a usage limit."""
    return Fault(FaultKind.USAGE_LIMIT, "", window, resets_at, model, retrying)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("You've hit your 5-hour limit · resets 8:11am (UTC)", limit("5-hour", at(2026, 11, 21, 8, 11))),
        ("You've hit your session limit · resets 8:30am", limit("5-hour", at(2026, 11, 21, 8, 30))),
        ("5-hour limit reached ∙ resets 11am", limit("5-hour", at(2026, 11, 21, 11))),
        ("5-hour limit reached • resets 11am", limit("5-hour", at(2026, 11, 21, 11))),
        ("5-hour limit reached | resets 11 AM", limit("5-hour", at(2026, 11, 21, 11))),
        ("5-hour limit reached - resets 11am", limit("5-hour", at(2026, 11, 21, 11))),
        ("5-hour limit reached", limit("5-hour", None)),
        ("You've hit your 5-hour limit\nsee Usage in Settings", limit("5-hour", None)),
        (f"Claude AI usage limit reached|{EPOCH}", limit(None, EPOCH)),
        (f"Claude AI usage limit reached|{EPOCH}000", limit(None, EPOCH)),
        (
            "Claude usage limit reached. Your limit will reset at 3pm (America/Los_Angeles).",
            limit(None, at(2026, 11, 21, 23)),
        ),
        (
            "You've hit your weekly limit · resets Nov 25, 10:19pm (UTC)",
            limit("weekly", at(2026, 11, 25, 22, 19)),
        ),
        (
            "You've hit your weekly limit · resets Mon 12:00 AM · progress saved",
            limit("weekly", at(2026, 11, 23)),
        ),
        ("Opus weekly limit reached ∙ resets Nov 27, 9am", limit("opus", at(2026, 11, 27, 9), model=True)),
        ("You've hit your Opus limit · resets Nov 27, 9am", limit("opus", at(2026, 11, 27, 9), model=True)),
        (
            "You've hit your Sonnet limit · resets Nov 27, 9am",
            limit("sonnet", at(2026, 11, 27, 9), model=True),
        ),
        ("You've reached your Fable 5 limit.", limit("fable", None, model=True)),
        ("You've hit your limit · resets 11pm (America/Anchorage)", limit(None, at(2026, 11, 21, 8))),
        ("You've hit your org's monthly usage limit · resets Dec 1", limit("monthly", at(2026, 12, 1))),
        (
            "You've hit your monthly spend limit · your 5-hour limit resets 11am",
            limit("5-hour", at(2026, 11, 21, 11)),
        ),
        ("You're out of extra usage · resets 3pm", limit(None, at(2026, 11, 21, 15))),
        ("You're out of usage credits", Fault(FaultKind.CREDIT)),
        (
            "You've hit your usage limit. Upgrade to Pro (https://openai.com/chatgpt/pricing) or try again in"
            " 5 days 22 hours 11 minutes.",
            limit(None, at(2026, 11, 27, 5, 41)),
        ),
        (
            "You’ve hit your usage limit. Upgrade to Plus to continue using Codex"
            " (https://chatgpt.com/explore/plus), or try again at Dec 5th, 2026 8:29 AM.",
            limit(None, at(2026, 12, 5, 8, 29)),
        ),
        ("You've hit your usage limit. Try again at 8:29 AM.", limit(None, at(2026, 11, 21, 8, 29))),
        ("You've hit your usage limit. Try again later.", limit(None, None)),
        (
            "You've hit your usage limit for GPT-5.3-Codex-Spark. Switch to another model now, or try again"
            " at 8:29 AM.",
            limit("gpt-5.3-codex-spark", at(2026, 11, 21, 8, 29), model=True),
        ),
        (
            'API Error: 400 {"error":{"message":"You have reached your specified API usage limits. You will'
            ' regain access on 2026-12-01 at 00:00 UTC."}}',
            limit(None, at(2026, 12, 1)),
        ),
        (
            'API Error: 429 {"error":{"code":"1308","message":"Usage limit reached for 5 hour. Your limit'
            ' will reset at 2026-11-21 12:05:49"}}',
            limit(None, at(2026, 11, 21, 12, 5, 49)),
        ),
        (
            'unexpected status 429: {"error":{"type":"usage_limit_reached","message":"The usage limit has'
            f' been reached","resets_at":{EPOCH},"resets_in_seconds":4000}}}}',
            limit(None, EPOCH),
        ),
        (
            "Usage limit reached · continuing automatically at 8:11am · esc to cancel",
            limit(None, at(2026, 11, 21, 8, 11), retrying=True),
        ),
    ],
)
def test_a_limit_says_which_it_is_and_when_it_resets(text: str, fault: Fault) -> None:
    assert told(text) == fault


@pytest.mark.parametrize(
    "text, kind",
    [
        ("API Error: Server is temporarily limiting requests (not your usage limit)", FaultKind.RATE_LIMIT),
        ("API Error: Request rejected (429) · This request would exceed", FaultKind.RATE_LIMIT),
        ('API Error: 429 {"type":"error","error":{"type":"rate_limit_error"}}', FaultKind.RATE_LIMIT),
        ("API Error: Rate limit reached", FaultKind.RATE_LIMIT),
        ("■ exceeded retry limit, last status: 429 Too Many Requests", FaultKind.RATE_LIMIT),
        ("API Error: 529 Overloaded. This is a server-side issue", FaultKind.OVERLOAD),
        ('API Error: 500 {"error":{"type":"overloaded_error"}}', FaultKind.OVERLOAD),
        ("API Error: 500 Internal server error. This is a server-side issue", FaultKind.SERVER_ERROR),
        ("API Error: 502 Bad Gateway", FaultKind.SERVER_ERROR),
        ("■ unexpected status 503 Service Unavailable: upstream", FaultKind.SERVER_ERROR),
        ("API Error: 401 Invalid authentication credentials", FaultKind.CREDENTIALS),
        ("API Error: 403 forbidden", FaultKind.CREDENTIALS),
        ("■ unexpected status 403 Forbidden: no", FaultKind.CREDENTIALS),
        ("API Error: OAuth token has expired", FaultKind.CREDENTIALS),
        ("API Error: 402 payment required", FaultKind.CREDIT),
        ('API Error: 400 {"error":{"message":"Your credit balance is too low"}}', FaultKind.CREDIT),
        ('API Error: 429 {"error":{"type":"insufficient_quota"}}', FaultKind.CREDIT),
        ("API Error: Connection dropped (ECONNRESET). Check the gateway", FaultKind.NETWORK),
        ("API Error: Connection error.", FaultKind.NETWORK),
        ("API Error (Request timed out.)", FaultKind.NETWORK),
        ("API Error: 408 too slow", FaultKind.NETWORK),
        ("■ stream disconnected before completion: idle", FaultKind.NETWORK),
        ("• Reconnecting... 2/5", FaultKind.NETWORK),
        ("✻ API error · retrying in 1s · attempt 1/10", FaultKind.OTHER),
        ("API Error: 400 prompt is too long: 429000 tokens", FaultKind.OTHER),
        (
            "■ stream disconnected before completion: Rate limit reached for organization org-1 on tokens"
            " per min (TPM): Limit 250000, Used 250000, Requested 22700. Please try again in 5.448s.",
            FaultKind.RATE_LIMIT,
        ),
        (
            "⚠\ufe0f stream error: stream disconnected before completion: Rate limit is exceeded. Try again"
            " in 4 seconds.; retrying 1/5 in 209ms…",
            FaultKind.RATE_LIMIT,
        ),
        ("API Error: 404 no such model", FaultKind.OTHER),
        ("API Error: 42900 is no status", FaultKind.OTHER),
        ("API Error: something new", FaultKind.OTHER),
        ("⎿ 529 Overloaded · retrying in 3s · attempt 3/10", FaultKind.OVERLOAD),
        ("stream error: unexpected status 500; retrying 1/5 in 200ms…", FaultKind.SERVER_ERROR),
    ],
)
def test_other_faults_are_told_apart_by_what_they_say(text: str, kind: FaultKind) -> None:
    fault = told(text)
    assert fault is not None and fault.kind is kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "You've used 95% of your weekly limit · resets Nov 25, 10:19pm",
        "Approaching 5-hour limit · resets 8:11am",
        "Approaching usage limit · resets at 7pm",
        "Over 75% of your weekly limit used",
        "You're close to your usage credit limit",
        "You're now using usage credits · Your 5-hour limit resets 8:11am",
        "  ⚠ 5h limit: only <1% left · resets at 20:08 · /status",
        "  Approaching rate limits\n  Switch to gpt-6-luna for lower credit usage?",
        "❯ You've hit your 5-hour limit · resets 8:11am",
        "› You’ve hit your usage limit. Try again at 8:29 AM.",
        "> API Error: 529 Overloaded",
        "● You've hit your 5-hour limit · resets 8:11am is what it prints then.",
        "• You’ve hit your usage limit. That is what the client would say.",
        "● Here is the message:\n\n  You've hit your 5-hour limit · resets 8:11am (UTC)",
        "  5-hour limit reached ∙ resets 5am",
        '"You\'ve hit your 5-hour limit · resets 8:11am"',
        "`API Error: 529 Overloaded`",
        "- You've hit your weekly limit · resets Nov 25",
        "The client says: You've hit your weekly limit",
        "You've hit your limits of patience, it seems",
        "You've hit your usage limiter with too many calls",
        "  Usage limit reached",
        "You've hit your rate limit of the GitHub API",
        "You've hit your rate limit.",
        "You've hit your context limit.",
        "Concurrent subagent limit reached. You can run 4 subagents at once.",
        "Agent thread limit reached",
        "● Bash(cat notes.txt)\n  ⎿  You've hit your 5-hour limit · resets 8:11am (UTC)",
        "● Bash(grep -r 'a long\n      pattern' .)\n  ⎿  API Error: 529 Overloaded",
        "● Ran 2 shell commands\n  ⎿  You've hit your 5-hour limit · resets 8:11am (UTC)",
        "! cat notes.txt\n  ⎿  You've hit your 5-hour limit · resets 8:11am (UTC)",
        "• Ran cat notes.txt\n  └ You’ve hit your usage limit. Try again at 8:29 AM.",
        "What do you want to do?\n  ❯ 1. Yes\n    2. No",
    ],
)
def test_what_only_speaks_of_limits_is_none(text: str) -> None:
    assert read(text, SAID, UTC) is None


SCREEN = """\
 ▐▛███▛█   Claude Code v2.1.329
❯ remember PAPAYA
  ⎿  You've hit your 5-hour limit · resets 8:11am (UTC)

● Usage limit reached · continuing automatically at 8:11am · esc to cancel

────────────────────────────────────────────────────────────────────────────────
❯\u00a0
────────────────────────────────────────────────────────────────────────────────
  ⚠ Usage limit reached · limit resets 8:11am
    Continuing automatically at 8:11am · Esc to cancel
  ⏵⏵ bypass permissions on (shift+tab to cycle) · ← for agents"""
CODEX_SCREEN = """\
  >_ OpenAI Codex (v0.169.0)
› prompt 0
■ You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), visit https://chatgpt.com/settings/
usage to purchase more credits or try again at 8:08 AM.

  Approaching rate limits
  Switch to gpt-6-luna for lower credit usage?
› 1. Switch to gpt-6-luna                   Fast and affordable model for easier tasks.
  2. Keep current model"""


def test_a_screen_says_the_same_as_its_message() -> None:
    assert told(SCREEN) == limit("5-hour", at(2026, 11, 21, 8, 11), retrying=True)
    assert told(CODEX_SCREEN) == limit(None, at(2026, 11, 21, 8, 8))


def test_a_limit_in_days_opens_a_menu_that_changes_nothing_of_it() -> None:
    limited = "  ⎿  You've hit your weekly limit · resets Nov 24, 7:07pm (UTC)\n" + "▔" * 80
    menu = "\n  What do you want to do?\n  ❯ 1. Stop and wait for limit to reset\n"
    fault = read(
        limited + menu + "    2. Wait here, then continue automatically at Nov 24, 7:07pm", SAID, UTC
    )
    assert fault is not None
    assert fault.text == "You've hit your weekly limit · resets Nov 24, 7:07pm (UTC)"
    assert replace(fault, text="") == limit("weekly", at(2026, 11, 24, 19, 7))


@pytest.mark.parametrize("answer", ["● heard: hi", "⏺ Bash(ls)", "• heard: hi"])
def test_what_the_model_answers_below_has_ended_the_fault(answer: str) -> None:
    assert told(f"  ⎿  You've hit your 5-hour limit · resets 8:11am (UTC)\n\n❯ hi\n\n{answer}") is None


def test_the_client_says_itself_that_a_limit_is_over() -> None:
    assert told(SCREEN + "\n\n● Usage limit reset · Continuing automatically") is None
    assert told(SCREEN + "\n\n  ⎿  Your usage limit has reset") is None
    assert told(SCREEN + "\n\n● Usage limit resets 8:11am, says the manual") is None
    assert told(SCREEN + "\n\n  ⎿  Usage limit resets 8:11am") is not None


@pytest.mark.parametrize(
    "below",
    [
        "❯ hi",
        "    • /upgrade to increase your usage limit.",
        "● How is Claude doing this session? (optional)",
        "• Working (3s • esc to interrupt)",
        "  2 files",
    ],
)
def test_what_is_no_answer_leaves_the_fault(below: str) -> None:
    assert told(f"  ⎿  You've hit your 5-hour limit · resets 8:11am (UTC)\n\n{below}") is not None


def test_the_lowest_words_count() -> None:
    old = "  ⎿  You've hit your 5-hour limit · resets 8:11am (UTC)\n\n❯ hi\n"
    new = told(old + "● API Error: 529 Overloaded.")
    assert new is not None and new.kind is FaultKind.OVERLOAD
    new = told(old.removesuffix("\n\n❯ hi\n") + "\n● API Error: 529 Overloaded.")
    assert new is not None and new.kind is FaultKind.OVERLOAD
    weekly = told(old + "  ⎿  You've hit your weekly limit · resets Nov 24, 7pm (UTC)")
    assert weekly == limit("weekly", at(2026, 11, 24, 19))


def test_a_limit_that_no_longer_goes_on_by_itself_is_not_retrying() -> None:
    stopped = told(SCREEN.split("⏵⏵")[0] + "\n● Automatic continue stopped after repeated usage limit hits")
    assert stopped == limit("5-hour", at(2026, 11, 21, 8, 11))


@pytest.mark.parametrize(
    "text, hours",
    [
        ("You've hit your 5-hour limit · resets 2pm", 5),
        ("You've hit your weekly limit · resets Nov 30, 9am", 7 * 24),
        ("You've hit your Opus limit · resets Nov 30, 9am", 7 * 24),
        ("You've hit your daily limit · resets Nov 22, 9am", 24),
        ("You've hit your limit · resets Dec 30, 9am", 32 * 24),
    ],
)
def test_a_reset_further_off_than_the_window_is_long_is_unknown(text: str, hours: int) -> None:
    fault = told(text)
    assert fault is not None and fault.resets_at is None
    later = told(text, SAID + hours * 3600)
    assert later is not None and later.resets_at is not None


def test_the_words_are_kept_on_one_line_and_not_without_end() -> None:
    fault = read("■ You've hit your usage limit. " + "words\n" * 9 + "x" * 5000, SAID, UTC)
    assert fault is not None
    assert fault.text.startswith("You've hit your usage limit. words words ")
    assert len(fault.text) <= usage_limits.TEXT_CHARS


def test_the_reset_time_is_read_by_itself_too() -> None:
    assert reset_time("resets 8:11am (UTC)", SAID, UTC) == at(2026, 11, 21, 8, 11)


MESSAGES = [text for row, texts in ROWS for text in texts if "\n" not in text and row[1] != "nothing"]


def wrapped(text: str, width: int, indent: int, frame: bool, words: bool) -> str:
    """Return a text as a terminal of some width shows it.

    Args:
        width: of the text alone.
        indent: of the lines that follow the first.
        frame: whether it stands in a frame.
        words: lines are broken between words where that is possible.
    """
    mark = text[: len(text) - len(text.lstrip(" ⎿●■⚠⏺•✻"))]
    rest, lines = text[len(mark) :], []
    while rest:
        cut = rest.rfind(" ", 1, width + 1) if words and len(rest) > width else width
        cut = width if cut < 1 else cut
        lines.append(rest[:cut])
        rest = rest[cut:].lstrip(" ") if words else rest[cut:]
    rows = [mark + lines[0], *(" " * indent + line for line in lines[1:])]
    if frame:
        rows = [f"│ {row:<{width + max(indent, len(mark))}} │" for row in rows]
    return "\n".join(rows)


@pytest.mark.parametrize(
    "broken",
    [
        "You've hit your 5-hour\nlimit · resets 8:11am (UTC)",
        "  ⎿  You've hit your 5-hour limit\n     · resets 8:11am (UTC)",
        "You've hit your 5-hour limit\n· resets 8:11am (UTC)",
        "You've hit your 5-hour limit\n• resets 8:11am (UTC)",
        "You've hit your 5-hour limit • res\nets 8:11am (UTC)",
        "You've hit yo\nur 5-\nhour lim\nit · resets 8:1\n1am (UTC)",
        "│ ⎿  You've hit your 5-hour │\n│    limit · resets 8:11am    │\n│    (UTC)                    │",
        "| You've hit your 5-hour limit |\n| · resets 8:11am (UTC)",
        "\x1b[31m⎿\x1b[39m  You've hit your 5-hour limit\r\n · resets 8:11am (UTC)\r\n",
    ],
)
def test_a_message_may_be_broken_anywhere(broken: str) -> None:
    assert told(broken) == limit("5-hour", at(2026, 11, 21, 8, 11))


@pytest.mark.parametrize(
    "broken",
    [
        "  ⎿  529 Overloaded\n     · retrying in 3s · attempt 3/10",
        "API Error (529\n · Retrying in 5 seconds… (attempt 4/10)",
        'API Error (529 {"error":{"type":"over\nloaded_error"}}) · Retrying in 5 seconds… (attempt 4/10)',
    ],
)
def test_a_retry_may_be_broken_anywhere(broken: str) -> None:
    assert told(broken) == Fault(FaultKind.OVERLOAD, retrying=True)


@calm
@given(
    st.sampled_from(MESSAGES),
    st.integers(24, 140),
    st.sampled_from([0, 2, 5]),
    st.booleans(),
    st.booleans(),
)
def test_where_lines_break_does_not_matter(
    text: str, width: int, indent: int, frame: bool, words: bool
) -> None:
    assert told(wrapped(text, width, indent, frame, words)) == told(text)


@calm
@given(
    st.sampled_from(MESSAGES),
    st.sampled_from("'’ʼ"),
    st.sampled_from("·∙•⋅"),
    st.sampled_from(" \u00a0\u202f\u2009"),
    st.sampled_from([str.upper, str.lower, str.title, str]),
)
def test_the_spelling_does_not_matter(text: str, quote: str, dot: str, space: str, case: object) -> None:
    assert callable(case)
    mark = text[: len(text) - len(text.lstrip(" ⎿●■⚠⏺•✻"))]
    rest = case(text[len(mark) :])
    for plain, instead in (("'", quote), ("’", quote), ("·", dot), ("∙", dot), (" ", space)):
        rest = rest.replace(plain, instead)
    assert told(mark + rest) == told(text)


@calm
@given(st.text(), st.floats(0, 4e9))
def test_no_text_makes_it_fail(text: str, now: float) -> None:
    read(text, now, UTC)


TOKENS = [
    *"⎿●■❯│·•|\n ()1:",
    "resets",
    "limit",
    "You've hit your",
    "5-hour",
    "am",
    "Nov",
    "25,",
    "API Error:",
]


@calm
@given(st.lists(st.sampled_from([*TOKENS, *MESSAGES]), max_size=12).map(" ".join), st.floats(0, 4e9))
def test_a_reset_is_always_to_come_and_within_its_window(text: str, now: float) -> None:
    fault = read(text, now, UTC)
    if fault is not None and fault.resets_at is not None:
        assert now < fault.resets_at <= now + reset_times.SPAN_SECS + 600
        assert fault.window != "5-hour" or fault.resets_at <= now + 5 * 3600 + 600


@pytest.mark.parametrize("module", [client_text, health, reset_times, usage_limits])
def test_the_module_imports_nothing_that_touches_the_world(module: object) -> None:
    tree = ast.parse(Path(str(getattr(module, "__file__", ""))).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    theirs = {"collections.abc", "dataclasses", "datetime", "functools", "itertools", "re", "zoneinfo"}
    ours = {"health", "client_text", "reset_times"}
    assert names <= {"__future__", *theirs, "circus_failover.words"} | {
        f"circus_failover.policy.{name}" for name in ours
    }
