"""Why a server ended: both tables, read from the module line by line, and what never happens."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.canary import watched
from circus_failover.policy import server_exit
from circus_failover.policy.server_exit import cause, recorded
from circus_failover.words import ServerCause


class End(NamedTuple):
    """All that is known of an end."""

    number: int | None
    status: int | None
    intent: str | None = None
    counter_moved: bool = False
    named_by_kernel: bool = False


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table in the module's docstring whose heading begins so."""
    assert server_exit.__doc__ is not None
    blocks = [block.splitlines() for block in server_exit.__doc__.split("\n\n")]
    (found,) = [block for block in blocks if block[0].startswith(f"| {heading} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[2:]]


RECORDED = table("intent for this very server")
CAUSES = table("how it ended")
CRASHES = "by SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV or SIGSYS"

INTENT: dict[str, Callable[[End], bool]] = {
    "none": lambda end: end.intent is None,
    "any": lambda end: end.intent == "any",
    "orderly": lambda end: end.intent == "orderly",
}
HOW: dict[str, Callable[[End], bool]] = {
    "any": lambda end: True,
    "nobody knows": lambda end: end.number is None and end.status is None,
    "by a signal, or with a status other than 0": lambda end: (
        end.number is not None or end.status not in (None, 0)
    ),
    "with status 0, or nobody knows": lambda end: end.number is None and end.status in (None, 0),
    "by SIGKILL": lambda end: end.number == signal.SIGKILL,
    CRASHES: lambda end: end.number in {getattr(signal, name) for name in re.findall("SIG[A-Z]+", CRASHES)},
    "by another signal": lambda end: end.number is not None,
    "with status 0": lambda end: end.number is None and end.status == 0,
    "with another status": lambda end: end.number is None and end.status not in (None, 0),
}
EVIDENCE: dict[str, Callable[[End], bool]] = {
    "any": lambda end: True,
    "a kernel log line says that this process was killed for memory": lambda end: end.named_by_kernel,
    "an OOM counter moved since arming, or such a kernel log line": lambda end: (
        end.counter_moved or end.named_by_kernel
    ),
}

HOWS = [
    (None, None),
    *((number, None) for number in range(1, 65)),
    *((None, status) for status in range(256)),
]
MEANT = [End(*how, intent=intent) for how in HOWS for intent in (None, "orderly", "any")]
CAUSED = [
    End(*how, counter_moved=moved, named_by_kernel=named)
    for how in HOWS
    for moved, named in itertools.product((False, True), repeat=2)
]


def first(rows: list[list[str]], end: End, columns: list[dict[str, Callable[[End], bool]]]) -> int:
    """Return the first line of a table that applies to an end."""
    return next(
        place
        for place, row in enumerate(rows)
        if all(meaning[cell](end) for meaning, cell in zip(columns, row, strict=False))
    )


def cause_of(end: End) -> ServerCause:
    return cause(end.number, end.status, counter_moved=end.counter_moved, named_by_kernel=end.named_by_kernel)


@pytest.mark.parametrize("row", range(len(RECORDED)), ids=[" | ".join(row[:2]) for row in RECORDED])
def test_the_table_says_what_is_recorded(row: int) -> None:
    mine = [end for end in MEANT if first(RECORDED, end, [INTENT, HOW]) == row]
    assert mine, "no end comes to this line"
    said = {"yes": True, "no": False}[RECORDED[row][2]]
    for end in mine:
        assert recorded(end.intent, end.number, end.status) is said, end


@pytest.mark.parametrize("row", range(len(CAUSES)), ids=[" | ".join(row[:2]) for row in CAUSES])
def test_the_table_says_what_the_cause_is(row: int) -> None:
    mine = [end for end in CAUSED if first(CAUSES, end, [HOW, EVIDENCE]) == row]
    assert mine, "no end comes to this line"
    for end in mine:
        assert cause_of(end) is ServerCause(CAUSES[row][2]), end


def test_the_table_names_every_cause_there_is() -> None:
    assert {row[2] for row in CAUSES} == {str(word) for word in ServerCause}


EXAMPLES: list[tuple[End, bool, ServerCause]] = [
    (End(signal.SIGKILL, None), True, ServerCause.KILLED),
    (End(signal.SIGKILL, None, "orderly"), True, ServerCause.KILLED),
    (End(signal.SIGKILL, None, "any"), False, ServerCause.KILLED),
    (End(signal.SIGKILL, None, counter_moved=True), True, ServerCause.OOM_LIKELY),
    (End(signal.SIGKILL, None, named_by_kernel=True), True, ServerCause.OOM_LIKELY),
    (End(signal.SIGTERM, None, counter_moved=True, named_by_kernel=True), True, ServerCause.KILLED),
    (End(signal.SIGSEGV, None), True, ServerCause.CRASHED),
    (End(signal.SIGABRT, None, counter_moved=True), True, ServerCause.CRASHED),
    (End(None, 0), True, ServerCause.ORDERLY_UNINTENDED),
    (End(None, 0, "orderly"), False, ServerCause.ORDERLY_UNINTENDED),
    (End(None, 1), True, ServerCause.CRASHED),
    (End(None, 1, "orderly"), True, ServerCause.CRASHED),
    (End(None, None), True, ServerCause.UNKNOWN),
    (End(None, None, "orderly"), False, ServerCause.UNKNOWN),
    (End(None, None, counter_moved=True), True, ServerCause.UNKNOWN),
    (End(None, None, named_by_kernel=True), True, ServerCause.OOM_LIKELY),
]


@pytest.mark.parametrize("end, on_record, why", EXAMPLES)
def test_examples_of_ends(end: End, on_record: bool, why: ServerCause) -> None:
    assert recorded(end.intent, end.number, end.status) is on_record
    assert cause_of(end) is why


def test_who_writes_an_intent_and_who_judges_it_use_the_same_words() -> None:
    assert (watched.ORDERLY, watched.ANY) == (server_exit.ORDERLY, server_exit.ANY)


hows: st.SearchStrategy[tuple[int | None, int | None]] = st.one_of(
    st.just((None, None)),
    st.integers(1, 64).map(lambda number: (number, None)),
    st.integers(0, 255).map(lambda status: (None, status)),
)
intents = st.one_of(st.none(), st.sampled_from(["orderly", "any"]), st.text(max_size=8))
ends = st.builds(
    lambda how, intent, moved, named: End(how[0], how[1], intent, moved, named),
    hows,
    intents,
    st.booleans(),
    st.booleans(),
)


@given(ends)
def test_nothing_is_blamed_on_memory_without_evidence(end: End) -> None:
    if cause_of(end) is ServerCause.OOM_LIKELY:
        assert end.counter_moved or end.named_by_kernel
        assert end.number in (None, signal.SIGKILL) and end.status is None


@given(ends)
def test_only_an_end_with_status_0_is_orderly_and_only_an_end_that_nobody_knows_is_unknown(end: End) -> None:
    assert (cause_of(end) is ServerCause.ORDERLY_UNINTENDED) == (end.status == 0)
    if cause_of(end) is ServerCause.UNKNOWN:
        assert end.number is None and end.status is None


@given(ends)
def test_what_nobody_meant_is_always_recorded(end: End) -> None:
    assert recorded(None, end.number, end.status)
    if end.intent not in ("orderly", "any"):
        assert recorded(end.intent, end.number, end.status)


@given(ends)
def test_an_intent_never_covers_less_than_a_narrower_one(end: End) -> None:
    assert not recorded("any", end.number, end.status)
    if not recorded("orderly", end.number, end.status):
        assert cause_of(end) in (
            ServerCause.ORDERLY_UNINTENDED,
            ServerCause.UNKNOWN,
            ServerCause.OOM_LIKELY,
        )
