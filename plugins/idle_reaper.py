"""The idle reaper: asks circusd to park agents that are proven to be idle for longer than they may.

What "idle" means is the table of `policy.idle`; what is seen comes from `idle_evidence`. No proof, no park:
a probe that fails leaves its agent alone, and costs the others nothing. It never ends an agent itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from typing import Any

from circus_failover import agent_health, idle_evidence, process_table
from circus_failover.agent_health import LOOKER
from circus_failover.idle_evidence import Looks, Terminals
from circus_failover.observing import Observer
from circus_failover.plugin import FailoverPlugin, Refused, Said
from circus_failover.plugin_input import AgentPolicy, Event, agent_policy
from circus_failover.policy.idle import (
    Clock,
    Evidence,
    IdleAction,
    IdleSettings,
    IdleVerdict,
    Probe,
    clock_jumped,
    decide,
)
from circus_failover.records import AgentRow
from circus_failover.store import Reader
from circus_failover.words import ParkedBy, Phase, State

PROBES_AT_ONCE = 8
"""Each waits for one tmux server; a server that does not answer holds one of them for 2 s."""


@dataclass(frozen=True)
class ClientSeen:
    """A client that looked at a launch."""

    generation: int
    at: float
    """When it was last seen there, in epoch seconds."""
    here: bool
    """It was there at the last look."""


@dataclass(frozen=True)
class Work:
    """What keeps an agent from being idle, whatever it was seen to do."""

    tasks: int
    """How many wait for it."""
    assignment: bool
    """It has one, or one waits for it by name."""


NO_WORK = Work(0, False)


class IdleReaper(FailoverPlugin):
    """Parks agents that have been idle for longer than `failover.idle_secs`."""

    name = "idle-reaper"
    default_interval = 30.0

    def __init__(self, *arguments: Any, **config: Any) -> None:
        super().__init__(*arguments, **config)
        self._clock: Clock | None = None
        self._floor: float | None = None
        self._seen: dict[str, ClientSeen] = {}
        self._terminals = Terminals()
        self._observer = Observer()
        self._reported = Said()
        self._failing: set[str] = set()
        self._probing: set[str] = set()

    # -- as the base class drives it -------------------------------------------------------------------

    async def tick(self, store: Reader) -> None:
        """Look at every agent."""
        rows = list(store.agents(Phase.UP, Phase.OBSERVED).values())
        await self._judge(rows, _work(store), _looked(store))
        living = {row.identity: row.generation for row in rows}
        self._seen = {
            identity: seen for identity, seen in self._seen.items() if living.get(identity) == seen.generation
        }
        self._failing &= living.keys()
        self._reported.keep(living)
        if len(self._terminals) > 2 * len(rows):
            self._terminals.keep({row.process for row in rows if row.process is not None})
        self._observer.keep({row.process for row in rows if row.process is not None})

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Look at these agents alone."""
        rows = [row for identity in identities if (row := store.agent(identity)) is not None]
        if rows:
            await self._judge(rows, _work(store), _looked(store))

    def concerns(self, event: Event) -> bool:
        """Only what is up can be idle."""
        return event.phase in (None, Phase.UP)

    def remember(self, detail: Mapping[str, Any]) -> None:
        """Take in the clock and what was seen of clients, so that a suspend is noticed across a restart."""
        self._clock, self._floor, self._seen = clock_of(detail, process_table.boot_id())

    def remembered(self) -> dict[str, Any]:
        """Return the clock and what was seen of clients."""
        return detail_of(self._clock, self._floor, self._seen, process_table.boot_id())

    # -- looking ---------------------------------------------------------------------------------------

    def _look_at_clock(self) -> float:
        """Return the time, after noticing whether the clock has jumped since the last look."""
        clock = Clock(time.time(), time.monotonic())
        if self._clock is not None and clock_jumped(self._clock, clock):
            self._floor = clock.wall
            evidence = "the host was suspended or its clock was set: idle time counts anew for every agent"
            self.find("", "alive", outcome="counted-anew", evidence=evidence)
        self._clock = clock
        return clock.wall

    async def _judge(self, rows: Sequence[AgentRow], work: Mapping[str, Work], looked: float | None) -> None:
        now, idle = self._look_at_clock(), []
        for row in rows:
            try:
                if self._looks_idle(row, work.get(row.identity, NO_WORK), looked, now):
                    idle.append(row)
            except Exception as error:
                self.trouble(row.identity, error)
        if not idle:
            return
        # A server that did not answer the last time is asked when all the others have been.
        idle.sort(key=lambda row: row.identity in self._failing)
        looks, pool = Looks(), ThreadPoolExecutor(min(PROBES_AT_ONCE, len(idle)))
        try:
            probing = (self._probe(row, work.get(row.identity, NO_WORK), looks, pool) for row in idle)
            await asyncio.gather(*probing)
        finally:
            pool.shutdown(wait=False)

    def _looks_idle(self, row: AgentRow, work: Work, looked: float | None, now: float) -> bool:
        """Look at what costs nothing; say whether only a probe is missing.

        `looked` is when AgentStates looked at agents the last time; None: never.
        """
        if row.phase not in (Phase.UP, Phase.OBSERVED) or row.identity in self._probing:
            return False
        policy = agent_policy(row.policy)
        if policy is None or row.boot != process_table.boot_id():
            return False
        evidence = replace(self._evidence(row, policy, work, now), state=_said_to_be(row, looked, now))
        verdict = decide(_settings(policy), evidence, self._floor, now)
        # Whoever looks at it now will leave it unseen, unless they are looked for again.
        seen = self._seen.get(row.identity)
        watched = seen is not None and seen.here and seen.generation == row.generation
        if verdict.action is IdleAction.PROBE or (verdict.action is IdleAction.YOUNG and watched):
            return True
        self._steady(row, policy, verdict)
        return False

    def _evidence(self, row: AgentRow, policy: AgentPolicy, work: Work, now: float) -> Evidence:
        process, seen = row.process, self._seen.get(row.identity)
        gone = seen is not None and seen.generation == row.generation and not seen.here
        return Evidence(
            phase=Phase(row.phase),
            observed=policy.observed or row.phase == Phase.OBSERVED,
            state=None,
            ready_at=row.ready_at,
            last_activity=None if process is None else self._terminals.last_activity(process, now),
            last_task=row.last_task,
            last_attached=seen.at if seen is not None and gone else None,
            tasks_waiting=work.tasks,
            assignment=work.assignment,
            probe=None,
        )

    async def _probe(self, row: AgentRow, work: Work, looks: Looks, pool: ThreadPoolExecutor) -> None:
        """Probe one agent beside the others, and do what follows from it."""
        self._probing.add(row.identity)
        try:
            loop = asyncio.get_running_loop()
            probed = await loop.run_in_executor(pool, idle_evidence.probe, row, looks, self._observer)
            self._probed(row, work, probed.probe, probed.last_attached)
        except Exception as error:
            self.trouble(row.identity, error)
        finally:
            self._probing.discard(row.identity)

    # -- doing -----------------------------------------------------------------------------------------

    def _probed(self, row: AgentRow, work: Work, probe: Probe, last_attached: float | None) -> None:
        now, policy = self._look_at_clock(), agent_policy(row.policy)
        if policy is None:
            return
        if probe.failed:
            self._failing.add(row.identity)
        else:
            self._failing.discard(row.identity)
            self._reported.forget("probe", row.identity)
            self._note_clients(row, bool(probe.attached), last_attached, now)
        evidence = replace(self._evidence(row, policy, work, now), probe=probe)
        verdict = decide(_settings(policy), evidence, self._floor, now)
        if verdict.action is IdleAction.PARK:
            self._park(row, evidence, verdict)
        elif probe.failed and self._reported.changed("probe", row.identity, (row.generation, probe.failed)):
            self.find(row.identity, "error", age=verdict.age, outcome="left-alone", evidence=verdict.reason)
        else:
            self._steady(row, policy, verdict)

    def _note_clients(self, row: AgentRow, here: bool, last_attached: float | None, now: float) -> None:
        """Remember when an agent was last looked at; some servers know only when somebody began to."""
        before = self._seen.get(row.identity)
        at = before.at if before is not None and before.generation == row.generation else 0.0
        at = now if here else max(at, last_attached or 0.0)
        if at:
            self._seen[row.identity] = ClientSeen(row.generation, at, here)

    def _park(self, row: AgentRow, evidence: Evidence, verdict: IdleVerdict) -> None:
        if self.options.dry_run:
            if self._reported.changed("dry-run", row.identity, row.generation):
                self.find(
                    row.identity, "reaped-idle", age=verdict.age, outcome="dry-run", evidence=verdict.reason
                )
            return
        told = evidence.probe.last_activity if evidence.probe is not None else None
        signs = (evidence.last_activity, told, evidence.ready_at, evidence.last_task, evidence.last_attached)
        try:
            self.ask(
                "park",
                names=[row.identity],
                by=ParkedBy.IDLE_REAPER,
                parked_by=ParkedBy.IDLE_REAPER,
                generation=row.generation,
                # The sign itself, since circusd compares the terminal with it: an age would be rounded.
                idle_since=max(sign for sign in signs if sign is not None),
                age=verdict.age,
                evidence=verdict.reason,
            )
        except Refused as refusal:
            if self._reported.changed("refused", row.identity, (row.generation, str(refusal))):
                self.find(row.identity, "error", age=verdict.age, outcome="not-parked", evidence=str(refusal))

    def _steady(self, row: AgentRow, policy: AgentPolicy, verdict: IdleVerdict) -> None:
        """Tell about an agent that is left as it is, where lifecycle.log wants to know."""
        if self.log_verbose:
            observed = policy.observed or row.phase == Phase.OBSERVED
            self.find(
                row.identity,
                "skipped-observe" if observed else "alive",
                age=verdict.age,
                outcome=verdict.action,
                evidence=verdict.reason,
            )


def _settings(policy: AgentPolicy) -> IdleSettings:
    return IdleSettings(policy.idle_secs, policy.max_age_secs)


def _work(store: Reader) -> dict[str, Work]:
    """Return what agents have to do; one that has nothing to do is not in it."""
    waiting, assigned = store.waiting(), store.assigned()
    return {
        identity: Work(waiting.get(identity, 0), identity in assigned)
        for identity in waiting.keys() | assigned.keys()
    }


def _looked(store: Reader) -> float | None:
    row = store.plugins().get(LOOKER)
    return None if row is None else row.at


def _said_to_be(row: AgentRow, looked: float | None, now: float) -> State | None:
    """Return what is stored of what an agent does, as far as it still holds.

    The policy takes it for busy and never for idle: whether it became busy since is for the probe to see.
    """
    seen = agent_health.read(row.health)
    if seen is None or looked is None or not seen.of(row.generation, row.process):
        return None
    # What stays the same is not stored again.
    holds = replace(seen, at=max(seen.at, looked)).holds(now)
    return seen.health.state if holds else None


def detail_of(
    clock: Clock | None, floor: float | None, seen: Mapping[str, ClientSeen], boot: str
) -> dict[str, Any]:
    """Return what the reaper is to know again after a restart, as JSON takes it."""
    return {
        "boot": boot,
        "clock": None if clock is None else [clock.wall, clock.steady],
        "floor": floor,
        "seen": {identity: astuple(client) for identity, client in seen.items()},
    }


def clock_of(
    detail: Mapping[str, Any], boot: str
) -> tuple[Clock | None, float | None, dict[str, ClientSeen]]:
    """Return the last clock, the floor and the clients seen, from what `detail_of` returned.

    Args:
        detail: that, or anything else.
        boot: the boot of the host now; clocks of two boots cannot be compared, and no agent outlives one.

    Raises:
        ValueError, TypeError, KeyError: it is not what `detail_of` returns.
    """
    if detail.get("boot") != boot:
        return None, None, {}
    clock, floor = detail["clock"], detail["floor"]
    seen = {
        str(identity): ClientSeen(int(generation), float(at), bool(here))
        for identity, (generation, at, here) in detail["seen"].items()
    }
    return (
        None if clock is None else Clock(float(clock[0]), float(clock[1])),
        None if floor is None else float(floor),
        seen,
    )
