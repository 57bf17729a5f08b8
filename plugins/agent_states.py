"""Looks at what agents do, by what their clients tell, and says it to circusd.

What is seen comes from `observing`; what follows from it, here or anywhere, is decided elsewhere. It only
looks: an agent that cannot be looked at is `unknown`, and costs the others nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from circus_failover.agent_health import Look, is_conversation, told
from circus_failover.observing import Observer
from circus_failover.plugin import FailoverPlugin
from circus_failover.plugin_input import Event
from circus_failover.policy.health import Health
from circus_failover.records import AgentRow
from circus_failover.store import Reader
from circus_failover.words import Phase

LOOKS_AT_ONCE = 8
"""A tmux server that does not answer holds one of them for 2 s."""
HELD_UP_SECS = 0.05
"""When one has looked for so long, another one looks too."""
PATIENCE_SECS = 0.5
"""How long a look may keep the others from being told; it is told with the next ones."""
PAUSE_SECS = 0.25
"""From one look at an agent to the next, however many events there are."""
HEARTBEAT_TICKS = 2
"""After how many ticks what has not changed is told again; circusd doubts it after three and 5 s."""
LOOKS_TOLD = 100
"""How many circusd is told at once: when all of them have changed, its only loop takes 45 ms for so many."""
_LOOKED_AT = (Phase.UP, Phase.OBSERVED)


class AgentStates(FailoverPlugin):
    """Tells circusd what agents do: `idle`, `working`, `waiting`, `limited` or `unknown`."""

    name = "agent-states"
    default_interval = 2.0

    def __init__(self, *arguments: Any, **config: Any) -> None:
        super().__init__(*arguments, **config)
        self._observer = Observer()
        self._pool = ThreadPoolExecutor(LOOKS_AT_ONCE)
        self._looking: set[str] = set()
        self._begun: dict[str, float] = {}
        """When each was looked at, in monotonic seconds."""
        self._soon: set[str] = set()
        self._found: dict[str, Look] = {}
        self._told: dict[str, Look] = {}
        if self.options.dry_run:
            self.find("", "alive", outcome="dry-run", evidence="dry_run changes nothing: it only looks")

    # -- as the base class drives it -------------------------------------------------------------------

    async def tick(self, store: Reader) -> None:
        """Look at every agent whose runtime tells what it does."""
        rows = [row for row in store.agents(*_LOOKED_AT).values() if self._concerns(row)]
        self._forget(rows)
        await self._look(rows)
        self._tell(self._found)

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Look at these agents at once; at one that was looked at just now, in a moment."""
        rows, now = [], time.monotonic()
        for identity in identities:
            if identity in self._looking or now - self._begun.get(identity, -PAUSE_SECS) < PAUSE_SECS:
                self._look_soon(identity)
                continue
            row = store.agent(identity)
            if row is not None and row.phase in _LOOKED_AT and self._concerns(row):
                rows.append(row)
        if rows:
            await self._look(rows)
            self._tell([row.identity for row in rows])

    def concerns(self, event: Event) -> bool:
        """What is up may have changed when anything is said of it: it came up, or its client reported."""
        return event.kind != "agent" or event.phase in _LOOKED_AT

    # -- looking ---------------------------------------------------------------------------------------

    def _concerns(self, row: AgentRow) -> bool:
        return row.process is not None and self._observer.tells(row)

    def _look_soon(self, identity: str) -> None:
        if identity not in self._soon:
            self._soon.add(identity)
            self.loop.call_later(PAUSE_SECS, self._look_now, identity)

    def _look_now(self, identity: str) -> None:
        self._soon.discard(identity)
        self.look_at([identity])

    async def _look(self, rows: Sequence[AgentRow]) -> None:
        """Look at agents, several at a time; return when that is done, or at most after `PATIENCE_SECS`."""
        # One that is still being looked at since the last time waits for a server that does not answer.
        waiting = deque(row for row in rows if row.identity not in self._looking)
        if not waiting:
            return
        now, loop = time.monotonic(), asyncio.get_running_loop()
        for row in waiting:
            self._looking.add(row.identity)
            self._begun[row.identity] = now
        turns: set[asyncio.Future[None]] = set()
        while True:
            # One thread alone is the fastest where nobody has to be waited for.
            if waiting and len(turns) < LOOKS_AT_ONCE:
                turns.add(loop.run_in_executor(self._pool, self._take_turns, waiting))
            _, held_up = await asyncio.wait(turns, timeout=HELD_UP_SECS)
            if not held_up or time.monotonic() - now > PATIENCE_SECS:
                return

    def _take_turns(self, waiting: deque[AgentRow]) -> None:
        """Look at whoever is next, until nobody waits; in a thread of the pool."""
        while True:
            try:
                row = waiting.popleft()
            except IndexError:
                return
            try:
                self._found[row.identity] = self._seen(row)
            except Exception as error:
                self.trouble(row.identity, error)
            finally:
                self._looking.discard(row.identity)

    def _seen(self, row: AgentRow) -> Look:
        now = time.time()
        health, seen = self._observer.observe(row, now)
        assert row.process is not None
        conversation = seen.conversation if is_conversation(seen.conversation) else None
        return Look(
            row.identity,
            row.generation,
            row.process,
            now,
            health,
            conversation,
            seen.last_activity,
            seen.answered_at,
            seen.usage,
        )

    def _forget(self, rows: Sequence[AgentRow]) -> None:
        """Forget agents that are not up any more, and launches that have ended."""
        living = {row.identity for row in rows}
        self._observer.keep({row.process for row in rows if row.process is not None})
        for known in (self._found, self._told, self._begun):
            for identity in known.keys() - living:
                known.pop(identity, None)

    # -- telling ---------------------------------------------------------------------------------------

    def _tell(self, identities: Iterable[str]) -> None:
        """Tell circusd what has changed, and now and then what has not."""
        found = [self._found[identity] for identity in list(identities) if identity in self._found]
        due = [look for look in found if self._is_new(look) or self._is_due(look)]
        for start in range(0, len(due), LOOKS_TOLD):
            looks = due[start : start + LOOKS_TOLD]
            said = [told(look if self._is_new(look) else replace(look, health=None)) for look in looks]
            answer = self.ask("seen", interval=self.options.interval, agents=said)
            self._told.update((look.identity, look) for look in looks)
            for identity in answer["again"]:
                self._told.pop(identity, None)
                self._look_soon(identity)

    def _is_new(self, look: Look) -> bool:
        before = self._told.get(look.identity)
        if before is None or (before.generation, before.process) != (look.generation, look.process):
            return True
        return before.conversation != look.conversation or _said(before.health) != _said(look.health)

    def _is_due(self, look: Look) -> bool:
        # Half an interval less, since ticks are not quite as far apart as they should be.
        return look.at - self._told[look.identity].at >= (HEARTBEAT_TICKS - 0.5) * self.options.interval


def _said(health: Health | None) -> Health | None:
    """Return a health without the words for what says so: they tell nothing new by themselves."""
    return None if health is None else replace(health, evidence="")
