"""How soon circusd may be asked again."""

from __future__ import annotations

from circus_failover.web.pace import BURST_SECS, LONGEST_REST_SECS, SHARE, Pace


def test_a_few_readings_after_one_another_are_not_put_off() -> None:
    pace = Pace()
    for number in range(20):
        now = 100.0 + number * 0.05
        assert pace.rest(now) == 0
        pace.spent(0.01, 1, now)


def test_a_flood_has_its_share_of_circusd_and_no_more() -> None:
    pace, now, busy = Pace(), 100.0, 0.0
    while now < 400.0:
        now += pace.rest(now) + 0.04
        busy += 0.04
        pace.spent(0.04, 1, now)
    assert busy <= (300.0 + BURST_SECS) * SHARE + 0.1
    assert busy > 300.0 * SHARE * 0.9, "and that share it has"


def test_a_circusd_that_took_long_is_asked_again_before_long() -> None:
    pace = Pace()
    pace.spent(60.0, 1, 100.0)
    assert pace.rest(100.0) == LONGEST_REST_SECS
    assert pace.rest(100.0 + LONGEST_REST_SECS) == 0


def test_waiting_for_a_busy_circusd_is_no_cost_and_much_that_is_read_is() -> None:
    pace, now = Pace(), 100.0
    for number in range(300):
        # Every second one waits for something else first.
        now += 0.03 + (0.3 if number % 2 else 0.001)
        pace.spent(0.3 if number % 2 else 0.001, 10, now)
        assert pace.rest(now) == 0
    for _ in range(20):
        pace.spent(0.05, 500, now)
    assert pace.rest(now) > 0
