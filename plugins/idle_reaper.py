"""The idle reaper: asks circusd to park agents that are proven to be idle for longer than they may.

What "idle" means is the table of `policy.idle`; what is seen comes from `idle_evidence`. No proof, no park:
a probe that fails leaves its agent alone, and costs the others nothing. It never ends an agent itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from circus_failover import idle_evidence, process_table
from circus_failover.idle_evidence import Looks, Terminals
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
from circus_failover.words import ParkedBy, Phase

PROBES_AT_ONCE = 8
"""Each waits for one tmux server; a server that does not answer holds one of them for 2 s."""


class IdleReaper(FailoverPlugin):
    """Parks agents that have been idle for longer than `failover.idle_secs`."""

    name = "idle-reaper"
    default_interval = 30.0

    def __init__(self, *arguments: Any, **config: Any) -> None:
        super().__init__(*arguments, **config)
        self._clock: Clock | None = None
        self._floor: float | None = None
        self._attached: dict[str, tuple[int, float]] = {}
        """When a client was last seen, by identity, with the generation it looked at."""
        self._terminals = Terminals()
        self._reported = Said()
        self._failing: set[str] = set()
        self._probing: set[str] = set()

    # -- as the base class drives it -------------------------------------------------------------------

    async def tick(self, store: Reader) -> None:
        """Look at every agent."""
        rows = store.agents()
        await self._judge(list(rows.values()), store.waiting())
        living = {row.identity: row.generation for row in rows.values() if row.phase == Phase.UP}
        self._attached = {
            identity: seen for identity, seen in self._attached.items() if living.get(identity) == seen[0]
        }
        self._failing &= living.keys()
        self._reported.keep(living)
        self._terminals.keep({row.process for row in rows.values() if row.process is not None})

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Look at these agents alone."""
        rows = [row for identity in identities if (row := store.agent(identity)) is not None]
        if rows:
            await self._judge(rows, store.waiting())

    def concerns(self, event: Event) -> bool:
        """Only what is up can be idle."""
        return event.phase in (None, Phase.UP)

    def remember(self, detail: Mapping[str, Any]) -> None:
        """Take in the clock and what was seen of clients, so that a suspend is noticed across a restart."""
        self._clock, self._floor, self._attached = clock_of(detail, process_table.boot_id())

    def remembered(self) -> dict[str, Any]:
        """Return the clock and what was seen of clients."""
        return detail_of(self._clock, self._floor, self._attached, process_table.boot_id())

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

    async def _judge(self, rows: Sequence[AgentRow], waiting: Mapping[str, int]) -> None:
        now, idle = self._look_at_clock(), []
        for row in rows:
            try:
                if self._looks_idle(row, waiting.get(row.identity, 0), now):
                    idle.append(row)
            except Exception as error:
                self.trouble(row.identity, error)
        if not idle:
            return
        # A server that did not answer the last time is asked when all the others have been.
        idle.sort(key=lambda row: row.identity in self._failing)
        looks, pool = Looks(), ThreadPoolExecutor(min(PROBES_AT_ONCE, len(idle)))
        try:
            probing = (self._probe(row, waiting.get(row.identity, 0), looks, pool) for row in idle)
            await asyncio.gather(*probing)
        finally:
            pool.shutdown(wait=False)

    def _looks_idle(self, row: AgentRow, waiting: int, now: float) -> bool:
        """Look at what costs nothing; say whether only a probe is missing."""
        if row.phase not in (Phase.UP, Phase.OBSERVED) or row.identity in self._probing:
            return False
        policy = agent_policy(row.policy)
        if policy is None or row.process is None or row.boot != process_table.boot_id():
            return False
        verdict = decide(_settings(policy), self._evidence(row, policy, waiting, now), self._floor, now)
        if verdict.action is IdleAction.PROBE:
            return True
        self._steady(row, policy, verdict)
        return False

    def _evidence(self, row: AgentRow, policy: AgentPolicy, waiting: int, now: float) -> Evidence:
        generation, attached = self._attached.get(row.identity, (0, None))
        return Evidence(
            phase=Phase(row.phase),
            observed=policy.observed or row.phase == Phase.OBSERVED,
            state=None,
            ready_at=row.ready_at,
            last_activity=self._terminals.last_activity(row.process, now) if row.process else None,
            last_task=row.last_task,
            last_attached=attached if generation == row.generation else None,
            tasks_waiting=waiting,
            assignment=False,
            probe=None,
        )

    async def _probe(self, row: AgentRow, waiting: int, looks: Looks, pool: ThreadPoolExecutor) -> None:
        """Probe one agent beside the others, and do what follows from it."""
        self._probing.add(row.identity)
        try:
            loop = asyncio.get_running_loop()
            probed = await loop.run_in_executor(pool, idle_evidence.probe, row, looks)
            self._probed(row, waiting, probed.probe, probed.last_attached)
        except Exception as error:
            self.trouble(row.identity, error)
        finally:
            self._probing.discard(row.identity)

    # -- doing -----------------------------------------------------------------------------------------

    def _probed(self, row: AgentRow, waiting: int, probe: Probe, last_attached: float | None) -> None:
        now, policy = self._look_at_clock(), agent_policy(row.policy)
        if policy is None:
            return
        if probe.failed:
            self._failing.add(row.identity)
        else:
            self._failing.discard(row.identity)
            self._reported.forget("probe", row.identity)
        # One that is attached now may be gone at the next look: until then it counts as the newest sign.
        seen = now if probe.attached else last_attached
        if seen is not None and seen > self._attached.get(row.identity, (0, 0.0))[1]:
            self._attached[row.identity] = (row.generation, seen)
        evidence = replace(self._evidence(row, policy, waiting, now), probe=probe)
        verdict = decide(_settings(policy), evidence, self._floor, now)
        if verdict.action is IdleAction.PARK:
            self._park(row, evidence, verdict)
        elif probe.failed and self._reported.changed("probe", row.identity, (row.generation, probe.failed)):
            self.find(row.identity, "error", age=verdict.age, outcome="left-alone", evidence=verdict.reason)
        else:
            self._steady(row, policy, verdict)

    def _park(self, row: AgentRow, evidence: Evidence, verdict: IdleVerdict) -> None:
        if self.options.dry_run:
            if self._reported.changed("dry-run", row.identity, row.generation):
                self.find(
                    row.identity, "reaped-idle", age=verdict.age, outcome="dry-run", evidence=verdict.reason
                )
            return
        signs = (evidence.last_activity, evidence.ready_at, evidence.last_task, evidence.last_attached)
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


def detail_of(
    clock: Clock | None, floor: float | None, attached: Mapping[str, tuple[int, float]], boot: str
) -> dict[str, Any]:
    """Return what the reaper is to know again after a restart, as JSON takes it."""
    return {
        "boot": boot,
        "clock": None if clock is None else [clock.wall, clock.steady],
        "floor": floor,
        "attached": {identity: list(seen) for identity, seen in attached.items()},
    }


def clock_of(
    detail: Mapping[str, Any], boot: str
) -> tuple[Clock | None, float | None, dict[str, tuple[int, float]]]:
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
    attached = {
        str(identity): (int(generation), float(at))
        for identity, (generation, at) in detail["attached"].items()
    }
    return (
        None if clock is None else Clock(float(clock[0]), float(clock[1])),
        None if floor is None else float(floor),
        attached,
    )
