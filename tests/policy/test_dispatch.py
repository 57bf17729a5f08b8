"""The dispatcher's decision: its table, whom it chooses of several, and what it never does."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import dispatch, recovery, standing
from circus_failover.policy.dispatch import Job, Member, Plan, decide, natural, why_waiting
from circus_failover.policy.standing import Standing
from circus_failover.policy.standing import standing as standing_of
from circus_failover.words import Phase, State

NOW = 1_000_000.0


def agent(name: str, **changes: object) -> Member:
    """Return an agent of pool `coders` that is free, unless it is said otherwise."""
    free = Member(
        identity=name,
        pool="coders",
        phase=Phase.UP,
        state=State.IDLE,
        tells=True,
        busy=False,
        account="work",
        account_limited=False,
        observed=False,
        stay_stopped=False,
        ended_by_itself=False,
        launched_at=NOW - 9000,
        last_used=None,
    )
    return replace(free, **changes)  # type: ignore[arg-type]


def busy(name: str, **changes: object) -> Member:
    return agent(name, busy=True, state=State.WORKING, **changes)


def parked(name: str, **changes: object) -> Member:
    return agent(name, phase=Phase.PARKED, state=None, **changes)


def starting(name: str, **changes: object) -> Member:
    return agent(name, phase=Phase.STARTING, state=None, **changes)


def held(name: str, **changes: object) -> Member:
    return agent(name, phase=Phase.HELD, state=None, **changes)


def job(number: int, avoid: Sequence[str] = (), *, wanted: str | None = None, pool: str = "coders") -> Job:
    return Job(number, f"job-{number}", wanted, None if wanted else pool, frozenset(avoid))


def told(plan: Plan) -> dict[int, str]:
    """Return what a plan does about each assignment, by its number."""
    assert all(step.reason for step in (*plan.gives, *plan.starts))
    return {
        **{give.number: f"give {give.identity}" for give in plan.gives},
        **{start.number: f"start {start.identity}" for start in plan.starts},
    }


def table() -> list[tuple[str, str]]:
    """Return the rows of the table in the module's docstring: agents, what is done."""
    assert dispatch.__doc__ is not None
    lines = [line for line in dispatch.__doc__.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    assert all(len(row) == 2 for row in rows)
    return rows  # type: ignore[return-value]


# The first words of each line of the table, and agents for which exactly that is done about an assignment.
EXAMPLES: dict[str, list[list[Member]]] = {
    "one is free": [
        [agent("a")],
        [starting("c"), parked("b"), agent("a")],
        [busy("b"), held("c"), agent("a")],
    ],
    "one is coming": [[starting("a")], [parked("b"), starting("a"), busy("c")]],
    "one is asleep": [[parked("a")], [busy("b"), parked("a"), held("c")]],
    "otherwise": [
        [],
        [busy("a")],
        [held("a"), agent("b", state=State.WAITING)],
        [agent("a", phase=Phase.DOWN, ended_by_itself=True)],
        [parked("a", launched_at=NOW - 1)],
        [agent("a", pool="testers"), agent("b", pool=None)],
    ],
}


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    agents = [row[0] for row in table()]
    assert len(agents) == len(EXAMPLES)
    for text, start in zip(agents, EXAMPLES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize(
    "row, members", [(index, members) for index, found in enumerate(EXAMPLES.values()) for members in found]
)
def test_the_table_says_what_becomes_of_an_assignment(row: int, members: list[Member]) -> None:
    verdict = told(decide([job(1)], members, NOW)).get(1, "wait")
    assert verdict.split()[0] == table()[row][1]
    assert verdict in ("wait", "give a", "start a")


# -- whom, of several ------------------------------------------------------------------------------------

CHOICES: list[tuple[str, list[Member], str]] = [
    ("by the number in its name", [agent("ccl-10"), agent("ccl-2")], "give ccl-2"),
    (
        "the least loaded account",
        [agent("a"), busy("b"), agent("c", account="home", last_used=NOW)],
        "give c",
    ),
    (
        "coming counts as load",
        [agent("a"), starting("b", pool=None), agent("c", account="home")],
        "give c",
    ),
    ("load of another pool counts", [agent("a"), busy("b", pool="x"), agent("c", account="home")], "give c"),
    (
        "who was used the longest ago",
        [agent("a", last_used=NOW - 5), agent("b", last_used=NOW - 9)],
        "give b",
    ),
    ("who was never used", [agent("a", last_used=NOW - 9), agent("b")], "give b"),
    ("agents without an account are one", [agent("a", account=None), agent("b", account="home")], "give a"),
    ("asleep: by the number in its name", [parked("ccl-11"), parked("ccl-9", last_used=NOW)], "start ccl-9"),
    ("asleep: the least loaded account", [parked("a"), busy("b"), parked("c", account="home")], "start c"),
    ("avoided, another is free", [agent("a"), agent("b", last_used=NOW)], "give b"),
    ("avoided, another is busy", [agent("a"), busy("b")], "wait"),
    ("avoided, another is asleep", [agent("a"), parked("b")], "start b"),
    ("avoided, another is coming", [agent("a"), starting("b"), parked("c")], "wait"),
    ("avoided, all others are out", [agent("a"), held("b"), agent("c", pool="x")], "give a"),
    ("avoided and asleep, all others are out", [parked("a"), agent("b", state=State.LIMITED)], "start a"),
    ("avoided and coming, another is asleep", [starting("a"), parked("b")], "start b"),
]


@pytest.mark.parametrize("members, chosen", [row[1:] for row in CHOICES], ids=[row[0] for row in CHOICES])
@pytest.mark.parametrize("turned", [False, True], ids=["", "in another order"])
def test_of_several_agents_one_is_chosen_whatever_their_order(
    request: pytest.FixtureRequest, members: list[Member], chosen: str, turned: bool
) -> None:
    avoid = ["a"] if "avoided" in request.node.name else []
    given_to = members[::-1] if turned else members
    assert told(decide([job(1, avoid)], given_to, NOW)).get(1, "wait") == chosen


def test_assignments_given_at_once_are_spread_over_the_accounts() -> None:
    members = [agent(f"w-{n}") for n in range(4)] + [agent(f"h-{n}", account="home") for n in range(4)]
    given_to = decide([job(n) for n in range(4)], members, NOW).gives
    assert Counter(give.identity[0] for give in given_to) == {"w": 2, "h": 2}


def test_agents_started_at_once_are_spread_over_the_accounts() -> None:
    members = [parked(f"w-{n}") for n in range(4)] + [parked(f"h-{n}", account="home") for n in range(4)]
    started = decide([job(n) for n in range(4)], members, NOW).starts
    assert Counter(start.identity[0] for start in started) == {"w": 2, "h": 2}


@pytest.mark.parametrize(
    "names",
    [["ccl-2", "ccl-10"], ["a", "a-0"], ["1", "a"], ["a-02", "a-3"], ["a-2", "a-2-1", "a-2-10", "a-11"]],
)
def test_names_are_ordered_as_people_order_them(names: list[str]) -> None:
    turned = names[::-1]
    assert sorted(turned, key=natural) == names


# -- several assignments ---------------------------------------------------------------------------------


def test_one_whose_agent_is_busy_keeps_none_behind_it_back() -> None:
    jobs = [job(1, wanted="a"), job(2, wanted="a"), job(3), job(4, wanted="c")]
    members = [busy("a"), agent("b"), agent("c", pool=None)]
    assert told(decide(jobs, members, NOW)) == {3: "give b", 4: "give c"}


def test_one_pool_without_anybody_keeps_no_other_pool_back() -> None:
    jobs = [job(1, pool="testers"), job(2), job(3, pool="nobodys")]
    assert told(decide(jobs, [busy("t", pool="testers"), agent("a")], NOW)) == {2: "give a"}


def test_for_each_that_waits_one_agent_is_started_less_those_that_are_starting() -> None:
    members = [starting("a"), starting("b"), *(parked(f"p-{n}") for n in range(9)), agent("free")]
    plan = decide([job(n) for n in range(1, 6)], members, NOW)
    assert told(plan) == {1: "give free", 4: "start p-0", 5: "start p-1"}


def test_an_agent_that_just_came_up_is_waited_for_until_it_was_looked_at() -> None:
    fresh = agent("a", busy=True, assigned=False, state=None, launched_at=NOW - 3)
    assert told(decide([job(1)], [fresh, parked("b")], NOW)) == {}
    assert told(decide([job(1), job(2)], [fresh, parked("b")], NOW)) == {2: "start b"}
    works = replace(fresh, assigned=True)
    assert told(decide([job(1)], [works, parked("b")], NOW)) == {1: "start b"}


def test_an_agent_that_is_starting_for_its_own_assignment_is_not_counted_for_another() -> None:
    jobs = [job(1, wanted="a"), job(2)]
    assert told(decide(jobs, [starting("a"), parked("b")], NOW)) == {2: "start b"}
    # Whoever comes first gets it: then nobody is started for the one behind it.
    assert told(decide(jobs[::-1], [starting("a"), parked("b")], NOW)) == {}


def test_whom_one_assignment_avoids_another_gets() -> None:
    members = [agent("a"), busy("b")]
    assert told(decide([job(1, ["a"]), job(2)], members, NOW)) == {2: "give a"}
    assert told(decide([job(1, ["a"]), job(2, ["b"])], members, NOW)) == {2: "give a"}


def test_an_assignment_that_avoids_somebody_gets_nobody_who_has_one_just_now() -> None:
    members = [agent("a"), agent("b", last_used=NOW)]
    assert told(decide([job(1, wanted="b"), job(2, ["a"])], members, NOW)) == {1: "give b"}
    assert told(decide([job(1, ["a"]), job(2, ["a"])], members, NOW)) == {1: "give b"}


def test_an_assignment_by_name_wakes_an_agent_that_has_tasks_and_one_for_its_pool_does_not() -> None:
    member = parked("a", busy=True, assigned=False)
    assert told(decide([job(1, wanted="a")], [member], NOW)) == {1: "start a"}
    assert told(decide([job(1)], [member], NOW)) == {}


def test_an_assignment_by_name_goes_to_nobody_else() -> None:
    for member in (held("a"), busy("a"), agent("a", phase=Phase.DOWN, ended_by_itself=True)):
        assert told(decide([job(1, wanted="a")], [member, agent("b")], NOW)) == {}


# -- why it waits -----------------------------------------------------------------------------------------

WAITING: list[tuple[Job, list[Member], str]] = [
    (job(1, wanted="a"), [], "no agent is named a"),
    (job(1, wanted="a"), [busy("a")], "it is for a, which is busy"),
    (job(1, wanted="a"), [held("a")], "it is for a, which is held"),
    (job(1, wanted="a"), [agent("a", stay_stopped=True)], "it is for a, which is stopped by an operator"),
    (
        job(1, wanted="a"),
        [agent("a", account_limited=True)],
        "it is for a, which is on an account that has reached a limit or is not logged in",
    ),
    (job(1), [agent("a", pool="x")], "pool coders has no agents"),
    (job(1), [agent("a"), busy("b")], "its turn has not come; of 2 agents in pool coders: 1 free, 1 busy"),
    (
        job(1),
        [busy("a"), busy("b"), held("c"), agent("d", state=State.WAITING)],
        "none of 4 agents in pool coders can take it: 2 busy, 1 held, 1 waiting for a person",
    ),
    (
        job(1, ["a"]),
        [agent("a"), busy("b")],
        "none of 2 agents in pool coders can take it: 1 free, 1 busy; it was taken back from a",
    ),
    (Job(1, "job-1", None, None), [agent("a")], "it is for no agent and no pool"),
]


@pytest.mark.parametrize("waiting, members, words", WAITING, ids=[row[2] for row in WAITING])
def test_it_is_said_why_an_assignment_waits(waiting: Job, members: list[Member], words: str) -> None:
    assert why_waiting(waiting, members, NOW) == words


# -- whatever there is ------------------------------------------------------------------------------------

names = [f"coder-{number}" for number in range(4, 12)]
times = st.one_of(st.none(), st.integers(-100, 500).map(lambda ago: NOW - ago))
members_ = st.lists(
    st.builds(
        Member,
        identity=st.sampled_from(names),
        pool=st.sampled_from(["coders", "coders", "coders", "testers", None]),
        phase=st.one_of(st.sampled_from([Phase.UP, Phase.UP, Phase.PARKED]), st.sampled_from(Phase)),
        state=st.one_of(st.just(State.IDLE), st.none(), st.sampled_from(State)),
        tells=st.booleans(),
        busy=st.sampled_from([False, False, True]),
        account=st.sampled_from(["work", "home", None]),
        account_limited=st.sampled_from([False, False, False, True]),
        observed=st.sampled_from([False, False, False, True]),
        stay_stopped=st.sampled_from([False, False, False, True]),
        ended_by_itself=st.sampled_from([False, False, True]),
        launched_at=times,
        last_used=times,
        assigned=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda member: member.identity,
)
jobs_ = st.lists(
    st.one_of(
        st.tuples(
            st.none(),
            st.sampled_from(["coders", "coders", "testers", "nobodys", None]),
            st.frozensets(st.sampled_from(names), max_size=2) | st.just(frozenset()),
        ),
        st.tuples(st.sampled_from([*names, "nobody"]), st.none(), st.just(frozenset())),
    ),
    max_size=12,
).map(lambda found: [Job(number, f"job-{number}", *each) for number, each in enumerate(found, 1)])


def free_ones(members: Sequence[Member]) -> set[str]:
    return {one.identity for one in members if standing_of(one, NOW).standing is Standing.FREE}


@given(jobs_, members_)
def test_no_assignment_goes_to_two_agents_and_no_agent_gets_two(
    jobs: list[Job], members: list[Member]
) -> None:
    plan = decide(jobs, members, NOW)
    steps = [*plan.gives, *plan.starts]
    assert len({step.number for step in steps}) == len(steps)
    assert len({step.identity for step in steps}) == len(steps)


@given(jobs_, members_)
def test_only_who_is_free_gets_one_and_only_who_may_have_it(jobs: list[Job], members: list[Member]) -> None:
    by_number, by_name = {one.number: one for one in jobs}, {one.identity: one for one in members}
    plan = decide(jobs, members, NOW)
    assert {give.identity for give in plan.gives} <= free_ones(members)
    for step in (*plan.gives, *plan.starts):
        chosen, member = by_number[step.number], by_name[step.identity]
        assert member.identity == chosen.wanted or (chosen.wanted is None and member.pool == chosen.pool)
        assert not (member.observed or member.stay_stopped or member.account_limited)
    for start in plan.starts:
        found = standing_of(by_name[start.identity], NOW, named=by_number[start.number].wanted is not None)
        assert found.standing is Standing.ASLEEP


@given(jobs_, members_)
def test_of_assignments_for_the_same_agents_none_overtakes_another(
    jobs: list[Job], members: list[Member]
) -> None:
    plan = decide(jobs, members, NOW)
    # 0: it was given; 1: somebody comes or is started for it, or it waits.
    rank = {give.number: 0 for give in plan.gives}
    for key in {(one.wanted, one.pool, one.avoid) for one in jobs}:
        same = [rank.get(one.number, 1) for one in jobs if (one.wanted, one.pool, one.avoid) == key]
        assert same == sorted(same)


@given(jobs_, members_)
def test_nobody_is_free_while_an_assignment_that_it_may_have_waits(
    jobs: list[Job], members: list[Member]
) -> None:
    plan = decide(jobs, members, NOW)
    done = {give.number for give in plan.gives}
    left = free_ones(members) - {give.identity for give in plan.gives}
    for one in jobs:
        if one.number not in done and one.wanted is not None:
            assert one.wanted not in left
        elif one.number not in done:
            mine = {member.identity for member in members if member.pool == one.pool is not None}
            assert not (mine & left) - one.avoid


@given(jobs_, members_)
def test_no_more_are_started_than_assignments_wait_less_the_agents_that_are_coming(
    jobs: list[Job], members: list[Member]
) -> None:
    jobs = [one for one in jobs if one.wanted is None and not one.avoid]
    plan = decide(jobs, members, NOW)
    pools = {one.number: one.pool for one in jobs}
    for pool in ("coders", "testers"):
        waiting = list(pools.values()).count(pool) - sum(pools[give.number] == pool for give in plan.gives)
        coming = [
            member
            for member in members
            if member.pool == pool and standing_of(member, NOW).standing is Standing.COMING
        ]
        assert sum(pools[start.number] == pool for start in plan.starts) <= max(0, waiting - len(coming))


@given(jobs_, members_, st.randoms(use_true_random=False))
def test_the_order_in_which_agents_are_listed_changes_nothing(
    jobs: list[Job], members: list[Member], random: object
) -> None:
    mixed = members[:]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    first, second = decide(jobs, members, NOW), decide(jobs, mixed, NOW)
    assert first == second


@given(jobs_, members_)
def test_every_assignment_can_be_said_something_of(jobs: list[Job], members: list[Member]) -> None:
    assert all(why_waiting(one, members, NOW) for one in jobs)


def test_the_plan_stays_small_when_thousands_wait() -> None:
    members = [agent(f"coder-{n}", account=f"account-{n % 7}", busy=n % 2 == 0) for n in range(500)]
    jobs = [job(n, [f"coder-{n % 500}"]) if n % 100 == 0 else job(n) for n in range(10_000)]
    plan = decide(jobs, members, NOW)
    assert len(plan.gives) == 250 and plan.starts == ()
    assert max(give.number for give in plan.gives) < 260


@pytest.mark.parametrize("module", [dispatch, standing, recovery])
def test_the_module_imports_nothing_that_touches_the_world(module: object) -> None:
    tree = ast.parse(Path(str(getattr(module, "__file__", ""))).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {"circus_failover.words", "circus_failover.policy.standing"}
    library = {
        "__future__",
        "collections",
        "collections.abc",
        "dataclasses",
        "functools",
        "heapq",
        "re",
        "typing",
    }
    assert imported <= library | ours
