"""Who may try to sign in: the table of the policy, line by line, and what holds for any attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy.sign_in import (
    MOST_KNOWN,
    Attempts,
    Limits,
    failed,
    network,
    succeeded,
    verdict,
)

NOW = 1000.0
LIMITS = Limits()
HERE, THERE = "192.0.2.7", "198.51.100.9"


def failures(number: int, address: str = HERE, at: float = NOW) -> Attempts:
    """Return so many failures of one address at one time."""
    return Attempts(failures=((at, network(address)),) * number)


def from_everywhere(number: int, at: float = NOW) -> Attempts:
    """Return failures of as many addresses."""
    return Attempts(failures=tuple((at, f"203.0.{one // 250}.{one % 250}") for one in range(number)))


@pytest.mark.parametrize(
    ("attempts", "allowed", "retry_after"),
    [
        (Attempts(), True, 0.0),
        (failures(4), True, 0.0),
        (failures(5), False, 60.0),
        (failures(5, at=NOW - 59), False, 1.0),
        (failures(5, at=NOW - 60), True, 0.0),
        (failures(5, THERE), True, 0.0),
        (from_everywhere(49), True, 0.0),
        (from_everywhere(50), False, 60.0),
        (from_everywhere(50, at=NOW - 45), False, 15.0),
        (from_everywhere(50, at=NOW - 60), True, 0.0),
        # Who has signed in is not held back by others, but by their own failures.
        (Attempts(from_everywhere(500).failures, ((NOW - 80000, HERE),)), True, 0.0),
        (Attempts(from_everywhere(500).failures, ((NOW - 86400, HERE),)), False, 60.0),
        (Attempts(failures(5).failures, ((NOW - 1, HERE),)), False, 60.0),
        # Failures of those who have signed in hold back nobody else.
        (Attempts(failures(60, THERE).failures, ((NOW - 1, THERE),)), True, 0.0),
    ],
)
def test_the_table_line_by_line(attempts: Attempts, allowed: bool, retry_after: float) -> None:
    found = verdict(attempts, HERE, NOW, LIMITS)
    assert (found.allowed, found.retry_after) == (allowed, retry_after)
    assert bool(found.reason) != allowed


def test_the_oldest_failure_that_counts_says_how_long_to_wait() -> None:
    attempts = Attempts(failures=tuple((NOW - 50 + 10 * number, HERE) for number in range(5)))
    assert verdict(attempts, HERE, NOW, LIMITS).retry_after == 10.0
    assert verdict(attempts, HERE, NOW + 10, LIMITS).allowed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.7", "192.0.2.8", False),
    ],
)
def test_an_address_is_what_one_household_has(one: str, other: str, same: bool) -> None:
    attempts = Attempts()
    for _ in range(LIMITS.of_one):
        attempts = failed(attempts, one, NOW, LIMITS)
    assert verdict(attempts, other, NOW, LIMITS).allowed != same


def test_signing_in_does_not_forgive_the_failures_before() -> None:
    """Else a guess could be hidden behind each own sign-in."""
    attempts = succeeded(failures(4), HERE, NOW, LIMITS)
    assert not verdict(failed(attempts, HERE, NOW, LIMITS), HERE, NOW, LIMITS).allowed


def test_a_clock_that_was_set_back_makes_nobody_wait_longer() -> None:
    found = verdict(failures(5, at=NOW + 5000), HERE, NOW, LIMITS)
    assert (found.allowed, found.retry_after) == (False, 60.0)


def test_what_is_remembered_is_bounded() -> None:
    attempts = Attempts()
    for number in range(MOST_KNOWN + 50):
        attempts = succeeded(attempts, f"10.0.{number // 250}.{number % 250}", NOW, LIMITS)
    assert len(attempts.known) == MOST_KNOWN
    later = failed(failures(40), THERE, NOW + 61, LIMITS)
    assert later.failures == ((NOW + 61, THERE),)


STEPS = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.sampled_from([HERE, THERE, "203.0.113.1", "2001:db8::1", "2001:db8:1::1"]),
        st.booleans(),
    ),
    max_size=120,
)


@given(STEPS)
def test_no_address_ever_fails_more_often_than_its_limit(steps: list[tuple[float, str, bool]]) -> None:
    attempts, now, compared = Attempts(), NOW, []
    for pause, address, right in steps:
        now += pause
        found = verdict(attempts, address, now, LIMITS)
        assert 0 <= found.retry_after <= LIMITS.window_secs
        if not found.allowed:
            # Who waits as long as was said may try: the promise of Retry-After.
            assert verdict(attempts, address, now + found.retry_after + 1e-6, LIMITS).allowed
            continue
        if right:
            attempts = succeeded(attempts, address, now, LIMITS)
        else:
            compared.append((now, address))
            attempts = failed(attempts, address, now, LIMITS)
        recent = [whose for at, whose in compared if now - at < LIMITS.window_secs]
        assert all(recent.count(whose) <= LIMITS.of_one for whose in recent)
