"""What circusd knows of accounts: learned from any agent, known to all, told once, mended by a check."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from circus.exc import ArgumentError

from circus_failover import account_checks, account_rows, agent_health, process_table
from circus_failover.account_checks import Checked
from circus_failover.accounts import Accounts
from circus_failover.agent import Agent
from circus_failover.agent_health import Look, Seen
from circus_failover.lifecycle_log import LifecycleLog
from circus_failover.notices import Notices
from circus_failover.policy.accounts import Known, ModelLimit, Usage
from circus_failover.policy.health import Fault, Health
from circus_failover.process_table import ProcessId
from circus_failover.records import AccountRow, AgentRow
from circus_failover.settings import Account, Settings, Shared
from circus_failover.store import Store
from circus_failover.verbs import accounts_verb
from circus_failover.words import AccountState, FaultKind, Source, State
from tests.live.fleet import parse_logfmt

AVAILABLE, LIMITED, CREDENTIALS, OVERLOADED, UNKNOWN = AccountState
PROCESS = ProcessId(4711, 998877)
SECRET = "sk-ant-oat01-not-to-be-seen-anywhere"


def limit(ago: float | None = 10.0, secs: float | None = 600.0, **more: Any) -> Health:
    """Return what a limited agent does, so many seconds after its limit; None: since when is not known."""
    resets = None if secs is None else time.time() + secs
    fault = replace(Fault(FaultKind.USAGE_LIMIT, "You've hit your limit", "5-hour", resets), **more)
    return failed(fault, State.LIMITED, ago)


def failed(fault: Fault, state: State, ago: float | None = 10.0) -> Health:
    return Health(state, Source.TRANSCRIPT, None if ago is None else time.time() - ago, fault=fault)


LOGIN = Fault(FaultKind.CREDENTIALS, "Login expired · Please run /login")
IDLE = Health(State.IDLE, Source.STATUS_FILE)


class Held:
    """What of a supervisor knows accounts: a real store and log, agents `bob` and `eve` on account `one`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "failover.db")
        self.log = LifecycleLog(folder / "lifecycle.log")
        self.notices = Notices(self)  # type: ignore[arg-type]
        self.store_trouble: str | None = None
        self.homes = {name: folder / name for name in ("one", "two")}
        for home in self.homes.values():
            home.mkdir()
        accounts = tuple(Account(name, "codex", home, None, None) for name, home in self.homes.items())
        self.settings = Settings(folder / "failover.yaml", folder, Shared(), accounts, {})
        self.agents = {name: self.agent(name) for name in ("bob", "eve")}
        self.roster = SimpleNamespace(agents=self.agents)
        self.accounts = Accounts(self)  # type: ignore[arg-type]
        self.accounts.load()

    def agent(self, name: str, account: str = "one") -> Agent:
        row = AgentRow(
            name,
            phase="up",
            generation=3,
            pid=PROCESS.pid,
            pid_start=PROCESS.start,
            boot=process_table.boot_id(),
            account=account,
            runtime="codex",
        )
        settings = SimpleNamespace(settings=self.settings, account=None)
        return Agent(None, name, row, settings=settings)  # type: ignore[arg-type]

    def look(self, name: str, health: Health | None, at: float | None = None, **more: Any) -> None:
        look = Look(name, 3, PROCESS, time.time() if at is None else at, health)
        self.accounts.learn(self.agents[name], replace(look, **more))

    def again(self) -> None:
        """Go on as the next circusd."""
        self.accounts = Accounts(self)  # type: ignore[arg-type]
        self.accounts.load()

    def stored(self, name: str = "one") -> AccountRow:
        return self.store.accounts()[name]

    def noticed(self) -> list[tuple[str, str, str]]:
        return [(row.kind, row.key, row.text) for row in self.store.notices(0)]

    def lines(self) -> list[dict[str, str]]:
        if not self.log.path.exists():
            return []
        return [parse_logfmt(line) for line in self.log.path.read_text().splitlines()]

    def log_in(self, ago: float, name: str = "one") -> None:
        """Write a login into a home, so many seconds ago."""
        path = self.homes[name] / "auth.json"
        path.write_text(json.dumps({"tokens": {"access_token": SECRET, "refresh_token": SECRET}}))
        os.utime(path, (time.time() - ago, time.time() - ago))


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    made = Held(tmp_path)
    yield made
    made.store.close()


# -- learning ------------------------------------------------------------------------------------------


def test_a_limit_that_one_agent_sees_is_known_of_its_account_at_once_and_to_the_next_circusd(
    held: Held,
) -> None:
    held.look("bob", limit())
    known = held.accounts.known("one")
    assert (known.state, known.limit_name, known.seen_by) == (LIMITED, "5-hour", "bob")
    assert held.accounts.exhausted("one") and held.accounts.headroom("one") == 0.0
    assert not held.accounts.exhausted("two") and not held.accounts.exhausted(None)
    assert account_rows.known(held.stored()) == known
    held.again()
    assert held.accounts.known("one") == known
    (line,) = held.lines()
    assert (line["ev"], line["action"], line["account"], line["state"]) == (
        "account",
        "learned",
        "one",
        "limited",
    )
    assert (line["was"], line["limit"], line["identity"]) == ("unknown", "5-hour", "bob")
    assert (line["source"], known.source) == ("transcript", "transcript")


def test_what_is_seen_is_about_the_account_of_the_launch_whatever_the_next_one_will_be_on(
    held: Held,
) -> None:
    bob = held.agents["bob"]
    bob.settings = SimpleNamespace(settings=held.settings, account=held.settings.account("two"))  # type: ignore[assignment]
    held.look("bob", limit())
    assert held.accounts.exhausted("one") and not held.accounts.exhausted("two")
    bob.row = replace(bob.row, account=None)
    held.look("bob", failed(LOGIN, State.WAITING))
    assert held.accounts.known("one").state is LIMITED


def test_an_answer_at_another_agent_ends_a_limit_for_all_and_an_old_screen_does_not_bring_it_back(
    held: Held,
) -> None:
    start = time.time() - 100
    held.look("bob", limit(None), at=start)
    held.look("eve", IDLE, answered_at=start + 50)
    assert held.accounts.known("one").state is AVAILABLE
    for later in (60, 70, 80):
        held.look("bob", limit(None), at=start + later)
    assert held.accounts.known("one").state is AVAILABLE
    # A turn that has failed since is another one.
    held.look("bob", IDLE, at=start + 85)
    held.look("bob", limit(None), at=start + 90)
    assert held.accounts.exhausted("one")


def test_the_next_circusd_does_not_take_a_fault_without_a_time_for_a_new_one(held: Held) -> None:
    start, bob = time.time() - 100, held.agents["bob"]
    seen = limit(None)
    held.look("bob", seen, at=start)
    bob.row = replace(bob.row, health=agent_health.text(Seen(3, PROCESS, start, 2.0, seen)))
    held.look("eve", IDLE, answered_at=start + 50)
    held.again()
    held.look("bob", limit(None))
    assert held.accounts.known("one").state is AVAILABLE


def test_a_limit_that_is_retried_or_of_one_model_or_a_plain_429_does_not_exhaust_an_account(
    held: Held,
) -> None:
    for fault in (
        Fault(FaultKind.RATE_LIMIT, "429", retrying=True),
        Fault(FaultKind.OVERLOAD, "529", retrying=True),
    ):
        held.look("bob", failed(fault, State.WORKING, None))
        assert not held.accounts.exhausted("one")
    assert held.accounts.known("one").state is OVERLOADED
    held.look("bob", limit(window="opus", model_only=True))
    assert not held.accounts.exhausted("one") and held.accounts.known("one").models[0].name == "opus"
    ((kind, key, text),) = held.noticed()
    assert (kind, key) == ("limited", "account one opus") and "for one model" in text


def test_an_overload_lasts_while_a_client_still_retries(held: Held) -> None:
    held.look("bob", failed(Fault(FaultKind.OVERLOAD, "529", retrying=True), State.WORKING, ago=900))
    assert held.accounts.known("one").state is OVERLOADED
    held.look("eve", failed(Fault(FaultKind.OVERLOAD, "529"), State.IDLE, ago=900))
    assert held.accounts.known("one").seen_by == "bob"


def test_usage_is_known_and_need_not_be_stored_at_once(held: Held) -> None:
    now = time.time()
    held.look("bob", IDLE, answered_at=now - 5)
    held.look("bob", IDLE, answered_at=now - 2, usage=(Usage("weekly", 0.75, now + 99, now - 2),))
    assert held.accounts.headroom("one") == pytest.approx(0.25)
    assert held.stored().usage == "[]"
    held.accounts.tick()
    assert account_rows.known(held.stored()) == held.accounts.known("one")
    held.look("bob", IDLE, answered_at=now - 1)
    held.accounts.tick()
    assert held.stored().answered_at == now - 2, "an answer more is not stored at each tick"
    held.look("bob", IDLE, usage=(Usage("weekly", 0.8, now + 99, now - 1),))
    held.accounts.tick()
    assert account_rows.known(held.stored()) == held.accounts.known("one")
    assert held.accounts.headroom("two") is None


def test_a_launch_is_remembered_with_the_next_tick(held: Held) -> None:
    held.accounts.tick()
    held.accounts.used("two")
    held.accounts.used(None)
    held.accounts.tick()
    row = held.stored("two")
    assert row.used_at is not None and row.runtime == "codex" and row.state == "unknown"


def test_a_limit_is_over_at_its_reset_and_that_is_logged_and_stored(held: Held) -> None:
    held.look("bob", limit())
    row = held.stored()
    with held.store.decision(durable=False):
        held.store.put_account(replace(row, until=time.time() - 1))
    held.again()
    assert not held.accounts.exhausted("one") and held.accounts.known("one").state is UNKNOWN
    assert held.stored().state == "limited"
    held.accounts.tick()
    assert (held.stored().state, held.lines()[-1]["action"]) == ("unknown", "expired")
    assert [known.state for known in held.accounts.all()] == [UNKNOWN, UNKNOWN]


def test_what_cannot_be_stored_is_known_all_the_same_and_stored_later(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circus_failover.accounts.STORE_AGAIN_SECS", 0.0)
    held.store._db.execute("PRAGMA query_only = 1")
    held.look("bob", limit())
    assert held.accounts.exhausted("one") and held.store_trouble
    held.accounts.tick()
    assert not held.store.accounts()
    held.store._db.execute("PRAGMA query_only = 0")
    held.accounts.tick()
    assert held.stored().state == "limited"


# -- notices -------------------------------------------------------------------------------------------


def test_a_limit_is_told_once_while_it_lasts_and_all_of_them_once_until_one_is_available(held: Held) -> None:
    held.agents["tom"] = held.agent("tom", "two")
    for _ in range(2):
        held.look("bob", limit(20))
        held.look("eve", limit(10, 3600.0))
        held.look("tom", limit(10))
    kinds = [(kind, key) for kind, key, _ in held.noticed()]
    everything = [("limited", "account one"), ("limited", "account two"), ("all-limited", "runtime codex")]
    assert kinds == everything
    assert (
        "no account of the runtime codex can be used: one, two; the first resets at"
        in (held.noticed()[-1][2])
    )
    held.look("eve", limit(8, 7200.0))
    assert len(held.noticed()) == 3, "another reset is no other limit"
    held.again()
    held.look("tom", limit(5, 3600.0))
    assert len(held.noticed()) == 3, "the next circusd does not tell it again"
    held.look("tom", IDLE, answered_at=time.time() - 4)
    held.look("tom", limit(1))
    assert [(kind, key) for kind, key, _ in held.noticed()][3:] == everything[1:]


def test_a_login_that_has_failed_is_told_once_with_what_to_do(held: Held) -> None:
    for name in ("bob", "eve", "bob"):
        held.look(name, failed(LOGIN, State.WAITING))
    ((kind, key, text),) = held.noticed()
    assert (kind, key) == ("credentials", "account one")
    assert "accounts check one" in text and "seen at bob" in text
    held.look("bob", limit(window="opus", model_only=True))
    assert [key for _, key, _ in held.noticed()] == ["account one", "account one opus"]


def test_a_client_that_asks_for_a_login_at_its_start_says_so_of_its_account(held: Held) -> None:
    held.look("eve", IDLE, answered_at=time.time() - 60)
    held.accounts.asked_for_login(held.agents["bob"], "it asks how to log in: log in with /login")
    known = held.accounts.known("one")
    assert (known.state, known.seen_by, known.source) == (CREDENTIALS, "bob", "screen")
    held.look("eve", IDLE, answered_at=time.time())
    assert held.accounts.known("one").state is AVAILABLE
    bob = held.agents["bob"]
    bob.row = replace(bob.row, account=None)
    held.accounts.asked_for_login(bob, "it asks how to log in")
    assert not held.accounts.exhausted("one")


# -- checking and forgetting ---------------------------------------------------------------------------


def test_a_login_that_has_failed_is_good_again_only_when_it_is_newer_than_that(
    held: Held,
) -> None:
    held.log_in(ago=60)
    held.look("bob", failed(LOGIN, State.WAITING, ago=30))
    refused = held.accounts.check("one", "pat")
    assert not refused.passed and "no file of it is newer" in refused.text
    assert held.accounts.known("one").state is CREDENTIALS
    (held.homes["one"] / "auth.json").unlink()
    assert "not logged in" in held.accounts.check("one", "pat", accept=True).text
    assert held.accounts.exhausted("one")
    held.log_in(ago=5)
    assert held.accounts.check("one", "pat").passed
    assert held.accounts.known("one").state is UNKNOWN and held.lines()[-1]["action"] == "checked"
    held.look("bob", failed(LOGIN, State.WAITING, ago=30))
    assert not held.accounts.exhausted("one"), "what an old screen still shows was before the check"
    held.look("bob", failed(LOGIN, State.WAITING, ago=-0.01))
    assert held.accounts.exhausted("one")


def test_circusd_sees_by_itself_that_a_login_was_mended_and_a_person_may_say_so(
    held: Held,
) -> None:
    held.log_in(ago=60)
    held.look("bob", failed(LOGIN, State.WAITING, ago=30))
    held.accounts.tick()
    assert held.accounts.exhausted("one")
    held.log_in(ago=5)
    held.again()
    held.accounts.tick()
    assert held.accounts.known("one").state is UNKNOWN
    assert held.lines()[-1]["action"] == "checked"
    held.log_in(ago=60)
    held.look("bob", failed(LOGIN, State.WAITING, ago=-0.01))
    assert held.accounts.check("one", "pat", accept=True).passed
    known = held.accounts.known("one")
    assert (known.state, known.text, known.source) == (UNKNOWN, "accepted by pat", "check")


def test_circusd_looks_at_a_login_once_for_each_change_of_its_file(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    really = account_checks.check

    def check(supervisor: Any, account: Account, known: Known, *, accept: bool) -> Checked:
        looked.append(account.name)
        return really(supervisor, account, known, accept=accept)

    monkeypatch.setattr(account_checks, "check", check)
    held.log_in(ago=60)
    held.look("bob", failed(LOGIN, State.WAITING, ago=30))
    held.accounts.tick()
    assert not looked, "it was there when it failed"
    path = held.homes["one"] / "auth.json"
    path.write_text("{}")
    for ago in (20, 20, 10, 10):
        os.utime(path, (time.time() - ago, int(held.accounts.known("one").seen_at or 0) + 30 - ago))
        held.accounts.tick()
    assert looked == ["one", "one"] and held.accounts.exhausted("one")


def test_a_reset_that_clients_round_differently_is_not_told_again(held: Held) -> None:
    for secs in (600.0, 605.0, 590.0):
        held.look("bob", limit(ago=600 - secs / 2, secs=secs))
    assert len(held.lines()) == 1
    held.look("bob", limit(ago=1, secs=900.0))
    assert len(held.lines()) == 2


def test_what_is_forgotten_is_learned_again_only_when_it_is_said_anew(held: Held) -> None:
    held.look("bob", limit(10))
    assert held.accounts.forget("one", "pat").text == "forgotten by pat"
    held.look("bob", limit(10))
    assert not held.accounts.exhausted("one") and held.stored().state == "unknown"
    held.look("bob", limit(-0.01))
    assert held.accounts.exhausted("one")


def test_no_credential_is_in_what_is_stored_logged_noticed_or_answered(
    held: Held,
) -> None:
    held.log_in(ago=60)
    held.look("bob", failed(LOGIN, State.WAITING, ago=30))
    texts = [held.accounts.check("one", "pat").text]
    held.log_in(ago=5)
    texts.append(held.accounts.check("one", "pat").text)
    held.look("bob", limit())
    shown = accounts_verb.shown(held, held.accounts.all())  # type: ignore[arg-type]
    texts += [json.dumps(shown), accounts_verb.table(shown, time.time()), repr(held.noticed())]
    texts += [held.log.path.read_text(), repr(held.store.accounts())]
    assert not any(SECRET in text or "oat01" in text for text in texts)


# -- the verb, and the rows ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ((), {}, {}),
        (("one", "two"), {}, {"names": ["one", "two"]}),
        (("check", "one"), {"accept": True}, {"action": "check", "names": ["one"], "accept": True}),
        (("forget", "one"), {}, {"action": "forget", "names": ["one"]}),
    ],
)
def test_the_command_line_says_what_is_asked(args: Any, options: Any, said: Any) -> None:
    assert accounts_verb.Accounts().message(*args, **options)["properties"] == said


@pytest.mark.parametrize(("args", "accept"), [(("check",), False), (("forget",), False), (("one",), True)])
def test_a_command_line_that_asks_for_nothing_is_refused(args: Any, accept: bool) -> None:
    with pytest.raises(ArgumentError):
        accounts_verb.Accounts().message(*args, accept=accept)


def test_accounts_are_shown_with_countdowns_bars_and_who_runs_on_them(held: Held) -> None:
    now = time.time()
    held.look("bob", limit(60, 7500.5))
    held.agents["tom"] = held.agent("tom", "two")
    used = (Usage("5-hour", 0.1, now + 99, now), Usage("weekly", 0.68, now + 9999, now))
    held.look("tom", IDLE, answered_at=now, usage=used)
    held.look("tom", limit(5, window="opus", model_only=True))
    shown = accounts_verb.shown(held, held.accounts.all())  # type: ignore[arg-type]
    assert [one["running"] for one in shown] == [["bob", "eve"], ["tom"]]
    head, _, one, two = accounts_verb.table(shown, now).splitlines()
    assert head.split()[:3] == ["ACCOUNT", "RUNTIME", "STATE"]
    assert "limited: 5-hour" in one and "2h5m" in one and "░░░░░░░░░░ 0%" in one
    assert "available" in two and "███░░░░░░░ 32% of weekly" in two and "opus limited for" in two
    text = accounts_verb.Accounts().console_msg({"status": "ok", "accounts": []})
    assert "no account is configured" in text


def test_names_that_clients_gave_cannot_steer_a_terminal_and_a_reset_that_nobody_knows_is_said(
    held: Held,
) -> None:
    escape = "\x1b]0;x\x07"
    held.look("bob", limit(secs=None, window=escape))
    held.look("bob", limit(window=f"{escape}2", model_only=True))
    held.agents["tom"] = held.agent("tom", "two")
    held.look("tom", IDLE, usage=(Usage(escape, 0.5, None, time.time()),))
    shown = accounts_verb.shown(held, held.accounts.all())  # type: ignore[arg-type]
    text = accounts_verb.table(shown, time.time())
    assert "\x1b" not in text and text.count("\\x1b]0;x") == 3
    assert "unknown" in text.splitlines()[2]


def test_what_the_store_holds_is_read_as_it_was_written_and_what_makes_no_sense_is_left_out() -> None:
    known = Known(
        "one",
        "claude",
        LIMITED,
        "weekly",
        99.0,
        "words",
        1.0,
        2.0,
        "bob",
        "screen",
        3.0,
        4.0,
        (ModelLimit("opus", None, 5.0),),
        (Usage("weekly", 1.5, 9.0, 8.0),),
    )
    row = account_rows.row(known)
    assert account_rows.known(row) == known
    for bad in (
        "",
        "{}",
        "[[]]",
        '[{"window": 1}]',
        '[{"window": "w", "used": -1, "resets_at": null, "at": 1}]',
    ):
        assert account_rows.known(replace(row, usage=bad)).usage == ()
    good = json.loads(row.usage)[0]
    assert len(account_rows.known(replace(row, usage=json.dumps([{}, good, 5]))).usage) == 1
    assert account_rows.known(replace(row, state="new-word")).state is UNKNOWN
