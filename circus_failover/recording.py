"""Recording: one call puts a decision into the store, into lifecycle.log and onto the event stream.

A decision that something irreversible follows from is stored, or it is not made. Any other is kept in memory
while the store cannot be written, and stored as soon as it can: no agent is stopped for a full disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover.agent import Agent
from circus_failover.lifecycle_log import LifecycleLog
from circus_failover.policy.bringup import Hindrance
from circus_failover.roster import Roster
from circus_failover.store import Store, StoreError
from circus_failover.words import Cause, Phase

if TYPE_CHECKING:
    from circus_failover.server_watches import ServerWatches

LAST_SCREEN = 2000
"""How many characters of an agent's last screen exits.log takes."""


class Recording:
    """What a supervisor writes down, and what it could not write down yet."""

    roster: Roster
    watches: ServerWatches

    def __init__(self) -> None:
        self.store: Store | None = None
        self.store_trouble: str | None = None
        self.alerts: dict[str, str] = {}
        """What plugins want somebody to know, by plugin; gone when it is over."""
        self.hindrance: Hindrance | None = None
        """Why no agent at all can be launched."""
        self.log: LifecycleLog | None = None
        self.exits: LifecycleLog | None = None
        self.changed_rows: set[str] = set()
        """Agents of whom the store has yet to hear something: their settings, or that a section came back."""
        self._unsaved: set[str] = set()

    def record(
        self,
        agent: Agent,
        ev: str,
        fields: dict[str, Any],
        *,
        durable: bool = False,
        must: bool = False,
        writes: Callable[[Store], Mapping[str, Any] | None] | None = None,
        **changes: Any,
    ) -> None:
        """Store, log and publish one decision about an agent.

        Args:
            agent: whom it is about.
            ev: the kind of decision (`launch`, `adopt`, `refuse`, `stop`, ...).
            fields: what the log line and the history say beyond identity and generation.
            durable: it must survive a power cut.
            must: raise when it cannot be stored, because something irreversible would follow; otherwise
                it is kept in memory and stored later.
            writes: further writes of the same transaction; what it returns is told like `fields`.
            changes: columns of the agent's row that change.

        Raises:
            StoreError: it could not be stored, and `must` was given.
        """
        now = time.time()
        if "phase" in changes:
            changes["phase"] = str(changes["phase"])
            if changes["phase"] != agent.row.phase or changes.get("generation", agent.row.generation) != (
                agent.row.generation
            ):
                changes.setdefault("since", now)
        if changes.get("cause") is not None:
            changes["cause"] = str(changes["cause"])
        row = replace(agent.row, **changes)
        shown = {name: str(raw) if isinstance(raw, (Cause, Phase)) else raw for name, raw in fields.items()}
        try:
            if self.store is not None:
                with self.store.decision(durable=durable):
                    if writes is not None:
                        shown.update(writes(self.store) or {})
                    self.store.put_agent(row)
                    self.store.add_history(
                        now, agent.identity, row.generation, ev, {"phase": row.phase, **shown}
                    )
                self._unsaved.discard(agent.identity)
            elif must:
                self.known()
        except StoreError as error:
            if must:
                raise
            self.store_trouble = str(error)
            self._unsaved.add(agent.identity)
            logger.error("circus-failover: %s", error)
        agent.row = row
        self.watches.follow(agent)
        if self.log is not None:
            self.log.write(now, ev, identity=agent.identity, generation=row.generation, **shown)
        self.publish(agent)
        agent.wake_waiters()

    def known(self) -> Store:
        """Return the store.

        Raises:
            StoreError: there is none; the text says why.
        """
        if self.store is None:
            raise StoreError(self.hindrance.reason if self.hindrance is not None else "there is no store")
        return self.store

    @property
    def trouble(self) -> str | None:
        """Return what is wrong with the whole fleet, or None."""
        found = self.hindrance.reason if self.hindrance is not None else self.store_trouble
        return found or "; ".join(self.alerts.values()) or None

    def publish(self, agent: Agent) -> None:
        """Publish an agent's phase and state on circusd's event stream, as `watcher.NAME.agent`."""
        state = agent.said_state = agent.state()
        agent.watcher.notify_event(
            "agent",
            {
                "time": time.time(),
                "identity": agent.identity,
                "generation": agent.row.generation,
                "phase": agent.row.phase,
                "state": str(state) if state else None,
                "cause": agent.row.cause,
                "reason": agent.reason,
            },
        )

    def supervise(self, agent: Agent, action: str, *, age: float | None, outcome: str, evidence: str) -> None:
        """Say in lifecycle.log what was done about an agent that nobody asked about (`ev=supervise`)."""
        if self.log is not None:
            self.log.write(
                time.time(),
                "supervise",
                identity=agent.identity,
                generation=agent.row.generation,
                action=action,
                age=None if age is None else round(age, 1),
                outcome=outcome,
                evidence=evidence,
            )

    def log_exit(
        self, agent: Agent, cause: Cause, status: int | None, number: int | None, screen: str | None
    ) -> None:
        """Write one line to exits.log about an agent that ended by itself, and not with its server.

        Args:
            agent: whose launch ended.
            cause: how.
            status: its exit status, where it exited.
            number: the signal that ended it, where one did.
            screen: what it showed last.
        """
        if self.exits is not None:
            self.exits.write(
                time.time(),
                "session-exit",
                identity=agent.identity,
                generation=agent.row.generation,
                cause=cause,
                dead_status=status,
                dead_signal=number,
                last_screen=(screen or "")[-LAST_SCREEN:],
            )

    def save_unsaved(self) -> None:
        """Store what could not be stored before, and see whether the store can be written again at all."""
        if self.store is None or self.store_trouble is None:
            return
        rows = [self.roster.agents[name].row for name in self._unsaved if name in self.roster.agents]
        try:
            with self.store.decision(durable=True):
                for row in rows:
                    self.store.put_agent(row)
        except StoreError as error:
            self.store_trouble = str(error)
            return
        self._unsaved.clear()
        self.store_trouble = None

    def save_changed(self) -> None:
        """Let plugins, which read the store, know the settings that are in force."""
        if self.store is None or not self.changed_rows:
            return
        agents = [self.roster.agents[name] for name in self.changed_rows if name in self.roster.agents]
        try:
            with self.store.decision(durable=False):
                for agent in agents:
                    self.store.put_agent(agent.row)
        except StoreError as error:
            self.store_trouble = str(error)
            return
        self.changed_rows.clear()
