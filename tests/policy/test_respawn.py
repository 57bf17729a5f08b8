"""The restart policy's decision: its table, read from the module line by line, and its pace."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import respawn
from circus_failover.policy.crash_loop import Ended, LoopState
from circus_failover.policy.respawn import Fallen, RespawnAction, decide
from circus_failover.words import Cause, Loop, Phase, Restart

NOW = 1_000_000.0
DELAY_OF_BOB_7 = 1.151493
CLOSED = LoopState(Loop.CLOSED, None, 0)
OPEN = LoopState(Loop.OPEN, NOW + 25, 1)
TRIAL = LoopState(Loop.HALF_OPEN, None, 1)
GIVEN_UP = LoopState(Loop.GIVEN_UP, None, 5)


def end(ago: float, up_for: float | None = 5.0, planned: bool = False) -> Ended:
    """Return an end `ago` seconds before now, of a launch that was up for `up_for` (None: never)."""
    at = NOW - ago
    return Ended(7, None if up_for is None else at - up_for, at, planned, str(Cause.SIGNALED), None)


EXIT_0 = replace(end(0), cause=str(Cause.EXITED), exit_status=0)
ALWAYS = Fallen(
    identity="bob",
    generation=7,
    phase=Phase.DOWN,
    stay_stopped=False,
    observed=False,
    restart=Restart.ALWAYS,
    loop=CLOSED,
    work=0,
    ended=(end(0),),
    stable_secs=300.0,
)
LAZY = replace(ALWAYS, restart=Restart.LAZY)
ON_WORK = replace(ALWAYS, restart=Restart.ON_WORK, work=1)
HELD = replace(ALWAYS, phase=Phase.HELD, loop=OPEN)


def table() -> list[tuple[str, str, str]]:
    """Return the rows of the table in the module's docstring: agent, action, when."""
    assert respawn.__doc__ is not None
    lines = [line for line in respawn.__doc__.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    assert all(len(row) == 3 for row in rows)
    return rows  # type: ignore[return-value]


# The first words of each line of the table, and agents to which exactly that line applies.
EXAMPLES: dict[str, list[Fallen]] = {
    "observed": [replace(ALWAYS, observed=True), replace(HELD, observed=True, stay_stopped=True)],
    "an operator stopped it": [
        replace(ALWAYS, stay_stopped=True),
        replace(ON_WORK, phase=Phase.STOPPED),
        replace(HELD, stay_stopped=True),
    ],
    "held, its crash loop is open": [
        HELD,
        replace(HELD, restart=Restart.LAZY),
        replace(HELD, loop=replace(OPEN, until=NOW - 5)),
        replace(HELD, loop=replace(OPEN, until=NOW + 9000)),
        replace(HELD, ended=()),
    ],
    "held, its crash loop is given up": [replace(HELD, loop=GIVEN_UP)],
    "held otherwise": [replace(HELD, loop=loop) for loop in (CLOSED, TRIAL)],
    "not down": [
        replace(ALWAYS, phase=phase)
        for phase in Phase
        if phase not in (Phase.DOWN, Phase.HELD, Phase.STOPPED)
    ],
    "never launched": [replace(ALWAYS, ended=()), replace(ON_WORK, ended=())],
    "its last end was asked for": [
        replace(ALWAYS, ended=(end(0, planned=True), end(9))),
        replace(LAZY, ended=(end(0, planned=True),), assigned=True),
        replace(ON_WORK, ended=(end(0, planned=True),)),
    ],
    "`lazy`, without an assignment": [LAZY, replace(LAZY, work=3), replace(LAZY, loop=TRIAL)],
    "`on-work`, without an assignment and without tasks": [
        replace(ON_WORK, work=0),
        replace(ON_WORK, work=0, loop=OPEN),
    ],
    "its crash loop permits no launch": [
        replace(ALWAYS, loop=OPEN),
        replace(ON_WORK, loop=GIVEN_UP),
        replace(LAZY, loop=OPEN, assigned=True),
    ],
    "otherwise": [
        ALWAYS,
        ON_WORK,
        replace(ALWAYS, work=2),
        replace(LAZY, assigned=True),
        replace(ON_WORK, work=0, assigned=True),
        replace(ALWAYS, ended=(EXIT_0,)),
        replace(ALWAYS, loop=TRIAL),
        replace(ALWAYS, loop=replace(OPEN, until=NOW)),
        replace(ALWAYS, ended=(end(5), end(9, planned=True))),
    ],
}


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    agents = [row[0] for row in table()]
    assert len(agents) == len(EXAMPLES)
    for text, start in zip(agents, EXAMPLES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize(
    "row, fallen", [(index, fallen) for index, agents in enumerate(EXAMPLES.values()) for fallen in agents]
)
def test_the_table_says_what_is_done(row: int, fallen: Fallen) -> None:
    _, action, when = table()[row]
    verdict = decide(fallen, NOW)
    assert verdict.action is RespawnAction(action)
    assert verdict.reason
    assert (verdict.at is None) == (when == "")


@pytest.mark.parametrize(
    "until, at", [(NOW + 25, NOW + 25), (NOW - 5, NOW - 5), (NOW + 600, NOW + 600), (NOW + 601, NOW)]
)
def test_a_hold_is_to_half_open_when_its_time_comes(until: float, at: float) -> None:
    assert decide(replace(HELD, loop=replace(OPEN, until=until)), NOW).at == at


ends = st.builds(
    end,
    ago=st.integers(-5000, 5000),
    up_for=st.one_of(st.none(), st.integers(-10, 1000)),
    planned=st.booleans(),
)
fallen_ = st.builds(
    Fallen,
    identity=st.sampled_from(["bob", "bob2", "a"]),
    generation=st.integers(0, 9),
    phase=st.sampled_from([Phase.DOWN, Phase.DOWN, Phase.HELD, *Phase]),
    stay_stopped=st.booleans(),
    observed=st.booleans(),
    restart=st.sampled_from(Restart),
    loop=st.sampled_from([CLOSED, OPEN, TRIAL, GIVEN_UP, replace(OPEN, until=None)]),
    work=st.integers(0, 2),
    ended=st.lists(ends, max_size=12),
    stable_secs=st.just(300.0),
    assigned=st.booleans(),
)


QUICK, LONG = end(1000), end(1000, up_for=300)
DELAYS: list[tuple[str, list[Ended], float]] = [
    ("one quick end", [QUICK], 1),
    ("two", [QUICK] * 2, 2),
    ("three, one never up", [QUICK, end(1000, up_for=None), QUICK], 4),
    ("six", [QUICK] * 6, 32),
    ("seven", [QUICK] * 7, 60),
    ("two thousand", [QUICK] * 2000, 60),
    ("a long launch", [LONG], 1),
    ("a long launch after quick ones", [LONG, QUICK, QUICK], 1),
    ("a quick one after a long launch", [QUICK, LONG, QUICK, QUICK], 1),
    ("two quick ones after a long launch", [QUICK, QUICK, LONG, QUICK], 2),
    ("a quick one after one that was asked for", [QUICK, end(1000, planned=True), QUICK], 1),
    ("exits with status 0", [replace(QUICK, cause=str(Cause.EXITED), exit_status=0)] * 3, 4),
]


@pytest.mark.parametrize("ended, delay", [row[1:] for row in DELAYS], ids=[row[0] for row in DELAYS])
def test_the_delay_doubles_with_each_quick_end_in_a_row(ended: list[Ended], delay: float) -> None:
    at = decide(replace(ALWAYS, ended=ended), NOW).at
    assert at is not None
    assert at - ended[0].ended_at == pytest.approx(delay * DELAY_OF_BOB_7, abs=1e-4)


@given(fallen_, st.sampled_from(Restart))
def test_with_an_assignment_every_restart_policy_brings_it_back_at_the_same_time(
    fallen: Fallen, restart: Restart
) -> None:
    always = decide(replace(fallen, restart=Restart.ALWAYS, assigned=True), NOW)
    verdict = decide(replace(fallen, restart=restart, assigned=True), NOW)
    assert (verdict.action, verdict.at) == (always.action, always.at)


@pytest.mark.parametrize(
    "fallen, words",
    [
        (LAZY, "lazy, and it has no assignment"),
        (replace(ON_WORK, work=0), "neither an assignment nor tasks"),
        (replace(LAZY, assigned=True), "lazy, and it has an assignment: 1.2 s after its end"),
        (replace(ON_WORK, work=2), "on-work, and tasks wait for it: 2: 1.2 s after its end"),
        (ALWAYS, "always: 1.2 s after its end, quick ends in a row: 1"),
    ],
)
def test_the_reason_says_which_work_brings_it_back_or_that_there_is_none(fallen: Fallen, words: str) -> None:
    assert words in decide(fallen, NOW).reason


def test_agents_that_died_together_do_not_come_back_together() -> None:
    times = {decide(replace(ALWAYS, identity=f"agent-{n}"), NOW).at for n in range(50)}
    assert len(times) == 50


def test_each_launch_of_an_agent_has_a_jitter_of_its_own() -> None:
    assert decide(ALWAYS, NOW).at != decide(replace(ALWAYS, generation=8), NOW).at


def test_the_time_is_the_same_at_every_tick_and_in_every_process() -> None:
    at = decide(ALWAYS, NOW).at
    assert all(decide(ALWAYS, NOW + later).at == at for later in (0.5, 1, 60, 3600))
    # Another process has another hash seed: only a number written down shows that it does not matter.
    assert at is not None and at - NOW == pytest.approx(DELAY_OF_BOB_7, abs=1e-6)


@pytest.mark.parametrize("ahead", [100, 4000, 10**8])
def test_a_clock_that_was_set_back_holds_nobody(ahead: float) -> None:
    verdict = decide(replace(ALWAYS, ended=(end(-ahead),)), NOW)
    assert (verdict.action, verdict.at) == (RespawnAction.LAUNCH, NOW)


@pytest.mark.parametrize("ahead, falls, wait", [(0.5, 1, 1), (60, 1, 1), (2, 9, 60)])
def test_an_end_a_moment_ahead_of_the_clock_keeps_its_delay(ahead: float, falls: int, wait: float) -> None:
    at = decide(replace(ALWAYS, ended=[end(-ahead)] * falls), NOW).at
    assert at == pytest.approx(NOW + ahead + wait * DELAY_OF_BOB_7, abs=1e-4)


def test_the_longest_wait_is_the_longest_delay_with_its_jitter() -> None:
    assert decide(replace(ALWAYS, ended=[end(-3)] * 9), NOW).at == NOW


@given(fallen_)
def test_no_policy_revives_what_was_parked_stopped_or_asked_to_end(fallen: Fallen) -> None:
    if decide(fallen, NOW).action is not RespawnAction.LAUNCH:
        return
    assert fallen.phase is Phase.DOWN
    assert not fallen.stay_stopped and not fallen.observed
    assert not fallen.ended[0].planned
    tasks_do = fallen.restart is Restart.ON_WORK and fallen.work > 0
    assert fallen.restart is Restart.ALWAYS or fallen.assigned or tasks_do
    assert fallen.loop in (CLOSED, TRIAL, replace(OPEN, until=None))


@given(fallen_)
def test_a_respawn_comes_at_least_a_second_after_the_end_and_within_the_longest_wait(fallen: Fallen) -> None:
    verdict = decide(fallen, NOW)
    if verdict.action is not RespawnAction.LAUNCH:
        return
    assert verdict.at is not None
    assert verdict.at - NOW <= 72
    if verdict.at != NOW:
        assert 1 <= verdict.at - fallen.ended[0].ended_at < 72


@given(fallen_, st.integers(0, 9000))
def test_a_launch_that_is_wanted_is_due_in_the_end(fallen: Fallen, later: int) -> None:
    verdict = decide(fallen, NOW)
    if verdict.action is not RespawnAction.LAUNCH or fallen.ended[0].ended_at > NOW:
        return
    after = decide(fallen, NOW + 72 + later)
    assert after.action is RespawnAction.LAUNCH
    assert after.at is not None and after.at <= NOW + 72 + later
