"""Which notices a target is told of, and when: reads like the table at the head of the policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from circus_failover.policy import telling
from circus_failover.policy.telling import GIVEN_UP_SECS, MOST_WAITING, SAME_SECS, Item, Progress, Rules

NOW = 1_000_000.0


def item(number: int, kind: str = "held", about: str | None = None, at: float = NOW, **more: object) -> Item:
    identity = about if about is not None else f"a-{number}"
    return Item(number, at, at, kind, identity or None, identity, f"{identity} {kind}", **more)  # type: ignore[arg-type]


def taken(*items: Item, rules: Rules | None = None, now: float = NOW, **progress: object) -> Progress:
    before = Progress(0, **progress)  # type: ignore[arg-type]
    return telling.take_in(rules or Rules(), before, items, now)


def told(rules: Rules, progress: Progress, now: float) -> tuple[Progress, list[int]]:
    """Tell all that may be told at a moment, with a target that takes everything."""
    ids = []
    while (verdict := telling.decide(rules, progress, now)).message:
        ids.append(len(verdict.message))
        progress = telling.delivered(telling.begun(progress, verdict.message), now)
    return progress, ids


# -- the filter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "kind", "about", "wanted"),
    [
        (Rules(), "held", "coder-1", True),
        (Rules(only=frozenset({"held"})), "held", "coder-1", True),
        (Rules(only=frozenset({"held"})), "stuck", "coder-1", False),
        (Rules(excepted=frozenset({"held"})), "held", "coder-1", False),
        (Rules(excepted=frozenset({"held"})), "stuck", "coder-1", True),
        (Rules(agents=("coder-*",)), "held", "coder-1", True),
        (Rules(agents=("coder-?", "x")), "held", "coder-10", False),
        (Rules(agents=("coder-*",)), "all-limited", "", True),
    ],
)
def test_a_target_is_told_of_what_its_filter_lets_through(
    rules: Rules, kind: str, about: str, wanted: bool
) -> None:
    assert telling.wanted(rules, item(1, kind, about)) is wanted


def test_a_notice_about_several_agents_is_told_when_one_of_them_is_wanted() -> None:
    rules = Rules(agents=("coder-*",))
    assert telling.wanted(rules, item(1, "server-death", "", detail={"agents": ["x", "coder-2"]}))
    assert not telling.wanted(rules, item(1, "server-death", "", detail={"agents": ["x", "y"]}))


def test_what_the_filter_leaves_out_is_passed_for_good() -> None:
    progress = taken(item(7, "stuck"), rules=Rules(only=frozenset({"held"})))
    assert (progress.cursor, progress.waiting) == (7, ())


# -- the same thing again -----------------------------------------------------------------------------


def told_twice_more() -> Progress:
    """Return how far a target is that was told of something, which has happened twice since."""
    progress, ids = told(Rules(), taken(item(1, about="a")), NOW)
    assert ids == [1]
    for number in (2, 3):
        at = NOW + 100.0 * number
        progress = telling.take_in(Rules(), progress, [item(number, about="a", at=at)], at)
        assert telling.decide(Rules(), progress, at).message == ()
    return progress


def test_the_same_thing_within_ten_minutes_is_counted_and_told_with_the_next() -> None:
    at = NOW + SAME_SECS
    progress = telling.take_in(Rules(), told_twice_more(), [item(4, about="a", at=at)], at)
    (message,) = telling.decide(Rules(), progress, at).message
    assert (message.id, message.count) == (4, 3)


def test_what_was_counted_is_told_after_ten_minutes_though_nothing_more_happens() -> None:
    early = telling.take_in(Rules(), told_twice_more(), [], NOW + SAME_SECS - 1)
    assert telling.decide(Rules(), early, NOW + SAME_SECS - 1).message == ()
    progress = telling.take_in(Rules(), early, [], NOW + SAME_SECS)
    (message,) = telling.decide(Rules(), progress, NOW + SAME_SECS).message
    assert (message.id, message.count) == (3, 2)
    progress, _ = told(Rules(), progress, NOW + SAME_SECS)
    later = telling.take_in(Rules(), progress, [], NOW + 3 * SAME_SECS)
    assert later.waiting == () and later.known == {}


def test_the_same_thing_that_still_waits_is_told_once_with_its_newest_words() -> None:
    progress = taken(item(1, about="a"), replace(item(2, about="a"), text="newer"), not_before=NOW + 9)
    (waiting,) = progress.waiting
    assert (waiting.id, waiting.text, waiting.count) == (2, "newer", 2)


def test_another_kind_or_another_agent_is_another_thing() -> None:
    items = (item(1, "held", "a"), item(2, "stuck", "a"), item(3, "held", "b"))
    assert [one.id for one in taken(*items).waiting] == [1, 2, 3]


def test_what_happens_while_its_message_is_under_way_is_no_second_message() -> None:
    progress = taken(item(1, about="a"))
    progress = telling.begun(progress, progress.waiting)
    progress = telling.take_in(Rules(), progress, [item(2, about="a", at=NOW + 1)], NOW + 1)
    progress = telling.delivered(progress, NOW + 2)
    assert telling.decide(Rules(), progress, NOW + 2).message == ()
    assert progress.known["held a"].more == 1


# -- how many messages --------------------------------------------------------------------------------


def test_a_few_notices_are_told_one_by_one_in_order() -> None:
    progress, ids = told(Rules(), taken(*(item(number) for number in range(1, 7))), NOW)
    assert ids == [1] * 6
    assert progress.waiting == ()


def test_more_at_once_than_there_is_room_for_are_one_digest() -> None:
    _, ids = told(Rules(), taken(*(item(number) for number in range(1, 501))), NOW)
    assert ids == [MOST_WAITING]


def test_after_a_burst_what_comes_is_collected_and_told_in_one_digest() -> None:
    rules = Rules(burst=2, burst_secs=300.0, digest_secs=60.0)
    progress, ids = told(rules, taken(item(1), item(2)), NOW)
    assert ids == [1, 1]
    for number in (3, 4, 5):
        progress = telling.take_in(rules, progress, [item(number)], NOW + number)
        assert telling.decide(rules, progress, NOW + number) == telling.Verdict(at=NOW + 3 + 60.0)
    verdict = telling.decide(rules, progress, NOW + 63.0)
    assert verdict.digest and [one.id for one in verdict.message] == [3, 4, 5]


def test_when_there_is_room_again_it_is_told_one_by_one() -> None:
    rules = Rules(burst=1, burst_secs=50.0, digest_secs=1000.0)
    progress, _ = told(rules, taken(item(1)), NOW)
    progress = telling.take_in(rules, progress, [item(2)], NOW + 10)
    assert telling.decide(rules, progress, NOW + 10).at == NOW + 50.0
    verdict = telling.decide(rules, progress, NOW + 50.0)
    assert (len(verdict.message), verdict.digest) == (1, False)


def test_between_two_messages_there_is_the_least_time_that_was_asked_for() -> None:
    rules = Rules(min_interval_secs=30.0)
    progress, ids = told(rules, taken(item(1), rules=rules), NOW)
    assert ids == [1]
    progress = telling.take_in(rules, progress, [item(2), item(3)], NOW + 1)
    assert telling.decide(rules, progress, NOW + 1) == telling.Verdict(at=NOW + 30.0)
    verdict = telling.decide(rules, progress, NOW + 30.0)
    assert verdict.digest and len(verdict.message) == 2


def test_while_a_message_is_under_way_no_other_is_begun() -> None:
    progress = taken(item(1), item(2))
    progress = telling.begun(progress, progress.waiting[:1])
    assert telling.decide(Rules(), progress, NOW) == telling.Verdict()


def test_what_there_is_no_room_for_stays_in_the_store() -> None:
    progress = taken(*(item(number) for number in range(1, MOST_WAITING + 50)))
    assert (len(progress.waiting), progress.cursor) == (MOST_WAITING, MOST_WAITING)


# -- failures -----------------------------------------------------------------------------------------


def test_what_was_not_taken_is_told_again_later_and_later_up_to_ten_minutes() -> None:
    progress, now, waits = taken(item(1)), NOW, []
    for _ in range(14):
        verdict = telling.decide(Rules(), progress, now)
        assert len(verdict.message) == 1
        progress = telling.failed(telling.begun(progress, verdict.message), now)
        assert telling.decide(Rules(), progress, now).message == ()
        at = telling.decide(Rules(), progress, now).at
        assert at is not None
        waits.append(at - now)
        now = at
    assert waits[:5] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert waits[-1] == 600.0 == max(waits)


def test_a_message_that_was_taken_ends_the_waiting() -> None:
    progress = telling.failed(telling.begun(taken(item(1)), taken(item(1)).waiting), NOW)
    progress = telling.delivered(telling.begun(progress, progress.waiting), NOW + 1)
    assert (progress.failures, progress.not_before) == (0, 0.0)


def test_what_failed_is_told_before_what_came_later() -> None:
    progress = taken(item(1), item(2))
    progress = telling.failed(telling.begun(progress, progress.waiting[:1]), NOW)
    assert [one.id for one in telling.decide(Rules(), progress, NOW + 1).message] == [1]


def test_what_was_tried_for_a_day_is_dropped_and_nothing_else() -> None:
    progress = taken(item(1), not_before=NOW + GIVEN_UP_SECS + 600)
    progress = telling.take_in(Rules(), progress, [item(2)], NOW + 60)
    verdict = telling.decide(Rules(), progress, NOW + GIVEN_UP_SECS)
    assert [one.id for one in verdict.dropped] == [1]
    left = telling.dropped(progress, verdict.dropped)
    assert [one.id for one in left.waiting] == [2]


def test_a_target_that_waits_for_a_retry_is_looked_at_again_when_a_notice_is_to_be_dropped() -> None:
    progress = taken(item(1), not_before=NOW + GIVEN_UP_SECS + 100)
    late = NOW + GIVEN_UP_SECS - 100
    assert telling.decide(Rules(), progress, late).at == NOW + GIVEN_UP_SECS


# -- the clock ----------------------------------------------------------------------------------------


def test_a_clock_that_was_set_back_keeps_nobody_waiting() -> None:
    day = 86400.0
    late = Progress(0, sent=(NOW + day,) * 6, not_before=NOW + day)
    rules = Rules(min_interval_secs=10.0)
    progress = telling.take_in(rules, late, [item(1)], NOW)
    assert len(telling.decide(rules, progress, NOW).message) == 1
    full = Progress(0, sent=(NOW,) * 6, waiting=(replace(item(1), since=NOW + day),))
    assert len(telling.decide(Rules(), full, NOW).message) == 1


def test_what_is_known_of_a_thing_is_forgotten_when_it_says_nothing_any_more() -> None:
    progress, _ = told(Rules(), taken(item(1)), NOW)
    later = telling.take_in(Rules(), progress, [], NOW + SAME_SECS)
    assert later.known == {}
