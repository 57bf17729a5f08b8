"""When a limit resets: the table, read from the module line by line, and hours that clocks skip or repeat."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circus_failover.policy import reset_times
from circus_failover.policy.reset_times import SPAN_SECS, reset_time

calm = settings(max_examples=50, deadline=None)
"""On a loaded machine an example may take long."""
UTC = timezone.utc
NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 11, 21, 7, 30, tzinfo=UTC)
"""A Saturday morning."""


def at(*when: int, zone: tzinfo = UTC, fold: int = 0) -> datetime:
    """Return a moment."""
    year, month, day, hour, minute, second = (*when, 0, 0, 0)[:6]
    return datetime(year, month, day, hour, minute, second, tzinfo=zone, fold=fold)


def told(text: str, now: datetime = NOW, zone: tzinfo = UTC) -> datetime | None:
    """Return the reset that a text tells."""
    resets_at = reset_time(text, now.timestamp(), zone)
    return None if resets_at is None else datetime.fromtimestamp(resets_at, UTC)


def table() -> list[tuple[str, ...]]:
    """Return the rows of the table in the module's docstring: words, what they are read as."""
    assert reset_times.__doc__ is not None
    lines = [line for line in reset_times.__doc__.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


# The rows of the table, and what is read from words like theirs.
ROWS: list[tuple[tuple[str, str], list[tuple[str, datetime | None]]]] = [
    (
        ("seconds or milliseconds since the epoch", "that"),
        [
            ("usage limit reached|1795280122", datetime.fromtimestamp(1795280122, UTC)),
            ("usage limit reached | 1795280122", datetime.fromtimestamp(1795280122, UTC)),
            ("usage limit reached|1795280122500", datetime.fromtimestamp(1795280122.5, UTC)),
            ("resets at 1795280122", datetime.fromtimestamp(1795280122, UTC)),
            ('"resets_at":1795280122,"resets_in_seconds":467439', datetime.fromtimestamp(1795280122, UTC)),
            ("usage limit reached|1712345678", None),
            ("usage limit reached|179528012", None),
        ],
    ),
    (
        ("2026-11-25T22:19:00Z, 2026-11-25 at 22:19 UTC", "that"),
        [
            ("resets 2026-11-25T22:19:00Z", at(2026, 11, 25, 22, 19)),
            ("resets at 2026-11-25T22:19:00.123+02:00", at(2026, 11, 25, 20, 19)),
            ("Your limit will reset at 2026-11-25 22:19:03", at(2026, 11, 25, 22, 19, 3)),
            ("You will regain access on 2026-12-01 at 00:00 UTC.", at(2026, 12, 1)),
            ("resets 2026-11-25", at(2026, 11, 25)),
            ("resets 2026-11-20T22:19:00Z", None),
            ("resets 2026-13-25T22:19:00Z", None),
        ],
    ),
    (
        ("in 2 days 5 hours, in 34 minutes, 2h 15m", "so long from now"),
        [
            ("try again in 5 days 22 hours 11 minutes.", NOW + timedelta(days=5, hours=22, minutes=11)),
            ("try again in 1 day 1 hour 1 minute", NOW + timedelta(days=1, hours=1, minutes=1)),
            ("resets in 34 minutes", NOW + timedelta(minutes=34)),
            ("resets in 2h 15m", NOW + timedelta(hours=2, minutes=15)),
            ("resets 45m", NOW + timedelta(minutes=45)),
            ("Try again in 3 hours, 2 mins and 1 sec", NOW + timedelta(hours=3, minutes=2, seconds=1)),
            ("resets in 1 week", NOW + timedelta(days=7)),
            ("in 3 hours", NOW + timedelta(hours=3)),
            ("try again in 99 days", None),
            ("try again in 0 minutes", None),
            ("try again in 5 fortnights", None),
        ],
    ),
    (
        ("in less than a minute", "a minute from now"),
        [("try again in less than a minute.", NOW + timedelta(minutes=1))],
    ),
    (
        ("Nov 25, 2026 10:19pm", "that"),
        [
            ("resets Nov 25, 2026 10:19pm", at(2026, 11, 25, 22, 19)),
            ("try again at Dec 5th, 2026 8:29 AM.", at(2026, 12, 5, 8, 29)),
            ("try again after December 5, 2026 at 2:45 PM.", at(2026, 12, 5, 14, 45)),
            ("try again at Dec 1st, 2026 12:00 AM.", at(2026, 12, 1)),
            ("resets Nov 25, 2025 10:19pm", None),
        ],
    ),
    (
        ("Nov 25, 10:19pm", "the next one"),
        [
            ("resets Nov 25, 10:19pm", at(2026, 11, 25, 22, 19)),
            ("resets Nov 25 at 10pm", at(2026, 11, 25, 22)),
            ("resets nov. 25 22:19", at(2026, 11, 25, 22, 19)),
            ("resets 25 Nov, 10:19pm", at(2026, 11, 25, 22, 19)),
            ("resets Nov 2, 10:19pm", None),
            ("resets Nov 31, 10:19pm", None),
            ("resets Nov 25, 13:70", None),
        ],
    ),
    (
        ("Nov 25", "the begin of the next one"),
        [("resets Nov 25", at(2026, 11, 25)), ("resets Dec 1 · request an increase", at(2026, 12, 1))],
    ),
    (
        ("tomorrow at 6am, 6am tomorrow", "that"),
        [
            ("resets tomorrow at 6am", at(2026, 11, 22, 6)),
            ("resets at 6am tomorrow", at(2026, 11, 22, 6)),
            ("resets tomorrow, 9:05 am", at(2026, 11, 22, 9, 5)),
            ("resets today at 9am", at(2026, 11, 21, 9)),
            ("resets today at 6am", None),
            ("resets tomorrow", None),
        ],
    ),
    (
        ("Mon 12:00 AM", "the next one"),
        [
            ("resets Mon 12:00 AM", at(2026, 11, 23)),
            ("resets Thursday at 9am", at(2026, 11, 26, 9)),
            ("resets Thu, 5:59 AM", at(2026, 11, 26, 5, 59)),
            ("resets Sat 9am", at(2026, 11, 21, 9)),
            ("resets Saturday 6am", at(2026, 11, 28, 6)),
            ("resets Wednesday, Nov 25, 10pm", at(2026, 11, 25, 22)),
            ("resets on Tuesday", None),
        ],
    ),
    (
        ("8:11am, 5 PM, 17:05", "the next one, tomorrow where it has just passed"),
        [
            ("resets 8:11am", at(2026, 11, 21, 8, 11)),
            ("resets at 5 PM", at(2026, 11, 21, 17)),
            ("resets 17:05", at(2026, 11, 21, 17, 5)),
            ("resets at 20:08 · /status", at(2026, 11, 21, 20, 8)),
            ("resets 11:30 p.m.", at(2026, 11, 21, 23, 30)),
            ("resets 12am", at(2026, 11, 22)),
            ("resets 12pm", at(2026, 11, 21, 12)),
            ("Try again at 8:29 AM.", at(2026, 11, 21, 8, 29)),
            ("Your limit will reset at 3pm", at(2026, 11, 21, 15)),
            ("continuing automatically at 8:11am · esc to cancel", at(2026, 11, 21, 8, 11)),
            ("resets 7:29am", at(2026, 11, 22, 7, 29)),
            ("8:11am", at(2026, 11, 21, 8, 11)),
            ("resets 25:00", None),
            ("resets 13pm", None),
            ("resets 0am", None),
            ("resets 5", None),
            ("resets soon", None),
            ("Try again later.", None),
            ("or wait for limits to reset (every 5h and every week).", None),
            ("8:11am is when I had breakfast", None),
            ("", None),
        ],
    ),
]


def test_the_table_has_these_rows() -> None:
    assert table() == [row for row, _ in ROWS]


@pytest.mark.parametrize("words, moment", [case for _, cases in ROWS for case in cases])
def test_words_are_read_as_their_row_says(words: str, moment: datetime | None) -> None:
    assert told(words) == moment
    assert told(words.upper()) == moment


@pytest.mark.parametrize(
    "words, moment",
    [
        ("resets 3pm (America/Los_Angeles)", at(2026, 11, 21, 23)),
        ("resets 3pm (america/los_angeles)", at(2026, 11, 21, 23)),
        ("resets 10am (Asia/Seoul)", at(2026, 11, 22, 1)),
        ("resets 10am (Asia/Calcutta)", at(2026, 11, 22, 4, 30)),
        ("resets 3pm (America/Argentina/Buenos_Aires)", at(2026, 11, 21, 18)),
        ("resets 5pm (America/Port-au-Prince)", at(2026, 11, 21, 22)),
        ("resets 8:11am (UTC)", at(2026, 11, 21, 8, 11)),
        ("resets 8:11am (Etc/UTC)", at(2026, 11, 21, 8, 11)),
        ("resets 8:11am GMT", at(2026, 11, 21, 8, 11)),
        ("resets 8:11am UTC+2", at(2026, 11, 22, 6, 11)),
        ("resets 8:11am (GMT+5:30)", at(2026, 11, 22, 2, 41)),
        ("resets 8:11am -03:00", at(2026, 11, 21, 11, 11)),
        ("resets 8:11am PST", at(2026, 11, 21, 16, 11)),
        ("resets Nov 25, 10:19pm (Europe/Berlin)", at(2026, 11, 25, 21, 19)),
        # Known to nobody, or to several.
        ("resets 8:11am (Mars/Olympus)", None),
        ("resets 8:11am (CST)", None),
        ("resets 8:11am CST", None),
        ("resets 8:11am (../../etc/passwd)", None),
        ("resets 8:11am (America)", None),
    ],
)
def test_a_zone_that_is_named_holds_and_one_that_nobody_knows_makes_it_unknown(
    words: str, moment: datetime | None
) -> None:
    assert told(words, zone=NEW_YORK) == moment
    assert told(words) == moment


def test_without_a_zone_the_callers_holds() -> None:
    assert told("resets 8:11am", zone=NEW_YORK) == at(2026, 11, 21, 13, 11)
    assert told("resets Nov 25, 10:19pm", zone=NEW_YORK) == at(2026, 11, 26, 3, 19)


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host in Tokyo."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_without_any_zone_the_hosts_holds(tokyo: None) -> None:
    assert reset_time("resets 5pm", NOW.timestamp()) == at(2026, 11, 21, 8).timestamp()
    assert reset_time("resets 4pm", NOW.timestamp()) == at(2026, 11, 22, 7).timestamp()


SPRING = at(2026, 3, 7, 22, zone=NEW_YORK)
"""The evening before New York's clocks go from 2 to 3."""
AUTUMN = at(2026, 10, 31, 22, zone=NEW_YORK)
"""The evening before they go from 2 back to 1."""


@pytest.mark.parametrize("words", ["resets {} (America/New_York)", "resets {}"])
@pytest.mark.parametrize(
    "now, clock, moment",
    [
        (SPRING, "1:30am", at(2026, 3, 8, 6, 30)),
        (SPRING, "2:30am", at(2026, 3, 8, 7, 30)),
        (SPRING, "3:30am", at(2026, 3, 8, 7, 30)),
        (at(2026, 3, 8, 3, 10, zone=NEW_YORK), "2:30am", at(2026, 3, 8, 7, 30)),
        (at(2026, 3, 8, 3, 40, zone=NEW_YORK), "2:30am", at(2026, 3, 9, 6, 30)),
        (AUTUMN, "12:30am", at(2026, 11, 1, 4, 30)),
        (AUTUMN, "1:30am", at(2026, 11, 1, 5, 30)),
        (at(2026, 11, 1, 1, 40, zone=NEW_YORK), "1:30am", at(2026, 11, 1, 6, 30)),
        (at(2026, 11, 1, 1, 40, zone=NEW_YORK, fold=1), "1:30am", at(2026, 11, 2, 6, 30)),
        (AUTUMN, "Nov 1, 2:30am", at(2026, 11, 1, 7, 30)),
    ],
)
def test_an_hour_that_is_skipped_or_comes_twice_is_read_as_one_that_comes(
    words: str, now: datetime, clock: str, moment: datetime
) -> None:
    assert told(words.format(clock), now, NEW_YORK) == moment


@pytest.mark.parametrize(
    "now, words, moment",
    [
        (at(2026, 12, 30, 9), "resets Jan 2, 9am", at(2027, 1, 2, 9)),
        (at(2026, 12, 31, 23, 59), "resets 12:30am", at(2027, 1, 1, 0, 30)),
        (at(2026, 12, 31, 23, 59), "resets Jan 1", at(2027, 1, 1)),
        (at(2027, 1, 1, 0, 1), "resets Dec 31, 11:59pm", None),
        (at(2027, 1, 1, 0, 1), "resets Jan 1, 5am", at(2027, 1, 1, 5)),
        (at(2028, 2, 27, 9), "resets Feb 29, 5am", at(2028, 2, 29, 5)),
        (at(2027, 2, 27, 9), "resets Feb 29, 5am", None),
        # Where it is said it is last year's day still.
        (at(2027, 1, 1, 3), "resets Dec 31, 11pm (America/New_York)", at(2027, 1, 1, 4)),
    ],
)
def test_a_date_without_a_year_is_the_next_one_also_at_new_year(
    now: datetime, words: str, moment: datetime | None
) -> None:
    assert told(words, now) == moment


def test_a_time_lasts_its_whole_minute() -> None:
    words = "resets 7:30am"
    assert told(words, NOW - timedelta(seconds=1)) == NOW
    assert told(words, NOW) == told(words, NOW + timedelta(seconds=59)) == NOW + timedelta(minutes=1)
    assert told(words, NOW + timedelta(seconds=60)) == NOW + timedelta(days=1)


@pytest.mark.parametrize(
    "broken",
    [
        "resets Nov 25,\n10:19pm (UTC)",
        "resets Nov 2\n5, 10:19pm (UTC)",
        "resets No\nv 25, 10:1\n9pm (UT\nC)",
        "resets Nov 25, 1\n0:19\npm (UTC)",
        "resets Nov 25, 10:19p\nm (UTC)",
        "resets\nNov\n25,\n10:19pm\n(UTC)",
        "res\nets Nov 25, 10:19pm (UTC)",
        "resets\u00a0Nov\u00a025,\u202f10:19\u202fpm\u00a0(UTC)",
        "\x1b[2mresets Nov 25, 10:19pm (UTC)\x1b[0m",
    ],
)
def test_where_lines_break_does_not_matter(broken: str) -> None:
    assert told(broken, zone=NEW_YORK) == at(2026, 11, 25, 22, 19)


@pytest.mark.parametrize(
    "broken, moment",
    [
        ("resets 1:3\n0pm", at(2026, 11, 21, 13, 30)),
        ("resets 1:30 p\nm", at(2026, 11, 21, 13, 30)),
        ("resets 1\n1:30pm", at(2026, 11, 21, 23, 30)),
        ("try again in 1\n2 hours", NOW + timedelta(hours=12)),
        ("try again in 3 days 4 ho\nurs 10 minutes", NOW + timedelta(days=3, hours=4, minutes=10)),
        ("try again in 3 days 4 hours 1\n0 minutes", NOW + timedelta(days=3, hours=4, minutes=10)),
        ("try again in 5 h\nours 10 minutes", NOW + timedelta(hours=5, minutes=10)),
        ("try again at Dec 5th, 20\n26 8:29 AM", at(2026, 12, 5, 8, 29)),
        ("usage limit reached|17952\n80122", datetime.fromtimestamp(1795280122, UTC)),
        ("usage limit reached\n1795280122", datetime.fromtimestamp(1795280122, UTC)),
        ("resets 3pm (America/Los_\nAngeles)", at(2026, 11, 21, 23)),
    ],
)
def test_a_break_within_a_word_or_a_number_is_never_read_as_another_time(
    broken: str, moment: datetime
) -> None:
    assert told(broken) == moment


def test_the_span_bounds_what_is_read() -> None:
    now = NOW.timestamp()
    assert reset_time("resets 8:30am", now, UTC, span=3600) == now + 3600
    assert reset_time("resets 8:31am", now, UTC, span=3600) is None


PIECES = [
    "resets",
    "try again in",
    "|",
    "1795280122",
    "8:11",
    "am",
    "Nov",
    "25,",
    "2026",
    "(UTC)",
    "(Asia/Seoul)",
]
PIECES += ["3", "days", "tomorrow", "Mon", "at", "\n", "2026-11-25", "T", "Z", "+02:00", "99", "reached|"]


@calm
@given(
    st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join)),
    st.floats(-1e11, 1e11),
    st.sampled_from([UTC, NEW_YORK, None]),
)
def test_it_never_fails_and_what_is_read_is_to_come(text: str, now: float, zone: tzinfo | None) -> None:
    resets_at = reset_time(text, now, zone)
    assert resets_at is None or now < resets_at <= now + SPAN_SECS


@calm
@given(st.integers(0, 23), st.integers(0, 59), st.floats(1.7e9, 1.9e9), st.sampled_from([UTC, NEW_YORK]))
def test_every_time_of_day_is_read_alike_in_both_spellings(
    hour: int, minute: int, now: float, zone: tzinfo
) -> None:
    spelled = f"resets {hour % 12 or 12}:{minute:02}{'pm' if hour >= 12 else 'am'}"
    resets_at = reset_time(spelled, now, zone)
    assert resets_at == reset_time(f"resets {hour:02}:{minute:02}", now, zone)
    assert resets_at is not None and now < resets_at <= now + 26 * 3600
