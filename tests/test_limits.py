"""What the gate says of an account that is exhausted, and what circusd finds to be done about an agent."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circus_failover import agent_settings, limit_verdicts, limits, process_table
from circus_failover.agent import Agent
from circus_failover.agent_health import Seen
from circus_failover.policy import accounts
from circus_failover.policy.accounts import Known, Usage
from circus_failover.policy.dispatch import Job
from circus_failover.policy.failover import LimitAction
from circus_failover.policy.health import Fault, Health
from circus_failover.records import AgentRow, LaunchRow
from circus_failover.settings import Account, Settings, Shared
from circus_failover.store import Store
from circus_failover.words import AccountState, Cause, FaultKind, Phase, State

HERE = process_table.identify(os.getpid())
ACCOUNTS = ("one", "two", "three")


class Case:
    """An agent on account `one` of three; a test says what is known of them, and what it does."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.now = folder, time.time()
        self.known: dict[str, Known] = {}
        self.wrong: dict[str, str] = {}
        self.looked_at: list[str] = []
        self.jobs: list[Job] = []
        self.work = self.tasks = False
        self.max_agents: dict[str, int] = {}
        self.agent = self.other("bob")
        self.held: Any = SimpleNamespace(
            accounts=SimpleNamespace(known=self._known, exhausted=self._exhausted, headroom=self._headroom),
            switches=SimpleNamespace(check=self._check),
            assignments=SimpleNamespace(
                of=lambda agent: self.work or None,
                records=SimpleNamespace(book=SimpleNamespace(jobs=lambda: self.jobs)),
            ),
            deliveries=SimpleNamespace(waiting=lambda agent: [1] if self.tasks else []),
            roster=SimpleNamespace(agents={"bob": self.agent}),
            store=store,
        )

    def other(self, name: str, phase: Phase = Phase.UP, account: str = "one", **options: str) -> Agent:
        """Return an agent that is up on an account, or is not up."""
        assert HERE is not None
        row = AgentRow(
            *(name, str(phase)),
            generation=3,
            launch="l3",
            pid=HERE.pid,
            pid_start=HERE.start,
            account=account,
        )
        agent = Agent(None, name, row)
        self.configure(agent, **options)
        return agent

    def configure(self, agent: Agent | None = None, **options: str) -> None:
        """Give an agent its settings; further options as in its section."""
        agent = agent or self.agent
        named = tuple(
            Account(name, "claude", self.folder / name, None, self.max_agents.get(name)) for name in ACCOUNTS
        )
        using = Settings(Path("/f.yaml"), Path("/s"), Shared(), named, {})
        section = {
            "name": agent.identity,
            "cmd": "failover-session",
            "working_dir": str(self.folder),
            "failover.runtime": "claude",
            "failover.account": "one",
            **{f"failover.{key}": value for key, value in options.items()},
        }
        agent.settings = agent_settings.parse(section, using, "circus.ini")

    def learn(self, name: str, state: AccountState, secs: float | None = 600.0, **more: Any) -> None:
        """Let something be known of an account; a limit resets in so many seconds."""
        until = self.now + secs if state is AccountState.LIMITED and secs is not None else None
        fields = {"since": self.now - 60, "seen_at": self.now - 60, "source": "transcript", **more}
        self.known[name] = Known(name, "claude", state, until=until, **fields)

    def limit(self, *names: str, secs: float | None = 600.0) -> None:
        for name in names:
            self.learn(name, AccountState.LIMITED, secs)

    def does(self, state: State, fault: Fault | None = None) -> None:
        """Let the agent have been seen to do this just now."""
        assert HERE is not None
        health = Health(state, at=self.now, fault=fault)
        self.agent.seen = Seen(3, HERE, time.time(), 2.0, health)

    def row(self, **changes: Any) -> None:
        self.agent.row = replace(self.agent.row, **changes)

    def verdict(self) -> limit_verdicts.LimitVerdict:
        return limit_verdicts.verdict(self.held, self.agent, look=False)

    def _known(self, name: str) -> Known:
        found = self.known.get(name)
        return Known(name, "") if found is None else accounts.current(found, time.time())

    def _exhausted(self, name: str | None) -> bool:
        return name is not None and self._known(name).state.exhausted

    def _headroom(self, name: str) -> float | None:
        found = self.known.get(name)
        return None if found is None else accounts.headroom(found, time.time())

    def _check(self, agent: Agent, to: str, *, force: bool = False) -> list[str]:
        self.looked_at.append(to)
        return [self.wrong[to]] if to in self.wrong else []


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with contextlib.closing(Store(tmp_path / "failover.db")) as store:
        yield Case(tmp_path, store)


LIMIT = Fault(FaultKind.USAGE_LIMIT, "You've hit your limit", "5-hour")
LOGIN = Fault(FaultKind.CREDENTIALS, "Please run /login")


def test_the_gate_holds_who_is_to_wait_and_says_until_when_and_what_helps(case: Case) -> None:
    case.configure(on_limit="wait")
    case.row(phase="parked")
    assert limits.hindrance(case.held, case.agent) is None
    case.learn("one", AccountState.LIMITED, limit_name="5-hour")
    found = limits.hindrance(case.held, case.agent)
    assert found is not None and found.cause is Cause.LIMITED
    assert found.reason.startswith(
        "account one is exhausted, and failover.on_limit is wait: limited (5-hour)"
    )
    assert "`failoverctl switch bob --to three` moves it" in found.reason
    assert "`failoverctl accounts forget one`" in found.reason
    columns = limits.refused(case.held, case.agent)
    assert columns["phase"] is Phase.HELD and 600 < columns["limited_until"] - case.now < 610
    case.learn("one", AccountState.CREDENTIALS)
    found = limits.hindrance(case.held, case.agent)
    assert found is not None and "`failoverctl accounts check one`" in found.reason
    assert limits.refused(case.held, case.agent)["limited_until"] > case.now + 1700, "nobody knows of a reset"


def test_the_gate_lets_pass_who_goes_on_elsewhere_is_on_its_way_or_may_fail_there(case: Case) -> None:
    case.row(phase="down")
    case.limit("one")
    assert limits.hindrance(case.held, case.agent) is None and limits.moves(case.held, case.agent)
    found = limits.choice(case.held, case.agent)
    assert found is not None and found.account == "three"
    case.limit("two", "three", secs=60)
    refused = limits.hindrance(case.held, case.agent)
    assert refused is not None and "two: limited, resets" in refused.reason
    assert "failoverctl switch" not in refused.reason, "that would be refused, too"
    assert not limits.moves(case.held, case.agent)
    assert 60 < limits.refused(case.held, case.agent)["limited_until"] - time.time() < 66, "the earliest"
    case.row(switching="two")
    assert limits.hindrance(case.held, case.agent) is None
    case.row(switching=None)
    for options in ({"on_limit": "park"}, {"on_limit": "notify"}, {"on_limit": "wait", "mode": "observe"}):
        case.configure(**options)
        assert limits.hindrance(case.held, case.agent) is None and not limits.moves(case.held, case.agent)


def test_it_is_moved_right_before_its_launch_and_stays_when_that_cannot_be_stored(case: Case) -> None:
    moved: list[tuple[str, str]] = []
    case.held.switches.before_launch = lambda agent, to, why: moved.append((to, why))
    case.row(phase="down")
    assert not limits.before_launch(case.held, case.agent)
    case.limit("one")
    assert limits.before_launch(case.held, case.agent)
    ((to, why),) = moved
    assert to == "three" and "of 2" in why

    def fails(agent: Agent, to: str, why: str) -> None:
        raise limits.StoreError("the disk is full")

    case.held.switches.before_launch = fails
    assert not limits.before_launch(case.held, case.agent)


def test_the_home_of_an_account_is_looked_at_only_where_it_would_be_chosen(case: Case) -> None:
    case.learn("two", AccountState.AVAILABLE, usage=(Usage("weekly", 0.9, None, case.now),))
    case.row(phase="down")
    case.limit("one")
    assert limits.choose(case.held, case.agent).account == "three" and case.looked_at == ["three"]
    case.wrong["three"] = "its projects are not shared"
    found = limits.choose(case.held, case.agent)
    assert found.account == "two" and "three: its projects are not shared" in found.others("one")
    case.held.switches.check = None
    found = limits.choose(case.held, case.agent)
    assert found.account is None and "could not be looked at" in found.reason


def test_who_is_on_an_account_or_on_its_way_there_counts_against_its_cap(case: Case) -> None:
    case.max_agents = {"two": 2, "three": 1}
    case.configure()
    case.limit("one")
    case.row(phase="down")
    case.held.roster.agents["up"] = case.other("up", account="three")
    case.held.roster.agents["parked"] = case.other("parked", Phase.PARKED, account="two")
    assert limits.choose(case.held, case.agent).account == "two"
    way = case.other("way")
    case.held.roster.agents["way"] = way
    way.action = SimpleNamespace(intent="switch", spec={"to": "two"})  # type: ignore[assignment]
    assert limits.choose(case.held, case.agent).account == "two"
    case.held.roster.agents["two"] = case.other("two", Phase.STARTING, account="two")
    found = limits.choose(case.held, case.agent)
    assert found.account is None and "two: full: 2 of 2 agents are up on it" in found.reason


def was_on(case: Case, *launches: tuple[str, float]) -> None:
    """Let it have been launched on these accounts, the last one last, each until so many seconds ago."""
    with case.held.store.decision(durable=False):
        for generation, (account, ago) in enumerate(launches, 1):
            ended = case.now - ago
            case.held.store.add_launch(LaunchRow("bob", generation, "x", "", account, None, ended - 9))
            case.held.store.end_launch("bob", generation, at=ended, planned=True, cause="switched")


def test_it_does_not_return_where_it_was_a_moment_ago_unless_that_can_be_used_since(case: Case) -> None:
    was_on(case, ("two", 250), ("two", 200), ("three", 100), ("one", 50))
    case.limit("one")
    found = limits.choose(case.held, case.agent)
    assert found.account is None and "it left it 200 s ago" in found.reason
    case.learn("two", AccountState.UNKNOWN, since=case.now - 10)
    assert limits.choose(case.held, case.agent).account == "two", "it was reset"
    case.known.pop("two")
    case.learn("three", AccountState.AVAILABLE, answered_at=case.now - 10)
    assert limits.choose(case.held, case.agent).account == "three", "another agent has got an answer"


def test_a_relaunch_on_the_same_account_is_no_leaving(case: Case) -> None:
    case.known["two"] = Known("two", "claude", AccountState.CREDENTIALS)
    case.learn("three", AccountState.AVAILABLE, answered_at=case.now - 1)
    case.limit("one")
    was_on(case, ("three", 400), ("three", 30), ("one", 5))
    assert limits.choose(case.held, case.agent).account == "three"


def test_what_others_get_an_answer_on_is_tried_but_once_more_by_one_that_gets_none(case: Case) -> None:
    case.known["two"] = Known("two", "claude", AccountState.CREDENTIALS)
    case.learn("three", AccountState.AVAILABLE, answered_at=case.now - 1)
    case.limit("one")
    was_on(case, ("three", 90), ("one", 60), ("three", 30), ("one", 5))
    found = limits.choose(case.held, case.agent)
    assert found.account is None and "three: it left it 30 s ago" in found.reason
    assert found.earliest is not None and abs(found.earliest - (case.now + 270)) < 1


def test_what_is_found_follows_from_what_its_client_says_and_what_others_have_learned(case: Case) -> None:
    case.does(State.IDLE)
    assert case.verdict().action is LimitAction.LEAVE
    case.does(State.LIMITED, LIMIT)
    found = case.verdict()
    assert (found.action, found.to) == (LimitAction.SWITCH, "three"), "also before anything is known of it"
    case.does(State.LIMITED, replace(LIMIT, model_only=True))
    assert case.verdict().action is LimitAction.LEAVE
    case.does(State.WAITING, LOGIN)
    assert case.verdict().action is LimitAction.SWITCH
    case.row(launch=None)
    assert case.verdict().action is LimitAction.LEAVE, "somebody else has started it, nobody knows where"
    case.row(launch="l3")
    case.does(State.WAITING)
    assert case.verdict().action is LimitAction.LEAVE, "a person is asked something"
    case.does(State.IDLE)
    case.limit("one")
    assert case.verdict().action is LimitAction.LEAVE, "it has no work"
    case.tasks = True
    assert case.verdict().action is LimitAction.SWITCH
    case.tasks = False
    case.configure(pool="crew")
    case.jobs = [Job(1, "w1", None, "other"), Job(2, "w2", "zoe", "crew")]
    assert case.verdict().action is LimitAction.LEAVE
    case.jobs = [Job(1, "w1", None, "crew")]
    assert case.verdict().action is LimitAction.SWITCH
    case.agent.waking = True
    assert case.verdict().action is LimitAction.LEAVE
    case.agent.waking = False
    case.configure(on_limit="wait", pool="crew")
    case.does(State.LIMITED, LIMIT)
    found = case.verdict()
    assert found.action is LimitAction.HOLD and found.until is not None and found.until > case.now + 600


def test_before_the_wall_it_moves_only_idle_without_work_and_for_more_headroom(case: Case) -> None:
    case.configure(switch_at="80")
    case.does(State.IDLE)
    case.learn("one", AccountState.AVAILABLE, usage=(Usage("weekly", 0.8, None, case.now),))
    for name, used in (("two", 0.75), ("three", 0.7)):
        case.learn(name, AccountState.AVAILABLE, usage=(Usage("weekly", used, None, case.now),))
    assert case.verdict().to == "three"
    case.learn("three", AccountState.AVAILABLE, usage=(Usage("weekly", 0.71, None, case.now),))
    assert case.verdict().action is LimitAction.LEAVE
    case.learn("three", AccountState.AVAILABLE)
    case.work = True
    assert case.verdict().action is LimitAction.LEAVE
    case.work = False
    case.does(State.WORKING)
    assert case.verdict().action is LimitAction.LEAVE


def test_before_the_wall_nobody_is_moved_at_whom_somebody_looks_or_of_whom_that_cannot_be_told(
    case: Case, tmp_path: Path
) -> None:
    def verdict() -> LimitAction:
        return limit_verdicts.verdict(case.held, case.agent).action

    case.configure(switch_at="80")
    case.does(State.IDLE)
    case.learn("one", AccountState.AVAILABLE, usage=(Usage("weekly", 0.9, None, case.now),))
    socket = Path(tempfile.mkdtemp(prefix="cf-", dir="/tmp")) / "s"
    tmux = ["env", "-u", "TMUX", "tmux", "-f", "/dev/null", "-S", str(socket)]
    case.row(socket=str(socket), session="bob")
    assert case.verdict().action is LimitAction.SWITCH and verdict() is LimitAction.LEAVE, "no server answers"
    try:
        subprocess.run([*tmux, "new-session", "-d", "-s", "bob", "sleep 60"], check=True, timeout=10)
        assert verdict() is LimitAction.SWITCH
        with subprocess.Popen(
            [*tmux, "-C", "attach", "-t", "=bob"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client:
            assert client.stdout is not None and client.stdout.readline()
            assert verdict() is LimitAction.LEAVE
            client.communicate(b"detach\n", timeout=10)
        assert verdict() is LimitAction.SWITCH
    finally:
        subprocess.run([*tmux, "kill-server"], timeout=10)
        shutil.rmtree(socket.parent)


def test_who_is_held_is_woken_at_its_time_or_when_something_else_can_be_used_before(case: Case) -> None:
    case.limit("one", "two", "three")
    case.row(phase="held", cause="limited", limited_until=case.now + 700, pid=None)
    assert case.verdict().action is LimitAction.LEAVE
    case.learn("two", AccountState.UNKNOWN, source="forget")
    assert case.verdict().action is LimitAction.WAKE
    case.limit("two", secs=-1)  # it was to reset a second ago
    assert case.verdict().action is LimitAction.LEAVE
    case.row(limited_until=case.now - 0.1)
    assert case.verdict().action is LimitAction.WAKE
    case.limit("two")
    found = case.verdict()
    assert found.action is LimitAction.HOLD and found.until is not None and found.until > case.now + 600
    # Its section names no account any more; while its settings cannot be used that says nothing.
    assert case.agent.settings is not None
    case.agent.settings = replace(case.agent.settings, account=None, configured_account=None)
    assert case.verdict().action is LimitAction.WAKE
    case.agent.problems = "failover.yaml cannot be read"
    assert case.verdict().action is LimitAction.LEAVE
    case.row(cause="crash-loop")
    assert case.verdict().action is LimitAction.LEAVE


def test_work_and_pools_expect_nothing_of_who_would_be_held_and_something_of_who_would_be_moved(
    case: Case,
) -> None:
    def expected() -> tuple[bool, bool]:
        return limits.out(case.held, case.agent, "one"), limits.blocked(case.held, case.agent)

    assert expected() == (False, False)
    case.limit("one")
    assert expected() == (True, False), "up there it can do nothing, and is to be moved first"
    case.row(phase="parked")
    assert expected() == (False, False), "a launch moves it"
    case.limit("two", "three")
    assert expected() == (True, True)
    case.known.pop("two")
    case.configure(on_limit="wait")
    assert expected() == (True, True)
    case.configure(on_limit="park")
    assert expected() == (True, True), "it would be parked again at once"
    case.configure(on_limit="notify")
    assert expected() == (True, False), "a minimum is kept all the same"
