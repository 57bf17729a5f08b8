"""What kept a client from an answer, read from its own words: the table, and nothing else.

Words are the last evidence, for where no record of the client says it in numbers. A text is one message of a
client, or all rows of its screen; there the lowest words count, and what the model answers below them has
ended the fault. Words are the client's own only where it writes them (`client_text`): at the edge, or after a
mark like `⎿`, `■` or `⚠`; those with a + also after the `●` or `•` of answers. So an answer, a prompt, code
or the output of a tool that speaks of a limit is none. Letter case, the kind of apostrophe, space and
separator, and breaks of lines, within words too, do not matter.

First match wins. WHOSE is a window or a model; TIME a time, `...` is anything.

| the client says | it is | retrying |
|---|---|---|
| Usage limit reset (or available) + | nothing, and ends what is above it | no |
| Fast limit reached (Context limit reached, Opus limit reached, now using ...) | nothing: it goes on | no |
| ... · retrying in 3s, also retrying 1/5 + | as said | yes |
| Reconnecting... 2/5 + | as said | yes |
| API Error: ... + | as said | no |
| Not logged in · (Login expired, Invalid API key, OAuth token revoked, ...) + | credentials | no |
| This organization has been disabled (Your session has ended, ...) | credentials | no |
| You've hit your usage limit for WHOSE. Switch to another model | usage-limit, of a model | no |
| You've hit your WHOSE spend limit (pooled group budget, You're out of usage credits, ...) | credit | no |
| You've hit (reached, exceeded) your WHOSE limit | usage-limit | no |
| WHOSE limit reached · resets TIME (· continuing automatically at TIME, ...) + | usage-limit | no |
| WHOSE limit reached (again) | usage-limit | no |
| Credit balance too low (Quota exceeded, You hit your spend cap, ...) | credit | no |
| Fable requires usage credits | credit, of a model | no |
| 1. Stop and wait for limit to reset | usage-limit | no |
| Automatic continue stopped + | usage-limit | no |
| Opus is experiencing high load (Selected model is at capacity, ...) | overload | no |
| We're currently experiencing high demand | server-error | no |
| Authentication error · This may be a temporary network issue + | network | no |
| Authentication error · + | credentials | no |
| unexpected status 401, exceeded retry limit, stream disconnected, Connection failed, ... | as said | no |

As said: credit and usage limits by their words ("not your usage limit" is none); then by the status: 429
rate-limit, 529 overload, 401 and 403 credentials, 402 credit, 408 network, other 5xx server-error; then by
words; else other. Lack of credit that names a time is a usage-limit. A limit that goes on automatically is
retrying. A session limit is the 5-hour one (Claude Code 2.1.329 has both names for its `five_hour`). A limit
of Opus, Sonnet, Haiku, Fable or Mythos is that model's only. A reset further off than the window is long was
misread, and is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import tzinfo

from circus_failover.policy.client_text import Passage, Speaker, passages
from circus_failover.policy.health import Fault
from circus_failover.policy.reset_times import SPAN_SECS, reset_time
from circus_failover.words import FaultKind

__all__ = ["read", "reset_time"]

TEXT_CHARS = 300
"""How much of a client's words is kept."""
_SLACK_SECS = 600.0
"""By how much the clocks of the client and of its service may differ."""
_DAY_SECS = 86_400.0
_SPANS = {"5-hour": 5 * 3600.0, "daily": _DAY_SECS, "weekly": 7 * _DAY_SECS}
_MODELS = ("opus", "sonnet", "haiku", "fable", "mythos")


@dataclass(frozen=True)
class _Wording:
    """Words that a client uses, and what they mean."""

    pattern: re.Pattern[str]
    kind: FaultKind | None
    """None: what the rest says."""
    spoken: bool = False
    """Also after the mark of answers: nobody but the client begins so."""
    closed: bool = False
    """The words end there: a separator, a stop or the end of the line follows."""
    retrying: bool | None = None
    """None: they do not say."""
    nothing: bool = False
    """They keep it from nothing."""
    over: bool = False
    """They say that a limit is over."""


@dataclass(frozen=True)
class _Said:
    fault: Fault
    retrying: bool | None


def _wording(pattern: str, kind: FaultKind | None, *flags: str, retrying: bool | None = None) -> _Wording:
    """Compile words. Spaces in them stand for nothing at all: the text they are held against has none."""
    before = r"(?: error: (?=you) | error running [a-z ]{1,40}? task: | goal paused · )?"
    compiled = re.compile(before + f"(?:{pattern})", re.IGNORECASE | re.VERBOSE)
    return _Wording(compiled, kind, retrying=retrying, **dict.fromkeys(flags, True))


_HIT = r"you (?:'ve | have)? (?:hit|reached|exceeded) (?:your|the)"
_MODEL = rf"(?: {'|'.join(_MODELS)} ) (?: [0-9]{{1,2}} (?: \. [0-9]{{1,2}} )? )?"
_NAMED = (
    r"(?P<whose> (?:claude)? (?:ai)? usage | session | daily | weekly | monthly | (?:5|five) -? hour | 7-day"
    rf" | (?:weekly | 5-hour)? {_MODEL} (?:weekly | 5-hour)? )"
)

_WORDINGS = (
    _wording(
        r"(?:your (?:claude\.ai)?)? usage limit (?:has)? (?:reset|available) (?!s)", None, "over", "spoken"
    ),
    _wording(
        r"(?:fast|context) limit reached | you've hit your fast limit"
        rf" | (?:claude)? {_MODEL} limit reached , now using",
        None,
        "nothing",
    ),
    _wording(r".{0,300}? [·;] retrying (?:in)? \d", None, "spoken", retrying=True),
    _wording(r"reconnecting (?: \.{1,3} | … ) \d+/\d+", None, "spoken", retrying=True),
    _wording(r"api error (?= [:(·] )", None, "spoken"),
    _wording(
        r"please run /login · | not (?:logged|signed) in · | login (?:expired|reached its time limit) ·"
        r" | invalid (?:api key|auth token|bearer token) ·"
        r" | oauth (?:access)? token (?:has been|has|is)? (?:expired|revoked)"
        r" | failed to authenticate [:.·] | authentication required · | missing api key ·"
        r" | could not refresh your login",
        FaultKind.CREDENTIALS,
        "spoken",
    ),
    _wording(
        r"your anthropic_api_key belongs to a | (?:this|your) organization has (?:been)? disabled"
        r" | (?:your)? session (?:has)? (?:ended|expired) \. | your access token could not be refreshed"
        r" | missing environment variable: | your apikeyhelper script is failing"
        r" | this service is disabled for your org | anthropic profile login expired ·",
        FaultKind.CREDENTIALS,
    ),
    _wording(
        r"you've hit your usage limit for (?P<model> .{1,40}? ) \. switch to another model",
        FaultKind.USAGE_LIMIT,
    ),
    _wording(
        rf"{_HIT} (?P<whose> [a-z0-9.'-]{{0,40}}? ) (?:spend|spending|usage credit) (?:limit|cap)"
        rf" | {_HIT} team's pooled group budget | [a-z]{{0,20}} spend limit reached"
        r" | you're out of (?:usage credits|extra usage|credits)"
        r" | your (?:org|organization|workspace) is out of (?:usage credits|extra usage|usage|credits)",
        FaultKind.CREDIT,
        "closed",
    ),
    _wording(
        rf"{_HIT} (?! rate | context | token | message length | file | image | upload)"
        r" (?P<whose> [a-z0-9.'-]{0,40}? ) limit (?: s (?![a-z]) )? (?:for claude messages)?",
        FaultKind.USAGE_LIMIT,
        "closed",
    ),
    _wording(
        rf"{_NAMED} limit reached (?:again)? (?: [·|] (?:continuing automatically|wrapping|brief|resets|\d)"
        r" | \. your limit will reset )",
        FaultKind.USAGE_LIMIT,
        "spoken",
    ),
    _wording(rf"{_NAMED} limit (?:has been)? reached (?:again)?", FaultKind.USAGE_LIMIT, "closed"),
    _wording(
        r"(?:your)? credit balance (?:is)? too low | quota exceeded\. | you exceeded your current quota"
        r" | you hit your spend cap | your seat type doesn't include | your usage allocation has been"
        r" | your group's usage limit is set to | to use codex with your chatgpt plan ,? upgrade"
        r" | extra usage is required | usage is paused for your organization",
        FaultKind.CREDIT,
    ),
    _wording(rf"(?P<model> {_MODEL} ) requires usage credits", FaultKind.CREDIT),
    _wording(r"1\. stop and wait for limit to reset", FaultKind.USAGE_LIMIT),
    _wording(r"automatic continue stopped", FaultKind.USAGE_LIMIT, "spoken", retrying=False),
    _wording(
        rf"{_MODEL} is experiencing high load | codex is currently experiencing high load"
        r" | selected model is at capacity | repeated 529 overloaded errors",
        FaultKind.OVERLOAD,
    ),
    _wording(r"we're currently experiencing high demand", FaultKind.SERVER_ERROR),
    _wording(r"authentication error · this may be a temporary network issue", FaultKind.NETWORK, "spoken"),
    _wording(r"authentication error ·", FaultKind.CREDENTIALS, "spoken"),
    _wording(
        r"exceeded retry limit, last status | unexpected status \d | stream disconnected before"
        r" | stream error: | connection failed: | error while reading the server response | request timed out"
        r" | unable to connect to | connection error\. | access blocked by cloudflare",
        None,
    ),
)

# What an error says, in text without spaces and in lower case.
_CREDIT = re.compile(r"creditbalance|outofcredits|quotaexceeded|exceededyourcurrentquota|insufficient_quota")
_LIMIT = re.compile(
    r"reachedyourspecified[\w-]*usagelimits|usage_limit_reached|(?:hit|reached)your[\w-]*?(?<!rate)limit(?!er)"
    r"|(?<!notyour)usagelimit(?:hasbeen)?reached"
)
_STATUS = re.compile(r"(?:apierror[:(·]*|status(?:code)?:?|rejected\(|error:|^)(\d{3})(?!\d)")
_STATUSES = {
    "401": FaultKind.CREDENTIALS,
    "402": FaultKind.CREDIT,
    "403": FaultKind.CREDENTIALS,
    "408": FaultKind.NETWORK,
    "429": FaultKind.RATE_LIMIT,
    "529": FaultKind.OVERLOAD,
}
_BY_WORDS = (
    (re.compile(r"overloaded|highload|atcapacity"), FaultKind.OVERLOAD),
    (
        re.compile(r"notyourusagelimit|limitingrequests|ratelimit|rate_limit|toomanyrequests"),
        FaultKind.RATE_LIMIT,
    ),
    (re.compile(r"authenticat|unauthorized|oauthtoken|invalidapikey|/login"), FaultKind.CREDENTIALS),
    (
        re.compile(r"internalserver|server_error|highdemand|badgateway|serviceunavailable"),
        FaultKind.SERVER_ERROR,
    ),
    (
        re.compile(
            r"connect|timedout|timeout|network|fetchfailed|econn|enotfound|socket|stream|sendingrequest|dns"
        ),
        FaultKind.NETWORK,
    ),
)
_GOES_ON = re.compile(r"continu(?:ing|es)automatically", re.I)
_OTHER_LIMIT = re.compile(r"your([a-z0-9-]{0,30}?)(?:limit)?resets", re.I)


def read(text: str, now: float, zone: tzinfo | None = None) -> Fault | None:
    """Return what keeps a client from an answer, or None where its words say nothing of the kind.

    Args:
        text: one message of a client, or the rows of its screen, joined by newlines.
        now: epoch seconds at which it said so, from which a time of day counts: of a record its own time, of
            a screen when it showed this first. Read later, a reset that has passed is an unknown one.
        zone: of times that name none; None: the host's own.
    """
    said: list[_Said] = []
    end = 0
    for passage in passages(text):
        if passage.at < end:
            continue
        wording, found = _first(passage)
        if wording is not None:
            end = passage.at + len(passage.lines)
        if wording is None or found is None:
            if passage.speaker is Speaker.CLIENT_OR_MODEL and not passage.works:
                said.clear()
        elif wording.over:
            said.clear()
        elif not wording.nothing:
            said.append(_said(passage, wording, found, now, zone))
    return _together(said) if said else None


def _first(passage: Passage) -> tuple[_Wording, re.Match[str]] | tuple[None, None]:
    for wording in _WORDINGS:
        if passage.speaker is Speaker.CLIENT_OR_MODEL and not wording.spoken:
            continue
        found = wording.pattern.match(passage.squeezed)
        if found is not None and (not wording.closed or _closed(passage, found.end())):
            return wording, found
    return None, None


def _closed(passage: Passage, end: int) -> bool:
    return end in passage.line_ends or not passage.squeezed[end : end + 1].isalnum()


def _said(
    passage: Passage, wording: _Wording, found: re.Match[str], now: float, zone: tzinfo | None
) -> _Said:
    squeezed = passage.squeezed.lower()
    groups = found.groupdict()
    kind = wording.kind or _content(squeezed)
    retrying = True if _GOES_ON.search(squeezed) else wording.retrying
    window, resets_at = None, None
    if kind in (FaultKind.USAGE_LIMIT, FaultKind.CREDIT):
        other = _OTHER_LIMIT.search(squeezed)
        window = _window(other[1] if other else groups.get("model") or groups.get("whose") or "")
        span = _SPANS.get(window or "", 7 * _DAY_SECS if window in _MODELS else SPAN_SECS) + _SLACK_SECS
        resets_at = reset_time("\n".join(passage.lines), now, zone, span)
        if resets_at is not None:
            # What is paid for each month comes back then.
            kind = FaultKind.USAGE_LIMIT
    model_only = bool(groups.get("model")) or window in _MODELS
    words = " ".join(passage.lines)[:TEXT_CHARS].strip()
    return _Said(Fault(kind, words, window, resets_at, model_only, bool(retrying)), retrying)


def _content(squeezed: str) -> FaultKind:
    """Return what the words of an error say."""
    if _CREDIT.search(squeezed):
        return FaultKind.CREDIT
    if _LIMIT.search(squeezed):
        return FaultKind.USAGE_LIMIT
    by_words = (kind for pattern, kind in _BY_WORDS if pattern.search(squeezed))
    status = _STATUS.search(squeezed)
    if status is None:
        return next(by_words, FaultKind.OTHER)
    if status[1] in _STATUSES:
        return _STATUSES[status[1]]
    if status[1].startswith("5"):
        return FaultKind.OVERLOAD if "overloaded" in squeezed else FaultKind.SERVER_ERROR
    return FaultKind.OTHER


def _window(whose: str) -> str | None:
    """Return which limit it is, in the words that the store knows; None: it does not say."""
    whose = whose.lower()
    for model in _MODELS:
        if model in whose:
            return model
    if "session" in whose or re.search(r"(?:5|five)-?hour", whose):
        return "5-hour"
    if "week" in whose or "7-day" in whose:
        return "weekly"
    for word in ("daily", "monthly"):
        if word in whose:
            return word
    return None if whose.endswith("usage") or whose == "" else whose


def _together(said: list[_Said]) -> Fault:
    """Return the last fault; of a limit, with what the lines just above say more exactly of it."""
    last = said[-1].fault
    if last.kind is not FaultKind.USAGE_LIMIT:
        return last
    same: list[_Said] = []
    for each in reversed(said):
        if each.fault.kind is not FaultKind.USAGE_LIMIT:
            break
        same.append(each)
        if each.fault.window is not None:
            break
    named = same[-1].fault
    resets_at = next(
        (each.fault.resets_at for each in reversed(same) if each.fault.resets_at is not None), None
    )
    retrying = next((each.retrying for each in same if each.retrying is not None), False)
    return Fault(last.kind, named.text, named.window, resets_at, named.model_only, retrying)
