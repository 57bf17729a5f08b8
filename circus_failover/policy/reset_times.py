"""When a limit resets, read from the words of a client.

It answers with a time in the future or not at all: what cannot be read is unknown, and unknown is not now.
The moment the words were said is what a time of day is counted from; it is an argument. The zone database is
the host's or, where there is none (slim containers, Windows), the package `tzdata`; a zone that neither knows
makes the time unknown.

| the words | read as |
|---|---|
| seconds or milliseconds since the epoch | that |
| 2026-11-25T22:19:00Z, 2026-11-25 at 22:19 UTC | that |
| in 2 days 5 hours, in 34 minutes, 2h 15m | so long from now |
| in less than a minute | a minute from now |
| Nov 25, 2026 10:19pm | that |
| Nov 25, 10:19pm | the next one |
| Nov 25 | the begin of the next one |
| tomorrow at 6am, 6am tomorrow | that |
| Mon 12:00 AM | the next one |
| 8:11am, 5 PM, 17:05 | the next one, tomorrow where it has just passed |

Each may be followed by a zone: (America/Los_Angeles), (UTC), UTC, GMT+2, +02:00; else the caller's zone
holds. An hour that a change of the clocks skips is counted on from before it; of an hour that comes twice it
is the first that is still to come. A time without seconds lasts its whole minute.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from circus_failover.policy.client_text import plain

SPAN_SECS = 32 * 86_400.0
"""The furthest that a reset is ever away: a month, and a day for clocks that differ."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
# Those that mean one thing; "CST" and the like mean several, and then the time is unknown.
_ABBREVIATIONS = {"pst": -8, "pdt": -7, "mdt": -6, "est": -5, "edt": -4, "cet": 1, "cest": 2}
_CHARS = 2000
_CUES = 8
"""How many places of a text are looked at: none has more than two or three."""
_BREAKS = 4
"""How often a time may be broken over lines: a terminal that is narrower has no use."""

_CUE = re.compile(
    r"(?:\b(?:resets?|try again|continu(?:ing|es) automatically|regain access|available again|wait until)\b"
    r"|reached ?(?=[|·]? ?\d{9})|limit(?=\|)|\bresets_at\W{1,4}(?=\d{9}))"
    r"[ |·:]*(?:(?:at|on|in|after|by) )? ?",
    re.I,
)
_MONTH = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)(?:[a-z]{0,6}\.?)"
_DATE = (
    rf"(?:{_MONTH} ?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?!\d|:)(?:,? (?P<year>20\d\d)\b)?"
    rf"|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)? {_MONTH.replace('month', 'month2')}(?:,? (?P<year2>20\d\d)\b)?)"
)
_WEEKDAY = r"(?P<weekday>mon|tue|wed|thu|fri|sat|sun)(?:s|nes|rs|urs|ur)?(?:day)?\b"
_CLOCK = (
    r"(?P<hour>\d{1,2})(?:(?::(?P<minute>\d\d))(?::(?P<second>\d\d))?)?"
    r"(?: ?(?P<half>[ap])\.?m\b\.?|(?<=:\d\d)(?![\d:]| ?[ap]\b| ?[ap]\.?m))"
)
_ZONE = (
    r" ?\((?P<named>[^()]{1,50})\)"
    r"| (?P<bare>(?:utc|gmt)(?: ?[+-]\d{1,2}(?::?\d\d)?)?|[a-z]{3,4}(?<=[sd]t)|cest|cet)\b"
    r"| ?(?P<offset>z\b|[+-]\d\d:?\d\d)"
)
_MOMENT = re.compile(
    rf"(?:(?P<relday>today|tomorrow),? )?(?:{_WEEKDAY},? ?)?(?:{_DATE}(?:,? ?(?:at )?| at )?)?(?:at )?"
    rf"(?:{_CLOCK})?(?: (?P<after>today|tomorrow)\b)?(?:{_ZONE})?",
    re.I,
)
_ISO = re.compile(
    r"(?P<year>20\d\d)-(?P<month>\d\d)-(?P<day>\d\d)(?:(?:t| at |,? )(?P<hour>\d\d):(?P<minute>\d\d)"
    rf"(?::(?P<second>\d\d)(?:\.\d+)?)?)?(?:{_ZONE})?",
    re.I,
)
_EPOCH = re.compile(r"(\d{13}|\d{10})(?![\d:])")
_PART = r"(\d{1,4}) ?(w(?:ee)?ks?|w|d(?:ays?)?|h(?:ours?|rs?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)\b"
_RELATIVE = re.compile(
    rf"(?:{_PART},? ?(?:and )?){{1,5}}(?! ?\d| ?(?:ours?|rs?|ays?|ins?|inutes?|ecs?|econds?)\b)", re.I
)
_DIGIT = re.compile(r"[ ,]*\d")
_SOON = re.compile(r"(?:less than (?:a|1) minute|a (?:minute|moment))\b", re.I)


def reset_time(text: str, now: float, zone: tzinfo | None = None, span: float = SPAN_SECS) -> float | None:
    """Return when a limit resets, in epoch seconds, always after `now`; None: the text does not tell.

    Args:
        text: what a client says, also broken over lines, or a time alone.
        now: epoch seconds at which it said so.
        zone: of times that name none; None: the host's own.
        span: how many seconds the reset can be away at most; what is further was misread, and unknown.
    """
    for line in _joined(plain(text[:_CHARS])):
        try:
            at = _read(line, now, zone)
        except (ValueError, OverflowError, OSError):
            # No such date, or one that the host's clock cannot have.
            continue
        if at is not None:
            return at if now < at <= now + span else None
    return None


def _joined(text: str) -> Iterator[str]:
    """Give a text on one line in each way it may have been before it was broken, the likeliest first."""
    lines = [re.sub(" +", " ", line).strip() for line in text.split("\n")]
    head = lines[: _BREAKS + 1]
    rest = " ".join(lines[_BREAKS + 1 :])
    for glue in sorted(itertools.product((" ", ""), repeat=len(head) - 1), key=lambda glue: glue.count("")):
        line = head[0] + "".join(space + part for space, part in zip(glue, head[1:], strict=True))
        yield f"{line} {rest}" if rest else line


def _read(line: str, now: float, zone: tzinfo | None) -> float | None:
    for cue in itertools.islice(_CUE.finditer(line), _CUES):
        at = _time_at(line, cue.end(), now, zone)
        if at is not None:
            return at
    return _time_at(re.sub(r"^(?:in|at|on) ", "", line.strip(" ."), flags=re.I), 0, now, zone, alone=True)


def _time_at(line: str, start: int, now: float, zone: tzinfo | None, alone: bool = False) -> float | None:
    """Return the time that is written at a place of a line.

    Args:
        alone: nothing else may be there.
    """

    def match(pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(line, start)
        return None if found is None or found.end() == start or (alone and found.end() < len(line)) else found

    if found := match(_EPOCH):
        return int(found[1]) / (1000 if len(found[1]) == 13 else 1)
    if found := match(_ISO):
        return _dated(found, date(int(found["year"]), int(found["month"]), int(found["day"])), now, zone)
    if match(_SOON):
        return now + 60
    if found := match(_RELATIVE):
        return now + sum(
            int(count) * _UNITS[unit[0].lower()] for count, unit in re.findall(_PART, found[0], re.I)
        )
    if found := match(_MOMENT):
        return _moment(found, now, zone)
    return None


def _moment(found: re.Match[str], now: float, zone: tzinfo | None) -> float | None:
    said = {name: value.lower() for name, value in found.groupdict().items() if value}
    named = said.get("month") or said.get("month2")
    cut_short = not found["hour"] and _DIGIT.match(found.string, found.end())
    if cut_short or not (found["hour"] or named):
        return None
    today = datetime.fromtimestamp(now, _zone(found, zone)[1]).date()
    if named:
        month, day = _MONTHS.index(named) + 1, int(found["day"] or found["day2"])
        year = found["year"] or found["year2"]
        if year:
            return _dated(found, date(int(year), month, day), now, zone)
        years = (today.year, today.year + 1)
        days = [date(year, month, day) for year in years if _is_date(year, month, day)]
    elif "relday" in said or "after" in said:
        days = [today + timedelta(days="tomorrow" in (said.get("relday"), said.get("after")))]
    elif "weekday" in said:
        ahead = (_DAYS.index(said["weekday"]) - today.weekday()) % 7
        days = [today + timedelta(days=ahead + more) for more in (0, 7)]
    else:
        days = [today + timedelta(days=ahead) for ahead in (0, 1, 2)]
    times = (_dated(found, each, now, zone) for each in days)
    return min((at for at in times if at is not None and at > now), default=None)


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _dated(found: re.Match[str], day: date, now: float, zone: tzinfo | None) -> float | None:
    """Return a time of day on a day, or the day's begin; of two such times the first after now."""
    known, zone = _zone(found, zone)
    hour = int(found["hour"] or 0)
    half = found.groupdict().get("half")
    if not known or (half and not 1 <= hour <= 12):
        return None
    if half:
        hour = hour % 12 + (12 if half in "pP" else 0)
    at = datetime(day.year, day.month, day.day, hour, int(found["minute"] or 0), int(found["second"] or 0))
    # Of a skipped hour the second reading is before the first (PEP 495), and counts for nothing.
    times = [at.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1)]
    if found["second"] is None and found["hour"]:
        times = [time + 60 if time <= now < time + 60 else time for time in times]
    return next((time for time in times if time > now), times[-1])


def _zone(found: re.Match[str], otherwise: tzinfo | None) -> tuple[bool, tzinfo | None]:
    """Return whether the zone of a time is known, and the zone; None: the host's own."""
    if found["named"]:
        return _named_zone(found["named"].replace(" ", ""))
    if found["bare"]:
        return _named_zone(found["bare"].replace(" ", ""))
    if found["offset"]:
        return True, _offset(found["offset"])
    return True, otherwise


def _named_zone(name: str) -> tuple[bool, tzinfo | None]:
    lower = name.lower()
    if lower in ("utc", "gmt", "z"):
        return True, timezone.utc
    if lower in _ABBREVIATIONS:
        return True, timezone(timedelta(hours=_ABBREVIATIONS[lower]))
    if re.fullmatch(r"(?:utc|gmt)?[+-]\d{1,2}(?::?\d\d)?", lower):
        return True, _offset(lower.removeprefix("utc").removeprefix("gmt"))
    try:
        return ("/" in name, ZoneInfo(name) if "/" in name else None)
    except (KeyError, ValueError, OSError):
        pass
    known = _zone_names().get(lower)
    return known is not None, None if known is None else ZoneInfo(known)


@functools.cache
def _zone_names() -> dict[str, str]:
    """Return the names of all zones by their lower case: the database is case sensitive on most hosts."""
    return {name.lower(): name for name in available_timezones()}


def _offset(text: str) -> timezone:
    if text in "zZ":
        return timezone.utc
    digits = text[1:].replace(":", "")
    hours, minutes = (digits[:-2], digits[-2:]) if len(digits) > 2 else (digits, "0")
    ahead = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-ahead if text[0] == "-" else ahead)
