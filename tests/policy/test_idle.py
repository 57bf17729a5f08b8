"""The idle reaper's decision: its table, read from the module line by line, and what it never does."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import crash_loop, idle, incident, respawn
from circus_failover.policy.idle import (
    MAX_AGE_QUIET_SECS,
    Clock,
    Evidence,
    IdleAction,
    IdleSettings,
    Probe,
    clock_jumped,
    decide,
)
from circus_failover.words import Phase, State

NOW = 1_000_000.0
HOUR = IdleSettings(3600.0, 0.0)
NEVER = IdleSettings(0.0, 0.0)
DAILY = IdleSettings(0.0, 86_400.0)
BOTH = IdleSettings(3600.0, 86_400.0)
QUIET = Probe(attached=0, tool_children=0)
SEEN_IDLE = Probe(attached=0, tool_children=0, state=State.IDLE)
IDLE = Evidence(
    phase=Phase.UP,
    observed=False,
    state=State.IDLE,
    ready_at=NOW - 9000,
    last_activity=NOW - 3601,
    last_task=NOW - 5000,
    last_attached=NOW - 6000,
    tasks_waiting=0,
    assignment=False,
    probe=QUIET,
)
OLD = replace(IDLE, ready_at=NOW - 86_401, last_activity=NOW - 60, last_task=None, last_attached=None)
Case = tuple[IdleSettings, Evidence, float | None]


def table() -> list[tuple[str, str]]:
    """Return the rows of the table in the module's docstring: evidence, action."""
    assert idle.__doc__ is not None
    lines = [line for line in idle.__doc__.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    assert all(len(row) == 2 for row in rows)
    return rows  # type: ignore[return-value]


# The first words of each line of the table, and evidence to which exactly that line applies.
EXAMPLES: dict[str, list[Case]] = {
    "observed": [
        (HOUR, replace(IDLE, observed=True), None),
        (HOUR, replace(IDLE, observed=True, phase=Phase.OBSERVED), None),
    ],
    "not up": [
        (HOUR, replace(IDLE, phase=phase), None) for phase in Phase if phase not in (Phase.UP, Phase.OBSERVED)
    ],
    "never parked": [(NEVER, IDLE, None), (NEVER, replace(IDLE, tasks_waiting=1), None)],
    "tasks wait": [(HOUR, replace(IDLE, tasks_waiting=1, assignment=True), None)],
    "it has an assignment": [(HOUR, replace(IDLE, assignment=True, state=State.WORKING), None)],
    "its state is": [
        (HOUR, replace(IDLE, state=state), None)
        for state in (State.WORKING, State.WAITING, State.LIMITED, State.STUCK, State.WEDGED)
    ],
    "its runtime tells": [
        (HOUR, replace(IDLE, probe=replace(QUIET, state=state)), None)
        for state in State
        if state is not State.IDLE
    ]
    + [
        (BOTH, replace(OLD, state=None, probe=replace(QUIET, state=State.UNKNOWN)), None),
        (HOUR, replace(IDLE, probe=replace(QUIET, state=State.WORKING, last_activity=NOW)), None),
        (HOUR, replace(IDLE, probe=Probe(1, 3, state=State.WAITING)), None),
    ],
    "its last activity cannot be told": [
        (HOUR, replace(IDLE, last_activity=None), None),
        (BOTH, replace(OLD, last_activity=None, probe=None), NOW - 90_000),
    ],
    "not idle for long enough": [
        (HOUR, replace(IDLE, last_activity=NOW - 3600), None),
        (HOUR, replace(IDLE, last_activity=NOW), None),
        (HOUR, replace(IDLE, last_task=NOW - 3600), None),
        (HOUR, replace(IDLE, last_attached=NOW - 3600), None),
        (HOUR, replace(IDLE, ready_at=NOW - 3600), None),
        (HOUR, IDLE, NOW - 3600),
        (HOUR, replace(IDLE, last_activity=NOW - 3599, probe=None), None),
        (HOUR, replace(IDLE, probe=replace(SEEN_IDLE, last_activity=NOW - 3600)), None),
        (BOTH, replace(OLD, probe=replace(SEEN_IDLE, last_activity=NOW - 59)), None),
        (HOUR, replace(IDLE, last_activity=NOW - 3599, probe=Probe(None, None, "no answer")), None),
        (HOUR, replace(IDLE, last_activity=NOW + 50), None),
        (HOUR, replace(IDLE, last_task=NOW + 50), None),
        (HOUR, replace(IDLE, last_activity=NOW + 50), NOW - 100),
        (HOUR, IDLE, NOW + 50),
        (HOUR, OLD, None),
        (DAILY, IDLE, None),
        (DAILY, replace(IDLE, ready_at=NOW - 86_400), None),
        (DAILY, replace(IDLE, ready_at=None), None),
        (DAILY, replace(IDLE, ready_at=NOW + 50), NOW - 7200),
        (DAILY, replace(OLD, last_activity=NOW - 59), None),
        (BOTH, replace(OLD, last_task=NOW - 59), None),
        (BOTH, OLD, NOW - 59),
    ],
    "no probe was made": [
        (HOUR, replace(IDLE, probe=None), None),
        (BOTH, replace(OLD, probe=None), None),
        (DAILY, replace(OLD, probe=None), NOW - 60),
    ],
    "the probe failed": [
        (HOUR, replace(IDLE, probe=Probe(0, 0, "no answer within 2 s")), None),
        (HOUR, replace(IDLE, probe=Probe(1, None, "no answer within 2 s")), None),
    ],
    "a client is attached": [
        (HOUR, replace(IDLE, probe=Probe(1, 0)), None),
        (HOUR, replace(IDLE, probe=Probe(None, 0)), None),
        (DAILY, replace(OLD, probe=Probe(2, 3)), None),
    ],
    "a tool still runs": [
        (HOUR, replace(IDLE, probe=Probe(0, 1)), None),
        (HOUR, replace(IDLE, probe=Probe(0, None)), None),
        (DAILY, replace(OLD, probe=Probe(0, 2)), None),
    ],
    "otherwise": [
        (HOUR, replace(IDLE, probe=replace(QUIET, state=State.IDLE)), None),
        (HOUR, replace(IDLE, state=None, probe=replace(SEEN_IDLE, last_activity=NOW - 3601)), None),
        (HOUR, IDLE, None),
        (HOUR, IDLE, NOW - 3601),
        (HOUR, replace(IDLE, state=None), None),
        (HOUR, replace(IDLE, state=State.UNKNOWN), None),
        (HOUR, replace(IDLE, ready_at=None, last_task=None, last_attached=None), None),
        (HOUR, replace(IDLE, last_activity=NOW + 50), NOW - 3601),
        (DAILY, OLD, None),
        (BOTH, OLD, NOW - 60),
        (IdleSettings(30.0, 86_400.0), replace(OLD, last_activity=NOW - 31), None),
    ],
}


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    evidence = [row[0] for row in table()]
    assert len(evidence) == len(EXAMPLES)
    for text, start in zip(evidence, EXAMPLES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize(
    "row, case", [(index, case) for index, cases in enumerate(EXAMPLES.values()) for case in cases]
)
def test_the_table_says_what_is_done(row: int, case: Case) -> None:
    settings, evidence, floor = case
    verdict = decide(settings, evidence, floor, NOW)
    assert verdict.action is IdleAction(table()[row][1])
    assert verdict.reason


@pytest.mark.parametrize(
    "settings, evidence, floor, words",
    [
        (HOUR, replace(IDLE, tasks_waiting=2), None, "tasks wait for it: 2"),
        (HOUR, replace(IDLE, assignment=True), None, "assignment"),
        (HOUR, replace(IDLE, state=State.LIMITED), None, "its state is limited"),
        (HOUR, replace(IDLE, last_activity=None), None, "last activity cannot be told"),
        (HOUR, replace(IDLE, last_activity=NOW - 12.5), None, "idle for 12.5 of 3600 s"),
        (HOUR, replace(IDLE, probe=Probe(0, 0, "no answer")), None, "no answer"),
        (HOUR, replace(IDLE, probe=Probe(2, 0)), None, "attached clients: 2"),
        (HOUR, replace(IDLE, probe=Probe(None, 0)), None, "attached cannot be told"),
        (HOUR, replace(IDLE, probe=Probe(0, 3)), None, "processes of tools: 3"),
        (HOUR, replace(IDLE, probe=Probe(0, None)), None, "cannot be told"),
        (
            HOUR,
            replace(IDLE, probe=replace(QUIET, state=State.WAITING, seen="permission: Bash")),
            None,
            "seen to be waiting: permission: Bash",
        ),
        (HOUR, IDLE, None, "idle for 3601 s, failover.idle_secs is 3600"),
        (DAILY, OLD, None, "old: launched 86401 s ago, failover.max_age_secs is 86400; idle for 60 s"),
        (DAILY, replace(OLD, last_activity=NOW - 9), None, "old: launched 86401 s ago, but idle for 9 of 60"),
        (DAILY, IDLE, None, "launched 9000 of 86400 s ago"),
        (DAILY, replace(IDLE, ready_at=None), None, "its age cannot be told"),
        (BOTH, replace(OLD, last_activity=NOW - 3601), None, "idle for 3601 s, failover.idle_secs is 3600"),
    ],
)
def test_the_reason_names_what_decided(
    settings: IdleSettings, evidence: Evidence, floor: float | None, words: str
) -> None:
    assert words in decide(settings, evidence, floor, NOW).reason


@pytest.mark.parametrize(
    "evidence, floor, age",
    [
        (IDLE, None, 3601),
        (replace(IDLE, last_task=NOW - 7), None, 7),
        (replace(IDLE, last_attached=NOW - 7), None, 7),
        (replace(IDLE, ready_at=NOW - 7), None, 7),
        (IDLE, NOW - 7, 7),
        (IDLE, NOW + 7, 0),
        (replace(IDLE, last_task=NOW + 7), None, 0),
        (replace(IDLE, last_task=NOW + 7), NOW - 20, 20),
        (replace(IDLE, tasks_waiting=1), None, 3601),
        (replace(IDLE, last_activity=None), None, None),
        (replace(IDLE, phase=Phase.DOWN), None, None),
    ],
)
def test_the_age_is_counted_from_the_newest_sign_of_life(
    evidence: Evidence, floor: float | None, age: float | None
) -> None:
    assert decide(HOUR, evidence, floor, NOW).age == age


def test_after_a_suspend_or_a_clock_jump_one_whole_idle_time_passes_anew() -> None:
    long_idle = replace(IDLE, last_activity=NOW - 50_000, ready_at=NOW - 90_000)
    jump = NOW
    for waited, action in [(0, IdleAction.YOUNG), (3600, IdleAction.YOUNG), (3601, IdleAction.PARK)]:
        assert decide(HOUR, long_idle, jump, jump + waited).action is action


ago = st.one_of(st.none(), st.integers(-100, 100_000).map(lambda secs: NOW - secs))
evidences = st.builds(
    Evidence,
    phase=st.sampled_from([Phase.UP, Phase.UP, Phase.UP, Phase.DOWN, Phase.STOPPING]),
    observed=st.sampled_from([False, False, False, True]),
    state=st.one_of(st.none(), st.sampled_from(State)),
    ready_at=ago,
    last_activity=ago,
    last_task=ago,
    last_attached=ago,
    tasks_waiting=st.sampled_from([0, 0, 0, 1]),
    assignment=st.sampled_from([False, False, False, True]),
    probe=st.one_of(
        st.none(),
        st.just(QUIET),
        st.builds(
            Probe,
            attached=st.sampled_from([None, 0, 1]),
            tool_children=st.sampled_from([None, 0, 1]),
            failed=st.sampled_from(["", "no answer"]),
            state=st.one_of(st.none(), st.just(State.IDLE), st.sampled_from(State)),
            last_activity=ago,
        ),
    ),
)
settings_ = st.builds(
    IdleSettings, idle_secs=st.sampled_from([0.0, 60.0, 3600.0]), max_age_secs=st.sampled_from([0.0, 7200.0])
)


@given(settings_, evidences, ago)
def test_nothing_is_parked_without_every_proof(
    settings: IdleSettings, evidence: Evidence, floor: float | None
) -> None:
    verdict = decide(settings, evidence, floor, NOW)
    if verdict.action is not IdleAction.PARK:
        return
    assert evidence.phase is Phase.UP and not evidence.observed
    assert evidence.state in (None, State.IDLE, State.UNKNOWN)
    assert evidence.last_activity is not None
    assert not evidence.tasks_waiting and not evidence.assignment
    probe = evidence.probe
    assert probe is not None and replace(probe, state=None, seen="", last_activity=None) == QUIET
    assert probe.state in (None, State.IDLE)
    assert probe.last_activity is None or probe.last_activity <= NOW - verdict.age or floor is not None
    assert verdict.age is not None
    idle_enough = 0 < settings.idle_secs < verdict.age
    old = (
        evidence.ready_at is not None
        and 0 < settings.max_age_secs < NOW - evidence.ready_at
        and verdict.age >= MAX_AGE_QUIET_SECS
    )
    assert idle_enough or old


@given(settings_, evidences, ago)
def test_the_probe_is_asked_for_exactly_where_it_can_decide(
    settings: IdleSettings, evidence: Evidence, floor: float | None
) -> None:
    asks = decide(settings, replace(evidence, probe=None), floor, NOW).action is IdleAction.PROBE
    parks = decide(settings, replace(evidence, probe=QUIET), floor, NOW).action is IdleAction.PARK
    assert asks == parks


LIVELY: list[Callable[[Evidence], Evidence]] = [
    lambda evidence: replace(evidence, last_activity=NOW),
    lambda evidence: replace(evidence, last_task=NOW),
    lambda evidence: replace(evidence, last_attached=NOW),
    lambda evidence: replace(evidence, probe=replace(QUIET, last_activity=NOW)),
]


@given(settings_, evidences, ago, st.sampled_from(LIVELY))
def test_a_sign_of_life_this_moment_keeps_it_up(
    settings: IdleSettings, evidence: Evidence, floor: float | None, moved: Callable[[Evidence], Evidence]
) -> None:
    assert decide(settings, moved(evidence), floor, NOW).action not in (IdleAction.PARK, IdleAction.PROBE)


@given(settings_, evidences, ago)
def test_the_age_is_never_negative(settings: IdleSettings, evidence: Evidence, floor: float | None) -> None:
    age = decide(settings, evidence, floor, NOW).age
    assert age is None or age >= 0


@pytest.mark.parametrize(
    "wall, steady, jumped",
    [
        (30.0, 30.0, False),
        (32.0, 30.0, False),
        (32.1, 30.0, True),
        (28.0, 30.0, False),
        (27.9, 30.0, True),
        (3630.0, 30.0, True),
        (-3600.0, 30.0, True),
        (30.0, 0.0, True),
    ],
    ids=[
        "none",
        "just",
        "forward",
        "just back",
        "back",
        "a suspend",
        "set back an hour",
        "steady stood still",
    ],
)
def test_a_jump_is_when_the_wall_clock_moved_otherwise_than_the_steady_one(
    wall: float, steady: float, jumped: bool
) -> None:
    before = Clock(NOW, 500.0)
    assert clock_jumped(before, Clock(NOW + wall, 500.0 + steady)) is jumped


@pytest.mark.parametrize("module", [idle, crash_loop, respawn, incident])
def test_the_module_imports_nothing_that_touches_the_world(module: object) -> None:
    tree = ast.parse(Path(str(getattr(module, "__file__", ""))).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {"circus_failover.words", "circus_failover.policy.crash_loop"}
    assert names <= {"__future__", "collections.abc", "dataclasses", "datetime", "random"} | ours
