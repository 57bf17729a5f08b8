"""On which account an agent goes on, read from the module's tables line by line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import account_choice
from circus_failover.policy.account_choice import LEFT_SECS, TWICE_SECS, Candidate, Need, Place, choose
from circus_failover.words import AccountState

NOW = 1_000_000.0
A = Candidate("a", "claude", AccountState.AVAILABLE, headroom=0.3)
B = replace(A, name="b", headroom=0.9)
NEED = Need("claude", "a")
FAILING = replace(NEED, failing=True, failing_until=NOW + 60)
MORE = replace(NEED, headroom=True)
LEFT = replace(B, left_at=NOW - 299)


def tables() -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of the two tables in the module's docstring."""
    assert account_choice.__doc__ is not None
    lines = [line for line in account_choice.__doc__.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    second = rows.index(["accounts", "chosen"])
    return rows[2:second], rows[second + 2 :]


# The first words of each line, and needs and accounts to which exactly that line applies.
EXAMPLES: dict[str, list[tuple[Need, Candidate]]] = {
    "of another runtime": [
        (NEED, replace(B, runtime="codex", state=AccountState.LIMITED)),
        (NEED, replace(A, runtime="codex")),
    ],
    "not logged in": [
        (NEED, replace(A, state=AccountState.CREDENTIALS)),
        (NEED, replace(B, state=AccountState.CREDENTIALS, hindrance="no login")),
    ],
    "limited": [
        (NEED, replace(A, state=AccountState.LIMITED, until=NOW + 9)),
        (NEED, replace(B, state=AccountState.LIMITED)),
        (MORE, replace(B, state=AccountState.LIMITED, hindrance="full of holes", headroom=1.0)),
    ],
    "kept from working": [
        (NEED, replace(A, hindrance="no projects")),
        (FAILING, replace(B, hindrance="no login", agents=9, max_agents=1)),
    ],
    "the current one, and": [(FAILING, A), (FAILING, replace(A, left_at=NOW - 5, headroom=1.0))],
    "the current one": [
        (NEED, A),
        (NEED, replace(A, state=AccountState.UNKNOWN, agents=9, max_agents=2, left_at=NOW - 1)),
        (NEED, replace(A, state=AccountState.OVERLOADED, headroom=0.0)),
        (MORE, A),
    ],
    "`max_agents`": [
        (NEED, replace(B, agents=2, max_agents=2)),
        (FAILING, replace(LEFT, agents=3, max_agents=2)),
    ],
    "it left it less": [
        (FAILING, LEFT),
        (NEED, replace(LEFT, since=NOW - 300)),
        (MORE, replace(LEFT, left_at=NOW, headroom=1.0)),
        (FAILING, replace(LEFT, answered_at=NOW - 299)),
        (FAILING, replace(LEFT, answered_at=NOW - 9, left_before=NOW - 599)),
    ],
    "more headroom is looked for": [
        (MORE, replace(B, headroom=0.39)),
        (MORE, replace(B, headroom=0.0)),
    ],
    "any other": [
        (NEED, B),
        (NEED, replace(B, agents=1, max_agents=2, state=AccountState.OVERLOADED)),
        (FAILING, replace(LEFT, since=NOW - 298)),
        (FAILING, replace(LEFT, answered_at=NOW - 298)),
        (FAILING, replace(LEFT, answered_at=NOW - 298, left_before=NOW - TWICE_SECS)),
        (FAILING, replace(LEFT, since=NOW - 298, left_before=NOW - 400)),
        (FAILING, replace(LEFT, left_at=NOW - LEFT_SECS)),
        (FAILING, replace(LEFT, left_at=NOW + 1)),  # the clock was set back
        (MORE, replace(B, headroom=0.4)),
        (MORE, replace(B, headroom=None)),
        (Need("claude", None, headroom=True), replace(A, headroom=0.0)),
    ],
}


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    accounts = [row[0] for row in tables()[0]]
    assert len(accounts) == len(EXAMPLES)
    for text, start in zip(accounts, EXAMPLES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize(
    "row, need, one",
    [(index, *example) for index, examples in enumerate(EXAMPLES.values()) for example in examples],
)
def test_the_table_says_what_an_account_is_to_an_agent(row: int, need: Need, one: Candidate) -> None:
    here = [A] if need.headroom and one.name != "a" else []
    choice = choose(need, [one, *here], NOW)
    found = next((what for what in choice.considered if what.name == one.name), None)
    expected = tables()[0][row][1]
    if row == 0:
        assert found is None and choice.account is None
        return
    assert found is not None and found.why
    assert str(found.place) == expected.split()[0]
    if "until its reset" in expected:
        assert found.until == (need.failing_until if one.name == "a" and need.failing else one.until)
    elif "until then" in expected:
        assert found.until is not None and found.until == (one.left_at or 0.0) + LEFT_SECS
    else:
        assert found.until is None


def test_the_second_table_says_which_is_chosen() -> None:
    limited = replace(B, state=AccountState.LIMITED, until=NOW + 5)
    examples = [
        choose(NEED, [A, B], NOW).account == "a",
        choose(FAILING, [A, B], NOW).account == choose(MORE, [A, B], NOW).account == "b",
        choose(MORE, [A, limited], NOW).account == "a",
        choose(FAILING, [A, limited], NOW).account is None,
    ]
    assert examples == [True] * len(tables()[1])


def test_of_several_the_best_is_chosen_and_it_is_said_why() -> None:
    free = [
        replace(A, name="d", headroom=0.5, agents=1),
        replace(A, name="c", headroom=None, agents=1, used_at=5.0),
        replace(A, name="e", headroom=0.5, agents=2),
    ]
    need = Need("claude", "gone")
    assert choose(need, [*free, replace(B, agents=40)], NOW).reason.startswith("b: the most headroom of 4; ")
    assert choose(need, [*free, replace(A, name="f", headroom=0.5)], NOW).account == "f"
    never_used = choose(need, free, NOW)
    assert (never_used.account, never_used.reason[:29]) == ("d", "d: used the longest ago of 3;")
    assert choose(need, [replace(one, used_at=None) for one in free], NOW).account == "c"
    assert choose(need, [B], NOW).reason.startswith("b: the only one that can be used; ")


def test_when_every_account_is_exhausted_it_is_said_what_is_with_each_and_when_the_first_one_resets() -> None:
    first = replace(A, state=AccountState.LIMITED, limit_name="5-hour", until=NOW + 60)
    later = replace(B, state=AccountState.LIMITED, until=NOW + 600)
    out = replace(B, name="c", state=AccountState.CREDENTIALS)
    choice = choose(NEED, [out, later, first], NOW)
    assert (choice.account, choice.earliest) == (None, NOW + 60)
    assert choice.reason == (
        "no account of the runtime claude can be used: a: limited (5-hour), resets 1970-01-12T13:47:40Z; "
        "b: limited, resets 1970-01-12T13:56:40Z; c: not logged in"
    )
    assert choice.others("a") == "b: limited, resets 1970-01-12T13:56:40Z; c: not logged in"
    assert choose(NEED, [out, replace(first, until=None)], NOW).earliest is None
    assert choose(FAILING, [A, LEFT], NOW).earliest == NOW + 1 < NOW + 60, "or when it may return to one"


moments = st.one_of(st.none(), st.floats(NOW - 2 * LEFT_SECS, NOW + LEFT_SECS))
accounts = st.lists(
    st.builds(
        Candidate,
        name=st.sampled_from("abcdef"),
        runtime=st.sampled_from(["claude", "claude", "claude", "codex"]),
        state=st.sampled_from(AccountState),
        until=moments,
        since=moments,
        hindrance=st.sampled_from(["", "", "", "no login"]),
        agents=st.integers(0, 3),
        max_agents=st.one_of(st.none(), st.integers(1, 3)),
        headroom=st.one_of(st.none(), st.floats(0, 1)),
        used_at=moments,
        answered_at=moments,
        left_at=moments,
        left_before=moments,
    ),
    max_size=6,
    unique_by=lambda one: one.name,
)
needs = st.builds(
    Need,
    runtime=st.just("claude"),
    current=st.sampled_from([None, *"abcdef"]),
    failing=st.booleans(),
    failing_until=moments,
    headroom=st.booleans(),
)


@given(needs, accounts)
def test_no_account_is_chosen_on_which_nothing_can_be_done(need: Need, found: list[Candidate]) -> None:
    choice = choose(need, found, NOW)
    one = next((one for one in found if one.name == choice.account), None)
    if one is None:
        assert choice.account is None
        return
    assert one.runtime == need.runtime and not one.state.exhausted and not one.hindrance
    if one.name != need.current:
        assert one.max_agents is None or one.agents < one.max_agents
    else:
        assert not need.failing
    assert [what.place for what in choice.considered if what.name == one.name] != [Place.OUT]


def moved(found: list[Candidate], source: str | None, to: str) -> list[Candidate]:
    """Return the accounts after an agent has gone from one to another, and nothing else was learned."""
    return [
        replace(
            one,
            agents=one.agents + (one.name == to),
            left_at=NOW if one.name == source else one.left_at,
            used_at=NOW if one.name == to else one.used_at,
        )
        for one in found
    ]


@given(needs, accounts, st.floats(0, 2 * LEFT_SECS))
def test_as_long_as_nothing_else_is_learned_an_agent_moves_at_most_once_and_never_back(
    need: Need, found: list[Candidate], later: float
) -> None:
    first = choose(need, found, NOW)
    if first.account is None:
        return
    then = moved(found, need.current, first.account)
    again = replace(need, current=first.account, failing=False)
    assert choose(again, then, NOW).account == first.account
    if first.account != need.current:
        assert choose(again, then, NOW + later).account not in (None, need.current)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.integers(1, 20))
def test_agents_that_only_look_for_headroom_come_to_rest_whatever_is_used_up_meanwhile(
    rooms: list[float], spent: int
) -> None:
    """Each stay uses up a little; two accounts that are nearly exhausted are not worth a move."""
    found = [Candidate(name, "claude", headroom=room) for name, room in zip("abcde", rooms, strict=False)]
    here, moves, now = "a", 0, NOW
    for _ in range(spent):
        choice = choose(Need("claude", here, headroom=True), found, now)
        assert choice.account is not None
        if choice.account != here:
            moves += 1
            found = moved(found, here, choice.account)
            here = choice.account
        found = [
            replace(one, headroom=max(0.0, (one.headroom or 0.0) - 0.01)) if one.name == here else one
            for one in found
        ]
        now += 1.0
    assert moves <= len(rooms) - 1, "within 300 s it returns to none"
