"""Who is nudged or ended for its silence: the table, read from the module line by line, and what never is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import heartbeat
from circus_failover.policy.heartbeat import (
    TYPED_SECS,
    Beat,
    Evidence,
    HeartbeatAction,
    HeartbeatVerdict,
    Thresholds,
    Told,
    Work,
    after,
    decide,
    interrupted,
    waits_too_long,
)
from circus_failover.policy.idle import Clock
from circus_failover.words import Phase, State

NOW = 1_000_000.0
PROMISES = Thresholds(True, 300.0, 900.0, 1800.0, 1800.0, nudge_no_progress=False)
FREE = replace(PROMISES, contract=False)
NEVER = Thresholds(True, 0.0, 0.0, 0.0, 0.0, nudge_no_progress=True)
WORK = Work("w1", taken_at=NOW - 8000, changed_at=NOW - 7000)
ALIVE = Evidence(
    phase=Phase.UP,
    observed=False,
    wedged=False,
    tells=False,
    state=None,
    question="",
    looked=False,
    work=WORK,
    proven=True,
    launched_at=NOW - 9000,
    ready_at=NOW - 8900,
    beat=Beat(NOW - 10),
    activity=None,
    terminal=NOW - 10,
    typed_at=NOW - 8000,
)
STUCK = replace(ALIVE, beat=Beat(NOW - 1801))
LATE = replace(ALIVE, beat=Beat(NOW - 901))
TELLING = replace(STUCK, tells=True, looked=True, state=State.WORKING, activity=NOW - 10)
SILENT = replace(ALIVE, beat=Beat(), terminal=NOW - 901)
IDLE_LONG = replace(ALIVE, beat=Beat(), terminal=NOW - 1801)
ASKS = replace(TELLING, state=State.WAITING, question="permission: Bash")
NOTHING = Told()
Case = tuple[Thresholds, Evidence, Told, float | None]


def case(
    evidence: Evidence, thresholds: Thresholds = PROMISES, told: Told = NOTHING, floor: float | None = None
) -> Case:
    return thresholds, evidence, told, floor


def table() -> list[tuple[str, str]]:
    """Return the rows of the table in the module's docstring: evidence, action."""
    assert heartbeat.__doc__ is not None
    lines = [line for line in heartbeat.__doc__.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    assert all(len(row) == 2 for row in rows)
    return rows  # type: ignore[return-value]


# The first words of each line of the table, and evidence to which exactly that line applies.
EXAMPLES: list[tuple[str, list[Case]]] = [
    (
        "observed",
        [case(replace(STUCK, observed=True)), case(replace(STUCK, observed=True, phase=Phase.DOWN))],
    ),
    ("not up", [case(replace(STUCK, phase=phase)) for phase in Phase if phase is not Phase.UP]),
    ("its tmux server", [case(replace(STUCK, wedged=True)), case(replace(STUCK, state=State.WEDGED))]),
    (
        "it waits for somebody, and that",
        [
            case(ASKS),
            case(ASKS, told=Told(question="another one")),
            case(replace(ASKS, work=None)),
            case(replace(ASKS, question="", looked=False)),
        ],
    ),
    (
        "it waits for somebody, or",
        [case(ASKS, told=Told(question="permission: Bash")), case(replace(TELLING, state=State.LIMITED))],
    ),
    ("it has no assignment", [case(replace(STUCK, work=None)), case(replace(IDLE_LONG, work=None), FREE)]),
    (
        "its process, or when",
        [
            case(replace(STUCK, proven=False)),
            case(replace(STUCK, launched_at=None)),
            case(replace(STUCK, ready_at=None)),
        ],
    ),
    (
        "its launch became ready less",
        [
            case(
                replace(STUCK, ready_at=NOW - 299, launched_at=NOW - 9000), replace(PROMISES, stuck_secs=1.0)
            ),
            case(
                replace(STUCK, ready_at=NOW + 50, launched_at=NOW - 9000), replace(PROMISES, stuck_secs=1.0)
            ),
        ],
    ),
    (
        "its heartbeat cannot",
        [case(replace(STUCK, beat=Beat(failed="Permission denied"), terminal=NOW - 8000))],
    ),
    (
        "nothing is due",
        [
            case(ALIVE),
            case(replace(ALIVE, beat=Beat(NOW - 900))),
            case(replace(ALIVE, tells=True, state=State.UNKNOWN)),
            case(replace(ALIVE, tells=True, activity=None, looked=True, state=State.UNKNOWN), FREE),
            # Ages count from the taking of the assignment, from the launch's being ready, from a jump.
            case(replace(STUCK, work=Work("w1", NOW - 10, NOW - 10))),
            case(replace(STUCK, ready_at=NOW - 850)),
            case(STUCK, floor=NOW - 10),
            case(STUCK, floor=NOW + 10),
            # A beat that lies ahead is one of now; what is told once is not told again.
            case(replace(STUCK, beat=Beat(NOW + 5000))),
            case(LATE, told=Told(nudged=NOW - 901)),
            case(IDLE_LONG, FREE, Told(no_progress=NOW - 1801, silent=NOW - 1801)),
            case(SILENT, FREE, Told(silent=NOW - 901)),
            case(replace(SILENT, terminal=None), FREE),
            case(replace(STUCK, terminal=NOW - 8000), NEVER),
            case(replace(IDLE_LONG, terminal=NOW - 10), FREE),
        ],
    ),
    (
        "its runtime tells what it does, and nobody",
        [
            case(replace(TELLING, looked=False)),
            case(replace(TELLING, looked=False, state=None)),
            case(replace(TELLING, looked=False, activity=NOW - 5000), FREE),
        ],
    ),
    (
        "its runtime tells what it does, and that",
        [
            case(replace(TELLING, state=State.UNKNOWN)),
            case(replace(TELLING, state=None)),
            case(replace(TELLING, state=State.UNKNOWN, activity=NOW - 5000), FREE),
        ],
    ),
    (
        "its heartbeat is older than `stuck_secs`",
        [
            case(STUCK),
            case(TELLING),
            case(replace(TELLING, state=State.IDLE)),
            case(STUCK, told=Told(nudged=NOW - 1801)),
            case(replace(STUCK, beat=Beat())),
            # Older than the launch: no beat of it.
            case(replace(STUCK, beat=Beat(NOW - 9001))),
            case(STUCK, floor=NOW - 1801),
        ],
    ),
    (
        "no progress for more",
        [
            case(IDLE_LONG, FREE),
            case(IDLE_LONG, FREE, Told(no_progress=NOW - 1802)),
            case(replace(STUCK, terminal=NOW - 1801), replace(PROMISES, stuck_secs=0.0)),
            case(replace(TELLING, activity=NOW - 1801, terminal=NOW), FREE),
            # What it shows because something was typed into it is no progress.
            case(replace(IDLE_LONG, terminal=NOW - 10, typed_at=NOW - 12), FREE),
        ],
    ),
    (
        "its heartbeat is older than `nudge_secs`",
        [
            case(LATE),
            case(LATE, told=Told(nudged=NOW - 902)),
            case(replace(LATE, tells=True, looked=True, state=State.IDLE, activity=NOW)),
            case(replace(LATE, beat=Beat(), work=Work("w1", NOW - 901, NOW - 901))),
        ],
    ),
    (
        "no heartbeat contract",
        [
            case(SILENT, FREE),
            case(SILENT, FREE, Told(silent=NOW - 902)),
            case(replace(TELLING, activity=NOW - 901, terminal=NOW - 901), FREE),
        ],
    ),
    ("otherwise", [case(replace(TELLING, beat=Beat(NOW)))]),
]


def test_every_line_of_the_table_has_examples_in_its_order() -> None:
    rows = table()
    assert len(rows) == len(EXAMPLES)
    for (text, _), (start, _) in zip(rows, EXAMPLES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize("row, one", [(row, one) for row, (_, cases) in enumerate(EXAMPLES) for one in cases])
def test_the_table_says_what_is_done(row: int, one: Case) -> None:
    verdict = decide(*one, NOW)
    assert verdict.action is HeartbeatAction(table()[row][1])
    assert verdict.reason


@pytest.mark.parametrize(
    "thresholds, evidence, told, nudged",
    [
        (PROMISES, LATE, NOTHING, True),
        (FREE, IDLE_LONG, NOTHING, False),
        (replace(FREE, nudge_no_progress=True), IDLE_LONG, NOTHING, True),
        (replace(FREE, nudge_no_progress=True), IDLE_LONG, Told(nudged=NOW - 1801), False),
        (
            replace(PROMISES, stuck_secs=0.0, nudge_no_progress=True),
            replace(STUCK, terminal=NOW - 1801),
            NOTHING,
            True,
        ),
        (
            replace(PROMISES, stuck_secs=0.0, nudge_no_progress=True),
            replace(STUCK, terminal=NOW - 1801),
            Told(nudged=NOW - 1801),
            False,
        ),
        (PROMISES, STUCK, NOTHING, False),
    ],
)
def test_it_is_nudged_for_no_progress_only_by_setting_and_once(
    thresholds: Thresholds, evidence: Evidence, told: Told, nudged: bool
) -> None:
    assert decide(thresholds, evidence, told, None, NOW).nudge is nudged


def test_an_episode_is_told_once_and_ends_with_a_newer_sign() -> None:
    told, beat, done = NOTHING, NOW - 901, []
    for moment in (NOW, NOW + 15, NOW + 30):
        evidence = replace(ALIVE, beat=Beat(beat), terminal=moment)
        verdict = decide(PROMISES, evidence, told, None, moment)
        told = after(PROMISES, evidence, told, verdict, moment)
        done.append(str(verdict.action))
    assert done == ["nudge", "alive", "alive"]
    later = NOW + 2000
    evidence = replace(ALIVE, beat=Beat(later - 901), terminal=later)
    assert decide(PROMISES, evidence, told, None, later).action is HeartbeatAction.NUDGE


def test_the_echo_of_a_nudge_does_not_end_the_episode_that_it_was_typed_for() -> None:
    nudging = replace(FREE, nudge_no_progress=True)
    verdict = decide(nudging, IDLE_LONG, NOTHING, None, NOW)
    assert (verdict.action, verdict.nudge) == (HeartbeatAction.NO_PROGRESS, True)
    told = after(nudging, IDLE_LONG, NOTHING, verdict, NOW)
    typed, later = NOW + 5, NOW + 4000
    echo = replace(IDLE_LONG, typed_at=typed, terminal=typed + 3)
    assert decide(nudging, echo, told, None, later).action is HeartbeatAction.ALIVE
    went_on = replace(echo, terminal=typed + TYPED_SECS + 1)
    assert decide(nudging, went_on, told, None, later).action is HeartbeatAction.NO_PROGRESS


def test_a_question_is_told_once_for_as_long_as_it_stands() -> None:
    told, done = NOTHING, []
    for evidence in (ASKS, ASKS, replace(ASKS, question="trust"), replace(TELLING, beat=Beat(NOW)), ASKS):
        verdict = decide(PROMISES, evidence, told, None, NOW)
        told = after(PROMISES, evidence, told, verdict, NOW)
        done.append(str(verdict.action))
    assert done == ["waiting", "leave", "waiting", "alive", "waiting"]


ago = st.one_of(st.none(), st.integers(-100, 10_000).map(lambda secs: NOW - secs))
some_secs = st.sampled_from([0.0, 60.0, 900.0, 1800.0])
thresholds_ = st.builds(
    Thresholds,
    contract=st.booleans(),
    grace_secs=st.sampled_from([0.0, 300.0]),
    nudge_secs=some_secs,
    stuck_secs=some_secs,
    progress_secs=some_secs,
    nudge_no_progress=st.booleans(),
)
evidences = st.builds(
    Evidence,
    phase=st.sampled_from([Phase.UP, Phase.UP, Phase.UP, Phase.STOPPING, Phase.DOWN]),
    observed=st.sampled_from([False, False, False, True]),
    wedged=st.sampled_from([False, False, False, True]),
    tells=st.booleans(),
    state=st.one_of(st.none(), st.sampled_from(State)),
    question=st.sampled_from(["", "trust"]),
    looked=st.booleans(),
    work=st.one_of(
        st.none(),
        st.builds(
            Work,
            id=st.just("w1"),
            taken_at=st.integers(0, 10_000).map(lambda secs: NOW - secs),
            changed_at=st.integers(0, 10_000).map(lambda secs: NOW - secs),
        ),
    ),
    proven=st.sampled_from([True, True, True, False]),
    launched_at=ago,
    ready_at=ago,
    beat=st.builds(Beat, at=ago, failed=st.sampled_from(["", "", "no such device"])),
    activity=ago,
    terminal=ago,
    typed_at=ago,
)
tolds = st.builds(
    Told,
    nudged=ago,
    no_progress=ago,
    silent=ago,
    question=st.sampled_from([None, "trust"]),
    progress=st.just(0.0),
)


@given(thresholds_, evidences, tolds, ago)
def test_only_a_broken_contract_with_work_and_a_proven_launch_ever_leads_to_an_end(
    thresholds: Thresholds, evidence: Evidence, told: Told, floor: float | None
) -> None:
    verdict = decide(thresholds, evidence, told, floor, NOW)
    if verdict.action is not HeartbeatAction.STUCK:
        return
    work, beat = evidence.work, evidence.beat
    assert thresholds.contract and work is not None and evidence.proven
    assert evidence.phase is Phase.UP and not evidence.observed and not evidence.wedged
    assert not beat.failed
    assert evidence.state not in (State.WAITING, State.LIMITED, State.WEDGED)
    assert not evidence.tells or (evidence.looked and evidence.state not in (None, State.UNKNOWN))
    launched, ready = evidence.launched_at, evidence.ready_at
    assert launched is not None and ready is not None
    limit = NOW - thresholds.stuck_secs
    assert thresholds.stuck_secs > 0 and ready < limit and work.taken_at < limit
    assert ready <= NOW - thresholds.grace_secs
    assert beat.at is None or beat.at < launched or beat.at < limit
    assert floor is None or floor < limit


@given(thresholds_, evidences, tolds, ago, st.sampled_from(["beat", "work", "ready", "floor"]))
def test_any_sign_of_this_moment_keeps_it_from_being_ended_or_nudged(
    thresholds: Thresholds, evidence: Evidence, told: Told, floor: float | None, what: str
) -> None:
    if what == "beat":
        evidence = replace(evidence, beat=Beat(NOW))
    elif what == "work":
        evidence = replace(evidence, work=Work("w1", NOW, NOW))
    elif what == "ready":
        evidence = replace(evidence, ready_at=NOW)
    else:
        floor = NOW
    if evidence.launched_at is not None and evidence.launched_at > NOW:
        evidence = replace(evidence, launched_at=NOW)
    verdict = decide(thresholds, evidence, told, floor, NOW)
    assert verdict.action is not HeartbeatAction.STUCK
    assert not (thresholds.contract and verdict.nudge)


@given(thresholds_, evidences, tolds, ago)
def test_what_was_carried_out_is_not_due_again_at_once(
    thresholds: Thresholds, evidence: Evidence, told: Told, floor: float | None
) -> None:
    verdict = decide(thresholds, evidence, told, floor, NOW)
    again = decide(thresholds, evidence, after(thresholds, evidence, told, verdict, NOW), floor, NOW)
    once = (
        HeartbeatAction.WAITING,
        HeartbeatAction.NUDGE,
        HeartbeatAction.NO_PROGRESS,
        HeartbeatAction.SILENT,
    )
    assert again.action not in once or again.action is not verdict.action
    assert not (verdict.nudge and again.nudge)


@given(thresholds_, evidences, tolds, ago)
def test_the_age_is_never_negative(
    thresholds: Thresholds, evidence: Evidence, told: Told, floor: float | None
) -> None:
    verdict: HeartbeatVerdict = decide(thresholds, evidence, told, floor, NOW)
    assert verdict.age is None or verdict.age >= 0


@pytest.mark.parametrize(
    "wall, steady, counts_anew",
    [(15.0, 15.0, False), (40.0, 40.0, False), (3600.0, 15.0, True), (-60.0, 15.0, True), (51.0, 51.0, True)],
    ids=["a tick", "a late tick", "a suspend", "the clock set back", "a host that stood still"],
)
def test_a_host_that_stood_still_is_noticed(wall: float, steady: float, counts_anew: bool) -> None:
    before, now = Clock(NOW, 500.0), Clock(NOW + wall, 500.0 + steady)
    assert interrupted(before, now, 15.0) is counts_anew


@pytest.mark.parametrize(
    "queued, longest, floor, age",
    [
        (NOW - 3601, 3600.0, None, 3601.0),
        (NOW - 3600, 3600.0, None, None),
        (NOW - 3601, 0.0, None, None),
        (NOW - 9000, 3600.0, NOW - 10, None),
        (NOW - 9000, 3600.0, NOW - 3700, 3700.0),
        (NOW + 9000, 3600.0, None, None),
    ],
)
def test_what_waits_in_a_queue_for_too_long_is_told(
    queued: float, longest: float, floor: float | None, age: float | None
) -> None:
    assert waits_too_long(queued, longest, floor, NOW) == age
