"""Accounts inside circusd: what is known of each, learned from all of its agents and shared by them at once.

What follows from a look is decided by `policy.accounts`; this keeps it, stores it when it has changed, and
says so: in lifecycle.log (`ev=account`), and in a notice, once while it lasts. It ends and starts no agent,
and neither reads nor says a credential.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from circus import logger

from circus_failover import account_checks, account_notices, account_rows, agent_health
from circus_failover.account_checks import Checked
from circus_failover.account_notices import Due
from circus_failover.agent import Agent
from circus_failover.agent_health import Look
from circus_failover.logfmt import timestamp
from circus_failover.policy import accounts
from circus_failover.policy.accounts import CHECKED, FORGOTTEN, Known, Told
from circus_failover.policy.health import Fault
from circus_failover.settings import Account
from circus_failover.store import StoreError
from circus_failover.words import AccountState, FaultKind, Source, State

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

STORE_ANSWERS_SECS = 60.0
"""How old the stored time of an account's last answer may be."""
STORE_AGAIN_SECS = 5.0
"""After so long what could not be stored is tried again."""
SAME_RESET_SECS = 60.0
"""Clients round: a reset that moves by less is the same."""


class Accounts:
    """What is known of the accounts of one supervisor's fleet."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._known: dict[str, Known] = {}
        self._unstored: set[str] = set()
        """Accounts of which something has changed that need not be stored at once."""
        self._store_after = 0.0
        self._checked: dict[str, float] = {}
        """The newest change of an account's login that was looked at, in epoch seconds."""
        self._undated: dict[str, tuple[int, object, float]] = {}
        """When a fault without a time was first seen at an agent: generation, fault, epoch seconds."""
        self._all_told: set[str] = set()
        """Runtimes of which it was told that every account is exhausted."""

    def load(self) -> None:
        """Read what is known from the store, when circusd takes it over."""
        store = self._supervisor.store
        if store is None:
            return
        try:
            self._known = {name: account_rows.known(row) for name, row in store.accounts().items()}
        except StoreError as error:
            logger.error("circus-failover: what is known of the accounts is forgotten: %s", error)
            return
        now = time.time()
        for runtime in {account.runtime for account in self.configured().values()}:
            # What was so before was told by the circusd before this one.
            list(self._all_exhausted(runtime, now))

    # -- what is known -----------------------------------------------------------------------------------

    def configured(self) -> dict[str, Account]:
        """Return the accounts that failover.yaml names, by name."""
        read = {
            id(agent.settings.settings): agent.settings.settings
            for agent in self._supervisor.roster.agents.values()
            if agent.settings is not None
        }
        return {account.name: account for one in read.values() for account in one.accounts}

    def known(self, name: str) -> Known:
        """Return what is known of an account now; of one that nobody has spoken of, that nothing is."""
        found = self._known.get(name)
        return Known(name, "") if found is None else accounts.current(found, time.time())

    def all(self) -> list[Known]:
        """Return what is known now of every configured account, by name."""
        found = []
        for name, account in sorted(self.configured().items()):
            known = self.known(name)
            found.append(known if known.runtime == account.runtime else Known(name, account.runtime))
        return found

    def exhausted(self, name: str | None) -> bool:
        """Say whether nothing can be done on an account now; without one, nobody knows of a limit."""
        found = self._known.get(name) if name is not None else None
        return found is not None and accounts.exhausted(found, time.time())

    def headroom(self, name: str) -> float | None:
        """Return which part of an account's tightest window is left, from 0 to 1; None: that is unknown."""
        found = self._known.get(name)
        return None if found is None else accounts.headroom(found, time.time())

    # -- what changes it ---------------------------------------------------------------------------------

    def learn(self, agent: Agent, look: Look) -> None:
        """Take in what a look at an agent tells of the account that its launch runs on.

        Args:
            agent: the agent.
            look: with what it does, also where that is what was told before.
        """
        name, health = agent.row.account, look.health
        if name is None or health is None:
            return
        told = Told(
            by=agent.identity,
            fault=health.fault,
            fault_at=self._fault_at(agent, look),
            source=None if health.source is None else str(health.source),
            working=health.state is State.WORKING,
            answered_at=look.answered_at,
            usage=look.usage,
        )
        self._learn(agent, name, told)

    def asked_for_login(self, agent: Agent, words: str) -> None:
        """Take in that an agent's client has asked for a login at its start, and went no further.

        Args:
            agent: the agent.
            words: how far it came.
        """
        if agent.row.account is not None:
            fault = Fault(FaultKind.CREDENTIALS, words[: agent_health.TEXT_SHOWN])
            told = Told(agent.identity, fault, time.time(), str(Source.SCREEN))
            self._learn(agent, agent.row.account, told)

    def _learn(self, agent: Agent, name: str, told: Told) -> None:
        now, stored = time.time(), self._of_launch(agent, name)
        before = accounts.current(stored, now)
        if before is not stored:
            self._change(stored, before, "expired", now)
        after = accounts.learn(before, told, now)
        if after != before:
            self._change(before, after, "learned", now)

    def used(self, name: str | None) -> None:
        """Remember that an agent is launched on an account now; without one there is nothing to remember."""
        if name is None:
            return
        found = self._known.get(name) or Known(name, self._runtime(name))
        self._known[name] = replace(found, used_at=time.time())
        self._unstored.add(name)
        self._store_after = 0.0

    def check(self, name: str, who: str, *, accept: bool = False) -> Checked:
        """See whether an account that was not logged in is again; if so, it is not exhausted any more.

        Args:
            name: a configured account.
            who: who asks.
            accept: a person says that it is logged in, where no file can tell.
        """
        now = time.time()
        known = self.known(name)
        found = account_checks.check(self._supervisor, self.configured()[name], known, accept=accept)
        if known.state is AccountState.CREDENTIALS and found.passed:
            why = f"accepted by {who}" if accept else f"checked: {found.text}"
            self._change(known, accounts.cleared(known, CHECKED, why, who, now), "checked", now)
        return found

    def forget(self, name: str, who: str) -> Known:
        """Forget what is known of an account; what clients have said until now does not bring it back."""
        now, known = time.time(), self.known(name)
        known = replace(known, runtime=known.runtime or self._runtime(name))
        forgotten = accounts.cleared(known, FORGOTTEN, f"forgotten by {who}", who, now)
        self._change(known, forgotten, "forgotten", now)
        return forgotten

    def tick(self) -> None:
        """At every tick: say and store what time has ended, and look whether logins are back."""
        now = time.time()
        for known in list(self._known.values()):
            after = accounts.current(known, now)
            if after is not known:
                self._change(known, after, "expired", now)
        self._check_logins()
        if self._unstored and time.monotonic() >= self._store_after:
            self._store_after = time.monotonic() + STORE_ANSWERS_SECS
            self._store(list(self._unstored))

    def _check_logins(self) -> None:
        """Clear accounts whose login was mended; most of the time there is none to look at."""
        bad = [name for name in self._known if self._known[name].state is AccountState.CREDENTIALS]
        configured = self.configured() if bad else {}
        for name in bad:
            at = account_checks.changed_at(configured[name]) if name in configured else 0.0
            if at > (self._known[name].seen_at or 0.0) and at != self._checked.get(name):
                self._checked[name] = at
                self.check(name, "circusd")

    # -- details -----------------------------------------------------------------------------------------

    def _of_launch(self, agent: Agent, name: str) -> Known:
        """Return what is known of the account of an agent's launch, as one of that launch's runtime."""
        runtime = agent.row.runtime or self._runtime(name)
        found = self._known.get(name)
        if found is None or found.runtime not in ("", runtime):
            return Known(name, runtime)
        return found if found.runtime else replace(found, runtime=runtime)

    def _runtime(self, name: str) -> str:
        account = self.configured().get(name)
        return account.runtime if account is not None else ""

    def _fault_at(self, agent: Agent, look: Look) -> float | None:
        """Return when what a client failed at happened; where it does not say, when that was first seen."""
        health = look.health
        fault = health.fault if health is not None else None
        if health is None or fault is None:
            self._undated.pop(agent.identity, None)
            return None
        if fault.retrying:
            return look.at
        if health.at is not None:
            return health.at
        what, before = _essence(fault), self._undated.get(agent.identity)
        if before is not None and before[:2] == (look.generation, what):
            return before[2]
        at, stored = look.at, agent_health.read(agent.row.health)
        was = stored.health.fault if stored is not None else None
        if stored is not None and was is not None and stored.of(look.generation, look.process):
            # The circusd before this one was told of it first.
            at = min(at, stored.at) if _essence(was) == what else at
        self._undated[agent.identity] = (look.generation, what, at)
        return at

    def _change(self, before: Known, after: Known, action: str, now: float) -> None:
        """Keep what is known now; store and say it where it matters to anybody."""
        self._known[after.name] = after
        if not _matters(before, after) and action in ("learned", "expired"):
            self._unstored.add(after.name)
            if _shares(before) != _shares(after):
                # Plugins decide by it: the next tick stores it.
                self._store_after = 0.0
            return
        self._log(before, after, action, now)
        notices = [*account_notices.due(before, after), *self._all_exhausted(after.runtime, now)]
        self._store([after.name], notices)

    def _all_exhausted(self, runtime: str, now: float) -> Iterator[Due]:
        """Yield what is told, once until that is over, when every account of a runtime is exhausted."""
        found = [known for known in self.all() if known.runtime == runtime]
        if not found or not all(accounts.exhausted(known, now) for known in found):
            self._all_told.discard(runtime)
        elif runtime not in self._all_told:
            self._all_told.add(runtime)
            yield account_notices.all_exhausted(runtime, found)

    def _store(self, names: Collection[str], notices: Iterable[Due] = ()) -> None:
        """Store what is known of accounts, with what is told of it; what cannot be stored is tried again."""
        held = self._supervisor
        self._unstored.update(names)
        if held.store is None:
            return
        try:
            with held.store.decision(durable=False):
                for name in names:
                    held.store.put_account(account_rows.row(self._known[name]))
                for one in notices:
                    write = held.notices.writing(
                        one.kind, one.text, identity=one.identity, key=one.key, **one.detail
                    )
                    write(held.store)
        except StoreError as error:
            if held.store_trouble is None:
                logger.error("circus-failover: what is known of accounts could not be stored: %s", error)
            held.store_trouble = str(error)
            self._store_after = time.monotonic() + STORE_AGAIN_SECS
            return
        self._unstored.difference_update(names)

    def _log(self, before: Known, after: Known, action: str, now: float) -> None:
        if self._supervisor.log is None:
            return
        self._supervisor.log.write(
            now,
            "account",
            action=action,
            account=after.name,
            state=after.state,
            was=before.state,
            limit=after.limit_name,
            until=None if after.until is None else timestamp(after.until),
            models=",".join(one.name for one in after.models) or None,
            identity=after.seen_by,
            source=after.source,
            seen=None if after.seen_at is None else timestamp(after.seen_at),
        )


def _essence(fault: Fault) -> tuple[object, ...]:
    """Return what two faults have in common that are one: a client counts its tries in its words."""
    return fault.kind, fault.window, fault.model_only


def _matters(before: Known, after: Known) -> bool:
    """Say whether something else follows from what is known: not from newer evidence for the same."""
    if (before.state, before.limit_name) != (after.state, after.limit_name):
        return True
    limits = [(one.name, one.until) for one in before.models], [(one.name, one.until) for one in after.models]
    return limits[0] != limits[1] or not _same_time(before.until, after.until)


def _shares(known: Known) -> list[tuple[str, float]]:
    """Return how much of each window is used, in whole percents."""
    return [(one.window, round(one.used, 2)) for one in known.usage]


def _same_time(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < SAME_RESET_SECS
